"""
Data sets by address: an entry of ``DATASETS.TRAIN`` or ``DATASETS.TEST`` may be

- ``coco://<annotations.json>?images=<folder>``
- ``voc://<devkit folder>?split=<name of a list in ImageSets/Main>``
"""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ..errors import InputError
from .builtin import register_builtin
from .coco import load_coco
from .voc import load_voc

logger = logging.getLogger(__name__)

# scheme -> pattern of the rest, how to load it, and Detectron2's evaluator_type
_SCHEMES: dict[str, tuple[str, Callable[[Path, str], tuple], str]] = {
    "coco": (r"(.+)\?images=(.+)", lambda a, b: load_coco(a, Path(b).expanduser()), "coco"),
    "voc": (r"(.+)\?split=(.+)", load_voc, "pascal_voc"),
}
# How the addresses look, for error messages.
ADDRESSES = "coco://<annotations.json>?images=<folder> or voc://<devkit folder>?split=<split>"


class Registered(NamedTuple):
    """What data sets that were given by address say of the model."""

    classes: list[str]
    num_keypoints: int | None


def register_datasets(cfg: CfgNode) -> None:
    """
    Register the data sets that the config names: those by address, and those that come with the
    project. Set ``NUM_CLASSES``, and ``NUM_KEYPOINTS`` if there are any, from those by address.

    The training sets decide the classes and their order; where none is given, the test sets.

    Args:
        cfg: a config that is not frozen. Its ``DATASETS`` are left as they are.

    Raises:
        InputError: an address or a file behind it is wrong, or a test set has other classes than
            the training set.
    """
    registered = register_by_name(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    if registered is None:
        return
    for field, switch in (("segmentation", "MASK_ON"), ("keypoints", "KEYPOINT_ON")):
        if cfg.MODEL[switch]:
            key = f"MODEL.{switch}"
            check_annotated(cfg.DATASETS.TRAIN, field, f"{key} is True", f"{key} False")
    for head in (cfg.MODEL.ROI_HEADS, cfg.MODEL.RETINANET):
        head.NUM_CLASSES = len(registered.classes)
    if registered.num_keypoints is not None:
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = registered.num_keypoints


def register_by_name(train: Sequence[str], test: Sequence[str]) -> Registered | None:
    """
    Register data sets by their names; see `register_datasets`.

    Args:
        train: names of the data sets to train on.
        test: names of those to evaluate with.

    Returns:
        what follows for the model, or None if none of the names is an address.
    """
    names = (*train, *test)
    register_builtin(names)
    loaded = {name: _load(name) for name in names if "://" in name}
    if not loaded:
        return None
    for name in names:
        if name not in loaded and name not in DatasetCatalog:
            raise unknown_dataset(name)
    classes = _decide_classes(train or test, loaded)
    for name in dict.fromkeys(names):
        if name in loaded:
            records, _, metadata = loaded[name]
            _register(name, records, classes, metadata)
        elif _registered_classes(name) not in (None, classes):
            raise InputError(
                f"the data set {name!r} has other classes than {', '.join(loaded)}, which has "
                f"{', '.join(classes)}: give both the training and the test set"
            )
    logger.info(f"{len(classes)} classes: {', '.join(classes)}")
    keypoints = [metadata.get("keypoint_names") for *_, metadata in loaded.values()]
    counts = [len(names) for names in keypoints if names is not None]
    return Registered(classes, counts[-1] if counts else None)


def check_annotated(names: Sequence[str], field: str, found: str, expected: str) -> None:
    """
    Make sure that the objects of data sets that were given by address have what a model learns.

    Args:
        names: data sets; those that are no addresses are not looked at.
        field: of an annotation in Detectron2's form, such as "segmentation".
        found: the setting that asks for it, as the beginning of a sentence.
        expected: the setting that does not.

    Raises:
        InputError: no object of a data set has it.
    """
    for name in (n for n in names if "://" in n):
        if not any(field in a for r in DatasetCatalog.get(name) for a in r["annotations"]):
            raise InputError(
                f"{found}, but no object of the data set {name!r} has a {field!r}: "
                f"expected {expected}, or other annotations"
            )


def unknown_dataset(name: str) -> InputError:
    """Return what to raise for a data set that is neither registered nor an address."""
    return InputError(
        f"the data set {name!r} is not known, expected one that is registered with Detectron2, or "
        f"{ADDRESSES}"
    )


def _decide_classes(names: Sequence[str], loaded: dict[str, tuple]) -> list[str]:
    for name in names:
        if name not in loaded and (classes := _registered_classes(name)) is not None:
            return classes
    return list(dict.fromkeys(c for name in names if name in loaded for c in loaded[name][1]))


def _registered_classes(name: str) -> list[str] | None:
    if name not in DatasetCatalog:
        return None
    return MetadataCatalog.get(name).get("thing_classes")


def _load(name: str) -> tuple[list[dict], list[str], dict]:
    scheme, _, rest = name.partition("://")
    pattern, load, _ = _SCHEMES.get(scheme, ("", None, None))
    match = re.fullmatch(pattern, rest)
    if load is None or match is None:
        raise InputError(f"the data set {name!r} is not understood, expected {ADDRESSES}")
    records, names, metadata = load(Path(match[1]).expanduser(), match[2])
    _leave_out_bad_boxes(name, records)
    for annotation in (a for record in records for a in record["annotations"]):
        if annotation.get("ignore"):  # a crowd is what Detectron2 keeps apart from objects
            annotation["iscrowd"] = 1
    if not any(record["annotations"] for record in records):
        raise InputError(f"there is no object in the data set {name!r}")
    return records, names, metadata


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


def _register(name: str, records: list[dict], classes: list[str], metadata: dict) -> None:
    for record in records:
        for annotation in record["annotations"]:
            if annotation["category_id"] not in classes:
                raise InputError(
                    f"the data set {name!r} has an object of the class "
                    f"{annotation['category_id']!r} in {record['file_name']}, which the training "
                    f"set does not know: expected one of {', '.join(classes)}, or the training "
                    "set to be given as well"
                )
            annotation["category_id"] = classes.index(annotation["category_id"])
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: [dict(record) for record in records])
    evaluator_type = _SCHEMES[name.partition("://")[0]][2]
    MetadataCatalog.get(name).set(thing_classes=classes, evaluator_type=evaluator_type, **metadata)
