"""The state of every generator that a training draws from."""

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """
    Tell the state of the global generators of torch (CPU, and this process's GPU if it is in use),
    numpy and Python.

    Returns:
        bytes, numbers and tuples, for `set_random_state`: 10 kB that any file may hold.
    """
    _, key, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, next_gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (np.asarray(key).tobytes(), int(position), int(has_gauss), float(gauss)),
        "python": (version, struct.pack(f"{len(words)}I", *words), next_gauss),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """
    Let the generators go on from a state.

    Args:
        state: what `random_state` returned, perhaps in another process.
    """
    torch.set_rng_state(_tensor(state["torch"]))
    key, *rest = state["numpy"]
    np.random.set_state(("MT19937", np.frombuffer(key, dtype=np.uint32), *rest))
    version, words, next_gauss = state["python"]
    random.setstate((version, struct.unpack(f"{len(words) // 4}I", words), next_gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Leave the generators as they are, whatever is drawn meanwhile."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def _tensor(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
