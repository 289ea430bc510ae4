import json
import logging
import os

import pytest
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from small_data import HEIGHT, WIDTH, write_coco, write_voc

from ohem_d2 import register_datasets
from ohem_d2.errors import InputError

GOOD = (1, 1, 20, 30)


def make_cfg(train=(), test=()):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(train), tuple(test)
    return cfg


def classes_of(name):
    return MetadataCatalog.get(name).thing_classes


@pytest.fixture
def voc(tmp_path):
    write_voc(tmp_path, {"a": [("dog", GOOD, ""), ("ant", GOOD, "")]}, split="train")
    write_voc(tmp_path, {"b": [("dog", GOOD, "")]}, split="val")
    return f"voc://{tmp_path}?split="


def test_voc(voc):
    cfg = make_cfg([voc + "train"], [voc + "val"])
    register_datasets(cfg)
    assert (voc + "train",) == cfg.DATASETS.TRAIN
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert classes_of(voc + "train") == classes_of(voc + "val") == ["ant", "dog"]
    assert MetadataCatalog.get(voc + "val").evaluator_type == "pascal_voc"
    assert [a["category_id"] for a in DatasetCatalog.get(voc + "train")[0]["annotations"]] == [1, 0]
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 1
    loaded = next(iter(build_detection_train_loader(cfg)))[0]
    assert loaded["instances"].gt_classes.tolist() == [1, 0]


def test_what_was_set_otherwise_is_named(voc, caplog):
    cfg = make_cfg([voc + "train"] * 2, [voc + "val"])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7
    register_datasets(cfg)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    said = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    key = "MODEL.ROI_HEADS.NUM_CLASSES"
    assert f"{key} is 7, and the data have 2 classes: 2 is taken" in said
    assert f"the data set {voc + 'train'!r} is named 2 times, and counts as often" in said
    caplog.clear()
    cfg = make_cfg([voc + "train"], [voc + "val"])
    register_datasets(cfg)
    assert "is taken" not in caplog.text
    assert " times" not in caplog.text


def test_coco_with_classes_in_another_order_in_the_test_set(tmp_path):
    images = {"a.jpg": [("dog", [0, 0, 9, 9]), ("cat", [0, 0, 9, 9])]}
    write_coco(tmp_path, images, {1: "dog", 2: "cat"}, "train.json")
    write_coco(tmp_path, images, {1: "cat", 2: "dog"}, "test.json")
    train, test = (
        f"coco://{tmp_path}/{n}.json?images={tmp_path}/images" for n in ("train", "test")
    )
    cfg = make_cfg([train], [test])
    register_datasets(cfg)
    for name in (train, test):
        assert classes_of(name) == ["dog", "cat"]
        annotations = DatasetCatalog.get(name)[0]["annotations"]
        assert [a["category_id"] for a in annotations] == [0, 1]
    assert MetadataCatalog.get(test).evaluator_type == "coco"


def test_several_training_sets_share_their_classes(voc, tmp_path):
    write_coco(tmp_path, {"a.jpg": [("bee", [0, 0, 9, 9])]}, {1: "bee", 2: "dog"})
    coco = f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"
    cfg = make_cfg([coco, voc + "train"])
    register_datasets(cfg)
    assert classes_of(coco) == ["bee", "dog", "ant"]
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert len(get_detection_dataset_dicts(cfg.DATASETS.TRAIN)) == 2


def test_a_registered_training_set_decides_the_classes(tmp_path):
    write_voc(tmp_path, {"a": [("person", GOOD, "")]})
    spec = f"voc://{tmp_path}?split=trainval"
    cfg = make_cfg(["voc_2007_trainval"], [spec])
    register_datasets(cfg)
    assert len(classes_of(spec)) == cfg.MODEL.ROI_HEADS.NUM_CLASSES == 20
    assert DatasetCatalog.get(spec)[0]["annotations"][0]["category_id"] == 14


def test_test_set_alone(voc):
    cfg = make_cfg([], [voc + "val"])
    register_datasets(cfg)
    assert classes_of(voc + "val") == ["dog"]


def test_registered_anew_when_the_data_has_changed(voc, tmp_path):
    register_datasets(make_cfg([voc + "train"]))
    write_voc(tmp_path, {"a": [("cow", GOOD, "")]}, split="train")
    register_datasets(make_cfg([voc + "train"]))
    assert classes_of(voc + "train") == ["cow"]


def test_configs_without_addresses_are_left_alone():
    cfg = make_cfg(["coco_2017_train"], ["coco_2017_val"])
    before = cfg.clone()
    register_datasets(cfg)
    assert cfg == before


def test_bad_boxes_are_counted_and_left_out(tmp_path, caplog):
    objects = [
        ("dog", GOOD, ""),
        ("dog", (5, 5, 5, 20), ""),
        ("dog", (5, 5, 4, 20), ""),
        ("dog", (WIDTH + 1, 5, WIDTH + 9, 20), ""),
        ("dog", (5, HEIGHT + 9, 20, HEIGHT + 20), ""),
        ("dog", (WIDTH - 5, 5, WIDTH + 9, 20), ""),  # partly inside: stays
    ]
    write_voc(tmp_path, {"a": objects})
    spec = f"voc://{tmp_path}?split=trainval"
    with caplog.at_level(logging.WARNING):
        register_datasets(make_cfg([spec]))
    assert len(DatasetCatalog.get(spec)[0]["annotations"]) == 2
    zero, outside, beyond = (r.message for r in caplog.records)
    image = tmp_path / "JPEGImages" / "a.jpg"
    assert zero.startswith(f"{spec}: box of zero area, left out: 2 ({image}: 'dog' at [")
    assert outside.startswith(f"{spec}: box outside its image, left out: 2 (")
    assert beyond.startswith(f"{spec}: box that reaches far beyond its image, cut off: 1 (")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("voc://", "it has no path"),
        ("coco://file.json?image=x", "'image' is no option of coco://, which has images, part"),
        ("coco://file.json?split=train", "'split' is no option of coco://"),
        ("coco://x.json?images=x&imgs=y", "'imgs' is no option of coco://"),
        ("kitti://x", "'kitti' is no format"),
        ("voc://x?split=", "its option 'split' is empty"),
    ],
)
def test_misspelt_addresses(spec, reason):
    message = rf"is not understood: {reason}.*; expected coco://.* or labelme://"
    with pytest.raises(InputError, match=message):
        register_datasets(make_cfg([spec]))


def test_a_frozen_config(voc):
    cfg = make_cfg([f"{voc}train"], [f"{voc}val"])
    cfg.freeze()
    with pytest.raises(InputError, match=r"^register_datasets was .* frozen, .* before cfg.freeze"):
        register_datasets(cfg)


def test_a_folder_that_may_not_be_read(voc, tmp_path, monkeypatch):
    def scandir(path):
        if str(path).endswith("JPEGImages"):
            raise PermissionError(13, "Permission denied", str(path))
        return before(path)

    before = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    message = f"the folder {tmp_path}/JPEGImages may not be read, expected one that may"
    with pytest.raises(InputError, match=message):
        register_datasets(make_cfg([f"{voc}train"]))


def test_a_folder_whose_name_looks_like_an_option(tmp_path):
    folder = tmp_path / "shots?take=2"
    write_voc(folder, {"a": [("dog", GOOD, "")]})
    register_datasets(make_cfg([f"voc://{folder}"]))
    assert len(DatasetCatalog.get(f"voc://{folder}")) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("coco://file.json", "does not say where the images are, expected .*images=<folder>"),
        ("voc://x?first_pixel=2", r"first_pixel=2 of voc://x: expected 0 or 1"),
        ("labelme://x?split=train", r"'split' is no option of labelme://, which has images, part"),
        ("voc://x?part=train:0.5&part=test:0.5", r"has an option twice"),
        ("voc://x?part=most", r"part=most is not understood"),
    ],
)
def test_options_that_are_none(spec, message):
    with pytest.raises(InputError, match=message):
        register_datasets(make_cfg([spec]))


def test_a_folder_as_roboflow_writes_it(tmp_path):
    file = write_coco(tmp_path, {"a.jpg": [("dog", [0, 0, 9, 9])]}, {1: "dog"})
    with pytest.raises(InputError, match=r"is a folder without _annotations.coco.json, expected"):
        register_datasets(make_cfg([f"coco://{tmp_path}"]))
    file.rename(tmp_path / "images/_annotations.coco.json")
    spec = f"coco://{tmp_path}/images"
    register_datasets(make_cfg([spec]))
    assert classes_of(spec) == ["dog"]


def parts(tmp_path, *shares):
    write_voc(
        tmp_path, {f"{i}": [("dog", GOOD, "")] for i in range(12)} | {"x": [("elk", GOOD, "")]}
    )
    return [f"voc://{tmp_path}?part={share}" for share in shares]


def test_parts(tmp_path):
    train, test = parts(tmp_path, "train:0.6", "test:0.4")
    cfg = make_cfg([train], [test])
    register_datasets(cfg)
    ids = [[r["image_id"] for r in DatasetCatalog.get(x)] for x in (train, test)]
    assert sorted(ids[0] + ids[1]) == sorted([*map(str, range(12)), "x"])
    assert classes_of(train) == classes_of(test) == ["dog", "elk"]  # wherever the elk is


def test_parts_with_images_in_common(tmp_path):
    train, test = parts(tmp_path, "train:0.8", "test:0.3")
    with pytest.raises(InputError, match=r"have images in common, expected parts of it that have"):
        register_datasets(make_cfg([train], [test]))
    register_datasets(make_cfg([train], [train]))


def test_an_empty_part(tmp_path):
    (spec,) = parts(tmp_path, "train:0.00001")
    with pytest.raises(InputError, match=r"is empty: none of its 13 images falls into this part"):
        register_datasets(make_cfg([spec]))


def test_classes_of_coco_that_differ_in_white_space(tmp_path, caplog):
    images = {"a.jpg": [("dog", [0, 0, 9, 9]), ("dog ", [0, 0, 9, 9])]}
    write_coco(tmp_path, images, {1: "dog", 2: "dog "})
    spec = f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"
    register_datasets(make_cfg([spec]))
    assert classes_of(spec) == ["dog"]
    assert MetadataCatalog.get(spec).category_ids == {"dog": 1}
    assert "in white space only, taken as one: 1" in caplog.text


@pytest.mark.parametrize("sets", [1, 2])
def test_classes_that_differ_in_case(tmp_path, caplog, sets):
    images = {"a": [("car", GOOD, "")], "b": [("Car", GOOD, "")], "c": [("Car", GOOD, "")]}
    for i in range(sets):
        some = {k: v for k, v in images.items() if sets == 1 or (k == "a") == (i == 0)}
        write_voc(tmp_path / str(i), some)
    register_datasets(make_cfg([f"voc://{tmp_path}/{i}" for i in range(sets)]))
    (message,) = [r.message for r in caplog.records if "case only" in r.message]
    assert "'car' (1)" in message
    assert "'Car' (2)" in message


def test_a_class_of_the_test_set_in_another_case(voc, tmp_path):
    write_voc(tmp_path, {"c": [("Dog", GOOD, "")]}, split="test")
    with pytest.raises(InputError, match=r"'Dog' in .*c.jpg, which .* not know \(it has 'dog'\)"):
        register_datasets(make_cfg([voc + "train"], [voc + "test"]))


def test_a_training_set_that_is_neither_registered_nor_an_address(voc):
    with pytest.raises(InputError, match=r"'cells' is not known, expected one that is registered"):
        register_datasets(make_cfg(["cells"], [voc + "val"]))


def test_unknown_class_in_the_test_set(voc, tmp_path):
    write_voc(tmp_path, {"c": [("elk", GOOD, "")]}, split="test")
    with pytest.raises(InputError, match=r"the class 'elk' in .*c.jpg, .* one of ant, dog"):
        register_datasets(make_cfg([voc + "train"], [voc + "test"]))


def test_other_classes_in_a_registered_test_set(voc):
    with pytest.raises(InputError, match=r"'voc_2007_test' has other classes than .*ant, dog"):
        register_datasets(make_cfg([voc + "train"], ["voc_2007_test"]))


def test_a_category_that_no_object_has_is_no_unknown_class(tmp_path):
    images = {"a.jpg": [("dog", [0, 0, 9, 9])]}
    write_coco(tmp_path, images, {1: "dog"}, "train.json")
    write_coco(tmp_path, images, {0: "everything", 1: "dog"}, "test.json")
    train, test = (
        f"coco://{tmp_path}/{n}.json?images={tmp_path}/images" for n in ("train", "test")
    )
    register_datasets(make_cfg([train], [test]))
    assert classes_of(test) == ["dog"]


def test_the_same_set_for_training_and_test(voc):
    register_datasets(make_cfg([voc + "train"], [voc + "train"]))
    assert len(DatasetCatalog.get(voc + "train")[0]["annotations"]) == 2


def test_keypoints(tmp_path):
    file = write_coco(tmp_path, {"a.jpg": [("dog", [0, 0, 9, 9])]}, {1: "dog"})
    content = json.loads(file.read_text())
    content["categories"][0]["keypoints"] = ["left_ear", "right_ear"]
    file.write_text(json.dumps(content))
    spec = f"coco://{file}?images={tmp_path}/images"
    cfg = make_cfg([spec])
    register_datasets(cfg)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 2
    assert MetadataCatalog.get(spec).keypoint_flip_map == [("left_ear", "right_ear")]


@pytest.mark.parametrize("switch", ["MASK_ON", "KEYPOINT_ON"])
def test_a_head_without_annotations_for_it(voc, switch):
    cfg = make_cfg([voc + "train"], [voc + "val"])
    cfg.MODEL[switch] = True
    with pytest.raises(InputError, match=rf"MODEL.{switch} is True, but no object of .* has"):
        register_datasets(cfg)


def test_no_object_at_all(tmp_path):
    write_voc(tmp_path, {"a": []})
    with pytest.raises(InputError, match=r"there is no object in the data set 'voc://"):
        register_datasets(make_cfg([f"voc://{tmp_path}?split=trainval"]))
    write_voc(tmp_path, {"a": [("dog", (30, 30, 30, 10), "")]})
    with pytest.raises(InputError, match=r"no object in .*; box of zero area, left out: 1 \(.*a.j"):
        register_datasets(make_cfg([f"voc://{tmp_path}"]))
