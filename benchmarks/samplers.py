"""
Ways of choosing RoIs that the accuracy study compares with those of the package.

They are here until the study says that one is worth a key of the package.
"""

import dataclasses

import torch
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ohem_d2 import OHEMMixin, OHEMROIHeads


def add_study_config(cfg: CfgNode) -> None:
    """Add the keys of `StudyROIHeads` to a config."""
    cfg.STUDY = CfgNode(
        {
            # Before this iteration RoIs are sampled at random, as Detectron2 does it.
            "WARMUP_ITERS": 0,
            # The weight of the box loss in the ranking rises from 0 to twice its own.
            "STAGED": False,
            # Background with a higher classification loss ranks last: it may be an object without a
            # label. Not foreground, of which a young head calls all background.
            "MAX_LOSS": float("inf"),
        }
    )


@ROI_HEADS_REGISTRY.register()
class StudyROIHeads(OHEMROIHeads):
    """`OHEMROIHeads` with the keys above."""

    def __init__(self, cfg: CfgNode, input_shape) -> None:
        super().__init__(cfg, input_shape)
        self.study, self.max_iter = cfg.STUDY, cfg.SOLVER.MAX_ITER

    def _heads_of_this_step(self) -> super:
        if get_event_storage().iter < self.study.WARMUP_ITERS:
            return super(OHEMMixin, self)
        return super()

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """See `OHEMMixin.label_and_sample_proposals`."""
        return self._heads_of_this_step().label_and_sample_proposals(proposals, targets)

    def _sample_proposals(self, *args: Tensor) -> tuple[Tensor, Tensor]:
        return self._heads_of_this_step()._sample_proposals(*args)

    def _cost(self, features: dict[str, Tensor], labelled: list[Instances], *stage) -> Tensor:
        ohem = self.ohem
        if self.study.STAGED:
            progress = get_event_storage().iter / self.max_iter
            self.ohem = dataclasses.replace(ohem, loss_weight_box_reg=2 * progress)
        try:
            cost = super()._cost(features, labelled, *stage)
        finally:
            self.ohem = ohem
        loss = torch.cat([x.ohem_loss_cls for x in labelled])
        is_background = torch.cat([x.gt_classes for x in labelled]) == self.num_classes
        return cost.masked_fill(is_background & (loss > self.study.MAX_LOSS), -1.0)
