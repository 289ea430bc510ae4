"""Running a part of a model without it being changed, or noticed."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def read_only(module: nn.Module) -> Iterator[None]:
    """
    What batch normalization learns inside is forgotten, and what is logged is lost.

    Hooks of batch normalization are not called either: by these, PreciseBN counts how often a layer
    is used in a step, and refuses one that is used twice.
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
