"""
Samplers choose the RoIs to train on. A sampler is called in each training step, with all candidates
of the batch and the budget, and returns a selection::

    @SAMPLERS.register()
    class MySampler:
        def __call__(self, candidates: Candidates, num_samples: int) -> Selection: ...

The parameters of its constructor are settings: see `ohem_d2.modeling.build_sampler`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from detectron2.modeling.sampling import subsample_labels
from fvcore.common.registry import Registry
from torch import Tensor

from ..errors import InputError
from .candidates import Candidates, Selection
from .select import select_hard_examples

SAMPLERS = Registry("SAMPLERS")
SAMPLERS.__doc__ = "Samplers, by the names that MODEL.ROI_HEADS.OHEM.SAMPLER takes."


class Sampler(Protocol):
    """What the classes in `SAMPLERS` build."""

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """
        Choose the RoIs to train on.

        Args:
            candidates: all R labelled RoIs of the batch.
            num_samples: the budget: how many RoIs to choose per image.

        Returns:
            the chosen RoIs.
        """
        ...


@SAMPLERS.register()
@dataclass(frozen=True)
class OHEMSampler:
    """
    The RoIs with the highest loss, as in "Training Region-based Object Detectors with Online Hard
    Example Mining" (Shrivastava, Gupta, Girshick, CVPR 2016). See `select_hard_examples`.
    """

    nms_thresh: float = 0.7
    scope: str = "image"
    max_foreground_fraction: float | None = None
    loss_weight_cls: float = 1.0
    loss_weight_box_reg: float = 1.0

    def ranking_loss(self, candidates: Candidates) -> Tensor:
        """(R,) the loss that RoIs are ranked by. The weights do not change the training loss."""
        return (
            self.loss_weight_cls * candidates.loss_cls
            + self.loss_weight_box_reg * candidates.loss_box_reg
        )

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        hard = select_hard_examples(
            self.ranking_loss(candidates),
            candidates.boxes,
            candidates.labels,
            candidates.image_ids,
            num_samples=num_samples,
            num_classes=candidates.num_classes,
            nms_thresh=self.nms_thresh,
            scope=self.scope,
            max_foreground_fraction=self.max_foreground_fraction,
            num_images=candidates.num_images,
        )
        return Selection(hard)


@SAMPLERS.register()
@dataclass(frozen=True)
class RandomSampler:
    """Detectron2's sampling: at random, in a fixed ratio of foreground to background."""

    positive_fraction: float = 0.25

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        drawn = draw(candidates, num_samples, self.positive_fraction)
        return Selection(drawn, is_hard=torch.zeros_like(drawn, dtype=torch.bool))


@SAMPLERS.register()
@dataclass(frozen=True)
class MixedSampler(OHEMSampler):
    """
    A fraction of the budget, at least one RoI, goes to the RoIs with the highest loss. The rest is
    drawn at random from the others of each image, including duplicates, in Detectron2's ratio; it
    does not make up for hard examples that suppression leaves too few of.
    """

    hard_fraction: float = 0.5
    positive_fraction: float = 0.25

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """See `Sampler`."""
        num_hard = max(1, math.floor(self.hard_fraction * num_samples + 0.5))
        hard = super().__call__(candidates, num_hard).indices
        drawn = self.draw_rest(candidates, hard, num_samples - num_hard)
        indices = torch.cat([hard, drawn])
        is_hard = torch.arange(len(indices), device=indices.device) < len(hard)
        return Selection(indices, is_hard=is_hard)

    def draw_rest(self, candidates: Candidates, hard: Tensor, num_samples: int) -> Tensor:
        """
        Draw the RoIs to train on in addition to the hard examples.

        Args:
            candidates: all R RoIs.
            hard: (H,) indices of the hard examples.
            num_samples: how many to draw per image.

        Returns:
            indices into R.
        """
        return draw(candidates, num_samples, self.positive_fraction, hard)


class SharedSampler:
    """
    Lets several heads train on the same RoIs, such as those of a teacher and a student that get the
    same proposals::

        shared = SharedSampler(student.roi_heads.sampler)
        student.roi_heads.sampler = shared
        teacher.roi_heads.sampler = shared.follower

    A pass without gradients mines only if `OHEMMixin.mines_without_gradients` says so.
    """

    def __init__(self, sampler: Sampler) -> None:
        """
        Args:
            sampler: the sampler that chooses.

        Raises:
            InputError: it cannot be called.
        """
        if not callable(sampler):
            raise InputError(f"SharedSampler was given {sampler!r}, expected a sampler")
        self.sampler = sampler
        self._last: tuple[Tensor, Selection] | None = None

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        """Choose, and remember the choice."""
        selection = self.sampler(candidates, num_samples)
        self._last = candidates.boxes, selection
        return selection

    def follower(self, candidates: Candidates, num_samples: int) -> Selection:
        """
        Return the last choice.

        Raises:
            InputError: it was made among other RoIs, or there is none yet.
        """
        if self._last is None:
            raise InputError(
                "a follower was called before its SharedSampler, which has to choose first"
            )
        boxes, selection = self._last
        if boxes.shape != candidates.boxes.shape or not torch.allclose(boxes, candidates.boxes):
            raise InputError(
                f"a follower received different RoIs ({len(candidates)}) from its SharedSampler "
                f"({len(boxes)}): expected the same proposals for both heads, and a MAX_CANDIDATES "
                "of 0, since each head draws its own"
            )
        return selection


def draw(
    candidates: Candidates,
    num_samples: int,
    positive_fraction: float,
    without: Tensor | None = None,
) -> Tensor:
    """
    Draw RoIs of each image at random, as Detectron2's `subsample_labels` does.

    Args:
        candidates: all R RoIs.
        num_samples: how many to draw per image.
        positive_fraction: at most this fraction of them is foreground.
        without: indices into R of RoIs not to draw.

    Returns:
        indices into R, ordered by image, then foreground before background.
    """
    labels = candidates.labels
    if without is not None:
        labels = labels.index_fill(0, without, -1)
    drawn = [labels.new_zeros(0)]
    for rois in rois_by_image(candidates) if num_samples > 0 else ():
        of_image = subsample_labels(
            labels[rois], num_samples, positive_fraction, candidates.num_classes
        )
        drawn.append(rois[torch.cat(of_image)])
    return torch.cat(drawn)


def rois_by_image(candidates: Candidates) -> tuple[Tensor, ...]:
    """The indices into R of the RoIs of each image, in their order."""
    image_ids, order = candidates.image_ids.sort(stable=True)
    images = torch.arange(1, candidates.num_images, device=order.device)
    return torch.tensor_split(order, torch.searchsorted(image_ids, images).tolist())
