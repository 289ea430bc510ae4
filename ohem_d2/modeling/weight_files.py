"""Weights of other libraries, kept in a form that Detectron2's checkpointer loads."""

import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from iopath.common.file_io import get_cache_dir
from torch import Tensor


def kept(name: str, source: str, weights: Callable[[], Mapping[str, Tensor]]) -> str:
    """
    Find a file in the form of Detectron2, which is made if it is not there.

    Args:
        name: what the file's name begins with.
        source: what the weights are made of. Of another source, there is another file.
        weights: returns them, each by its name or the end of it.

    Returns:
        the path.
    """
    folder = Path(get_cache_dir()) / "ohem_d2"
    file = folder / f"{name}_{zlib.crc32(source.encode()):08x}.pth"
    if not file.exists():
        content = {"model": dict(weights()), "matching_heuristics": True}
        folder.mkdir(parents=True, exist_ok=True)
        # Beside it first, since another process may be about to read it; and in a folder of this
        # process, since others may be about to write it, at the start of a training.
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            torch.save(content, Path(unfinished) / file.name)
            os.replace(Path(unfinished) / file.name, file)
    return str(file)


def identity(file: str) -> str:
    """What tells a file from others, and from an earlier one of the same name."""
    path = Path(file).resolve()
    stat = path.stat()
    return f"{path} {stat.st_mtime_ns} {stat.st_size}"
