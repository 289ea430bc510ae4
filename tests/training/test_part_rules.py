"""Arguments of Detectron2's classes, wherever a Python config makes one."""

import pytest
from detectron2 import model_zoo
from detectron2.config import instantiate
from omegaconf import OmegaConf

from ohem_d2.errors import InputError
from ohem_d2.training.part_rules import check_parts

HEADS, RPN = "roi_heads", "proposal_generator"


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "mask_rcnn_c4", "mask_rcnn_vitdet",
                                  "cascade_rcnn", "retinanet", "fcos", "panoptic_fpn"])  # fmt: skip
def test_models_of_the_zoo(name):
    check_parts(model_zoo.get_config(f"common/models/{name}.py"), ["model", "nothing"])


@pytest.mark.parametrize(
    ("name", "part", "argument", "value", "expected"),
    [
        ("mask_rcnn_fpn", f"{HEADS}.proposal_matcher", "thresholds", [0.5, 0.4], "increasing"),
        ("mask_rcnn_fpn", f"{HEADS}.proposal_matcher", "thresholds", None, "a list with at"),
        ("mask_rcnn_fpn", f"{HEADS}.proposal_matcher", "labels", [0, 2], "ends with 1"),
        ("mask_rcnn_fpn", f"{RPN}.anchor_matcher", "labels", [0, 1],
         "3 labels, one more than model.proposal_generator.anchor_matcher.thresholds has"),
        ("mask_rcnn_fpn", f"{RPN}.box2box_transform", "weights", [0, 0, 1, 1], "4 numbers above 0"),
        ("mask_rcnn_fpn", f"{RPN}.anchor_generator", "offset", 1, "a number in"),
        ("mask_rcnn_fpn", f"{HEADS}.mask_pooler", "sampling_ratio", -1, "an integer of|from 0"),
        ("mask_rcnn_fpn", "backbone", "fuse_type", "max", "'sum' or 'avg'"),
        ("retinanet", "anchor_matcher", "thresholds", [1.4], "each a number from 0 to 1"),
        ("retinanet", "anchor_generator", "sizes", [[-32]], "from 1"),
        ("cascade_rcnn", f"{HEADS}.proposal_matchers.1", "labels", [1], "a list of 0"),
        ("cascade_rcnn", f"{HEADS}.box_predictors.2", "test_nms_thresh", 5, "from 0 to 1"),
        ("cascade_rcnn", f"{HEADS}.box_predictors.0.box2box_transform", "weights", [1] * 5,
         "4 numbers above 0"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named_by_its_place(name, part, argument, value, expected):
    cfg = model_zoo.get_config(f"common/models/{name}.py")
    node = cfg.model
    for x in part.split("."):
        node = node[int(x) if x.isdecimal() else x]
    node[argument] = value
    with pytest.raises(
        InputError, match=rf"^model\.{part}\.{argument} is .*, expected .*{expected}"
    ):
        check_parts(cfg, ["model"])


def test_what_is_made_by_the_users_own_is_left_alone():
    cfg = model_zoo.get_config("common/models/mask_rcnn_fpn.py")
    matcher = cfg.model.roi_heads.proposal_matcher
    matcher._target_, matcher.labels = "mine.Matcher", "mine"
    check_parts(cfg, ["model"])


@pytest.mark.parametrize(
    ("key", "value"),
    [("dataloader.test.dataset.filter_empty", "maybe"), ("optimizer.nesterov", "False"),
     ("dataloader.train.mapper.use_instance_mask", 5), ("model.backbone.square_pad", 0),
     ("model.roi_heads.proposal_matcher.allow_low_quality_matches", "no"),
     ("dataloader.train.mapper.augmentations.1.horizontal", "left")],
)  # fmt: skip
def test_what_is_on_or_off(key, value):
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    OmegaConf.update(cfg, key, value, force_add=True)
    parts = ["model", "dataloader.train", "dataloader.test", "optimizer"]
    if key == "model.backbone.square_pad":  # which is a number
        return check_parts(cfg, parts)
    with pytest.raises(InputError, match=f"^{key} is {value!r}, expected True or False$"):
        check_parts(cfg, parts)


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_no_function(split):
    cfg = model_zoo.get_config("common/data/coco.py")
    cfg.dataloader[split].collate_fn = None
    check_parts(cfg, [f"dataloader.{split}"])
    cfg.dataloader[split].collate_fn = 7
    with pytest.raises(InputError, match="collate_fn is 7, expected a function, or null"):
        check_parts(cfg, [f"dataloader.{split}"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"milestones": [60000, 30000]}, "expected null, or a list of numbers"),
        ({"milestones": [0, 30000]}, "numbers above 0, in increasing order"),
        ({"milestones": [30000]}, "expected 3 entries, as many as values: .*values is .1.0, 0.1"),
        ({"num_updates": 95000}, "expected 2 entries, one less than values, with num_updates"),
        ({"num_updates": 70000, "milestones": [6, 70000]}, "expected less than .*, which is 70000"),
        ({"num_updates": 90000, "milestones": [60000, 80000]}, None),
        ({"num_updates": 90000, "milestones": None}, None),
        ({"milestones": [6, 8, 9]}, None),
    ],
)
def test_milestones(change, expected):
    cfg = model_zoo.get_config("common/coco_schedule.py")
    cfg.lr_multiplier = cfg.lr_multiplier_1x
    cfg.lr_multiplier.scheduler.update(change)
    if expected is None:
        check_parts(cfg, ["lr_multiplier"])
        instantiate(cfg.lr_multiplier)
        return
    with pytest.raises(InputError, match=f"^lr_multiplier.scheduler.milestones is .*{expected}"):
        check_parts(cfg, ["lr_multiplier"])
    with pytest.raises((ValueError, TypeError)):  # Detectron2, too
        instantiate(cfg.lr_multiplier)
