"""Whether what refers to another key of a Python config, as in ``${..mapper}``, finds it."""

import re

from omegaconf import DictConfig, OmegaConf

from ..errors import InputError, shown
from .key_checks import all_keys, lazy_interpolations
from .nearest_keys import hint

_MISSING = object()
# A reference to another key; one with a colon calls a function of OmegaConf's.
_REFERENCE = re.compile(r"\$\{\s*(\.*)([^${}:]+?)\s*\}")


def check_interpolations(cfg: DictConfig, config_file: str) -> None:
    """
    Make sure that what refers to another key finds it, before anything looks at it.

    Args:
        cfg: the config.
        config_file: where it is from.

    Raises:
        InputError: something does not.
    """
    # Some nodes have a second name, in which they come again: the shortest is that which is used.
    for key, written in sorted(lazy_interpolations(cfg), key=lambda x: x[0].count(".")):
        try:
            OmegaConf.select(cfg, key)
        except Exception as e:  # a resolver of the user's own may raise anything
            reason = _not_found(cfg, key, written)
            if not reason:
                text = str(e).partition("\n")[0]
                reason = f"which cannot be read: {text.rpartition('interpolation: ')[2]}"
            raise InputError(f"{key} in {config_file} is {shown(written)}, {reason}") from e


def _not_found(cfg: DictConfig, key: str, written: str) -> str:
    """What is in the place of the key that is referred to; empty if it is there."""
    for dots, path in _REFERENCE.findall(written):
        # One point is the node of the key itself, each further one the node above.
        above = key.split(".")[: -len(dots)] if dots else []
        names = [*above, *path.replace("[", ".").replace("]", "").split(".")]
        whole, node = ".".join(names), cfg
        for i, name in enumerate(names):
            place = ".".join(names[:i])
            if not OmegaConf.is_config(node):
                what = getattr(node, "__qualname__", None) or shown(node)
                return (
                    f"which refers to {whole}, but {place} is {what}: expected a node that has "
                    f"{'.'.join(names[i:])}, or a value in place of the reference"
                )
            try:
                node = OmegaConf.select(node, name, default=_MISSING)
            except Exception:  # which that key will tell itself
                return ""
            if node is _MISSING:
                return f"which refers to {whole}, but there is none{hint(whole, all_keys(cfg))}"
    return ""
