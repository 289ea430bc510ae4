"""What a function takes that can be counted, so that it comes out the same each time."""

from collections import Counter
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


def synchronizations(function: Callable[[], object], device: torch.device) -> Counter:
    """
    How often a host waits for its device within a function, by the name of the operation: for a
    value, or for a shape that depends on values. On the CPU: how often it would.
    """
    with _Synchronizations(device.type) as mode, _Transfers() as transfers:
        function()
    # With a GPU these are copies, which the other mode has seen.
    return mode.counts + (transfers.counts if device.type == "cpu" else Counter())


class _Synchronizations(TorchDispatchMode):
    WAITS = (
        *("_local_scalar_dense", "nonzero", "equal", "masked_select", "repeat_interleave"),
        *("nms", "nms_rotated"),
    )

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        waits = name in self.WAITS or name.startswith(("unique", "_unique"))
        if name in ("index", "index_put", "index_put_"):
            waits = any(i is not None and i.dtype == torch.bool for i in args[1])
            # One value for all of a mask is filled in without a count.
            waits &= name == "index" or args[2].numel() != 1
        elif name in ("_to_copy", "copy_"):
            target = (kwargs or {}).get("device") if name == "_to_copy" else args[1].device
            waits = target is not None and torch.device(target).type != args[0].device.type
        if waits and (name in ("_to_copy", "copy_") or _lies_on(args[0], self.device_type)):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class _Transfers(TorchFunctionMode):
    """Counts what brings a tensor to the host, and does nothing if it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (Tensor.tolist, Tensor.cpu, Tensor.numpy):
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def _lies_on(x: object, device_type: str) -> bool:
    return isinstance(x, Tensor) and x.device.type == device_type
