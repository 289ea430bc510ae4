"""The box of an object in Detectron2's form, for the checks."""

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
