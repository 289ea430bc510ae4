"""The labels of a second training, of the accuracy study."""

import json
import os
import sys

import accuracy
import pytest
import second_training
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ohem_d2.training.key_checks import check_keys

OPTS = [
    "SOLVER.MAX_ITER",
    "4",
    "SOLVER.IMS_PER_BATCH",
    "2",
    "MODEL.RESNETS.STEM_OUT_CHANNELS",
    "32",
]


@pytest.fixture(autouse=True)
def _few_images(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy, "DRAWN_FOLDER", tmp_path / "drawn")
    drawing = {**accuracy.DRAWN["plain"], "sizes": {"train": 10, "test": 3}}
    monkeypatch.setitem(accuracy.DRAWN, "plain", drawing)


def boxes(record, labels):
    """[class, x, y, width, height] of each, in whole pixels, sorted."""
    found = []
    for x in labels:
        box = BoxMode.convert(list(x["bbox"]), x["bbox_mode"], BoxMode.XYWH_ABS)
        found.append([x["category_id"], *(round(float(v)) for v in box)])
    return sorted(found)


def of_file(name, what=lambda record: record["annotations"]):
    return {os.path.basename(x["file_name"]): boxes(x, what(x)) for x in DatasetCatalog.get(name)}


class FirstModels:
    """In place of trainings: they see each removed object, and also what is none, but less sure."""

    def __init__(self, spoilt):
        self.spoilt = {os.path.abspath(x["file_name"]): x for x in spoilt}
        self.calls = []

    def __call__(self, cfg, points, suspects, looked_at=None):
        name = looked_at or cfg.DATASETS.TRAIN[0]
        records = DatasetCatalog.get(name)
        trained_on = {
            os.path.abspath(x["file_name"]) for x in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
        }
        looked = {os.path.abspath(x["file_name"]) for x in records}
        self.calls.append((cfg.SOLVER.MAX_ITER, trained_on, looked))
        images, found = [], []
        for i, record in enumerate(records, 1):
            file = os.path.abspath(record["file_name"])
            size = {x: record[x] for x in ("width", "height")}
            images.append({"id": i, "file_name": file, "original_id": record["image_id"], **size})
            for x in self.spoilt[file]["removed"]:
                box = BoxMode.convert(list(x["bbox"]), x["bbox_mode"], BoxMode.XYWH_ABS)
                found.append((i, x["category_id"] + 1, list(map(float, box)), 0.9))
            found.append((i, 1, [1.0, 1.0, 3.0, 3.0], second_training.LOWEST_SCORE - 0.01))
        content = {
            "info": {"description": f"suspected label errors of {name}"},
            "images": images,
            "categories": [
                {"id": i, "name": x}
                for i, x in enumerate(MetadataCatalog.get(name).thing_classes, 1)
            ],
            "annotations": [
                {"id": number, "image_id": image, "error_type": "missing label",
                 "category_id": category, "is_labelled": False, "true_bbox": None,
                 "predicted_category_id": category, "predicted_bbox": box, "score": score}
                for number, (image, category, box, score) in enumerate(found)
            ],
        }  # fmt: skip
        suspects.mkdir(parents=True)
        (suspects / "label_errors.json").write_text(json.dumps(content))
        (suspects / "settings.json").write_text(json.dumps(accuracy.settings_of(cfg)))


@pytest.mark.parametrize("variant", second_training.WAYS)
def test_what_the_first_models_find_is_in_the_labels_of_the_second(monkeypatch, tmp_path, variant):
    way = second_training.WAYS[variant]
    cfg = accuracy.configure(
        "benchmarks/accuracy.yaml", [*accuracy.drawn_data("plain"), *OPTS], way.first, seed=0
    )
    check_keys(cfg)
    clean = of_file(*cfg.DATASETS.TRAIN)
    cfg.DATASETS.TRAIN = accuracy.spoil(cfg.DATASETS.TRAIN, 0.4, 0.0)
    spoilt = DatasetCatalog.get(*cfg.DATASETS.TRAIN)
    removed = sum(len(x["removed"]) for x in spoilt)
    assert removed > 3
    train = FirstModels(spoilt)
    monkeypatch.setattr(second_training, "train", train)
    for _ in range(2):  # the first models are trained once
        labels, found = second_training.second_labels(cfg, way, tmp_path / "second")
        assert found == {"taken": removed, "right": removed, "removed": removed}
        assert of_file(labels) == clean
        regions = [
            x
            for record in DatasetCatalog.get(labels)
            for x in record["annotations"]
            if x["iscrowd"]
        ]
        assert len(regions) == (removed if way.action == "ignore" else 0)
    if not way.by_halves:
        ((steps, trained_on, looked),) = train.calls
        assert steps == cfg.SOLVER.MAX_ITER
        assert trained_on == looked == train.spoilt.keys()
        return
    (steps, *first), (other_steps, *second) = train.calls
    assert steps == other_steps == cfg.SOLVER.MAX_ITER // 2
    assert first == second[::-1]
    assert not first[0] & first[1]
    assert first[0] | first[1] == train.spoilt.keys()


def test_a_study_trains_on_the_second_labels(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy, "time_steps", lambda trainers: {x: [1.0] for x in trainers})
    trained = []

    def second_labels(cfg, way, folder):
        trained.append((way.action, folder.name, cfg.MODEL.ROI_HEADS.OHEM.SAMPLER))
        return "corrected", {"taken": 3, "right": 2, "removed": 4}

    def train(cfg, points, average):
        trained.append((cfg.DATASETS.TRAIN[0], cfg.MODEL.ROI_HEADS.OHEM.SAMPLER))
        return [{"iteration": 4, "AP": 1.0, "AP50": 1.0, "AP75": 1.0}]

    monkeypatch.setattr(accuracy, "second_labels", second_labels)
    monkeypatch.setattr(accuracy, "train", train)
    command = ["accuracy.py", "--data", "plain", "--output", str(tmp_path / "out"), "--seeds", "5"]
    variants = ["half_random", "sampling_then_half"]
    monkeypatch.setattr(
        sys, "argv", [*command, "--variants", *variants, "--remove", "0.4", "--opts", *OPTS]
    )
    accuracy.main()
    first, of_labels, second = trained
    assert "removed" in first[0]
    folder = "plain_removed_0.4_swapped_0.0_sampling_ignoring_5"
    assert of_labels == ("accept", folder, "RandomSampler")
    assert second == ("corrected", "MixedSampler")
    once, twice = json.loads((tmp_path / "out/results.json").read_text())["runs"]
    assert "taken" not in once
    assert (twice["taken"], twice["right"], twice["removed"]) == (3, 2, 4)
    assert once["settings"] == twice["settings"]
    accuracy.main()
    assert len(trained) == 3
