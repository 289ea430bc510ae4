"""Arguments of the parts of Python configs that nothing takes."""

from pathlib import Path

import detectron2
import pytest
from command_line import ROOT
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.matcher import Matcher
from omegaconf import OmegaConf

from ohem_d2 import OHEMROIHeads
from ohem_d2.errors import InputError
from ohem_d2.training.lazy_arguments import check_arguments

PARTS = ["model", "dataloader", "optimizer", "lr_multiplier"]
MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"


class Mine:
    def __init__(self, size=1, **others):
        self.size, self.others = size, others


def of_size(size, *, color="red"):
    return size, color


def test_all_python_configs_of_the_zoo_and_of_the_project():
    zoo = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    files = [*zoo.rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    configs = [LazyConfig.load(str(x)) for x in files]
    configs = [x for x in configs if "model" in x]
    assert len(configs) > 20
    for cfg in configs:
        check_arguments(cfg, PARTS, "x.py")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("model.roi_heads.num_class", "num_classes"),
        ("model.roi_heads.mask_pooling", "mask_pooler"),
        ("model.roi_heads.box_head.fc_dim", "fc_dims"),
        ("model.proposal_generator.anchor_generator.size", "sizes"),
        ("model.pixel_means", "pixel_mean"),
        ("model.backbone.bottom_up.freeze", "freeze_at"),
        ("dataloader.train.aspect_ratio_groupng", "aspect_ratio_grouping"),
        ("dataloader.train.pin_memry", "pin_memory"),
        ("dataloader.train.mapper.use_instance_masks", "use_instance_mask"),
        ("dataloader.train.mapper.augmentations.0.max_sizes", "max_size"),
        ("optimizer.momentm", "momentum"),
        ("lr_multiplier.warmup_len", "warmup_length"),
        ("lr_multiplier.scheduler.milestone", "milestones"),
    ],
)
def test_an_unknown_argument_and_the_one_that_was_meant(key, nearest):
    cfg = model_zoo.get_config(MASK_RCNN)
    OmegaConf.update(cfg, key, 3, force_add=True)
    name = key.rpartition(".")[2]
    message = f"^{key} is 3 in x.py, or .* has no argument {name}: expected one of .*, the nearest "
    with pytest.raises(InputError, match=f"{message}is {nearest}$"):
        check_arguments(cfg, PARTS, "x.py")


def test_a_class_in_place_of_what_it_makes():
    cfg = model_zoo.get_config(MASK_RCNN)
    cfg.model.roi_heads = OHEMROIHeads
    message = r"^model.roi_heads in x.py, .* is the class OHEMROIHeads, expected .* L\(OHEMROIHead"
    with pytest.raises(InputError, match=message):
        check_arguments(cfg, PARTS, "x.py")
    cfg = model_zoo.get_config(MASK_RCNN)
    cfg.model.roi_heads.proposal_matcher = Matcher  # of a parameter that does not say its kind
    message = r"^model.roi_heads.proposal_matcher in x.py, .* is the class Matcher, .* L\(Matcher\)"
    with pytest.raises(InputError, match=message):
        check_arguments(cfg, PARTS, "x.py")
    cfg = model_zoo.get_config(MASK_RCNN)
    cfg.model.backbone.bottom_up.stem.norm = FrozenBatchNorm2d  # which takes a class
    check_arguments(cfg, PARTS[:1], "x.py")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.roi_heads.box_predictor.cls_agnostic_bbox_reg", "false", "True or False"),
        ("dataloader.train.mapper.use_instance_mask", "False", "True or False"),
        ("dataloader.train.mapper.is_train", "yes", "True or False"),
        ("model.roi_heads.box_predictor.test_topk_per_image", "100", "an integer"),
        ("model.roi_heads.box_predictor.test_nms_thresh", "0.5", "a number"),
    ],
)
def test_a_text_in_place_of_another_kind(key, value, expected):
    cfg = model_zoo.get_config(MASK_RCNN)
    OmegaConf.update(cfg, key, value, force_add=True)
    message = f"^{key} in x.py, or the settings that change it, is '{value}', expected {expected}$"
    with pytest.raises(InputError, match=message):
        check_arguments(cfg, PARTS, "x.py")


def test_arguments_of_the_users_own():
    cfg = OmegaConf.create({"a": LazyCall(Mine)(size=2, anything=3)}, flags={"allow_objects": True})
    check_arguments(cfg, ["a", "nothing"], "x.py")
    cfg.b = LazyCall(of_size)(size=1, color="blue")
    check_arguments(cfg, ["b"], "x.py")
    cfg.b.colour = "blue"
    with pytest.raises(InputError, match="of_size has no argument colour: expected one of size, c"):
        check_arguments(cfg, ["b"], "x.py")
