"""A config file, by its path or its name, that cannot run code."""

import logging
import os
import re
from ast import literal_eval
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from fvcore.common.config import BASE_KEY

from ..config import add_ohem_config
from ..errors import InputError, shown
from ..paths import wrong_file
from .device import usable_device
from .key_checks import all_keys, check_no_none, leaves_of
from .nearest_keys import hint, nearest_key
from .yaml_files import file_of, keys_with_points, place, read_with_bases

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
# The configs that come with the project: in the installed package, or beside it in a clone.
CONFIGS = _PACKAGE / "configs"
if not CONFIGS.is_dir():
    CONFIGS = _PACKAGE.parent / "configs"
_ZOO = (Path(model_zoo.__file__).parent / "configs").resolve()
_CASCADES = {"CascadeROIHeads", "OHEMCascadeROIHeads"}
# What some of Detectron2's samplers read of a config, whose keys lack it.
_READ_BUT_ABSENT = ("DATALOADER.RANDOM_SUBSET_RATIO", "DATASETS.TRAIN_REPEAT_FACTOR")
# From so many keys on, and of so large a share of all, a config is one that a run has saved, maybe
# with another version of Detectron2.
_MANY_KEYS, _NEARLY_ALL = 10, 0.8
_VERSIONS = ("1", "2")  # of the keys of Detectron2's configs
# What fvcore and yacs answer with to a config that they do not like.
_REFUSED = (KeyError, ValueError, AssertionError, TypeError, AttributeError)


class _SafeCfgNode(CfgNode):
    """Loads YAML safely, where Detectron2 would run what its tags say and fetch what it names."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict:
        # Detectron2's own files are as trusted as its code; one of them computes its anchors.
        trusted = Path(filename).resolve().is_relative_to(_ZOO)
        log = logging.getLogger("fvcore.common.config")
        before = log.disabled
        log.disabled = before or trusted  # fvcore warns of what it computes
        try:
            return super().load_yaml_with_base(filename, allow_unsafe=trusted)
        finally:
            log.disabled = before


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
    contents = read_with_bases(path, CONFIGS, _ZOO)
    _check_kind(cfg, contents)
    _check_nested(cfg, contents)
    _check_whole(cfg, contents, path)
    _merge_file(cfg, path, contents)
    check_no_none(cfg, defaults)
    _merge_settings(cfg, list(opts))
    check_no_none(cfg, defaults)
    may_be_cascade = cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG
    is_standard = cfg.MODEL.ROI_HEADS.NAME == "OHEMROIHeads"
    if may_be_cascade and is_standard and _named_heads(contents) & _CASCADES:
        # The one mistake of this kind that the model cannot see when it is built.
        raise InputError(
            f"MODEL.ROI_HEADS.NAME is OHEMROIHeads, but {path} is the config of a cascade: "
            "expected OHEMCascadeROIHeads"
        )
    cfg.MODEL.DEVICE = usable_device("MODEL.DEVICE", cfg.MODEL.DEVICE)
    return cfg


def find_config(config_file: str) -> str:
    """
    Tell the path of a config file.

    Args:
        config_file: a path; or a name of the project's own configs, such as
            "faster_rcnn_ohem.yaml" or "configs/faster_rcnn_ohem.yaml"; or a name from Detectron2's
            model zoo, such as "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml".

    Raises:
        InputError: there is no such file, or it is something else.
    """
    if not config_file.strip():
        raise InputError(f"--config-file is {config_file!r}, expected a path or a name")
    paths = config_file, CONFIGS / config_file.removeprefix("configs/"), _ZOO / config_file
    for path in paths:
        if os.path.isfile(path):
            return str(path)
    if os.path.lexists(config_file):
        reason = wrong_file(config_file)
        raise InputError(f"the config file {config_file!r} {reason}, expected a .yaml or .py file")
    raise InputError(
        f"there is no config file {config_file!r}, neither here nor in {CONFIGS}, where names look "
        f"like 'faster_rcnn_ohem.yaml', nor in Detectron2's model zoo ({_ZOO}), where they look "
        "like 'COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml'"
    )


def _check_kind(cfg: CfgNode, contents: dict[str, dict]) -> None:
    """Make sure that no file is of another kind, such as the annotations of COCO."""
    for file, content in contents.items():
        names = [str(name) for name in content]
        if not any(nearest_key(name.partition(".")[0], [*cfg, BASE_KEY]) for name in names):
            found = ", ".join(map(shown, names[:4])) + (", ..." if len(names) > 4 else "")
            raise InputError(
                f"{file} is no config of Detectron2: its keys are {found}, expected some of "
                "MODEL, DATASETS, SOLVER and so on"
            )


def _check_nested(cfg: CfgNode, contents: dict[str, dict]) -> None:
    """Make sure that no key of a file is written as settings of the command line are."""
    known = set(all_keys(cfg))
    for file, content in contents.items():
        for key in filter(known.__contains__, keys_with_points(content)):
            nested = " ".join(f"{name}:" for name in key.split("."))
            raise InputError(
                f"{file} is no valid config: it has {key} as one key with points, expected "
                f"{nested} each in the one before it, in lines of their own"
            )


def _check_whole(cfg: CfgNode, contents: dict[str, dict], path: str) -> None:
    """
    Make sure that no file is the first part of a config that a run has saved, as a full disk or a
    copy that was interrupted leaves it: without its end it is a config, too.
    """
    known = sorted(tuple(key.split(".")) for key, _ in leaves_of(cfg))
    for file, content in contents.items():
        keys = [tuple(key.split(".")) for key, _ in leaves_of(content)]
        if "VERSION" in content or BASE_KEY in content or len(keys) < _MANY_KEYS:
            continue
        # A run saves all keys, in the order of their names.
        up_to_last = {x for x in known if x <= keys[-1]}
        if keys == sorted(keys) and len(up_to_last & {*keys}) >= _NEARLY_ALL * len(up_to_last):
            raise InputError(
                f"{_named(file, path)} ends early, after {'.'.join(keys[-1])}: it has all keys up "
                "to there, as a config that a run has saved, which goes on to VERSION. Expected "
                "the whole file"
            )


def _merge_file(cfg: CfgNode, path: str, contents: dict[str, dict]) -> None:
    file = file_of(contents, "VERSION")
    version = None if file is None else contents[file]["VERSION"]
    if version not in (None, *_VERSIONS):
        raise InputError(
            f"{_named(str(file), path)} is no valid config: VERSION is {version!r}, expected "
            f"{_VERSIONS[-1]}, that of Detectron2's keys of today"
        )
    try:
        with _without_a_word():
            cfg.merge_from_file(path)
    except yaml.constructor.ConstructorError as e:
        could_run_code = "tag" in (e.problem or "")
        reason = "it has a YAML tag that could run code" if could_run_code else "it is malformed"
        file = e.problem_mark.name if e.problem_mark else path
        raise InputError(
            f"{_named(file, path)} was not loaded, because {reason}: {place(e)}"
        ) from None
    except RecursionError:
        raise InputError(
            f"{path} is no valid config: its keys are nested too deeply, expected less than a "
            "hundred levels"
        ) from None
    except (OSError, *_REFUSED) as e:
        text = _text(e, [*all_keys(cfg), BASE_KEY])
        # Each of these messages begins with the key, or has it as its first word that is one.
        files = (file_of(contents, key) for key in re.findall(r"[A-Z]\w*(?:\.\w+)*", text))
        named = next(filter(None, files), path)
        if isinstance(e, TypeError) and "'<=' not supported" in text:  # Detectron2's comparison
            text = f"VERSION is the text {version!r}, expected the number, without quotes"
        elif version == _VERSIONS[0]:
            key = re.search(r"[A-Z]\w*(?:\.\w+)+", text)
            text = (
                f"VERSION is {version}, whose keys have other names"
                + (f" than {key[0]}" if key else "")
                + f", expected {_VERSIONS[-1]}"
            )
        raise InputError(f"{_named(named, path)} is no valid config: {text}") from None
    if version == _VERSIONS[0]:
        logger.warning(f"{path}: VERSION is {version}, and its keys are renamed to those of today")


def _named(file: str, config: str) -> str:
    return config if file == config else f"{file}, which {config} is based on,"


@contextmanager
def _without_a_word() -> Iterator[None]:
    """Keep Detectron2 from telling, before what is wrong with a file, of its VERSION."""
    logs = [logging.getLogger(f"detectron2.config.{x}") for x in ("compat", "config")]
    for log in logs:
        log.addFilter(_never)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(_never)


def _never(_: logging.LogRecord) -> bool:
    return False


def _merge_settings(cfg: CfgNode, opts: list[str]) -> None:
    known = set(all_keys(cfg))
    check_no_file(opts)
    for i, opt in enumerate(opts[::2]):
        if opt == BASE_KEY:
            raise InputError(
                f"{BASE_KEY} is among the settings, expected it in a config file alone: it names "
                "the file that this one is based on"
            )
        if opt.startswith("--"):
            raise InputError(f"{opt} comes after the settings, expected it before them")
        is_word = "." not in opt and opt not in known and _holds_several(cfg, opts[2 * i - 2])
        if i and (is_word or re.match(r"[\d.\-([{'\"]", opt)) and "=" not in opt:
            before = " ".join(opts[2 * i - 2 : 2 * i])
            raise InputError(
                f"in the settings {shown(opt)} is in the place of a key, after {shown(before)}: "
                "expected KEY VALUE, and quotes around a value with spaces, as in "
                "INPUT.MIN_SIZE_TRAIN '(640, 800)'"
            )
        if "=" in opt or not re.fullmatch(r"\w+(\.\w+)*", opt):
            words = f"in the settings {shown(opt)}: expected KEY VALUE, as for YAML configs"
            if opt.partition(" ")[0] in known:
                words += ", in two arguments, without quotes around both"
            raise InputError(words)
        value = opts[2 * i + 1] if 2 * i + 1 < len(opts) else ""
        words = f"in the settings {shown(opt)} is followed by the key {value}, expected"
        if opt not in known and value in known:
            raise InputError(f"{words} KEY VALUE; a switch, such as --resume, has no value")
        if value in known and "." in value:  # a word such as MODEL may be meant
            raise InputError(f"{words} its value")
        if opts[2 * i + 1 : 2 * i + 2] in (["="], [":"]):
            raise InputError(
                f"in the settings {opt!r} is followed by {opts[2 * i + 1]!r}, expected KEY VALUE"
            )
    if len(opts) % 2:
        raise InputError(f"in the settings {shown(opts[-1])}: expected a value after the key")
    for key, text in zip(opts[::2], opts[1::2]):
        try:
            cfg.merge_from_list([key, _fit(cfg, key, text)])
        except _REFUSED as e:
            raise InputError(
                f"in the settings {shown(f'{key} {text}')}: {_text(e, all_keys(cfg))}"
            ) from None


def check_no_file(opts: Sequence[str]) -> None:
    """
    Make sure that settings do not begin with a config file.

    Raises:
        InputError: they do.
    """
    if opts and re.search(r"\.(ya?ml|py)$", opts[0]) and "=" not in opts[0]:
        raise InputError(
            f"{shown(opts[0])} is in the place of a setting, expected --config-file {opts[0]}"
        )


def _holds_several(cfg: CfgNode, key: str) -> bool:
    """Whether a key holds a list or a tuple."""
    node: Any = cfg
    for name in key.split("."):
        node = node.get(name) if isinstance(node, CfgNode) else None
    return isinstance(node, (list, tuple))


def _named_heads(contents: dict[str, dict]) -> set[str]:
    """What a YAML config and those it is based on name as MODEL.ROI_HEADS.NAME."""
    heads = set()
    for content in contents.values():
        with suppress(KeyError, TypeError):  # most files name none
            heads.add(content["MODEL"]["ROI_HEADS"]["NAME"])
    return heads


def _fit(cfg: CfgNode, key: str, text: str) -> str:
    """The text of a setting, in the type of its key where the meaning is plain."""
    node: Any = cfg
    for i, name in enumerate(names := key.split(".")):
        if not isinstance(node, CfgNode):
            above = ".".join(names[:i])
            raise KeyError(f"there is no {key}, since {above} is {shown(node)}, and no node")
        if name not in node:
            return text  # for yacs to refuse
        node = node[name]
    if isinstance(node, CfgNode):
        raise KeyError(f"{key} is a node, expected a key below it: {', '.join(map(str, node))}")
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = text
    if isinstance(node, (tuple, list)) and not isinstance(value, (tuple, list)):
        if isinstance(value, str) and text.lstrip().startswith(("(", "[", "{")):
            raise ValueError(
                f"{key} is {shown(text)}, which cannot be read, expected a {type(node).__name__}, "
                f"such as {shown(node)}"
            )
        return repr((value,))
    if isinstance(node, float) and type(value) is int:
        return repr(float(value))
    return text


def _as_list(value: str) -> str:
    """The tuple that may be meant by a text that stands for one value, or for several."""
    values = [value] if "://" in value else value.split(",")
    words = [x.strip(" ()[]'\"") for x in values]
    texts = [x if re.fullmatch(r"-?[\d.]+", x) else f'"{x}"' for x in words if x or not value]
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"


def _text(error: Exception, known: Iterable[str]) -> str:
    """What yacs says, without the quotes that KeyError puts around it, and without all that a node
    holds; and which key of a config may be meant."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    kinds = r"\(<class '(.*?)'> vs. <class '(.*?)'>\)"
    types = rf"Type mismatch {kinds} with values .* for config key: (\S+)"
    if mismatch := re.fullmatch(types, text, re.DOTALL):
        expected, found, key = mismatch.groups()
        value = text.rpartition(" vs. ")[2].rpartition(") for config key")[0]
        if expected.endswith("CfgNode"):
            below = (x.removeprefix(f"{key}.") for x in known if x.startswith(f"{key}."))
            names = dict.fromkeys(x.partition(".")[0] for x in below)
            expected = f"keys below it: {', '.join(names)}"
        else:
            expected = f"{expected}, as by default"
        comma = re.fullmatch(r"\(?(\d+), ?(\d+)\)?", value)
        if comma and expected.startswith("float"):
            expected += f", such as {comma[1]}.{comma[2]} with a point"
        if expected.startswith(("tuple", "list")) and found in ("str", "int", "float"):
            expected = f"a list, such as {_as_list(value)}"
        value = shown(value) if found == "str" else value
        if found == "NoneType" and expected.startswith("keys"):
            expected += ". The lines below may lack their indentation, or be comments"
        return f"{key} is {value}, of {found}, expected {expected}"
    if unknown := re.fullmatch(r"Non-existent (?:config )?key: (\S+)", text):
        if unknown[1] in _READ_BUT_ABSENT:
            return (
                f"{text}. It is for a sampler that Detectron2 offers without giving it that key, "
                "expected another DATALOADER.SAMPLER_TRAIN"
            )
        return f"{text}{hint(unknown[1], known)}"
    no_value = r"Key (\S+) with value <class '(.*?)'> is not a valid type; valid types.*"
    if invalid := re.fullmatch(no_value, text, re.DOTALL):
        key, found = invalid.groups()
        if found.startswith("datetime"):
            return f"{key} is what YAML reads as a date, expected quotes around it"
        return f"{key} is of type {found}, expected a text, a number, True, False, None or a list"
    return text
