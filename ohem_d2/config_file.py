"""A config file, by its path or by its name in Detectron2's model zoo, that cannot run code."""

import os
from pathlib import Path

import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg

from .config import add_ohem_config
from .errors import InputError

_ZOO = Path(model_zoo.__file__).resolve().parent / "configs"


class _SafeCfgNode(CfgNode):
    """Loads YAML safely, where Detectron2 would run what its tags say."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict:
        # Detectron2's own files are as trusted as its code; one of them computes its anchors.
        trusted = Path(filename).resolve().is_relative_to(_ZOO)
        return super().load_yaml_with_base(filename, allow_unsafe=trusted)


def load_config(config_file: str, opts: list[str] = ()) -> CfgNode:
    """
    Load a YAML config, with this project's keys known.

    Args:
        config_file: a path, or a name from Detectron2's model zoo, such as
            "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml".
        opts: keys and values that override those of the file, in turn. A data set may be given
            without the parentheses of a tuple.

    Returns:
        the config, not frozen. Where there is no GPU, ``MODEL.DEVICE`` is "cpu".

    Raises:
        InputError: there is no such file, or it is no valid config.
    """
    cfg = _SafeCfgNode(get_cfg())
    add_ohem_config(cfg)
    path = _find(config_file)
    try:
        cfg.merge_from_file(path)
    except yaml.constructor.ConstructorError as e:
        raise InputError(
            f"{path} was not loaded, because it has a YAML tag that could run code: {e}"
        ) from None
    except (yaml.YAMLError, KeyError, ValueError, AssertionError, OSError) as e:
        raise InputError(f"{path}: {_text(e)}") from None
    opts = list(opts)
    for i in range(0, len(opts) - 1, 2):
        if opts[i] in ("DATASETS.TRAIN", "DATASETS.TEST") and not opts[i + 1].startswith(
            ("(", "[")
        ):
            opts[i + 1] = repr((opts[i + 1],))
    try:
        cfg.merge_from_list(opts)
    except (KeyError, ValueError, AssertionError) as e:
        raise InputError(f"in the settings {' '.join(opts)!r}: {_text(e)}") from None
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def _find(config_file: str) -> str:
    if os.path.isfile(config_file):
        return config_file
    if (_ZOO / config_file).is_file():
        return str(_ZOO / config_file)
    raise InputError(
        f"there is no config file {config_file!r}, neither here nor in Detectron2's model zoo "
        f"({_ZOO}), where names look like 'COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml'"
    )


def _text(error: Exception) -> str:
    """Without the quotes that KeyError puts around its message."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
