"""
What the arguments of Detectron2's classes and functions may be, wherever a Python config calls one:
the RPN's matcher, and that of each stage of a cascade.
"""

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError, shown
from .key_rules import LAZY_RULES, RULES, Rule, is_list
from .lazy_targets import parts_of, target_of
from .named_settings import is_known


def _weights(number: int) -> Rule:
    """Of boxes in a form of so many numbers."""
    rule = RULES["MODEL.RPN.BBOX_REG_WEIGHTS"]
    return Rule(lambda v: rule.holds(v) and len(v) == number, f"{number} numbers above 0")


def _are_increasing(numbers: Sequence[Any]) -> bool:
    are_numbers = all(type(x) in (int, float) for x in numbers)
    return are_numbers and all(a < b for a, b in pairwise([0, *numbers]))


_FUNCTION = Rule(lambda v: v is None or callable(v), "a function, or null")
_MILESTONES = Rule(
    lambda v: v is None or (is_list(v) and _are_increasing(v)),
    "null, or a list of numbers above 0, in increasing order",
)
_PREDICTOR = "model.roi_heads.box_predictor"
# By what is called: what each argument may be.
_RULES: dict[Any, dict[str, Rule]] = {
    Matcher: {
        "thresholds": RULES["MODEL.RPN.IOU_THRESHOLDS"],
        "labels": RULES["MODEL.RPN.IOU_LABELS"],
    },
    Box2BoxTransform: {"weights": _weights(4)},
    Box2BoxTransformRotated: {"weights": _weights(5)},
    DefaultAnchorGenerator: {
        "sizes": RULES["MODEL.ANCHOR_GENERATOR.SIZES"],
        "aspect_ratios": RULES["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"],
        "offset": RULES["MODEL.ANCHOR_GENERATOR.OFFSET"],
    },
    build_detection_train_loader: {"collate_fn": _FUNCTION},
    build_detection_test_loader: {"collate_fn": _FUNCTION},
    MultiStepParamScheduler: {"milestones": _MILESTONES},
    FPN: {"fuse_type": RULES["MODEL.FPN.FUSE_TYPE"], "in_features": RULES["MODEL.FPN.IN_FEATURES"]},
    ROIPooler: {"sampling_ratio": RULES["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]},
    FastRCNNOutputLayers: {
        name: LAZY_RULES[f"{_PREDICTOR}.{name}"]
        for name in ("num_classes", "test_nms_thresh", "test_score_thresh", "test_topk_per_image")
    },
}


def check_parts(cfg: DictConfig, keys: Sequence[str]) -> None:
    """
    Make sure that the arguments of Detectron2's classes are what these can work with.

    Args:
        cfg: the config.
        keys: of the parts to look at, and below. Those that are not there are left out.

    Raises:
        InputError: an argument is not.
    """
    for above in keys:
        for key, part in parts_of(OmegaConf.select(cfg, above), above):
            target = target_of(part)
            _check_switches(key, part, target)
            rules = _RULES.get(target, {}) if callable(target) else {}
            for name, rule in rules.items():
                if name not in part or OmegaConf.is_missing(part, name):
                    continue
                value = part[name]
                if not OmegaConf.is_dict(value) and not rule.holds(value):
                    raise _wrong(f"{key}.{name}", value, str(rule.expected))
            if target is Matcher and "thresholds" in part and "labels" in part:
                number = len(part.thresholds) + 1
                if len(part.labels) != number:
                    words = f"{number} labels, one more than {key}.thresholds has"
                    raise _wrong(f"{key}.labels", part.labels, words)
            if target is MultiStepParamScheduler:
                _check_milestones(key, part)


def _check_milestones(key: str, part: DictConfig) -> None:
    """How many there are, and that none is after the end."""
    values, milestones, end = (part.get(x) for x in ("values", "milestones", "num_updates"))
    if not is_list(values) or not is_list(milestones):
        return
    number = len(values) - (end is not None)
    found = f"{key}.values is {shown([*values])}"
    if len(milestones) != number:
        less = (
            " one less than values, with num_updates" if end is not None else " as many as values"
        )
        raise _wrong(f"{key}.milestones", milestones, f"{number} entries,{less}: {found}")
    if milestones and type(end) is int and milestones[-1] >= end:
        raise _wrong(
            f"{key}.milestones", milestones, f"less than {key}.num_updates, which is {end}"
        )


def _check_switches(key: str, part: DictConfig, target: Any) -> None:
    """Arguments that are on or off, of what is not the user's own: any text would be on."""
    if not is_known(str(getattr(target, "__module__", ""))):
        return
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # of what is not written in Python
        return
    for name, parameter in parameters.items():
        is_switch = isinstance(parameter.default, bool) or parameter.annotation is bool
        if not is_switch or name not in part or OmegaConf.is_missing(part, name):
            continue
        if part[name] not in (True, False, None):
            raise _wrong(f"{key}.{name}", part[name], "True or False")


def _wrong(key: str, value: Any, expected: str) -> InputError:
    found = [*value] if is_list(value) else value
    return InputError(f"{key} is {shown(found)}, expected {expected}")
