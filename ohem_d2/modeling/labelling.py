"""Labelling all proposals with Detectron2's matcher, where Detectron2 keeps some of them."""

from typing import Any

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import BitMasks, Instances, PolygonMasks
from torch import Tensor

from ..config import config_key
from ..errors import InputError
from .extended_head import ExtendedHead
from .ignore_regions import outside_regions


class LabellingMixin(ExtendedHead):
    """
    Labels proposals, for a head that is based on Detectron2's `ROIHeads`. What lies in a region to
    ignore is no proposal, see `ohem_d2.modeling.ignore_regions`.
    """

    # Whether `_sample_proposals` is to take all of them.
    _takes_all = False

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances], *args: Any, **kwargs: Any
    ) -> list[Instances]:
        """See Detectron2's `ROIHeads.label_and_sample_proposals`."""
        proposals = outside_regions(proposals, targets, self.proposal_matcher)
        return super().label_and_sample_proposals(proposals, targets, *args, **kwargs)

    def label_proposals(
        self, proposals: list[Instances], targets: list[Instances], *args: Any, **kwargs: Any
    ) -> list[Instances]:
        """
        Every proposal, and the ground truth if it is appended, except those that the matcher
        ignores and those that lie in a region to ignore; with the fields of the object that it is
        matched to, ``gt_classes`` and ``gt_boxes`` among them, and ``gt_index``, its number. Masks
        may be left out, which `with_ground_truth` adds.

        Args:
            proposals: as in Detectron2's `ROIHeads.label_and_sample_proposals`.
            targets: the same.
            args: further arguments of that method, if the extended head's takes any.
            kwargs: the same.
        """
        label = super().label_and_sample_proposals
        # Detectron2 copies each gt_* field to every RoI, which is slow for masks. A method that is
        # not its own may read them.
        left_out: tuple[type, ...] = (PolygonMasks, BitMasks)
        if not label.__func__.__module__.startswith("detectron2."):
            left_out = ()
        lean = []
        for x in targets:
            fields = {k: v for k, v in x.get_fields().items() if not isinstance(v, left_out)}
            number = torch.arange(len(x), device=x.gt_classes.device)
            lean.append(Instances(x.image_size, **fields, gt_index=number))
        proposals = outside_regions(proposals, targets, self.proposal_matcher)
        self._takes_all = True
        try:
            return label(proposals, lean, *args, **kwargs)
        finally:
            self._takes_all = False

    def _sample_proposals(
        self,
        matched_idxs: Tensor,
        matched_labels: Tensor,
        gt_classes: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Take every RoI that is not ignored, where Detectron2 draws some at random."""
        if not self._takes_all:
            return super()._sample_proposals(
                matched_idxs, matched_labels, gt_classes, *args, **kwargs
            )
        indices = torch.arange(len(matched_labels), device=matched_labels.device)
        if len(gt_classes) == 0:
            # Without objects the matcher knows nothing: all is background, as in Detectron2.
            return indices, torch.full_like(indices, self.num_classes)
        # Looking would wait for the GPU; a matcher of another kind may ignore some as well.
        if -1 in getattr(self.proposal_matcher, "labels", [-1]):
            indices = indices[matched_labels != -1]
        background = torch.full_like(indices, self.num_classes)
        foreground = matched_labels[indices] == 1
        return indices, torch.where(foreground, gt_classes[matched_idxs[indices]], background)


def ignore_below(matcher: Matcher, bg_iou_lo: float) -> Matcher:
    """
    The same matcher, except for RoIs whose best IoU is below ``bg_iou_lo``: it ignores them.

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


def within_limit(
    labelled: list[Instances], max_candidates: int, num_classes: int, seed: int
) -> list[Instances]:
    """
    Keep so many RoIs of each image: foreground first, then background, each at random, on a GPU the
    same ones as on a CPU.

    Args:
        labelled: the labelled RoIs of each image.
        max_candidates: how many to keep; 0: all.
        num_classes: their label if they are background.
        seed: of what is drawn. Random states are not touched.

    Returns:
        the RoIs that are kept, in their order.
    """
    if not max_candidates:
        return labelled
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for x in labelled:
        if len(x) > max_candidates:
            order = torch.randperm(len(x), generator=generator, device="cpu")
            order = order.to(x.gt_classes.device, non_blocking=True)
            is_background = (x.gt_classes == num_classes)[order]
            order = order[is_background.to(torch.uint8).argsort(stable=True)]
            x = x[order[:max_candidates].sort().values]
        kept.append(x)
    return kept


def with_ground_truth(chosen: Instances, targets: Instances) -> Instances:
    """The RoIs of one image, each with all the fields of the object that it is matched to."""
    if chosen.has("gt_index"):
        matched = chosen.gt_index
        chosen.remove("gt_index")
        for name, values in targets.get_fields().items():
            if name.startswith("gt_") and not chosen.has(name):
                chosen.set(name, values[matched])
    return chosen
