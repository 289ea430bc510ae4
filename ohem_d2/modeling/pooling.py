"""RoI pooling by all cores of a CPU, where torchvision's RoIAlign takes one."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from threading import Barrier

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# How many channels are pooled at a time. With not too many, the features that RoIs share stay in
# the cache, and there is less beside the result; with too few, the calls take longer than the work.
_FEWEST_CHANNELS, _MOST_CHANNELS = 16, 64


@contextmanager
def pooled_by_all_cores(module: nn.Module) -> Iterator[None]:
    """
    Within, each `ROIPooler` of a module gives every core of a CPU a part of the channels.

    What it returns and the gradients are bitwise the same, since each channel is pooled for itself.
    """
    # Subclasses may do anything else to the features, across channels too; and so may a forward
    # that somebody else has set.
    poolers = [m for m in module.modules() if type(m) is ROIPooler and "forward" not in vars(m)]
    for m in poolers:
        m.forward = partial(_pool, m)
    try:
        yield
    finally:
        for m in poolers:
            vars(m).pop("forward", None)


def _pool(pooler: ROIPooler, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
    """See `ROIPooler.forward`."""
    is_eager = not (torch.jit.is_tracing() or torch.compiler.is_compiling())
    if torch.get_num_threads() == 1 or not is_eager or features[0].device.type != "cpu":
        return ROIPooler.forward(pooler, features, boxes)
    if torch.is_grad_enabled() and any(x.requires_grad for x in features):
        return _PoolByChannels.apply(pooler, boxes, *features)
    pooled, _ = _pool_by_channels(pooler, boxes, features, with_graphs=False)
    return pooled


class _PoolByChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pooler: ROIPooler, boxes: list[Boxes], *features: Tensor) -> Tensor:
        ctx.shapes = [x.shape for x in features]
        pooled, ctx.graphs = _pool_by_channels(pooler, boxes, features, with_graphs=True)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_features = [gradient.new_empty(shape) for shape in ctx.shapes]

        def differentiate(graph: tuple[slice, list[Tensor], Tensor]) -> None:
            part, inputs, output = graph
            # The outer graph may be gone through again, if its user retains it.
            of_inputs = torch.autograd.grad(output, inputs, gradient[:, part], retain_graph=True)
            for whole, of_part in zip(of_features, of_inputs):
                whole[:, part] = of_part

        _by_all_cores(differentiate, ctx.graphs)
        return None, None, *of_features


def _pool_by_channels(
    pooler: ROIPooler, boxes: list[Boxes], features: Sequence[Tensor], with_graphs: bool
) -> tuple[Tensor, list[tuple[slice, list[Tensor], Tensor]]]:
    """What is pooled and, for each part of the channels, the graph from inputs to output."""
    channels = features[0].shape[1]
    for_cores = min(torch.get_num_threads(), channels // _FEWEST_CHANNELS)
    number = max(1, for_cores, -(-channels // _MOST_CHANNELS))
    bounds = [channels * i // number for i in range(number + 1)]
    pooled = features[0].new_empty(sum(map(len, boxes)), channels, *pooler.output_size)

    def pool(part: slice) -> tuple[slice, list[Tensor], Tensor]:
        inputs = [x[:, part].detach().requires_grad_(with_graphs) for x in features]
        with torch.set_grad_enabled(with_graphs):
            output = ROIPooler.forward(pooler, inputs, boxes)
        pooled[:, part] = output.detach()
        if with_graphs:  # which need neither the values that they lead to nor those they come from
            output.untyped_storage().resize_(0)
            for x in inputs:
                x.data = x.new_empty(()).expand(x.shape)
        return part, inputs, output

    return pooled, _by_all_cores(pool, [slice(a, b) for a, b in pairwise(bounds)])


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
