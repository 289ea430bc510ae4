from dataclasses import fields

import pytest
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.modeling.roi_heads import ROIHeads, StandardROIHeads

from ohem_d2 import (
    BoxVotingOptions,
    OHEMCascadeROIHeads,
    OHEMOptions,
    OHEMROIHeads,
    with_ohem,
)
from ohem_d2.errors import InputError


@pytest.fixture
def roi_heads():
    return model_zoo.get_config(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
    ).model.roi_heads


def test_the_counterpart_with_options(roi_heads):
    mining = with_ohem(roi_heads, nms_thresh=0.6)
    assert mining._target_ is OHEMROIHeads
    assert roi_heads._target_ is StandardROIHeads  # the one given stays as it is
    assert instantiate(mining).ohem == OHEMOptions(nms_thresh=0.6)
    mining.ohem.scope = "batch"
    mining.box_voting.rounds = 2
    again = instantiate(with_ohem(mining, nms_thresh=0.5))
    assert type(again) is OHEMROIHeads
    assert again.ohem == OHEMOptions(nms_thresh=0.5, scope="batch")
    assert again.box_voting == BoxVotingOptions(rounds=2)
    assert instantiate(mining).ohem == OHEMOptions(nms_thresh=0.6, scope="batch")


OTHERS = {"sampler": "RandomSampler", "nms_thresh": 0.6, "scope": "batch",
          "max_foreground_fraction": 0.25, "hard_fraction": 0.25,
          "start_iter": 5, "bg_iou_lo": 0.1, "loss_weight_cls": 2.0, "loss_weight_box_reg": 2.0,
          "max_candidates": 300, "cascade_stages": (0, 2)}  # fmt: skip


@pytest.mark.parametrize("option", fields(OHEMOptions), ids=lambda f: f.name)
def test_every_option(option):
    cascade = model_zoo.get_config("common/models/cascade_rcnn.py").model.roi_heads
    value = OTHERS[option.name]
    expected = OHEMOptions(**{option.name: value})
    assert expected != OHEMOptions()
    assert instantiate(with_ohem(cascade, **{option.name: value})).ohem == expected
    mining = with_ohem(cascade)
    mining.ohem[option.name] = value
    assert instantiate(mining).ohem == expected
    # Without with_ohem, as from the command line.
    cascade._target_ = OHEMCascadeROIHeads
    cascade.ohem = {option.name: value}
    assert instantiate(cascade).ohem == expected


def test_a_whole_model():
    with pytest.raises(InputError, match=r"expected its node model\.roi_heads"):
        with_ohem(model_zoo.get_config("common/models/cascade_rcnn.py").model)


def test_unknown_options(roi_heads):
    with pytest.raises(InputError, match=r"nms_tresh is unknown, expected one of sampler,"):
        with_ohem(roi_heads, nms_tresh=0.5)


def test_after_a_config_was_saved_and_loaded(roi_heads, tmp_path):
    file = str(tmp_path / "config.yaml")
    LazyConfig.save(with_ohem(roi_heads, scope="batch"), file)
    saved = LazyConfig.load(file)
    heads = instantiate(saved)
    assert type(heads) is OHEMROIHeads
    assert heads.ohem == OHEMOptions(scope="batch")
    assert with_ohem(saved)._target_ is OHEMROIHeads


def test_heads_that_have_no_counterpart():
    with pytest.raises(InputError, match="no mining head for ROIHeads, expected one of Standard"):
        with_ohem(LazyCall(ROIHeads)(num_classes=3))


@pytest.mark.parametrize("given", [None, OHEMROIHeads, "model.roi_heads"])
def test_no_node_of_a_config(given):
    with pytest.raises(
        InputError, match="^with_ohem was given .*, expected the node model.roi_hea"
    ):
        with_ohem(given)
