"""Which of the results that a config expects, ``TEST.EXPECTED_RESULTS``, an evaluation misses."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results

from ..errors import InputError

_KEY = "TEST.EXPECTED_RESULTS"


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
