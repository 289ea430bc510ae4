"""Areas that a file gives beside boxes, by which COCO's metric sorts objects into three sizes."""

from collections.abc import Sequence

from .boxes import corners, words_of
from .fields import run_lengths, runs_fault
from .findings import Findings

_MORE = 1.5  # times the area of the box: more than its object can have
_LESS = 0.5  # of the area of the outline
_FAR_LESS = 0.1  # of the area of the box, in a file without outlines: that of a thin object
_MANY, _MOST = 20, 0.95  # of the objects, that many of which are not all thin
# Fewer tell it where all are the same part of their boxes, and less than that of a triangle.
_SOME, _SAME, _PART = 5, 1.02, 0.4


def check_areas(name: str, records: Sequence[dict], findings: Findings) -> None:
    """
    Name areas that cannot be those of their objects. They are kept: pycocotools takes them, too.

    Args:
        name: of the data set.
        records: those of it.
        findings: where to put them.
    """
    shares = []
    for record in records:
        for annotation in record["annotations"]:
            if (area := annotation.get("area")) is None:
                continue
            box = corners(annotation)
            width, height = box[2] - box[0], box[3] - box[1]
            if width <= 0 or height <= 0:
                continue  # which is named as such
            least, most = _of_outline(annotation)
            # Some tools count the pixels on both edges.
            most = max(most, (width + 1) * (height + 1))
            if not 0 < area <= _MORE * most or area < _LESS * min(least, width * height):
                findings.add(
                    "area that cannot be that of its object, by which COCO's metric tells small "
                    "objects from large ones",
                    record["file_name"],
                    f"{words_of(annotation)} has {area:g}",
                )
            elif not least:
                shares.append(area / (width * height))
    far_less = sum(share < _FAR_LESS for share in shares)
    are_most = len(shares) >= _MANY and far_less >= _MOST * len(shares)
    if len(shares) >= _SOME and max(shares) <= min(_SAME * min(shares), _PART):
        are_most, far_less = True, len(shares)
    if are_most:
        findings.add(
            "areas that are far less than those of the boxes, as if they were those of smaller "
            "images, by which COCO's metric tells small objects from large ones",
            name,
            f"{far_less} of {len(shares)} objects",
        )


def _of_outline(annotation: dict) -> tuple[float, float]:
    """The area of an outline: of the largest of its polygons, which may overlap, and of all."""
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        height, width = outline["size"]
        lengths = None if runs_fault(outline, height, width) else run_lengths(outline["counts"])
        filled = 0.0 if lengths is None else float(lengths[1::2].sum())
        return filled, filled
    areas = [_of_polygon(polygon) for polygon in outline or ()]
    return max(areas, default=0.0), sum(areas)


def _of_polygon(polygon: Sequence[float]) -> float:
    xs, ys = polygon[0::2], polygon[1::2]
    pairs = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]])
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in pairs)) / 2
