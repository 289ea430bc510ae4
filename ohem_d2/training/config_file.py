"""A config file, by its path or its name, that cannot run code."""

import logging
import os
from ast import literal_eval
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from ..config import add_ohem_config, box_voting_options
from ..errors import InputError
from ..modeling.box_voting import BoxVotingMixin

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
# The configs that come with the project: in the installed package, or beside it in a clone.
CONFIGS = _PACKAGE / "configs"
if not CONFIGS.is_dir():
    CONFIGS = _PACKAGE.parent / "configs"
_ZOO = (Path(model_zoo.__file__).parent / "configs").resolve()
# Those of Detectron2's architectures that would ignore MODEL.ROI_HEADS.NAME.
_WITHOUT_ROI_HEADS = ("RetinaNet", "FCOS", "ProposalNetwork", "SemanticSegmentor")
_CASCADES = {"CascadeROIHeads", "OHEMCascadeROIHeads"}
# What fvcore and yacs answer with to a config that they do not like.
_REFUSED = (KeyError, ValueError, AssertionError, TypeError, AttributeError)


class _SafeCfgNode(CfgNode):
    """Loads YAML safely, where Detectron2 would run what its tags say."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict:
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
    cfg = _SafeCfgNode(get_cfg())
    add_ohem_config(cfg)
    path = find_config(config_file)
    with suppress(OSError, UnicodeDecodeError):  # which loading it will name
        if "_target_:" in Path(path).read_text(encoding="utf-8"):
            raise InputError(
                f"{path} was saved from a Python config, and names functions to call: expected "
                "the .py file itself, with the same settings"
            )
    try:
        cfg.merge_from_file(path)
    except yaml.constructor.ConstructorError as e:
        could_run_code = "tag" in (e.problem or "")
        reason = "it has a YAML tag that could run code" if could_run_code else "it is malformed"
        raise InputError(f"{path} was not loaded, because {reason}: {e}") from None
    except (yaml.YAMLError, OSError, RecursionError, *_REFUSED) as e:
        raise InputError(f"{path} is no valid config: {_text(e)}") from None
    heads = _named_heads(path)
    opts = list(opts)
    for opt in opts[::2]:
        if opt.startswith("--"):
            raise InputError(f"{opt} comes behind the settings, expected it before them")
        if "=" in opt:
            raise InputError(f"in the settings {opt!r}: expected KEY VALUE, as for YAML configs")
    try:
        opts[1::2] = [_fit(cfg, key, text) for key, text in zip(opts[::2], opts[1::2])]
        cfg.merge_from_list(opts)
    except _REFUSED as e:
        raise InputError(f"in the settings {' '.join(map(str, opts))!r}: {_text(e)}") from None
    if cfg.MODEL.ROI_HEADS.NAME not in ROI_HEADS_REGISTRY:
        known = ", ".join(name for name, _ in ROI_HEADS_REGISTRY)
        raise InputError(
            f"MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME!r}, expected one of {known}"
        )
    if box_voting_options(cfg).rounds and not issubclass(
        ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME), BoxVotingMixin
    ):
        raise InputError(
            f"TEST.BOX_VOTING.ROUNDS is {cfg.TEST.BOX_VOTING.ROUNDS}, but MODEL.ROI_HEADS.NAME is "
            f"{cfg.MODEL.ROI_HEADS.NAME}, whose boxes do not vote: expected a mining head, or "
            "BoxVotingROIHeads in place of StandardROIHeads"
        )
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture in _WITHOUT_ROI_HEADS and cfg.MODEL.ROI_HEADS.NAME.startswith("OHEM"):
        raise InputError(
            f"MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME}, but {path} is the config of a "
            f"{architecture}, which has no RoI heads: expected a two-stage model"
        )
    is_cascade = cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG and heads & _CASCADES
    if is_cascade and cfg.MODEL.ROI_HEADS.NAME == "OHEMROIHeads":
        # The one mistake of this kind that the model cannot see when it is built.
        raise InputError(
            f"MODEL.ROI_HEADS.NAME is OHEMROIHeads, but {path} is the config of a cascade: "
            "expected OHEMCascadeROIHeads"
        )
    if cfg.TEST.AUG.ENABLED and (architecture != "GeneralizedRCNN" or cfg.MODEL.KEYPOINT_ON):
        what = "that of keypoints" if cfg.MODEL.KEYPOINT_ON else f"a {architecture}"
        raise InputError(
            f"TEST.AUG.ENABLED is True, but the model is {what}, which Detectron2's test-time "
            "augmentation does not know: expected False"
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


def _named_heads(path: str) -> set[str]:
    """What a YAML config and those it is based on name as MODEL.ROI_HEADS.NAME."""
    with PathManager.open(path) as file:
        content = yaml.load(file, yaml.BaseLoader)  # of texts alone, whatever their tags say
    bases = content.get(BASE_KEY, [])
    heads = set()
    for base in [bases] if isinstance(bases, str) else bases:
        # As fvcore has it: an address, or a path relative to the file that names it.
        is_address = base.startswith(("http://", "https://"))
        base = base if is_address else os.path.join(os.path.dirname(path), os.path.expanduser(base))
        heads |= _named_heads(base)
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
    """Without the quotes that KeyError puts around its message."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
