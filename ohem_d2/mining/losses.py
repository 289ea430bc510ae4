"""The loss of each RoI, unreduced: exactly what the box predictor would compute for it alone."""

from collections.abc import Sequence

import torch
from detectron2.layers import cat, ciou_loss, cross_entropy, diou_loss
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError

_IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


def losses_per_roi(
    predictor: FastRCNNOutputLayers, predictions: tuple[Tensor, ...], proposals: list[Instances]
) -> dict[str, Tensor]:
    """
    The losses of ``predictor.losses(predictions, proposals)``, before they are averaged over RoIs.

    The mean of each over any set of RoIs is what ``predictor.losses`` returns for that set,
    including its loss weights. Nothing is logged.

    With the federated loss, this holds only for the set as a whole: the classes that count are
    drawn at random for the set, including those of its ground truth, so a part of it would draw
    others.

    Args:
        predictor: the box predictor, whose settings decide which losses are computed. If it has a
            method ``losses_per_roi``, because its losses are others, that method is not called
            here, but may call this function for Detectron2's losses.
        predictions: what the predictor returned: class scores (R, K + 1) and box deltas (R, 4 * K),
            or (R, 4) if class-agnostic (5 in place of 4 for rotated boxes).
        proposals: one `Instances` for each image, R RoIs in all, with the fields
            ``proposal_boxes``, ``gt_classes`` and, if the image has objects, ``gt_boxes``.

    Returns:
        ``loss_cls`` and ``loss_box_reg``, (R,) each. The second is 0 for background.
    """
    scores, deltas = predictions
    gt_classes = cat([p.gt_classes for p in proposals])
    proposal_boxes = cat([p.proposal_boxes.tensor for p in proposals])
    # An image without objects has background RoIs only, for which the box does not matter.
    gt_boxes = cat(
        [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals]
    )
    losses = {
        "loss_cls": _classification_losses(predictor, scores, gt_classes),
        "loss_box_reg": _box_losses(predictor, deltas, proposal_boxes, gt_boxes, gt_classes),
    }
    return {k: v * predictor.loss_weight.get(k, 1.0) for k, v in losses.items()}


def losses_charged(
    predictor: nn.Module, predictions: tuple[Tensor, ...], proposals: list[Instances]
) -> dict[str, Tensor]:
    """
    The losses that a box predictor computes for each RoI: those of its own method
    ``losses_per_roi``, if it has one, or of `losses_per_roi`.
    """
    own = getattr(predictor, "losses_per_roi", None)
    if callable(own):
        return _checked(predictor, own(predictions, proposals), proposals)
    return losses_per_roi(predictor, predictions, proposals)


def _checked(
    predictor: nn.Module, losses: dict[str, Tensor], proposals: list[Instances]
) -> dict[str, Tensor]:
    shapes = {name: tuple(loss.shape) for name, loss in losses.items()}
    number = sum(len(p) for p in proposals)
    if shapes != {"loss_cls": (number,), "loss_box_reg": (number,)}:
        raise InputError(
            f"{type(predictor).__name__}.losses_per_roi returned {shapes}, expected loss_cls and "
            f"loss_box_reg, one value for each of {number} RoIs"
        )
    return losses


def check_predictor(predictor: nn.Module) -> None:
    """
    Check that the losses of a box predictor are known for each RoI.

    Raises:
        InputError: it computes losses of its own, and has no method ``losses_per_roi``.
    """
    if hasattr(predictor, "losses_per_roi"):
        return
    # What torch.compile and FullyShardedDataParallel wrap answers for itself.
    for name in ("_orig_mod", "_fsdp_wrapped_module"):
        predictor = getattr(predictor, name, predictor)
    for name in ("losses", "sigmoid_cross_entropy_loss", "box_reg_loss"):
        if getattr(type(predictor), name, None) is not getattr(FastRCNNOutputLayers, name):
            raise InputError(
                f"the box predictor {type(predictor).__name__} has a method {name!r} of its own, "
                "so the loss of a single RoI is not known: expected a method losses_per_roi("
                "predictions, proposals) that returns loss_cls and loss_box_reg of each RoI"
            )


def predicted_classes(predictor: nn.Module, scores: Tensor) -> tuple[Tensor, Tensor]:
    """
    The class that the model predicts for each RoI, and its probability.

    Args:
        predictor: the box predictor.
        scores: its class scores, (R, K + 1).

    Returns:
        (R,) int64 in [0, K], where K is background; and (R,) the probability of that class.
    """
    if getattr(predictor, "use_sigmoid_ce", False):
        # Background has no score: it is predicted if no class reaches 1/2.
        best, classes = F.pad(scores[:, :-1], (0, 1), value=0.0).max(dim=1)
        is_background = classes == scores.shape[1] - 1
        best = torch.where(is_background, -scores[:, :-1].max(dim=1).values, best)
        return classes, best.sigmoid()
    best, classes = scores.max(dim=1)
    return classes, (best - scores.logsumexp(dim=1)).exp()


def deltas_of_best_class(predictions: Sequence[Tensor], box_dim: int) -> Tensor | None:
    """
    The box deltas of a predictor for the most probable foreground class.

    Args:
        predictions: class scores (R, K + 1), then box deltas (R, K * B) or class-agnostic (R, B).
        box_dim: B, 4 or for rotated boxes 5.

    Returns:
        (R, B), or None if the predictor returns something else.
    """
    scores, deltas = predictions[0], predictions[1] if len(predictions) > 1 else None
    num_classes = scores.shape[1] - 1
    if not isinstance(deltas, Tensor) or deltas.shape[1:] not in (
        (box_dim,),
        (num_classes * box_dim,),
    ):
        return None
    if deltas.shape[1] == box_dim:
        return deltas
    best = scores[:, :-1].argmax(dim=1)
    return deltas.view(-1, num_classes, box_dim)[torch.arange(len(best), device=best.device), best]


def _classification_losses(
    predictor: FastRCNNOutputLayers, scores: Tensor, gt_classes: Tensor
) -> Tensor:
    losses: Tensor
    if not predictor.use_sigmoid_ce:
        losses = cross_entropy(scores, gt_classes, reduction="none")
        return losses
    num_classes = scores.shape[1] - 1
    targets = F.one_hot(gt_classes, num_classes + 1)[:, :num_classes].to(scores.dtype)
    losses = F.binary_cross_entropy_with_logits(scores[:, :-1], targets, reduction="none")
    if predictor.use_fed_loss and len(gt_classes):
        counting = predictor.get_fed_loss_classes(
            gt_classes, predictor.fed_loss_num_classes, num_classes, predictor.fed_loss_cls_weights
        )
        losses = losses[:, counting[counting < num_classes]]
    return losses.sum(dim=1)


def _box_losses(
    predictor: FastRCNNOutputLayers,
    deltas: Tensor,
    proposal_boxes: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
) -> Tensor:
    box_dim = proposal_boxes.shape[1]
    foreground = (gt_classes < predictor.num_classes).nonzero().squeeze(1)
    proposal_boxes, gt_boxes = proposal_boxes[foreground], gt_boxes[foreground]
    class_specific = deltas.view(len(deltas), deltas.shape[1] // box_dim, box_dim)
    column = gt_classes[foreground] if class_specific.shape[1] > 1 else 0
    deltas = class_specific[foreground, column]

    losses = box_losses(
        predictor.box2box_transform,
        predictor.box_reg_loss_type,
        predictor.smooth_l1_beta,
        deltas,
        proposal_boxes,
        gt_boxes,
    )
    return losses.new_zeros(len(gt_classes)).index_copy(0, foreground, losses)


def box_losses(
    transform: Box2BoxTransform | Box2BoxTransformRotated,
    loss_type: str,
    smooth_l1_beta: float,
    deltas: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
) -> Tensor:
    """
    The box loss of each of F boxes on objects, as Detectron2's heads and RPN compute it.

    Args:
        transform: from boxes and deltas to boxes.
        loss_type: "smooth_l1", "giou", "diou" or "ciou".
        smooth_l1_beta: for the first.
        deltas: (F, B), those that are predicted.
        boxes: (F, B), B is 4 or for rotated boxes 5.
        gt_boxes: (F, B), those of the objects.

    Returns:
        (F,), without weights.
    """
    losses: Tensor
    if loss_type == "smooth_l1":
        targets = transform.get_deltas(boxes, gt_boxes)
        losses = smooth_l1_loss(deltas, targets, beta=smooth_l1_beta).sum(dim=1)
    else:
        losses = _IOU_LOSSES[loss_type](transform.apply_deltas(deltas, boxes), gt_boxes)
    return losses
