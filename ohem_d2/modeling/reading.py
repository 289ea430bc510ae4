"""Reading RoIs: forward passes chunk by chunk that neither change the model nor are noticed."""

import logging
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cache
from types import FrameType
from typing import Any, TypeVar

import numpy as np
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
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.modules.dropout import _DropoutNd

from ..mining.candidates import Candidates
from ..mining.losses import deltas_of_best_class, losses_charged, predicted_classes

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
# What drops at random while it is in training: torch's, and by name timm's and torchvision's.
_DROPS = (_DropoutNd, nn.MultiheadAttention)
_NAMES_OF_DROPS = ("DropPath", "DropBlock2d", "DropBlock3d", "StochasticDepth")


class Reading:
    """Runs a module so that it is unchanged afterwards, and that nothing else notices."""

    def __init__(self) -> None:
        # Whether hooks of others are called too: see `read`.
        self.calls_hooks = False
        self._is_checked = False  # for random numbers, once

    def read(self, module: nn.Module, function: Callable[[], _T]) -> _T:
        """
        Call a function that uses a module.

        Meanwhile, buffers are copies (what batch normalization, spectral norm or an observer of
        quantization learns is forgotten), random numbers are drawn from a copy of the random
        states (torch's, numpy's and Python's), modules that drop something are off, and what is
        logged is discarded. Forward hooks that come with torch are called, such as those that
        prune, quantize or gather weights. Other hooks, which usually only look on, are called only
        with ``calls_hooks``. If torch draws random numbers all the same, a warning says so.

        Args:
            module: the module.
            function: what to call, without gradients.

        Returns:
            what the function returns.
        """
        caller = _Caller(module, function)
        buffers = {name: x.clone() for name, x in caller.named_buffers()}
        gpus = {x.device for x in module.parameters() if x.is_cuda}
        drops = [m for m in module.modules() if m.training and _drops(m)]
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.random.fork_rng(devices=gpus))
            stack.enter_context(EventStorage(get_event_storage().iter))
            # Some versions of torch (such as 2.4) cache the weights that autocast converts in here,
            # without gradients, and would use these in training: the weights would not be trained.
            stack.callback(torch.clear_autocast_cache)
            stack.callback(random.setstate, random.getstate())
            stack.callback(np.random.set_state, np.random.get_state())
            for drop in drops:
                drop.training = False
                stack.callback(setattr, drop, "training", True)
            for m in () if self.calls_hooks else module.modules():
                for name in ("_forward_hooks", "_forward_pre_hooks"):
                    hooks = getattr(m, name)
                    ours = OrderedDict((k, h) for k, h in hooks.items() if _is_torchs(h))
                    if len(ours) < len(hooks):
                        setattr(m, name, ours)
                        stack.callback(setattr, m, name, hooks)
            if self._is_checked:
                return torch.func.functional_call(caller, buffers, ())
            self._is_checked = True
            states = _random_states(gpus)
            result = torch.func.functional_call(caller, buffers, ())
            # The federated loss draws the classes that count.
            draws = any(getattr(m, "use_fed_loss", False) for m in module.modules())
            if not draws and states != _random_states(gpus):
                logger.warning(
                    f"{type(module).__name__} draws random numbers while RoIs are read to rank "
                    "them, so that chance decides, too, which of them are hard: expected dropout "
                    "by modules, such as nn.Dropout, which are off meanwhile"
                )
            return result


def _drops(module: nn.Module) -> bool:
    return isinstance(module, _DROPS) or type(module).__name__ in _NAMES_OF_DROPS


def _random_states(gpus: Iterable[torch.device]) -> list[bytes]:
    """Those of torch, which has them all on the CPU."""
    states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, gpus)]
    return [np.asarray(x).tobytes() for x in states]


class _Caller(nn.Module):
    """Lets `torch.func.functional_call` call a function that is not a ``forward``."""

    def __init__(self, module: nn.Module, function: Callable[[], Any]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self) -> Any:
        return self.function()


def _is_torchs(hook: Callable[..., Any]) -> bool:
    return (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")


def has_hooks_of_others(module: nn.Module) -> bool:
    """Whether there are forward hooks that `Reading` does not call by default."""
    hooks = (
        h
        for m in module.modules()
        for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    )
    return not all(map(_is_torchs, hooks))


def features_of_forward(heads: nn.Module) -> dict[str, Tensor] | None:
    """
    The features that the running ``forward`` of the heads works with.

    Detectron2 does not pass them to ``label_and_sample_proposals``, which needs them to read RoIs.
    They may differ from those that the heads were called with: a hook, or the ``forward`` of a
    subclass, may have changed them.

    Returns:
        the argument ``features`` of the innermost ``forward``; None if there is none.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        values = frame.f_locals
        if frame.f_code.co_name == "forward" and values.get("self") is heads:
            features = values.get("features")
            return features if isinstance(features, dict) else None
        frame = frame.f_back
    return None


def is_sharded(module: nn.Module) -> bool:
    """
    Whether the weights of a module are sharded over processes (FSDP). Each read gathers them, so
    all processes have to read equally often, however many RoIs they have.
    """
    return any(isinstance(p, DTensor) for p in module.parameters()) or any(
        isinstance(m, FullyShardedDataParallel) for m in module.modules()
    )


def read_rois(
    read_boxes: Callable[[list[Instances]], tuple[FastRCNNOutputLayers, tuple[Tensor, ...]]],
    rois: list[Instances],
    targets: list[Instances],
    *,
    num_classes: int,
    chunk_size: int,
) -> Candidates:
    """
    Compute the loss and the prediction for each labelled RoI.

    Args:
        read_boxes: takes RoIs, returns the box predictor and its predictions for them.
        rois: the RoIs of each image, R in all, with ``proposal_boxes``, ``gt_classes`` and, if
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
        losses = losses_charged(predictor, predictions, chunk)
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
        objects=lambda: torch.cat(
            [_best_object(x.proposal_boxes, t) for x, t in zip(rois, targets)]
        ),
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
    return _ious(boxes, targets).max(dim=1).values


def _best_object(boxes: Boxes | RotatedBoxes, targets: Instances) -> Tensor:
    """(R,) the number of the object that each box overlaps most, -1 if there is none."""
    if len(targets) == 0:
        return torch.full((len(boxes),), -1, device=boxes.device)
    return _ious(boxes, targets).argmax(dim=1)


def _ious(boxes: Boxes | RotatedBoxes, targets: Instances) -> Tensor:
    iou = pairwise_iou_rotated if isinstance(boxes, RotatedBoxes) else pairwise_iou
    return iou(boxes, targets.gt_boxes)


def _best_ious(boxes: Iterable[Boxes | RotatedBoxes], targets: list[Instances]) -> Tensor:
    """The same for the boxes of all images, R in all."""
    return torch.cat([best_iou(x, t) for x, t in zip(boxes, targets)])


def read_in_chunks(
    read: Callable[[list[Instances]], tuple[Tensor, ...]], rois: list[Instances], chunk_size: int
) -> tuple[Tensor, ...]:
    """
    Read RoIs a chunk at a time, so that memory does not grow with their number.

    Args:
        read: takes RoIs, returns tensors with a row for each of them, those of the first image
            first.
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
