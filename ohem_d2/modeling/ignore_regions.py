"""
Regions to ignore: crowds, and whatever else is neither an object nor background.

What lies in one by half or more, and is matched to no object, is trained on by no head.
"""

from typing import Any

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import (
    Boxes,
    Instances,
    RotatedBoxes,
    pairwise_ioa,
    pairwise_iou,
    pairwise_iou_rotated,
)
from torch import Tensor

# The part of a box that has to lie in a region.
_IN_A_REGION = 0.5


class GroundTruth(Instances):
    """
    The objects of an image, as fields, and its regions to ignore, which are none of them.

    `GeneralizedRCNN` moves the instances of each image to its device, and passes them to the
    proposal generator and to the heads. It passes on nothing else, so the regions travel with them.
    They are no field, since there are not as many of them as objects; so whoever does not know them
    sees the objects alone.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        ignore_regions: Boxes | RotatedBoxes,
        **fields: Any,
    ) -> None:
        """
        Args:
            image_size: height and width.
            ignore_regions: the regions, G in all, in pixels of the image as the model sees it.
            fields: those of the objects, such as ``gt_boxes``.
        """
        super().__init__(image_size, **fields)
        self._ignore_regions = ignore_regions

    @property
    def ignore_regions(self) -> Boxes | RotatedBoxes:
        """The regions, whichever objects are chosen."""
        return self._ignore_regions

    def to(self, *args: Any, **kwargs: Any) -> "GroundTruth":
        """See Detectron2's `Instances.to`."""
        regions = self._ignore_regions.to(*args, **kwargs)
        return self._with(super().to(*args, **kwargs), regions)

    def __getitem__(self, item: int | slice | Tensor) -> "GroundTruth":
        """Some of the objects, and all regions."""
        return self._with(super().__getitem__(item), self._ignore_regions)

    @staticmethod
    def _with(objects: Instances, regions: Boxes | RotatedBoxes) -> "GroundTruth":
        return GroundTruth(objects.image_size, regions, **objects.get_fields())


def regions_of(targets: Instances) -> Boxes | RotatedBoxes | None:
    """The regions to ignore of an image; None if it has none."""
    regions = targets.ignore_regions if isinstance(targets, GroundTruth) else None
    return regions if regions is not None and len(regions) else None


def lie_in(boxes: Boxes | RotatedBoxes, regions: Boxes | RotatedBoxes) -> Tensor:
    """
    Tell which boxes lie in a region by half of their area or more.

    Args:
        boxes: R boxes.
        regions: G regions, at least one.

    Returns:
        (R,) bool.
    """
    if isinstance(boxes, RotatedBoxes) or isinstance(regions, RotatedBoxes):
        shares = _rotated_ioa(_rotated(regions), _rotated(boxes))
    else:
        shares = pairwise_ioa(regions, boxes)
    return (shares >= _IN_A_REGION).any(dim=0)


def _rotated(boxes: Boxes | RotatedBoxes) -> RotatedBoxes:
    if isinstance(boxes, RotatedBoxes):
        return boxes
    x0, y0, x1, y1 = boxes.tensor.unbind(dim=1)
    center_and_size = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    return RotatedBoxes(torch.stack([*center_and_size, torch.zeros_like(x0)], dim=1))


def _rotated_ioa(regions: RotatedBoxes, boxes: RotatedBoxes) -> Tensor:
    """(G, R): the part of each box that lies in each region. Detectron2 has its IoU alone."""
    iou, area = pairwise_iou_rotated(regions, boxes), boxes.area()
    shared = iou / (1 + iou) * (regions.area()[:, None] + area)
    return torch.where(iou > 0, shared / area, torch.zeros_like(iou))


@torch.no_grad()
def outside_regions(
    proposals: list[Instances], targets: list[Instances], matcher: Matcher
) -> list[Instances]:
    """
    Leave out the proposals that lie in a region to ignore, and that no object is matched to.

    Args:
        proposals: those of each image, with ``proposal_boxes``.
        targets: the ground truth of each image.
        matcher: what labels them, 1 for an object.

    Returns:
        the rest of each image; of one without regions, what was given.
    """
    return [_outside(x, t, matcher) for x, t in zip(proposals, targets)]


def _outside(proposals: Instances, targets: Instances, matcher: Matcher) -> Instances:
    regions = regions_of(targets)
    if regions is None:
        return proposals
    boxes = proposals.proposal_boxes
    is_left_out = lie_in(boxes, regions)
    if len(targets):
        iou = pairwise_iou_rotated if isinstance(boxes, RotatedBoxes) else pairwise_iou
        _, labels = matcher(iou(targets.gt_boxes, boxes))
        is_left_out &= labels != 1
    return proposals[~is_left_out]
