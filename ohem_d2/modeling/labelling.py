"""Labelling all proposals with Detectron2's matcher, where Detectron2 keeps some of them."""

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Instances
from torch import Tensor

from ..config import config_key
from ..errors import InputError
from .extended_head import ExtendedHead


class LabellingMixin(ExtendedHead):
    """Labels proposals, for a head that is based on Detectron2's `ROIHeads`."""

    # Whether `_sample_proposals` is to take all of them.
    _takes_all = False

    def label_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """
        Every proposal, and the ground truth if it is appended, but for those that the matcher
        ignores; with ``gt_classes``, ``gt_boxes`` and ``gt_index``, the object it is matched to.
        """
        # Detectron2 copies each gt_* field to every RoI, which is slow for masks: it is given what
        # the ranking needs, and the rest follows for those that are trained on.
        needed = [
            Instances(
                x.image_size,
                gt_boxes=x.gt_boxes,
                gt_classes=x.gt_classes,
                gt_index=torch.arange(len(x), device=x.gt_classes.device),
            )
            for x in targets
        ]
        self._takes_all = True
        try:
            return super().label_and_sample_proposals(proposals, needed)
        finally:
            self._takes_all = False

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take every RoI that is not ignored, where Detectron2 draws some at random."""
        if not self._takes_all:
            return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)
        indices = torch.arange(len(matched_labels), device=matched_labels.device)
        # To look is to wait for the GPU; a matcher of another kind may ignore some as well.
        if -1 in getattr(self.proposal_matcher, "labels", [-1]):
            indices = indices[matched_labels != -1]
        background = torch.full_like(indices, self.num_classes)
        if len(gt_classes) == 0:
            return indices, background
        foreground = matched_labels[indices] == 1
        return indices, torch.where(foreground, gt_classes[matched_idxs[indices]], background)


def ignore_below(matcher: Matcher, bg_iou_lo: float) -> Matcher:
    """
    The same matcher, but for RoIs whose best IoU is below ``bg_iou_lo``: it ignores them.

    Raises:
        InputError: no background would be left.
    """
    thresholds = matcher.thresholds[1:-1]  # without the infinities at both ends
    if bg_iou_lo >= thresholds[0]:
        raise InputError(
            f"{config_key('bg_iou_lo')} is {bg_iou_lo}, expected less than {thresholds[0]}, "
            "the first of MODEL.ROI_HEADS.IOU_THRESHOLDS: no background would be left"
        )
    return Matcher(
        [bg_iou_lo, *thresholds], [-1, *matcher.labels], matcher.allow_low_quality_matches
    )


def with_ground_truth(chosen: Instances, targets: Instances) -> Instances:
    """The RoIs of one image, each with all the fields of the object that it is matched to."""
    if chosen.has("gt_index"):
        matched = chosen.gt_index
        chosen.remove("gt_index")
        for name, values in targets.get_fields().items():
            if name.startswith("gt_") and not chosen.has(name):
                chosen.set(name, values[matched])
    return chosen
