"""Limits that are never reached, since another one is reached before."""

import logging
from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf

from ..errors import shown
from .key_rules import is_list
from .lazy_targets import parts_of, target_of

logger = logging.getLogger(__name__)

_WITH_RPN = ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork")
# A limit, the one that is reached before, by their keys and values.
_Pair = tuple[str, Any, str, Any]


def warn_of_limits(cfg: CfgNode | DictConfig, training: bool) -> None:
    """
    Warn of numbers of proposals and sizes of images that another limit never lets come up.

    Args:
        cfg: a config in either form, whose keys hold what they may.
        training: whether it is to be trained, not only evaluated.
    """
    is_yaml = isinstance(cfg, CfgNode)
    for post, most, pre, each, maps in (
        _proposals(cfg, training) if is_yaml else _lazy_proposals(cfg, training)
    ):
        if most > each * maps:
            logger.warning(
                f"{post} is {most}, but there are {each * maps} proposals at most: {pre} is "
                f"{each}, of each of {maps} feature map{'s' * (maps > 1)}"
            )
    for shorter, sizes, longest, limit in (
        _sizes(cfg, training) if is_yaml else _lazy_sizes(cfg, training)
    ):
        sides = [x for x in (sizes if is_list(sizes) else [sizes]) if x]
        if isinstance(limit, int) and (never := [x for x in sides if x > limit]):
            logger.warning(
                f"{longest} is {limit}, less than {shorter}, which is {shown(sizes)}: no image has "
                f"a shorter side of {' or '.join(map(str, never))}"
            )


def _proposals(cfg: CfgNode, training: bool) -> Iterator[tuple[str, int, str, int, int]]:
    model, key = cfg.MODEL, "MODEL.RPN."
    if model.META_ARCHITECTURE not in _WITH_RPN or not model.PROPOSAL_GENERATOR.NAME.endswith(
        "RPN"
    ):
        return
    for split in ("TRAIN", "TEST") if training else ("TEST",):
        post, pre = f"POST_NMS_TOPK_{split}", f"PRE_NMS_TOPK_{split}"
        maps = len(model.RPN.IN_FEATURES)
        yield f"{key}{post}", model.RPN[post], f"{key}{pre}", model.RPN[pre], maps


def _lazy_proposals(cfg: DictConfig, training: bool) -> Iterator[tuple[str, int, str, int, int]]:
    key = "model.proposal_generator"
    maps, posts, pres = (
        OmegaConf.select(cfg, f"{key}.{x}")
        for x in ("in_features", "post_nms_topk", "pre_nms_topk")
    )
    if is_list(maps) and is_list(posts) and is_list(pres):
        for i in (0, 1) if training else (1,):
            names = f"{key}.post_nms_topk.{i}", f"{key}.pre_nms_topk.{i}"
            yield names[0], posts[i], names[1], pres[i], len(maps)


def _sizes(cfg: CfgNode, training: bool) -> Iterator[_Pair]:
    of_input, tta = cfg.INPUT, cfg.TEST.AUG
    for split in ("TRAIN", "TEST") if training else ("TEST",):
        if cfg.DATASETS[split]:
            names = f"MIN_SIZE_{split}", f"MAX_SIZE_{split}"
            yield (
                f"INPUT.{names[0]}",
                of_input[names[0]],
                f"INPUT.{names[1]}",
                of_input[names[1]],
            )
    if tta.ENABLED:
        yield "TEST.AUG.MIN_SIZES", tta.MIN_SIZES, "TEST.AUG.MAX_SIZE", tta.MAX_SIZE


def _lazy_sizes(cfg: DictConfig, training: bool) -> Iterator[_Pair]:
    for split in ("train", "test") if training else ("test",):
        above = f"dataloader.{split}.mapper.augmentations"
        for key, part in parts_of(OmegaConf.select(cfg, above), above):
            sizes = part.get("short_edge_length")
            sides = sizes if is_list(sizes) else [sizes]
            if target_of(part) is T.ResizeShortestEdge and all(type(x) is int for x in sides):
                limit = part.get("max_size")
                yield f"{key}.short_edge_length", sizes, f"{key}.max_size", limit
