import logging
import re

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCDetectionEvaluator,
)
from detectron2.structures import Boxes, BoxMode, Instances
from small_data import HEIGHT, WIDTH, write_image, write_voc

from ohem_d2 import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.evaluation import evaluators
from ohem_d2.evaluation.evaluators import KeepingEvaluator, VOCEvaluator, build_evaluator
from ohem_d2.visualization import file_name


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


@pytest.fixture
def register(tmp_path):
    """Registers a data set of one image, and takes it back at the end."""
    names = []

    def register(name, boxes, classes=("dog", "cat"), labels=None, **metadata):
        write_image(tmp_path / "a.jpg")
        annotations = [
            {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": label}
            for box, label in zip(boxes, labels or [0] * len(boxes))
        ]
        record = {"file_name": str(tmp_path / "a.jpg"), "image_id": "an image", "height": HEIGHT,
                  "width": WIDTH, "annotations": annotations}  # fmt: skip
        if name in names:
            remove(name)
        names.append(name)
        DatasetCatalog.register(name, lambda: [record])
        MetadataCatalog.get(name).set(thing_classes=list(classes), **metadata)
        return name

    def remove(name):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        names.remove(name)

    yield register
    for name in list(names):
        remove(name)


def detect(evaluator, boxes, labels=None, scores=None, image_id="an image"):
    found = Instances((HEIGHT, WIDTH))
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.pred_classes = torch.tensor(labels or [0] * len(boxes), dtype=torch.int64)
    found.scores = torch.tensor(scores or [0.9] * len(boxes))
    evaluator.reset()
    evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return evaluator.evaluate()


BOXES = [(0, 0, 20, 30), (40, 10, 70, 50)]


def kinds(evaluator):
    assert isinstance(evaluator, DatasetEvaluators)
    return [type(e) for e in evaluator._evaluators][:-1]  # the last one draws


def test_chosen_by_the_metadata(cfg, register):
    assert kinds(build_evaluator(register("x", BOXES, evaluator_type="coco"), cfg.OUTPUT_DIR)) == [
        KeepingEvaluator
    ]
    voc = register("y", BOXES, evaluator_type="pascal_voc")
    assert kinds(build_evaluator(voc, cfg.OUTPUT_DIR)) == [VOCEvaluator]
    with pytest.raises(InputError, match=r"'z' has evaluator_type 'none' .*expected one of coco"):
        build_evaluator(register("z", BOXES, evaluator_type="none"), cfg.OUTPUT_DIR)
    with pytest.raises(InputError, match=r"'w' has evaluator_type None"):
        build_evaluator(register("w", BOXES), cfg.OUTPUT_DIR)


def test_standard_sets_get_detectron2s_own(cfg, tmp_path, register):
    folder = write_voc(tmp_path, {"an image": []})
    name = register("v", BOXES, evaluator_type="pascal_voc", dirname=str(folder), year=2007,
                    split="trainval")  # fmt: skip
    assert kinds(build_evaluator(name, cfg.OUTPUT_DIR)) == [PascalVOCDetectionEvaluator]


@pytest.mark.parametrize(
    ("evaluator_type", "expected"),
    [
        ("lvis", ["LVISEvaluator", "DetectionPictures"]),
        ("cityscapes_instance", ["CityscapesInstanceEvaluator", "DetectionPictures"]),
        ("cityscapes_sem_seg", ["CityscapesSemSegEvaluator"]),
        ("sem_seg", ["SemSegEvaluator"]),
        (
            "coco_panoptic_seg",
            ["SemSegEvaluator", "KeepingEvaluator", "COCOPanopticEvaluator", "DetectionPictures"],
        ),
    ],
)
def test_other_evaluators(cfg, register, monkeypatch, evaluator_type, expected):
    """Which are built; they themselves need data and packages that are not here."""
    for name in expected:
        if name not in ("DetectionPictures", "KeepingEvaluator"):
            stand_in = type(name, (DatasetEvaluator,), {"__init__": lambda self, *a, **k: None})
            monkeypatch.setattr(evaluators, name, stand_in)
    name = register("other", BOXES, evaluator_type=evaluator_type)
    assert [type(e).__name__ for e in build_evaluator(name, cfg.OUTPUT_DIR)._evaluators] == expected


def test_coco_never_reads_stale_annotations(cfg, register):
    for boxes in (BOXES, [(1, 2, 30, 40)]):
        name = register("changing", boxes, evaluator_type="coco")
        results = detect(build_evaluator(name, cfg.OUTPUT_DIR), boxes)
        assert results["bbox"]["AP"] == pytest.approx(100)
    assert not hasattr(MetadataCatalog.get("changing"), "json_file")


@pytest.mark.parametrize("evaluator_type", ["coco", "pascal_voc"])
def test_data_sets_by_address(cfg, tmp_path, evaluator_type):
    objects = [
        ("a dog/cat <&>", (1, 1, 20, 30), ""),
        ("rare", (41, 11, 70, 50), ""),
        ("rare", (5, 5, 4, 30), ""),  # of zero area: not to be found
    ]
    write_voc(tmp_path / "x", {"photo one": objects}, split="train")
    write_voc(tmp_path / "x", {"photo two": objects[:1]}, split="test")
    train, test = (f"voc://{tmp_path}/x?split={s}" for s in ("train", "test"))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (test,)
    register_datasets(cfg)
    for name, image_id in ((train, "photo one"), (test, "photo two")):
        MetadataCatalog.get(name).__dict__["evaluator_type"] = evaluator_type
        results = detect(
            build_evaluator(name, cfg.OUTPUT_DIR), [(0, 0, 20, 30), (40, 10, 70, 50)], [0, 1],
            [0.9, 0.8], image_id,
        )  # fmt: skip
        # The class that only the training set has does not count in the test set.
        assert results["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("evaluator_type", ["coco", "pascal_voc"])
@pytest.mark.parametrize("mark", ["iscrowd", "ignore"])
def test_what_is_found_in_a_region_to_ignore_is_neither_right_nor_wrong(
    cfg, tmp_path, evaluator_type, mark
):
    image = {"a": [("dog", (1, 1, 20, 30), ""), ("dog", (41, 11, 70, 50), "<ignore>1</ignore>")]}
    name = f"voc://{write_voc(tmp_path, image)}?split=trainval"
    cfg.DATASETS.TRAIN = (name,)
    cfg.DATASETS.TEST = ()
    register_datasets(cfg)
    again = f"{name} {evaluator_type} {mark}"
    (record,) = DatasetCatalog.get(name)
    if mark == "iscrowd":
        record["annotations"][1].pop("ignore")
    DatasetCatalog.register(again, lambda: [record])
    MetadataCatalog.get(again).set(thing_classes=["dog"], evaluator_type=evaluator_type)
    evaluator = build_evaluator(again, cfg.OUTPUT_DIR)
    for found in (BOXES, BOXES[:1]):
        scores = [0.8, 0.9][: len(found)]
        assert detect(evaluator, found, None, scores, "a")["bbox"]["AP"] == pytest.approx(100)


def test_voc_equals_detectron2s_own_evaluator(tmp_path, register):
    objects = {
        "a": [("dog", (3, 3, 40, 40), ""), ("cat", (30, 20, 70, 55), "")],
        "b": [("dog", (10, 10, 50, 50), "<difficult>1</difficult>"), ("cat", (1, 1, 20, 20), "")],
    }
    easy = "<difficult>0</difficult>"
    full = {
        name: [
            (c, box, f"<pose>x</pose><truncated>0</truncated>{extra or easy}")
            for c, box, extra in rows
        ]
        for name, rows in objects.items()
    }
    folder = write_voc(tmp_path, full)
    spec = f"voc://{folder}?split=trainval"
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (spec,)
    cfg.DATASETS.TEST = ()
    register_datasets(cfg)
    if "theirs" in DatasetCatalog:
        DatasetCatalog.remove("theirs")
        MetadataCatalog.remove("theirs")
    register_pascal_voc("theirs", str(folder), "trainval", 2012, ["cat", "dog"])

    results = []
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 15 + torch.rand(40, 2, generator=generator) * 30], 1)
    boxes[0], boxes[1] = torch.tensor([2, 2, 40, 40.0]), torch.tensor([29, 19, 70, 55.0])
    labels = torch.randint(0, 2, (40,), generator=generator)
    labels[0], labels[1] = 1, 0
    scores = torch.rand(40, generator=generator)
    for evaluator in (VOCEvaluator(spec), PascalVOCDetectionEvaluator("theirs")):
        evaluator.reset()
        for i, name in enumerate("ab"):
            found = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(boxes[i::2]))
            found.scores = scores[i::2]
            found.pred_classes = labels[i::2]
            evaluator.process([{"image_id": name}], [{"instances": found}])
        results.append(evaluator.evaluate())
    assert 0 < results[0]["bbox"]["AP"] < 100
    assert results[0] == results[1]


def test_voc_prints_its_table(register, caplog):
    evaluator = VOCEvaluator(register("printed", BOXES))
    with caplog.at_level(logging.INFO):
        assert detect(evaluator, BOXES)["bbox"]["AP50"] == pytest.approx(100)
    assert "PASCAL VOC 2012 metric" in caplog.text
    assert "AP75" in caplog.text


def test_voc_without_detections_or_objects(register):
    assert detect(VOCEvaluator(register("nothing found", BOXES)), [])["bbox"]["AP"] == 0
    with pytest.raises(InputError, match=r"'empty' has no object to evaluate with"):
        VOCEvaluator(register("empty", []))


def test_data_sets_with_long_addresses_have_files_of_their_own():
    names = [f"coco://{letter}.json?images={'x' * 200}" for letter in "ab"]
    files = [file_name(name) for name in names]
    assert files[0] != files[1]
    assert all(re.fullmatch(r"[\w.-]{1,100}", file) for file in files)


def test_detections_are_drawn(cfg, register, tmp_path):
    name = register("coco://drawn?images=x", BOXES, evaluator_type="coco")
    detect(build_evaluator(name, cfg.OUTPUT_DIR), BOXES)
    assert [p.name for p in (tmp_path / "output" / "pictures").iterdir()] == [
        "detections_coco_drawn_images_x.jpg"
    ]


def test_files_for_the_evaluation_server(cfg, register, tmp_path):
    name = register(
        "of the server", BOXES, evaluator_type="pascal_voc_server",
        dirname=str(tmp_path), split="test", year=2012,
    )  # fmt: skip
    results = detect(build_evaluator(name, cfg.OUTPUT_DIR), [(9, 19, 30, 40)], [1], [0.5])
    assert results == {}
    folder = tmp_path / "output" / "inference"
    assert (folder / "comp4_det_test_dog.txt").read_text() == ""
    # Pixels are counted from 1.
    found = (folder / "comp4_det_test_cat.txt").read_text()
    assert found == "an image 0.500 10.0 20.0 30.0 40.0\n"


@pytest.mark.parametrize("ids", [{7: 0, 9: 1}, {9: 0, 7: 1}])
def test_the_ap_of_a_class_has_its_name_whatever_the_ids(cfg, register, ids):
    """COCO's metric sorts classes by their ids."""
    how = {"evaluator_type": "coco", "thing_dataset_id_to_contiguous_id": ids}
    data = register("x", BOXES, labels=[0, 1], **how)
    results = detect(build_evaluator(data, cfg.OUTPUT_DIR), BOXES[:1], [0])  # the dog alone
    assert results["bbox"]["AP-dog"] == pytest.approx(100)
    assert results["bbox"]["AP-cat"] == 0


def test_the_ap_of_a_class_that_a_file_lacks(cfg, register):
    ids = {"evaluator_type": "coco", "thing_dataset_id_to_contiguous_id": {5: 0, 2: 1, 1: 2}}
    data = register("x", BOXES, ("dog", "cat", "bird"), labels=[2, 0], **ids)
    results = detect(build_evaluator(data, cfg.OUTPUT_DIR), BOXES[:1], [2])
    assert results["bbox"]["AP-bird"] == pytest.approx(100)
    assert results["bbox"]["AP-dog"] == 0
    assert torch.tensor(results["bbox"]["AP-cat"]).isnan()
