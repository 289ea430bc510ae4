"""
Values of Detectron2's own keys that cannot work, found before a training rather than in it.

Each key has a rule: a test, and the words for what is expected. What depends on several keys comes
behind. A key that is not here, such as one of a project of the user's own, is not looked at.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    StandardROIHeads,
)
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.utils.registry import Registry
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError


class Rule(NamedTuple):
    """What a key may hold: a test, and the words for it, or a registry that has the names."""

    holds: Callable[[Any], bool]
    expected: str | Registry


_LARGEST = 2**31 - 1


def _whole(low: int, high: int = _LARGEST) -> Rule:
    words = f"of {low} or more" if high == _LARGEST else f"from {low} to {high}"
    return Rule(lambda v: type(v) is int and low <= v <= high, f"an integer {words}")


def _is_number(v: Any) -> bool:
    return isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)


def _number(low: float, high: float) -> Rule:
    return Rule(lambda v: _is_number(v) and low <= v <= high, f"a number from {low:g} to {high:g}")


def _above_0(high: float) -> Rule:
    words = f"a number above 0, of {high:g} at most"
    return Rule(lambda v: _is_number(v) and 0 < v <= high, words)


def _one_of(*values: Any) -> Rule:
    words = " or ".join(", ".join(map(repr, values)).rsplit(", ", 1))
    return Rule(lambda v: any(v == x and type(v) is type(x) for x in values), words)


def _registered(registry: Registry, *others: str) -> Rule:
    return Rule(lambda v: isinstance(v, str) and (v in registry or v in others), registry)


def _names(registry: Registry) -> str:
    return ", ".join(name for name, _ in registry)


def _is_list(v: Any) -> bool:
    return OmegaConf.is_list(v) or isinstance(v, (list, tuple))


def _list_of(rule: Rule, at_least: int = 1, length: int | None = None) -> Rule:
    def holds(v: Any) -> bool:
        if not _is_list(v) or len(v) < at_least or length not in (None, len(v)):
            return False
        return all(map(rule.holds, v))

    number = f"{length} entries" if length else "at least one entry" if at_least else "entries"
    return Rule(holds, f"a list with {number}, each {rule.expected}")


def _nested(rule: Rule) -> Rule:
    """A list for each feature map, or a single list for all."""
    flat, deep = _list_of(rule), _list_of(_list_of(rule))
    return Rule(lambda v: flat.holds(v) or deep.holds(v), f"lists of numbers, each {rule.expected}")


def _optional(rule: Rule) -> Rule:
    return Rule(lambda v: v is None or rule.holds(v), f"None or {rule.expected}")


def _increasing(rule: Rule) -> Rule:
    def holds(v: Any) -> bool:
        return rule.holds(v) and all(a < b for a, b in zip(v, v[1:]))

    return Rule(holds, f"{rule.expected}, in increasing order")


def _is_device(v: Any) -> bool:
    try:
        return torch.empty(0, device=v).device.type != "meta"
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        return False


# ------------------------------------------------------------------------------------- the rules

_BOOL = Rule(lambda v: isinstance(v, bool), "True or False")
_TEXT = Rule(lambda v: isinstance(v, str) and bool(v), "a text that is not empty")
_FRACTION = _number(0, 1)
_COUNT = _whole(1)
_COUNT_OR_0 = _whole(0)
_CHANNELS = _whole(1, 65536)
_LAYERS = _whole(0, 1000)
_WEIGHT = _number(0, 1e6)  # of a loss
_DECAY = _number(0, 1000)
_RATE = _above_0(1000)
_LENGTH = _whole(0, 65536)  # of the side of an image
_NAMES_OF_DATA = _list_of(_TEXT, at_least=0)
_MAPS = _list_of(_TEXT)
_SIGMA = _list_of(_above_0(1e6))
_IOU_LABELS = _list_of(_one_of(-1, 0, 1), at_least=2)
_IOUS = _increasing(_list_of(_FRACTION))
_BOX_LOSS = _one_of("smooth_l1", "giou", "diou", "ciou")
_BOX_WEIGHTS = Rule(
    lambda v: _is_list(v) and len(v) in (4, 5) and all(map(_above_0(1e6).holds, v)),
    "4 numbers above 0 (5 for rotated boxes)",
)
_NORM = _one_of(
    "", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"
)
# Formats of images, and how many channels they have.
_FORMATS = {"BGR": 3, "RGB": 3, "L": 1, "YUV-BT.601": 3, "HSV": 3, "YCbCr": 3, "CMYK": 4, "RGBA": 4}
_FORMAT = _one_of(*_FORMATS)
_DEVICE = Rule(_is_device, "'cpu', or a device that torch has here, such as 'cuda'")
_SCHEDULE = _one_of("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
_ROI_POOLER = _one_of("ROIAlign", "ROIAlignV2", "ROIPool", "ROIAlignRotated")
_SAMPLER = _one_of(
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
)
_ROI_LAYERS = {
    "POOLER_RESOLUTION": _whole(1, 1024),
    "POOLER_SAMPLING_RATIO": _whole(0, 1024),
    "POOLER_TYPE": _ROI_POOLER,
}
_LAYERS_OF_BOX_HEAD = {"NUM_FC": _LAYERS, "FC_DIM": _CHANNELS, "NUM_CONV": _LAYERS,
                       "CONV_DIM": _CHANNELS, "NORM": _NORM}  # fmt: skip


def _below(node: str, rules: dict[str, Rule]) -> dict[str, Rule]:
    return {f"{node}.{key}": rule for key, rule in rules.items()}


RULES: dict[str, Rule] = {
    "CUDNN_BENCHMARK": _BOOL,
    "FLOAT32_PRECISION": _one_of("", "highest", "high", "medium"),
    "SEED": _whole(-_LARGEST),
    "VIS_PERIOD": _COUNT_OR_0,
    "MODEL.DEVICE": _DEVICE,
    "MODEL.META_ARCHITECTURE": _registered(META_ARCH_REGISTRY),
    "MODEL.PIXEL_MEAN": _list_of(_number(-1e6, 1e6)),
    "MODEL.PIXEL_STD": _SIGMA,
    "MODEL.WEIGHTS": Rule(lambda v: isinstance(v, str), "a path, an address or ''"),
    "MODEL.BACKBONE.NAME": _registered(BACKBONE_REGISTRY),
    "MODEL.BACKBONE.FREEZE_AT": _whole(-1, 100),
    "MODEL.PROPOSAL_GENERATOR.NAME": _registered(
        PROPOSAL_GENERATOR_REGISTRY, "PrecomputedProposals"
    ),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": _COUNT_OR_0,
    "MODEL.ANCHOR_GENERATOR.NAME": _registered(ANCHOR_GENERATOR_REGISTRY),
    "MODEL.ANCHOR_GENERATOR.SIZES": _nested(_above_0(1e6)),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _nested(_above_0(1e6)),
    "MODEL.ANCHOR_GENERATOR.ANGLES": _nested(_number(-360, 360)),
    "MODEL.ANCHOR_GENERATOR.OFFSET": Rule(
        lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"
    ),
    **_below(
        "MODEL.FPN",
        {
            "IN_FEATURES": _list_of(_TEXT, at_least=0),
            "OUT_CHANNELS": _CHANNELS,
            "NORM": _NORM,
            "FUSE_TYPE": _one_of("sum", "avg"),
        },
    ),
    **_below(
        "MODEL.RESNETS",
        {
            "DEPTH": _one_of(18, 34, 50, 101, 152),
            "OUT_FEATURES": _MAPS,
            "NUM_GROUPS": _CHANNELS,
            "NORM": _NORM,
            "WIDTH_PER_GROUP": _CHANNELS,
            "RES5_DILATION": _one_of(1, 2),
            "RES2_OUT_CHANNELS": _CHANNELS,
            "STEM_OUT_CHANNELS": _CHANNELS,
            "DEFORM_ON_PER_STAGE": _list_of(_BOOL, length=4),
            "DEFORM_NUM_GROUPS": _CHANNELS,
        },
    ),
    **_below(
        "MODEL.RPN",
        {
            "HEAD_NAME": _registered(RPN_HEAD_REGISTRY),
            "IN_FEATURES": _MAPS,
            "BOUNDARY_THRESH": _whole(-1),
            "IOU_THRESHOLDS": _IOUS,
            "IOU_LABELS": _IOU_LABELS,
            "BATCH_SIZE_PER_IMAGE": _COUNT,
            "POSITIVE_FRACTION": _FRACTION,
            "BBOX_REG_LOSS_TYPE": _BOX_LOSS,
            "BBOX_REG_LOSS_WEIGHT": _WEIGHT,
            "BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
            "SMOOTH_L1_BETA": _WEIGHT,
            "LOSS_WEIGHT": _WEIGHT,
            "PRE_NMS_TOPK_TRAIN": _COUNT,
            "PRE_NMS_TOPK_TEST": _COUNT,
            "POST_NMS_TOPK_TRAIN": _COUNT,
            "POST_NMS_TOPK_TEST": _COUNT,
            "NMS_THRESH": _FRACTION,
            "CONV_DIMS": _list_of(Rule(
                lambda v: type(v) is int and (v == -1 or _CHANNELS.holds(v)),
                "-1 or an integer from 1 to 65536",
            )),
        },
    ),
    **_below(
        "MODEL.ROI_HEADS",
        {
            "NAME": _registered(ROI_HEADS_REGISTRY),
            "NUM_CLASSES": _whole(1, 10**6),
            "IN_FEATURES": _MAPS,
            "IOU_THRESHOLDS": _IOUS,
            "IOU_LABELS": _IOU_LABELS,
            "BATCH_SIZE_PER_IMAGE": _COUNT,
            "POSITIVE_FRACTION": _FRACTION,
            "SCORE_THRESH_TEST": _number(-1, 1),
            "NMS_THRESH_TEST": _FRACTION,
        },
    ),
    **_below(
        "MODEL.ROI_BOX_HEAD",
        {
            **_ROI_LAYERS,
            **_LAYERS_OF_BOX_HEAD,
            "BBOX_REG_LOSS_TYPE": _BOX_LOSS,
            "BBOX_REG_LOSS_WEIGHT": _WEIGHT,
            "BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
            "SMOOTH_L1_BETA": _WEIGHT,
        },
    ),
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": _list_of(_BOX_WEIGHTS),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": _list_of(_FRACTION),
    **_below(
        "MODEL.ROI_MASK_HEAD",
        {
            **_ROI_LAYERS,
            "NAME": _registered(ROI_MASK_HEAD_REGISTRY),
            "NUM_CONV": _LAYERS,
            "CONV_DIM": _CHANNELS,
            "NORM": _NORM,
        },
    ),
    **_below(
        "MODEL.ROI_KEYPOINT_HEAD",
        {
            **_ROI_LAYERS,
            "NAME": _registered(ROI_KEYPOINT_HEAD_REGISTRY),
            "CONV_DIMS": _list_of(_CHANNELS),
            "NUM_KEYPOINTS": _CHANNELS,
            "MIN_KEYPOINTS_PER_IMAGE": _COUNT_OR_0,
            "LOSS_WEIGHT": _WEIGHT,
        },
    ),
    **_below(
        "MODEL.SEM_SEG_HEAD",
        {
            "NAME": _registered(SEM_SEG_HEADS_REGISTRY),
            "IN_FEATURES": _MAPS,
            "NUM_CLASSES": _whole(1, 10**6),
            "CONVS_DIM": _CHANNELS,
            "COMMON_STRIDE": _CHANNELS,
            "NORM": _NORM,
            "LOSS_WEIGHT": _WEIGHT,
        },
    ),
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": _WEIGHT,
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": _FRACTION,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": _COUNT_OR_0,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": _FRACTION,
    **_below(
        "MODEL.RETINANET",
        {
            "NUM_CLASSES": _whole(1, 10**6),
            "IN_FEATURES": _MAPS,
            "NUM_CONVS": _LAYERS,
            "IOU_THRESHOLDS": _IOUS,
            "IOU_LABELS": _IOU_LABELS,
            "PRIOR_PROB": Rule(lambda v: _is_number(v) and 0 < v < 1, "a number in (0, 1)"),
            "SCORE_THRESH_TEST": _number(-1, 1),
            "TOPK_CANDIDATES_TEST": _COUNT,
            "NMS_THRESH_TEST": _FRACTION,
            "BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
            "FOCAL_LOSS_GAMMA": _number(0, 1000),
            "FOCAL_LOSS_ALPHA": _number(-1, 1),
            "SMOOTH_L1_LOSS_BETA": _WEIGHT,
            "BBOX_REG_LOSS_TYPE": _BOX_LOSS,
            "NORM": _NORM,
        },
    ),
    **_below(
        "INPUT",
        {
            "MIN_SIZE_TRAIN": _list_of(_LENGTH),
            "MIN_SIZE_TRAIN_SAMPLING": _one_of("choice", "range"),
            "MAX_SIZE_TRAIN": _COUNT,
            "MIN_SIZE_TEST": _LENGTH,
            "MAX_SIZE_TEST": _COUNT,
            "RANDOM_FLIP": _one_of("horizontal", "vertical", "none"),
            "CROP.TYPE": _one_of("relative", "relative_range", "absolute", "absolute_range"),
            "CROP.SIZE": _list_of(_above_0(1e6), length=2),
            "FORMAT": _FORMAT,
            "MASK_FORMAT": _one_of("polygon", "bitmask"),
        },
    ),
    **_below(
        "DATASETS",
        {
            "TRAIN": _NAMES_OF_DATA,
            "TEST": _NAMES_OF_DATA,
            "PROPOSAL_FILES_TRAIN": _NAMES_OF_DATA,
            "PROPOSAL_FILES_TEST": _NAMES_OF_DATA,
            "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": _COUNT,
            "PRECOMPUTED_PROPOSAL_TOPK_TEST": _COUNT,
        },
    ),
    "DATALOADER.NUM_WORKERS": _whole(0, 1024),
    "DATALOADER.SAMPLER_TRAIN": _SAMPLER,
    "DATALOADER.REPEAT_THRESHOLD": _number(0, 1),
    "TEST.EXPECTED_RESULTS": Rule(
        lambda v: _is_list(v) and all(
            _is_list(x) and len(x) == 4 and all(isinstance(y, str) for y in x[:2])
            and all(map(_is_number, x[2:])) for x in v
        ),
        "a list of results, each [task, metric, value, tolerance]",
    ),
    "TEST.EVAL_PERIOD": _COUNT_OR_0,
    "TEST.KEYPOINT_OKS_SIGMAS": _list_of(_above_0(1e6), at_least=0),
    "TEST.DETECTIONS_PER_IMAGE": Rule(
        lambda v: v == -1 or _COUNT.holds(v), "an integer of 1 or more, or -1 for all"
    ),
    "TEST.AUG.MIN_SIZES": _list_of(_whole(1, 65536)),
    "TEST.AUG.MAX_SIZE": _COUNT,
    "TEST.PRECISE_BN.NUM_ITER": _COUNT,
}  # fmt: skip

TRAINING_RULES: dict[str, Rule] = _below(
    "SOLVER",
    {
        "LR_SCHEDULER_NAME": _SCHEDULE,
        "MAX_ITER": _COUNT,
        "BASE_LR": _RATE,
        "BASE_LR_END": _number(0, 1000),
        "MOMENTUM": Rule(lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
        "WEIGHT_DECAY": _DECAY,
        "WEIGHT_DECAY_NORM": _DECAY,
        "WEIGHT_DECAY_BIAS": _optional(_DECAY),
        "BIAS_LR_FACTOR": _number(0, 1000),
        "GAMMA": _above_0(1),
        "STEPS": _increasing(_list_of(_COUNT_OR_0, at_least=0)),
        "NUM_DECAYS": _COUNT,
        "WARMUP_FACTOR": _FRACTION,
        "WARMUP_ITERS": _COUNT_OR_0,
        "WARMUP_METHOD": _one_of("linear", "constant"),
        "CHECKPOINT_PERIOD": _COUNT,
        "IMS_PER_BATCH": _whole(1, 65536),
        "REFERENCE_WORLD_SIZE": _COUNT_OR_0,
        "CLIP_GRADIENTS.CLIP_TYPE": _one_of("value", "norm"),
        "CLIP_GRADIENTS.CLIP_VALUE": _above_0(1e6),
        "CLIP_GRADIENTS.NORM_TYPE": Rule(
            lambda v: isinstance(v, (int, float)) and v > 0, "a number above 0, or inf"
        ),
    },
)

# The counterparts in Python configs. Each of their keys may hold what is built later.
_LAZY_HEADS = {
    "num_classes": _whole(1, 10**6),
    "batch_size_per_image": _COUNT,
    "positive_fraction": _FRACTION,
    "box_predictor.test_score_thresh": _number(-1, 1),
    "box_predictor.test_nms_thresh": _FRACTION,
    "box_predictor.test_topk_per_image": RULES["TEST.DETECTIONS_PER_IMAGE"],
    "box_predictor.num_classes": _whole(1, 10**6),
}
_LAZY_RPN = {
    "batch_size_per_image": _COUNT,
    "positive_fraction": _FRACTION,
    "nms_thresh": _FRACTION,
    "pre_nms_topk": _list_of(_COUNT, length=2),
    "post_nms_topk": _list_of(_COUNT, length=2),
    "min_box_size": _number(0, 1e6),
}
LAZY_RULES: dict[str, Rule] = {
    "train.device": _DEVICE,
    "train.init_checkpoint": RULES["MODEL.WEIGHTS"],
    "train.seed": RULES["SEED"],
    "train.cudnn_benchmark": _BOOL,
    "train.float32_precision": RULES["FLOAT32_PRECISION"],
    "dataloader.test.num_workers": RULES["DATALOADER.NUM_WORKERS"],
    "dataloader.test.batch_size": _COUNT,
    "dataloader.train.mapper.image_format": _FORMAT,
    "dataloader.train.mapper.instance_mask_format": RULES["INPUT.MASK_FORMAT"],
    "model.input_format": _optional(_FORMAT),
    "model.vis_period": _COUNT_OR_0,
    "model.pixel_mean": RULES["MODEL.PIXEL_MEAN"],
    "model.pixel_std": RULES["MODEL.PIXEL_STD"],
    **_below("model.roi_heads", _LAZY_HEADS),
    **_below("model.proposal_generator", _LAZY_RPN),
}
LAZY_TRAINING_RULES: dict[str, Rule] = {
    "train.max_iter": _COUNT,
    "train.eval_period": _COUNT_OR_0,
    "train.log_period": _COUNT,
    "train.amp.enabled": _BOOL,
    "train.checkpointer.period": _COUNT,
    "train.checkpointer.max_to_keep": _optional(_COUNT),
    "dataloader.train.total_batch_size": _whole(1, 65536),
    "dataloader.train.num_workers": RULES["DATALOADER.NUM_WORKERS"],
    "dataloader.train.aspect_ratio_grouping": _BOOL,
    "optimizer.lr": _RATE,
    "optimizer.momentum": TRAINING_RULES["SOLVER.MOMENTUM"],
    "optimizer.weight_decay": _DECAY,
    "optimizer.params.base_lr": _optional(_RATE),
    "optimizer.params.weight_decay_norm": _optional(_DECAY),
    "lr_multiplier.warmup_length": _FRACTION,
    "lr_multiplier.warmup_factor": _FRACTION,
    "lr_multiplier.warmup_method": _one_of("linear", "constant"),
}
# How long a value may be in a message.
_SHOWN = 100


def check_keys(cfg: CfgNode, training: bool = True) -> None:
    """
    Make sure that the keys of a YAML config hold what Detectron2 can work with.

    Args:
        cfg: the config.
        training: whether it is to be trained, not only evaluated.

    Raises:
        InputError: a key does not.
    """
    rules = {**RULES, **(TRAINING_RULES if training else {})}
    unused = _unused(cfg)
    for key, rule in rules.items():
        value = _at(cfg, key)
        if value is not _ABSENT and not key.startswith(unused) and not rule.holds(value):
            raise _wrong(key, value, rule.expected)
    for key, found, expected in _together(cfg):
        raise _wrong(key, found, expected)
    if training:
        for key, found, expected in _together_in_training(cfg):
            raise _wrong(key, found, expected)


def check_lazy_keys(cfg: DictConfig, training: bool = True) -> None:
    """
    Make sure that the keys of a Python config hold what Detectron2 can work with. Those that it
    does not have, or that hold something to build, are not looked at.

    Args:
        cfg: the config.
        training: whether it is to be trained, not only evaluated.

    Raises:
        InputError: a key does not.
    """
    rules = {**LAZY_RULES, **(LAZY_TRAINING_RULES if training else {})}
    for key, rule in rules.items():
        try:
            value = OmegaConf.select(cfg, key, default=_ABSENT)
        except Exception as e:  # of an interpolation, or of what lies above
            raise InputError(f"{key} cannot be read: {e}") from e
        if value is not _ABSENT and not OmegaConf.is_dict(value) and not rule.holds(value):
            raise _wrong(key, OmegaConf.to_object(value) if OmegaConf.is_list(value) else value,
                         rule.expected)  # fmt: skip
    lengths = {len(cfg.model[k]) for k in ("pixel_mean", "pixel_std") if k in cfg.model}
    if len(lengths) > 1:
        raise InputError("model.pixel_mean and model.pixel_std differ in length, expected as many")


def check_structure(cfg: CfgNode, known: CfgNode, above: str = "") -> None:
    """
    Make sure that a config still has the nodes and values of the defaults: YAML takes a key without
    a value for None, which would be put in place of a node.

    Args:
        cfg: a config that has just been merged.
        known: the defaults.
        above: what the names of these keys begin with.

    Raises:
        InputError: a node is no node any more, or a value is None that may not be.
    """
    for name, default in known.items():
        value, key = cfg.get(name), f"{above}{name}"
        if isinstance(default, CfgNode):
            if not isinstance(value, CfgNode):
                raise _wrong(key, value, f"keys below it, such as {next(iter(default))}")
            check_structure(value, default, f"{key}.")
        elif value is None and default is not None:
            raise _wrong(key, None, f"a value, such as {default!r}")


_ABSENT = object()


def _at(cfg: CfgNode, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(cfg, CfgNode) or name not in cfg:
            return _ABSENT
        cfg = cfg[name]
    return cfg


def _leaves(cfg: CfgNode, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in cfg.items():
        key = f"{above}{name}"
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _wrong(key: str, found: object, expected: str | Registry) -> InputError:
    if isinstance(expected, Registry):
        # Asked now, since a project of the user's own adds names.
        expected = f"one of {_names(expected)}"
    text = repr(found)
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return InputError(f"{key} is {text}, expected {expected}")


def _unused(cfg: CfgNode) -> tuple[str, ...]:
    """What the keys begin with that nothing in the model looks at."""
    used = {
        "MODEL.ROI_MASK_HEAD.": cfg.MODEL.MASK_ON,
        "MODEL.ROI_KEYPOINT_HEAD.": cfg.MODEL.KEYPOINT_ON,
        "MODEL.RETINANET.": cfg.MODEL.META_ARCHITECTURE == "RetinaNet",
        "MODEL.SEM_SEG_HEAD.": cfg.MODEL.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"),
        "MODEL.PANOPTIC_FPN.": cfg.MODEL.META_ARCHITECTURE == "PanopticFPN",
    }
    return tuple(prefix for prefix, is_used in used.items() if not is_used)


# -------------------------------------------------------------------- what depends on several keys


def _together(cfg: CfgNode) -> Iterator[tuple[str, object, str]]:
    """Of each key that does not go with another: its name, what it is, and what is expected."""
    model, data = cfg.MODEL, cfg.INPUT
    channels = _FORMATS[data.FORMAT]
    for name in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(model[name]) != channels:
            yield f"MODEL.{name}", model[name], (
                f"{channels} numbers, since INPUT.FORMAT is {data.FORMAT!r}"
            )
    if data.MIN_SIZE_TRAIN_SAMPLING == "range" and len(data.MIN_SIZE_TRAIN) != 2:
        yield "INPUT.MIN_SIZE_TRAIN", data.MIN_SIZE_TRAIN, (
            "2 numbers, since INPUT.MIN_SIZE_TRAIN_SAMPLING is 'range'"
        )
    if data.CROP.ENABLED:
        relative = data.CROP.TYPE.startswith("relative")
        if any(x > 1 if relative else type(x) is not int for x in data.CROP.SIZE):
            yield "INPUT.CROP.SIZE", data.CROP.SIZE, (
                f"{'numbers of 1 at most' if relative else 'integers'}, since INPUT.CROP.TYPE is "
                f"{data.CROP.TYPE!r}"
            )
    for node in ("RPN", "ROI_HEADS", "RETINANET"):
        labels, ious = model[node].IOU_LABELS, model[node].IOU_THRESHOLDS
        if len(labels) != len(ious) + 1:
            yield f"MODEL.{node}.IOU_LABELS", labels, (
                f"{len(ious) + 1} labels, one more than MODEL.{node}.IOU_THRESHOLDS has"
            )
    if model.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork"):
        yield from _of_two_stages(cfg)
    if model.BACKBONE.NAME.startswith("build_resnet"):
        resnets = model.RESNETS
        if resnets.DEPTH < 50:
            words = f"since MODEL.RESNETS.DEPTH is {resnets.DEPTH}"
            if resnets.RES2_OUT_CHANNELS != 64:
                yield "MODEL.RESNETS.RES2_OUT_CHANNELS", resnets.RES2_OUT_CHANNELS, f"64, {words}"
            if any(resnets.DEFORM_ON_PER_STAGE):
                yield "MODEL.RESNETS.DEFORM_ON_PER_STAGE", resnets.DEFORM_ON_PER_STAGE, (
                    f"[False, False, False, False], {words}"
                )
            if resnets.NUM_GROUPS != 1:
                yield "MODEL.RESNETS.NUM_GROUPS", resnets.NUM_GROUPS, f"1, {words}"
            if resnets.RES5_DILATION != 1:
                yield "MODEL.RESNETS.RES5_DILATION", resnets.RES5_DILATION, f"1, {words}"
        if any(resnets.DEFORM_ON_PER_STAGE) and model.DEVICE == "cpu":
            yield "MODEL.RESNETS.DEFORM_ON_PER_STAGE", resnets.DEFORM_ON_PER_STAGE, (
                "[False, False, False, False] without a GPU: Detectron2 has deformable "
                "convolutions on GPUs only"
            )
    sigmas, number = cfg.TEST.KEYPOINT_OKS_SIGMAS, model.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if model.KEYPOINT_ON and sigmas and len(sigmas) != number:
        yield "TEST.KEYPOINT_OKS_SIGMAS", sigmas, (
            f"{number} numbers, as MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS says"
        )


def _of_two_stages(cfg: CfgNode) -> Iterator[tuple[str, object, str]]:
    model = cfg.MODEL
    rpn, anchors, heads = model.RPN, model.ANCHOR_GENERATOR, model.ROI_HEADS
    if model.PROPOSAL_GENERATOR.NAME in ("RPN", "RRPN"):
        for name in ("SIZES", "ASPECT_RATIOS"):
            values = anchors[name]
            number = len(values) if _is_list(values[0]) else 1
            if number not in (1, len(rpn.IN_FEATURES)):
                yield f"MODEL.ANCHOR_GENERATOR.{name}", values, (
                    f"1 list, or one for each of the {len(rpn.IN_FEATURES)} of "
                    "MODEL.RPN.IN_FEATURES"
                )
    elif not model.LOAD_PROPOSALS:
        yield "MODEL.LOAD_PROPOSALS", False, (
            "True, since MODEL.PROPOSAL_GENERATOR.NAME is 'PrecomputedProposals'"
        )
    if model.META_ARCHITECTURE == "ProposalNetwork":
        return
    head = ROI_HEADS_REGISTRY.get(heads.NAME)
    if issubclass(head, StandardROIHeads) and model.ROI_BOX_HEAD.NAME not in ROI_BOX_HEAD_REGISTRY:
        yield "MODEL.ROI_BOX_HEAD.NAME", model.ROI_BOX_HEAD.NAME, (
            f"one of {_names(ROI_BOX_HEAD_REGISTRY)}"
        )
    if issubclass(head, CascadeROIHeads):
        cascade = model.ROI_BOX_CASCADE_HEAD
        if len(cascade.IOUS) != len(cascade.BBOX_REG_WEIGHTS):
            yield "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", cascade.IOUS, (
                f"{len(cascade.BBOX_REG_WEIGHTS)} numbers, one for each of "
                "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"
            )
        if list(cascade.IOUS[:1]) != list(heads.IOU_THRESHOLDS):
            yield "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", cascade.IOUS, (
                f"{heads.IOU_THRESHOLDS[0]} as the first, as MODEL.ROI_HEADS.IOU_THRESHOLDS says"
            )
        if not model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
            yield "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False, "True for a cascade"
    if len(set(heads.IN_FEATURES)) != len(heads.IN_FEATURES):
        yield "MODEL.ROI_HEADS.IN_FEATURES", heads.IN_FEATURES, "each feature map once"


def _together_in_training(cfg: CfgNode) -> Iterator[tuple[str, object, str]]:
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and solver.BASE_LR_END > solver.BASE_LR:
        yield "SOLVER.BASE_LR_END", solver.BASE_LR_END, f"{solver.BASE_LR} at most, SOLVER.BASE_LR"
    if solver.NESTEROV and not solver.MOMENTUM:
        yield "SOLVER.MOMENTUM", solver.MOMENTUM, "a number above 0, since SOLVER.NESTEROV is True"
    workers = solver.REFERENCE_WORLD_SIZE
    if workers and solver.IMS_PER_BATCH % workers:
        yield "SOLVER.IMS_PER_BATCH", solver.IMS_PER_BATCH, (
            f"a multiple of {workers}, SOLVER.REFERENCE_WORLD_SIZE"
        )


def named_keys(cfg: Any, error: Exception) -> Sequence[str]:
    """
    The keys of a config that hold what an error quotes.

    Args:
        cfg: a `CfgNode`, or a Python config.
        error: what building the model has raised.
    """
    quoted = {str(x) for x in error.args if isinstance(x, (str, int)) and len(str(x)) < _SHOWN}
    quoted |= {part for x in quoted for part in x.split("'")[1::2]}
    leaves = _leaves(cfg) if isinstance(cfg, CfgNode) else _lazy_leaves(cfg)
    return [
        key for key, value in leaves
        if any(isinstance(x, str) and x in quoted for x in ([value] if not _is_list(value) else value))
    ]  # fmt: skip


def _lazy_leaves(cfg: DictConfig, above: str = "") -> Iterator[tuple[str, Any]]:
    for name in cfg:
        key = f"{above}{name}"
        if OmegaConf.is_interpolation(cfg, name) or OmegaConf.is_missing(cfg, name):
            continue
        value = cfg[name]
        if OmegaConf.is_dict(value):
            yield from _lazy_leaves(value, f"{key}.")
        else:
            yield key, value
