"""
Samplers that the accuracy study compares with those of the package.

The study found none of these worth a place in the package; they are here so that it can be
repeated. Their settings are those of `MixedSampler` and one more each.
"""

from dataclasses import dataclass, replace

import torch
from detectron2.modeling.sampling import subsample_labels
from torch import Tensor

from ohem_d2 import SAMPLERS, Candidates, MixedSampler
from ohem_d2.mining.samplers import rois_by_image


@SAMPLERS.register()
@dataclass(frozen=True)
class Staged(MixedSampler):
    """The weight of the box loss in the ranking rises from 0 to twice its own (S-OHEM)."""

    max_iter: int = 1

    def ranking_loss(self, candidates: Candidates) -> Tensor:
        """See `OHEMSampler.ranking_loss`."""
        progress = candidates.iteration / self.max_iter
        weighted = replace(self, loss_weight_box_reg=2 * progress)
        return super(Staged, weighted).ranking_loss(candidates)


@SAMPLERS.register()
@dataclass(frozen=True)
class Capped(MixedSampler):
    """
    Background with a higher classification loss ranks last: it may be an object without a label.
    Not foreground, of which a young head calls all background.
    """

    max_loss: float = float("inf")

    def ranking_loss(self, candidates: Candidates) -> Tensor:
        """See `OHEMSampler.ranking_loss`."""
        is_background = candidates.labels == candidates.num_classes
        capped = is_background & (candidates.loss_cls > self.max_loss)
        return super().ranking_loss(candidates).masked_fill(capped, -1.0)


@SAMPLERS.register()
@dataclass(frozen=True)
class Balanced(MixedSampler):
    """Less foreground is drawn at random where the hard examples hold enough of it."""

    def draw_rest(self, candidates: Candidates, hard: Tensor, num_samples: int) -> Tensor:
        """See `MixedSampler.draw_rest`."""
        if num_samples == 0:
            return hard[:0]
        labels, num_classes = candidates.labels, candidates.num_classes
        num_fg = int(num_samples / (1 - self.hard_fraction) * self.positive_fraction)  # in all
        drawn = [hard[:0]]
        for rois in rois_by_image(candidates):
            is_hard = torch.isin(rois, hard)
            num_hard_fg = int((labels[rois[is_hard]] < num_classes).sum())
            missing = min(max(num_fg - num_hard_fg, 0), num_samples)
            left = labels[rois].masked_fill(is_hard, -1)
            fraction = (missing + 0.5) / num_samples
            drawn.append(
                rois[torch.cat(subsample_labels(left, num_samples, fraction, num_classes))]
            )
        return torch.cat(drawn)
