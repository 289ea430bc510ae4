"""
Valid ranges: at each scale of an image, only objects and RoIs in a range of sizes count.

Scale Normalization for Image Pyramids: Singh and Davis, An Analysis of Scale Invariance in Object
Detection - SNIP, CVPR 2018.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge, ResizeTransform
from detectron2.structures import Boxes, RotatedBoxes, pairwise_iou, pairwise_iou_rotated
from fvcore.transforms.transform import Transform, TransformList
from torch import Tensor

from ..config import is_number
from ..errors import InputError, shown

# What overlaps an invalid object by a higher IoU is no background.
_NEAR = 0.3


class ValidRange(NamedTuple):
    """
    Which objects count at a scale: an entry of ``INPUT.VALID_RANGES``, or in a Python config of
    ``train.valid_ranges``.
    """

    # The scale: the shortest edge that an image is resized to.
    edge: int
    # The square root of an area, in pixels of the file.
    smallest: float
    largest: float


class ValidSizes(NamedTuple):
    """What counts in an image at its scale."""

    # Of boxes: the square root of their area, in pixels of the image as the model sees it.
    smallest: float
    largest: float
    # (G, 4): those of other sizes.
    invalid_objects: Boxes | RotatedBoxes


def valid_ranges(cfg: CfgNode) -> tuple[ValidRange, ...]:
    """
    The valid ranges of a config.

    Raises:
        InputError: see `as_valid_ranges`.
    """
    return as_valid_ranges(cfg.INPUT.get("VALID_RANGES", ()))


def as_valid_ranges(given: Any) -> tuple[ValidRange, ...]:
    """
    Read valid ranges: of each scale, its shortest edge, the smallest size and the largest one.

    Raises:
        InputError: they are none, or a scale has more than one.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise _no_ranges(given)
    for x in given:
        if isinstance(x, str) or not isinstance(x, Sequence) or len(x) != 3:
            raise _no_ranges(given)
        edge, smallest, largest = x
        has_sizes = is_number(smallest) and (is_number(largest) or largest == math.inf)
        if type(edge) is not int or edge < 1 or not has_sizes or not 0 <= smallest < largest:
            raise _no_ranges(given)
    ranges = tuple(ValidRange(*x) for x in given)
    if len({x.edge for x in ranges}) < len(ranges):
        raise _no_ranges(given)
    return ranges


def _no_ranges(given: Any) -> InputError:
    return InputError(
        f"INPUT.VALID_RANGES is {shown(given)}, expected a list of (shortest edge, smallest, "
        "largest), such as (800, 40, 160), each edge once, and each smallest size less than the "
        "largest"
    )


def ranges_of_scales(
    ranges: Sequence[ValidRange], edges: Sequence[int], key: str
) -> tuple[ValidRange, ...]:
    """
    The valid ranges of some scales; none if there are no ranges at all.

    Args:
        ranges: those of a config.
        edges: the shortest edges that images are resized to.
        key: where these are set.

    Raises:
        InputError: a scale has no range.
    """
    known = {x.edge for x in ranges}
    if ranges and not known.issuperset(edges):
        raise InputError(
            f"INPUT.VALID_RANGES has ranges for {sorted(known)}, expected one for each shortest "
            f"edge in {key}, {sorted(set(edges))}"
        )
    return tuple(x for x in ranges if x.edge in edges)


def check_no_other_scales(ranges: Sequence[ValidRange], edges: Sequence[int], where: str) -> None:
    """
    Refuse ranges of scales that no image is resized to.

    Args:
        ranges: those of a config.
        edges: the shortest edges that images are resized to.
        where: the keys that set these.

    Raises:
        InputError: there is such a range.
    """
    if other := sorted({x.edge for x in ranges}.difference(edges)):
        raise InputError(
            f"INPUT.VALID_RANGES has ranges for {other}, expected some for the edges in {where} "
            f"alone, {sorted(set(edges))}"
        )


def sizes_at(
    ranges: Sequence[ValidRange], max_size: int, transforms: TransformList
) -> tuple[float, float]:
    """
    Tell which sizes count in an image that was resized to one of some scales.

    Args:
        ranges: those of the scales, at least one, in pixels of the file.
        max_size: the most that an edge may have at any scale.
        transforms: from the file to the image as the model sees it, a `ResizeShortestEdge`'s among
            them.

    Returns:
        the smallest size and the largest one, in pixels of this image.

    Raises:
        InputError: what is resized is resized again, so that it is at none of these scales.
    """
    applied = transforms.transforms
    last = max((i for i, x in enumerate(applied) if isinstance(x, ResizeTransform)), default=-1)
    same = []
    # The size of the image tells no scale: it may be cropped, padded or turned after the resize.
    if last >= 0 and math.isclose(_scale(applied[last + 1 :]), 1, rel_tol=1e-3):
        x = applied[last]
        shape = ResizeShortestEdge.get_output_shape
        # Where the limit makes one image of several scales, what counts at any of them counts.
        same = [r for r in ranges if shape(x.h, x.w, r.edge, max_size) == (x.new_h, x.new_w)]
    if not same:
        names = ", ".join(type(x).__name__ for x in applied)
        raise InputError(
            f"INPUT.VALID_RANGES is set, but an image went through {names}, expected nothing that "
            "resizes it after ResizeShortestEdge"
        )
    scale = _scale(applied)
    return min(x.smallest for x in same) * scale, max(x.largest for x in same) * scale


def _scale(transforms: Sequence[Transform]) -> float:
    """By how much they make an image larger, but for its edges."""
    corner = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    origin, right, down = TransformList(list(transforms)).apply_coords(corner)
    (a, b), (c, d) = right - origin, down - origin
    return math.sqrt(abs(a * d - b * c))


def are_valid(boxes: Boxes | RotatedBoxes, smallest: float, largest: float) -> Tensor:
    """
    Tell which boxes are of these sizes, both included.

    Args:
        boxes: R boxes.
        smallest: the square root of an area.
        largest: the same.

    Returns:
        (R,) bool.
    """
    sizes = boxes.area().sqrt()
    # A broken box, which has no size, is for others to find.
    return ~((sizes < smallest) | (sizes > largest))


def are_near(boxes: Boxes | RotatedBoxes, invalid_objects: Boxes | RotatedBoxes) -> Tensor:
    """
    Tell which boxes overlap an invalid object by an IoU above 0.3.

    Args:
        boxes: R boxes.
        invalid_objects: G objects of the same kind, at least one.

    Returns:
        (R,) bool.
    """
    iou = pairwise_iou_rotated if isinstance(boxes, RotatedBoxes) else pairwise_iou
    return (iou(invalid_objects, boxes) > _NEAR).any(dim=0)
