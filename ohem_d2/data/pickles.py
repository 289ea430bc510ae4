"""Pickles that cannot run code: they hold arrays, tensors and plain containers alone."""

import io
import os
import pickle
from typing import IO, Any

import torch

from ..errors import InputError

_PLAIN = ("bytearray", "complex", "dict", "frozenset", "list", "set", "slice", "tuple")
# numpy 2 moved its own; either may have written a file.
_NUMPY = ("numpy.core", "numpy._core")
# Module and name of what such a pickle may call. None of it runs code that the file brings along.
_ALLOWED = {
    *((module, name) for module in ("builtins", "__builtin__") for name in _PLAIN),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("_codecs", "encode"),  # bytes, in a pickle that Python 2 can read as well
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"{module}.multiarray", name) for module in _NUMPY for name in ("_reconstruct", "scalar")),
    *((f"{module}.numeric", "_frombuffer") for module in _NUMPY),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("detectron2.structures.boxes", "BoxMode"),  # in files of proposals
}


class NotPlain(pickle.UnpicklingError):
    """A pickle names something that is no array, tensor or plain container."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage  # torch's own would unpickle anything
        if (module, name) not in _ALLOWED:
            raise NotPlain(f"{module}.{name}")
        return super().find_class(module, name)


def _load_storage(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def load_pickle(file: IO[bytes]) -> Any:
    """
    Load the next pickle of a file, if it is one of arrays, tensors and plain containers. Text of
    Python 2 is read as Detectron2 reads it.

    Raises:
        NotPlain: it names something else, which is not loaded.
        Exception: it is no pickle; there is no end to what unpickling raises.
    """
    return _Unpickler(file, encoding="latin1").load()


def read_pickle(key: str, path: str | os.PathLike) -> Any:
    """
    Load a file that is one such pickle.

    Args:
        key: what the file is, or where the config names it.
        path: of a file on this machine.

    Raises:
        InputError: it cannot be read, is no pickle, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            return load_pickle(file)
    except NotPlain as e:
        raise InputError(
            f"{key}: {os.fspath(path)!r} was not loaded, because it names {e}, which could run "
            "code: expected a pickle of arrays and plain containers"
        ) from None
    except OSError as e:
        raise InputError(f"{key}: {os.fspath(path)!r} cannot be read ({e.strerror})") from e
    except Exception as e:
        raise InputError(f"{key}: {os.fspath(path)!r} is no pickle, expected a whole one") from e
