"""
Samplers that the accuracy study compares with those of the package.

The study found none of these worth a place in the package; they are here so that it can be
repeated. The settings of most are those of `MixedSampler` and one more each.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from detectron2.modeling.sampling import subsample_labels
from torch import Tensor
from torchvision.ops import box_iou

from ohem_d2 import SAMPLERS, Candidates, MixedSampler, OHEMSampler, RandomSampler, Selection
from ohem_d2.mining.samplers import rois_by_image

sys.path.append(str(Path(__file__).parents[1] / "docs/samplers"))
import iou_balanced  # noqa: F401  (registers it)


@SAMPLERS.register()
@dataclass(frozen=True)
class Staged(MixedSampler):
    """
    The weight of the box loss in the ranking rises from 0 to twice its own: after S-OHEM (Li et
    al., 2017), without its stratified sampling.
    """

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


@SAMPLERS.register()
@dataclass(frozen=True)
class HardPool(OHEMSampler):
    """
    At random among the hardest, `pool_size` times as many (MONAI, where it is 10: with a fifth of
    the proposals as budget, that is all of them).
    """

    pool_size: float = 2.0

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        pool = super().__call__(candidates, round(self.pool_size * num_samples)).indices
        drawn = [pool[:0]]
        for image in range(candidates.num_images):
            of_image = pool[candidates.image_ids[pool] == image]
            order = torch.randperm(len(of_image), device=pool.device)
            drawn.append(of_image[order[:num_samples]])
        return Selection(torch.cat(drawn))


@SAMPLERS.register()
@dataclass(frozen=True)
class InProportion(OHEMSampler):
    """At random, each RoI with a probability in proportion to its loss."""

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        # Something for those without a loss, which are drawn when no others are left.
        losses = self.ranking_loss(candidates).float() + 1e-12
        drawn = [rois_by_image(candidates)[0][:0]]
        for rois in rois_by_image(candidates):
            if len(rois):
                number = min(num_samples, len(rois))
                drawn.append(rois[losses[rois].multinomial(number)])
        return Selection(torch.cat(drawn))


def softened(candidates: Candidates, chosen: Selection) -> Selection:
    """
    The same RoIs, with background weighed by its overlap with labels: little where it overlaps
    none, since an object without a label may be there. The weights and their parameters are those
    of Soft Sampling (Wu et al., BMVC 2019).
    """
    a, b, c = 0.25, 50.0, 20.0
    weights = a + (1 - a) * torch.exp(-b * torch.exp(-c * candidates.ious[chosen.indices]))
    is_background = candidates.labels[chosen.indices] == candidates.num_classes
    return chosen._replace(weights=torch.where(is_background, weights, 1.0))


@SAMPLERS.register()
@dataclass(frozen=True)
class SoftRandom(RandomSampler):
    """Detectron2's sampling with Soft Sampling's weights."""

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        return softened(candidates, super().__call__(candidates, num_samples))


@SAMPLERS.register()
@dataclass(frozen=True)
class SoftMixed(MixedSampler):
    """The default with Soft Sampling's weights."""

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        return softened(candidates, super().__call__(candidates, num_samples))


@SAMPLERS.register()
@dataclass(frozen=True)
class PrimeSamples(RandomSampler):
    """
    Hierarchical local rank, after PISA (Cao et al., CVPR 2020): foreground is drawn at random, and
    weighed by the rank of its predicted IoU; background is taken by the rank of its score. The
    rank is that among neighbours first (RoIs of the same object; background that overlaps), and
    that among all of the same rank then. Without PISA's loss of its own. Unlike in PISA, background
    is clustered before its boxes are refined, all of it is ranked, and it has no weights.
    """

    overlap: float = 0.5  # from which on background is in one cluster
    exponent: float = 2.0  # of the weights

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        labels, num_classes = candidates.labels, candidates.num_classes
        num_fg = int(num_samples * self.positive_fraction)
        chosen = []
        for rois in rois_by_image(candidates):
            foreground, _ = subsample_labels(labels[rois], num_fg, 1.0, num_classes)
            background = rois[labels[rois] == num_classes]
            scores = 1 - torch.exp(-candidates.loss_cls[background].float())
            clusters = clusters_of(candidates.boxes[background], scores, self.overlap)
            best = local_rank(scores, clusters).argsort()[: num_samples - len(foreground)]
            chosen += [rois[foreground], background[best]]
        indices = torch.cat(chosen)
        return Selection(indices, weights=self._weights(candidates, indices))

    def _weights(self, candidates: Candidates, indices: Tensor) -> Tensor:
        """Those of the chosen RoIs, which leave the sum of the losses of foreground as it was."""
        labels = candidates.labels[indices]
        losses = candidates.loss_cls[indices].float()
        weights = torch.ones_like(losses)
        numbers = labels[labels < candidates.num_classes].bincount()
        if not len(numbers):
            return weights
        most = int(numbers.max())
        objects = candidates.image_ids * (int(candidates.objects.max()) + 1) + candidates.objects
        for label in numbers.nonzero()[:, 0].tolist():
            of_class = (labels == label).nonzero()[:, 0]
            rois = indices[of_class]
            rank = local_rank(candidates.pred_ious[rois].float(), objects[rois])
            weights[of_class] = ((most - rank) / most) ** self.exponent
        foreground = labels < candidates.num_classes
        before, after = losses[foreground].sum(), (weights * losses)[foreground].sum()
        weights[foreground] *= before / after.clamp(min=1e-12)
        return weights


def clusters_of(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """
    The cluster of each box: around the box with the highest score, those of a higher IoU than
    `overlap` with it; then the same of what is left.
    """
    clusters = torch.full_like(scores, -1, dtype=torch.int64)
    near = box_iou(boxes, boxes) > overlap
    for number, box in enumerate(scores.argsort(descending=True, stable=True).tolist()):
        if clusters[box] < 0:
            clusters[near[box] & (clusters < 0)] = number
            clusters[box] = number
    return clusters


def local_rank(scores: Tensor, groups: Tensor) -> Tensor:
    """The rank of each, from 0: by the rank in its group, and then by its score."""
    best_first = scores.argsort(descending=True, stable=True)
    in_group = torch.empty_like(best_first)
    for group in groups.unique():
        of_group = best_first[groups[best_first] == group]
        in_group[of_group] = torch.arange(len(of_group), device=groups.device)
    order = best_first[in_group[best_first].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank
