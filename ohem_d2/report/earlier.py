"""An earlier report on the same images: what another model detects in them."""

import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data import plain_path
from ..data.text_files import read_json
from ..errors import InputError
from ..paths import wrong_file
from .coco_form import box_of
from .hard_examples import Detections

logger = logging.getLogger(__name__)

_NAME = "model_errors.json"
# A label counts as the same if its box is, to this many digits behind the point, in pixels.
_DIGITS = 2
# Of the labels of images that were elsewhere, at least this part is the same.
_SHARED = 0.5

# The name of its class, its box as XYWH, and whether it is a region to ignore.
Label = tuple[str, tuple[float, ...], bool]


@dataclass(frozen=True)
class EarlierReport:
    """What is taken from an earlier report. Images go by their real path, whatever links to it."""

    folder: Path
    # At an IoU of 0.5, in percent, by the labels that there were.
    ap50: float
    class_names: list[str]
    # Width and height of each image.
    sizes: dict[str, tuple[int, int]]
    # Of each image, the detections that count. Their classes are positions in `class_names`.
    detections: dict[str, Detections]
    labels: dict[str, Counter[Label]]


def real_path(record: dict) -> str:
    """The path of the image of a record, without links."""
    return os.path.realpath(plain_path(record["file_name"]))


def as_label(name: str, box: Sequence[float], is_region: bool) -> Label:
    """A label, to be compared with others."""
    return name, tuple(round(float(v), _DIGITS) for v in box), bool(is_region)


def read_earlier(folder: Path) -> EarlierReport:
    """
    Read what `write_report` wrote.

    Args:
        folder: that of the report.

    Raises:
        InputError: it is none of a report's, or its file is not as this version writes it.
    """
    file = folder / _NAME
    if reason := wrong_file(file):
        raise InputError(
            f"--compare is {str(folder)!r}, where {_NAME} {reason}, expected the folder that "
            "'ohem-d2 report' wrote"
        )
    try:
        content = read_json(file)
    except InputError as e:
        raise InputError(
            f"--compare: {e}. Expected what 'ohem-d2 report' wrote: write the report again"
        ) from e
    try:
        return _parse(folder, content)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(
            f"--compare is {str(folder)!r}, whose {_NAME} is not as this version writes it "
            f"({e!r}), expected that of a report: write the report again"
        ) from None


def _parse(folder: Path, content: dict) -> EarlierReport:
    names = {x["id"]: _text(x["name"]) for x in content["categories"]}
    positions = {x: i for i, x in enumerate(names)}
    files = {x["id"]: os.path.realpath(_text(x["file_name"])) for x in content["images"]}
    if doubled := [file for file, number in Counter(files.values()).items() if number > 1]:
        raise InputError(
            f"--compare is {str(folder)!r}, where two images are the file {doubled[0]}, expected "
            "each once"
        )
    rows: dict[str, list[tuple]] = {file: [] for file in files.values()}
    for x in content["annotations"]:
        row = (_box(x["bbox"]), positions[x["category_id"]], _number(x["score"]))
        rows[files[x["image_id"]]].append(row)
    labels: dict[str, Counter[Label]] = {file: Counter() for file in files.values()}
    for x in content["labels"]:
        label = as_label(names[x["category_id"]], _box(x["bbox"]), x["iscrowd"])
        labels[files[x["image_id"]]][label] += 1
    return EarlierReport(
        folder=folder,
        ap50=_number(content["info"]["ap50"]),
        class_names=list(names.values()),
        sizes={files[x["id"]]: (x["width"], x["height"]) for x in content["images"]},
        detections={file: _detections(of_image) for file, of_image in rows.items()},
        labels=labels,
    )


def _detections(rows: Sequence[tuple]) -> Detections:
    return Detections(
        boxes=np.array([x[0] for x in rows], dtype=float).reshape(-1, 4),
        classes=np.array([x[1] for x in rows], dtype=int),
        scores=np.array([x[2] for x in rows], dtype=float),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _box(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise TypeError(f"{value!r} is no box")
    return [_number(v) for v in value]


def follow_images(
    earlier: EarlierReport, records: Sequence[dict], class_names: Sequence[str]
) -> EarlierReport:
    """
    Let an earlier report name images where they are now, if all of them were somewhere else when it
    was written, as on another machine. They are known by the end of their paths, and by labels:
    images of other data sets may have the same names.

    Args:
        earlier: the report.
        records: those of the images in Detectron2's catalog.
        class_names: those of the data set.

    Returns:
        the report, with the paths of now, or as it is.
    """
    files = {real_path(x): x for x in records}
    if not files or files.keys() & earlier.sizes.keys():
        return earlier
    first = next(iter(files))
    number = max((_names_in_common(x, first) for x in earlier.sizes), default=0)
    if not number:
        return earlier
    now = Path(*Path(first).parts[:-number])
    shared, all_of_them, then, moved = 0, 0, now, {}
    for file in earlier.sizes:
        if _names_in_common(file, first) == number:  # folders may have files of the same names
            root = Path(*Path(file).parts[:-number])
            paths = {
                x: str(now / Path(x).relative_to(root))
                for x in earlier.sizes
                if Path(x).is_relative_to(root)
            }
            found = _labels_in_common(earlier, paths, files, class_names)
            if found[0] > shared:
                (shared, all_of_them), then, moved = found, root, paths
    if shared < _SHARED * all_of_them or not shared:
        return earlier
    logger.warning(
        f"--compare is {str(earlier.folder)!r}, whose images were in {str(then)!r}: those in "
        f"{str(now)!r} are taken for them, which have the same names, and {shared} of "
        f"{all_of_them} labels"
    )
    return replace(
        earlier,
        sizes={path: earlier.sizes[file] for file, path in moved.items()},
        detections={path: earlier.detections[file] for file, path in moved.items()},
        labels={path: earlier.labels[file] for file, path in moved.items()},
    )


def _labels_in_common(
    earlier: EarlierReport,
    paths: Mapping[str, str],
    records: Mapping[str, dict],
    class_names: Sequence[str],
) -> tuple[int, int]:
    """How many labels images have in common with those that they are taken for, and how many there
    are at all."""
    shared, all_of_them = 0, 0
    for file, path in paths.items():
        if path in records:
            before = Counter(label[:2] for label in earlier.labels[file].elements())
            now = Counter(
                as_label(class_names[x["category_id"]], box_of(x), False)[:2]
                for x in records[path]["annotations"]
            )
            shared += (before & now).total()
            all_of_them += max(before.total(), now.total())
    return shared, all_of_them


def _names_in_common(a: str, b: str) -> int:
    """How many names, from the last on, two paths have in common; at least one differs."""
    pairs = zip(reversed(Path(a).parts), reversed(Path(b).parts))
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def check_comparable(
    earlier: EarlierReport,
    records: Sequence[dict],
    class_names: Sequence[str],
    read: Callable[[dict], Any],
) -> None:
    """
    Make sure that an earlier report has looked at all images, for the same classes.

    Args:
        earlier: the report.
        records: those of the images in Detectron2's catalog.
        class_names: those of the data set.
        read: what reads the image of a record, or raises. An image that neither report can read is
            in none of them.

    Raises:
        InputError: it has not.
    """
    where = f"--compare is {str(earlier.folder)!r}"
    only = [sorted({*a} - {*b}) for a, b in _both_ways(earlier.class_names, class_names)]
    if only[0] or only[1]:
        each = (("it lacks", only[1]), ("the data set lacks", only[0]))
        what = " and ".join(f"{words} {', '.join(map(repr, x))}" for words, x in each if x)
        raise InputError(f"{where}, whose classes are others: {what}, expected those of --dataset")
    missing = [x for x in records if real_path(x) not in earlier.sizes]
    if len(missing) == len(records):
        raise InputError(
            f"{where}, which has none of the {len(records)} images, such as "
            f"{plain_path(records[0]['file_name'])}: expected a report on the same images, in the "
            "same place"
        )
    for record in missing:
        try:
            read(record)
        except Exception:  # what reads images raises anything
            continue
        raise InputError(
            f"{where}, which lacks {len(missing)} of {len(records)} images, such as "
            f"{plain_path(record['file_name'])}: expected a report on all of them, or --max-images"
        )
    for record in records:
        size = record.get("width"), record.get("height")
        before = earlier.sizes.get(real_path(record), size)
        if None not in size and size != before:
            raise InputError(
                f"{where}, where {plain_path(record['file_name'])} has {before[0]} x {before[1]} "
                f"pixels, expected {size[0]} x {size[1]}: it is another image now"
            )


def _both_ways(a: Sequence[str], b: Sequence[str]) -> tuple:
    return (a, b), (b, a)


def detections_now(earlier: EarlierReport, record: dict, class_names: Sequence[str]) -> Detections:
    """
    Return the detections of an image, with classes as positions in `class_names`.

    Args:
        earlier: the report.
        record: that of the image.
        class_names: those of the data set, in any order.
    """
    found = earlier.detections[real_path(record)]
    names = [*class_names]
    positions = np.array([names.index(x) for x in earlier.class_names], dtype=int)
    return Detections(found.boxes, positions[found.classes], found.scores)
