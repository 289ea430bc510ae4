"""The device that a run has."""

import torch

from ..errors import InputError


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
