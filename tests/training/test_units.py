"""Numbers in another unit than Detectron2 takes them in."""

import re

import pytest
from detectron2.config import LazyConfig
from small_models import ZOO

from ohem_d2.errors import InputError
from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.key_checks import check_keys, check_lazy_keys
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.limits import warn_of_limits
from ohem_d2.training.no_learning import warn_of_no_learning
from ohem_d2.training.units import check_units
from ohem_d2.training.unread_keys import warn_of_unread_keys
from ohem_d2.training.unread_settings import warn_of_unread_settings

QUICK_START = str(CONFIGS / "quick_start.yaml")
MASK = str(ZOO / "COCO-InstanceSegmentation" / "mask_rcnn_R_50_FPN_1x.py")
CASCADE = str(ZOO / "Misc" / "cascade_mask_rcnn_R_50_FPN_3x.yaml")
MEAN, STD = "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"
SIZES, SMALLEST = "MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE"
OF_1 = [MEAN, "[0.485, 0.456, 0.406]", STD, "[0.229, 0.224, 0.225]"]


def check(opts, training=True, file=QUICK_START):
    cfg = load_config(file, opts)
    check_keys(cfg, training)
    check_units(cfg, training)


@pytest.mark.parametrize(
    ("opts", "error"),
    [
        (OF_1, r"PIXEL_MEAN is \[0.485, .*expected numbers such as \[123.675, 116.28, 103.53\]"),
        (OF_1[2:], r"PIXEL_STD is \[0.229, .*expected numbers such as \[58.395, 57.12, 57.375\]"),
        ([*OF_1[:2], STD, "[1.0, 1.0, 1.0]"], "PIXEL_MEAN is .*, since the values of an image are"),
        ([MEAN, "[0.5, 0.5, 0.5]", STD, "[255.0, 255.0, 255.0]"], r"MEAN is .*\[127.5, 127.5"),
        ([MEAN, "[0.0, 0.0, 0.0]", STD, "[0.5, 0.5, 0.5]"], r"PIXEL_STD is \[0.5"),
        (["INPUT.FORMAT", "YUV-BT.601", MEAN, "[103.0, 116.0, 123.0]", STD, "[57.0, 57.0, 58.0]"],
         "PIXEL_MEAN is .*, expected numbers from 0 to 1, as YUV-BT.601 has them"),
        ([SIZES, "[[0.05], [0.1], [0.2], [0.4], [0.8]]"], "SIZES is .* of pixels, from 1 to 1e"),
        ([SIZES, "[[0.5], [32], [64], [96], [128]]"], "SIZES is .* each a number of pixels"),
        ([SIZES, "[[0.25, 0.5]]"], "SIZES is .*, each a number of pixels"),
        ([SMALLEST, "128"], "MIN_SIZE is 128, expected less than 128, .*by INPUT.MIN_SIZE_TRAIN"),
        ([SMALLEST, "256"], "MIN_SIZE is 256, expected less than 128, the shorter side of images"),
        ([SMALLEST, "100", "INPUT.MIN_SIZE_TRAIN", "(96, 400)"], "is 100, .* less than 96"),
        ([SMALLEST, "200", "INPUT.MIN_SIZE_TRAIN", "(800,)"], "than 128, .*INPUT.MIN_SIZE_TEST"),
    ],
)  # fmt: skip
def test_what_would_be_of_no_use(opts, error):
    with pytest.raises(InputError, match=f"^MODEL.*{error}"):
        check(opts)


def test_a_retinanet_that_mines_takes_images_as_detectron2s():
    retinanet = str(ZOO / "COCO-Detection" / "retinanet_R_50_FPN_1x.yaml")
    for name in ("RetinaNet", "OHEMRetinaNet"):
        with pytest.raises(InputError, match="PIXEL_MEAN is"):
            check([*OF_1, "MODEL.META_ARCHITECTURE", name], file=retinanet)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ([MEAN, "[103.53, 116.28, 123.675]", STD, "[1.0, 1.0, 1.0]"], None),  # of Caffe's weights
        ([MEAN, "[123.675, 116.28, 103.53]"],
         f"{MEAN} is [123.675, 116.28, 103.53], ImageNet's means in the order of RGB, but INPUT"),
        (["INPUT.FORMAT", "RGB"], "in the order of BGR, but INPUT.FORMAT is 'RGB': expected [123"),
        (["INPUT.FORMAT", "RGB", MEAN, "[123.675, 116.28, 103.53]"], None),
        ([MEAN, "[0.0, 0.0, 0.0]", STD, "[255.0, 255.0, 255.0]"], None),
        ([MEAN, "[0.0, 0.0, 0.0]", STD, "[1.0, 1.0, 1.0]"], None),
        (["INPUT.FORMAT", "YUV-BT.601", *OF_1], None),
        (["INPUT.FORMAT", "L", MEAN, "[110.0]", STD, "[1.0]"], None),
        ([SIZES, "[[8], [16], [32], [64], [96]]"], None),
        ([SIZES, "[[1], [2], [3], [4], [5]]"], "SIZES has anchors of 5 pixels at most: they"),
        ([SIZES, "[[385], [400], [512], [600], [800]]"],
         f"{SIZES} has anchors of 385 pixels at least, more than 3 times the shorter side of im"),
        ([SIZES, "[[384], [400], [512], [600], [800]]"], None),
        ([SIZES, "[[512], [256], [128], [64], [32]]"],
         f"{SIZES} has anchors of 512 pixels on the finest feature map, and of 32 on the coarsest"),
        ([SIZES, "[[512], [256], [128], [64], [32]]", "MODEL.RPN.IN_FEATURES",
          "['p6', 'p5', 'p4', 'p3', 'p2']"], None),
        ([SMALLEST, "16"], None),
        ([SMALLEST, "40"], "MIN_SIZE is 40, a large part of 128, the shorter side of images by"),
        ([SMALLEST, "300", "INPUT.MIN_SIZE_TRAIN", "(0,)", "INPUT.MIN_SIZE_TEST", "0"], None),
        (["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(0.1, 0.1, 0.2, 0.2)"],
         "ROI_BOX_HEAD.BBOX_REG_WEIGHTS is [0.1, 0.1, 0.2, 0.2], numbers below 1, by which"),
        (["MODEL.RPN.BBOX_REG_WEIGHTS", "(0.1, 0.1, 0.2, 0.2)"], "MODEL.RPN.BBOX_REG_WEIGHTS is ["),
        (["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(1.0, 1.0, 0.5, 0.5)"], None),
    ],
)  # fmt: skip
def test_what_may_be_meant(caplog, opts, words):
    check(opts)
    assert bool(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


def test_each_stage_of_a_cascade(caplog):
    weights = "((10., 10., 5., 5.), (0.05, 0.05, 0.1, 0.1), (30., 30., 15., 15.))"
    check(["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", weights], file=CASCADE)
    assert "CASCADE_HEAD.BBOX_REG_WEIGHTS is [0.05, 0.05, 0.1, 0.1], numbers" in caplog.text


def test_what_was_trained_is_evaluated(caplog):
    check(OF_1, training=False)
    assert [x.split()[0] for x in caplog.messages] == [MEAN, STD]


def lazily(opts, training=True):
    cfg = load_lazy_config(MASK, ["train.device=cpu", *opts], training)
    check_units(cfg, training)


RPN, HEADS = "model.proposal_generator", "model.roi_heads"


@pytest.mark.parametrize(
    ("opts", "error"),
    [
        (["model.pixel_mean=[0.485,0.456,0.406]"], r"model.pixel_mean is \[0.485, .*123.675"),
        (["model.pixel_std=[0.229,0.224,0.225]"], r"model.pixel_std is \[0.229, .*58.395"),
        ([f"{RPN}.anchor_generator.sizes=[[0.05],[0.1],[0.2],[0.4],[0.8]]"],
         f"{RPN}.anchor_generator.sizes is .* pixels"),
        ([f"+{RPN}.min_box_size=640"], f"{RPN}.min_box_size is 640, expected less than 640, .* by "
         "dataloader.train.mapper.augmentations"),
        ([f"+{RPN}.min_box_size=700", "dataloader.train.mapper.augmentations=[]",
          "dataloader.test.mapper.augmentations.0.short_edge_length=600"],
         f"{RPN}.min_box_size is .* less than 600, .* by dataloader.test.mapper.augmentations"),
    ],
)  # fmt: skip
def test_python_configs(opts, error):
    with pytest.raises(InputError, match=f"^{error}"):
        lazily(opts)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ([f"{HEADS}.box_predictor.box2box_transform.weights=[0.1,0.1,0.2,0.2]"],
         f"{HEADS}.box_predictor.box2box_transform.weights is [0.1, 0.1, 0.2, 0.2], numbers below"),
        ([f"{RPN}.box2box_transform.weights=[0.1,0.1,0.2,0.2]"], f"{RPN}.box2box_transform.w"),
        ([f"{RPN}.anchor_generator.sizes=[[1],[2],[3],[4],[5]]"], "has anchors of 5 pixels"),
        ([f"{RPN}.anchor_generator.sizes=[[9600],[9600],[9600],[9600],[9600]]"],
         "has anchors of 9600 pixels at least, more than 3 times the shorter side of images by"),
        (["model.pixel_mean=[123.675,116.28,103.53]"], "but dataloader.train.mapper.image_format"),
        # Another mapper may read images on any scale.
        (["model.pixel_std=[0.2,0.2,0.2]", "dataloader.train.mapper._target_=my.Mapper"], None),
        ([f"+{RPN}.min_box_size=10"], None),
    ],
)  # fmt: skip
def test_what_may_be_meant_in_python_configs(caplog, monkeypatch, opts, words):
    monkeypatch.setattr("ohem_d2.training.lazy_config.check_targets", lambda *args: None)
    lazily(opts)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


@pytest.mark.parametrize(
    "path",
    [x for x in sorted(ZOO.rglob("*")) if x.suffix in (".yaml", ".py")]
    + [x for x in sorted(CONFIGS.rglob("*.yaml")) if x.parent.name != "parts"],
    ids=lambda x: f"{x.parent.name}/{x.name}",
)
def test_nothing_is_odd_in_the_model_zoo(caplog, path):
    if path.suffix == ".py":
        cfg = LazyConfig.load(str(path))
        if "common" in path.parts or not {"model", "dataloader", "train"} <= cfg.keys():
            pytest.skip("a part of other configs")
        cfg.train.device, cfg.train.init_checkpoint = "cpu", ""
        check_lazy_keys(cfg)
        check_units(cfg, True)
        warn_of_limits(cfg, True)
        warn_of_no_learning(cfg)
    else:
        cfg = load_config(str(path))
        check_units(cfg, True)
        warn_of_limits(cfg, True)
        warn_of_no_learning(cfg)
        warn_of_unread_keys(cfg, True)
        warn_of_unread_settings(cfg, True, [])
    assert not [x for x in caplog.records if x.name.startswith("ohem_d2")]


UNREAD = {
    "DATALOADER.REPEAT_THRESHOLD": "0.5",
    "DATASETS.PROPOSAL_FILES_TRAIN": "('p.pkl',)",
    "DATASETS.PROPOSAL_FILES_TEST": "('p.pkl',)",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": "2",
    "INPUT.CROP.SIZE": "[0.5, 0.5]",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": "0.5",
    "SOLVER.BASE_LR_END": "0.001",
    "SOLVER.NUM_DECAYS": "2",
    "TEST.AUG.MIN_SIZES": "(96, 128)",
    "TEST.PRECISE_BN.NUM_ITER": "10",
}


@pytest.mark.parametrize("key", UNREAD)
def test_keys_that_another_one_turns_off(caplog, key):
    off = {
        "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
        "SOLVER.CLIP_GRADIENTS.ENABLED": "False",
    }
    opts = [x for pair in {**off, key: UNREAD[key]}.items() for x in pair]
    warn_of_unread_keys(load_config(QUICK_START, opts), True, opts)
    assert len(caplog.messages) == 1
    words = rf"^{key} is .*, but nothing reads it: (MODEL|DATALOADER|INPUT|SOLVER|TEST)\S+ is "
    assert re.search(words, caplog.messages[0])


def test_what_the_command_line_turns_off(caplog):
    opts = ["SOLVER.CLIP_GRADIENTS.ENABLED", "False"]  # the config has other keys of it
    warn_of_unread_keys(load_config(QUICK_START, opts), True, opts)
    assert caplog.text == ""


def test_keys_of_a_training_do_not_matter_to_an_evaluation(caplog):
    warn_of_unread_keys(load_config(QUICK_START, ["DATALOADER.REPEAT_THRESHOLD", "0.5"]), False)
    assert caplog.text == ""


@pytest.mark.parametrize("threshold", ["0.0", "0.5"])
def test_a_sampler_that_repeats_nothing(caplog, threshold):
    sampler = ["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"]
    opts = [*sampler, "DATALOADER.REPEAT_THRESHOLD", threshold]
    warn_of_unread_keys(load_config(QUICK_START, opts), True)
    assert ("DATALOADER.REPEAT_THRESHOLD is 0.0, so" in caplog.text) == (threshold == "0.0")
