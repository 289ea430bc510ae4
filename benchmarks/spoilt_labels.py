"""Data sets whose labels are wrong on purpose."""

from collections.abc import Callable, Sequence

import numpy as np
from detectron2.structures import Boxes, BoxMode, pairwise_iou

ERRORS = ("removed", "swapped", "moved", "added")
# By this share of its size a box is moved, so that it still overlaps the object, by such an IoU.
_SHIFT = (0.1, 0.6)
_MOVED_IOU = (0.2, 0.85)


def spoil_labels(
    records: Sequence[dict],
    num_classes: int,
    removed: float = 0.0,
    swapped: float = 0.0,
    moved: float = 0.0,
    added: float = 0.0,
) -> list[dict]:
    """
    Spoil the labels of a data set, always the same ones.

    Args:
        records: the data set, as Detectron2's catalog has it. It stays as it is.
        num_classes: the number of its classes.
        removed: the share of objects whose annotation is left out.
        swapped: the share of objects that get another class.
        moved: the share of objects whose box is moved by a part of its size.
        added: for how many of the objects another label is added where none of them is.

    Returns:
        the data set. Annotations have ``error``, one of `ERRORS` or None, and ``true_bbox``, where
        the object is, if it is one; the annotations that were left out are in ``removed``.
    """
    rng, places = np.random.default_rng(0), np.random.default_rng(1)
    spoilt = []
    for record in records:
        kept, gone = [], []
        objects = [_xyxy(x) for x in record["annotations"]]
        for x, box in zip(record["annotations"], objects):
            x = {**x, "true_bbox": box, "error": None}
            fate, other = rng.random(), rng.integers(1, num_classes) if num_classes > 1 else 0
            if fate < removed:
                gone.append({**x, "error": "removed"})
                continue
            if fate < removed + swapped and num_classes > 1:
                x["category_id"] = (x["category_id"] + other) % num_classes
                x["error"] = "swapped"
            elif removed + swapped <= fate < removed + swapped + moved:
                other_box = _moved(box, record, places)
                x |= _at(other_box, "moved") if other_box else {}
            kept.append(x)
            if fate > 1 - added:
                new = {"category_id": int(places.integers(num_classes)), "iscrowd": 0}
                other_box = _elsewhere(box, objects, record, places)
                if other_box:
                    kept.append({**new, "true_bbox": None, **_at(other_box, "added")})
        spoilt.append({**record, "annotations": kept, "removed": gone})
    return spoilt


def _xyxy(annotation: dict) -> list[float]:
    return BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)


def _at(box: Sequence[float], error: str) -> dict:
    return {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "error": error}


def _moved(box: Sequence[float], record: dict, rng: np.random.Generator) -> list[float] | None:
    """In any direction, as long as what stays in the image is neither the object nor elsewhere."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0

    def draw() -> list[float]:
        angle, shift = rng.uniform(0, 2 * np.pi), rng.uniform(*_SHIFT)
        dx, dy = shift * w * np.cos(angle), shift * h * np.sin(angle)
        return _inside([x0 + dx, y0 + dy, x1 + dx, y1 + dy], record)

    return _draw_until(draw, lambda b: _MOVED_IOU[0] < _most(b, [box]) < _MOVED_IOU[1])


def _elsewhere(
    like: Sequence[float], objects: list, record: dict, rng: np.random.Generator
) -> list[float] | None:
    """A box of the size of another, where no object is."""
    w, h = like[2] - like[0], like[3] - like[1]

    def draw() -> list[float]:
        x, y = rng.uniform(0, record["width"] - w), rng.uniform(0, record["height"] - h)
        return [x, y, x + w, y + h]

    return _draw_until(draw, lambda b: _most(b, objects) < 0.1)


def _most(box: Sequence[float], others: Sequence[Sequence[float]]) -> float:
    """The highest IoU with any of them."""
    return float(pairwise_iou(Boxes([box]), Boxes(others)).max())


def _draw_until(
    draw: Callable[[], list[float]], is_right: Callable[[list[float]], bool]
) -> list[float] | None:
    for _ in range(100):  # tries
        box = draw()
        if is_right(box):
            return box
    return None


def _inside(box: Sequence[float], record: dict) -> list[float]:
    limits = [record["width"], record["height"]] * 2
    return np.clip(box, 0, limits).tolist()
