"""A proposal generator that mines: of all anchors, it trains on those that a sampler chooses."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F

from ..config import OHEMRPNOptions, config_key, ohem_rpn_options, options_by_name
from ..errors import InputError
from ..mining.candidates import Candidates
from ..mining.losses import box_losses
from .anchor_logs import log_hard_anchors
from .build_sampler import build_sampler
from .ignore_rpn import IgnoreRegionsMixin
from .sampler_check import choose

logger = logging.getLogger(__name__)


class _Anchors(NamedTuple):
    """The A anchors of each of N images, one image after the other, and what is predicted."""

    boxes: Tensor  # (A, 4), the same in each image
    labels: Tensor  # (N * A,): 1 object, 0 background, -1 neither
    gt_boxes: Tensor  # (N * A, 4), of what is background it may be any
    logits: Tensor  # (N * A,)
    deltas: Tensor  # (N * A, 4)


@PROPOSAL_GENERATOR_REGISTRY.register()
class OHEMRPN(IgnoreRegionsMixin, RPN):
    """
    `RPN` with mining: of all anchors of a batch, a sampler chooses those to train on, where
    Detectron2 draws some of each image at random. Like `IgnoreRPN`, it learns nothing from regions
    to ignore.

    It adds no weights and no second pass, since all anchors have their predictions before any is
    chosen. Inference is that of `RPN`. A pass without gradients, such as a validation loss, draws
    anchors as Detectron2 does.

    Attributes:
        sampler: what chooses the anchors, see `ohem_d2.mining.samplers`. Class 0 is an object, and
            1 is background. Candidates have no ``objects`` and no ``pred_ious``.
    """

    # Whether the pass that is under way mines.
    _mines = False

    @configurable
    def __init__(self, *, ohem: OHEMRPNOptions | Mapping | None = None, **kwargs: Any) -> None:
        """
        Args:
            ohem: how anchors are chosen, or only the options that differ from their default, by
                name.
            kwargs: the arguments of `RPN`.

        Raises:
            InputError: an option is wrong.
        """
        super().__init__(**kwargs)
        if not isinstance(ohem, OHEMRPNOptions):
            ohem = options_by_name(OHEMRPNOptions, ohem or {})
        if self.batch_size_per_image < 1:
            raise InputError(
                f"MODEL.RPN.BATCH_SIZE_PER_IMAGE is {self.batch_size_per_image}, expected 1 or "
                "more: it is the number of anchors to train on per image"
            )
        self.ohem = ohem
        self.sampler = build_sampler(ohem, self.positive_fraction)
        self._is_checked = False  # what the sampler does, once

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """See Detectron2's `configurable`."""
        return {**super().from_config(cfg, input_shape), "ohem": ohem_rpn_options(cfg)}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See Detectron2's `RPN.forward`, which stays as it is, and can be scripted."""
        features = args[1] if len(args) > 1 else kwargs["features"]
        # A checkpoint (torch.utils.checkpoint) runs a step without gradients first, and then again
        # with them, and both passes have to take the same anchors.
        is_step = torch.is_grad_enabled() or any(x.requires_grad for x in features.values())
        self._mines = self.training and is_step and get_event_storage().iter >= self.ohem.start_iter
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self._mines = False

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """Keep all labels, where Detectron2 draws some at random."""
        return self._outside(label) if self._mines else super()._subsample_labels(label)

    @torch.jit.unused
    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """See Detectron2's `RPN.losses`, which is given the labels of the chosen anchors alone."""
        if self._mines:
            of_batch = _Anchors(
                type(anchors[0]).cat(anchors).tensor,
                cat(gt_labels),
                cat(gt_boxes),
                cat(pred_objectness_logits, dim=1).flatten(),
                cat(pred_anchor_deltas, dim=1).flatten(0, 1),
            )
            chosen, weights = self._choose(of_batch, len(gt_labels))
            labels = torch.full_like(of_batch.labels, -1)
            labels[chosen] = of_batch.labels[chosen]
            gt_labels = list(labels.view(len(gt_labels), -1))
            if weights is None and int((labels >= 0).sum()) < len(chosen):
                weights = torch.ones_like(chosen)  # an anchor that is chosen twice counts twice
        losses: dict[str, Tensor] = super().losses(
            anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        if self._mines and weights is not None:
            # Detectron2's are computed for what else they log.
            normalizer = self.batch_size_per_image * len(gt_labels)
            for name, of_anchors in self._losses_of(of_batch, chosen).items():
                losses[name] = (weights * of_anchors).sum() / normalizer
        return losses

    @torch.no_grad()
    def _choose(self, anchors: _Anchors, num_images: int) -> tuple[Tensor, Tensor | None]:
        """Which of the N * A anchors to train on, and their weights, if the sampler gives any."""
        numbers = (anchors.labels >= 0).nonzero().squeeze(1)
        candidates = self._candidates(anchors, numbers, num_images)
        indices, weights, is_hard = choose(
            self.sampler,
            candidates,
            self.batch_size_per_image,
            is_checked=not self._is_checked,
            warn=logger.warning,
            key=config_key("sampler", OHEMRPNOptions.NODE),
            chosen_for=("anchors", "RPN"),
        )
        self._is_checked = True
        hard = indices if is_hard is None else indices[is_hard]
        log_hard_anchors("ohem_rpn", candidates, hard)
        return numbers[indices], weights

    def _candidates(self, anchors: _Anchors, numbers: Tensor, num_images: int) -> Candidates:
        """What a sampler gets: the anchors of these numbers, in [0, N * A)."""
        losses = self._losses_of(anchors, numbers)
        boxes = anchors.boxes[numbers % len(anchors.boxes)]
        logits = anchors.logits[numbers].float()
        return Candidates(
            boxes=boxes,
            labels=1 - anchors.labels[numbers].long(),
            image_ids=numbers // len(anchors.boxes),
            loss_cls=losses["loss_rpn_cls"],
            loss_box_reg=losses["loss_rpn_loc"],
            num_classes=1,
            num_images=num_images,
            iteration=get_event_storage().iter,
            ious=lambda: matched_pairwise_iou(Boxes(boxes), Boxes(anchors.gt_boxes[numbers])),
            objectness=logits,
            pred_classes=lambda: (logits <= 0).long(),
            pred_scores=lambda: logits.abs().sigmoid(),
            pred_boxes=lambda: self.box2box_transform.apply_deltas(anchors.deltas[numbers], boxes),
        )

    def _losses_of(self, anchors: _Anchors, numbers: Tensor) -> dict[str, Tensor]:
        """
        The losses of single anchors, with their weights: the sums over those that are trained on,
        divided by the budget of all images, are Detectron2's.
        """
        labels = anchors.labels[numbers]
        of_objects = (labels == 1).nonzero().squeeze(1)
        on_objects = numbers[of_objects]
        loss_cls = F.binary_cross_entropy_with_logits(
            anchors.logits[numbers].float(), labels.float(), reduction="none"
        )
        loss_loc = box_losses(
            self.box2box_transform,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
            anchors.deltas[on_objects],
            anchors.boxes[on_objects % len(anchors.boxes)],
            anchors.gt_boxes[on_objects],
        )
        losses = {
            "loss_rpn_cls": loss_cls,
            "loss_rpn_loc": torch.zeros_like(loss_cls).index_copy(0, of_objects, loss_loc.float()),
        }
        return {name: x * self.loss_weight.get(name, 1.0) for name, x in losses.items()}
