import pytest
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.modeling.roi_heads import ROIHeads, StandardROIHeads

from ohem_d2 import OHEMOptions, OHEMROIHeads, with_ohem
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
    again = instantiate(with_ohem(mining))
    assert type(again) is OHEMROIHeads
    assert again.ohem == OHEMOptions()
    assert instantiate(mining).ohem == OHEMOptions(nms_thresh=0.6, scope="batch")


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
