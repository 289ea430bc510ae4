"""
Whether the parts of a model fit together. A Python config says for each part what it gets from
others: strides, channels, numbers of anchors. What does not fit fails in a step, or is taken.
"""

import math
from collections.abc import Sequence
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone, RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    StandardROIHeads,
)
from torch import nn

from ..errors import InputError
from .named_settings import is_known

_ANCHORS = "anchor_generator.strides"


def check_shapes(model: nn.Module) -> None:
    """
    Make sure that the parts of a model fit together. Those that are the user's own are not looked
    at: they may use what they get in their own way.

    Args:
        model: what a Python config makes.

    Raises:
        InputError: one does not fit another.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        return
    parts = (getattr(model, x, None) for x in ("proposal_generator", "roi_heads"))
    rpn, heads = (x if is_known(type(x).__module__) else None for x in parts)
    if isinstance(rpn, RPN):
        key = "model.proposal_generator"
        maps = _maps(backbone, f"{key}.in_features", rpn.in_features)
        _check_strides(f"{key}.{_ANCHORS}", rpn.anchor_generator, maps, f"{key}.in_features")
        _check_rpn_head(f"{key}.head", rpn.rpn_head, rpn.anchor_generator, maps, backbone)
    if isinstance(model, RetinaNet) and is_known(type(model).__module__):
        key = "model.head_in_features"
        maps = _maps(backbone, key, model.head_in_features)
        _check_strides(f"model.{_ANCHORS}", model.anchor_generator, maps, key)
    if isinstance(heads, StandardROIHeads):
        for name in ("box", "mask", "keypoint"):
            if (names := getattr(heads, f"{name}_in_features", None)) is not None:
                key = f"model.roi_heads.{name}_in_features"
                maps = _maps(backbone, key, names)
                pooler = getattr(heads, f"{name}_pooler", None)
                _check_scales(f"model.roi_heads.{name}_pooler", pooler, maps, key)
        _check_box_heads(heads, _maps(backbone, "", heads.box_in_features))
    elif isinstance(heads, Res5ROIHeads):
        key = "model.roi_heads.in_features"
        maps = _maps(backbone, key, heads.in_features)
        _check_scales("model.roi_heads.pooler", heads.pooler, maps, key)


def _maps(backbone: Backbone, key: str, names: Sequence[str]) -> list[ShapeSpec]:
    known = backbone.output_shape()
    if not known.keys() >= set(names):
        used = getattr(backbone, "in_features", ())
        of = f" (model.backbone.in_features is {[*used]})" if isinstance(backbone, FPN) else ""
        raise InputError(
            f"{key} is {[*names]}, expected some of {', '.join(known)}, which model.backbone makes"
            f"{of}"
        )
    return [known[name] for name in names]


def _strides(maps: Sequence[ShapeSpec]) -> list[Any] | None:
    """Those of feature maps; None if the backbone does not say them."""
    strides = [x.stride for x in maps]
    return None if None in strides else strides


def _check_strides(key: str, anchors: Any, maps: list[ShapeSpec], of: str) -> None:
    found, expected = getattr(anchors, "strides", None), _strides(maps)
    if found is not None and expected is not None and [*found] != expected:
        raise InputError(f"{key} is {[*found]}, expected {expected}, those of {of}")


def _check_scales(key: str, pooler: Any, maps: list[ShapeSpec], of: str) -> None:
    if not isinstance(pooler, ROIPooler) or (strides := _strides(maps)) is None:
        return
    found = [x.spatial_scale for x in pooler.level_poolers]
    expected = [1 / x for x in strides]
    if len(found) != len(expected) or not all(map(math.isclose, found, expected)):
        raise InputError(
            f"{key}.scales is {found}, expected {expected}: 1 / stride of each of {of}"
        )


def _check_rpn_head(
    key: str, head: Any, anchors: Any, maps: list[ShapeSpec], backbone: Backbone
) -> None:
    if not isinstance(head, StandardRPNHead):
        return
    beside = "model.proposal_generator.anchor_generator"
    number, boxes = head.objectness_logits.out_channels, head.anchor_deltas.out_channels
    if (expected := anchors.num_anchors[0]) != number:
        raise InputError(
            f"{key}.num_anchors is {number}, expected {expected}, as many as {beside}.sizes and "
            f"{beside}.aspect_ratios make"
        )
    if boxes != number * anchors.box_dim:
        found = boxes // number
        raise InputError(f"{key}.box_dim is {found}, expected {anchors.box_dim}, as of the anchors")
    channels, of = _layers(head)[0].in_channels, "as the feature maps of model.backbone have"
    if isinstance(backbone, FPN):
        of = "as model.backbone.out_channels is"
    for x in maps:
        if x.channels not in (None, channels):
            raise InputError(f"{key}.in_channels is {channels}, expected {x.channels}, {of}")


def _check_box_heads(heads: StandardROIHeads, maps: list[ShapeSpec]) -> None:
    key, pooler = "model.roi_heads", heads.box_pooler
    is_cascade = isinstance(heads.box_head, nn.ModuleList)
    head_of = [*heads.box_head] if is_cascade else [heads.box_head]
    predictor_of = [*heads.box_predictor] if is_cascade else [heads.box_predictor]
    for i, (head, predictor) in enumerate(zip(head_of, predictor_of)):
        part, last = (f"{x}s.{i}" if is_cascade else x for x in ("box_head", "box_predictor"))
        if not isinstance(head, FastRCNNConvFCHead):
            continue
        first, channels = _layers(head)[0], maps[0].channels
        if isinstance(pooler, ROIPooler) and channels is not None:
            height, width = pooler.output_size
            if isinstance(first, nn.Linear):
                found, expected = first.in_features, channels * height * width
            else:
                found, expected = first.in_channels, channels
            if found != expected:
                raise InputError(
                    f"{key}.{part}.input_shape.channels, .height and .width make {found} inputs, "
                    f"expected {expected}: "
                    f"{key}.box_pooler.output_size is {height} x {width}, of {channels} channels"
                )
        if isinstance(predictor, FastRCNNOutputLayers):
            size, dims = head.output_shape, [x.out_features for x in head.fcs]
            expected = size.channels * (size.height or 1) * (size.width or 1)
            if (found := predictor.cls_score.in_features) != expected:
                raise InputError(
                    f"{key}.{last}.input_shape.channels is for {found} inputs, expected "
                    f"{expected}, as many as {key}.{part} has outputs ({key}.{part}.fc_dims is "
                    f"{dims})"
                )


def _layers(head: nn.Module) -> list[Any]:
    return [x for x in head.modules() if isinstance(x, (nn.Conv2d, nn.Linear))]
