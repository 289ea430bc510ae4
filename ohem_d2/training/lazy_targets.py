"""What makes the parts of a Python config, its `_target_`s: whether it is there, and makes them."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.utils.registry import locate
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch.optim.lr_scheduler import LRScheduler

from ..errors import InputError

# By the key of a part: what it is, and what is used of it.
_PARTS = {
    "model": ("a model", {"parameters", "to", "train"}),
    "optimizer": ("an optimizer", {"param_groups", "step", "zero_grad"}),
    "lr_multiplier": ("a ParamScheduler of fvcore's, or a scheduler of torch's", set()),
}


def check_targets(cfg: DictConfig, parts: Sequence[str]) -> None:
    """
    Make sure that all that makes parts of a config can be imported: some of them are made only when
    a training has ended.

    Args:
        cfg: the config.
        parts: their keys. Those that are not there are not looked at.

    Raises:
        InputError: something cannot.
    """
    for part in parts:
        for key, target in _targets(OmegaConf.select(cfg, part), part):
            try:
                found = locate(target)
            except Exception as e:  # of a module that is there, but fails
                reason = " ".join(str(e.__cause__ or e).split())
                raise InputError(f"{_words(key, target)} cannot be imported: {reason}") from e
            if not callable(found):
                kind = type(found).__name__
                raise InputError(f"{_words(key, target)} is a {kind}, expected a class or function")


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    for name, part in parts_of(node, key):
        if OmegaConf.is_interpolation(part, "_target_") or OmegaConf.is_missing(part, "_target_"):
            continue
        if isinstance(part["_target_"], str):
            yield name, part["_target_"]


def parts_of(node: Any, key: str) -> Iterator[tuple[str, DictConfig]]:
    """
    All that something is made of, in a node of a config and below, by the key. What only refers to
    another key is left to that one.
    """
    if not isinstance(node, (DictConfig, ListConfig)):
        return
    if isinstance(node, DictConfig) and "_target_" in node:
        yield key, node
    for name in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            yield from parts_of(node[name], f"{key}.{name}")


def target_of(node: Any) -> Any:
    """
    What makes a node of a config: itself, or its name if it cannot be imported; None if nothing
    does.
    """
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    try:
        return locate(target) if isinstance(target, str) else target
    except Exception:  # of a module that is not there, or fails; what needs it will say so
        return target


def make(cfg: DictConfig, part: str) -> Any:
    """
    Make the model, the optimizer or the scheduler of a config.

    Args:
        cfg: the config.
        part: its key.

    Raises:
        InputError: its `_target_` makes something else.
    """
    node = cfg[part]
    what, used = _PARTS[part]
    target = target_of(node)
    if part == "lr_multiplier" and inspect.isclass(target) and issubclass(target, LRScheduler):
        raise InputError(
            f"{_words(part, target.__qualname__)} is a scheduler of torch's and takes the "
            "optimizer, expected a ParamScheduler of fvcore's, such as "
            "L(WarmupParamScheduler)(scheduler=L(MultiStepParamScheduler)(...), ...)"
        )
    made = instantiate(node)
    fits = used.issubset(dir(made))
    if part == "lr_multiplier":
        fits = isinstance(made, ParamScheduler) or hasattr(made, "step")
    if not fits:
        written = OmegaConf.select(cfg, f"{part}._target_")
        raise InputError(f"{_words(part, written)} makes a {type(made).__name__}, expected {what}")
    return made


def _words(key: str, target: object) -> str:
    return f"{key}._target_ is {target!r}, which"
