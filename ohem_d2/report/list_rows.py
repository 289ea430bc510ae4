"""The examples of a list as a page has them: rows, which are a third of the size of objects."""

from collections.abc import Sequence
from typing import Any

from .coco_form import id_for_page

# What a page shows of an example, in the order of its row.
FIELDS = (
    *("id", "image_id", "category_id", "error_type", "loss", "score", "iou", "area"),
    *("is_labelled", "predicted_category_id", "label_index", "label_id", "crop", "crop_bbox"),
)
# Behind these, each box, or the position here of one before it that is the same. Decisions hold the
# first two; the others are for show.
BOXES = ("label_bbox", "predicted_bbox", "true_bbox", "bbox")
_EXACT = 2
_DIGITS = {"score": 4, "iou": 4}  # behind the point: no more is shown


def as_rows(annotations: Sequence[dict]) -> list[list]:
    """
    Turn examples into rows.

    Args:
        annotations: those that `as_coco` returns.

    Returns:
        a row for each: its fields, and its boxes.
    """
    return [[*map(_field, FIELDS, map(x.get, FIELDS)), *_boxes(x)] for x in annotations]


def _field(name: str, value: Any) -> object:
    if name == "label_id":
        return id_for_page(value)
    return round(value, _DIGITS[name]) if name in _DIGITS and isinstance(value, float) else value


def _boxes(annotation: dict) -> list[list[float] | int | None]:
    boxes = [annotation[name] for name in BOXES]
    found: list[list[float] | int | None] = []
    for i, box in enumerate(boxes):
        if box is None:
            found.append(None)
        elif (first := boxes.index(box)) < i:
            found.append(first)
        else:
            found.append(box if i < _EXACT else [round(v, 1) for v in box])
    return found
