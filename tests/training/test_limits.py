"""Limits that are never reached."""

import pytest
from small_models import ZOO

from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.limits import warn_of_limits

QUICK_START = str(CONFIGS / "quick_start.yaml")
RETINANET = str(ZOO / "COCO-Detection" / "retinanet_R_50_FPN_1x.yaml")
MASK = str(ZOO / "COCO-InstanceSegmentation" / "mask_rcnn_R_50_FPN_1x.py")
POST, PRE = "MODEL.RPN.POST_NMS_TOPK_TRAIN", "MODEL.RPN.PRE_NMS_TOPK_TRAIN"


@pytest.mark.parametrize(
    ("file", "opts", "training", "words"),
    [
        (QUICK_START, [PRE, "10", POST, "2000"], True,
         f"{POST} is 2000, but there are 50 proposals at most: {PRE} is 10, of each of 5"),
        (QUICK_START, ["MODEL.RPN.POST_NMS_TOPK_TEST", "1001"], False, "_TEST is 1001, but there"),
        (QUICK_START, ["MODEL.RPN.POST_NMS_TOPK_TEST", "1000"], False, None),
        (QUICK_START, [PRE, "10"], False, None),
        (RETINANET, [PRE, "10"], True, None),
        (QUICK_START, ["INPUT.MAX_SIZE_TRAIN", "64"], True,
         "INPUT.MAX_SIZE_TRAIN is 64, less than INPUT.MIN_SIZE_TRAIN, which is (128,): no image "
         "has a shorter side of 128"),
        (QUICK_START, ["INPUT.MAX_SIZE_TEST", "64"], False, "MIN_SIZE_TEST, which is 128"),
        (QUICK_START, ["INPUT.MIN_SIZE_TRAIN", "(96,2000,3000)"], True, "of 2000 or 3000"),
        (QUICK_START, ["TEST.AUG.ENABLED", "True", "TEST.AUG.MAX_SIZE", "200"], False,
         "TEST.AUG.MAX_SIZE is 200, less than TEST.AUG.MIN_SIZES"),
        (QUICK_START, ["TEST.AUG.MAX_SIZE", "200"], False, None),
        (QUICK_START, ["INPUT.MAX_SIZE_TRAIN", "128"], True, None),
        (QUICK_START, ["INPUT.MIN_SIZE_TEST", "0", "INPUT.MAX_SIZE_TEST", "64"], False, None),
        (QUICK_START, ["INPUT.MAX_SIZE_TRAIN", "64"], False, None),
    ],
)  # fmt: skip
def test_limits(caplog, file, opts, training, words):
    cfg = load_config(file, opts)
    caplog.clear()
    warn_of_limits(cfg, training)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


AUGMENTATIONS = "dataloader.train.mapper.augmentations.0"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["model.proposal_generator.pre_nms_topk=[10,1000]"],
         "post_nms_topk.0 is 1000, but there are 50 proposals at most"),
        (["model.proposal_generator.post_nms_topk=[1000,5001]"], "post_nms_topk.1 is 5001"),
        ([f"{AUGMENTATIONS}.max_size=600"], f"{AUGMENTATIONS}.max_size is 600, less than"),
        (["dataloader.test.mapper.augmentations.0.short_edge_length=2000"], "side of 2000"),
        ([f"{AUGMENTATIONS}.max_size=800"], None),
    ],
)  # fmt: skip
def test_limits_of_python_configs(caplog, opts, words):
    cfg = load_lazy_config(MASK, ["train.device=cpu", *opts])
    caplog.clear()
    warn_of_limits(cfg, True)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text
