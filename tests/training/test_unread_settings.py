"""Settings of the command line that change nothing."""

import pytest
from detectron2.modeling import BACKBONE_REGISTRY
from small_models import ZOO

from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.unread_settings import warn_of_unread_settings

QUICK_START = str(CONFIGS / "quick_start.yaml")
RETINANET = str(ZOO / "COCO-Detection" / "retinanet_R_50_FPN_1x.yaml")
C4 = str(ZOO / "COCO-InstanceSegmentation" / "mask_rcnn_R_50_C4_1x.yaml")
FAST = str(ZOO / "COCO-Detection" / "fast_rcnn_R_50_FPN_1x.yaml")
PANOPTIC = str(ZOO / "COCO-PanopticSegmentation" / "panoptic_fpn_R_50_1x.yaml")
PLAIN = ["MODEL.BACKBONE.NAME", "build_resnet_backbone"]
VGG = ["MODEL.BACKBONE.NAME", "build_vgg16_backbone"]
DENSE = ["MODEL.META_ARCHITECTURE", "OHEMRetinaNet"]
ARCHITECTURE, HEADS = "MODEL.META_ARCHITECTURE is", "MODEL.ROI_HEADS.NAME is"


@pytest.mark.parametrize(
    ("file", "opts", "reason"),
    [
        (QUICK_START, ["MODEL.TIMM.NAME", "resnet50"], "MODEL.BACKBONE.NAME is 'build_resnet_fpn_"),
        (QUICK_START, ["MODEL.ROI_MASK_HEAD.CONV_DIM", "64"], "MODEL.MASK_ON is False"),
        (QUICK_START, ["INPUT.MASK_FORMAT", "bitmask"], "MODEL.MASK_ON is False"),
        (QUICK_START, ["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "5"], "MODEL.KEYPOINT_ON is False"),
        (QUICK_START, ["TEST.KEYPOINT_OKS_SIGMAS", "[0.1]"], "MODEL.KEYPOINT_ON is False"),
        (QUICK_START, ["MODEL.RETINANET.NUM_CLASSES", "3"], ARCHITECTURE),
        (QUICK_START, ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"], ARCHITECTURE),
        (QUICK_START, ["MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", "0.3"], ARCHITECTURE),
        (QUICK_START, ["MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "(0.5,0.6,0.8)"], HEADS),
        (QUICK_START, ["MODEL.ANCHOR_GENERATOR.ANGLES", "[[0.0]]"], "MODEL.ANCHOR_GENERATOR.NAME"),
        (QUICK_START, ["MODEL.FPN.OUT_CHANNELS", "32", *PLAIN], "MODEL.BACKBONE.NAME is"),
        (QUICK_START, ["MODEL.RESNETS.DEPTH", "34", *VGG], "MODEL.BACKBONE.NAME is"),
        (QUICK_START, ["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", "0.5",
                       "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "giou"], "BBOX_REG_LOSS_TYPE is"),
        (QUICK_START, ["SOLVER.STEPS", "(300,)"], "SOLVER.LR_SCHEDULER_NAME is 'WarmupCosineLR'"),
        (QUICK_START, ["SOLVER.GAMMA", "0.5"], "SOLVER.LR_SCHEDULER_NAME is 'WarmupCosineLR'"),
        (QUICK_START, ["SOLVER.WARMUP_FACTOR", "0.1", "SOLVER.WARMUP_ITERS", "0"], "_ITERS is 0"),
        (QUICK_START, ["DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", "9"], "MODEL.LOAD_PROPOSALS is"),
        (RETINANET, ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.5"], ARCHITECTURE),
        (RETINANET, ["MODEL.ROI_MASK_HEAD.CONV_DIM", "64"], ARCHITECTURE),
        (RETINANET, ["MODEL.MASK_ON", "True"], ARCHITECTURE),
        (RETINANET, ["MODEL.RPN.NMS_THRESH", "0.5"], ARCHITECTURE),
        (RETINANET, ["MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", "0.5",
                     "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou"], "BBOX_REG_LOSS_TYPE is"),
        (RETINANET, ["MODEL.RPN.NMS_THRESH", "0.5", *DENSE], ARCHITECTURE),
        (RETINANET, ["MODEL.RETINANET.FOCAL_LOSS_GAMMA", "1.0", *DENSE], "OHEM.FOCAL_LOSS is"),
        (FAST, ["MODEL.RPN.NMS_THRESH", "0.5"], "MODEL.PROPOSAL_GENERATOR.NAME is"),
        (FAST, ["MODEL.ANCHOR_GENERATOR.SIZES", "[[8]]"], "MODEL.PROPOSAL_GENERATOR.NAME is"),
        (C4, ["MODEL.ROI_BOX_HEAD.FC_DIM", "512"], HEADS),
        (C4, ["MODEL.FPN.OUT_CHANNELS", "512"], "MODEL.BACKBONE.NAME is"),
        # What is read, or changes nothing by itself.
        (QUICK_START, ["MODEL.RPN.NMS_THRESH", "0.5", "MODEL.FPN.NORM", "BN"], None),
        (QUICK_START, ["MODEL.ROI_MASK_HEAD.NUM_CONV", "0", "SOLVER.STEPS", "()"], None),
        (QUICK_START, ["MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.CONV_DIM", "64"], None),
        (QUICK_START, ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask"], None),
        (QUICK_START, ["MODEL.WEIGHTS", "x", "OUTPUT_DIR", "x", "SEED", "2"], None),
        (QUICK_START, ["MODEL.ROI_HEADS.OHEM.HARD_FRACTION", "0.3"], None),
        (QUICK_START, ["MODEL.TIMM.NAME", "resnet50",
                       "MODEL.BACKBONE.NAME", "build_timm_fpn_backbone"], None),
        (RETINANET, ["MODEL.ANCHOR_GENERATOR.SIZES", "[[8]]", "MODEL.RESNETS.DEPTH", "101"], None),
        (RETINANET, ["MODEL.RETINANET.NUM_CLASSES", "3", *DENSE,
                     "MODEL.RETINANET.OHEM.NMS_THRESH", "0.5"], None),
        (RETINANET, ["MODEL.RETINANET.FOCAL_LOSS_GAMMA", "1.0", *DENSE,
                     "MODEL.RETINANET.OHEM.START_ITER", "5"], None),
        (RETINANET, ["MODEL.RETINANET.FOCAL_LOSS_GAMMA", "1.0"], None),
        (QUICK_START, ["MODEL.META_ARCHITECTURE", "RetinaNet",
                       "MODEL.ROI_HEADS.NAME", "StandardROIHeads"], None),
        (RETINANET, ["MODEL.FPN.OUT_CHANNELS", "32", "SOLVER.STEPS", "(9,)"], None),
        (PANOPTIC, ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", "MODEL.ROI_BOX_HEAD.NORM", "BN"], None),
        (C4, ["MODEL.RESNETS.DEPTH", "101", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "7"], None),
    ],
)  # fmt: skip
def test_settings(caplog, file, opts, reason):
    cfg = load_config(file, opts)
    caplog.clear()
    warn_of_unread_settings(cfg, True, opts)
    if reason is None:
        assert caplog.text == ""
    else:
        (message,) = caplog.messages
        assert message.startswith(f"{opts[0]} is ")
        assert ", to no effect: " in message
        assert reason in message


def test_a_model_of_timm_in_a_file(caplog, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"_BASE_: {QUICK_START}\nMODEL:\n  TIMM:\n    NAME: resnet50\n")
    cfg = load_config(str(file))
    warn_of_unread_settings(cfg, True, [])
    assert caplog.text.count("MODEL.TIMM.NAME is 'resnet50', to no effect") == 1
    warn_of_unread_settings(cfg, True, PLAIN)
    assert caplog.text.count("MODEL.TIMM.NAME") == 1


def test_what_is_of_training_alone(caplog):
    opts = ["SOLVER.STEPS", "(300,)"]
    warn_of_unread_settings(load_config(QUICK_START, opts), False, opts)
    assert caplog.text == ""


@pytest.mark.parametrize(("training", "augments"), [(True, False), (False, True), (False, False)])
def test_valid_ranges_without_augmentation(caplog, training, augments):
    opts = ["INPUT.VALID_RANGES", "((128, 0, 9),)", "TEST.AUG.ENABLED", str(augments)]
    warn_of_unread_settings(load_config(QUICK_START, opts), training, opts)
    is_unread = "INPUT.VALID_RANGES is ((128, 0, 9),), to no effect: TEST.AUG" in caplog.text
    assert is_unread == (not training and not augments)


def test_a_model_of_the_users_own_may_read_any_key(caplog, monkeypatch):
    def build_mine(cfg, shape): ...

    build_mine.__module__ = "mine"
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_mine", build_mine)
    opts = ["MODEL.BACKBONE.NAME", "build_mine", "MODEL.FPN.OUT_CHANNELS", "32"]
    warn_of_unread_settings(load_config(QUICK_START, opts), True, opts)
    assert caplog.text == ""
