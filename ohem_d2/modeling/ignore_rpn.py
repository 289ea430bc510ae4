"""Detectron2's proposal generators, which learn nothing from regions to ignore."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rrpn import RRPN
from detectron2.structures import Boxes, Instances, RotatedBoxes
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from .ignore_regions import lie_in, regions_of, valid_of
from .valid_ranges import are_near

if TYPE_CHECKING:
    from detectron2.modeling.proposal_generator import RPN as ExtendedRPN
else:
    ExtendedRPN = object


class IgnoreRegionsMixin(ExtendedRPN):
    """
    Leaves out the anchors that lie in a region to ignore, and that no object is matched to; and
    those that overlap an invalid object, see `ohem_d2.modeling.valid_ranges`.

    Put it before the generator to extend, which is based on Detectron2's `RPN`. It adds no weights,
    and without regions it draws the same anchors, bit by bit.
    """

    # Of each image whose anchors are still to be drawn: see `_highest_left_out`.
    _left_out: Iterator[Tensor | None] | None = None

    @torch.jit.unused
    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See Detectron2's `RPN.label_and_sample_anchors`."""
        if all(regions_of(x) is None and valid_of(x) is None for x in gt_instances):
            return super().label_and_sample_anchors(anchors, gt_instances)
        together = type(anchors[0]).cat(anchors)
        # Detectron2 labels the anchors of one image after the other, and draws from each at once.
        self._left_out = (_highest_left_out(together, x) for x in gt_instances)
        try:
            return super().label_and_sample_anchors(anchors, gt_instances)
        finally:
            self._left_out = None

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """See Detectron2's `RPN._subsample_labels`."""
        return super()._subsample_labels(self._outside(label))

    def _outside(self, label: Tensor) -> Tensor:
        """The labels of the anchors of the next image: -1 for those that are left out."""
        highest = None if self._left_out is None else next(self._left_out)
        if highest is not None:
            label[label <= highest.to(label.device)] = -1
        return label


def _highest_left_out(anchors: Boxes | RotatedBoxes, targets: Instances) -> Tensor | None:
    """
    Of each anchor, the highest label that is left out: (A,) of 0, background; 1, objects, too; or
    -1, none. None: no anchor is left out.
    """
    regions, valid = regions_of(targets), valid_of(targets)
    if regions is None and (valid is None or not len(valid.invalid_objects)):
        return None
    highest = torch.full((len(anchors),), -1, dtype=torch.int8, device=anchors.device)
    # Boxes, which a retry can move to the CPU.
    if regions is not None:
        highest[retry_if_cuda_oom(lie_in)(anchors, regions).to(highest.device)] = 0
    if valid is not None and len(valid.invalid_objects):
        is_near = retry_if_cuda_oom(are_near)(anchors, valid.invalid_objects)
        highest[is_near.to(highest.device)] = 1
    return highest


@PROPOSAL_GENERATOR_REGISTRY.register()
class IgnoreRPN(IgnoreRegionsMixin, RPN):
    """`RPN`, which learns nothing from regions to ignore."""


@PROPOSAL_GENERATOR_REGISTRY.register()
class IgnoreRRPN(IgnoreRegionsMixin, RRPN):
    """`RRPN` (rotated boxes), which learns nothing from regions to ignore."""


# The proposal generator that each one extends -> the one that ignores regions.
COUNTERPARTS = {x.__bases__[1]: x for x in (IgnoreRPN, IgnoreRRPN)}
