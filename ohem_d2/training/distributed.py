"""Distributed training, on the CPU as well."""

from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn import SyncBatchNorm

from ..errors import InputError


def wrap_ddp(model: nn.Module, **kwargs: object) -> nn.Module:
    """
    Detectron2's `create_ddp_model`, which alone can wrap models on a GPU only.

    Args:
        model: the model of this process.
        kwargs: further arguments of `create_ddp_model`.

    Raises:
        InputError: the model has layers that torch can distribute on GPUs only.
    """
    if next(model.parameters()).device.type == "cpu":
        kwargs["device_ids"] = None
        if comm.get_world_size() > 1 and any(isinstance(m, SyncBatchNorm) for m in model.modules()):
            raise InputError(
                "the norm of some layers is SyncBN, which several processes can only share on "
                "GPUs: expected another norm, such as naiveSyncBN"
            )
    return create_ddp_model(model, **kwargs)
