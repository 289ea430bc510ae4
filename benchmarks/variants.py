"""The ways of choosing RoIs that the accuracy study compares, each as a change of a config."""

import math
from collections.abc import Callable
from typing import Any

import samplers  # noqa: F401  (registers those of the study)
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.structures import Instances

from ohem_d2 import OHEMROIHeads
from ohem_d2.config import base_architecture

SAMPLING = "sampling"
# Of all variants that have no other.
PAPERS_HARD_FRACTION = 1.0


def _sampling(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"


def _set(node: CfgNode, keys: dict[str, object]) -> None:
    node.merge_from_list([x for pair in keys.items() for x in pair])  # refuses what is not there


def _ohem(**keys: object) -> Callable[[CfgNode], None]:
    """The paper's way, but for these keys."""

    def change(cfg: CfgNode) -> None:
        cfg.MODEL.ROI_HEADS.NAME = "OHEMROIHeads"
        _set(cfg.MODEL.ROI_HEADS.OHEM, keys)

    return change


def _sampler(name: str) -> Callable[[CfgNode], None]:
    """A sampler without the paper's keys: HARD_FRACTION, which it does not have, is the default."""
    return _ohem(SAMPLER=name, HARD_FRACTION=0.5)


_HALF_RANDOM = _ohem(HARD_FRACTION=0.5)


def _regions_are_background(way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """As Detectron2 takes what lies in crowds, and in what else is to be ignored."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        cfg.INPUT.IGNORE_REGIONS.ENABLED = False

    return change


def _rpn(way: Callable[[CfgNode], None], **keys: object) -> Callable[[CfgNode], None]:
    """With an RPN that mines among its anchors, too."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        cfg.MODEL.PROPOSAL_GENERATOR.NAME = "OHEMRPN"
        _set(cfg.MODEL.RPN.OHEM, keys)

    return change


def _three_scales(
    way: Callable[[CfgNode], None], valid_ranges: bool = False
) -> Callable[[CfgNode], None]:
    """
    Trained and evaluated at three scales, which are to INPUT.MIN_SIZE_TRAIN as SNIP's are to 800;
    perhaps each on its sizes, which are to the files as SNIP's are to COCO's, of 480 pixels.
    """

    def change(cfg: CfgNode) -> None:
        way(cfg)
        edges = [round(cfg.INPUT.MIN_SIZE_TRAIN[0] * x / 800) for x in (480, 800, 1400)]
        cfg.INPUT.MIN_SIZE_TRAIN = cfg.TEST.AUG.MIN_SIZES = tuple(edges)
        cfg.TEST.AUG.ENABLED, cfg.TEST.AUG.FLIP = True, False
        cfg.INPUT.MIN_SIZE_TEST = 0  # of which images are augmented: those of the files
        if valid_ranges:
            record = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]
            times = min(record["height"], record["width"]) / 480
            sizes = ((120, math.inf), (40, 160), (0, 80))
            cfg.INPUT.VALID_RANGES = tuple(
                (edge, low * times, high * times) for edge, (low, high) in zip(edges, sizes)
            )

    return change


def _budget(share: float, way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """With this share of the RoIs."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        heads = cfg.MODEL.ROI_HEADS
        heads.BATCH_SIZE_PER_IMAGE = round(share * heads.BATCH_SIZE_PER_IMAGE)

    return change


def _short(share: float, way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """With this share of the iterations."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        cfg.SOLVER.MAX_ITER = round(share * cfg.SOLVER.MAX_ITER)

    return change


def _sampled_first(hard_fraction: float) -> Callable[[CfgNode], None]:
    def change(cfg: CfgNode) -> None:
        _ohem(HARD_FRACTION=hard_fraction, START_ITER=cfg.SOLVER.MAX_ITER // 4)(cfg)

    return change


def _staged(cfg: CfgNode) -> None:
    _ohem(SAMPLER=f"Staged(max_iter={cfg.SOLVER.MAX_ITER})")(cfg)


def _from_01(cfg: CfgNode) -> None:
    """The paper's baseline: background is what overlaps an object by an IoU of 0.1 or more."""
    _sampling(cfg)
    heads = cfg.MODEL.ROI_HEADS
    heads.IOU_THRESHOLDS, heads.IOU_LABELS = [0.1, *heads.IOU_THRESHOLDS], [-1, *heads.IOU_LABELS]


def _one_image(way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """The paper's N = 1: one image a step, with the RoIs of all."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE *= cfg.SOLVER.IMS_PER_BATCH
        cfg.SOLVER.IMS_PER_BATCH = 1

    return change


def _all_rois(cfg: CfgNode) -> None:
    """The paper's alternative to choosing, with a larger learning rate."""
    _sampling(cfg)
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 10000, 1.0
    cfg.SOLVER.BASE_LR *= 3


def _scales_and_voting(way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """
    The paper's +M and +B: trained and evaluated at five scales, which are to INPUT.MIN_SIZE_TRAIN
    as the paper's are to 600; with iterative box regression and box voting.
    """

    def change(cfg: CfgNode) -> None:
        way(cfg)
        edges = [round(cfg.INPUT.MIN_SIZE_TRAIN[0] * x / 600) for x in (480, 576, 688, 864, 900)]
        cfg.INPUT.MIN_SIZE_TRAIN = cfg.TEST.AUG.MIN_SIZES = tuple(edges)
        cfg.TEST.AUG.ENABLED, cfg.TEST.AUG.FLIP = True, False
        cfg.TEST.BOX_VOTING.ROUNDS = 2
        if cfg.MODEL.ROI_HEADS.NAME == "StandardROIHeads":
            cfg.MODEL.ROI_HEADS.NAME = "BoxVotingROIHeads"

    return change


def _half_even(cfg: CfgNode) -> None:
    _HALF_RANDOM(cfg)
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.5


def _retinanet(cfg: CfgNode) -> None:
    is_one = base_architecture(cfg) == "RetinaNet"
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    if is_one:
        return
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [
        [x * 2 ** (i / 3) for x in of_level for i in range(3)]
        for of_level in cfg.MODEL.ANCHOR_GENERATOR.SIZES
    ]
    if cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone":
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    else:
        cfg.MODEL.RETINANET.IN_FEATURES = cfg.MODEL.RPN.IN_FEATURES
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    cfg.SOLVER.BASE_LR /= 2  # Detectron2's configs do the same


def _cross_entropy(cfg: CfgNode) -> None:
    _retinanet(cfg)
    cfg.MODEL.RETINANET.FOCAL_LOSS_GAMMA, cfg.MODEL.RETINANET.FOCAL_LOSS_ALPHA = 0.0, -1.0


def _dense(**keys: object) -> Callable[[CfgNode], None]:
    """A RetinaNet that mines."""

    def change(cfg: CfgNode) -> None:
        _retinanet(cfg)
        cfg.MODEL.META_ARCHITECTURE = "OHEMRetinaNet"
        _set(cfg.MODEL.RETINANET.OHEM, keys)

    return change


def _dense_hard(number: int, nms_thresh: float, how: str = "") -> Callable[[CfgNode], None]:
    """On so many hard examples alone."""
    return _dense(SAMPLER=f"OHEMSampler{how}", BATCH_SIZE_PER_IMAGE=number, NMS_THRESH=nms_thresh)


def _limited(share: float) -> Callable[[CfgNode], None]:
    """The default, among this share of the proposals."""

    def change(cfg: CfgNode) -> None:
        _HALF_RANDOM(cfg)
        number = round(share * cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN)
        cfg.MODEL.ROI_HEADS.OHEM.MAX_CANDIDATES = number

    return change


@ROI_HEADS_REGISTRY.register()
class ByObjectnessROIHeads(OHEMROIHeads):
    """Where MAX_CANDIDATES leaves out background, that of the lowest objectness."""

    def label_proposals(self, *args: Any, **kwargs: Any) -> list[Instances]:
        """As of the class that it extends, but no more of them than MAX_CANDIDATES."""
        kept = []
        for x in super().label_proposals(*args, **kwargs):
            order = x.objectness_logits.argsort(descending=True, stable=True)
            is_background = (x.gt_classes == self.num_classes)[order]
            order = order[is_background.to(torch.uint8).argsort(stable=True)]
            kept.append(x[order[: self.ohem.max_candidates].sort().values])
        return kept

    def _draw_seed(self) -> int:
        """None: nothing is left to draw."""
        return 0


def _limited_by_objectness(share: float) -> Callable[[CfgNode], None]:
    """The default, among foreground and what looks most like it, this share of the proposals."""

    def change(cfg: CfgNode) -> None:
        _limited(share)(cfg)
        cfg.MODEL.ROI_HEADS.NAME = "ByObjectnessROIHeads"

    return change


@ROI_HEADS_REGISTRY.register()
class AllMasksROIHeads(OHEMROIHeads):
    """The mask head trains on all the foreground that mining chooses."""

    def within_foreground_budget(self, rois: list[Instances]) -> list[Instances]:
        """All of it."""
        return rois


def _all_masks(cfg: CfgNode) -> None:
    _HALF_RANDOM(cfg)
    cfg.MODEL.ROI_HEADS.NAME = "AllMasksROIHeads"


VARIANTS: dict[str, tuple[str, Callable[[CfgNode], None]]] = {
    SAMPLING: ("1:3 sampling (Detectron2)", _sampling),
    "ohem": ("OHEM as in the paper", _ohem()),
    "half_random": ("half of the budget at random (default)", _HALF_RANDOM),
    "quarter_hard": ("three quarters of the budget at random", _ohem(HARD_FRACTION=0.25)),
    "short": ("OHEM, with a schedule of 0.65 of the iterations", _short(0.65, _ohem())),
    "short_half": (
        "default, with a schedule of 0.65 of the iterations",
        _short(0.65, _HALF_RANDOM),
    ),
    "shorter_half": (
        "default, with a schedule of 0.6 of the iterations",
        _short(0.6, _HALF_RANDOM),
    ),
    "cls": ("ranked by classification loss", _ohem(LOSS_WEIGHT_BOX_REG=0.0)),
    "half_cls": (
        "default, ranked by classification loss",
        _ohem(HARD_FRACTION=0.5, LOSS_WEIGHT_BOX_REG=0.0),
    ),
    "ratio": ("at most 1:3 foreground", _ohem(MAX_FOREGROUND_FRACTION=0.25)),
    "mmdet": (
        "as MMDetection: 1:3, classification loss, no suppression",
        _ohem(MAX_FOREGROUND_FRACTION=0.25, LOSS_WEIGHT_BOX_REG=0.0, NMS_THRESH=1.0),
    ),
    "batch": ("budget of the whole batch", _ohem(SCOPE="batch")),
    "half": ("default, with 1/2 of the RoIs", _budget(1 / 2, _HALF_RANDOM)),
    "quarter": ("default, with 1/4 of the RoIs", _budget(1 / 4, _HALF_RANDOM)),
    "eighth": ("default, with 1/8 of the RoIs", _budget(1 / 8, _HALF_RANDOM)),
    "sampling_half": ("1:3 sampling, with 1/2 of the RoIs", _budget(1 / 2, _sampling)),
    "sampling_quarter": ("1:3 sampling, with 1/4 of the RoIs", _budget(1 / 4, _sampling)),
    "sampled_first": ("1:3 sampling for the first quarter", _sampled_first(1.0)),
    "sampled_first_half": (
        "1:3 sampling for the first quarter, then the default",
        _sampled_first(0.5),
    ),
    "staged": ("box loss weighs more and more (after S-OHEM)", _staged),
    "capped": (
        "background with a classification loss above 3 ranks last",
        _ohem(SAMPLER="Capped(max_loss=3.0)"),
    ),
    "half_capped": (
        "default, background with a classification loss above 1 last",
        _ohem(SAMPLER="Capped(max_loss=1.0)", HARD_FRACTION=0.5),
    ),
    "balanced": (
        "default, with less foreground drawn where the hard half holds enough",
        _ohem(SAMPLER="Balanced", HARD_FRACTION=0.5),
    ),
    "half_even": ("default, with as much foreground drawn as background", _half_even),
    "paper_from_01": ("OHEM, background from an IoU of 0.1 on", _ohem(BG_IOU_LO=0.1)),
    "paper_from_001": ("OHEM, background from an IoU of 0.01 on", _ohem(BG_IOU_LO=0.01)),
    "half_from_001": (
        "default, background from an IoU of 0.01 on",
        _ohem(HARD_FRACTION=0.5, BG_IOU_LO=0.01),
    ),
    "iou_balanced": ("IoU-balanced background (Libra R-CNN)", _sampler("IoUBalanced")),
    "prime_samples": ("hierarchical local rank, re-weighted (PISA)", _sampler("PrimeSamples")),
    "hard_pool": ("at random among the hardest, twice as many", _sampler("HardPool")),
    "in_proportion": ("at random in proportion to the loss", _sampler("InProportion")),
    "soft": ("1:3 sampling, background weighed by overlap (Soft Sampling)", _sampler("SoftRandom")),
    "half_soft": (
        "default, background weighed by overlap (Soft Sampling)",
        _ohem(SAMPLER="SoftMixed", HARD_FRACTION=0.5),
    ),
    "sampling_ignoring": (
        "1:3 sampling, which leaves out what lies in regions to ignore",
        _sampler("RandomSampler"),
    ),
    # Trained twice, see `second_training`: labels are added where a first model finds objects.
    "sampling_then_sampling": (
        "1:3 sampling, and again with the labels that it adds",
        _sampler("RandomSampler"),
    ),
    "half_then_half": ("default, and again with the labels that it adds", _HALF_RANDOM),
    "sampling_then_half": ("1:3 sampling, then default with the labels that it adds", _HALF_RANDOM),
    "sampling_then_half_ignoring": (
        "1:3 sampling, then default with regions to ignore in place of labels that it would add",
        _HALF_RANDOM,
    ),
    "halves_then_half": (
        "1:3 sampling on each half of the images, then default with the labels that it adds to the "
        "other half",
        _HALF_RANDOM,
    ),
    "half_unaware": (
        "default, to which regions to ignore are background",
        _regions_are_background(_HALF_RANDOM),
    ),
    # With those above, what the paper compares.
    "sampling_from_01": ("1:3 sampling, background from an IoU of 0.1 on", _from_01),
    "sampling_n1": (
        "1:3 sampling, background from an IoU of 0.1 on, one image a step",
        _one_image(_from_01),
    ),
    "ohem_n1": ("OHEM as in the paper, one image a step", _one_image(_ohem())),
    "all_rois": ("all RoIs, three times the learning rate", _all_rois),
    "sampling_mb": (
        "1:3 sampling, background from an IoU of 0.1 on, five scales and box voting",
        _scales_and_voting(_from_01),
    ),
    "ohem_mb": ("OHEM as in the paper, five scales and box voting", _scales_and_voting(_ohem())),
    "all_masks": ("default, masks of all foreground that is chosen", _all_masks),
    "half_candidates": ("default, among 1/2 of the proposals", _limited(1 / 2)),
    "quarter_candidates": ("default, among 1/4 of the proposals", _limited(1 / 4)),
    "eighth_candidates": ("default, among 1/8 of the proposals", _limited(1 / 8)),
    "half_by_objectness": (
        "default, among 1/2 of the proposals, background by objectness",
        _limited_by_objectness(1 / 2),
    ),
    "quarter_by_objectness": (
        "default, among 1/4 of the proposals, background by objectness",
        _limited_by_objectness(1 / 4),
    ),
    "sampling_rpn": ("1:3 sampling, and OHEMRPN", _rpn(_sampling)),
    "sampling_rpn_hard": (
        "1:3 sampling, and OHEMRPN on hard examples alone",
        _rpn(_sampling, HARD_FRACTION=1.0),
    ),
    "half_rpn": ("default, and OHEMRPN", _rpn(_HALF_RANDOM)),
    "half_rpn_hard": (
        "default, and OHEMRPN on hard examples alone",
        _rpn(_HALF_RANDOM, HARD_FRACTION=1.0),
    ),
    "half_scales": ("default, at three scales", _three_scales(_HALF_RANDOM)),
    "half_snip": (
        "default, at three scales, each on objects of its sizes (SNIP)",
        _three_scales(_HALF_RANDOM, valid_ranges=True),
    ),
    "sampling_snip": (
        "1:3 sampling, at three scales, each on objects of its sizes (SNIP)",
        _three_scales(_sampler("RandomSampler"), valid_ranges=True),
    ),
    "sampling_scales": ("1:3 sampling, at three scales", _three_scales(_sampling)),
    "retinanet": ("RetinaNet (focal loss)", _retinanet),
    "retinanet_cross_entropy": ("RetinaNet, cross entropy of all anchors", _cross_entropy),
    "retinanet_half": ("OHEMRetinaNet", _dense()),
    "retinanet_half_focal": ("OHEMRetinaNet, with the focal loss", _dense(FOCAL_LOSS=True)),
    "retinanet_hard_128_05": (
        "OHEMRetinaNet on 128 hard examples, suppression at 0.5",
        _dense_hard(128, 0.5),
    ),
    "retinanet_hard_256_05": (
        "OHEMRetinaNet on 256 hard examples, suppression at 0.5",
        _dense_hard(256, 0.5),
    ),
    "retinanet_hard_512_05": (
        "OHEMRetinaNet on 512 hard examples, suppression at 0.5",
        _dense_hard(512, 0.5),
    ),
    "retinanet_hard_128_07": (
        "OHEMRetinaNet on 128 hard examples, suppression at 0.7",
        _dense_hard(128, 0.7),
    ),
    "retinanet_hard_256_07": (
        "OHEMRetinaNet on 256 hard examples, suppression at 0.7",
        _dense_hard(256, 0.7),
    ),
    "retinanet_hard_512_07": (
        "OHEMRetinaNet on 512 hard examples, suppression at 0.7",
        _dense_hard(512, 0.7),
    ),
    "retinanet_hard_ratio": (
        "OHEMRetinaNet on 128 hard examples, suppression at 0.5, at most 1:3 foreground",
        _dense_hard(128, 0.5, "(max_foreground_fraction=0.25)"),
    ),
}
