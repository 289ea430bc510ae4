"""RoI pooling by all cores of a CPU, where torchvision's RoIAlign takes one."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import Any, NamedTuple

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# How many channels are pooled at a time. With not too many, the features that RoIs share stay in
# the cache, and there is less beside the result; with too few, the calls take longer than the work.
_FEWEST_CHANNELS, _MOST_CHANNELS = 16, 64


def pool_on_all_cores(module: nn.Module) -> None:
    """
    Replace each `ROIPooler` in a module by one that gives every core of a CPU a part of the
    channels. What it returns and the gradients are bitwise the same.

    Left alone are subclasses, which may do anything else to the features, across channels too; and
    poolers whose ``forward`` somebody has replaced.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is ROIPooler and "forward" not in vars(child):
                setattr(parent, name, AllCoresROIPooler(child))


class AllCoresROIPooler(ROIPooler):
    """Pools each channel for itself, several at a time."""

    def __init__(self, pooler: ROIPooler) -> None:
        """
        Args:
            pooler: the one to replace, whose settings and layers it takes over.
        """
        nn.Module.__init__(self)
        self.__dict__.update(vars(pooler))

    def __prepare_scriptable__(self) -> ROIPooler:
        """What TorchScript compiles in its place."""
        pooler = ROIPooler.__new__(ROIPooler)
        vars(pooler).update(vars(self))
        return pooler

    def on_one_core(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """What Detectron2's `ROIPooler` does."""
        return super().forward(x, box_lists)

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """See Detectron2's `ROIPooler.forward`."""
        is_eager = not (torch.jit.is_tracing() or torch.compiler.is_compiling())
        if torch.get_num_threads() == 1 or not is_eager or x[0].device.type != "cpu":
            return self.on_one_core(x, box_lists)
        if torch.is_grad_enabled() and any(features.requires_grad for features in x):
            return _PoolByChannels.apply(self, box_lists, *x)
        pooled, _ = _pool_by_channels(self, box_lists, x, with_graphs=False)
        return pooled


class _Graph(NamedTuple):
    """The way back from what was pooled of some channels to their features."""

    channels: slice
    features: list[Tensor]
    pooled: Tensor


class _PoolByChannels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pooler: AllCoresROIPooler, boxes: list[Boxes], *features: Tensor
    ) -> Tensor:
        ctx.shapes = [x.shape for x in features]
        pooled, ctx.graphs = _pool_by_channels(pooler, boxes, features, with_graphs=True)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_features = [gradient.new_empty(shape) for shape in ctx.shapes]

        def differentiate(graph: _Graph) -> None:
            part = graph.channels
            # The outer graph may be gone through again, if its user retains it.
            of_inputs = torch.autograd.grad(
                [graph.pooled], graph.features, [gradient[:, part]], retain_graph=True
            )
            for whole, of_part in zip(of_features, of_inputs):
                whole[:, part] = of_part

        _by_all_cores(differentiate, ctx.graphs)
        return None, None, *of_features


class _Values(torch.autograd.Function):
    """
    Stands for features whose values the graph does not keep: RoIAlign's gradient needs neither the
    features nor what was pooled.
    """

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _StandIn(torch.autograd.Function):
    """Stands for what was pooled, and has none of it."""

    @staticmethod
    def forward(ctx: Any, pooled: Tensor) -> Tensor:
        return pooled.new_empty(()).expand(pooled.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _pool_by_channels(
    pooler: AllCoresROIPooler, boxes: list[Boxes], features: Sequence[Tensor], with_graphs: bool
) -> tuple[Tensor, list[_Graph]]:
    """What is pooled and, with ``with_graphs``, for each part of the channels the way back."""
    channels = features[0].shape[1]
    pooled = features[0].new_empty(sum(map(len, boxes)), channels, *pooler.output_size)

    def pool(part: slice) -> _Graph | None:
        values = [x[:, part].detach() for x in features]
        if not with_graphs:
            pooled[:, part] = pooler.on_one_core(values, boxes)
            return None
        with torch.enable_grad():
            stand_ins = [x.new_empty(()).expand(x.shape).requires_grad_() for x in values]
            inputs = [_Values.apply(x, v) for x, v in zip(stand_ins, values)]
            output = pooler.on_one_core(inputs, boxes)
            graph = _Graph(part, stand_ins, _StandIn.apply(output))
        pooled[:, part] = output.detach()
        return graph

    return pooled, by_channels(pool, channels)


def by_channels(function: Callable[[slice], Any], channels: int) -> list:
    """
    Call a function for parts of the channels, with all cores.

    Args:
        function: takes a part.
        channels: how many there are.

    Returns:
        what it returns for each.
    """
    for_cores = min(torch.get_num_threads(), channels // _FEWEST_CHANNELS)
    number = max(1, for_cores, -(-channels // _MOST_CHANNELS))
    bounds = [channels * i // number for i in range(number + 1)]
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    if torch.get_num_threads() == 1:
        return [function(part) for part in parts]
    return _by_all_cores(function, parts)


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    """
    Threads that are kept, since a new thread's first operation takes longer than to pool a small
    image's RoIs.
    """
    executor, all_there = ThreadPoolExecutor(threads, "pooling"), Barrier(threads)

    def start(_) -> None:
        all_there.wait()  # so that each thread has one of these
        # Its operations must not be given to all cores once more. The first time a thread is asked
        # for its number, torch sets it.
        torch.get_num_threads()
        torch.set_num_threads(1)

    before = torch.get_num_threads()
    try:
        list(executor.map(start, range(threads)))
    finally:
        torch.set_num_threads(before)  # threads of others take at first what was set last
    return executor


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_executor.cache_clear)


def _by_all_cores(function: Callable, items: list) -> list:
    # These settings are those of a thread.
    dtype, is_autocast = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")
    is_inference = torch.is_inference_mode_enabled()

    def run(item: object) -> object:
        with torch.inference_mode(is_inference), torch.autocast("cpu", dtype, enabled=is_autocast):
            return function(item)

    executor = _executor(torch.get_num_threads())
    futures = [executor.submit(run, item) for item in items]
    try:
        return [x.result() for x in futures]
    finally:
        wait(futures)  # after an error, none goes on behind the caller's back
