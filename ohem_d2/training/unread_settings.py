"""
Settings of the command line that nothing looks at, because another key says so. In config files
such keys are common, as a base has them that is for several models.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads

from ..config import add_ohem_config, base_architecture, ohem_dense_options
from ..errors import shown
from .named_settings import is_known

logger = logging.getLogger(__name__)


class _Reader(NamedTuple):
    """What has to be so that some keys are read."""

    # What these keys begin with.
    read: tuple[str, ...]
    # The key that decides, whether it is so in a config, and the words for it.
    key: str
    is_so: Callable[[CfgNode], bool]
    expected: str
    training: bool = False  # whether they are of a training alone


_ARCHITECTURE, _HEADS, _BACKBONE = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.ROI_HEADS.NAME",
    "MODEL.BACKBONE.NAME",
)
_DENSE = ("RetinaNet", "FCOS")


def _architecture(read: tuple[str, ...], *names: str) -> _Reader:
    def is_so(cfg: CfgNode) -> bool:
        return base_architecture(cfg) in names

    return _Reader(read, _ARCHITECTURE, is_so, " or ".join(map(repr, names)))


def _heads(cfg: CfgNode, kind: type) -> bool:
    return issubclass(ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME), kind)


def _has_rpn(cfg: CfgNode) -> bool:
    return cfg.MODEL.PROPOSAL_GENERATOR.NAME.endswith("RPN")


def _uses_focal_loss(cfg: CfgNode) -> bool:
    mines, options = cfg.MODEL.META_ARCHITECTURE == "OHEMRetinaNet", ohem_dense_options(cfg)
    return not mines or options.focal_loss or options.start_iter > 0


def _smooth_l1(node: str, beta: str = "SMOOTH_L1_BETA") -> _Reader:
    def is_so(cfg: CfgNode) -> bool:
        return cfg.MODEL[node].BBOX_REG_LOSS_TYPE == "smooth_l1"

    key = f"MODEL.{node}.BBOX_REG_LOSS_TYPE"
    return _Reader((f"MODEL.{node}.{beta}",), key, is_so, "'smooth_l1'", True)


def _box_layers(*names: str) -> tuple[str, ...]:
    return tuple(f"MODEL.ROI_BOX_HEAD.{name}" for name in names)


# The first that is not so is named.
_READERS = (
    _architecture(("MODEL.RETINANET.",), *_DENSE),
    _architecture(("MODEL.SEM_SEG_HEAD.",), "PanopticFPN", "SemanticSegmentor"),
    _architecture(("MODEL.PANOPTIC_FPN.",), "PanopticFPN"),
    _architecture(
        ("MODEL.ROI_", "MODEL.MASK_ON", "MODEL.KEYPOINT_ON"), "GeneralizedRCNN", "PanopticFPN"
    ),
    _architecture(
        ("MODEL.RPN.", "MODEL.PROPOSAL_GENERATOR."),
        "GeneralizedRCNN", "PanopticFPN", "ProposalNetwork",
    ),
    _architecture(
        ("MODEL.ANCHOR_GENERATOR.",),
        "GeneralizedRCNN", "PanopticFPN", "ProposalNetwork", *_DENSE,
    ),
    _Reader(("MODEL.RPN.", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE"),
            "MODEL.PROPOSAL_GENERATOR.NAME", _has_rpn, "an RPN"),
    _Reader(("MODEL.ANCHOR_GENERATOR.",), "MODEL.PROPOSAL_GENERATOR.NAME",
            lambda cfg: _has_rpn(cfg) or base_architecture(cfg) in _DENSE, "an RPN"),
    _Reader(("MODEL.ANCHOR_GENERATOR.ANGLES",), "MODEL.ANCHOR_GENERATOR.NAME",
            lambda cfg: cfg.MODEL.ANCHOR_GENERATOR.NAME == "RotatedAnchorGenerator",
            "'RotatedAnchorGenerator'"),
    _Reader(("MODEL.ROI_MASK_HEAD.", "INPUT.MASK_FORMAT"), "MODEL.MASK_ON",
            lambda cfg: cfg.MODEL.MASK_ON, "True"),
    _Reader(("MODEL.ROI_KEYPOINT_HEAD.", "TEST.KEYPOINT_OKS_SIGMAS"), "MODEL.KEYPOINT_ON",
            lambda cfg: cfg.MODEL.KEYPOINT_ON, "True"),
    _Reader(("MODEL.ROI_BOX_CASCADE_HEAD.",), _HEADS, lambda cfg: _heads(cfg, CascadeROIHeads),
            "heads of a cascade, such as 'OHEMCascadeROIHeads'"),
    _Reader((*_box_layers("NAME", "NUM_", "FC_DIM", "CONV_DIM", "NORM", "TRAIN_ON_PRED_BOXES"),
             "MODEL.ROI_MASK_HEAD.POOLER_"), _HEADS, lambda cfg: not _heads(cfg, Res5ROIHeads),
            "heads with layers of their own, such as 'OHEMROIHeads'"),
    _Reader(("MODEL.FPN.",), _BACKBONE, lambda cfg: "fpn" in cfg.MODEL.BACKBONE.NAME,
            "a backbone with an FPN, such as 'build_resnet_fpn_backbone'"),
    _Reader(("MODEL.RESNETS.",), _BACKBONE,
            lambda cfg: "resnet" in cfg.MODEL.BACKBONE.NAME or _heads(cfg, Res5ROIHeads),
            "a ResNet, such as 'build_resnet_fpn_backbone'"),
    _smooth_l1("RPN"),
    _smooth_l1("ROI_BOX_HEAD"),
    _smooth_l1("RETINANET", "SMOOTH_L1_LOSS_BETA"),
    _Reader(("MODEL.RETINANET.FOCAL_LOSS_",), "MODEL.RETINANET.OHEM.FOCAL_LOSS", _uses_focal_loss,
            "True", True),
    _Reader(("SOLVER.STEPS",), "SOLVER.LR_SCHEDULER_NAME",
            lambda cfg: cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR",
            "'WarmupMultiStepLR'", True),
    _Reader(("SOLVER.GAMMA",), "SOLVER.LR_SCHEDULER_NAME",
            lambda cfg: cfg.SOLVER.LR_SCHEDULER_NAME != "WarmupCosineLR",
            "'WarmupMultiStepLR' or 'WarmupStepWithFixedGammaLR'", True),
    _Reader(("SOLVER.WARMUP_FACTOR", "SOLVER.WARMUP_METHOD"), "SOLVER.WARMUP_ITERS",
            lambda cfg: cfg.SOLVER.WARMUP_ITERS > 0, "1 or more", True),
    _Reader(("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",), "MODEL.LOAD_PROPOSALS",
            lambda cfg: cfg.MODEL.LOAD_PROPOSALS, "True", True),
    _Reader(("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",), "MODEL.LOAD_PROPOSALS",
            lambda cfg: cfg.MODEL.LOAD_PROPOSALS, "True"),
)  # fmt: skip
_RANGES = "INPUT.VALID_RANGES"
_TIMM, _TIMM_BACKBONE = "MODEL.TIMM.NAME", "build_timm_fpn_backbone"
# `warn_of_unused_mining` tells of the first three; and a model without RoI heads may not have the
# mining ones of a config in the last.
_LEFT_OUT = ("MODEL.ROI_HEADS.OHEM.", "MODEL.RPN.OHEM.", "MODEL.RETINANET.OHEM.", _HEADS)


def warn_of_unread_settings(cfg: CfgNode, training: bool, opts: Sequence[str]) -> None:
    """
    Warn of settings that change nothing. Models that are not wholly of Detectron2 and this project
    may read any key, and are left alone.

    Args:
        cfg: a YAML config, whose keys hold what they may.
        training: whether it is to be trained, not only evaluated.
        opts: the settings of the command line, keys and values in turn.
    """
    if not all(map(is_known, _modules(cfg))):
        return
    defaults = get_cfg()
    add_ohem_config(defaults)
    keys = [
        key
        for key in dict.fromkeys(opts[::2])
        if (found := _at(cfg, key)) != _at(defaults, key)
        and not (isinstance(found, (tuple, list, str)) and not found)
        and not key.startswith(_LEFT_OUT)
    ]
    for reader in _READERS:
        unread = [key for key in keys if key.startswith(reader.read)]
        if not unread or reader.is_so(cfg) or (reader.training and not training):
            continue
        _warn(cfg, unread, reader.key, reader.expected)
        keys = [key for key in keys if key not in unread]
    if not training and not cfg.TEST.AUG.ENABLED and _RANGES in keys:
        _warn(cfg, [_RANGES], "TEST.AUG.ENABLED", "True")
    in_file = _BACKBONE not in opts[::2]  # else the command line turns off what a file has
    is_meant = cfg.MODEL.TIMM.NAME and (in_file or _TIMM in keys)
    if is_meant and cfg.MODEL.BACKBONE.NAME != _TIMM_BACKBONE:
        _warn(cfg, [_TIMM], _BACKBONE, repr(_TIMM_BACKBONE))


def _warn(cfg: CfgNode, unread: list[str], key: str, expected: str) -> None:
    words = " and ".join(f"{key} is {shown(_at(cfg, key))}" for key in unread)
    logger.warning(f"{words}, to no effect: {key} is {shown(_at(cfg, key))}, expected {expected}")


def _modules(cfg: CfgNode) -> list[str]:
    """Where what a model is made of comes from."""
    model = cfg.MODEL
    names = [
        (META_ARCH_REGISTRY, model.META_ARCHITECTURE),
        (BACKBONE_REGISTRY, model.BACKBONE.NAME),
        (PROPOSAL_GENERATOR_REGISTRY, model.PROPOSAL_GENERATOR.NAME),
        (ROI_HEADS_REGISTRY, model.ROI_HEADS.NAME),
    ]
    return [str(registry.get(name).__module__) for registry, name in names if name in registry]


def _at(cfg: CfgNode, key: str) -> Any:
    for name in key.split("."):
        cfg = cfg[name]
    return cfg
