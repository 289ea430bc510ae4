"""Values with which a part of a model learns nothing, though its training goes on: most are 0."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.matcher import Matcher
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from ..config import (
    MiningOptions,
    base_architecture,
    is_number,
    ohem_dense_options,
    ohem_options,
    ohem_rpn_options,
)
from ..errors import shown
from ..modeling.timm_backbone import TimmBackbone
from .key_checks import is_unused
from .key_rules import is_list
from .lazy_targets import parts_of, target_of
from .named_settings import is_known

logger = logging.getLogger(__name__)

# By the key of a weight: what is not learned where it is 0.
_WEIGHTS = {
    "MODEL.RPN.LOSS_WEIGHT": "the RPN learns nothing",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": "the boxes of proposals are not learned",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": "the boxes of detections are not learned",
    "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT": "keypoints are not learned",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": "semantic segmentation is not learned",
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": "boxes, classes and masks are not learned",
    "SOLVER.BIAS_LR_FACTOR": "biases are not learned",
}
_BIASES = "optimizer.params.bias_lr_factor"
# Of each weight, what a step at the full learning rate may take away. In practice it is less than a
# ten thousandth.
_MOST_DECAY = 0.01
_ROI_HEADS = ("GeneralizedRCNN", "PanopticFPN")


def warn_of_no_learning(cfg: CfgNode | DictConfig) -> None:
    """
    Warn of zeros with which something of a model is not learned, and of a weight decay that undoes
    what is.

    Args:
        cfg: a config in either form, whose keys hold what they may, to be trained.
    """
    for words in _of_yaml(cfg) if isinstance(cfg, CfgNode) else _of_python(cfg):
        logger.warning(words)


def warn_of_unlearned_weights(model: nn.Module) -> None:
    """
    Name the weights that a step of training does not reach.

    Args:
        model: after its first step, with the gradients of it.
    """
    model = getattr(model, "module", model)  # within DDP
    for name in ("proposal_generator", "roi_heads"):
        part = getattr(model, name, None)
        weights = [*part.parameters()] if isinstance(part, nn.Module) else []
        if weights and not any(x.requires_grad for x in weights):
            logger.warning(
                f"None of the {len(weights)} weights of {name} is trained: requires_grad is False "
                "for all of them, expected True for some"
            )
    trained = {name: x for name, x in model.named_parameters() if x.requires_grad}
    if lost := [name for name, x in trained.items() if x.grad is None]:
        parts = Counter(name.partition(".")[0] for name in lost)
        of_parts = ", ".join(f"{number} of {part}" for part, number in parts.items())
        logger.warning(
            f"{len(lost)} of {len(trained)} trained weights got no gradient in the first step "
            f"({of_parts}), such as {lost[0]}: expected losses that depend on them, which "
            "torch.no_grad() and detach() prevent, or requires_grad False"
        )


def warn_of_no_anchors(model: nn.Module, storage: EventStorage) -> None:
    """
    Say so if the RPN is left without any anchor, which is no error to Detectron2.

    Args:
        model: after its first step.
        storage: with what it has logged.
    """
    rpn = getattr(getattr(model, "module", model), "proposal_generator", None)  # within DDP
    limit = getattr(rpn, "anchor_boundary_thresh", -1)
    histories = storage.histories()
    numbers = [histories.get(f"rpn/num_{kind}_anchors") for kind in ("pos", "neg")]
    if limit >= 0 and all(x is not None and x.latest() == 0 for x in numbers):
        logger.warning(
            "the RPN learned from no anchor in the first step: MODEL.RPN.BOUNDARY_THRESH "
            f"(anchor_boundary_thresh in Python configs) is {limit}, which leaves out those that "
            f"reach more than {limit} pixels over the edge of an image: expected anchors that are "
            "smaller than the images, or -1, which leaves out none"
        )


def warn_of_frozen_layers(cfg: CfgNode | DictConfig, model: nn.Module) -> None:
    """
    Say so if layers are frozen that start at random, or norms that have seen no data. Backbones
    that bring weights of their own, and the user's own, are not looked at.

    Args:
        cfg: the config in either form, of a training that starts anew.
        model: its model.
    """
    backbone = getattr(getattr(model, "module", model), "backbone", None)  # within DDP
    if isinstance(cfg, CfgNode):
        weights_key, freeze_key = "MODEL.WEIGHTS", "MODEL.BACKBONE.FREEZE_AT"
        weights, frozen_at = cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.FREEZE_AT
    else:
        weights_key, freeze_key = "train.init_checkpoint", "model.backbone.bottom_up.freeze_at"
        weights, frozen_at = (OmegaConf.select(cfg, x) for x in (weights_key, freeze_key))
    if weights or not isinstance(backbone, nn.Module):
        return
    layers = [*backbone.modules()]
    if any(isinstance(x, TimmBackbone) or not is_known(type(x).__module__) for x in layers):
        return
    found = {name: x.requires_grad for name, x in backbone.named_parameters()}
    frozen = [name for name, learns in found.items() if not learns]
    if frozen:
        logger.warning(
            f"{freeze_key} is {frozen_at}, but {weights_key} is empty: {len(frozen)} of "
            f"{len(found)} weights of the backbone, such as backbone.{frozen[0]}, stay as random "
            f"as they start, expected a checkpoint, or {freeze_key} 0"
        )
    elif any(isinstance(x, FrozenBatchNorm2d) for x in layers):
        norm_key = "MODEL.RESNETS.NORM" if isinstance(cfg, CfgNode) else "norm of model.backbone"
        logger.warning(
            f"{norm_key} is 'FrozenBN', but {weights_key} is empty: it has the statistics of no "
            "data, and normalizes nothing, expected a checkpoint, or another norm such as 'BN'"
        )


def _of_yaml(cfg: CfgNode) -> Iterator[str]:
    model, solver = cfg.MODEL, cfg.SOLVER
    has_roi_heads = model.META_ARCHITECTURE in _ROI_HEADS
    has_rpn = (has_roi_heads or model.META_ARCHITECTURE == "ProposalNetwork") and (
        model.PROPOSAL_GENERATOR.NAME != "PrecomputedProposals"
    )
    is_there = {"RPN": has_rpn, "ROI_BOX_HEAD": has_roi_heads, "ROI_KEYPOINT_HEAD": has_roi_heads}
    for key, words in _WEIGHTS.items():
        node, name = key.split(".")[-2:]
        parent: Any = cfg if node == "SOLVER" else model
        if is_there.get(node, True) and not is_unused(cfg, key) and parent[node][name] == 0:
            yield f"{key} is {parent[node][name]}: {words}"
    rpn_mines = model.PROPOSAL_GENERATOR.NAME == "OHEMRPN"
    if has_rpn and not (rpn_mines and _is_hard_only(ohem_rpn_options(cfg))):
        yield from _of_sampling(
            ("MODEL.RPN.POSITIVE_FRACTION", model.RPN.POSITIVE_FRACTION),
            ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", model.RPN.BATCH_SIZE_PER_IMAGE),
            # Beside those that are drawn, there are hard ones, which may be on objects.
            "no anchor on an object is drawn for the RPN to learn from"
            if rpn_mines
            else "the RPN learns from no anchor on an object",
        )
    if has_roi_heads and not (
        model.ROI_HEADS.NAME.startswith("OHEM") and _is_hard_only(ohem_options(cfg))
    ):
        yield from _of_sampling(
            ("MODEL.ROI_HEADS.POSITIVE_FRACTION", model.ROI_HEADS.POSITIVE_FRACTION),
            ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", model.ROI_HEADS.BATCH_SIZE_PER_IMAGE),
            "no RoI on an object is drawn to learn from",
        )
    nodes = {
        "RPN": has_rpn,
        "ROI_HEADS": has_roi_heads,
        "RETINANET": base_architecture(cfg) == "RetinaNet",
    }
    for node in (node for node, is_there in nodes.items() if is_there):
        key, labels = f"MODEL.{node}.IOU_LABELS", model[node].IOU_LABELS
        other = f"MODEL.{node}.IOU_THRESHOLDS"
        yield from _of_matching(key, labels, other, model[node].IOU_THRESHOLDS)
    for name in ("WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "WEIGHT_DECAY_BIAS"):
        key = f"SOLVER.{name}"
        yield from _of_decay(key, solver[name], "SOLVER.BASE_LR", solver.BASE_LR)
    mines, dense = model.META_ARCHITECTURE == "OHEMRetinaNet", ohem_dense_options(cfg)
    if mines and not _is_hard_only(dense):
        yield from _of_sampling(
            ("MODEL.RETINANET.OHEM.POSITIVE_FRACTION", dense.positive_fraction),
            ("MODEL.RETINANET.OHEM.BATCH_SIZE_PER_IMAGE", dense.batch_size_per_image),
            "no anchor on an object is drawn to learn from",
        )
    if (model.META_ARCHITECTURE == "RetinaNet" or (mines and dense.focal_loss)) and (
        model.RETINANET.FOCAL_LOSS_ALPHA in (0, 1)
    ):
        key, alpha = "MODEL.RETINANET.FOCAL_LOSS_ALPHA", model.RETINANET.FOCAL_LOSS_ALPHA
        yield f"{key} is {alpha}: {_of_alpha(alpha)}"
    if solver.WARMUP_ITERS and solver.WARMUP_METHOD == "constant" and solver.WARMUP_FACTOR == 0:
        yield (
            f"SOLVER.WARMUP_FACTOR is {solver.WARMUP_FACTOR}, and SOLVER.WARMUP_METHOD is "
            f"'constant': nothing is learned in the first {solver.WARMUP_ITERS} iterations"
        )


def _is_hard_only(options: MiningOptions) -> bool:
    return str(options.sampler).startswith("OHEMSampler") or options.hard_fraction == 1


def _of_python(cfg: DictConfig) -> Iterator[str]:
    if (factor := OmegaConf.select(cfg, _BIASES)) == 0:
        yield f"{_BIASES} is {factor}: {_WEIGHTS['SOLVER.BIAS_LR_FACTOR']}"
    rate = OmegaConf.select(cfg, "optimizer.lr")
    for key in ("optimizer.weight_decay", "optimizer.params.weight_decay_norm"):
        if is_number(rate):
            yield from _of_decay(key, OmegaConf.select(cfg, key), "optimizer.lr", rate)
    for key, matcher in parts_of(cfg.model, "model"):
        labels, thresholds = matcher.get("labels"), matcher.get("thresholds")
        if target_of(matcher) is Matcher and is_list(labels) and is_list(thresholds):
            yield from _of_matching(f"{key}.labels", labels, f"{key}.thresholds", thresholds)
    for key, value in _numbers(cfg.model, "model"):
        above, _, name = key.rpartition(".")
        if value == 0 and (name.endswith("loss_weight") or above.endswith("loss_weight")):
            loss = f"the loss {name}" if above.endswith("loss_weight") else "its loss"
            yield f"{key} is {value}: nothing is learned from {loss}"
        elif name == "positive_fraction":
            number_key = f"{above}.batch_size_per_image"
            number = OmegaConf.select(cfg, number_key)
            if type(number) is int and not _draws_none(cfg, above):
                words = "nothing on an object is drawn to learn from"
                yield from _of_sampling((key, value), (number_key, number), words)
        elif name == "focal_loss_alpha" and value in (0, 1) and _learns_by_focal_loss(cfg, above):
            yield f"{key} is {value}: {_of_alpha(value)}"
    warmup = "lr_multiplier.warmup_"
    length, method, factor = (
        OmegaConf.select(cfg, f"{warmup}{x}") for x in ("length", "method", "factor")
    )
    if length and factor == 0 and method == "constant":
        yield (
            f"{warmup}factor is {factor}, and {warmup}method is 'constant': nothing is learned in "
            f"the first {length:.3%} of the training"
        )


def _of_decay(key: str, decay: float | None, rate_key: str, rate: float) -> Iterator[str]:
    if decay is not None and is_number(decay) and decay * rate > _MOST_DECAY:
        yield (
            f"{key} is {decay}, and {rate_key} is {rate}: a step takes {decay * rate:.0%} of a "
            "weight away, which undoes what is learned, expected a decay such as 0.0001"
        )


def _numbers(node: DictConfig | ListConfig, above: str) -> Iterator[tuple[str, int | float]]:
    """What is a number in a node and below, by its key; without what refers to another key."""
    for name in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        value = node[name]
        if isinstance(value, (DictConfig, ListConfig)):
            yield from _numbers(value, f"{above}.{name}")
        elif is_number(value):
            yield f"{above}.{name}", value


def _draws_none(cfg: DictConfig, heads: str) -> bool:
    """Whether heads of a Python config, or a one-stage model, train on hard examples alone."""
    ohem = OmegaConf.select(cfg, f"{heads.removesuffix('.ohem')}.ohem")
    if not OmegaConf.is_dict(ohem):
        return False
    return ohem.get("hard_fraction") == 1 or "OHEMSampler" in str(ohem.get("sampler"))


def _learns_by_focal_loss(cfg: DictConfig, model: str) -> bool:
    """Whether a one-stage model of a Python config learns by the focal loss."""
    if not str(OmegaConf.select(cfg, f"{model}._target_")).rpartition(".")[2].startswith("OHEM"):
        return True
    return bool(OmegaConf.select(cfg, f"{model}.ohem.focal_loss"))


def _of_sampling(fraction: tuple[str, float], number: tuple[str, int], words: str) -> Iterator[str]:
    (key, found), (other, size) = fraction, number
    if int(size * found) == 0:  # as Detectron2 rounds
        yield f"{key} is {shown(found)}, and {other} is {size}: {words}"


def _of_matching(
    key: str, labels: Sequence[int], other: str, thresholds: Sequence[float]
) -> Iterator[str]:
    """Labels by IoU, of which none, or none that an IoU can have, is that of background."""
    if not any(x == 0 and upper > 0 for x, upper in zip(labels, [*thresholds, math.inf])):
        yield (
            f"{key} is {shown([*labels])}, and {other} is {shown([*thresholds])}: where there are "
            "objects, nothing is background, which is not learned, expected the label 0 for low "
            "IoUs"
        )


def _of_alpha(alpha: float) -> str:
    return f"nothing is learned from {'anchors on objects' if alpha == 0 else 'the background'}"
