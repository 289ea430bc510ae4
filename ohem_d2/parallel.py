"""Distributed training, on the CPU as well."""

from detectron2.engine import create_ddp_model
from torch import nn


def wrap_ddp(model: nn.Module, **kwargs: object) -> nn.Module:
    """
    Detectron2's `create_ddp_model`, which alone can wrap models on a GPU only.

    Args:
        model: the model of this process.
        kwargs: further arguments of `create_ddp_model`.
    """
    if next(model.parameters()).device.type == "cpu":
        kwargs["device_ids"] = None
    return create_ddp_model(model, **kwargs)
