"""Names in a Python config that nothing reads, as misspelt ones are."""

import inspect
import logging
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from detectron2 import model_zoo
from omegaconf import DictConfig, OmegaConf
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError
from .key_checks import LAZY_ROOTS, lazy_interpolations

logger = logging.getLogger(__name__)

# What Detectron2's `default_setup` looks for beside the roots.
_OF_SETUP = ("CUDNN_BENCHMARK", "FLOAT32_PRECISION", "OUTPUT_DIR", "SEED", "output_dir")
_ALIKE = 0.8  # 1: the same. A config has other names, of which its parts are made


def check_added_names(cfg: DictConfig, config_file: str, opts: Sequence[str]) -> None:
    """
    Make sure that something reads what the command line adds to a Python config, outside of the
    parts that are made of it. (Their arguments are looked at in `lazy_arguments`.)

    Args:
        cfg: the config, changed by the command line.
        config_file: where it is from.
        opts: those of the command line.

    Raises:
        InputError: nothing does.
    """
    added = {x.partition("=")[0].lstrip("+"): x for x in opts if x.startswith("+")}
    for name, known in _unread(cfg):
        for key in added:
            if key == name or key.startswith(f"{name}."):
                raise InputError(
                    f"in the settings {added[key]!r}: nothing reads {name} of {config_file}, "
                    f"expected one of {', '.join(known)}"
                )


def warn_of_unread_names(cfg: DictConfig, config_file: str) -> None:
    """
    Say so if nothing reads a name of a Python config, unless its own code does. At its top, only
    names that look like those of its parts are told.

    Args:
        cfg: the config.
        config_file: where it is from.
    """
    for name, known in _unread(cfg):
        above, point, last = name.rpartition(".")
        alike = get_close_matches(last, [x.rpartition(".")[2] for x in known], 1, _ALIKE)
        if point or (alike and not name.startswith(alike[0])):
            expected = f"{above}{point}{alike[0]}" if alike else f"one of {', '.join(known)}"
            logger.warning(
                f"{name} is set in {config_file}, but nothing reads it: expected {expected}, "
                "unless your own code reads it"
            )


def _unread(cfg: DictConfig) -> Iterator[tuple[str, list[str]]]:
    """The names that nothing reads, and those that something would read in their place."""
    of_ddp = [*inspect.signature(DistributedDataParallel).parameters, "fp16_compression"]
    of_train = model_zoo.get_config("common/train.py").train
    ours = ("cudnn_benchmark", "float32_precision", "ignore_regions", "seed", "valid_ranges")
    read: dict[str, list[str]] = {
        "": [*LAZY_ROOTS, *_OF_SETUP],
        "dataloader": ["evaluator", "test", "train"],
        "train": sorted([*of_train, *ours]),
        "train.amp": ["enabled"],
        "train.ddp": sorted(set(of_ddp) - {"module"}),
    }
    # What others refer to: all names in their references, and whole nodes by their keys.
    references = " ".join(written for _, written in lazy_interpolations(cfg))
    referred = set(re.findall(r"\w+", references))
    wholes = {x.lstrip(".") for x in re.findall(r"\$\{\s*([\w.]+)\s*\}", references)}
    for above, names in read.items():
        node = OmegaConf.select(cfg, above) if above else cfg
        if not OmegaConf.is_dict(node) or "_target_" in node or above in wholes:
            continue
        for name in map(str, node):
            if name not in names and name not in referred:
                prefix = f"{above}." if above else ""
                yield f"{prefix}{name}", [f"{prefix}{x}" for x in names]
