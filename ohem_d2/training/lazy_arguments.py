"""Whether what makes the parts of a Python config takes the arguments that the config gives it."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

from detectron2.data import build_detection_train_loader
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from ..errors import InputError, shown
from ..modeling.arguments import (
    arguments_of,
    call_of,
    parameters_of,
    unknown_argument,
    wrong_kind,
)
from .lazy_targets import parts_of, target_of
from .named_settings import is_known

# The parameters of Detectron2's parts that take a class, by their names.
_TAKES_CLASSES = re.compile("act|block|class|conv|fn|layer|norm|type")


def check_arguments(cfg: DictConfig, keys: Sequence[str], config_file: str) -> None:
    """
    Make sure that no argument of a part is unknown to what makes the part.

    Args:
        cfg: the config.
        keys: of the parts to look at, and below. Those that are not there are left out.
        config_file: where it is from.

    Raises:
        InputError: one is, or is plainly of another kind than the part takes.
    """
    for above in keys:
        for key, part in parts_of(OmegaConf.select(cfg, above), above):
            target = target_of(part)
            _check_kinds(key, part, target, config_file)
            known, is_open = _known_to(target) if callable(target) else ([], True)
            # Detectron2's @configurable also takes a whole config, whatever else is named.
            if is_open or "cfg" in part:
                continue
            for name in map(str, part):
                if name == "_target_" or name in known:
                    continue
                value = "missing" if OmegaConf.is_missing(part, name) else shown(part[name])
                raise InputError(
                    f"{key}.{name} is {value} in {config_file}, or the settings that change it, "
                    f"but {unknown_argument(name, target, known)}"
                )


def _check_kinds(key: str, part: DictConfig, target: Any, config_file: str) -> None:
    parameters = parameters_of(target) if callable(target) else {}
    for name in map(str, part):
        value = None if OmegaConf.is_missing(part, name) else part[name]
        if name not in parameters or value is None:
            continue
        expected = wrong_kind(parameters[name], value)
        # Many parameters of Detectron2's do not say what they take.
        is_untold = parameters[name].annotation is inspect.Parameter.empty
        if is_untold and inspect.isclass(value) and is_known(getattr(target, "__module__", "")):
            expected = None if _TAKES_CLASSES.search(name) else call_of(value)
        if expected is not None:
            found = f"the class {value.__qualname__}" if inspect.isclass(value) else shown(value)
            raise InputError(
                f"{key}.{name} in {config_file}, or the settings that change it, is {found}, "
                f"expected {expected}"
            )


def _known_to(target: Any) -> tuple[list[str], bool]:
    known, is_open = arguments_of(target, passes_on=is_known)
    if target is not build_detection_train_loader:
        return known, is_open
    others, is_open = arguments_of(DataLoader, passes_on=is_known)  # to which it passes them
    return [*dict.fromkeys([*known, *others])], is_open
