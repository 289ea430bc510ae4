"""What was pooled to rank RoIs is not pooled again to train on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .pooling import AllCoresROIPooler, by_channels

# What is kept takes at most this many times the memory of the features. It is gone when training
# begins, and the gradients of the features, from these heads and from the RPN, take more later on.
# So the peak of a step stays about where it was (docs/cost.md).
_ROOM = 1.5


class OnceROIPooler(AllCoresROIPooler):
    """
    Keeps what it pools without gradients, as far as there is room, and does not pool it again with
    gradients: RoIAlign's backward pass needs no forward pass. Values and gradients are bitwise
    those of pooling again.

    On the CPU and in float32 only. Elsewhere it pools again, as it does if the features have
    changed; if the layers of the levels have hooks, or are others than RoIAlign; and RoIs whose
    boxes have changed, or that were not pooled before.
    """

    _kept: "_Kept | None" = None

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep in here; afterwards, nothing is kept."""
        before, self._kept = self._kept, _Kept()
        try:
            yield
        finally:
            self._kept = before

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """See Detectron2's `ROIPooler.forward`."""
        kept = self._kept
        if kept is None or not box_lists or not self._can_differentiate(x):
            return self.anew(x, box_lists)
        if not torch.is_grad_enabled():
            pooled = self.anew(x, box_lists)
            kept.add(x, box_lists, pooled)
            return pooled
        if not kept.is_of(x):
            kept.clear()
            return self.anew(x, box_lists)
        return _PoolOnce.apply(self, kept, box_lists, *x)

    def anew(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """What `AllCoresROIPooler` does."""
        return super().forward(x, box_lists)

    def _can_differentiate(self, features: list[Tensor]) -> bool:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return False
        is_supported = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in features)
        return is_supported and all(map(_is_plain, self.level_poolers))


def _is_plain(layer: nn.Module) -> bool:
    """Whether it does what RoIAlign does, and nobody looks on."""
    hooks = [layer._forward_hooks, layer._forward_pre_hooks]
    has_hooks = any([*hooks, layer._backward_hooks, layer._backward_pre_hooks])
    return type(layer) is ROIAlign and "forward" not in vars(layer) and not has_hooks


def pool_once(heads: nn.Module) -> None:
    """Replace the box pooler of heads, if it is Detectron2's RoIAlign, by one that pools once."""
    pooler = getattr(heads, "box_pooler", None)
    if type(pooler) is AllCoresROIPooler and all(map(_is_plain, pooler.level_poolers)):
        heads.box_pooler = OnceROIPooler(pooler)


@contextmanager
def keeping(heads: nn.Module) -> Iterator[None]:
    """Keep what the heads pool in a step of training, while it lasts."""
    pooler = getattr(heads, "box_pooler", None)
    if isinstance(pooler, OnceROIPooler) and heads.training and torch.is_grad_enabled():
        with pooler.keeping():
            yield
    else:
        yield


class _Kept:
    """What was pooled of some features."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        self._features: list[tuple[Tensor, int]] = []
        self._parts: list[tuple[Tensor, int]] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # of each RoI: its part, and the row there

    def is_of(self, features: Sequence[Tensor]) -> bool:
        """Whether something is kept, and was pooled of these features as they are now."""
        # The number of the version changes with each operation in place.
        return len(features) == len(self._features) and all(
            x is y and x._version == version for x, (y, version) in zip(features, self._features)
        )

    def add(self, features: Sequence[Tensor], boxes: list[Boxes], pooled: Tensor) -> None:
        """Keep what was pooled, if there is room."""
        if not self.is_of(features):
            self.clear()
        held = sum(x.nbytes for x, _ in self._parts)
        if held + pooled.nbytes > _ROOM * sum(x.nbytes for x in features if x.requires_grad):
            return
        places = {roi: (len(self._parts), row) for row, roi in enumerate(_rois_as_bytes(boxes))}
        if places.keys() <= self._places.keys():
            return
        self._features = [(x, x._version) for x in features]
        self._parts.append((pooled, pooled._version))
        self._places.update(places)

    def take(self, boxes: list[Boxes], to: Tensor) -> list[bool]:
        """
        Write what was pooled for R boxes, and keep nothing any longer.

        Args:
            boxes: those of each image.
            to: (R, C, height, width), what to write it to.

        Returns:
            whether each was there.
        """
        places = [self._places.get(roi) for roi in _rois_as_bytes(boxes)]
        parts = self._parts
        self.clear()
        # Who was given a part may have changed it.
        is_same = [pooled._version == version for pooled, version in parts]
        found = [place is not None and is_same[place[0]] for place in places]
        for number in reversed(range(len(parts))):
            part, _ = parts.pop()  # which frees it
            here = [
                (row, place[1])
                for row, (place, there) in enumerate(zip(places, found))
                if there and place is not None and place[0] == number
            ]
            if here:
                rows, rows_of_part = torch.tensor(here).unbind(1)
                to.index_copy_(0, rows, part[rows_of_part])
        return found


class _PoolOnce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pooler: OnceROIPooler, kept: _Kept, boxes: list[Boxes], *features: Tensor
    ) -> Tensor:
        ctx.pooler, ctx.shapes = pooler, [x.shape for x in features]
        ctx.rois = convert_boxes_to_pooler_format(boxes)
        ctx.levels = _levels(pooler, boxes, ctx.rois)
        pooled = features[0].new_empty(len(ctx.rois), features[0].shape[1], *pooler.output_size)
        missing = ~torch.tensor(kept.take(boxes, to=pooled), dtype=torch.bool)
        if missing.any():
            of_images = missing.split([len(x) for x in boxes])
            pooled[missing] = pooler.anew([*features], [x[m] for x, m in zip(boxes, of_images)])
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_features = [gradient.new_empty(shape) for shape in ctx.shapes]

        def differentiate(part: slice) -> None:
            for level, (whole, rows) in enumerate(zip(of_features, ctx.levels)):
                of_part = gradient[:, part] if rows is None else gradient[rows, part]
                rois = ctx.rois if rows is None else ctx.rois[rows]
                whole[:, part] = _backward(
                    ctx.pooler.level_poolers[level], of_part, rois, whole[:, part].shape
                )

        by_channels(differentiate, gradient.shape[1])
        return None, None, None, *of_features


def _levels(pooler: ROIPooler, boxes: list[Boxes], rois: Tensor) -> list[Tensor | None]:
    """The numbers of the RoIs that are pooled from each level; None: all."""
    if len(pooler.level_poolers) == 1:
        return [None]
    levels = assign_boxes_to_levels(
        boxes,
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )
    return [(levels == level).nonzero()[:, 0] for level in range(len(pooler.level_poolers))]


def _backward(layer: ROIAlign, gradient: Tensor, rois: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of the features of a level, whose shape is given."""
    return torch.ops.torchvision._roi_align_backward(
        gradient,
        rois.to(gradient.dtype),
        layer.spatial_scale,
        *layer.output_size,
        *shape,
        layer.sampling_ratio,
        layer.aligned,
    )


def _rois_as_bytes(boxes: list[Boxes]) -> list[bytes]:
    """The image and the box of each RoI. Those that are alike, bit by bit, are pooled alike."""
    rois = convert_boxes_to_pooler_format(boxes).detach().numpy()
    data, size = rois.tobytes(), rois.itemsize * rois.shape[1]
    return [data[i : i + size] for i in range(0, len(data), size)]
