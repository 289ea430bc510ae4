"""What a function takes that can be counted, so that it comes out the same each time."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode


def peak_memory(function: Callable[[], object], device: torch.device) -> int:
    """
    Bytes: the most that the tensors made by a function take at a time.

    On the CPU this counts what torch allocates, on the thread that calls: a function that shares
    its work among threads has to be called with one.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    now = peak = 0
    for _, change in sorted(changes, key=lambda x: x[0]):
        now += change
        peak = max(peak, now)
    return peak


def synchronizations(function: Callable[[], object], device: torch.device) -> int:
    """
    How often a host waits for its device within a function.

    On CUDA, as torch itself tells. On the CPU it is an estimate of how often it would: for values,
    and for shapes that depend on values. That counts too much where the CPU has a way of its own
    (suppression of each image by itself, arguments that are checked), and misses copies to a
    device.
    """
    if device.type == "cuda":
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                function()
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return sum("synchronizing CUDA operation" in str(x.message) for x in caught)
    with _Waits() as waits, _Transfers() as transfers:
        function()
    return waits.number + transfers.number


class _Waits(TorchDispatchMode):
    """Counts operations that need values on the host."""

    NAMES = (
        *("_local_scalar_dense", "nonzero", "equal", "masked_select", "repeat_interleave"),
        *("nms", "nms_rotated", "bincount"),
    )
    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        waits = name in self.NAMES or name.startswith(("unique", "_unique"))
        if name in ("index", "index_put", "index_put_"):
            waits = any(i is not None and i.dtype == torch.bool for i in args[1])
            # One value for all of a mask is filled in without a count.
            waits &= name == "index" or args[2].numel() != 1
        self.number += waits
        return func(*args, **(kwargs or {}))


class _Transfers(TorchFunctionMode):
    """Counts what brings a tensor to the host, and does nothing if it is there."""

    number = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.number += func in (Tensor.tolist, Tensor.cpu, Tensor.numpy)
        return func(*args, **(kwargs or {}))
