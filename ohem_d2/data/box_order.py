"""Boxes whose second corner is not the lower right one, such as those drawn from it."""

from detectron2.structures import BoxMode

from .boxes import corners, words_of
from .findings import Findings

SORTED = "box whose corners are in another order, or whose sizes are negative, sorted"
_SLIP = 1  # pixel, by which a box that has no area may end before it begins


def sort_corners(records: list[dict], findings: Findings) -> None:
    """
    Sort the corners of boxes. Those of zero area stay as they are.

    Args:
        records: in Detectron2's form, which are changed.
        findings: where to put the boxes.
    """
    for record in records:
        for annotation in record["annotations"]:
            x0, y0, x1, y1 = corners(annotation)
            is_in_order = x0 <= x1 and y0 <= y1
            if is_in_order or -_SLIP <= x1 - x0 <= 0 or -_SLIP <= y1 - y0 <= 0:
                continue
            findings.add(SORTED, record["file_name"], words_of(annotation))
            box = [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
            annotation["bbox"] = BoxMode.convert(box, BoxMode.XYXY_ABS, annotation["bbox_mode"])
