"""Reading many RoIs: chunk by chunk, and without the model being changed, or noticed."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import (
    Boxes,
    Instances,
    RotatedBoxes,
    pairwise_iou,
    pairwise_iou_rotated,
)
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..mining.candidates import Candidates
from ..mining.losses import deltas_of_best_class, losses_per_roi, predicted_classes


@contextmanager
def read_only(module: nn.Module) -> Iterator[None]:
    """
    Within, forget what batch normalization learns, and drop what is logged.

    Hooks of batch normalization are not called either: PreciseBN counts by these how often a layer
    is used in a step, and refuses one that is used twice.

    Args:
        module: the module to read with.
    """
    norms = [m for m in module.modules() if isinstance(m, _NormBase)]
    hooks = [m._forward_pre_hooks for m in norms]
    before = [(b, b.clone()) for m in norms for b in m.buffers(recurse=False)]
    for m in norms:
        m._forward_pre_hooks = OrderedDict()
    try:
        with EventStorage(get_event_storage().iter):
            yield
    finally:
        # Some versions of torch (2.4 is one) remember the weights that autocast has converted
        # inside, without gradients, and would train on these: that is, not at all.
        torch.clear_autocast_cache()
        for m, m_hooks in zip(norms, hooks):
            m._forward_pre_hooks = m_hooks
        for buffer, value in before:
            buffer.copy_(value)


def read_rois(
    read_boxes: Callable[[list[Instances]], tuple[FastRCNNOutputLayers, tuple[Tensor, ...]]],
    rois: list[Instances],
    targets: list[Instances],
    *,
    num_classes: int,
    chunk_size: int,
) -> Candidates:
    """
    Tell what the model makes of labelled RoIs.

    Args:
        read_boxes: from RoIs to the box predictor and what it returns for them.
        rois: the RoIs of each image, R in all, with ``proposal_boxes``, ``gt_classes`` and, where
            there are objects, ``gt_boxes``. They get the fields ``ohem_loss_cls``,
            ``ohem_loss_box_reg`` and ``ohem_pred_classes``.
        targets: the objects of each image.
        num_classes: number of foreground classes.
        chunk_size: how many RoIs of each image are read at a time.
    """
    boxes = torch.cat([x.proposal_boxes.tensor for x in rois])
    predictors: list[FastRCNNOutputLayers] = []

    def read(chunk: list[Instances]) -> tuple[Tensor, ...]:
        predictor, predictions = read_boxes(chunk)
        predictors.append(predictor)
        losses = losses_per_roi(predictor, predictions, chunk)
        deltas = deltas_of_best_class(predictions, boxes.shape[1])
        return (
            losses["loss_cls"],
            losses["loss_box_reg"],
            *predicted_classes(predictor, predictions[0]),
            *([] if deltas is None else [deltas]),
        )

    loss_cls, loss_box_reg, pred_classes, pred_scores, *deltas = read_in_chunks(
        read, rois, chunk_size
    )
    sizes = [len(x) for x in rois]
    for x, *of_image in zip(
        rois, *(v.split(sizes) for v in (loss_cls, loss_box_reg, pred_classes))
    ):
        x.ohem_loss_cls, x.ohem_loss_box_reg, x.ohem_pred_classes = of_image
    box_type = type(rois[0].proposal_boxes)
    # Class-agnostic deltas of each RoI lead to a single box.
    predicted = cache(lambda: predictors[-1].predict_boxes((None, *deltas), rois))
    has_objectness = all(x.has("objectness_logits") for x in rois)
    return Candidates(
        boxes=boxes,
        labels=torch.cat([x.gt_classes for x in rois]),
        image_ids=torch.cat([torch.full_like(x.gt_classes, i) for i, x in enumerate(rois)]),
        loss_cls=loss_cls,
        loss_box_reg=loss_box_reg,
        num_classes=num_classes,
        num_images=len(rois),
        iteration=get_event_storage().iter,
        ious=lambda: _best_ious([x.proposal_boxes for x in rois], targets),
        objectness=torch.cat([x.objectness_logits for x in rois]) if has_objectness else None,
        pred_classes=pred_classes,
        pred_scores=pred_scores,
        pred_boxes=(lambda: torch.cat(predicted())) if deltas else None,
        pred_ious=(lambda: _best_ious(map(box_type, predicted()), targets)) if deltas else None,
    )


def best_iou(boxes: Boxes | RotatedBoxes, targets: Instances) -> Tensor:
    """(R,) the IoU of each box with the object that it overlaps most, 0 if there is none."""
    if len(targets) == 0:
        return torch.zeros(len(boxes), device=boxes.device)
    iou = pairwise_iou_rotated if isinstance(boxes, RotatedBoxes) else pairwise_iou
    return iou(boxes, targets.gt_boxes).max(dim=1).values


def _best_ious(boxes: Iterable[Boxes | RotatedBoxes], targets: list[Instances]) -> Tensor:
    """The same of the boxes of each image, R in all."""
    return torch.cat([best_iou(x, t) for x, t in zip(boxes, targets)])


def read_in_chunks(
    read: Callable[[list[Instances]], tuple[Tensor, ...]], rois: list[Instances], chunk_size: int
) -> tuple[Tensor, ...]:
    """
    Read RoIs a chunk at a time, so that memory does not grow with their number.

    Args:
        read: from RoIs to tensors with a row for each of them, those of the first image first.
        rois: the RoIs of each image, R in all.
        chunk_size: how many RoIs of each image are read at a time.

    Returns:
        what ``read`` would return for all RoIs at once: (R, ...) each.
    """
    most = max(map(len, rois), default=0)
    chunks = [[x[a : a + chunk_size] for x in rois] for a in range(0, most, chunk_size)] or [rois]
    outputs = [read(chunk) for chunk in chunks]
    sizes = [[len(x) for x in chunk] for chunk in chunks]
    return tuple(_by_image(parts, sizes) for parts in zip(*outputs))


def _by_image(parts: tuple[Tensor, ...], sizes: list[list[int]]) -> Tensor:
    """
    Join parts, each of which has some rows of each image, so that the rows of the first image come
    first.

    Args:
        parts: each has a row for each of its RoIs.
        sizes: for each part, how many of its rows belong to each image.
    """
    of_parts = [part.split(n) for part, n in zip(parts, sizes)]
    return torch.cat([rows for of_image in zip(*of_parts) for rows in of_image])
