"""The box of an object in Detectron2's form, for the checks."""

from collections.abc import Sequence

from detectron2.structures import BoxMode


def corners(annotation: dict) -> list[float]:
    """The box of an object as [x0, y0, x1, y1], in pixels."""
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    if mode == BoxMode.XYWH_ABS:  # by hand: BoxMode makes a tensor of each, for each check
        x, y, width, height = box
        return [x, y, x + width, y + height]
    return BoxMode.convert(list(box), mode, BoxMode.XYXY_ABS)


def words_of(annotation: dict) -> str:
    """The class and the box of an object, to find it in a file."""
    return f"{annotation['category_id']!r} at {[round(x, 2) for x in annotation['bbox']]}"


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """The IoU of two boxes, [x0, y0, x1, y1]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return both / max(sum(areas) - both, 1e-9)
