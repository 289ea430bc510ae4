"""
The config of a training that is resumed, compared with the one that it has had so far.

A run leaves its config in its folder (config.yaml), and overwrites it when it starts again. Much of
it may change meanwhile, such as the number of iterations, and is told in a warning. But what the
weights mean has to stay: a checkpoint fits a model of other anchors or another order of channels as
well, and would go on as if nothing were wrong.
"""

import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from detectron2.config import CfgNode, LazyConfig
from detectron2.utils import comm
from omegaconf import DictConfig

from ..errors import InputError, shown
from .checkpoint import has_checkpoints
from .key_checks import is_unused

logger = logging.getLogger(__name__)

FILE = "config.yaml"  # as Detectron2 calls it

# What weights were trained for, though those of another value have the same shapes: in a YAML and
# in a Python config.
_MEANING = re.compile(
    r"""
    INPUT\.FORMAT | MODEL\.PIXEL_(MEAN|STD) | MODEL\.ANCHOR_GENERATOR\..* | MODEL\.FPN\.FUSE_TYPE
    | MODEL\..*\.(IN_FEATURES|BBOX_REG_WEIGHTS|POOLER_TYPE|POOLER_RESOLUTION)
    | MODEL\..*\.(STRIDE_IN_1X1|RES5_DILATION|USE_SIGMOID_CE)
    | SOLVER\.(BIAS_LR_FACTOR|WEIGHT_DECAY_NORM|WEIGHT_DECAY_BIAS)
    | dataloader\.train\.mapper\.image_format | model\.input_format | model\.pixel_(mean|std)
    | model\..*anchor_generator\..* | model\..*\.(fuse_type|stride_in_1x1|use_sigmoid_ce)
    | model\..*in_features | model\..*box2box_transforms?\..*weights
    | model\..*_pooler\.(output_size|pooler_type)
    """,
    re.VERBOSE,
)
# What the optimizer takes from the checkpoint, whatever the config says.
_OF_OPTIMIZER = re.compile(r"SOLVER\.(BASE_LR|MOMENTUM|NESTEROV|WEIGHT_DECAY)|optimizer\..*")
# Where the run is, not what it does.
_PLACES = re.compile(
    r"OUTPUT_DIR|VERSION|MODEL\.(WEIGHTS|DEVICE)|train\.(output_dir|init_checkpoint|device)"
)
_MOST_TOLD = 12
_ABSENT = object()


class _Loader(yaml.SafeLoader):
    """Takes what a tag of Python stands for as the text that it is, and runs none of it."""

    def construct_tagged(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return f"{node.tag} {node.value}".strip()

    yaml_constructors: ClassVar[dict] = {
        **yaml.SafeLoader.yaml_constructors,
        None: construct_tagged,
    }


def check_resumed_config(cfg: CfgNode | DictConfig, output_dir: str) -> None:
    """
    Compare the config of a training that is to be resumed with that in its folder. Call this in all
    processes, before the folder's is overwritten.

    Args:
        cfg: the config, as it will be saved.
        output_dir: the folder. If there is nothing to resume from in it, nothing is compared.

    Raises:
        InputError: what its weights mean would be something else.
    """
    error = _compare(cfg, Path(output_dir)) if comm.is_main_process() else None
    error = comm.all_gather(error)[0]
    if error is not None:
        raise InputError(error)


def _compare(cfg: CfgNode | DictConfig, folder: Path) -> str | None:
    """What to raise; the rest is warned of."""
    file = folder / FILE
    if not has_checkpoints(str(folder)) or not file.is_file():
        return None
    try:
        before, now = dict(_leaves(_read(file))), dict(_leaves(_as_saved(cfg)))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        logger.warning(
            f"{file} cannot be read ({type(e).__name__}): whether the config is that of the "
            "training so far is not known"
        )
        return None
    changed = [
        key
        for key in {**before, **now}
        if before.get(key, _ABSENT) != now.get(key, _ABSENT) and not _PLACES.fullmatch(key)
        and not is_unused(cfg, key)
    ]  # fmt: skip
    if isinstance(cfg, CfgNode):
        # Where a key is missing, it is another version of the project that has written the file.
        changed = [key for key in changed if key in before and key in now]
    meaning = [key for key in changed if _MEANING.fullmatch(key)]
    if meaning:
        found = _listed(f"{key} is {_value(now, key)}, expected {_value(before, key)}"
                        for key in meaning)  # fmt: skip
        start = "MODEL.WEIGHTS" if isinstance(cfg, CfgNode) else "train.init_checkpoint"
        return (
            f"{found}, as {file} has it: the weights that --resume goes on with were trained for "
            f"that. To start from the weights alone, leave --resume out, and name them in {start}"
        )
    for what, is_of_optimizer in (
        ("the config has changed since the training that --resume goes on with", False),
        ("--resume goes on with the optimizer of the checkpoint, whatever the config says", True),
    ):
        keys = [key for key in changed if bool(_OF_OPTIMIZER.fullmatch(key)) == is_of_optimizer]
        if keys:
            found = _listed(f"{x} is {_value(now, x)}, and was {_value(before, x)}" for x in keys)
            logger.warning(f"{what}: {found} ({file})")
    return None


def _read(file: Path) -> Any:
    content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # which is a safe one
    if not isinstance(content, dict):
        raise ValueError("no config")
    return content


def _as_saved(cfg: CfgNode | DictConfig) -> Any:
    """A config, as it is read when Detectron2 has saved it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        if isinstance(cfg, CfgNode):
            file.write_text(cfg.dump(), encoding="utf-8")
        else:
            log = logging.getLogger("detectron2.config.lazy")
            log.addFilter(_never)  # it says the same when the run saves it
            try:
                LazyConfig.save(cfg, str(file))
            finally:
                log.removeFilter(_never)
        return _read(file)


def _never(_: logging.LogRecord) -> bool:
    return False


def _leaves(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """The keys and values of a config, with those of the nodes in its lists."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{above}.{name}" if above else str(name))
    elif isinstance(node, list) and any(isinstance(x, dict) for x in node):
        for i, value in enumerate(node):
            yield from _leaves(value, f"{above}[{i}]")
    else:
        yield above, node


def _value(leaves: dict[str, Any], key: str) -> str:
    return shown(leaves[key]) if key in leaves else "missing"


def _listed(words: Iterator[str]) -> str:
    first, *others = words
    told = [first, *others[: _MOST_TOLD - 1]]
    more = len(others) + 1 - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")
