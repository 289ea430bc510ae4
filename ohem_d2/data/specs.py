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
from detectron2.utils import comm

from ..errors import InputError
from .builtin import register_builtin
from .checks import UNREADABLE, find_copies, look_over, without_unreadable
from .coco import load_coco
from .findings import Findings
from .image_reading import ImageCache, ImageFile, plain_path
from .needs import (
    check_annotated,
    check_annotated_keypoints,
    check_mask_format,
)
from .voc import load_voc

logger = logging.getLogger(__name__)

# scheme -> pattern of the rest, how to load it, and Detectron2's evaluator_type
_SCHEMES: dict[str, tuple[str, Callable[[Path, str, Findings], tuple], str]] = {
    "coco": (r"(.+)\?images=(.+)", lambda a, b, c: load_coco(a, Path(b).expanduser(), c), "coco"),
    "voc": (r"(.+)\?split=(.+)", lambda a, b, _: load_voc(a, b), "pascal_voc"),
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
    unreadable = cfg.DATASETS.get("UNREADABLE_IMAGES", "error")
    registered = register_by_name(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, unreadable)
    if registered is None:
        return
    train = cfg.DATASETS.TRAIN
    if cfg.MODEL.MASK_ON:
        check_annotated(train, "segmentation", "MODEL.MASK_ON is True", "MODEL.MASK_ON False")
        if cfg.INPUT.MASK_FORMAT == "polygon":
            check_mask_format(train, "INPUT.MASK_FORMAT", "'bitmask'")
    if cfg.MODEL.KEYPOINT_ON:
        words = "MODEL.KEYPOINT_ON is True", "MODEL.KEYPOINT_ON False"
        check_annotated_keypoints(train, cfg.DATASETS.TEST, *words)
    for head in (cfg.MODEL.ROI_HEADS, cfg.MODEL.RETINANET):
        head.NUM_CLASSES = len(registered.classes)
    if registered.num_keypoints is not None:
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = registered.num_keypoints


def register_by_name(
    train: Sequence[str], test: Sequence[str], unreadable: str = "error"
) -> Registered | None:
    """
    Register data sets by their names; see `register_datasets`.

    Args:
        train: names of the data sets to train on.
        test: names of those to evaluate with.
        unreadable: ``DATASETS.UNREADABLE_IMAGES``: "error", or "skip" to leave out images that
            cannot be read, or "keep" to leave them to the caller.

    Returns:
        what follows for the model, or None if none of the names is an address.
    """
    if unreadable not in UNREADABLE:
        raise InputError(
            f"DATASETS.UNREADABLE_IMAGES is {unreadable!r}, expected 'error' or 'skip' (in a "
            "Python config: dataloader.unreadable_images)"
        )
    names = (*train, *test)
    register_builtin(names)
    loaded = {name: _load(name, unreadable) for name in dict.fromkeys(names) if "://" in name}
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
    return Registered(classes, counts[0] if counts else None)


def read_all_images(train: Sequence[str], test: Sequence[str], unreadable: str = "error") -> None:
    """
    Read every image of data sets that were given by address to its end, before a training. What
    was read once is not read again while the file stays the same. Images that a test set shares
    with a training set are named.

    Args:
        train: names of the data sets to train on.
        test: names of those to evaluate with.
        unreadable: see `register_by_name`. Images that are left out are taken from the catalog.

    Raises:
        InputError: some cannot be read, and are not to be left out.
    """
    known: dict[str, dict[str, ImageFile]] = {}
    rank, processes = comm.get_rank(), comm.get_world_size()
    for name in dict.fromkeys(x for x in (*train, *test) if "://" in x):
        records = DatasetCatalog.get(name)
        cache, paths = ImageCache(name), [plain_path(r["file_name"]) for r in records]
        files: dict[str, ImageFile] = {}
        for part in comm.all_gather(cache.whole(paths[rank::processes])):
            files |= part
        cache.keep(files)
        known[name], findings = files, Findings()
        left = without_unreadable(name, records, files, findings, unreadable)
        if len(left) < len(records):
            _log(name, findings)
            _store(name, left)
    of_train, of_test = ({n: known[n] for n in x if n in known} for x in (train, test))
    for line in find_copies(of_train, of_test):
        logger.warning(line)


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


def _load(name: str, unreadable: str) -> tuple[list[dict], list[str], dict]:
    scheme, _, rest = name.partition("://")
    pattern, load, _ = _SCHEMES.get(scheme, ("", None, None))
    match = re.fullmatch(pattern, rest)
    if load is None or match is None:
        raise InputError(f"the data set {name!r} is not understood, expected {ADDRESSES}")
    findings = Findings()
    records, names, metadata = load(Path(match[1]).expanduser(), match[2], findings)
    records = look_over(name, records, findings, unreadable)
    _log(name, findings)
    if not any(record["annotations"] for record in records):
        raise InputError(f"there is no object in the data set {name!r}")
    return records, names, metadata


def _log(name: str, findings: Findings) -> None:
    for line in findings.summary():
        logger.warning(f"{name}: {line}")


def _store(name: str, records: list[dict]) -> None:
    """Put records into the catalog, in the place of those that are there."""
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: [_copied(record) for record in records])


def _copied(record: dict) -> dict:
    """What may be changed without a trace in the catalog, but for outlines and keypoints."""
    return {**record, "annotations": [dict(x) for x in record["annotations"]]}


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
        MetadataCatalog.remove(name)
    _store(name, records)
    evaluator_type = _SCHEMES[name.partition("://")[0]][2]
    MetadataCatalog.get(name).set(thing_classes=classes, evaluator_type=evaluator_type, **metadata)
