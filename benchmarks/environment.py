"""What a figure was measured with."""

import platform
from pathlib import Path

import detectron2
import torch
import torchvision


def describe(device: str = "cuda") -> str:
    """The GPU, if it is the device, the processor, and the versions that matter, in one line."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    has_gpu = device != "cpu" and torch.cuda.is_available()
    gpu = f"{torch.cuda.get_device_name()}, " if has_gpu else "no GPU, "
    number = torch.get_num_threads()
    threads = "1 thread" if number == 1 else f"{number} threads"
    versions = ", ".join(
        f"{x.__name__} {str(x.__version__).partition('+')[0]}"
        for x in (torch, torchvision, detectron2)
    )
    return f"{gpu}{threads} of {cpu}, Python {platform.python_version()}, {versions}"
