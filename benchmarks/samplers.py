"""
Ways of choosing RoIs that the accuracy study compares with those of the package.

The study found none of these worth a key of the package; they are here so that it can be repeated.
"""

import dataclasses

import torch
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ohem_d2 import OHEMROIHeads


def add_study_config(cfg: CfgNode) -> None:
    """Add the keys of `StudyROIHeads` to a config."""
    cfg.STUDY = CfgNode(
        {
            # The weight of the box loss in the ranking rises from 0 to twice its own.
            "STAGED": False,
            # Background with a higher classification loss ranks last: it may be an object without a
            # label. Not foreground, of which a young head calls all background.
            "MAX_LOSS": float("inf"),
            # Less foreground is drawn at random where the hard examples hold enough of it.
            "BALANCED": False,
        }
    )


@ROI_HEADS_REGISTRY.register()
class StudyROIHeads(OHEMROIHeads):
    """`OHEMROIHeads` with the keys above."""

    def __init__(self, cfg: CfgNode, input_shape) -> None:
        super().__init__(cfg, input_shape)
        self.study, self.max_iter = cfg.STUDY, cfg.SOLVER.MAX_ITER

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

    def _draw(self, labelled: list[Instances], hard: Tensor, number: int) -> list[Tensor]:
        if number == 0 or not self.study.BALANCED:
            return super()._draw(labelled, hard, number)
        labels = torch.cat([x.gt_classes for x in labelled])
        is_hard = torch.zeros_like(labels, dtype=torch.bool).index_fill(0, hard, True)
        num_fg = int(self.batch_size_per_image * self.positive_fraction)
        sizes = [len(x) for x in labelled]
        drawn = []
        for of_image, hard_of_image in zip(labels.split(sizes), is_hard.split(sizes)):
            missing = num_fg - int((of_image[hard_of_image] < self.num_classes).sum())
            fraction = (min(max(missing, 0), number) + 0.5) / number
            left = of_image.masked_fill(hard_of_image, -1)
            drawn.append(torch.cat(subsample_labels(left, number, fraction, self.num_classes)))
        return drawn
