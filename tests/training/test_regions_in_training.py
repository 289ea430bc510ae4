"""Regions to ignore on their way from annotations to the model that is trained."""

import copy
import json
import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import RetinaNet, build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rrpn import RRPN
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from small_data import HEIGHT, WIDTH, write_coco, write_voc
from small_training import config, register_images

from ohem_d2 import (
    OHEMRPN,
    GroundTruth,
    IgnoreMapper,
    IgnoreRPN,
    OHEMRetinaNet,
    OHEMROIHeads,
    register_datasets,
)
from ohem_d2.data.shapes import draw_image
from ohem_d2.errors import InputError
from ohem_d2.modeling.mixin import OHEMMixin
from ohem_d2.training import ignore_regions
from ohem_d2.training.ignore_regions import is_region, use_ignore_regions_lazily, use_ignore_rpn
from ohem_d2.training.trainer import Trainer

MINING = ("MODEL.ROI_HEADS.NAME", "OHEMROIHeads")


def annotation(box, **marks):
    return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, **marks}


CROWD = annotation([40, 10, 30, 40], iscrowd=1)


def marked(name, *annotations):
    """Another data set, whose images have these annotations too."""
    records = copy.deepcopy(DatasetCatalog.get(name))
    for record in records:
        record["annotations"] += copy.deepcopy(annotations)
    return registered(f"{name} {len(DatasetCatalog.list())}", records)


def registered(name, records):
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=["dog", "cat"], evaluator_type="none")
    return name


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return register_images(tmp_path_factory.mktemp("images"))


def mappers(cfg):
    return DatasetMapper(cfg, True), IgnoreMapper(cfg, True)


def assert_same(x, y):
    assert x.keys() == y.keys()
    assert x["image"].equal(y["image"])
    assert type(x["instances"]) is type(y["instances"])
    mine, theirs = x["instances"].get_fields(), y["instances"].get_fields()
    assert mine["gt_boxes"].tensor.equal(theirs["gt_boxes"].tensor)
    assert mine["gt_classes"].equal(theirs["gt_classes"])


def test_without_regions_the_mapper_is_detectron2s(images, tmp_path):
    cfg = config(tmp_path, images, "INPUT.CROP.ENABLED", True)
    for record in DatasetCatalog.get(images):
        results = []
        for mapper in mappers(cfg):
            seed_all_rng(3)
            results.append((mapper(record), torch.get_rng_state(), np.random.get_state()[1]))
        assert_same(results[0][0], results[1][0])
        assert results[0][1].equal(results[1][1])
        assert (results[0][2] == results[1][2]).all()


def test_regions_go_through_the_augmentations_of_the_image(images, tmp_path):
    record = copy.deepcopy(DatasetCatalog.get(images)[1])
    assert (record["width"], record["height"]) == (WIDTH, HEIGHT) == (80, 60)
    record["annotations"] += [
        CROWD,
        annotation([60, 40, 100, 100], ignore=1),  # reaches beyond the image
        annotation([0, 0, 9, 9], iscrowd=1),  # is cropped away
        annotation([20, 20, 20, 20], difficult=1),
    ]
    crop, flip = T.CropTransform(10, 0, 70, 60), T.HFlipTransform(70)
    resize = T.ResizeTransform(60, 70, 120, 140)
    how = {"is_train": True, "augmentations": [crop, flip, resize], "image_format": "BGR"}
    plain = copy.deepcopy(record)
    plain["annotations"] = [*plain["annotations"][:2], plain["annotations"][-1]]
    expected = DatasetMapper(**how)(plain)["instances"]
    x = IgnoreMapper(**how)(record)["instances"]
    assert isinstance(x, GroundTruth)
    assert x.gt_boxes.tensor.equal(expected.gt_boxes.tensor)
    assert len(x) == 3
    # x from 40 to 70 is 30 to 60 after the crop, 10 to 40 when flipped, twice that when resized.
    assert x.ignore_regions.tensor.tolist() == [[20, 20, 80, 100], [0, 80, 40, 120]]
    y = IgnoreMapper(**how, ignore_difficult=True)(record)["instances"]
    assert len(y) == 2
    assert y.ignore_regions.tensor.tolist()[2:] == [[80, 40, 120, 80]]


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_masks_and_keypoints_of_objects_stay(images, mask_format):
    record = copy.deepcopy(DatasetCatalog.get(images)[1])
    for a in record["annotations"]:
        x, y, w, h = a["bbox"]
        a["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
        a["keypoints"] = [x, y, 2]
    size = [HEIGHT, WIDTH]
    crowd = {**CROWD, "segmentation": {"counts": [HEIGHT * WIDTH], "size": size}}
    record["annotations"].insert(0, crowd)
    how = {"is_train": True, "augmentations": [], "image_format": "BGR"}
    how |= {"use_instance_mask": True, "use_keypoint": True, "instance_mask_format": mask_format}
    x, y = (m(**how)(record)["instances"] for m in (IgnoreMapper, DatasetMapper))
    assert len(x.gt_masks) == len(x.gt_keypoints) == len(x) == len(y) == 2
    assert x.gt_keypoints.tensor.equal(y.gt_keypoints.tensor)
    assert x.ignore_regions.tensor.tolist() == [[40, 10, 70, 50]]


def test_an_image_of_regions_alone_has_no_object(images):
    record = {**DatasetCatalog.get(images)[1], "annotations": [annotation([1, 2, 9, 9], ignore=1)]}
    x = IgnoreMapper(is_train=True, augmentations=[], image_format="BGR")(record)["instances"]
    assert len(x) == 0
    assert x.ignore_regions.tensor.tolist() == [[1, 2, 10, 11]]


def test_what_is_a_region():
    assert not is_region(annotation([1, 1, 2, 2]))
    assert is_region(annotation([1, 1, 2, 2], iscrowd=1))
    assert is_region(annotation([1, 1, 2, 2], iscrowd=0, ignore=1))
    assert not is_region(annotation([1, 1, 2, 2], difficult=1))
    assert is_region(annotation([1, 1, 2, 2], difficult=1), ignore_difficult=True)


def test_a_training_set_with_crowds_gets_the_rpn_that_ignores_them(images, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ohem_d2")
    dataset = marked(images, CROWD, annotation([1, 1, 5, 5], ignore=1))
    trainer = Trainer(config(tmp_path, dataset, *MINING))
    assert type(trainer.model.proposal_generator) is IgnoreRPN
    assert "18 regions to ignore are marked in the training set (9 by 'iscrowd', 9 by " in (
        caplog.text
    )
    assert "MODEL.PROPOSAL_GENERATOR.NAME is IgnoreRPN in place of RPN" in caplog.text
    seen = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    trainer.train()
    assert len(seen) == 4 * trainer.max_iter
    assert all(1 <= len(x["instances"].ignore_regions) <= 2 for x in seen)


@pytest.mark.parametrize(
    ("annotations", "opts", "expected"),
    [
        ((), MINING, RPN),
        ((annotation([1, 1, 9, 9], difficult=1),), MINING, RPN),
        (
            (annotation([1, 1, 9, 9], difficult=1),),
            (*MINING, "INPUT.IGNORE_REGIONS.DIFFICULT", True),
            IgnoreRPN,
        ),
        ((CROWD,), (*MINING, "INPUT.IGNORE_REGIONS.ENABLED", False), RPN),
        ((CROWD,), ("MODEL.ROI_HEADS.NAME", "StandardROIHeads"), RPN),
    ],
)
def test_which_rpn_is_used(images, tmp_path, caplog, annotations, opts, expected):
    cfg = config(tmp_path, marked(images, *annotations), *opts)
    used = use_ignore_rpn(cfg)
    assert type(build_model(used).proposal_generator) is expected
    assert cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN"  # the user's config stays as it is
    warned = "heads that do not mine take what lies in them for background" in caplog.text
    assert warned == (opts[-1] == "StandardROIHeads")
    x = next(iter(Trainer.build_train_loader(cfg)))[0]["instances"]
    keeps = bool(annotations) and expected is IgnoreRPN
    assert isinstance(x, GroundTruth) == keeps


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
            "DIFFICULT is True, but MODEL.ROI_HEADS.NAME is StandardROIHeads, which ignores no",
        ),
        (
            (*MINING, "INPUT.IGNORE_REGIONS.ENABLED", False),
            "DIFFICULT is True, but INPUT.IGNORE_REGIONS.ENABLED is False: expected False, or",
        ),
    ],
)
def test_difficult_objects_need_heads_that_ignore_them(images, tmp_path, opts, message):
    cfg = config(tmp_path, images, *opts, "INPUT.IGNORE_REGIONS.DIFFICULT", True)
    with pytest.raises(InputError, match=message):
        Trainer(cfg)


def test_a_warning_if_nothing_is_difficult(images, tmp_path, caplog):
    cfg = config(tmp_path, images, *MINING, "INPUT.IGNORE_REGIONS.DIFFICULT", True)
    assert use_ignore_rpn(cfg) is cfg
    assert "is marked as difficult, expected some" in caplog.text


def test_wrong_values_are_refused(images, tmp_path):
    cfg = config(tmp_path, images, *MINING)
    cfg.INPUT.IGNORE_REGIONS.DIFFICULT = "ignore"
    with pytest.raises(InputError, match=r"DIFFICULT is 'ignore', expected True or False"):
        use_ignore_rpn(cfg)
    cfg = lazy_config(train={"ignore_regions": {"hard": True}})
    with pytest.raises(InputError, match="hard is unknown, expected one of enabled, difficult"):
        use_ignore_regions_lazily(cfg, [images])


def lazy_config(generator=RPN, mapper=DatasetMapper, heads=OHEMROIHeads, train=None):
    """What is looked at of a Python config."""
    model = {"proposal_generator": L(generator)(), "roi_heads": L(heads)()}
    dataloader = {"train": {"mapper": L(mapper)(is_train=True, augmentations=[])}}
    return OmegaConf.create(
        {"model": model, "dataloader": dataloader, "train": train or {}},
        flags={"allow_objects": True},
    )


def targets_of(cfg):
    nodes = (cfg.model.proposal_generator, cfg.dataloader.train.mapper)
    return [getattr(x["_target_"], "__name__", x["_target_"]) for x in nodes]


class OwnMapper:
    """Knows nothing of regions."""


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, ["IgnoreRPN", "IgnoreMapper"]),
        ({"generator": "detectron2.modeling.proposal_generator.RPN"}, ["IgnoreRPN", None]),
        ({"generator": RRPN}, ["IgnoreRRPN", "IgnoreMapper"]),
        ({"heads": "detectron2.modeling.StandardROIHeads"}, ["RPN", "DatasetMapper"]),
        ({"train": {"ignore_regions": {"enabled": False}}}, ["RPN", "DatasetMapper"]),
        ({"mapper": OwnMapper}, ["RPN", "OwnMapper"]),
    ],
)
def test_python_configs(images, caplog, kwargs, expected):
    cfg = lazy_config(**kwargs)
    use_ignore_regions_lazily(cfg, [marked(images, CROWD)])
    assert all(b in (None, a) for a, b in zip(targets_of(cfg), expected)), targets_of(cfg)
    assert "ignore_difficult" not in cfg.dataloader.train.mapper
    if "mapper" in kwargs:
        assert "dataloader.train.mapper is OwnMapper, which drops regions to ignore" in caplog.text


def test_python_configs_without_regions_stay(images):
    cfg = lazy_config()
    use_ignore_regions_lazily(cfg, [images])
    assert targets_of(cfg) == ["RPN", "DatasetMapper"]


def test_difficult_objects_in_python_configs(images):
    cfg = lazy_config(train={"ignore_regions": {"difficult": True}})
    use_ignore_regions_lazily(cfg, [marked(images, annotation([1, 1, 9, 9], difficult=1))])
    assert cfg.dataloader.train.mapper.ignore_difficult is True
    cfg = lazy_config(heads="detectron2.modeling.StandardROIHeads", train=cfg.train)
    with pytest.raises(
        InputError, match=r"ignore_regions\.difficult is True, but model\.roi_heads"
    ):
        use_ignore_regions_lazily(cfg, [images])


def test_an_rpn_of_the_users_own_is_named(caplog):
    class CenterNet(RPN):
        pass

    key = "MODEL.PROPOSAL_GENERATOR.NAME"
    ignore_regions._log_generator(key, "CenterNet", CenterNet)
    assert "is CenterNet, which takes what lies in regions to ignore for background" in caplog.text


def test_an_rpn_that_mines_ignores_regions_itself(images, tmp_path, caplog):
    name = marked(images, CROWD)
    cfg = config(tmp_path, name, *MINING, "MODEL.PROPOSAL_GENERATOR.NAME", "OHEMRPN")
    assert type(build_model(use_ignore_rpn(cfg)).proposal_generator) is OHEMRPN
    cfg = lazy_config(generator=OHEMRPN)
    use_ignore_regions_lazily(cfg, [name])
    assert targets_of(cfg) == ["OHEMRPN", "IgnoreMapper"]
    assert not [x for x in caplog.records if x.levelname == "WARNING"]


@pytest.mark.parametrize("kind", ["OHEMRetinaNet", "RetinaNet"])
def test_one_stage_models_ignore_regions_if_they_mine(images, tmp_path, caplog, kind):
    name, difficult = marked(images, CROWD), ("INPUT.IGNORE_REGIONS.DIFFICULT", True)
    opts = "MODEL.META_ARCHITECTURE", kind, "MODEL.ROI_HEADS.NAME", "StandardROIHeads"
    cfg = config(tmp_path, name, *opts)
    assert use_ignore_rpn(cfg) is cfg
    lazy = OmegaConf.create(
        {"model": L(OHEMRetinaNet if "OHEM" in kind else RetinaNet)(),
         "dataloader": {"train": {"mapper": L(DatasetMapper)(is_train=True, augmentations=[])}}},
        flags={"allow_objects": True},
    )  # fmt: skip
    use_ignore_regions_lazily(lazy, [name])
    x = next(iter(Trainer.build_train_loader(cfg)))[0]["instances"]
    expected = IgnoreMapper if kind == "OHEMRetinaNet" else DatasetMapper
    assert lazy.dataloader.train.mapper["_target_"] is expected
    assert isinstance(x, GroundTruth) == (expected is IgnoreMapper)
    warnings = [x.message for x in caplog.records if x.levelname == "WARNING"]
    assert len(warnings) == (0 if expected is IgnoreMapper else 2)
    assert all("what lies in them for background" in x for x in warnings)
    cfg = config(tmp_path, name, *opts, *difficult)
    if expected is IgnoreMapper:
        use_ignore_rpn(cfg)
        return
    message = (
        "DIFFICULT is True, but MODEL.META_ARCHITECTURE is RetinaNet, which ignores no regions: "
        "expected False, or OHEMRetinaNet, and ENABLED True"
    )
    with pytest.raises(InputError, match=message):
        use_ignore_rpn(cfg)


def test_files_that_say_what_to_ignore(tmp_path):
    images = {"a.jpg": [("dog", [5, 5, 30, 35]), ("dog", [40, 10, 30, 40])]}
    file = write_coco(tmp_path / "coco", images, {1: "dog"})
    content = json.loads(file.read_text())
    content["annotations"][1]["ignore"] = 1
    file.write_text(json.dumps(content))
    voc = write_voc(
        tmp_path / "voc",
        {"a": [("dog", (6, 6, 35, 40), ""), ("dog", (41, 11, 70, 50), "<ignore>1</ignore>")]},
    )
    coco_name = f"coco://{file}?images={file.parent}/images"
    names = [coco_name, f"voc://{voc}?split=trainval"]
    for name in names:
        cfg = config(tmp_path, name, *MINING)
        register_datasets(cfg)
        (record,) = DatasetCatalog.get(name)
        first, second = record["annotations"]
        assert not is_region(first)
        assert is_region(second)
        assert second["iscrowd"] == 1  # Detectron2 takes it for no object
        x = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")(record)
        assert len(x["instances"]) == 1
        assert use_ignore_rpn(cfg).MODEL.PROPOSAL_GENERATOR.NAME == "IgnoreRPN"


def crowded(tmp_path):
    """An image with an object, and a crowd of others; and the boxes of these."""
    image, objects = draw_image(np.random.default_rng(11), max_objects=9, max_look_alikes=0)
    file = tmp_path / "crowd.png"
    cv2.imwrite(str(file), image)
    boxes = np.array(sorted(box for _, box, _ in objects))
    return file, boxes[0], boxes[boxes[:, 0] > boxes[0, 2]]


def test_no_hard_example_lies_in_a_crowd(tmp_path):
    """With Detectron2's mapper, which drops crowds, some of them lie on its objects."""
    file, one, rest = crowded(tmp_path)
    assert len(rest) >= 3
    around = [*rest[:, :2].min(axis=0), *rest[:, 2:].max(axis=0)]
    record = {"file_name": str(file), "image_id": 0, "height": 128, "width": 128}
    record["annotations"] = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": crowd}
        for box, crowd in ((list(one), 0), (around, 1))
    ]
    opts = ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32, "MODEL.LOAD_PROPOSALS", True)
    cfg = config(tmp_path, "none", *opts)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    torch.manual_seed(0)
    model = build_model(cfg).train()
    with torch.no_grad():  # what the model sees in a place depends on the place
        model.roi_heads.box_predictor.cls_score.weight.normal_(std=3.0)
    assert isinstance(model.roi_heads, OHEMMixin)
    generator = torch.Generator().manual_seed(0)
    near = torch.tensor(np.repeat([one, *rest], 8, axis=0), dtype=torch.float32)
    near = near + torch.randn(near.shape, generator=generator)
    corners = torch.rand(20, 2, generator=generator) * 100
    boxes = torch.cat([near, torch.cat([corners, corners + 24], dim=1)])
    proposals = Instances((128, 128), proposal_boxes=Boxes(boxes))
    proposals.objectness_logits = torch.zeros(len(boxes))
    mined = []
    model.roi_heads.observers.append(mined.extend)
    in_crowd = []
    for mapper in (DatasetMapper, IgnoreMapper):
        mined.clear()
        x = mapper(is_train=True, augmentations=[], image_format="BGR")(record)
        with EventStorage():
            model([{**x, "proposals": proposals}])
        (hard,) = mined
        on = pairwise_iou(hard.proposal_boxes, Boxes(rest.astype(np.float32))).max(dim=1).values
        in_crowd.append(int((on >= 0.5).sum()))
        assert len(hard) > 1
    assert in_crowd[0] > 2
    assert in_crowd[1] == 0
