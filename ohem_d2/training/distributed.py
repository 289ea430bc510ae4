"""Distributed training, on the CPU as well."""

from inspect import signature

from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError
from ..modeling.arguments import wrong_kind
from .nearest_keys import hint


def wrap_ddp(model: nn.Module, **kwargs: object) -> nn.Module:
    """
    Detectron2's `create_ddp_model`, which alone can wrap models on a GPU only.

    Args:
        model: the model of this process.
        kwargs: further arguments of `create_ddp_model`.

    Raises:
        InputError: there are others than it has, or the model has layers that torch can distribute
            on GPUs only.
    """
    known = {
        **signature(create_ddp_model).parameters,
        **signature(DistributedDataParallel).parameters,
    }
    if unknown := [x for x in kwargs if x not in known]:
        raise InputError(
            f"train.ddp.{unknown[0]} is {kwargs[unknown[0]]!r}, expected an argument of torch's "
            f"DistributedDataParallel, or fp16_compression{hint(unknown[0], known)}"
        )
    for name, value in kwargs.items():
        if value is not None and (expected := wrong_kind(known[name], value)) is not None:
            raise InputError(f"train.ddp.{name} is {value!r}, expected {expected}")
    if next(model.parameters()).device.type == "cpu":
        kwargs["device_ids"] = None
        if comm.get_world_size() > 1 and any(isinstance(m, SyncBatchNorm) for m in model.modules()):
            raise InputError(
                "the norm of some layers is SyncBN, which several processes can only share on "
                "GPUs: expected another norm, such as naiveSyncBN"
            )
    return create_ddp_model(model, **kwargs)
