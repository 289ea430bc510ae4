"""The device that a run has."""

import logging

import torch

from ..errors import InputError

logger = logging.getLogger(__name__)


def usable_device(key: str, device: str) -> str:
    """
    Tell where to run.

    Args:
        key: where the config names the device.
        device: what it names. Detectron2's default is "cuda".

    Returns:
        the same; "cpu" for "cuda" where there is no GPU.

    Raises:
        InputError: it is a certain GPU, which is not there.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index.isdecimal() and int(index) >= number:
        there = (
            f"'cuda:0' to 'cuda:{number - 1}'" if number else "'cuda' or 'cpu', to run on the CPU"
        )
        raise InputError(f"{key} is {device!r}, of {number} GPUs here, expected {there}")
    return device if number else "cpu"


def usable_amp(key: str, enabled: bool, device: str) -> bool:
    """
    Tell whether to train in mixed precision. A warning says so if that is not possible.

    Args:
        key: where the config says it.
        enabled: what it says.
        device: what the training runs on.
    """
    if enabled and device == "cpu":
        logger.warning(f"{key} is turned off: Detectron2 needs a GPU for it")
        return False
    return enabled
