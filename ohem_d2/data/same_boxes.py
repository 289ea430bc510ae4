"""Boxes that are the same everywhere: those that a slip or another task has put there."""

from collections import defaultdict
from collections.abc import Sequence

from .boxes import corners, iou, words_of
from .findings import Findings
from .overview import is_region

_FEW_IMAGES = 5  # with objects: fewer tell nothing
_MOST, _HALF = 0.95, 0.5
_EDGE = 0.01  # of a side
_DIGITS = 5  # of parts of a side
_NEARLY = 0.95  # of the IoU


def find_same_boxes(name: str, records: Sequence[dict], findings: Findings) -> None:
    """
    Name boxes that are their whole images, as those of a data set for classification; objects at
    the same places in different images, as of a file of labels that was copied; and objects of a
    class that have nearly the same box, as after a merge. All are kept: they may be meant so.

    Args:
        name: of the data set.
        records: those of it, with the class's name in place of ``category_id``.
        findings: where to put it.
    """
    for record in records:
        _find_twins(record, findings)
    with_objects = [r for r in records if r["annotations"]]
    if len(with_objects) < _FEW_IMAGES:
        return
    boxes = [(r, _parts(r, a)) for r in with_objects for a in r["annotations"]]
    whole = sum(_is_whole(box) for _, box in boxes)
    if whole >= _MOST * len(boxes):
        findings.add(
            "boxes that are the whole of their images, as if these had a class and no objects",
            name,
            f"{whole} of {len(boxes)}",
        )
        return
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for record in with_objects:
        places = [(a["category_id"], _parts(record, a)) for a in record["annotations"]]
        if not all(_is_whole(box) for _, box in places):
            key = sorted((x, *(round(v, _DIGITS) for v in box)) for x, box in places)
            groups[tuple(key)].append(record)
    most = max(groups.values(), key=len, default=[])
    if len(most) >= max(_FEW_IMAGES, _HALF * len(with_objects)):
        findings.add(
            "images with the same objects at the same places, as if labels had been copied",
            name,
            f"{len(most)} of {len(with_objects)}, such as {most[0]['file_name']} and "
            f"{most[1]['file_name']}",
        )


def _parts(record: dict, annotation: dict) -> list[float]:
    """The corners of a box as parts of the sides of its image."""
    x0, y0, x1, y1 = corners(annotation)
    width, height = record["width"] or 1, record["height"] or 1
    return [x0 / width, y0 / height, x1 / width, y1 / height]


def _is_whole(parts: Sequence[float]) -> bool:
    return max(parts[:2]) <= _EDGE and min(parts[2:]) >= 1 - _EDGE


def _find_twins(record: dict, findings: Findings) -> None:
    """Objects of one class on nearly the same box; the same box is named elsewhere."""
    objects = [a for a in record["annotations"] if not is_region(a)]
    boxes = sorted(((corners(a), a) for a in objects), key=lambda x: x[0])
    for i, (box, annotation) in enumerate(boxes):
        x, y = (box[k] + (1 - _NEARLY) * (box[k + 2] - box[k]) for k in (0, 1))
        for k in range(i + 1, len(boxes)):
            other, twin = boxes[k]
            if other[0] > x:
                break
            if other[1] > y:  # most of those that begin at the same x, which saves time
                continue
            is_of_class = annotation["category_id"] == twin["category_id"]
            if is_of_class and box != other and iou(box, other) >= _NEARLY:
                findings.add(
                    "objects of one class with nearly the same box",
                    record["file_name"],
                    f"{words_of(annotation)} and {words_of(twin)}",
                )
                break
