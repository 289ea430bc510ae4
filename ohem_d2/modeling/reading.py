"""Reading many RoIs: chunk by chunk, and without the model being changed, or noticed."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


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
