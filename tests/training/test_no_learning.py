"""Zeros with which a part of a model learns nothing."""

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import SHRINK_OPTS, ZOO

from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.key_checks import check_keys
from ohem_d2.training.no_learning import (
    warn_of_frozen_layers,
    warn_of_no_anchors,
    warn_of_no_learning,
    warn_of_unlearned_weights,
)

QUICK_START = str(CONFIGS / "quick_start.yaml")
RETINANET = str(ZOO / "COCO-Detection" / "retinanet_R_50_FPN_1x.yaml")
PANOPTIC = str(ZOO / "COCO-PanopticSegmentation" / "panoptic_fpn_R_50_1x.yaml")
KEYPOINTS = str(ZOO / "COCO-Keypoints" / "keypoint_rcnn_R_50_FPN_1x.yaml")
MASK = str(ZOO / "COCO-InstanceSegmentation" / "mask_rcnn_R_50_FPN_1x.py")
FCOS = str(ZOO / "COCO-Detection" / "fcos_R_50_FPN_1x.py")
PLAIN = ["MODEL.ROI_HEADS.NAME", "StandardROIHeads"]
HARD_ONLY = ["MODEL.ROI_HEADS.OHEM.HARD_FRACTION", "1.0"]
FRACTION = ["MODEL.ROI_HEADS.POSITIVE_FRACTION", "0.0"]
RPN_HARD_ONLY = ["MODEL.RPN.OHEM.HARD_FRACTION", "1.0",
                 "MODEL.PROPOSAL_GENERATOR.NAME", "OHEMRPN"]  # fmt: skip
DENSE = ["MODEL.META_ARCHITECTURE", "OHEMRetinaNet"]
HEADS, RPN = "model.roi_heads", "model.proposal_generator"


@pytest.mark.parametrize(
    ("file", "opts", "words"),
    [
        (QUICK_START, ["MODEL.RPN.LOSS_WEIGHT", "0"], "the RPN learns nothing"),
        (QUICK_START, ["MODEL.RPN.BBOX_REG_LOSS_WEIGHT", "0"], "boxes of proposals"),
        (QUICK_START, ["MODEL.RPN.POSITIVE_FRACTION", "0.0"], "learns from no anchor on an object"),
        (QUICK_START, ["MODEL.RPN.POSITIVE_FRACTION", "0.0",
                       "MODEL.PROPOSAL_GENERATOR.NAME", "OHEMRPN"],
         "no anchor on an object is drawn for the RPN to learn from"),
        (QUICK_START, ["MODEL.RPN.BATCH_SIZE_PER_IMAGE", "1"], "no anchor on an object"),
        (QUICK_START, ["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", "0.0"], "boxes of detections"),
        (QUICK_START, ["SOLVER.BIAS_LR_FACTOR", "0.0"], "biases are not learned"),
        (QUICK_START, FRACTION, "no RoI on an object is drawn"),
        (QUICK_START, [*FRACTION, *PLAIN], "no RoI on an object is drawn"),
        (QUICK_START, [*FRACTION, *PLAIN, *HARD_ONLY], "no RoI on an object is drawn"),
        (QUICK_START, ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "3"], "no RoI on an object"),
        (QUICK_START, ["SOLVER.WARMUP_METHOD", "constant", "SOLVER.WARMUP_FACTOR", "0.0"],
         "in the first 50 iterations"),
        (RETINANET, ["MODEL.RETINANET.FOCAL_LOSS_ALPHA", "0.0"], "from anchors on objects"),
        (RETINANET, ["MODEL.RETINANET.FOCAL_LOSS_ALPHA", "1.0"], "from the background"),
        (RETINANET, ["MODEL.RETINANET.FOCAL_LOSS_ALPHA", "0.0", *DENSE,
                     "MODEL.RETINANET.OHEM.FOCAL_LOSS", "True"], "from anchors on objects"),
        (RETINANET, ["MODEL.RETINANET.OHEM.POSITIVE_FRACTION", "0.0", *DENSE], "no anchor on an"),
        (RETINANET, ["MODEL.RETINANET.OHEM.BATCH_SIZE_PER_IMAGE", "3", *DENSE], "no anchor on an"),
        (QUICK_START, ["MODEL.RPN.IOU_LABELS", "[-1, -1, 1]"],
         "MODEL.RPN.IOU_LABELS is [-1, -1, 1], and MODEL.RPN.IOU_THRESHOLDS is [0.3, 0.7]: where "
         "there are objects, nothing is background"),
        (QUICK_START, ["MODEL.RPN.IOU_THRESHOLDS", "[0.0, 0.7]"], "nothing is background"),
        (QUICK_START, ["MODEL.ROI_HEADS.IOU_LABELS", "[-1, 1]"], "MODEL.ROI_HEADS.IOU_LABELS is"),
        (RETINANET, ["MODEL.RETINANET.IOU_LABELS", "[-1, -1, 1]"], "MODEL.RETINANET.IOU_LABELS is"),
        (RETINANET, ["MODEL.ROI_HEADS.IOU_LABELS", "[-1, 1]"], None),
        (QUICK_START, ["MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.1, 0.5]",
                       "MODEL.ROI_HEADS.IOU_LABELS", "[-1, 0, 1]"], None),
        (PANOPTIC, ["MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "0"], "semantic segmentation"),
        (PANOPTIC, ["MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", "0"], "masks are not learned"),
        (KEYPOINTS, ["MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT", "0"], "keypoints are not learned"),
        (QUICK_START, ["SOLVER.WEIGHT_DECAY", "1000.0", "SOLVER.BASE_LR", "0.001"],
         "SOLVER.WEIGHT_DECAY is 1000.0, and SOLVER.BASE_LR is 0.001: a step takes 100% of a we"),
        (QUICK_START, ["SOLVER.WEIGHT_DECAY_NORM", "10.0", "SOLVER.BASE_LR", "0.02"],
         "SOLVER.WEIGHT_DECAY_NORM is 10.0, and SOLVER.BASE_LR is 0.02: a step takes 20% of a we"),
        (QUICK_START, ["SOLVER.WEIGHT_DECAY", "0.5", "SOLVER.BASE_LR", "0.02"], None),
        # What the model does not have, or does not draw.
        (QUICK_START, [*FRACTION, *HARD_ONLY], None),
        (QUICK_START, ["MODEL.RPN.POSITIVE_FRACTION", "0.0", *RPN_HARD_ONLY], None),
        (QUICK_START, ["MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT", "0"], None),
        (QUICK_START, ["MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "0"], None),
        (QUICK_START, ["MODEL.RETINANET.FOCAL_LOSS_ALPHA", "0.0"], None),
        (RETINANET, ["MODEL.RETINANET.FOCAL_LOSS_ALPHA", "0.0", *DENSE], None),
        (RETINANET, ["MODEL.RETINANET.OHEM.POSITIVE_FRACTION", "0.0", *DENSE,
                     "MODEL.RETINANET.OHEM.HARD_FRACTION", "1.0"], None),
        (QUICK_START, ["SOLVER.WARMUP_FACTOR", "0.0"], None),
        (QUICK_START, ["SOLVER.WEIGHT_DECAY", "0.0", "SOLVER.MOMENTUM", "0.0"], None),
        (RETINANET, ["MODEL.RPN.LOSS_WEIGHT", "0", *FRACTION], None),
    ],
)  # fmt: skip
def test_zeros(caplog, file, opts, words):
    cfg = load_config(file, opts)
    check_keys(cfg)
    caplog.clear()
    warn_of_no_learning(cfg)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text
    assert all(any(key in x for key in opts[::2]) for x in caplog.messages)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ([f"+{RPN}.loss_weight=0.0"], f"{RPN}.loss_weight is 0.0: nothing is learned"),
        ([f"+{RPN}.loss_weight={{loss_rpn_cls:1.0,loss_rpn_loc:0}}"], "the loss loss_rpn_loc"),
        ([f"+{HEADS}.box_predictor.loss_weight={{loss_box_reg:0.0}}"], "the loss loss_box_reg"),
        ([f"+{HEADS}.mask_head.loss_weight=0"], "mask_head.loss_weight is 0"),
        ([f"{RPN}.positive_fraction=0.0"], f"{RPN}.positive_fraction is 0.0, and {RPN}.batch_"),
        ([f"{HEADS}.positive_fraction=0.0"], f"{HEADS}.positive_fraction is 0.0, and"),
        ([f"{HEADS}.batch_size_per_image=2"], f"{HEADS}.batch_size_per_image is 2"),
        (["+optimizer.params.bias_lr_factor=0.0"], "biases are not learned"),
        (["lr_multiplier.warmup_factor=0.0", "+lr_multiplier.warmup_method=constant"],
         "in the first 1.111% of the training"),
        (["lr_multiplier.warmup_factor=0.0"], None),
        # Which only ranks.
        ([f"+{HEADS}.ohem={{loss_weight_box_reg:0.0}}"], None),
        (["optimizer.weight_decay=100"], "optimizer.weight_decay is 100, and optimizer.lr is 0.02"),
        ([f"+{HEADS}.others=[{{loss_weight:1}},{{loss_weight:0}}]"], "others.1.loss_weight is 0"),
        ([f"+{HEADS}.mask_head.loss_weight=0.5"], None),
        ([f"{HEADS}.proposal_matcher.labels=[-1,1]"], f"{HEADS}.proposal_matcher.labels is [-1, "),
        ([f"{RPN}.anchor_matcher.labels=[-1,-1,1]"], f"{RPN}.anchor_matcher.thresholds is [0.3,"),
        ([f"{RPN}.anchor_matcher.thresholds=[0,0.7]"], "where there are objects, nothing is back"),
        ([f"{HEADS}.positive_fraction=0.0", f"+{HEADS}.ohem={{hard_fraction:1.0}}"], None),
    ],
)  # fmt: skip
def test_zeros_in_python_configs(caplog, opts, words):
    # Some are no arguments of Detectron2's heads, and stand for those of others.
    cfg = LazyConfig.apply_overrides(LazyConfig.load(MASK), opts)
    caplog.clear()
    warn_of_no_learning(cfg)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


@pytest.mark.parametrize(
    ("ohem", "words"),
    [
        (
            "positive_fraction:0.0,batch_size_per_image:64",
            "model.ohem.positive_fraction is 0.0, and",
        ),
        ("positive_fraction:0.1,batch_size_per_image:64", None),
        ("positive_fraction:0.0,batch_size_per_image:64,hard_fraction:1.0", None),
    ],
)
def test_zeros_of_a_one_stage_model(caplog, ohem, words):
    opts = ["model._target_=ohem_d2.OHEMFCOS", f"+model.ohem={{{ohem}}}"]
    cfg = LazyConfig.apply_overrides(LazyConfig.load(FCOS), opts)
    caplog.clear()
    warn_of_no_learning(cfg)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


@pytest.mark.parametrize(
    ("opts", "warns"),
    [
        ([], True),
        (["model._target_=ohem_d2.OHEMFCOS"], False),
        (["model._target_=ohem_d2.OHEMFCOS", "+model.ohem={focal_loss:true}"], True),
    ],
)
def test_the_focal_loss_is_read_where_it_is_the_loss(caplog, opts, warns):
    opts = [*opts, "model.focal_loss_alpha=0.0"]
    cfg = LazyConfig.apply_overrides(LazyConfig.load(FCOS), opts)
    caplog.clear()
    warn_of_no_learning(cfg)
    assert ("model.focal_loss_alpha is 0.0" in caplog.text) == warns


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ([], "MODEL.BACKBONE.FREEZE_AT is 2, but MODEL.WEIGHTS is empty: "),
        (["MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.NORM", "BN"], None),
        (
            ["MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.RESNETS.NORM", "FrozenBN"],
            "MODEL.RESNETS.NORM is 'FrozenBN', but MODEL.WEIGHTS is empty",
        ),
        (["MODEL.WEIGHTS", "x.pth"], None),
    ],
)
def test_layers_that_are_frozen_at_random(caplog, opts, words):
    cfg = load_config(KEYPOINTS, [*SHRINK_OPTS, "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", *opts])
    model = build_model(cfg)
    caplog.clear()
    warn_of_frozen_layers(cfg, model)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text
    model.backbone.bottom_up.__class__ = type("Own", (type(model.backbone.bottom_up),), {})
    model.backbone.bottom_up.__class__.__module__ = "mine"
    caplog.clear()
    warn_of_frozen_layers(cfg, model)
    assert not caplog.messages


def test_layers_that_are_frozen_at_random_in_a_python_config(caplog):
    cfg = LazyConfig.load(MASK)
    cfg.train.init_checkpoint = ""
    backbone = build_model(load_config(KEYPOINTS, [*SHRINK_OPTS, "MODEL.DEVICE", "cpu"])).backbone
    warn_of_frozen_layers(cfg, DistributedLike(backbone))
    words = "model.backbone.bottom_up.freeze_at is 2, but train.init_checkpoint is empty: "
    assert words in caplog.text


class DistributedLike(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.module = torch.nn.Module()
        self.module.backbone = backbone


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(2, 2)
        self.roi_heads = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))


def test_weights_that_a_step_does_not_reach(caplog):
    model = _Model()
    model.roi_heads[0](model.backbone(torch.ones(2))).sum().backward()
    warn_of_unlearned_weights(model)
    assert caplog.messages == [
        "4 of 8 trained weights got no gradient in the first step (4 of roi_heads), such as "
        "roi_heads.1.weight: expected losses that depend on them, which torch.no_grad() and "
        "detach() prevent, or requires_grad False"
    ]


def test_heads_that_are_not_trained(caplog):
    model = _Model()
    model.roi_heads.requires_grad_(False)
    model.backbone(torch.ones(2)).sum().backward()
    warn_of_unlearned_weights(model)
    (message,) = caplog.messages
    assert message.startswith("None of the 6 weights of roi_heads is trained: requires_grad is Fal")
    caplog.clear()
    model.roi_heads[1].requires_grad_(True)
    model.roi_heads[1](torch.ones(2)).sum().backward()
    warn_of_unlearned_weights(model)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("limit", "anchors", "warns"), [(0, 0, True), (5, 0, True), (-1, 0, False), (0, 3, False)]
)
def test_no_anchor_within_the_images(caplog, limit, anchors, warns):
    model = _Model()
    model.proposal_generator = torch.nn.Module()
    model.proposal_generator.anchor_boundary_thresh = limit
    with EventStorage() as storage:
        warn_of_no_anchors(model, storage)  # of another RPN, which logs nothing
        storage.put_scalars(**{"rpn/num_pos_anchors": 0.0, "rpn/num_neg_anchors": anchors})
        warn_of_no_anchors(model, storage)
    words = "the RPN learned from no anchor in the first step: MODEL.RPN.BOUNDARY_THRESH (anchor_b"
    assert [x.startswith(words) for x in caplog.messages] == [True] * warns
