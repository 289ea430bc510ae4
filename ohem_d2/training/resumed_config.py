"""
The config of a training that is resumed, compared with the one that it has had so far.

A checkpoint holds the config of its training. Beside one that does not, such as Detectron2's own,
lies what a run leaves in its folder (config.yaml), and overwrites when it starts again. Much of it
may change meanwhile, such as the number of iterations, and is told in a warning. But what the
weights mean has to stay: a checkpoint fits a model of other anchors or another order of channels as
well, and would go on as if nothing were wrong.
"""

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from detectron2.config import CfgNode, LazyConfig
from detectron2.utils import comm
from omegaconf import DictConfig

from ..data.other_files import what_it_is
from ..errors import InputError, shown
from .checkpoint import files_of_weights, has_checkpoints
from .key_checks import is_unused
from .weights import config_in
from .yaml_files import place

logger = logging.getLogger(__name__)

FILE = "config.yaml"  # as Detectron2 calls it

# What weights were trained for, though those of another value have the same shapes: in a YAML and
# in a Python config.
_MEANING = re.compile(
    r"""
    INPUT\.FORMAT | MODEL\.PIXEL_(MEAN|STD) | MODEL\.ANCHOR_GENERATOR\..* | MODEL\.FPN\.FUSE_TYPE
    | MODEL\..*\.(IN_FEATURES|BBOX_REG_WEIGHTS|POOLER_TYPE|POOLER_RESOLUTION)
    | MODEL\..*\.(STRIDE_IN_1X1|RES5_DILATION|USE_SIGMOID_CE)
    | dataloader\.train\.mapper\.image_format | model\.input_format | model\.pixel_(mean|std)
    | model\..*anchor_generator\..* | model\..*\.(fuse_type|stride_in_1x1|use_sigmoid_ce)
    | model\..*in_features | model\..*box2box_transforms?\..*weights
    | model\..*_pooler\.(output_size|pooler_type)
    """,
    re.VERBOSE,
)
# By what the optimizer groups the parameters, so that a checkpoint may not fit.
_OF_GROUPS = re.compile(r"SOLVER\.(BIAS_LR_FACTOR|WEIGHT_DECAY_NORM|WEIGHT_DECAY_BIAS)")
# What the optimizer takes from the checkpoint, whatever the config says.
_OF_OPTIMIZER = re.compile(r"SOLVER\.(BASE_LR|MOMENTUM|NESTEROV|WEIGHT_DECAY)|optimizer\..*")
# Where the run is, not what it does.
_PLACES = re.compile(
    r"OUTPUT_DIR|VERSION|MODEL\.(WEIGHTS|DEVICE)|train\.(output_dir|init_checkpoint|device)"
)
_MOST_TOLD = 12
_TRAINED = "the weights were trained with that"
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


def check_config_of_weights(
    cfg: CfgNode | DictConfig, weights: str, output_dir: str, resume: bool, training: bool
) -> None:
    """
    Compare a config with that of the weights, which is in their file, or else in their folder: for
    a training that is resumed, and for an evaluation. Call this in all processes, before the config
    in the folder is overwritten.

    Args:
        cfg: the config, as it will be saved.
        weights: a path or address, or "".
        output_dir: where ``resume`` finds a checkpoint, if there is one.
        resume: as on the command line.
        training: whether the weights are to be trained. A training that starts from them is free
            to make something else of them.

    Raises:
        InputError: the weights would mean something else. Of an evaluation that leaves the config
            in their folder as it is, this is a warning.
    """
    error = None
    if comm.is_main_process():
        error = _compare(cfg, weights, output_dir, resume, training)
    error = comm.all_gather(error)[0]
    if error is not None:
        raise InputError(error)


def warn_of_other_config(cfg: CfgNode | DictConfig, weights: str) -> None:
    """
    Warn if weights were trained with a config by which they mean something else.

    Args:
        cfg: the config that they are looked at with, and that is not saved.
        weights: a path or address, or "".
    """
    if files := files_of_weights(weights, "", resume=False):
        wrong = _Changes.find(cfg, files[0].parent, files).of_meaning(training=False)
        if wrong is not None:
            logger.warning(f"{wrong}: {_TRAINED}")


def _compare(
    cfg: CfgNode | DictConfig, weights: str, output_dir: str, resume: bool, training: bool
) -> str | None:
    goes_on = resume and has_checkpoints(output_dir)
    files = files_of_weights(weights, output_dir, resume)
    if not goes_on and (training or not files):
        return None
    folder = Path(output_dir) if goes_on else files[0].parent
    changes = _Changes.find(cfg, folder, files[:1])
    wrong = changes.of_meaning(training)
    is_yaml = isinstance(cfg, CfgNode)
    start = "MODEL.WEIGHTS" if is_yaml else "train.init_checkpoint"
    if wrong is None:
        if training:
            changes.warn()
            before, now = changes.before.get(start), changes.now.get(start)
            if before is not None and before != now:
                logger.warning(
                    f"{start} is {shown(now)}, and was {shown(before)}: neither is read, since "
                    f"--resume goes on with the last checkpoint in {output_dir}"
                )
        return None
    if training:
        return (
            f"{wrong}: what --resume goes on with was trained with that. To start from the weights "
            f"alone, leave --resume out, and name them in {start}"
        )
    if folder.resolve() == Path(output_dir).resolve():
        output = "OUTPUT_DIR" if is_yaml else "train.output_dir"
        return (
            f"{wrong}: the weights there were trained with that. To evaluate them otherwise, name "
            f"them in {start}, and another folder in {output}"
        )
    logger.warning(f"{wrong}: {_TRAINED}")
    return None


@dataclass(frozen=True)
class _Changes:
    """What differs between a config and that of a file."""

    file: Path
    before: dict[str, Any]
    now: dict[str, Any]
    keys: list[str]

    @classmethod
    def find(cls, cfg: CfgNode | DictConfig, folder: Path, weights: Iterable[Path]) -> "_Changes":
        """
        Compare them; there are no changes where there is no config in the weights, or else in the
        folder.
        """
        file = folder / FILE
        try:
            for checkpoint in weights:
                if text := config_in(str(checkpoint)):
                    file, content = checkpoint, _parse(text)
                    break
            else:
                if not file.is_file():
                    return cls(file, {}, {}, [])
                content = _parse(file.read_text(encoding="utf-8"))
            before, now = dict(_leaves(content)), dict(_leaves(_as_saved(cfg)))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
            logger.warning(
                f"{file} cannot be read ({_reason(e)}), expected the config that the training so "
                "far has left there: whether this one is the same is not known"
            )
            return cls(file, {}, {}, [])
        # Where a key of a YAML config is missing, another version has written it; and a checkpoint
        # of the other form of a config is refused when it is loaded.
        is_yaml, has_none = isinstance(cfg, CfgNode), not before.keys() & now.keys()
        all_keys = before.keys() & now.keys() if is_yaml or has_none else {**before, **now}.keys()
        keys = [
            key
            for key in sorted(all_keys)
            if before.get(key, _ABSENT) != now.get(key, _ABSENT)
            and not _PLACES.fullmatch(key)
            and not is_unused(cfg, key)
        ]
        return cls(file, before, now, keys)

    def of_meaning(self, training: bool) -> str | None:
        """What differs of what the weights mean, in words; ``training``: or the optimizer."""
        keys = [
            key
            for key in self.keys
            if (_MEANING.fullmatch(key) or (training and _OF_GROUPS.fullmatch(key)))
            and key in self.before
            and key in self.now
        ]
        if not keys:
            return None
        words = [f"{x} is {shown(self.now[x])}, expected {shown(self.before[x])}" for x in keys]
        return f"{_listed(words)}, as in {self.file}"

    def warn(self) -> None:
        """Warn of what differs."""
        for what, is_of_optimizer in (
            ("the config has changed since the training that --resume goes on with", False),
            (
                "--resume goes on with the optimizer of the checkpoint, whatever the config says",
                True,
            ),
        ):
            words = [
                f"{key} is {self._value(self.now, key)}, and was {self._value(self.before, key)}"
                for key in self.keys
                if bool(_OF_OPTIMIZER.fullmatch(key)) == is_of_optimizer
            ]
            if words:
                logger.warning(f"{what}: {_listed(words)} ({self.file})")

    def _value(self, leaves: dict[str, Any], key: str) -> str:
        return shown(leaves[key]) if key in leaves else "missing"


def _parse(text: str) -> Any:
    if other := what_it_is(text.encode()):
        raise ValueError(f"it is {other}")
    content = yaml.load(text, _Loader)  # which is a safe one
    if not isinstance(content, dict):
        raise ValueError("it has no keys")
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.YAMLError):
        return place(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8"
    if isinstance(error, RecursionError):
        return "its lists or keys are nested too deeply"
    return getattr(error, "strerror", None) or str(error)


def config_text(cfg: CfgNode | DictConfig) -> str | None:
    """A config in YAML, as Detectron2 saves it; None if it cannot be put that way."""
    if isinstance(cfg, CfgNode):
        return cfg.dump()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        log = logging.getLogger("detectron2.config.lazy")
        log.addFilter(_never)  # it says the same when the run saves it
        try:
            LazyConfig.save(cfg, str(file))
        finally:
            log.removeFilter(_never)
        return file.read_text(encoding="utf-8") if file.is_file() else None


def _as_saved(cfg: CfgNode | DictConfig) -> Any:
    """A config, as it is read when Detectron2 has saved it."""
    text = config_text(cfg)
    if text is None:
        raise ValueError("the one of this run cannot be put in YAML")
    return _parse(text)


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


def _listed(words: list[str]) -> str:
    more = len(words) - _MOST_TOLD
    return "; ".join(words[:_MOST_TOLD]) + (f"; and {more} more" if more > 0 else "")
