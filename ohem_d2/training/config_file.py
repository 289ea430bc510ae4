"""A config file, by its path or its name, that cannot run code."""

import logging
import os
import re
from ast import literal_eval
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from fvcore.common.config import BASE_KEY

from ..config import add_ohem_config
from ..errors import InputError
from .key_checks import check_no_none

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
# The configs that come with the project: in the installed package, or beside it in a clone.
CONFIGS = _PACKAGE / "configs"
if not CONFIGS.is_dir():
    CONFIGS = _PACKAGE.parent / "configs"
_YAML = (".yaml", ".yml")
_ZOO = (Path(model_zoo.__file__).parent / "configs").resolve()
_CASCADES = {"CascadeROIHeads", "OHEMCascadeROIHeads"}
# What fvcore and yacs answer with to a config that they do not like.
_REFUSED = (KeyError, ValueError, AssertionError, TypeError, AttributeError)


class _TextLoader(yaml.SafeLoader):
    """Takes each value for a text, whatever its tag says, but merges keys (<<) as YAML does."""

    def construct_text(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return node.value

    yaml_constructors: ClassVar[dict] = {None: construct_text}


class _SafeCfgNode(CfgNode):
    """Loads YAML safely, where Detectron2 would run what its tags say and fetch what it names."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict:
        for base in _bases(filename, _read_yaml(filename)):
            _check_base(filename, base)
        # Detectron2's own files are as trusted as its code; one of them computes its anchors.
        trusted = Path(filename).resolve().is_relative_to(_ZOO)
        return super().load_yaml_with_base(filename, allow_unsafe=trusted)


def load_config(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """
    Load a YAML config, with this project's keys known.

    Args:
        config_file: a path or a name, see `find_config`.
        opts: keys and values that override those of the file, in turn. Where a key holds a tuple,
            a single value stands for a tuple of one, and where it holds a float, 1 for 1.0.

    Returns:
        the config, not frozen. Where there is no GPU, ``MODEL.DEVICE`` is "cpu".

    Raises:
        InputError: there is no such file, or it is no valid config.
    """
    path = find_config(config_file)
    cfg = _SafeCfgNode(get_cfg())
    add_ohem_config(cfg)
    defaults = cfg.clone()
    _merge_file(cfg, path)
    check_no_none(cfg, defaults)
    _merge_settings(cfg, list(opts))
    check_no_none(cfg, defaults)
    may_be_cascade = cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG
    is_standard = cfg.MODEL.ROI_HEADS.NAME == "OHEMROIHeads"
    if may_be_cascade and is_standard and _named_heads(path) & _CASCADES:
        # The one mistake of this kind that the model cannot see when it is built.
        raise InputError(
            f"MODEL.ROI_HEADS.NAME is OHEMROIHeads, but {path} is the config of a cascade: "
            "expected OHEMCascadeROIHeads"
        )
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.DEVICE == "cpu" and cfg.SOLVER.AMP.ENABLED:
        logger.warning("SOLVER.AMP.ENABLED is turned off: Detectron2 needs a GPU for it")
        cfg.SOLVER.AMP.ENABLED = False
    return cfg


def find_config(config_file: str) -> str:
    """
    Tell the path of a config file.

    Args:
        config_file: a path; or a name of the project's own configs, such as
            "faster_rcnn_ohem.yaml" or "configs/faster_rcnn_ohem.yaml"; or a name from Detectron2's
            model zoo, such as "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml".

    Raises:
        InputError: there is no such file.
    """
    if os.path.isfile(config_file):
        return config_file
    for path in (CONFIGS / config_file.removeprefix("configs/"), _ZOO / config_file):
        if path.is_file():
            return str(path)
    raise InputError(
        f"there is no config file {config_file!r}, neither here nor in {CONFIGS}, where names look "
        f"like 'faster_rcnn_ohem.yaml', nor in Detectron2's model zoo ({_ZOO}), where they look "
        "like 'COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml'"
    )


def _merge_file(cfg: CfgNode, path: str) -> None:
    try:
        cfg.merge_from_file(path)
    except yaml.constructor.ConstructorError as e:
        could_run_code = "tag" in (e.problem or "")
        reason = "it has a YAML tag that could run code" if could_run_code else "it is malformed"
        raise InputError(f"{path} was not loaded, because {reason}: {_place(e)}") from None
    except RecursionError:
        raise InputError(
            f"{path} is no valid config: its {BASE_KEY} leads back to it (recursion), expected "
            "files that do not"
        ) from None
    except InputError:
        raise
    except (OSError, *_REFUSED) as e:
        raise InputError(f"{path} is no valid config: {_text(e)}") from None


def _merge_settings(cfg: CfgNode, opts: list[str]) -> None:
    for opt in opts[::2]:
        if opt.startswith("--"):
            raise InputError(f"{opt} comes after the settings, expected it before them")
        if "=" in opt:
            raise InputError(f"in the settings {opt!r}: expected KEY VALUE, as for YAML configs")
    try:
        opts[1::2] = [_fit(cfg, key, text) for key, text in zip(opts[::2], opts[1::2])]
        cfg.merge_from_list(opts)
    except _REFUSED as e:
        raise InputError(f"in the settings {' '.join(map(str, opts))!r}: {_text(e)}") from None


def _read_yaml(path: str) -> dict:
    """
    The content of a YAML file, of texts alone, whatever its tags say.

    Raises:
        InputError: it is no YAML file, or has no keys. What is in it is not told.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if "_target_:" in text:
            raise InputError(
                f"{path} was saved from a Python config, and names functions to call: expected "
                "the .py file itself, with the same settings"
            )
        content = yaml.load(text, _TextLoader)
    except OSError as e:
        raise InputError(f"{path} is no valid config: {e.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no valid config: it is no text in UTF-8") from None
    except yaml.YAMLError as e:
        raise InputError(f"{path} is no valid config: {_place(e)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no valid config: it has no keys, expected some")
    return content


def _bases(path: str, content: dict) -> list[str]:
    """What a config says it is based on."""
    bases = content.get(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) and base for base in bases):
        raise InputError(
            f"{path} is no valid config: its {BASE_KEY} is no path, expected that of a .yaml file"
        )
    return bases


def _check_base(path: str, base: str) -> None:
    """
    Make sure that what a config is based on is a config as well, and one that belongs to it: a
    config of somebody else's must not have any file read, nor any address fetched.

    Raises:
        InputError: it is none.
    """
    folder = Path(path).parent
    target = (folder / base).resolve()
    belongs = not Path(base).is_absolute() or any(
        target.is_relative_to(x.resolve()) for x in (folder, CONFIGS, _ZOO)
    )
    if "://" in base or base.startswith("~") or not belongs or target.suffix not in _YAML:
        raise InputError(
            f"{path} is no valid config: its {BASE_KEY} is {base!r}, expected the path of a .yaml "
            "file relative to it, or a file of Detectron2's model zoo"
        )
    if not target.is_file():
        raise InputError(f"{path} is no valid config: its {BASE_KEY}, {target}, does not exist")


def _place(error: yaml.YAMLError) -> str:
    """What is wrong with a file and where, without the lines that are in it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if isinstance(error, yaml.composer.ComposerError):
        problem = "it has an alias that it does not define, or defines twice"  # not its name
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    context = getattr(error, "context", None)
    words = ": ".join(x for x in (context, problem) if x)
    return f"{words or 'its characters are not those of YAML'}{where}"


def _named_heads(path: str) -> set[str]:
    """What a YAML config and those it is based on name as MODEL.ROI_HEADS.NAME."""
    content = _read_yaml(path)
    heads = set()
    for base in _bases(path, content):
        heads |= _named_heads(os.path.join(os.path.dirname(path), base))
    with suppress(KeyError, TypeError):  # most files name none
        heads.add(content["MODEL"]["ROI_HEADS"]["NAME"])
    return heads


def _fit(cfg: CfgNode, key: str, text: str) -> str:
    """The text of a setting, in the type of its key where the meaning is plain."""
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    for name in key.split("."):
        if name not in cfg:
            return text  # for yacs to refuse
        cfg = cfg[name]
    if isinstance(cfg, (tuple, list)) and not isinstance(value, (tuple, list)):
        return repr((value,))
    if isinstance(cfg, float) and type(value) is int:
        return repr(float(value))
    return text


def _text(error: Exception) -> str:
    """Without the quotes that KeyError puts around its message, and all that a node holds."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    types = r"Type mismatch \(.*? vs. <class '(.*?)'>\) with values .* for config key: (\S+)"
    if mismatch := re.fullmatch(types, text, re.DOTALL):
        value = text.rpartition(" vs. ")[2].rpartition(") for config key")[0]
        return f"{mismatch[2]} is {value!r}, of {mismatch[1]}, expected the type of its default"
    return text
