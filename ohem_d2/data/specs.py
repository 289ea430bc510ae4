"""Data sets by address in Detectron2's catalogs: what `addresses` reads is registered here."""

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError
from .addresses import ADDRESSES, Loaded, evaluator_type, load_address, part_of
from .builtin import register_builtin
from .class_names import differ_in_case
from .parts import overlap

logger = logging.getLogger(__name__)


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
    loaded = {name: load_address(name) for name in dict.fromkeys(names) if "://" in name}
    if not loaded:
        return None
    _check_parts(train, test)
    for name in names:
        if name not in loaded and name not in DatasetCatalog:
            raise unknown_dataset(name)
    for name, data in loaded.items():
        for line in data.findings.summary():
            logger.warning(f"{name}: {line}")
    _check_case(loaded)
    classes = _decide_classes(train or test, loaded)
    for name in dict.fromkeys(names):
        if name in loaded:
            _register(name, loaded[name], classes)
        elif _registered_classes(name) not in (None, classes):
            raise InputError(
                f"the data set {name!r} has other classes than {', '.join(loaded)}, which has "
                f"{', '.join(classes)}: give both the training and the test set"
            )
    logger.info(f"{len(classes)} classes: {', '.join(classes)}")
    keypoints = [data.metadata.get("keypoint_names") for data in loaded.values()]
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


def _decide_classes(names: Sequence[str], loaded: dict[str, Loaded]) -> list[str]:
    for name in names:
        if name not in loaded and (classes := _registered_classes(name)) is not None:
            return classes
    return list(dict.fromkeys(c for name in names if name in loaded for c in loaded[name].classes))


def _registered_classes(name: str) -> list[str] | None:
    if name not in DatasetCatalog:
        return None
    return MetadataCatalog.get(name).get("thing_classes")


def _check_case(loaded: dict[str, Loaded]) -> None:
    """Say which classes of several data sets differ in upper and lower case only."""
    counts: Counter[str] = Counter()
    for data in loaded.values():
        counts.update(dict.fromkeys(data.classes, 0))
        counts.update(a["category_id"] for r in data.records for a in r["annotations"])
    said = {x.words for data in loaded.values() for x in data.findings}
    for words in differ_in_case(counts):
        if words not in said:
            logger.warning(f"class names that differ in upper and lower case only: {words}")


def _check_parts(train: Sequence[str], test: Sequence[str]) -> None:
    """No image may be in the training part and in the test part of a data set."""
    for a, b in product(train, test):
        if "://" in a and "://" in b and a != b:
            (whole_a, part_a), (whole_b, part_b) = part_of(a), part_of(b)
            if whole_a == whole_b and part_a and part_b and overlap(part_a, part_b):
                raise InputError(
                    f"the data sets {a!r} and {b!r} have images in common, expected parts of it "
                    "that have none, such as part=train:0.8 and part=test:0.2"
                )


def _register(name: str, data: Loaded, classes: list[str]) -> None:
    folded = {c.casefold(): c for c in classes}
    for record in data.records:
        for annotation in record["annotations"]:
            found = annotation["category_id"]
            if found not in classes:
                near = folded.get(found.casefold())
                raise InputError(
                    f"the data set {name!r} has an object of the class {found!r} in "
                    f"{record['file_name']}, which the training set does not know"
                    f"{f' (it has {near!r})' if near else ''}: expected one of "
                    f"{', '.join(classes)}, or the training set to be given as well"
                )
            annotation["category_id"] = classes.index(found)
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: [dict(record) for record in data.records])
    MetadataCatalog.get(name).set(
        thing_classes=classes, evaluator_type=evaluator_type(name), **data.metadata
    )
