"""Loading Detectron2's Python configs (LazyConfig), and the settings that change them."""

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from detectron2.config import LazyConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import InputError
from .config_file import check_no_file
from .device import usable_device
from .interpolations import check_interpolations
from .key_checks import all_keys, check_lazy_keys
from .lazy_arguments import check_arguments
from .lazy_data import data_sets_of
from .lazy_file import run_file
from .lazy_names import check_added_names
from .lazy_targets import check_targets
from .nearest_keys import hint
from .part_rules import check_parts

_MISSING = object()
# The project's nodes in a YAML config, and where they are in a Python config.
_NODES_OF_YAML = {
    "MODEL.ROI_HEADS.OHEM": "model.roi_heads.ohem",
    "MODEL.RPN.OHEM": "model.proposal_generator.ohem",
    "MODEL.RETINANET.OHEM": "model.ohem",
    "TEST.BOX_VOTING": "model.roi_heads.box_voting",
    "INPUT.IGNORE_REGIONS": "train.ignore_regions",
    "INPUT.VALID_RANGES": "train.valid_ranges",
}
# Those that a message begins with. Within one, they are what a user has written.
_KEYS_OF_YAML = {
    "MODEL.WEIGHTS": "train.init_checkpoint",
    "OUTPUT_DIR": "train.output_dir",
}
# Parts of configs, as Detectron2's model zoo has them: the file there, and the name in it.
_OF_THE_ZOO = {
    "dataloader": ("data/coco.py", "dataloader"),
    "lr_multiplier": ("coco_schedule.py", "lr_multiplier_1x"),
    "model": ("models/mask_rcnn_fpn.py", "model"),
    "optimizer": ("optim.py", "SGD"),
    "train": ("train.py", "train"),
}
# Nodes that describe one object each.
_SINGLE = (
    "model", "model.backbone", "model.proposal_generator", "model.roi_heads", "optimizer",
    "optimizer.params", "lr_multiplier", "train", "dataloader", "dataloader.train",
    "dataloader.train.dataset", "dataloader.train.mapper", "dataloader.test",
    "dataloader.test.dataset", "dataloader.test.mapper",
)  # fmt: skip
_NEEDED_TO_EVALUATE = (
    "model",
    "dataloader.test",
    "train.device",
    "train.init_checkpoint",
    "train.output_dir",
)
_NEEDED_TO_TRAIN = (
    "dataloader.train",
    "lr_multiplier",
    "optimizer",
    "optimizer.params",
    "train.amp.enabled",
    "train.checkpointer",
    "train.ddp",
    "train.eval_period",
    "train.log_period",
    "train.max_iter",
)
_NEEDED = (*_NEEDED_TO_EVALUATE, *_NEEDED_TO_TRAIN)


def load_lazy_config(
    config_file: str, opts: Sequence[str] = (), training: bool = True
) -> DictConfig:
    """
    Load a Python config. It is a program, and is run.

    Args:
        config_file: a path.
        opts: ``key=value`` for each key to change, and ``+key=value`` for one to add.
        training: whether it is to be trained, not only evaluated.

    Returns:
        the config. Where there is no GPU, ``train.device`` is "cpu".

    Raises:
        InputError: the file does not run, or lacks something, or a key to change is not there.
    """
    with _refused(config_file):
        with keys_of_python_configs():
            cfg = run_file(config_file)
        _check_single(cfg, config_file)
        _override(cfg, config_file, list(opts))
        check_interpolations(cfg, config_file)
        check_added_names(cfg, config_file, opts)
        if isinstance(device := OmegaConf.select(cfg, "train.device"), str):
            cfg.train.device = usable_device("train.device", device)
        check_lazy_keys(cfg, training)
        _check_complete(cfg, config_file, training)
        made = _made(cfg, training)
        check_targets(cfg, made)
        check_arguments(cfg, made, config_file)
        check_parts(cfg, made)
        return cfg


@contextmanager
def keys_of_python_configs() -> Iterator[None]:
    """
    Name settings as Python configs do in what is wrong with one.

    Raises:
        InputError: what was raised, where it was named as in a YAML config.
    """
    try:
        yield
    except InputError as e:
        pattern = rf"({'|'.join(map(re.escape, _NODES_OF_YAML))})((?:\.[A-Z_]+)?)"
        text = re.sub(pattern, lambda m: _NODES_OF_YAML[m[1]] + m[2].lower(), str(e))
        for key, name in _KEYS_OF_YAML.items():
            text = re.sub(rf"^{re.escape(key)}\b", name, text)
        if text == str(e):
            raise
        raise InputError(text) from e


def _made(cfg: DictConfig, training: bool) -> list[str]:
    """The parts of a config that are made of it."""
    parts = ["model", "dataloader.test"]
    if not any("://" in name for name in data_sets_of(cfg, "test")):
        parts.append("dataloader.evaluator")  # else that of the address is taken
    return [*parts, "dataloader.train", "optimizer", "lr_multiplier"] if training else parts


@contextmanager
def _refused(config_file: str) -> Iterator[None]:
    """Say what OmegaConf refuses in one line, wherever it does."""
    try:
        yield
    except OmegaConfBaseException as e:
        key = f"{e.full_key} " if e.full_key else ""
        raise InputError(f"{key}in {config_file} cannot be used: {_first_line(e)}") from e


def _first_line(e: Exception) -> str:
    """What OmegaConf says, without the state of its objects that it adds."""
    return str(e).partition("\n")[0]


def _override(cfg: DictConfig, config_file: str, opts: list[str]) -> None:
    check_no_file(opts)
    for i, opt in enumerate(opts):
        key, is_pair, value = opt.partition("=")
        if opt.startswith("--"):
            raise InputError(f"{opt} comes after the settings, expected it before them")
        if not is_pair or not all(key.lstrip("+~").split(".")):
            raise InputError(f"in the settings {opt!r}: expected key=value, as for Python configs")
        if "[" in key:  # which OmegaConf knows, but hydra does not
            instead = re.sub(r"\[(-?\w*)\]", r".\1", key)
            raise InputError(f"in the settings {opt!r}: expected {instead}, without brackets")
        _check_index(cfg, key.lstrip("+~"), opt)
        if not key.startswith("+") and OmegaConf.select(cfg, key, default=_MISSING) is _MISSING:
            root = key.partition(".")[0]
            if root not in cfg and any(x.partition(".")[0] == root for x in _NEEDED):
                raise _lacking(config_file, root)
            raise InputError(
                f"in the settings {opt!r}: there is no {key} in {config_file}"
                f"{hint(key, all_keys(cfg))}. To add it, write +{opt}"
            )
        if re.match(r"\w+://", value):
            opt = f"{key}={value!r}"  # which hydra does not take without quotes
        try:
            is_sweep = OverridesParser.create().parse_override(opt).is_sweep_override()
            if not is_sweep:
                LazyConfig.apply_overrides(cfg, [opt])
        except Exception as e:  # hydra's, OmegaConf's and Detectron2's have no common base
            raise InputError(f"in the settings {opts[i]!r}: {e}") from None
        if is_sweep:  # as hydra takes a comma, range() and the like
            raise InputError(
                f"in the settings {opts[i]!r}: {key} is several values, expected one, such as "
                "0.02, or a list in brackets, such as [1,2]"
            )


def _check_index(cfg: DictConfig, key: str, opt: str) -> None:
    """Make sure that a list has the entry that a setting is for."""
    names = key.split(".")
    for i, name in enumerate(names):
        above = ".".join(names[:i])
        node = OmegaConf.select(cfg, above) if above else cfg
        if OmegaConf.is_list(node) and name not in map(str, range(len(node))):
            raise InputError(
                f"in the settings {opt!r}: {above} has {len(node)} entries, expected 0 to "
                f"{len(node) - 1} in the place of {name}"
            )


def _check_single(cfg: DictConfig, config_file: str) -> None:
    for key in _SINGLE:
        try:
            node = OmegaConf.select(cfg, key)  # what it is in was looked at before
        except OmegaConfBaseException:  # a reference that leads nowhere is told later
            continue
        if OmegaConf.is_list(node):
            raise InputError(
                f"{key} in {config_file} is a list, expected one object, such as a LazyCall makes: "
                "is there a comma at the end of its line?"
            )


def _check_complete(cfg: DictConfig, config_file: str, training: bool) -> None:
    for key in (*_NEEDED_TO_EVALUATE, *(_NEEDED_TO_TRAIN if training else ())):
        if OmegaConf.select(cfg, key) is None:
            if OmegaConf.select(cfg, key, default=_MISSING) is None:
                raise InputError(f"{key} is null, expected a value: {config_file} needs one")
            root = key.partition(".")[0]
            raise _lacking(config_file, key if root in cfg else root)


def _lacking(config_file: str, key: str) -> InputError:
    file, name = _OF_THE_ZOO[key.partition(".")[0]]
    expected = f"expected one such as model_zoo.get_config('common/{file}').{name}"
    if key == "optimizer.params":
        expected += ", which has params=L(get_default_optimizer_params)()"
    if key in _assigned(config_file):  # Detectron2 leaves out what is no node
        return InputError(f"{key} in {config_file} is neither a dict nor a LazyCall, {expected}")
    return InputError(f"there is no {key} in {config_file}, {expected}")


def _assigned(config_file: str) -> set[str]:
    """The names that a Python file gives to something, or imports."""
    nodes = list(ast.walk(ast.parse(Path(config_file).read_bytes())))
    names = [x for x in nodes if isinstance(x, ast.Name)]
    imported = {x.asname or x.name for x in nodes if isinstance(x, ast.alias)}
    assigned = {x.id for x in names if isinstance(x.ctx, ast.Store)}
    return (assigned | imported) - {x.id for x in names if isinstance(x.ctx, ast.Del)}
