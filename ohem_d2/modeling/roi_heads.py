"""Detectron2's RoI heads with mining, by the names that a config gives."""

from collections.abc import Mapping

import torch
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    RROIHeads,
    StandardROIHeads,
)
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..mining.candidates import Candidates
from .head_checks import check_arguments, check_config
from .ignore_regions import outside_regions
from .labelling import within_limit
from .mixin import OHEMMixin
from .reading import best_iou


class _OfItsKind(OHEMMixin):
    """Refuses the config of another head."""

    @classmethod
    def check_kind(cls, cfg: CfgNode | None, arguments: Mapping | None = None) -> None:
        """See `OHEMMixin.check_kind`."""
        known = (OHEMCascadeROIHeads, OHEMRes5ROIHeads, OHEMRROIHeads, OHEMROIHeads)
        kind = next(k for k in known if issubclass(cls, k))
        if cfg is None:
            check_arguments(cls, kind.__name__, arguments or {})
        else:
            check_config(cls, kind.__name__, cfg, warns=arguments is not None)


@ROI_HEADS_REGISTRY.register()
class OHEMROIHeads(_OfItsKind, StandardROIHeads):
    """`StandardROIHeads` (box, mask and keypoint heads on FPN or dilated C5) with mining."""

    # For TorchScript, as Detectron2 annotates StandardROIHeads: a head that is not there is not
    # compiled. mypy misses the values, which StandardROIHeads sets.
    mask_on: torch.jit.Final[bool]  # type: ignore[misc]
    keypoint_on: torch.jit.Final[bool]  # type: ignore[misc]


@ROI_HEADS_REGISTRY.register()
class OHEMRes5ROIHeads(_OfItsKind, Res5ROIHeads):
    """`Res5ROIHeads` (C4: box and mask heads share res5) with mining."""

    # Never more than the budget: what res5 makes of a RoI is large.
    _fewest_at_a_time = _fewest_at_a_time_on_gpu = 0

    def read_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> tuple[FastRCNNOutputLayers, tuple[Tensor, Tensor]]:
        """See `OHEMMixin.read_boxes`."""
        maps = [features[f] for f in self.in_features]
        shared = self._shared_roi_transform(maps, [x.proposal_boxes for x in proposals])
        return self.box_predictor, self.box_predictor(shared.mean(dim=[2, 3]))


@ROI_HEADS_REGISTRY.register()
class OHEMRROIHeads(_OfItsKind, RROIHeads):
    """`RROIHeads` (rotated boxes) with mining: rotated IoU in matching and in suppression."""


@ROI_HEADS_REGISTRY.register()
class OHEMCascadeROIHeads(_OfItsKind, CascadeROIHeads):
    """
    `CascadeROIHeads` with mining in the stages that ``ohem.cascade_stages`` names.

    The first stage mines among the proposals, or samples them as Detectron2 does. A later stage is
    given the boxes that the stage before predicts, matched at its own IoU; it mines among these
    with its own head and loss, or takes all of them as Detectron2 does.
    """

    def mined_stages(self) -> list[int]:
        """See `OHEMMixin.mined_stages`."""
        return sorted({*self.ohem.cascade_stages})

    def mines_among_proposals(self) -> bool:
        """See `OHEMMixin.mines_among_proposals`: whether the first stage mines."""
        return 0 in self.ohem.cascade_stages

    def read_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances], stage: int = 0
    ) -> tuple[FastRCNNOutputLayers, tuple[Tensor, Tensor]]:
        """See `OHEMMixin.read_boxes`."""
        maps = [features[f] for f in self.box_in_features]
        pooled = self.box_pooler(maps, [x.proposal_boxes for x in proposals])
        predictor = self.box_predictor[stage]
        return predictor, predictor(self.box_head[stage](pooled))

    def detect_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See `OHEMMixin.detect_boxes`: the boxes of the last stage, the mean score of all."""
        probs: list[list[Tensor]] = []
        boxes: list[Tensor] = []
        for stage in range(self.num_cascade_stages):
            if stage > 0:
                sizes = [x.image_size for x in proposals]
                proposals = self._create_proposals_from_boxes(boxes, sizes)
            predictor, predictions = self.read_boxes(features, proposals, stage)
            boxes = predictor.predict_boxes(predictions, proposals)
            probs.append(predictor.predict_probs(predictions, proposals))
        return boxes, [torch.stack(x).mean(dim=0) for x in zip(*probs)]

    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """Label the boxes that the stage before predicted, and mine among them if asked to."""
        proposals = outside_regions(proposals, targets, self.proposal_matchers[stage])
        is_step, label = torch.is_grad_enabled(), super()._match_and_label_boxes
        mines = stage in self.ohem.cascade_stages
        features = self._features_to_mine(is_step) if mines else None
        if features is None:
            labelled = label(proposals, stage, targets)
            return self._above_lowest_iou(labelled, targets) if mines else labelled
        seed = self._draw_seed()

        def label_and_read() -> tuple[list[Instances], Candidates]:
            labelled = self._above_lowest_iou(label(proposals, stage, targets), targets)
            labelled = within_limit(labelled, self.ohem.max_candidates, self.num_classes, seed)
            return labelled, self._read(features, labelled, targets, stage)

        with torch.no_grad(), get_event_storage().name_scope(f"stage{stage}"):
            labelled, candidates = self._reader.read(self, label_and_read)
            return self._sample(labelled, candidates, is_step, stage)

    def _above_lowest_iou(
        self, labelled: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Without background below ``ohem.bg_iou_lo``, for which matchers of these stages have no
        label. An image without objects keeps it."""
        lowest = self.ohem.bg_iou_lo
        if lowest <= 0:
            return labelled
        kept = []
        for x, of_image in zip(labelled, targets):
            if len(of_image):
                is_object = x.gt_classes < self.num_classes
                x = x[is_object | (best_iou(x.proposal_boxes, of_image) >= lowest)]
            kept.append(x)
        return kept
