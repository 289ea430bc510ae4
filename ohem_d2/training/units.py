"""Numbers that are in another unit than the one Detectron2 takes them in."""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.modeling import META_ARCH_REGISTRY
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError, shown
from .key_rules import is_list
from .lazy_targets import target_of

logger = logging.getLogger(__name__)

# Those whose values Detectron2 reads on a scale of 0 to 1; of all others, on that of 0 to 255.
_FORMATS_OF_1 = ("YUV-BT.601",)
# Of ImageNet, by the order of the channels.
_MEANS = {"BGR": (103.53, 116.28, 123.675), "RGB": (123.675, 116.28, 103.53)}
# Anchors that are all smaller than this many pixels are rather multiples of something.
_SMALLEST_ANCHOR = 8
# Of a side of an image, the smallest box that is kept is a large part from one over this on.
_LARGE_PART = 4
# Few images are longer than this many times their shorter side.
_LONGEST = 3
_WITH_PROPOSALS = ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork")
# The first decides what an image is resized to, which the others leave as it is.
_KEEP_SIZE = (T.ResizeShortestEdge, T.RandomFlip, T.RandomBrightness, T.RandomContrast,
              T.RandomSaturation, T.RandomLighting)  # fmt: skip
_BOX_WEIGHTS = (
    "MODEL.RPN.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.RETINANET.BBOX_REG_WEIGHTS",
)


def check_units(cfg: CfgNode | DictConfig, training: bool) -> None:
    """
    Refuse or warn of numbers that are taken for something else than they seem to be.

    Args:
        cfg: a config in either form, whose keys hold what they may.
        training: whether it is to be trained, not only evaluated: weights that were trained with
            such numbers are evaluated with the same.

    Raises:
        InputError: what is trained would be of no use.
    """
    for fault in _of_pixels(cfg, training):
        if training:
            raise InputError(fault)
        logger.warning(fault)
    _check_smallest_box(cfg, training)
    for warning in _of_channels(cfg, training):
        logger.warning(warning)
    key, sizes = _anchors(cfg)
    if sizes and max(sizes) < _SMALLEST_ANCHOR:
        logger.warning(
            f"{key} has anchors of {max(sizes):g} pixels at most: they are sides in pixels of the "
            "image as the model sees it, not multiples of a stride"
        )
    for split in ("train", "test") if training else ("test",):
        where, sides = _short_sides(cfg, split)
        if sides and sizes and min(sizes) > _LONGEST * max(sides):
            logger.warning(
                f"{key} has anchors of {min(sizes):g} pixels at least, more than {_LONGEST} times "
                f"the shorter side of images by {where} ({max(sides)}): no object is as large, "
                "expected some that are smaller than the images"
            )
            break
    of_levels = [max(x) for x in _at(cfg, key) if is_list(x) and len(x)] if key else []
    if _are_fine_to_coarse(cfg) and of_levels[1:] and of_levels[0] > of_levels[-1]:
        logger.warning(
            f"{key} has anchors of {of_levels[0]:g} pixels on the finest feature map, and of "
            f"{of_levels[-1]:g} on the coarsest, expected the smallest on the finest"
        )
    for key, weights in _box_weights(cfg):
        if all(x < 1 for x in weights):
            logger.warning(
                f"{key} is {shown(weights)}, numbers below 1, by which the differences between "
                "boxes are multiplied: they may be standard deviations, of which Detectron2 takes "
                "one over each, such as 10 for 0.1"
            )


def _at(cfg: CfgNode | DictConfig, key: str) -> Any:
    """What a config in either form has there, or None."""
    if not isinstance(cfg, CfgNode):
        return OmegaConf.select(cfg, key)
    node: Any = cfg
    for name in key.split("."):
        node = node[name]
    return node


def _form_of_images(cfg: CfgNode | DictConfig, training: bool) -> tuple[str, Any]:
    """The key of how images are read, and what it says; None where Detectron2 does not read them,
    or does not take them."""
    if isinstance(cfg, CfgNode):
        key, form = "INPUT.FORMAT", cfg.INPUT.FORMAT
        architecture: Any = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    else:
        above = f"dataloader.{'train' if training else 'test'}.mapper"
        mapper = OmegaConf.select(cfg, above)
        is_read = target_of(mapper) is DatasetMapper
        key, form = f"{above}.image_format", mapper.get("image_format") if is_read else None
        architecture = target_of(cfg.model)
    is_taken = getattr(architecture, "__module__", "").startswith(("detectron2.", "ohem_d2."))
    return key, form if is_taken else None


def _of_channels(cfg: CfgNode | DictConfig, training: bool) -> Iterator[str]:
    """The means of ImageNet in the order of other channels than the images have."""
    key_of_form, form = _form_of_images(cfg, training)
    key = "MODEL.PIXEL_MEAN" if isinstance(cfg, CfgNode) else "model.pixel_mean"
    means = _at(cfg, key)
    other = {"BGR": "RGB", "RGB": "BGR"}.get(form)
    if other is None or not is_list(means) or len(means) != len(_MEANS[other]):
        return
    if all(abs(x - y) < 1 for x, y in zip(means, _MEANS[other])):
        yield (
            f"{key} is {shown([*means])}, ImageNet's means in the order of {other}, but "
            f"{key_of_form} is {form!r}: expected {shown([*means][::-1])}, unless the weights were "
            "trained so"
        )


def _of_pixels(cfg: CfgNode | DictConfig, training: bool) -> Iterator[str]:
    """What does not go with the values of images, where Detectron2 itself reads and takes them."""
    _, form = _form_of_images(cfg, training)
    is_yaml = isinstance(cfg, CfgNode)
    keys = [f"MODEL.PIXEL_{x}" if is_yaml else f"model.pixel_{x.lower()}" for x in ("MEAN", "STD")]
    means, stds = ([*x] if is_list(x) else [] for x in (_at(cfg, key) for key in keys))
    if form is None or not (means and stds):
        return
    if form in _FORMATS_OF_1:
        for key, found in zip(keys, (means, stds)):
            if max(found) > 1 and not all(x == 1 for x in stds):
                yield f"{key} is {shown(found)}, expected numbers from 0 to 1, as {form} has them"
        return
    words = "since the values of an image are from 0 to 255: those of a scale of 0 to 1, times 255"
    if all(0 < x < 1 for x in means):
        expected = [round(255 * x, 3) for x in means]
        yield f"{keys[0]} is {shown(means)}, expected numbers such as {expected}, {words}"
    if all(x < 1 for x in stds):
        expected = [round(255 * x, 3) for x in stds]
        yield f"{keys[1]} is {shown(stds)}, expected numbers such as {expected}, {words}"


def _anchors(cfg: CfgNode | DictConfig) -> tuple[str, list[float]]:
    """The sides of all anchors, if the model has any, and where they are."""
    keys = (
        ["MODEL.ANCHOR_GENERATOR.SIZES"]
        if isinstance(cfg, CfgNode)
        else ["model.proposal_generator.anchor_generator.sizes", "model.anchor_generator.sizes"]
    )
    for key in keys:
        if is_list(sizes := _at(cfg, key)):
            return key, [y for x in sizes for y in (x if is_list(x) else [x])]
    return "", []


def _are_fine_to_coarse(cfg: CfgNode | DictConfig) -> bool:
    """Whether the feature maps of anchors are named from fine to coarse, such as p2 to p6."""
    if isinstance(cfg, CfgNode):
        has_proposals = cfg.MODEL.META_ARCHITECTURE in _WITH_PROPOSALS
        names: Any = (cfg.MODEL.RPN if has_proposals else cfg.MODEL.RETINANET).IN_FEATURES
    else:
        keys = ("model.proposal_generator.in_features", "model.head_in_features")
        names = next(filter(None, (OmegaConf.select(cfg, x) for x in keys)), ())
    numbers = [re.search(r"\d+$", str(x)) for x in names]
    levels = [int(x[0]) for x in numbers if x]
    return len(levels) == len(names) > 0 and levels == sorted(set(levels))


def _box_weights(cfg: CfgNode | DictConfig) -> Iterator[tuple[str, Sequence[float]]]:
    keys = _BOX_WEIGHTS if isinstance(cfg, CfgNode) else _lazy_box_weights(cfg)
    for key in keys:
        weights = _at(cfg, key)
        for x in weights if weights and is_list(weights[0]) else [weights]:
            if is_list(x) and len(x) and all(isinstance(y, (int, float)) for y in x):
                yield key, [*x]


def _lazy_box_weights(cfg: DictConfig) -> list[str]:
    predictors = OmegaConf.select(cfg, "model.roi_heads.box_predictors")
    number = len(predictors) if is_list(predictors) else 0
    nodes = [
        "model",
        "model.proposal_generator",
        "model.roi_heads.box_predictor",
        *(f"model.roi_heads.box_predictors[{i}]" for i in range(number)),
    ]
    return [f"{node}.box2box_transform.weights" for node in nodes]


def _check_smallest_box(cfg: CfgNode | DictConfig, training: bool) -> None:
    """Make sure that images are larger than the smallest proposals that are kept."""
    is_yaml = isinstance(cfg, CfgNode)
    if is_yaml and cfg.MODEL.META_ARCHITECTURE not in _WITH_PROPOSALS:
        return
    key = (
        "MODEL.PROPOSAL_GENERATOR.MIN_SIZE" if is_yaml else "model.proposal_generator.min_box_size"
    )
    smallest = _at(cfg, key)
    if not smallest:
        return
    for split in ("train", "test") if training else ("test",):
        where, sides = _short_sides(cfg, split)
        if sides and min(sides) <= smallest:
            raise InputError(
                f"{key} is {smallest}, expected less than {min(sides)}, the shorter side of images "
                f"by {where}: they would have no proposals"
            )
        if sides and min(sides) <= _LARGE_PART * smallest:
            logger.warning(
                f"{key} is {smallest}, a large part of {min(sides)}, the shorter side of images by "
                f"{where}: proposals of which a side is not longer are dropped"
            )


def _short_sides(cfg: CfgNode | DictConfig, split: str) -> tuple[str, list[int]]:
    """What Detectron2 makes the shorter sides of images, and the key; nothing if it does not."""
    if isinstance(cfg, CfgNode):
        key = f"INPUT.MIN_SIZE_{split.upper()}"
        found: Any = cfg.INPUT[f"MIN_SIZE_{split.upper()}"] if cfg.DATASETS[split.upper()] else 0
        return key, [x for x in (found if is_list(found) else [found]) if x > 0]
    key = f"dataloader.{split}.mapper.augmentations"
    augmentations = OmegaConf.select(cfg, key)
    augmentations = augmentations if is_list(augmentations) else []
    sizes = [
        x.get("short_edge_length") for x in augmentations if target_of(x) is T.ResizeShortestEdge
    ]
    if len(sizes) != 1 or not all(target_of(x) in _KEEP_SIZE for x in augmentations):
        return key, []
    of_one = [*sizes[0]] if is_list(sizes[0]) else sizes
    return key, of_one if all(type(x) is int and x > 0 for x in of_one) else []
