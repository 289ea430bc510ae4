"""The folder that holds data sets, as Detectron2 has it."""

import os
from pathlib import Path

from ..errors import InputError
from ..paths import not_a_folder, wrong_name

_NAME = "DETECTRON2_DATASETS"


def data_root() -> Path:
    """
    Return what ``$DETECTRON2_DATASETS`` names, or ``datasets``. It may be missing.

    Raises:
        InputError: it names no folder of this machine.
    """
    text = os.getenv(_NAME, "datasets")
    path = os.path.expanduser(text)  # as Detectron2 does
    if reason := wrong_name(path) or not_a_folder(path):
        raise InputError(
            f"{_NAME} is {text!r}, which {reason}, expected a folder on this machine; "
            "where it is not set, that is 'datasets'"
        )
    return Path(path)


def check_below_root(path: str) -> None:
    """
    Make sure that a path of Detectron2's data sets does not begin with what is no folder.

    Args:
        path: which is not there.

    Raises:
        InputError: see `data_root`.
    """
    root = os.path.expanduser(os.getenv(_NAME, ""))
    if root and path.startswith(root):
        data_root()
