"""The records of data sets that the user's own code registers, which stay as they are."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from detectron2.structures import BoxMode

from ..errors import InputError, shown
from .checks import check_sizes, read_to_end
from .findings import Findings
from .image_reading import EIGHT_BIT, ImageFile, plain_path


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING: Any = _Missing()
_MODES = frozenset(BoxMode)


def check_records(
    name: str, records: Sequence[dict], classes: Sequence[str], evaluated: bool
) -> None:
    """
    Make sure that the objects of records are what Detectron2 takes, and that images which are
    evaluated can be told from each other.

    Args:
        name: of the data set.
        records: its images.
        classes: the names of its classes; empty if they are not known.
        evaluated: whether it is one to evaluate with.

    Raises:
        InputError: some are not.
    """
    faults = [
        f"{shown(record.get('file_name'))}, where {fault}"
        for record in records
        for annotation in record.get("annotations") or ()
        if (fault := _fault(annotation, len(classes)))
    ]
    if faults:
        raise InputError(
            f"the data set {name!r} has {len(faults)} annotations that Detectron2 cannot take, the "
            f"first in {faults[0]}"
        )
    if not evaluated or not classes:
        return
    ids = Counter(shown(record.get("image_id")) for record in records)
    if ids["None"]:
        raise InputError(
            f"{ids['None']} of {len(records)} images of the data set {name!r} have no image_id, "
            "expected one each, by which detections are compared with objects"
        )
    (most, number), = ids.most_common(1) or [("", 0)]  # fmt: skip
    if number > 1:
        raise InputError(
            f"{number} images of the data set {name!r} have the image_id {most}, expected each its "
            "own, by which detections are compared with objects"
        )


def _fault(annotation: Any, num_classes: int) -> str | None:
    """What Detectron2 cannot take of an annotation."""
    if not isinstance(annotation, Mapping):
        return f"it is {shown(annotation)}, expected a dict"
    label, box, mode = (annotation.get(x, _MISSING) for x in ("category_id", "bbox", "bbox_mode"))
    if num_classes and not (isinstance(label, Integral) and 0 <= int(label) < num_classes):
        places = f"0 to {num_classes - 1}, a place in its {num_classes} thing_classes"
        return f"category_id is {shown(label)}, expected {places}, counted from 0"
    try:
        numbers = [] if box is _MISSING else [*box]
    except TypeError:
        numbers = []
    if len(numbers) not in (4, 5) or not all(
        isinstance(x, Real) and math.isfinite(x) for x in numbers
    ):
        return f"bbox is {shown(box)}, expected 4 numbers, or 5 for a rotated box"
    if not isinstance(mode, int) or mode not in _MODES:
        return f"bbox_mode is {shown(mode)}, expected one such as BoxMode.XYXY_ABS"
    return None


def look_at_images(
    name: str, records: Sequence[dict], findings: Findings, unreadable: str
) -> tuple[list[dict], dict[str, ImageFile]]:
    """
    Read images to their ends, compare their sizes with those in the records, and name what
    Detectron2 reads otherwise than viewers show it.

    Args:
        name: of the data set.
        records: those of `opened_by_detectron2`.
        findings: where to put what is odd.
        unreadable: "error", or "skip" to leave out images that cannot be read.

    Returns:
        the records to use, and what is known of each file, by its path.

    Raises:
        InputError: images cannot be read, or have another size.
    """
    left, files = read_to_end(name, list(records), findings, unreadable)
    check_sizes(name, left, files)
    for record in left:
        file = files[plain_path(record["file_name"])]
        if record["file_name"].startswith(EIGHT_BIT):
            continue
        if file.is_turned_twice:
            findings.add(
                "TIFF with an orientation, which Detectron2 reads turned or mirrored otherwise "
                f"than it is shown (put {EIGHT_BIT} in front of its path, or remove it)",
                record["file_name"],
            )
        if file.is_wide:
            findings.add(
                "image of 16-bit or float pixels, most of which Detectron2 may read as white or "
                f"black (put {EIGHT_BIT} in front of its path to have them scaled to 8 bits)",
                record["file_name"],
            )
    return left, files


def opened_by_detectron2(records: Sequence[dict], training: bool) -> list[dict]:
    """
    Return the records whose images Detectron2 opens: by default it trains on none without objects.
    Other records are for the mapper of a project of its own, and other paths for a handler of its
    own.
    """
    records = [r for r in records if isinstance(r.get("file_name"), str)]
    records = [r for r in records if "://" not in plain_path(r["file_name"])]
    if training and records and "annotations" in records[0]:
        records = [r for r in records if not all(a.get("iscrowd") for a in r["annotations"])]
    return records
