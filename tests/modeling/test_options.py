"""The options, from config keys and from arguments."""

import math

import pytest
from detectron2.config import get_cfg
from detectron2.modeling.roi_heads import build_roi_heads
from small_heads import SHAPES, make_batch, make_cfg, make_heads, train_step

from ohem_d2 import OHEMOptions, OHEMROIHeads, add_ohem_config
from ohem_d2.config import ohem_options
from ohem_d2.errors import InputError


def test_no_config_keys_needed():
    cfg = make_cfg()
    del cfg.MODEL.ROI_HEADS["OHEM"]
    assert build_roi_heads(cfg, SHAPES).ohem == OHEMOptions()


def test_keys_that_are_there_keep_their_values():
    cfg = make_cfg("MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 1.0)
    cfg.MODEL.TIMM.NAME = "resnet18"
    cfg.DATASETS.UNREADABLE_IMAGES = "skip"
    del cfg.MODEL.ROI_HEADS.OHEM["START_ITER"]
    add_ohem_config(cfg)
    options = ohem_options(cfg)
    assert (options.hard_fraction, options.start_iter) == (1.0, 0)
    assert (cfg.MODEL.TIMM.NAME, cfg.DATASETS.UNREADABLE_IMAGES) == ("resnet18", "skip")


def test_a_value_in_place_of_the_keys():
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.OHEM = True
    with pytest.raises(InputError, match="^MODEL.ROI_HEADS.OHEM is True, expected keys below it: "):
        add_ohem_config(cfg)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ohem", {"hard_fraction": 0.3}, r"^ohem is {'hard_fraction': 0.3}, expected OHEMOptions"),
        (
            "sampler",
            "OHEMSampler",
            "the sampler is 'OHEMSampler', which cannot be called, expected",
        ),
        ("sampler", None, "the sampler is None, which cannot be called"),
        ("class_names", "dog", "class_names is 'dog', expected a list of names"),
    ],
)
def test_attributes_that_are_set_to_something_else(name, value, words):
    heads = make_heads()

    def set_and_train():
        setattr(heads, name, value)
        train_step(heads, *make_batch(1, [(2, 30)]))

    with pytest.raises(InputError, match=words):
        set_and_train()


def test_a_budget_that_is_no_integer():
    given = OHEMROIHeads.from_config(make_cfg(), SHAPES) | {"batch_size_per_image": 10.5}
    with pytest.raises(InputError, match="BATCH_SIZE_PER_IMAGE is 10.5, expected an integer of 1"):
        OHEMROIHeads(**given)


def test_built_from_arguments():
    given = OHEMROIHeads.from_config(make_cfg(), SHAPES)
    given["ohem"] = OHEMOptions(nms_thresh=0.5, scope="batch")
    heads = OHEMROIHeads(**given)
    assert heads.ohem.nms_thresh == 0.5
    mined, _, _ = train_step(heads, *make_batch(1, [(2, 30)]))
    assert len(mined[0]) == 8
    del given["ohem"]
    assert OHEMROIHeads(**given).ohem == OHEMOptions()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("OHEM.NMS_THRESH", -0.5, "a number of 0 or more"),
        ("OHEM.NMS_THRESH", math.nan, "a number of 0 or more"),
        ("OHEM.SCOPE", "batches", "'image' or 'batch'"),
        ("OHEM.MAX_FOREGROUND_FRACTION", 25, r"None or a number in \[0, 1\]"),
        ("OHEM.MAX_FOREGROUND_FRACTION", "none", r"None or a number in \[0, 1\]"),
        ("OHEM.HARD_FRACTION", 0.0, r"a number in \(0, 1\]"),
        ("OHEM.HARD_FRACTION", 50.0, r"a number in \(0, 1\]"),
        ("OHEM.START_ITER", -1, "an integer of 0 or more"),
        ("OHEM.BG_IOU_LO", -0.1, r"a number in \[0, 1\)"),
        ("OHEM.BG_IOU_LO", 0.5, "less than 0.5"),
        ("OHEM.LOSS_WEIGHT_CLS", -1.0, "a number from 0 to 1000"),
        ("OHEM.LOSS_WEIGHT_BOX_REG", math.inf, "a number from 0 to 1000"),
        ("OHEM.CASCADE_STAGES", (), "a tuple of at least one stage"),
        ("OHEM.CASCADE_STAGES", (0.5,), "a tuple of at least one stage"),
        ("OHEM.CASCADE_STAGES", (0, 0), "a tuple of at least one stage, .* and each once"),
        ("OHEM.CASCADE_STAGES", (1,), r"\(0,\), the default: OHEMROIHeads is not a cascade"),
        ("BATCH_SIZE_PER_IMAGE", 0, "an integer of 1 or more"),
    ],
)
def test_wrong_values_are_refused_when_the_model_is_built(key, value, expected):
    cfg = make_cfg(f"MODEL.ROI_HEADS.{key}", value)
    with pytest.raises(ValueError, match=f"MODEL.ROI_HEADS.{key} is .*, expected {expected}") as e:
        build_roi_heads(cfg, SHAPES)
    assert str(value) in str(e.value)


def test_both_weights_zero_are_refused():
    cfg = make_cfg(
        "MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_CLS", 0.0, "MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_BOX_REG", 0.0
    )
    with pytest.raises(ValueError, match=r"LOSS_WEIGHT_CLS and .*LOSS_WEIGHT_BOX_REG are both 0"):
        build_roi_heads(cfg, SHAPES)


def test_unknown_keys_are_refused():
    cfg = make_cfg()
    cfg.MODEL.ROI_HEADS.OHEM.NMS_TRESH = 0.5
    with pytest.raises(ValueError, match=r"OHEM.NMS_TRESH is unknown, expected one of SAMPLER, "):
        build_roi_heads(cfg, SHAPES)
