"""
Data sets by address: an entry of ``DATASETS.TRAIN`` or ``DATASETS.TEST`` may be

- ``coco://<annotations.json>?images=<folder>``
- ``voc://<devkit folder>?split=<name of a list in ImageSets/Main>``
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ..errors import InputError
from .coco import load_coco
from .voc import load_voc

logger = logging.getLogger(__name__)

# scheme -> pattern of the rest, how to load it, and Detectron2's evaluator_type
_SCHEMES: dict[str, tuple[str, Callable[[Path, str], tuple[list[dict], list[str]]], str]] = {
    "coco": (r"(.+)\?images=(.+)", lambda a, b: load_coco(a, Path(b).expanduser()), "coco"),
    "voc": (r"(.+)\?split=(.+)", load_voc, "pascal_voc"),
}
_FORMS = "coco://<annotations.json>?images=<folder> or voc://<devkit folder>?split=<split>"


def register_datasets(cfg: CfgNode) -> None:
    """
    Register the data sets that the config names by address, and set ``NUM_CLASSES`` from them.

    The training sets decide the classes and their order; where none is given, the test sets.

    Args:
        cfg: a config that is not frozen. Its ``DATASETS`` are left as they are.

    Raises:
        InputError: an address or a file behind it is wrong, or a test set has a class that the
            training set has not.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    loaded = {name: _load(name) for name in names if "://" in name}
    if not loaded:
        return
    classes = _decide_classes(cfg.DATASETS.TRAIN or cfg.DATASETS.TEST, loaded)
    for name, (records, class_names, source) in loaded.items():
        for unknown in (c for c in class_names if c not in classes):
            raise InputError(
                f"{source} has the class {unknown!r}, which the training set "
                f"({', '.join(cfg.DATASETS.TRAIN)}) has not: expected one of {', '.join(classes)}"
            )
        _register(name, records, classes)
    for head in (cfg.MODEL.ROI_HEADS, cfg.MODEL.RETINANET):
        head.NUM_CLASSES = len(classes)
    logger.info(f"{len(classes)} classes: {', '.join(classes)}")


def _decide_classes(names: tuple[str, ...], loaded: dict[str, tuple]) -> list[str]:
    for name in names:
        if name not in loaded and name in DatasetCatalog:
            return MetadataCatalog.get(name).thing_classes
    classes = list(dict.fromkeys(c for name in names if name in loaded for c in loaded[name][1]))
    if not classes:
        raise InputError(f"{', '.join(names)}: there is no object in it, so there are no classes")
    return classes


def _load(name: str) -> tuple[list[dict], list[str], str]:
    scheme, _, rest = name.partition("://")
    pattern, load, _ = _SCHEMES.get(scheme, ("", None, None))
    match = re.fullmatch(pattern, rest)
    if load is None or match is None:
        raise InputError(f"the data set {name!r} is not understood, expected {_FORMS}")
    source = Path(match[1]).expanduser()
    records, names = load(source, match[2])
    _leave_out_bad_boxes(name, records)
    return records, names, str(source)


def _leave_out_bad_boxes(name: str, records: list[dict]) -> None:
    """Zero-area boxes and those outside their image go, and one line says how many."""
    total = empty = outside = 0
    for record in records:
        kept = []
        for annotation in record["annotations"]:
            x0, y0, x1, y1 = BoxMode.convert(
                annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS
            )
            if not (x1 > x0 and y1 > y0):
                empty += 1
            elif x1 <= 0 or y1 <= 0 or x0 >= record["width"] or y0 >= record["height"]:
                outside += 1
            else:
                kept.append(annotation)
        total += len(record["annotations"])
        record["annotations"] = kept
    if empty or outside:
        logger.warning(
            f"{name}: left out {empty} boxes of zero area and {outside} outside their image, "
            f"of {total}"
        )


def _register(name: str, records: list[dict], classes: list[str]) -> None:
    for record in records:
        for annotation in record["annotations"]:
            annotation["category_id"] = classes.index(annotation["category_id"])
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: [dict(record) for record in records])
    evaluator_type = _SCHEMES[name.partition("://")[0]][2]
    MetadataCatalog.get(name).set(thing_classes=classes, evaluator_type=evaluator_type)
