"""
Iterative box regression and weighted box voting at test time (Gidaris and Komodakis, ICCV 2015).

What the head finds is scored and refined again, round by round. All rounds together go through
non-maximum suppression; then each box that is left becomes the mean of those that overlap it.
"""

import logging
from collections.abc import Callable, Mapping

import torch
from detectron2.config import CfgNode
from detectron2.layers import batched_nms, batched_nms_rotated
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    StandardROIHeads,
)
from detectron2.structures import (
    Boxes,
    Instances,
    RotatedBoxes,
    pairwise_iou,
    pairwise_iou_rotated,
)
from torch import Tensor

from ..config import BoxVotingOptions, box_voting_options, options_by_name
from .box_branch import BoxBranchMixin, config_of, is_configured_above, own_names

logger = logging.getLogger(__name__)

# Boxes that are voted on at a time, so that memory does not grow with their number.
_CHUNK = 256


def detect(
    predict: Callable[[list[Instances]], tuple[list[Tensor], list[Tensor]]],
    proposals: list[Instances],
    options: BoxVotingOptions,
    score_thresh: float,
    topk: int,
) -> list[Instances]:
    """
    Detect objects among proposals, in several rounds, and let the boxes vote.

    Args:
        predict: from the proposals of each image, R of them, to the boxes of each, (R, K * B) or
            (R, B), and to their probabilities, (R, K + 1); B is 4, or 5 for rotated boxes.
        proposals: of each image, with ``proposal_boxes``.
        options: the number of rounds, at least 1, and the thresholds.
        score_thresh: what has a lower score is dropped in each round.
        topk: at most so many detections are kept of each image; -1 for all.

    Returns:
        for each image ``pred_boxes``, ``scores`` and ``pred_classes``, the best first.
    """
    candidates = [
        _candidates(x, boxes, probs, score_thresh)
        for x, boxes, probs in zip(proposals, *predict(proposals))
    ]
    everything = [[x] for x in candidates]
    for _ in range(options.rounds - 1):
        # Not more than there were at first, so that no round costs more than the first.
        candidates = [c[: len(x)] for c, x in zip(candidates, proposals)]
        refined = [Instances(c.image_size, proposal_boxes=c.pred_boxes) for c in candidates]
        candidates = [
            _candidates(c, boxes, probs, score_thresh, c.pred_classes)
            for c, boxes, probs in zip(candidates, *predict(refined))
        ]
        for rounds, c in zip(everything, candidates):
            rounds.append(c)
    return [suppress_and_vote(Instances.cat(rounds), options, topk) for rounds in everything]


def _candidates(
    x: Instances, boxes: Tensor, probs: Tensor, score_thresh: float, classes: Tensor | None = None
) -> Instances:
    """Of the predictions for the boxes of an image, those that score enough, the best first.

    ``classes``, (R,): each box is one of this class, and predictions for others do not count.
    """
    is_finite = boxes.isfinite().all(dim=1) & probs.isfinite().all(dim=1)
    boxes, probs = boxes[is_finite], probs[is_finite]
    classes = None if classes is None else classes[is_finite]
    num_classes = probs.shape[1] - 1
    box_type = type(x.proposal_boxes if x.has("proposal_boxes") else x.pred_boxes)
    scores = probs[:, :num_classes]
    if classes is not None:
        of_its_class = torch.zeros_like(scores, dtype=torch.bool)
        of_its_class[torch.arange(len(classes), device=classes.device), classes] = True
        scores = scores.masked_fill(~of_its_class, -1)
    rois, labels = (scores > max(score_thresh, 0)).nonzero(as_tuple=True)
    scores, best_first = scores[rois, labels].sort(descending=True, stable=True)
    rois, labels = rois[best_first], labels[best_first]

    box_dim = 5 if box_type is RotatedBoxes else 4
    boxes = boxes.view(len(boxes), boxes.shape[1] // box_dim, box_dim)
    found = box_type(boxes[rois, labels if boxes.shape[1] > 1 else torch.zeros_like(labels)])
    found.clip(x.image_size)
    return Instances(x.image_size, pred_boxes=found, scores=scores, pred_classes=labels)[
        found.nonempty()
    ]


def suppress(found: Instances, nms_thresh: float, topk: int) -> Instances:
    """
    Of all that was found in an image, the best of each object.

    Args:
        found: with ``pred_boxes``, ``scores`` and ``pred_classes``.
        nms_thresh: of two of a class that overlap by a higher IoU, the better one is kept.
        topk: at most so many are kept; -1 for all.
    """
    boxes, classes = found.pred_boxes.tensor, found.pred_classes
    nms = batched_nms_rotated if isinstance(found.pred_boxes, RotatedBoxes) else batched_nms
    return found[nms(boxes, found.scores, classes, nms_thresh)[: topk if topk >= 0 else None]]


def suppress_and_vote(found: Instances, options: BoxVotingOptions, topk: int) -> Instances:
    """The same, with boxes that all voted on."""
    kept = suppress(found, options.nms_thresh, topk)
    kept.pred_boxes = vote(kept, found, options.vote_thresh)
    return kept


def vote(kept: Instances, found: Instances, vote_thresh: float) -> Boxes | RotatedBoxes:
    """
    Move each box to the mean of the boxes of its class that overlap it, weighted by their scores.

    Args:
        kept: the boxes to move, with ``pred_boxes`` and ``pred_classes``.
        found: those that vote, which have ``scores`` too, and the ones to move among them.
        vote_thresh: the IoU from which on a box has a vote.

    Returns:
        the boxes in their new places.
    """
    is_rotated = isinstance(kept.pred_boxes, RotatedBoxes)
    iou = pairwise_iou_rotated if is_rotated else pairwise_iou
    mean = _mean_rotated if is_rotated else _mean
    moved = [kept.pred_boxes.tensor[:0]]
    for start in range(0, len(kept), _CHUNK):
        some = kept[start : start + _CHUNK]
        votes = (iou(some.pred_boxes, found.pred_boxes) >= vote_thresh) & (
            some.pred_classes[:, None] == found.pred_classes
        )
        weights = votes * found.scores
        # A box whose IoU with itself is rounded to less than 1 is not to be left without a vote.
        weights /= weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
        voted = mean(some.pred_boxes.tensor, found.pred_boxes.tensor, weights)
        moved.append(torch.where(votes.any(dim=1, keepdim=True), voted, some.pred_boxes.tensor))
    return type(kept.pred_boxes)(torch.cat(moved))


def _mean(_: Tensor, boxes: Tensor, weights: Tensor) -> Tensor:
    return weights @ boxes


def _mean_rotated(kept: Tensor, boxes: Tensor, weights: Tensor) -> Tensor:
    """
    A box turned by 90 degrees, with its sides exchanged, is the same box: of its forms, the one
    whose angle is next to that of the kept box is the one to take the mean with.
    """
    quarter_turns = ((kept[:, None, 4] - boxes[None, :, 4]) / 90).round()
    exchanged = quarter_turns % 2 == 1
    x, y, w, h, angle = boxes.unbind(dim=1)
    values = (
        x.expand_as(weights),
        y.expand_as(weights),
        torch.where(exchanged, h, w),
        torch.where(exchanged, w, h),
        angle + 90 * quarter_turns,
    )
    return torch.stack([(weights * v).sum(dim=1) for v in values], dim=1)


class BoxVotingMixin(BoxBranchMixin):
    """
    Box voting for a head that is based on Detectron2's `ROIHeads`, where ``TEST.BOX_VOTING`` asks
    for it. It adds no weights, and training is that of the extended head.
    """

    # Neither this nor a subclass in this project is @configurable: the extended head reads the
    # config in its own way, which may be that of heads that are older than @configurable.
    def __init__(
        self, *args, box_voting: BoxVotingOptions | Mapping | None = None, **kwargs
    ) -> None:
        """
        Args:
            args: the config and the shapes of the features, unless all is given by name.
            box_voting: how detections are refined, or those options that differ from their
                default, by name. None: as the config says, or not at all.
            kwargs: the arguments of the extended head.
        """
        if box_voting is None:
            box_voting = box_voting_options(config_of(*args, **kwargs))
        elif not isinstance(box_voting, BoxVotingOptions):
            box_voting = options_by_name(BoxVotingOptions, box_voting, name="box_voting")
        super().__init__(*args, **kwargs)
        self.box_voting = box_voting
        if box_voting.rounds and "_forward_box" in own_names(type(self).__mro__):
            logger.warning(
                f"class {type(self).__name__} has a _forward_box of its own, which TEST.BOX_VOTING "
                "does not call: what it does at test time needs a method detect_boxes"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape) -> dict:
        """See Detectron2's `configurable`."""
        arguments = super().from_config(cfg, input_shape)
        if is_configured_above(cls):
            arguments["box_voting"] = box_voting_options(cfg)
        return arguments

    def __call__(
        self, images, features: dict[str, Tensor], proposals: list[Instances], *args, **kwargs
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See Detectron2's `ROIHeads.forward`, which stays as it is, and can be scripted."""
        targets = args[0] if args else kwargs.get("targets")
        # With objects to compare with, a loss is asked for, as of a validation.
        if self.box_voting.rounds and not self.training and targets is None:
            return self._detect_with_voting(features, proposals), {}
        return super().__call__(images, features, proposals, *args, **kwargs)

    def _detect_with_voting(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        """What the extended head does at test time, except for how boxes are found."""
        last = self._predictors()[-1]
        found = detect(
            lambda x: self.detect_boxes(features, x),
            proposals,
            self.box_voting,
            last.test_score_thresh,
            last.test_topk_per_image,
        )
        return self.forward_with_given_boxes(features, found)


@ROI_HEADS_REGISTRY.register()
class BoxVotingROIHeads(BoxVotingMixin, StandardROIHeads):
    """`StandardROIHeads`, which samples RoIs at random, with box voting at test time."""
