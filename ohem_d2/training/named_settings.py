"""Which settings are to blame for an error of Detectron2's or torch's."""

import ast
import inspect
import logging
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)
from omegaconf import OmegaConf

from ..errors import InputError, shown
from .data_checks import named_annotations
from .key_checks import is_unused, leaves_of
from .key_rules import is_list
from .lazy_targets import make, parts_of, target_of
from .system_errors import of_file, of_system

# Whose code it is that raises an error which the settings are to blame for.
_NOT_OF_USERS = sys.stdlib_module_names | {
    "ohem_d2", "detectron2", "fvcore", "iopath", "omegaconf", "torch", "torchvision", "numpy",
    "yacs", "hydra", "tensorboard", "PIL", "cv2", "pycocotools",
}  # fmt: skip
# What Detectron2 names the files that a Python config imports. What the config itself defines has
# the module "builtins".
_OF_CONFIG_FILES = "detectron2._cfg_loader"
_POOLER = tuple(f"MODEL.ROI_{x}_HEAD.POOLER_" for x in ("BOX", "MASK", "KEYPOINT"))
_ANCHORS = ("MODEL.ANCHOR_GENERATOR.",)
_DENSE = ("MODEL.RETINANET.",)
# What the keys begin with that a module works with, in YAML and in Python configs. The modules of a
# package that are not named come under the package.
_KEYS_OF_MODULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "detectron2.modeling.backbone": (
        ("MODEL.BACKBONE.", "MODEL.RESNETS.", "MODEL.FPN."), ("model.backbone.",)),
    "detectron2.modeling.backbone.fpn": (("MODEL.FPN.",), ("model.backbone.",)),
    "detectron2.modeling.backbone.resnet": (("MODEL.RESNETS.",), ("model.backbone.",)),
    "detectron2.modeling.anchor_generator": (_ANCHORS, ("model.proposal_generator.anchor",)),
    "detectron2.modeling.proposal_generator": (
        ("MODEL.RPN.", *_ANCHORS, "MODEL.PROPOSAL_GENERATOR."), ("model.proposal_generator.",)),
    "detectron2.modeling.poolers": (
        ("MODEL.ROI_HEADS.IN_FEATURES", *_POOLER), ("model.roi_heads.",)),
    "detectron2.modeling.roi_heads": (("MODEL.ROI_HEADS.",), ("model.roi_heads.",)),
    "detectron2.modeling.roi_heads.box_head": (("MODEL.ROI_BOX_HEAD.",), ("model.roi_heads.box",)),
    "detectron2.modeling.roi_heads.fast_rcnn": (("MODEL.ROI_BOX_HEAD.",), ("model.roi_heads.box",)),
    "detectron2.modeling.roi_heads.cascade_rcnn": (
        ("MODEL.ROI_BOX_CASCADE_HEAD.",), ("model.roi_heads.",)),
    "detectron2.modeling.roi_heads.mask_head": (
        ("MODEL.ROI_MASK_HEAD.",), ("model.roi_heads.mask",)),
    "detectron2.modeling.roi_heads.keypoint_head": (
        ("MODEL.ROI_KEYPOINT_HEAD.",), ("model.roi_heads.keypoint",)),
    "detectron2.modeling.meta_arch.retinanet": (_DENSE, ("model.",)),
    "detectron2.modeling.meta_arch.fcos": (_DENSE, ("model.",)),
    "detectron2.modeling.meta_arch.dense_detector": (_DENSE, ("model.",)),
    "detectron2.modeling.meta_arch.semantic_seg": (("MODEL.SEM_SEG_HEAD.",), ("model.sem_seg",)),
    "detectron2.modeling.meta_arch.panoptic_fpn": (("MODEL.PANOPTIC_FPN.",), ("model.",)),
    "detectron2.data": (("INPUT.",), ("dataloader.",)),
    "detectron2.data.build": (("DATALOADER.", "DATASETS."), ("dataloader.",)),
    "detectron2.data.samplers": (("DATALOADER.",), ("dataloader.",)),
    "torch.utils.data": (("DATALOADER.",), ("dataloader.",)),
    "detectron2.solver": (("SOLVER.",), ("optimizer.", "lr_multiplier.")),
    "fvcore.common.param_scheduler": (("SOLVER.",), ("lr_multiplier.",)),
    "ohem_d2.modeling": (("MODEL.ROI_HEADS.",), ("model.roi_heads.",)),
}  # fmt: skip
_REGISTRIES = {
    "BACKBONE": BACKBONE_REGISTRY,
    "PROPOSAL_GENERATOR": PROPOSAL_GENERATOR_REGISTRY,
    "ROI_HEADS": ROI_HEADS_REGISTRY,
    "ROI_BOX_HEAD": ROI_BOX_HEAD_REGISTRY,
    "ROI_MASK_HEAD": ROI_MASK_HEAD_REGISTRY,
    "ROI_KEYPOINT_HEAD": ROI_KEYPOINT_HEAD_REGISTRY,
}
_MOST_NAMED, _MOST_LISTED = 4, 30
_LOOKUP = "torch.nn.modules.module"  # of the attributes of modules


@contextmanager
def named_settings(
    config_file: str, cfg: Any, opts: Sequence[str] = (), verb: str = "built"
) -> Iterator[None]:
    """
    Say which settings they are that no model or training can be built from.

    What code of the user's own raises is left as it is, with its traceback.

    Args:
        config_file: where the settings are from.
        cfg: all of them, in either form of a config.
        opts: those of the command line.
        verb: what they cannot be.

    Raises:
        InputError: Detectron2 or torch have refused them.
    """
    try:
        with _quiet(), named_annotations():  # data sets are read while a trainer is built
            yield
    except InputError:
        raise
    except Exception as e:  # there is no end to what they raise
        if of_system(e) and not of_file(e):  # no setting is to blame for it
            raise
        # The first two are this function and the one that called it.
        frames = [frame for frame, _ in traceback.walk_tb(e.__traceback__)][2:]
        if not all(is_known(_module(x)) for x in frames):
            raise
        # A module's lookup of what it lacks is nobody's place.
        places = [x for x in traceback.walk_tb(e.__traceback__) if _module(x[0]) != _LOOKUP]
        frame, line = places[-1]
        reason = f"{type(e).__name__}: {e}".removesuffix(": ")
        if isinstance(e, AssertionError) and (test := _asserted(frame, line)):
            reason += f", expected {test}"
        if lacking := re.search(r"has no attribute '(\w+)'$", reason):
            reason += f", expected an object that has {lacking[1]}"
        if isinstance(e, KeyError) and (names := _names_beside(frame, e)):
            reason += f", expected one of {', '.join(names)}"
        where = f"{config_file}, or the settings that change it,"
        found = " and ".join(
            _quoted(cfg, e)
            or _made(frames, opts)
            or _worked_with(cfg, frames, opts)
            or _of_the_user(cfg)
        )
        raise InputError(
            f"{f'{found} in {where} and' if found else where} cannot be {verb}: {reason} "
            f"({_module(frame)}, line {line})"
        ) from e


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Detectron2 not log what it was making, which the one line or the traceback says too."""
    log, nothing = logging.getLogger(instantiate.__module__), lambda record: False
    log.addFilter(nothing)
    try:
        yield
    finally:
        log.removeFilter(nothing)


def is_known(module: str) -> bool:
    """Whether a module is of Detectron2, or what it works with, rather than of the user."""
    is_of_users = module == "builtins" or module.startswith(_OF_CONFIG_FILES)
    return module.partition(".")[0] in _NOT_OF_USERS and not is_of_users


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "")


def _asserted(frame: FrameType, line: int) -> str:
    """What was asserted there: many assertions have no words, or only what was found."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(frame.f_code)))
    except (OSError, TypeError, SyntaxError):
        return ""
    line -= frame.f_code.co_firstlineno - 1
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.lineno <= line <= (node.end_lineno or line):
            return ast.unparse(node.test)
    return ""


def _names_beside(frame: FrameType, error: KeyError) -> list[str]:
    """Those that there are where one was asked for that there is not, such as of feature maps."""
    found = [
        list(map(repr, x))
        for x in frame.f_locals.values()
        if isinstance(x, Mapping) and not isinstance(x, CfgNode) and x
        and all(isinstance(name, str) for name in x) and error.args[0] not in x
    ]  # fmt: skip
    return found[0] if len(found) == 1 and len(found[0]) <= _MOST_LISTED else []


def _quoted(cfg: Any, error: Exception) -> list[str]:
    """The keys that hold what an error quotes, or whose name it quotes, and their values."""
    texts = [x for x in error.args if isinstance(x, str)]  # a KeyError is the name alone
    # Not from an apostrophe on, as in "can't".
    quoted = {*texts, *(part for x in texts for part in re.findall(r"(?<!\w)'([^']+)'", x))}
    called = {name for x in texts for name in re.findall(r"(\w+)\.__init__\(\)", x)}
    leaves = list(leaves_of(cfg))
    # A class where a call is meant: then what it lacks is nobody else's.
    classes = [(k, v) for k, v in leaves if isinstance(v, type) and not k.endswith("_target_")]
    if uncalled := [(k, v) for k, v in classes if v.__name__ in called]:
        return _with_values(cfg, uncalled)
    found = []
    for key, value in leaves:
        values = value if is_list(value) else [value]
        is_named = not isinstance(cfg, CfgNode) and key.rpartition(".")[2] in quoted
        if is_named or any(isinstance(x, str) and x in quoted for x in values):
            found.append((key, value))
    return _with_values(cfg, found)


def _made(frames: list[FrameType], opts: Sequence[str]) -> list[str]:
    """
    The part of a Python config that was being made, by its place: what of it the command line has,
    or else all of its values.
    """
    # Where Detectron2 goes through the entries of a node it calls each of them v, or x in a list.
    rooms = {instantiate.__module__: ("v", "x"), make.__module__: ("node",)}
    nodes: list[Any] = [x.f_locals.get(name) for x in frames for name in rooms.get(_module(x), ())]
    parts = [x for x in nodes if OmegaConf.is_dict(x) and "_target_" in x]
    if not parts:
        return []
    part, place = parts[-1], parts[-1]._get_full_key(None)
    names = [k for k in part if k != "_target_" and not OmegaConf.is_missing(part, k)]
    values = {f"{place}.{k}": part[k] for k in names if not OmegaConf.is_dict(part[k])}
    given = {x.partition("=")[0].lstrip("+") for x in opts}
    chosen = {k: v for k, v in values.items() if k in given} or values
    words = [f"{k} is {shown([*v] if is_list(v) else v)}" for k, v in chosen.items()]
    return words[:_MOST_NAMED] or [place]


def _worked_with(cfg: Any, frames: list[FrameType], opts: Sequence[str]) -> list[str]:
    """
    The keys, with their values, that the last module worked with: those of the command line, or
    those that are not Detectron2's defaults, or else all, by what they begin with.
    """
    modules = [_module(x) for x in reversed(frames)]
    names = [next((n for n in _above(m) if n in _KEYS_OF_MODULES), None) for m in modules]
    name = next((n for n in names if n is not None), None)
    if name is None:
        return []
    prefixes = _KEYS_OF_MODULES[name][0 if isinstance(cfg, CfgNode) else 1]
    given = {x.partition("=")[0].lstrip("+") for x in opts}
    defaults = dict(leaves_of(get_cfg())) if isinstance(cfg, CfgNode) else {}
    leaves = [(k, v) for k, v in leaves_of(cfg) if k.startswith(prefixes)]
    for chosen in (
        [(k, v) for k, v in leaves if k in given],
        [(k, v) for k, v in leaves if k in defaults and v != defaults[k]],
    ):
        if words := _with_values(cfg, chosen):
            return words
    return [f"{x.rstrip('._')}" for x in prefixes]


def _of_the_user(cfg: Any) -> list[str]:
    """The parts of a model that are the user's own: what they give may be what others fail of."""
    if isinstance(cfg, CfgNode):
        parts = {f"MODEL.{node}.NAME": (cfg.MODEL[node].NAME, x) for node, x in _REGISTRIES.items()}
        made = {key: x.get(name) for key, (name, x) in parts.items() if name in x}
    else:
        made = {key: target_of(part) for key, part in parts_of(cfg.get("model"), "model")}
    own = {key: x for key, x in made.items() if not is_known(str(getattr(x, "__module__", "")))}
    return [f"{key} is {x.__module__}.{x.__qualname__}" for key, x in own.items()][:_MOST_NAMED]


def _above(module: str) -> Iterator[str]:
    while module:
        yield module
        module = module.rpartition(".")[0]


def _with_values(cfg: Any, found: list[tuple[str, Any]]) -> list[str]:
    words = [f"{k} is {shown(v)}" for k, v in found if not is_unused(cfg, k)]
    return words[:_MOST_NAMED]
