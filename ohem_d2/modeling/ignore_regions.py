"""
Regions to ignore: crowds, and whatever else is neither an object nor background.

What lies in one by half or more, and is matched to no object, is trained on by no head. So it is
with what overlaps an object that is invalid at its scale, and with RoIs that are, see
`ohem_d2.modeling.valid_ranges`.
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

from .valid_ranges import ValidSizes, are_near, are_valid

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
        valid: ValidSizes | None = None,
        **fields: Any,
    ) -> None:
        """
        Args:
            image_size: height and width.
            ignore_regions: the regions, G in all, in pixels of the image as the model sees it.
            valid: which sizes count, and the objects that are not among the fields since they are
                of others. None: all sizes.
            fields: those of the objects, such as ``gt_boxes``.
        """
        super().__init__(image_size, **fields)
        self._ignore_regions = ignore_regions
        self._valid = valid

    @property
    def ignore_regions(self) -> Boxes | RotatedBoxes:
        """The regions, whichever objects are chosen."""
        return self._ignore_regions

    @property
    def valid(self) -> ValidSizes | None:
        """Which sizes count; None: all of them."""
        return self._valid

    def to(self, *args: Any, **kwargs: Any) -> "GroundTruth":
        """See Detectron2's `Instances.to`."""
        regions, valid = self._ignore_regions.to(*args, **kwargs), self._valid
        if valid is not None:
            valid = valid._replace(invalid_objects=valid.invalid_objects.to(*args, **kwargs))
        return self._with(super().to(*args, **kwargs), regions, valid)

    def __getitem__(self, item: int | slice | Tensor) -> "GroundTruth":
        """Some of the objects, and all regions."""
        return self._with(super().__getitem__(item), self._ignore_regions, self._valid)

    @staticmethod
    def _with(
        objects: Instances, regions: Boxes | RotatedBoxes, valid: ValidSizes | None
    ) -> "GroundTruth":
        return GroundTruth(objects.image_size, regions, valid, **objects.get_fields())


def regions_of(targets: Instances) -> Boxes | RotatedBoxes | None:
    """The regions to ignore of an image; None if it has none."""
    regions = targets.ignore_regions if isinstance(targets, GroundTruth) else None
    return regions if regions is not None and len(regions) else None


def valid_of(targets: Instances) -> ValidSizes | None:
    """Which sizes count in an image; None if all do."""
    return targets.valid if isinstance(targets, GroundTruth) else None


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
    Leave out the proposals that lie in a region to ignore, or overlap an invalid object, and that
    no object is matched to; and those that are no valid size.

    Args:
        proposals: those of each image, with ``proposal_boxes``.
        targets: the ground truth of each image.
        matcher: what labels them, 1 for an object.

    Returns:
        the rest of each image; of one where all counts, what was given.
    """
    return [_outside(x, t, matcher) for x, t in zip(proposals, targets)]


def _outside(proposals: Instances, targets: Instances, matcher: Matcher) -> Instances:
    regions, valid = regions_of(targets), valid_of(targets)
    if regions is None and valid is None:
        return proposals
    boxes = proposals.proposal_boxes
    is_left_out = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if regions is not None:
        is_left_out |= lie_in(boxes, regions)
    if valid is not None and len(valid.invalid_objects):
        is_left_out |= are_near(boxes, valid.invalid_objects)
    if len(targets):
        iou = pairwise_iou_rotated if isinstance(boxes, RotatedBoxes) else pairwise_iou
        _, labels = matcher(iou(targets.gt_boxes, boxes))
        is_left_out &= labels != 1
    if valid is not None:
        is_left_out |= ~are_valid(boxes, valid.smallest, valid.largest)
    return proposals[~is_left_out]
