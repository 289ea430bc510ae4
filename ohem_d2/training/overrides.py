"""Whether ``optimizer.params.overrides`` of a Python config do anything."""

import logging

import torch
from detectron2.solver import get_default_optimizer_params
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..errors import shown
from .lazy_targets import target_of
from .named_settings import is_known
from .nearest_keys import hint

logger = logging.getLogger(__name__)

_KEY = "optimizer.params.overrides"


def warn_of_unused_overrides(
    cfg: DictConfig, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """
    Warn of names that no parameter has which is trained, and of settings that the optimizer does
    not read: Detectron2 and torch take either without a word.

    Args:
        cfg: the config.
        model: its model.
        optimizer: that of the config.
    """
    overrides = OmegaConf.select(cfg, _KEY)
    params = OmegaConf.select(cfg, "optimizer.params")
    if not OmegaConf.is_dict(overrides) or target_of(params) is not get_default_optimizer_params:
        return
    # Of each parameter only the last part of its name counts.
    trained = {k.rpartition(".")[2] for k, x in model.named_parameters() if x.requires_grad}
    for name, settings in overrides.items():
        if name not in trained:
            nearest = hint(str(name).rpartition(".")[2], sorted(trained))
            logger.warning(
                f"{_KEY} has {name!r}, which is not used, expected the last part of the names of "
                f"parameters that are trained{nearest}"
            )
        known = sorted(optimizer.defaults)
        if OmegaConf.is_dict(settings) and is_known(type(optimizer).__module__):
            for setting in settings:
                if setting not in known:
                    logger.warning(
                        f"{_KEY}.{name} has {setting!r}, which is not used, expected settings of "
                        f"{type(optimizer).__name__}: {shown(known)}{hint(setting, known)}"
                    )
