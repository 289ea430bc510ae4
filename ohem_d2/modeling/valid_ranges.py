"""
Valid ranges: at each scale of an image, only objects and RoIs in a range of sizes count.

Scale Normalization for Image Pyramids: Singh and Davis, An Analysis of Scale Invariance in Object
Detection - SNIP, CVPR 2018.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from detectron2.structures import Boxes, RotatedBoxes, pairwise_iou, pairwise_iou_rotated
from fvcore.transforms.transform import Transform
from torch import Tensor

from ..config import ValidRange

# What overlaps an invalid object by a higher IoU is no background.
_NEAR = 0.3


class ValidSizes(NamedTuple):
    """What counts in an image at its scale."""

    # Of boxes: the square root of their area, in pixels of the image as the model sees it.
    smallest: float
    largest: float
    # (G, 4): those of other sizes.
    invalid_objects: Boxes | RotatedBoxes


def sizes_at(
    ranges: Sequence[ValidRange], max_size: int, image_size: tuple[int, int], transforms: Transform
) -> tuple[float, float]:
    """
    Tell which sizes count in an image that was resized to one of some scales.

    Args:
        ranges: those of the scales, at least one, in pixels of the file.
        max_size: the most that an edge may have at any scale.
        image_size: height and width, as the model sees it.
        transforms: from the file to this image.

    Returns:
        the smallest size and the largest one, in pixels of this image.
    """
    short, long = sorted(image_size)
    off = [abs(min(x.edge, max_size * short / long) - short) for x in ranges]
    # Where the limit makes one image of several scales, what counts at any of them counts.
    same = [x for x, difference in zip(ranges, off) if difference == min(off)]
    origin, right, down = transforms.apply_coords(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    (a, b), (c, d) = right - origin, down - origin
    scale = math.sqrt(abs(a * d - b * c))
    return min(x.smallest for x in same) * scale, max(x.largest for x in same) * scale


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
