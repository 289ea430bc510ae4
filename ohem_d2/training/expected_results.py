"""The results that a config expects, ``TEST.EXPECTED_RESULTS``, and those that are missed."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import verify_results

from ..config import base_architecture
from ..errors import InputError, shown
from ..evaluation.evaluators import tasks_of
from .nearest_keys import hint

_KEY = "TEST.EXPECTED_RESULTS"
_OF_COCO = ("bbox", "segm", "keypoints")


def check_expected_results(cfg: CfgNode) -> None:
    """
    Make sure that the evaluation will have the results that a config expects.

    Args:
        cfg: the config, with its data sets registered.

    Raises:
        InputError: it will not.
    """
    key, results = _KEY, cfg.TEST.EXPECTED_RESULTS
    names = cfg.DATASETS.TEST
    if results and len(names) != 1:
        raise InputError(
            f"{key} is {shown(results)}, expected []: DATASETS.TEST has {len(names)} data sets, "
            "and Detectron2 compares the results of a single one"
        )
    known = [task for name in names for task in tasks_of(name)]
    model = cfg.MODEL
    if base_architecture(cfg) in ("GeneralizedRCNN", "PanopticFPN", "RetinaNet", "FCOS"):
        heads = {"segm": model.MASK_ON, "keypoints": model.KEYPOINT_ON}
        known = [task for task in known if heads.get(task, True)]
    if cfg.TEST.AUG.ENABLED:
        known += [f"{task}_TTA" for task in known]
    for task, metric, value, tolerance in results:
        if task not in known:
            raise InputError(
                f"{key} is {shown(results)}, expected results of {', '.join(known) or 'nothing'}, "
                f"as the evaluation of {names[0]!r} has"
            )
        metrics = _metrics_of(names[0], task.removesuffix("_TTA"))
        if metrics and metric not in metrics:
            raise InputError(
                f"{key} is {shown(results)}, expected a metric of {task} such as "
                f"{', '.join(metrics[:6])} in the place of {metric!r}{hint(metric, metrics)}"
            )
        if metric.startswith("AP") and not (value - tolerance <= 100 and value + tolerance >= 0):
            raise InputError(
                f"{key} is {shown(results)}, expected {metric} in percent, from 0 to 100, in the "
                f"place of {value}"
            )


def _metrics_of(name: str, task: str) -> list[str]:
    """What Detectron2's evaluators name the results of a task; empty if that is not known."""
    metadata = MetadataCatalog.get(name)
    sizes = ["APm", "APl"] if task == "keypoints" else ["APs", "APm", "APl"]
    if metadata.evaluator_type == "pascal_voc":
        return ["AP", "AP50", "AP75"]
    if metadata.evaluator_type not in ("coco", "coco_panoptic_seg") or task not in _OF_COCO:
        return []
    classes = metadata.get("thing_classes", ())
    return ["AP", "AP50", "AP75", *sizes, *(f"AP-{x}" for x in classes if len(classes) > 1)]


@contextmanager
def named_expectations(
    cfg: CfgNode, results: Callable[[], Mapping[str, Mapping[str, float]]]
) -> Iterator[None]:
    """
    Say which results are not as expected, where Detectron2's `verify_results` would only exit.

    Args:
        cfg: the config.
        results: gives those of the evaluation: by task, then by metric.

    Raises:
        InputError: some are not.
    """
    try:
        yield
    except SystemExit:
        found = results()
        missed = [x for x in cfg.TEST.EXPECTED_RESULTS if not _is_met(cfg, x, found)]
        if not missed:
            raise
        words = " and ".join(
            f"{metric} of {task} is {_shown(found[task].get(metric))}, expected {value:g} with a "
            f"tolerance of {tolerance:g}"
            for task, metric, value, tolerance in missed
        )
        raise InputError(f"{_KEY} is not met: {words}") from None


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4f}"


def _is_met(cfg: CfgNode, expected: list, results: Mapping[str, Mapping[str, float]]) -> bool:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.EXPECTED_RESULTS = [expected]
    log = logging.getLogger(verify_results.__module__)
    was_disabled, log.disabled = log.disabled, True  # it has said so already
    try:
        return verify_results(cfg, results)
    except SystemExit:
        return False
    finally:
        log.disabled = was_disabled
