"""Parts of a model that do not fit together."""

import pytest
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.modeling.roi_heads import StandardROIHeads
from omegaconf import OmegaConf
from small_models import NARROW_OPTS

from ohem_d2.errors import InputError
from ohem_d2.training.lazy_shapes import check_shapes

HEADS, RPN = "model.roi_heads", "model.proposal_generator"


def narrow(name):
    cfg = model_zoo.get_config(f"common/models/{name}.py")
    for key, value in NARROW_OPTS.items() if name == "mask_rcnn_fpn" else ():
        OmegaConf.update(cfg, key, OmegaConf.create(f"x: {value}").x)
    return cfg


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("mask_rcnn_fpn", f"{RPN}.anchor_generator.strides", [8, 16, 32, 64, 128],
         rf"^{RPN}.anchor_generator.strides is \[8, .*, expected \[4, 8, 16, 32, 64\], those of"),
        ("mask_rcnn_fpn", f"{RPN}.head.num_anchors", 9, r"head.num_anchors is 9, expected 3, as"),
        ("mask_rcnn_fpn", f"{RPN}.head.box_dim", 5, r"head.box_dim is 5, expected 4, as"),
        ("mask_rcnn_fpn", f"{RPN}.head.in_channels", 8, r"head.in_channels is 8, expected \d+, as"),
        ("mask_rcnn_fpn", f"{HEADS}.box_pooler.scales", [0.125, 0.0625, 0.03125, 0.015625],
         rf"^{HEADS}.box_pooler.scales is .*, expected \[0.25, 0.125, .*each of .*_in_features$"),
        ("mask_rcnn_fpn", f"{HEADS}.mask_pooler.scales", [0.25], "mask_pooler.scales is .0.25.,"),
        ("mask_rcnn_fpn", f"{HEADS}.box_in_features", ["p2", "p9"],
         rf"^{HEADS}.box_in_features is .*, expected some of p2, .*p6, which model.backbone makes "
         r".model.backbone.in_features is \['res2', 'res3', "),
        ("mask_rcnn_fpn", f"{HEADS}.box_pooler.output_size", 14,
         r"box_head.input_shape.channels, .* make .*box_pooler.output_size is 14 x 14, of \d+ ch"),
        ("mask_rcnn_fpn", f"{HEADS}.box_predictor.input_shape.channels", 512,
         r"predictor.input_shape.channels is for 512 inputs, expected \d+, as .*box_head has"),
        ("mask_rcnn_fpn", "model.backbone.in_features", ["res2", "res3", "res4"],
         f"^{RPN}.in_features is .* some of p2, .*backbone.in_features is .'res2', 'res3', 'res4'"),
        ("mask_rcnn_c4", f"{HEADS}.pooler.scales", [0.25], r"pooler.scales is .*\[0.0625\]: 1 / s"),
        ("cascade_rcnn", f"{HEADS}.box_predictors[1].input_shape.channels", 512,
         r"box_predictors.1.input_shape.channels is for 512 inputs"),
        ("retinanet", "model.anchor_generator.strides", [4, 8, 16, 32, 64],
         "^model.anchor_generator.strides is .*, those of model.head_in_features"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(name, key, value, message):
    cfg = narrow(name)
    check_shapes(instantiate(cfg.model))
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(InputError, match=message):
        check_shapes(instantiate(cfg.model))


def test_heads_of_the_users_own_use_what_they_get_as_they_like():
    class Mine(StandardROIHeads):
        pass

    cfg = narrow("mask_rcnn_fpn")
    cfg.model.roi_heads.box_predictor.input_shape.channels = 512
    model = instantiate(cfg.model)
    model.roi_heads.__class__ = Mine
    check_shapes(model)
