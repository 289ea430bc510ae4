"""
Values of Detectron2's own keys that cannot work, found before a training rather than in it.

Each key has a rule, see `ohem_d2.training.key_rules`; some have to go with others, too. A key that
is not known, such as one of a project of the user's own, is not looked at.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import (
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    StandardROIHeads,
)
from detectron2.modeling.backbone import RegNet, ResNet
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, RROIHeads
from detectron2.utils.registry import Registry
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..config import base_architecture, box_voting_options
from ..errors import InputError, shown
from ..modeling.box_voting import BoxVotingMixin
from ..modeling.mixin import OHEMMixin
from .key_rules import (
    FORMATS,
    LARGEST,
    LAZY_RULES,
    LAZY_TRAINING_RULES,
    RULES,
    SMALLEST,
    TRAINING_RULES,
    is_list,
)
from .lazy_targets import target_of
from .valid_ranges import check_valid_ranges

logger = logging.getLogger(__name__)

# Detectron2's, and this project's.
_RPNS = ("RPN", "RRPN", "IgnoreRPN", "IgnoreRRPN", "OHEMRPN")
# Those of Detectron2's architectures that would ignore MODEL.ROI_HEADS.NAME.
WITHOUT_ROI_HEADS = ("RetinaNet", "FCOS", "ProposalNetwork", "SemanticSegmentor")


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
    for key, fits, expected in (
        *_relations(cfg),
        *(_relations_in_training(cfg) if training else ()),
    ):
        if not fits:
            raise _wrong(key, _at(cfg, key), expected)
    check_valid_ranges(cfg)


def is_augmentable(cfg: CfgNode) -> bool:
    """Whether Detectron2's test-time augmentation can do the model of a YAML config."""
    return base_architecture(cfg) == "GeneralizedRCNN" and not cfg.MODEL.KEYPOINT_ON


def warn_of_long_warmup(cfg: CfgNode) -> None:
    """Warn if a training ends in its warm-up, as in many a first try of a config for a long one."""
    solver = cfg.SOLVER
    if solver.WARMUP_ITERS >= solver.MAX_ITER and solver.WARMUP_FACTOR < 1:
        logger.warning(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS}, and SOLVER.MAX_ITER is "
            f"{solver.MAX_ITER}: the training ends before its learning rate is SOLVER.BASE_LR"
        )


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
    means, stds = (OmegaConf.select(cfg, f"model.pixel_{x}") for x in ("mean", "std"))
    if is_list(means) and is_list(stds) and len(means) != len(stds):
        raise InputError(
            f"model.pixel_std has {len(stds)} numbers, expected {len(means)}, as many as "
            "model.pixel_mean has"
        )
    if training and OmegaConf.select(cfg, "lr_multiplier.rescale_interval"):
        key = "lr_multiplier.warmup_length"
        if (length := OmegaConf.select(cfg, key)) == 1:
            words = "less than 1, since lr_multiplier.rescale_interval is True: nothing is left to"
            raise _wrong(key, length, f"{words} rescale")
    for key in ("model.backbone", "model.backbone.bottom_up"):
        node = OmegaConf.select(cfg, key)
        is_resnet = OmegaConf.is_dict(node) and target_of(node) in (ResNet, RegNet)
        if is_resnet and (freeze_at := node.get("freeze_at", 0)) > 5:
            raise _wrong(f"{key}.freeze_at", freeze_at, _STAGES_TO_FREEZE)


def check_no_none(cfg: CfgNode, known: CfgNode) -> None:
    """
    Make sure that what has a value by default has one: yacs takes None for a value of any type, and
    YAML takes a key without a value for None.

    Args:
        cfg: a config that has just been merged.
        known: the defaults.

    Raises:
        InputError: it has none.
    """
    for key, default in _leaves(known):
        if default is not None and _at(cfg, key) is None:
            raise _wrong(key, None, f"a value, such as {default!r}")


_ABSENT = object()
_STAGES_TO_FREEZE = "5 at most: the stem and the four stages of a ResNet"


def _at(cfg: CfgNode, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(cfg, CfgNode) or name not in cfg:
            return _ABSENT
        cfg = cfg[name]
    return cfg


def _leaves(cfg: dict, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in cfg.items():
        key = f"{above}{name}"
        if isinstance(value, dict):  # as a CfgNode is
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _names(registry: Registry) -> str:
    return ", ".join(name for name, _ in registry)


def _wrong(key: str, found: object, expected: str | Registry) -> InputError:
    if isinstance(expected, Registry):
        # Asked now, since a project of the user's own adds names.
        expected = f"one of {_names(expected)}"
    if _has_more_than(LARGEST, found):
        expected = expected.replace("or more", f"or more, {LARGEST} at most")
    return InputError(f"{key} is {shown(found)}, expected {expected}")


def _has_more_than(limit: int, value: object) -> bool:
    """Whether there is an integer above a limit in a value."""
    if is_list(value):
        return any(_has_more_than(limit, x) for x in value)  # type: ignore[attr-defined]
    return type(value) is int and value > limit


def _unused(cfg: CfgNode) -> tuple[str, ...]:
    """What the keys begin with that nothing in the model looks at."""
    architecture = base_architecture(cfg)
    used = {
        "MODEL.ROI_MASK_HEAD.": cfg.MODEL.MASK_ON,
        "MODEL.ROI_KEYPOINT_HEAD.": cfg.MODEL.KEYPOINT_ON,
        "MODEL.RETINANET.": architecture == "RetinaNet",
        "MODEL.SEM_SEG_HEAD.": architecture in ("PanopticFPN", "SemanticSegmentor"),
        "MODEL.PANOPTIC_FPN.": architecture == "PanopticFPN",
    }
    return tuple(prefix for prefix, is_used in used.items() if not is_used)


# ------------------------------------------------------------------- what depends on several keys

# A key, whether it goes with others, and what is expected where it does not.
_Relation = tuple[str, bool, str]


def _relations(cfg: CfgNode) -> Iterator[_Relation]:
    model, data = cfg.MODEL, cfg.INPUT
    words = f"{FORMATS[data.FORMAT]} numbers, since INPUT.FORMAT is {data.FORMAT!r}"
    for name in ("PIXEL_MEAN", "PIXEL_STD"):
        yield f"MODEL.{name}", len(model[name]) == FORMATS[data.FORMAT], words
    if data.MIN_SIZE_TRAIN_SAMPLING == "range":
        sizes = data.MIN_SIZE_TRAIN
        words = "2 numbers above 0, the lower one first, since INPUT.MIN_SIZE_TRAIN_SAMPLING is "
        fits = len(sizes) == 2 and 0 < sizes[0] <= sizes[1]
        yield "INPUT.MIN_SIZE_TRAIN", fits, f"{words}'range'"
    if data.CROP.ENABLED:
        kind, sizes = data.CROP.TYPE, data.CROP.SIZE
        relative = kind.startswith("relative")
        fits = all(0.01 <= x <= 1 if relative else type(x) is int and x >= SMALLEST for x in sizes)
        words = "numbers from 0.01 to 1" if relative else f"integers of {SMALLEST} or more"
        if kind == "absolute_range":
            fits, words = fits and sizes[0] <= sizes[1], f"{words}, the lower one first"
        yield "INPUT.CROP.SIZE", fits, f"{words}, since INPUT.CROP.TYPE is {kind!r}"
    for node in ("RPN", "ROI_HEADS", "RETINANET"):
        number = len(model[node].IOU_THRESHOLDS) + 1
        words = f"{number} labels, one more than MODEL.{node}.IOU_THRESHOLDS has"
        yield f"MODEL.{node}.IOU_LABELS", len(model[node].IOU_LABELS) == number, words
    sigmas, number = cfg.TEST.KEYPOINT_OKS_SIGMAS, model.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    # By address, the data set decides the number.
    by_address = any("://" in name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    if model.KEYPOINT_ON and sigmas and not by_address:
        words = f"{number} numbers, as MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS says"
        yield "TEST.KEYPOINT_OKS_SIGMAS", len(sigmas) == number, words
    name, architecture = model.ROI_HEADS.NAME, base_architecture(cfg)
    of_model = f"MODEL.META_ARCHITECTURE is {model.META_ARCHITECTURE!r}"
    fits = not (name.startswith("OHEM") and architecture in WITHOUT_ROI_HEADS)
    words = f"another: {of_model}, which has no RoI heads to mine"
    yield "MODEL.ROI_HEADS.NAME", fits, words
    if box_voting_options(cfg).rounds:
        fits = issubclass(ROI_HEADS_REGISTRY.get(name), BoxVotingMixin)
        fits = fits and architecture not in WITHOUT_ROI_HEADS
        words = (
            f"0: MODEL.ROI_HEADS.NAME is {name!r}, whose boxes do not vote. Those of the mining "
            "heads do, and those of BoxVotingROIHeads, in place of StandardROIHeads"
        )
        if architecture in WITHOUT_ROI_HEADS:
            words = f"0: MODEL.META_ARCHITECTURE is {architecture!r}, which has no RoI heads"
        yield "TEST.BOX_VOTING.ROUNDS", fits, words
    if architecture == "PanopticFPN" and cfg.DATASETS.TEST:
        words = (
            "True: MODEL.META_ARCHITECTURE is 'PanopticFPN', which puts masks together when it is "
            "evaluated, unless MODEL.PANOPTIC_FPN.COMBINE.ENABLED is False"
        )
        fits = model.MASK_ON or not model.PANOPTIC_FPN.COMBINE.ENABLED
        yield "MODEL.MASK_ON", fits, words
    if cfg.TEST.AUG.ENABLED:
        fits = is_augmentable(cfg)
        what = "that of keypoints" if model.KEYPOINT_ON else f"a {architecture}"
        words = f"False: the model is {what}, which Detectron2's test-time augmentation cannot do"
        yield "TEST.AUG.ENABLED", fits, words
    if model.BACKBONE.NAME.startswith("build_resnet"):
        yield from _relations_of_resnet(cfg)
    if architecture in ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork"):
        yield from _relations_of_proposals(cfg)
    else:
        words = f"since {of_model}"
        if architecture in ("RetinaNet", "FCOS"):
            yield from _relation_of_anchors(cfg, False, words)
        if architecture in WITHOUT_ROI_HEADS:
            fits = not model.LOAD_PROPOSALS
            yield "MODEL.LOAD_PROPOSALS", fits, f"False, {words}, which takes no proposals"
    if architecture in ("GeneralizedRCNN", "PanopticFPN"):
        yield from _relations_of_heads(cfg)


def _relations_of_resnet(cfg: CfgNode) -> Iterator[_Relation]:
    resnets, key = cfg.MODEL.RESNETS, "MODEL.RESNETS."
    if resnets.DEPTH < 50:
        words = f"since MODEL.RESNETS.DEPTH is {resnets.DEPTH}"
        yield f"{key}RES2_OUT_CHANNELS", resnets.RES2_OUT_CHANNELS == 64, f"64, {words}"
        yield f"{key}NUM_GROUPS", resnets.NUM_GROUPS == 1, f"1, {words}"
        yield f"{key}RES5_DILATION", resnets.RES5_DILATION == 1, f"1, {words}"
    yield "MODEL.BACKBONE.FREEZE_AT", cfg.MODEL.BACKBONE.FREEZE_AT <= 5, _STAGES_TO_FREEZE
    known = {"stem", "res2", "res3", "res4", "res5", "linear"}
    maps = resnets.OUT_FEATURES
    yield f"{key}OUT_FEATURES", known.issuperset(maps), f"some of {', '.join(sorted(known))}"
    if cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone":
        fits = bool(cfg.MODEL.FPN.IN_FEATURES) and set(maps).issuperset(cfg.MODEL.FPN.IN_FEATURES)
        yield "MODEL.FPN.IN_FEATURES", fits, f"some of {key}OUT_FEATURES, {', '.join(maps)}"
        yield _without_gaps("MODEL.FPN.IN_FEATURES", cfg.MODEL.FPN.IN_FEATURES, "res")
    is_plain = not any(resnets.DEFORM_ON_PER_STAGE)
    words = "False for each stage: Detectron2 has deformable convolutions on GPUs, and from depth "
    fits = is_plain or (cfg.MODEL.DEVICE != "cpu" and resnets.DEPTH >= 50)
    yield f"{key}DEFORM_ON_PER_STAGE", fits, f"{words}50 on"


def _relations_of_proposals(cfg: CfgNode) -> Iterator[_Relation]:
    model = cfg.MODEL
    largest = min(cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TEST)
    words = f"less than {largest}, the longest side of images: no proposal would be left"
    fits = largest > model.PROPOSAL_GENERATOR.MIN_SIZE
    yield "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", fits, words
    if model.PROPOSAL_GENERATOR.NAME in _RPNS:
        maps, anchors = model.RPN.IN_FEATURES, model.ANCHOR_GENERATOR
        words = f"one list, or as many as MODEL.RPN.IN_FEATURES has, which is {list(maps)}"
        for name in ("SIZES", "ASPECT_RATIOS"):
            fits = not is_list(anchors[name][0]) or len(anchors[name]) in (1, len(maps))
            yield f"MODEL.ANCHOR_GENERATOR.{name}", fits, words
        sizes, ratios = (
            [len(x) for x in (v if is_list(v[0]) else [v])]
            for v in (anchors.SIZES, anchors.ASPECT_RATIOS)
        )
        most = max(len(sizes), len(ratios))  # a single one of either is for all feature maps
        numbers = {sizes[i % len(sizes)] * ratios[i % len(ratios)] for i in range(most)}
        words = "as many anchors for each feature map, together with MODEL.ANCHOR_GENERATOR.SIZES"
        yield "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", len(numbers) == 1, words
        is_rotated = model.PROPOSAL_GENERATOR.NAME.endswith("RRPN")
        words = f"since MODEL.PROPOSAL_GENERATOR.NAME is {model.PROPOSAL_GENERATOR.NAME!r}"
        yield from _relation_of_anchors(cfg, is_rotated, words)
        words = f"False, {words}, which makes proposals itself: loaded ones need "
        fits = not model.LOAD_PROPOSALS
        yield "MODEL.LOAD_PROPOSALS", fits, f"{words}'PrecomputedProposals' in its place"
    elif model.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
        words = f"MODEL.META_ARCHITECTURE is {model.META_ARCHITECTURE!r}, which makes proposals"
        fits = model.META_ARCHITECTURE == "GeneralizedRCNN"
        yield "MODEL.PROPOSAL_GENERATOR.NAME", fits, f"one such as 'RPN', since {words}"
        words = f"True, since MODEL.PROPOSAL_GENERATOR.NAME is {model.PROPOSAL_GENERATOR.NAME!r}"
        yield "MODEL.LOAD_PROPOSALS", bool(model.LOAD_PROPOSALS), words


def _relation_of_anchors(cfg: CfgNode, is_rotated: bool, words: str) -> Iterator[_Relation]:
    names = "DefaultAnchorGenerator", "RotatedAnchorGenerator"
    expected, other = reversed(names) if is_rotated else names
    name = cfg.MODEL.ANCHOR_GENERATOR.NAME
    yield "MODEL.ANCHOR_GENERATOR.NAME", name != other, f"{expected!r}, {words}"


def _without_gaps(key: str, maps: Sequence[str], name: str) -> _Relation:
    """Whether numbered feature maps are in the order of a pyramid, and none is left out."""
    levels = [int(x.removeprefix(name)) for x in maps if re.fullmatch(rf"{name}\d", x)]
    if not levels or len(levels) < len(maps):
        return key, True, ""
    whole = [f"{name}{x}" for x in range(min(levels), max(levels) + 1)]
    return key, [*maps] == whole, f"{whole}, without gaps from the largest map on"


def _relations_of_heads(cfg: CfgNode) -> Iterator[_Relation]:
    model = cfg.MODEL
    heads = ROI_HEADS_REGISTRY.get(model.ROI_HEADS.NAME)
    if issubclass(heads, OHEMMixin):
        # First of all: what is wrong with other keys then is that they are those of other heads.
        heads.check_kind(cfg)
    maps = model.ROI_HEADS.IN_FEATURES
    yield "MODEL.ROI_HEADS.IN_FEATURES", len(set(maps)) == len(maps), "each feature map once"
    if issubclass(heads, StandardROIHeads):
        known = model.ROI_BOX_HEAD.NAME in ROI_BOX_HEAD_REGISTRY
        yield "MODEL.ROI_BOX_HEAD.NAME", known, f"one of {_names(ROI_BOX_HEAD_REGISTRY)}"
        if model.ROI_BOX_HEAD.NAME == "FastRCNNConvFCHead":
            words = "1 or more, since MODEL.ROI_BOX_HEAD.NUM_CONV is 0, too: it has no layers"
            fits = model.ROI_BOX_HEAD.NUM_FC + model.ROI_BOX_HEAD.NUM_CONV > 0
            yield "MODEL.ROI_BOX_HEAD.NUM_FC", fits, words
    if issubclass(heads, Res5ROIHeads):
        words = f"another: it takes a single feature map, and MODEL.ROI_HEADS.IN_FEATURES is {maps}"
        yield "MODEL.ROI_HEADS.NAME", len(maps) == 1, words
    rotated = issubclass(heads, RROIHeads)
    words = f"since MODEL.ROI_HEADS.NAME is {model.ROI_HEADS.NAME!r}"
    if model.PROPOSAL_GENERATOR.NAME in _RPNS:
        name = "RRPN" if rotated else "RPN"
        fits = model.PROPOSAL_GENERATOR.NAME in (name, f"Ignore{name}", f"OHEM{name}")
        yield "MODEL.PROPOSAL_GENERATOR.NAME", fits, f"{name!r}, {words}"
    if issubclass(heads, StandardROIHeads):
        fits = (model.ROI_BOX_HEAD.POOLER_TYPE == "ROIAlignRotated") == rotated
        expected = f"{'' if rotated else 'another than '}'ROIAlignRotated', {words}"
        yield "MODEL.ROI_BOX_HEAD.POOLER_TYPE", fits, expected
    number = 5 if rotated else 4
    for node in ("RPN", "ROI_BOX_HEAD"):
        fits = len(model[node].BBOX_REG_WEIGHTS) == number
        yield f"MODEL.{node}.BBOX_REG_WEIGHTS", fits, f"{number} numbers, {words}"
    yield _without_gaps("MODEL.ROI_HEADS.IN_FEATURES", maps, "p")
    if issubclass(heads, CascadeROIHeads):
        cascade, key = model.ROI_BOX_CASCADE_HEAD, "MODEL.ROI_BOX_CASCADE_HEAD"
        number, first = len(cascade.BBOX_REG_WEIGHTS), model.ROI_HEADS.IOU_THRESHOLDS[0]
        words = f"{number} numbers, as many as {key}.BBOX_REG_WEIGHTS has"
        yield f"{key}.IOUS", len(cascade.IOUS) == number, words
        words = f"{first} as the first, as in MODEL.ROI_HEADS.IOU_THRESHOLDS"
        yield f"{key}.IOUS", cascade.IOUS[0] == first, words
        is_agnostic = bool(model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG)
        yield "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", is_agnostic, "True for a cascade"


def _relations_in_training(cfg: CfgNode) -> Iterator[_Relation]:
    solver, sampler = cfg.SOLVER, cfg.DATALOADER.SAMPLER_TRAIN
    for start, node, name in (
        ("Weighted", "DATASETS", "TRAIN_REPEAT_FACTOR"),
        ("RandomSubset", "DATALOADER", "RANDOM_SUBSET_RATIO"),
    ):
        fits = not sampler.startswith(start) or name in cfg[node]
        words = f"another: it needs {node}.{name}, a key that Detectron2 does not have"
        yield "DATALOADER.SAMPLER_TRAIN", fits, words
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        fits = solver.BASE_LR_END <= solver.BASE_LR
        yield "SOLVER.BASE_LR_END", fits, f"SOLVER.BASE_LR, {solver.BASE_LR}, at most"
    if solver.RESCALE_INTERVAL:
        words = f"less than SOLVER.MAX_ITER, {solver.MAX_ITER}, since SOLVER.RESCALE_INTERVAL is "
        fits = solver.WARMUP_ITERS < solver.MAX_ITER
        yield "SOLVER.WARMUP_ITERS", fits, f"{words}True: nothing is left to rescale"
    if solver.NESTEROV:
        words = "a number above 0, since SOLVER.NESTEROV is True"
        yield "SOLVER.MOMENTUM", solver.MOMENTUM > 0, words
    if workers := solver.REFERENCE_WORLD_SIZE:
        words = f"a multiple of SOLVER.REFERENCE_WORLD_SIZE, {workers}"
        yield "SOLVER.IMS_PER_BATCH", solver.IMS_PER_BATCH % workers == 0, words


# ------------------------------------------------------------------------------------ all the keys


def leaves_of(cfg: dict | DictConfig) -> Iterator[tuple[str, Any]]:
    """
    The keys and values of a config in either form, or of what is in a file of one; without those
    that refer to others.
    """
    return _lazy_leaves(cfg) if isinstance(cfg, DictConfig) else _leaves(cfg)


def all_keys(cfg: CfgNode | DictConfig) -> Iterator[str]:
    """The keys of a config in either form, of nodes as well as of values."""
    seen = set()
    for key, _ in leaves_of(cfg):
        names = key.split(".")
        for i in range(1, len(names) + 1):
            if (part := ".".join(names[:i])) not in seen:
                seen.add(part)
                yield part


def is_unused(cfg: CfgNode | DictConfig, key: str) -> bool:
    """Whether nothing in the model looks at a key."""
    return isinstance(cfg, CfgNode) and key.startswith(_unused(cfg))


# What a run uses of a Python config.
LAZY_ROOTS = ("dataloader", "lr_multiplier", "model", "optimizer", "train")


def lazy_interpolations(cfg: DictConfig | ListConfig, above: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a Python config that refer to others, and what is written there."""
    for name in range(len(cfg)) if OmegaConf.is_list(cfg) else list(cfg):
        key = f"{above}{name}"
        if OmegaConf.is_interpolation(cfg, name):
            written: Any = cfg._get_node(name)
            yield key, str(written._value())
        elif not OmegaConf.is_missing(cfg, name) and OmegaConf.is_config(cfg[name]):
            yield from lazy_interpolations(cfg[name], f"{key}.")


def _lazy_leaves(cfg: DictConfig, above: str = "") -> Iterator[tuple[str, Any]]:
    for name in map(str, cfg):
        if not above and name not in LAZY_ROOTS:
            continue  # what a config is made of, not what is used of it
        key = f"{above}{name}"
        if OmegaConf.is_interpolation(cfg, name) or OmegaConf.is_missing(cfg, name):
            continue
        value = cfg[name]
        if OmegaConf.is_dict(value):
            yield from _lazy_leaves(value, f"{key}.")
        else:
            yield key, value
