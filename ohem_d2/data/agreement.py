"""Whether the boxes of objects agree with their outlines, areas and keypoints."""

import math
from collections.abc import Sequence

from detectron2.structures import BoxMode

from ..errors import InputError
from .boxes import corners, iou, words_of
from .fields import run_lengths, runs_fault
from .findings import Findings

_FEW = 3  # objects tell nothing
_MOST = 0.95
_HALF = 0.5  # of the IoU of a box and that of its outline
_SAME = 0.9  # of the IoU, in two readings that may both come near
_SAME_AREA = 0.05  # may be off by this part
# How far keypoints may lie outside, as parts of the larger side of the box and of the image.
_BESIDE, _BEYOND = 0.1, 0.05
_AT_0 = (0.5, 0.5)  # in the first pixel, whose middle that is

_Box = Sequence[float]


def check_agreement(name: str, records: list[dict], findings: Findings) -> None:
    """
    Compare boxes with outlines, areas and keypoints.

    Args:
        name: of the data set.
        records: those of it, as their files have them.
        findings: where to put objects whose outline or keypoints lie elsewhere.

    Raises:
        InputError: together they show that boxes are corners in the place of width and height.
    """
    _check_sizes(name, records)
    for record in records:
        for annotation in record["annotations"]:
            box = corners(annotation)
            around = _around(annotation)
            if around is not None and iou(box, around) < _HALF:
                findings.add(
                    "outline that does not fit its box", record["file_name"], words_of(annotation)
                )
            if _miscounts(annotation):
                findings.add(
                    "num_keypoints that is not the number of labelled keypoints, by which COCO's "
                    "metric goes",
                    record["file_name"],
                    f"{words_of(annotation)}: {annotation['num_keypoints']}",
                )
            if fault := _fault_of_keypoints(annotation, box, record):
                findings.add(fault, record["file_name"], words_of(annotation))


def _check_sizes(name: str, records: list[dict]) -> None:
    """Tell corners that would do as [x, y, width, height] by outlines, or by areas."""
    pairs = [
        (record, annotation)
        for record in records
        for annotation in record["annotations"]
        if annotation["bbox_mode"] == BoxMode.XYWH_ABS
    ]
    told = [(r, a, fits) for r, a in pairs if (fits := _fits(a)) is not None]
    as_sizes, as_corners = (sum(fits[i] for _, _, fits in told) for i in (0, 1))
    if len(told) >= _FEW and as_corners >= _MOST * len(told) and as_sizes < _HALF * len(told):
        record, box = next((r, a["bbox"]) for r, a, fits in told if not fits[0])
        raise InputError(
            f"the boxes of the data set {name!r} seem to be corners, [x0, y0, x1, y1]: the "
            f"outlines or areas of {as_corners} of {len(told)} objects fit to that, and those of "
            f"{as_sizes} to [x, y, width, height], such as {list(box)} in "
            f"{record['file_name']}: expected [x, y, width, height]"
        )


def _fits(annotation: dict) -> tuple[bool, bool] | None:
    """Whether a box fits to the rest as sizes, and as corners; None if nothing tells."""
    x0, y0, a, b = annotation["bbox"]
    sizes, corners = (x0, y0, x0 + a, y0 + b), (x0, y0, a, b)
    around = _around(annotation)
    if around is not None:
        return iou(sizes, around) >= _SAME, iou(corners, around) >= _SAME
    area = annotation.get("area")
    if not area:
        return None
    return (
        math.isclose(a * b, area, rel_tol=_SAME_AREA),
        math.isclose((a - x0) * (b - y0), area, rel_tol=_SAME_AREA),
    )


def _around(annotation: dict) -> _Box | None:
    """The box around polygons, or around what a run-length encoding fills; None if none can be."""
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        return _around_runs(outline)
    if not outline:
        return None
    xs = [x for polygon in outline for x in polygon[0::2]]
    ys = [y for polygon in outline for y in polygon[1::2]]
    return (min(xs), min(ys), max(xs), max(ys)) if xs and ys else None


def _around_runs(runs: dict) -> _Box | None:
    """Own code: pycocotools reads past the end of what is cut off."""
    height, width = runs["size"]
    lengths = None if runs_fault(runs, height, width) else run_lengths(runs["counts"])
    if lengths is None:  # which a model with masks refuses
        return None
    ends = lengths.cumsum()
    # Runs go down the columns, and those that are filled are the second, the fourth and so on.
    first, last = ends[:-1:2], ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]
    if not len(first):
        return 0, 0, 0, 0
    is_one = first // height == last // height  # of others, one reaches up, and one down
    top = (first % height).min() if is_one.all() else 0
    bottom = (last % height).max() + 1 if is_one.all() else height
    return first.min() // height, top, last.max() // height + 1, bottom


def _miscounts(annotation: dict) -> bool:
    points, given = annotation.get("keypoints") or (), annotation.get("num_keypoints")
    return len(points) > 0 and given not in (None, sum(v > 0 for v in points[2::3]))


def _fault_of_keypoints(annotation: dict, box: _Box, record: dict) -> str:
    """What is odd about the keypoints that are labelled, or ""."""
    points = annotation.get("keypoints") or ()
    labelled = [(x, y) for x, y, v in zip(points[0::3], points[1::3], points[2::3]) if v > 0]
    if not labelled:
        return ""
    larger = max(box[2] - box[0], box[3] - box[1])
    # A single one beside its box may be a slip.
    if len(labelled) > 1 and not any(_is_near(xy, box, 1 + _BESIDE * larger) for xy in labelled):
        return "keypoints that all lie outside of their box"
    image = (0, 0, record["width"], record["height"])
    if not all(_is_near(xy, image, 1 + _BEYOND * max(image)) for xy in labelled):
        return "keypoint outside of its image"
    if any(xy == _AT_0 and not _is_near(xy, box, 1) for xy in labelled):
        return "keypoint at 0, 0, outside of its box, which is said to be labelled"
    # A limb may reach out of a box, though not by as much as the whole has.
    if not all(_is_near(xy, box, 1 + larger) for xy in labelled):
        return "keypoint far outside of its box"
    return ""


def _is_near(point: tuple[float, float], box: _Box, margin: float) -> bool:
    x, y = point
    return box[0] - margin <= x <= box[2] + margin and box[1] - margin <= y <= box[3] + margin
