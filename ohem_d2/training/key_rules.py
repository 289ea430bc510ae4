"""What each of Detectron2's own keys may hold, in both forms of a config."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from detectron2.utils.registry import Registry
from omegaconf import OmegaConf

from ..config import is_number


class Rule(NamedTuple):
    """What a key may hold: a test, and the words for it, or a registry that has the names."""

    holds: Callable[[Any], bool]
    expected: str | Registry


LARGEST = 2**31 - 1
LARGEST_SEED = 2**32 - 1  # as numpy has it
_SCALARS = (bool, int, float, str)


def _whole(low: int, high: int = LARGEST) -> Rule:
    words = f"of {low} or more" if high == LARGEST else f"from {low} to {high}"
    return Rule(lambda v: type(v) is int and low <= v <= high, f"an integer {words}")


def _number(low: float, high: float) -> Rule:
    return Rule(lambda v: is_number(v) and low <= v <= high, f"a number from {low:g} to {high:g}")


def _number_below(low: float, high: float) -> Rule:
    words = f"a number from {low:g} to below {high:g}"
    return Rule(lambda v: is_number(v) and low <= v < high, words)


def _above_0(high: float) -> Rule:
    words = f"a number above 0, of {high:g} at most"
    return Rule(lambda v: is_number(v) and 0 < v <= high, words)


def _one_of(*values: Any) -> Rule:
    words = " or ".join(", ".join(map(repr, values)).rsplit(", ", 1))
    return Rule(lambda v: any(v == x and type(v) is type(x) for x in values), words)


def _registered(registry: Registry, *others: str) -> Rule:
    return Rule(lambda v: isinstance(v, str) and (v in registry or v in others), registry)


def extends(registry: Registry, name: str, kind: type) -> bool:
    """Whether a registry has a class of this name that is based on another."""
    return name in registry and issubclass(registry.get(name), kind)


def is_list(v: Any) -> bool:
    """Whether a value is a list in either form of a config."""
    return OmegaConf.is_list(v) or isinstance(v, (list, tuple))


def _list_of(rule: Rule, at_least: int = 1, length: int | None = None) -> Rule:
    def holds(v: Any) -> bool:
        if not is_list(v) or len(v) < at_least or length not in (None, len(v)):
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
        return rule.holds(v) and all(a < b for a, b in pairwise(v))

    return Rule(holds, f"{rule.expected}, in increasing order")


def _is_device(v: Any) -> bool:
    try:
        return torch.empty(0, device=v).device.type != "meta"
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        return False


# ------------------------------------------------------------------------------------- the rules

_BOOL = Rule(lambda v: isinstance(v, bool), "True or False")
_TEXT = Rule(lambda v: isinstance(v, str) and bool(v), "a text that is not empty")
_SCORE = _number_below(-1, 1)  # of 1, no detection is left
_FRACTION = _number(0, 1)
_COUNT = _whole(1)
_COUNT_OR_0 = _whole(0)
_CHANNELS = _whole(1, 65536)
_LAYERS = _whole(0, 1000)
_WEIGHT = _number(0, 1e6)  # of a loss
_DECAY = _number(0, 1000)
_RATE = _above_0(1000)
# Of the side of an image, in pixels: less shows nothing, and more does not fit into memory.
SMALLEST, _LARGEST_SIDE = 16, 16384
_SIDE = _whole(SMALLEST, _LARGEST_SIDE)
_SIDE_OR_0 = Rule(lambda v: (type(v) is int and v == 0) or _SIDE.holds(v), f"0 or {_SIDE.expected}")
_LIMIT = _whole(SMALLEST)
_NAMES_OF_DATA = _list_of(_TEXT, at_least=0)
_MAPS = _list_of(_TEXT)
_SIGMA = _list_of(_above_0(1e6))
_IOU_LABELS = Rule(
    lambda v: is_list(v) and len(v) >= 2 and all(x in (-1, 0) for x in v[:-1]) and v[-1] == 1,
    "a list of 0 (background) and -1 (ignored) that ends with 1 (foreground)",
)
_IOUS = _increasing(_list_of(_FRACTION))
_BOX_LOSS = _one_of("smooth_l1", "giou", "diou", "ciou")
_BOX_WEIGHTS = Rule(
    lambda v: is_list(v) and len(v) in (4, 5) and all(map(_above_0(1e6).holds, v)),
    "4 numbers above 0 (5 for rotated boxes)",
)
_NORM = _one_of(
    "", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"
)
# Formats of images, and how many channels they have.
FORMATS = {"BGR": 3, "RGB": 3, "L": 1, "YUV-BT.601": 3, "HSV": 3, "YCbCr": 3, "CMYK": 4, "RGBA": 4}
_FORMAT = _one_of(*FORMATS)
_ANCHORS = _nested(Rule(_number(1, 1e6).holds, "a number of pixels, from 1 to 1e+06"))
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
    # A bin takes as many samples as its square: more make a step last for minutes.
    "POOLER_SAMPLING_RATIO": _whole(0, 16),
    "POOLER_TYPE": _ROI_POOLER,
}
_LAYERS_OF_BOX_HEAD = {"NUM_FC": _LAYERS, "FC_DIM": _CHANNELS, "NUM_CONV": _LAYERS,
                       "CONV_DIM": _CHANNELS, "NORM": _NORM}  # fmt: skip


def _below(node: str, rules: dict[str, Rule]) -> dict[str, Rule]:
    return {f"{node}.{key}": rule for key, rule in rules.items()}


RULES: dict[str, Rule] = {
    "CUDNN_BENCHMARK": _BOOL,
    "FLOAT32_PRECISION": _one_of("", "highest", "high", "medium"),
    "SEED": _whole(-LARGEST, LARGEST_SEED),
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
    "MODEL.ANCHOR_GENERATOR.SIZES": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _nested(_above_0(1e6)),
    "MODEL.ANCHOR_GENERATOR.ANGLES": _nested(_number(-360, 360)),
    "MODEL.ANCHOR_GENERATOR.OFFSET": Rule(
        lambda v: is_number(v) and 0 <= v < 1, "a number in [0, 1)"
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
            "SCORE_THRESH_TEST": _SCORE,
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
            "FED_LOSS_FREQ_WEIGHT_POWER": _number(-1000, 1000),
            "FED_LOSS_NUM_CLASSES": _COUNT,
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
            "IGNORE_VALUE": _whole(-LARGEST),
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
            "PRIOR_PROB": Rule(lambda v: is_number(v) and 0 < v < 1, "a number in (0, 1)"),
            "SCORE_THRESH_TEST": _SCORE,
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
            "MIN_SIZE_TRAIN": _list_of(_SIDE_OR_0),
            "MIN_SIZE_TRAIN_SAMPLING": _one_of("choice", "range"),
            "MAX_SIZE_TRAIN": _LIMIT,
            "MIN_SIZE_TEST": _SIDE_OR_0,
            "MAX_SIZE_TEST": _LIMIT,
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
        lambda v: is_list(v) and all(
            is_list(x) and len(x) == 4 and all(isinstance(y, str) for y in x[:2])
            and all(map(is_number, x[2:])) and x[3] >= 0 for x in v
        ),
        "a list of results, each [task, metric, value, tolerance], the tolerance 0 or more",
    ),
    "TEST.EVAL_PERIOD": _COUNT_OR_0,
    "TEST.KEYPOINT_OKS_SIGMAS": _list_of(_above_0(1e6), at_least=0),
    "TEST.DETECTIONS_PER_IMAGE": Rule(
        lambda v: v == -1 or _COUNT.holds(v), "an integer of 1 or more, or -1 for all"
    ),
    "TEST.AUG.MIN_SIZES": _list_of(_SIDE),
    "TEST.AUG.MAX_SIZE": _LIMIT,
    "TEST.PRECISE_BN.NUM_ITER": _COUNT,
}  # fmt: skip

TRAINING_RULES: dict[str, Rule] = _below(
    "SOLVER",
    {
        "LR_SCHEDULER_NAME": _SCHEDULE,
        "MAX_ITER": _COUNT,
        "BASE_LR": _RATE,
        "BASE_LR_END": _number(0, 1000),
        "MOMENTUM": Rule(lambda v: is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
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

_NODE = Rule(lambda v: v is not None and not isinstance(v, _SCALARS), "what is to be built")
_LAZY_NAMES = Rule(
    lambda v: _TEXT.holds(v) or _NAMES_OF_DATA.holds(v),
    "the name of a data set, or a list of names",
)
# The counterparts in Python configs. Each of their keys may hold what is built later.
_LAZY_HEADS = {
    "num_classes": _whole(1, 10**6),
    "batch_size_per_image": _COUNT,
    "positive_fraction": _FRACTION,
    "box_predictor.test_score_thresh": _SCORE,
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
    "model": _NODE,
    "dataloader": _NODE,
    "dataloader.test": _NODE,
    "dataloader.test.dataset.names": _LAZY_NAMES,
    "dataloader.train.dataset.names": _LAZY_NAMES,
    "dataloader.test.dataset.proposal_files": _optional(_NAMES_OF_DATA),
    "dataloader.train.dataset.proposal_files": _optional(_NAMES_OF_DATA),
    "dataloader.evaluator": _NODE,
    "train": _NODE,
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
    "model.anchor_generator.sizes": _ANCHORS,
    "model.proposal_generator.anchor_generator.sizes": _ANCHORS,
    **_below("model.roi_heads", _LAZY_HEADS),
    **_below("model.proposal_generator", _LAZY_RPN),
}
LAZY_TRAINING_RULES: dict[str, Rule] = {
    "dataloader.train": _NODE,
    "lr_multiplier": _NODE,
    "optimizer": _NODE,
    "optimizer.params": _NODE,
    "train.amp": _NODE,
    "train.checkpointer": _NODE,
    "train.ddp": _NODE,
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
