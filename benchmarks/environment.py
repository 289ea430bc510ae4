"""What a figure was measured with."""

import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe() -> str:
    """The processor or GPU, and the versions that matter, in one line."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else "no GPU, "
    versions = ", ".join(f"{x} {version(x)}" for x in ("torch", "torchvision", "detectron2"))
    return (
        f"{gpu}{torch.get_num_threads()} threads of {cpu}, Python {platform.python_version()}, "
        f"{versions}"
    )
