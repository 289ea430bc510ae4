"""What a run checks of its data sets: that they are known and here, and go with the model."""

import json
import logging
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..data import ADDRESSES, unknown_dataset
from ..data.root import check_below_root
from ..errors import InputError, shown
from ..paths import wrong_file

logger = logging.getLogger(__name__)

# What the metadata of a data set names by its place.
_LISTS_OF_NAMES = ("thing_classes", "stuff_classes", "keypoint_names")
# Whose json_file is in COCO's format, by evaluator_type.
_OF_COCO = ("coco", "coco_panoptic_seg", "lvis")
# Annotations of up to so many bytes are read, which takes some seconds; of others, so many at the
# beginning and at the end.
_READ, _ENDS = 100 << 20, 64
# What reads annotations, and calls their files so.
_READERS = ("detectron2.data.datasets.", "pycocotools.", "lvis.")
_NAMES_OF_FILES = ("json_file", "anno_file", "annotation_file", "annotation_path")


def check_datasets(*names: str) -> None:
    """
    Make sure that data sets are known, and that their files are here.

    Raises:
        InputError: one of them is not.
    """
    for name in dict.fromkeys(names):
        if name not in DatasetCatalog:
            raise unknown_dataset(name)
        metadata = MetadataCatalog.get(name).as_dict()
        _check_lists_of_names(name, metadata)
        files = [metadata.get("json_file")]
        folders = [metadata.get(key) for key in ("image_root", "dirname", "image_dir", "gt_dir")]
        if "dirname" in metadata and "split" in metadata:  # in the layout of PASCAL VOC
            files.append(f"{metadata['dirname']}/ImageSets/Main/{metadata['split']}.txt")
        for path in filter(None, (*files, *folders)):
            if (reason := _unreachable(path)) is not None:
                raise InputError(f"the data set {name!r} cannot be read: {path} ({reason})")
            if not PathManager.exists(path):
                check_below_root(path)
                raise InputError(
                    f"the data set {name!r} is not here: {path} does not exist. Put it there, or "
                    "set DETECTRON2_DATASETS to the folder that holds it (the page 'Use Builtin "
                    "Datasets' of Detectron2's documentation shows the layout). To train on data "
                    f"of your own, give the addresses of both data sets ({ADDRESSES}); to see a "
                    "first training without any, run 'ohem-d2 train'"
                )
            is_folder = path in folders
            if os.path.exists(path) and os.path.isdir(path) != is_folder:
                found, expected = ("file", "folder") if is_folder else ("folder", "file")
                raise InputError(
                    f"the data set {name!r} cannot be read: {path} is a {found}, expected a "
                    f"{expected}"
                )
        if metadata.get("json_file") and metadata.get("evaluator_type") in _OF_COCO:
            _check_json(name, metadata["json_file"])
        if files[1:]:
            _check_list_of_voc(name, files[1], metadata["dirname"])


def _check_lists_of_names(name: str, metadata: Mapping[str, object]) -> None:
    """Make sure that what is named by its place is in a list: a set has its names in any order."""
    for field in _LISTS_OF_NAMES:
        names = metadata.get(field)
        if names is None:
            continue
        is_list = isinstance(names, (list, tuple))
        if not is_list or not all(isinstance(x, str) for x in names):  # type: ignore[attr-defined]
            raise InputError(
                f"the data set {name!r} has {shown(names)} as its {field}, expected a list of "
                "names, in the order of their numbers"
            )


def _unreachable(path: str) -> str | None:
    """Why it cannot even be told whether a path is there."""
    try:
        os.stat(path)
    except PermissionError as e:
        return e.strerror
    except (OSError, ValueError):
        pass  # it is not there, or elsewhere
    return None


def _check_json(name: str, path: str) -> None:
    """Make sure that annotations are COCO's JSON, and all there, as far as that takes seconds."""
    file = PathManager.get_local_path(path)
    reason = wrong_file(file)
    try:
        if reason is None and os.path.getsize(file) <= _READ:
            with open(file, encoding="utf-8") as f:
                content = json.load(f)
            for part in ("images", "categories"):
                if not isinstance(content, dict) or not isinstance(content.get(part), list):
                    reason = reason or f"has no list of {part}"
        elif reason is None:
            with open(file, "rb") as f:
                start = f.read(_ENDS)
                f.seek(-_ENDS, os.SEEK_END)
                if not start.lstrip().startswith(b"{") or not f.read().rstrip().endswith(b"}"):
                    reason = "does not begin and end as JSON does"
    except (OSError, ValueError, RecursionError) as e:
        reason = f"is no JSON ({e})"
    if reason is not None:
        raise InputError(
            f"the data set {name!r} cannot be read: {path} {reason}, expected annotations in "
            "COCO's format"
        )


def _check_list_of_voc(name: str, path: str, folder: str) -> None:
    """Make sure that each image in a list of PASCAL VOC's layout is annotated."""
    annotations = os.path.join(PathManager.get_local_path(folder), "Annotations")
    with PathManager.open(path) as f:
        named = [line.split()[0] for line in f if line.strip()]
    files = {*os.listdir(annotations)} if os.path.isdir(annotations) else set()
    missing = [x for x in named if f"{x}.xml" not in files]
    if missing:
        raise InputError(
            f"the data set {name!r} cannot be read: {path} names {missing[0]!r}, but there is no "
            f"{os.path.join(annotations, missing[0])}.xml ({len(missing)} of {len(named)} names "
            "have none), expected names of annotated images, without their suffix"
        )


@contextmanager
def named_data_sets(keys: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """
    Say where a data set is named that something is wrong with.

    Args:
        keys: names of data sets, by the key or the option that has them.

    Raises:
        InputError: what was raised, below that key.
    """
    try:
        yield
    except InputError as e:
        text = str(e)
        found = [key for key, names in keys.items() if any(repr(name) in text for name in names)]
        has_key = "." in text.partition(" ")[0]  # as a key that the data set does not go with
        if not found or has_key:
            raise
        raise InputError(f"{' and '.join(found)}: {text}") from e


@contextmanager
def named_annotations() -> Iterator[None]:
    """
    Say which file of a data set it is that Detectron2 cannot read.

    Raises:
        InputError: Detectron2's or COCO's own code that reads annotations has raised something.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as e:  # there is no end to what a file may make it raise
        for frame, _ in traceback.walk_tb(e.__traceback__):
            room = frame.f_globals.get("__name__", "")
            found = [frame.f_locals[x] for x in _NAMES_OF_FILES if x in frame.f_locals]
            if room.startswith(_READERS) and found:
                raise InputError(
                    f"the annotations {found[0]} cannot be read: {type(e).__name__}: {e}"
                ) from e
        raise


def class_names(names: Sequence[str]) -> list[str] | None:
    """
    Tell the classes of data sets.

    Args:
        names: registered data sets.

    Returns:
        those of the first that says what classes it has, in their order; None if none does.
    """
    return next(filter(None, map(_class_names, names)), None)


def _class_names(name: str) -> list[str]:
    if MetadataCatalog.get(name).get("thing_classes") is None:
        DatasetCatalog.get(name)  # some say what classes they have only when they are loaded
    _check_lists_of_names(name, MetadataCatalog.get(name).as_dict())
    return [*(MetadataCatalog.get(name).get("thing_classes") or ())]


def check_num_classes(key: str, number: int, names: Sequence[str]) -> None:
    """
    Make sure that a model has as many classes as data sets, and these have the same.

    Args:
        key: where the config says how many the model has.
        number: how many these are.
        names: registered data sets. Those that do not say what classes they have are not looked at.

    Raises:
        InputError: it has not.
    """
    for name in names:
        classes = _class_names(name)
        if classes and len(classes) != number:
            more = ", ..." if len(classes) > 5 else ""
            raise InputError(
                f"{key} is {number}, expected {len(classes)}, as the data set {name!r} has: "
                f"{', '.join(classes[:5])}{more}"
            )
        first = class_names(names)
        if classes and first and classes != first:
            i = next(i for i, (a, b) in enumerate(zip(first, classes)) if a != b)
            other = next(x for x in names if _class_names(x))
            words = (
                f"the data set {name!r} has {classes[i]!r} as class {i}, where {other!r} has "
                f"{first[i]!r}"
            )
            if sorted(classes) == sorted(first):
                raise InputError(f"{words}: expected the same classes in the same order")
            logger.warning(f"{words}: they are taken for the same")
