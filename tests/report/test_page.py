import json
import os
import re

import cv2
import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from full_disk import fill_disk
from page_data import Scripts, data_of

from ohem_d2.mining.error_types import ERROR_TYPES
from ohem_d2.report.coco_form import as_coco
from ohem_d2.report.hard_examples import HardExample
from ohem_d2.report.label_errors import LABEL_ERRORS
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import draw_crop, write_list, write_page
from ohem_d2.report.tide import ERRORS
from ohem_d2.visualization import ERROR_COLORS

HOSTILE = '</script><img src=x onerror=alert(1)> "it\'s" & ünï \u2028.jpg'
SIZE = {"height": 80, "width": 100}
LABEL = (30, 30, 60, 60)
MISSED = HardExample("missed object", 2.0, (40, 30, 60, 50), 0, None, 0.5, LABEL, 0.4, None)
LOOK_ALIKE = HardExample(
    "look-alike", 1.0, (0, 0, 10, 20), None, 0, 0.75, None, 0.0, (1, 0, 11, 20)
)
WRONG = HardExample("wrong class", 3.0, LABEL, 0, 1, 0.75, LABEL, 1.0, LABEL)


@pytest.fixture
def dataset():
    name = f"data of {HOSTILE}"
    names = {"thing_classes": [HOSTILE, "dog"]}
    MetadataCatalog.get(name).set(thing_dataset_id_to_contiguous_id={7: 0, 3: 1}, **names)
    yield name
    MetadataCatalog.remove(name)


def report_of(folder, dataset, file_names, hard, wrong=()):
    records = [{"file_name": str(x), "image_id": f"{i}", **SIZE} for i, x in enumerate(file_names)]
    lists = (
        as_coco(records, hard, dataset, "hard_examples"),
        as_coco(records, wrong, dataset, "label_errors"),
    )
    for name, coco in zip(("hard_examples", "label_errors"), lists):
        write_list(folder, name, coco)
    write_page(folder, dataset, *lists, as_model_errors(records, [], dataset))
    return lists


def test_the_page_has_the_data_and_nothing_from_outside(tmp_path, dataset):
    lists = report_of(tmp_path, dataset, [HOSTILE], [])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    parser = Scripts()
    parser.feed(page)
    data = json.loads(parser.scripts["data"])
    assert data["categories"][0]["name"] == HOSTILE
    assert data["dataset"] == dataset
    assert [x["error_types"] for x in data["lists"]] == [list(ERROR_TYPES[:-1]), list(LABEL_ERRORS)]
    assert set(data["colors"]) == {*ERROR_TYPES[:-1], *LABEL_ERRORS, *ERRORS, ""}
    assert "img" not in parser.elements
    assert not re.findall(r"<script>\w+\.js<", page)  # which are in it
    assert not re.findall(r"(?:https?:)?//\w|@import|innerHTML|document\.write", page)
    for name, coco in zip(("hard_examples", "label_errors"), lists):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == coco


def test_a_crop_of_each_example(tmp_path, dataset):
    picture = tmp_path / HOSTILE.replace("/", "_")
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((80, 100, 3), np.uint8))
    (tmp_path / "x.jpg").rename(picture)
    files = [picture, "not read, since there is nothing to show"]
    hard = [(0, MISSED), (0, LOOK_ALIKE)]
    lists = report_of(tmp_path / "report", dataset, files, hard, [(0, WRONG)])
    crops = [x["crop"] for coco in lists for x in coco["annotations"]]
    assert crops == [
        "crops/1/hard_examples_000001.jpg",
        "crops/1/hard_examples_000002.jpg",
        "crops/1/label_errors_000001.jpg",
    ]
    assert files_in(tmp_path / "report") == sorted([*crops, *FILES])
    assert all(cv2.imread(str(tmp_path / "report" / x)) is not None for x in crops)
    shown = [x["crop"] for each in data_of(tmp_path / "report")["lists"] for x in each["of"]]
    assert shown == crops
    listed = json.loads((tmp_path / "report/hard_examples.json").read_text())["annotations"]
    assert [x["crop"] for x in listed] == crops[:2]
    # The first shows its box and its label, and 0.6 times their longer side around both.
    assert [x["crop_bbox"] for x in listed] == [[12, 12, 66, 66], [0, 0, 23, 32]]


FILES = ["hard_examples.json", "index.html", "label_errors.json"]


def files_in(folder):
    return sorted(x.relative_to(folder).as_posix() for x in folder.rglob("*") if x.is_file())


@pytest.fixture
def image(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((80, 100, 3), np.uint8))
    return tmp_path / "x.png"


def test_only_crops_of_earlier_pages_go(tmp_path, dataset, image):
    folder = tmp_path / "report"
    mine = [
        "crops/hard_examples_of_mine.jpg",
        "crops/hard_examples_000001.jpg",
        "crops/1/hard_examples_1.jpg",
        "crops/more/hard_examples_000001.jpg",
        "crops/2.txt",
        "notes.txt",
    ]
    for name in mine:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for number in (2, 3):
        lists = report_of(folder, dataset, [image], [(0, MISSED)])
        crop = f"crops/{number}/hard_examples_000001.jpg"
        assert lists[0]["annotations"][0]["crop"] == crop
        assert files_in(folder) == sorted([*mine, crop, *FILES])
    assert all((folder / name).read_text() == name for name in mine)
    assert not (folder / "crops" / "2").exists()


@pytest.mark.parametrize(
    "full_for", ["hard_examples.json", "hard_examples_000002.jpg", "index.html"]
)
def test_a_full_disk_leaves_the_earlier_page(tmp_path, dataset, image, monkeypatch, full_for):
    folder = tmp_path / "report"
    report_of(folder, dataset, [image], [(0, MISSED)])
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}
    fill_disk(monkeypatch, lambda name: name.startswith(full_for))
    with pytest.raises(OSError, match="No space left on device"):
        report_of(folder, dataset, [image], [(0, MISSED), (0, LOOK_ALIKE)])
    after = {name: (folder / name).read_bytes() for name in files_in(folder)}
    if full_for != "hard_examples.json":
        written = json.loads(after.pop("hard_examples.json"))  # before anything was drawn
        assert [x["crop"] for x in written["annotations"]] == [None, None]
        del before["hard_examples.json"]
    assert after == before


def test_what_was_drawn_when_it_was_interrupted_has_a_crop(tmp_path, dataset, monkeypatch):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((80, 100, 3), np.uint8))
    drawn = []

    def draw(image, annotation):
        drawn.append(annotation["id"])
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw_crop(image, annotation)

    monkeypatch.setattr("ohem_d2.report.page.draw_crop", draw)
    hard = [(0, MISSED), (1, LOOK_ALIKE), (1, LOOK_ALIKE)]
    files = [tmp_path / "x.png"] * 2
    with pytest.raises(KeyboardInterrupt):
        report_of(tmp_path / "report", dataset, files, hard, [(1, WRONG)])
    data = data_of(tmp_path / "report")
    # The image with the costliest example came first.
    drawn = [[x["id"] for x in each["of"] if x["crop"]] for each in data["lists"]]
    assert drawn == [[2], [1]]
    assert [len(each["of"]) for each in data["lists"]] == [3, 1]  # from the images
    assert [x["id"] for x in data["images"]] == [1, 2]


def test_what_cannot_be_drawn_is_named_and_has_no_crop(tmp_path, dataset, caplog, monkeypatch):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((80, 100, 3), np.uint8))
    (tmp_path / "no image.png").write_bytes(b"no image")
    files = [tmp_path / "gone.png", tmp_path / "no image.png", tmp_path / "x.png"]
    hard = [(i, LOOK_ALIKE) for i in range(3)]
    report_of(tmp_path / "report", dataset, files, hard)
    (of_page, _) = data_of(tmp_path / "report")["lists"]
    assert [x["crop"] for x in of_page["of"]] == [None, None, "crops/1/hard_examples_000003.jpg"]
    assert of_page["number"] == 3
    for file in files:
        assert (str(file) in caplog.text) == (file.name != "x.png")

    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    lists = report_of(tmp_path / "report", dataset, files, hard)
    assert [x["crop"] for x in data_of(tmp_path / "report")["lists"][0]["of"]] == [None] * 3
    assert [x["crop"] for x in lists[0]["annotations"]] == [None] * 3
    assert str(files[2]) in caplog.text


def test_files_are_found_from_everywhere(tmp_path, dataset, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lists = report_of(tmp_path / "report", dataset, ["images/x.png"], [])
    assert lists[0]["images"][0]["file_name"] == str(tmp_path / "images/x.png")


def test_a_list_that_cannot_be_written_leaves_that_of_before(tmp_path):
    write_list(tmp_path, "hard_examples", {"annotations": []})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_list(tmp_path, "hard_examples", {"annotations": [{"loss": float("nan")}]})
    assert json.loads((tmp_path / "hard_examples.json").read_text()) == {"annotations": []}


@pytest.mark.parametrize(
    "box", [(20, 20, 20, 20), (100, 80, 100, 80), (-30, -20, -10, -10), (300, 20, 310, 40)]
)
def test_crops_of_boxes_of_no_size_or_outside(box, dataset):
    example = HardExample("look-alike", 1.0, box, None, 0, 0.75, None, 0.0, box)
    record = {"file_name": "x", "image_id": 1, **SIZE}
    (annotation,) = as_coco([record], [(0, example)], dataset, "hard_examples")["annotations"]
    assert max(draw_crop(np.zeros((80, 100, 3), np.uint8), annotation).shape) == 260


@pytest.mark.parametrize("example", [MISSED, LOOK_ALIKE, WRONG])
def test_crops_show_boxes_with_what_is_around_them(example, dataset):
    image = np.full((80, 100, 3), 90, np.uint8)
    record = {"file_name": "x", "image_id": 1, **SIZE}
    (annotation,) = as_coco([record], [(0, example)], dataset, "hard_examples")["annotations"]
    crop = draw_crop(image, annotation)
    assert max(crop.shape) == 260
    error_type = "confused class" if example is WRONG else example.error_type
    color = np.round(255 * np.array(ERROR_COLORS[ERROR_TYPES.index(error_type)]))
    # Where the label itself is the example, it is white.
    assert (np.abs(crop - color).max(axis=2) <= 1).any() == (example is not WRONG)
    assert (crop == 255).all(axis=2).any() == (example.true_box is not None)
    assert (crop == 90).all(axis=2).mean() > 0.5
    assert image.min() == image.max() == 90  # not drawn upon


def test_coco_by_hand():
    name = "hard_examples_by_hand"
    MetadataCatalog.get(name).set(
        thing_classes=["cat", "dog"], thing_dataset_id_to_contiguous_id={7: 0, 3: 1}
    )
    easy = HardExample("look-alike", 1.0, (0, 0, 10, 20), None, 1, 0.75, None, 0.0, (1, 0, 10, 20))
    hard = HardExample(
        "missed object", 2.0, (5, 5, 15, 25), 0, None, 0.5, (5, 5, 15, 27), 0.9, None, label=1
    )
    size = {"height": 30, "width": 40}
    crowd = {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1}
    label = {"bbox": [5, 5, 15, 27], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "id": 12}
    records = [
        {"file_name": "a.jpg", "image_id": "x", **size},
        {"file_name": "b.jpg", "image_id": "y", "annotations": [crowd, label], **size},
    ]
    coco = as_coco(records, [(1, hard), (0, easy)], name, "hard_examples")
    file = os.path.abspath("b.jpg")
    assert coco["images"][1] == {"id": 2, "file_name": file, "original_id": "y", **size}
    assert coco["categories"] == [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    first, second = coco["annotations"]
    assert first == {
        "id": 1, "image_id": 2, "category_id": 7, "bbox": [5, 5, 10, 20], "area": 200,
        "iscrowd": 0, "error_type": "missed object", "loss": 2.0, "score": 0.5, "iou": 0.9,
        "is_labelled": True, "predicted_category_id": None, "true_bbox": [5, 5, 10, 22],
        "predicted_bbox": None, "label_index": 1, "label_id": 12, "label_bbox": [5, 5, 10, 22],
        "crop": None, "crop_bbox": None,
    }  # fmt: skip
    assert (second["category_id"], second["predicted_category_id"]) == (3, 3)
    assert (second["is_labelled"], second["true_bbox"]) == (False, None)
    assert second["predicted_bbox"] == [1, 0, 9, 20]
    assert (second["label_index"], second["label_id"], second["label_bbox"]) == (None,) * 3
    assert coco["info"]["dataset"] == name


@pytest.mark.parametrize("image_ids", [(7, 0), ("7", "0"), (2**53, 0)])
def test_ids_are_those_of_the_users_file(image_ids):
    name = f"ids of {image_ids}"
    classes = {"thing_classes": ["dog", "cat", "bird"], "category_ids": {"cat": 1, "dog": "d"}}
    if 0 in image_ids:
        classes["category_ids"]["bird"] = 2**53  # which scripts take for the number after it
    MetadataCatalog.get(name).set(**classes)
    records = [{"file_name": "x", "image_id": i, **SIZE} for i in image_ids]
    coco = as_coco(records, [(1, LOOK_ALIKE)], name, "hard_examples")
    ids = [7, 0] if image_ids == (7, 0) else [1, 2]
    assert [x["id"] for x in coco["images"]] == ids
    assert [x["original_id"] for x in coco["images"]] == list(image_ids)
    assert coco["annotations"][0]["image_id"] == ids[1]
    # A class of the training set alone gets a number that is free.
    assert [(x["name"], x["id"]) for x in coco["categories"]] == [
        ("dog", "d"),
        ("cat", 1),
        ("bird", 2),
    ]
    MetadataCatalog.remove(name)


def test_the_first_ones_are_drawn(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr("ohem_d2.report.page._MOST", 2)
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((80, 100, 3), np.uint8))
    lists = report_of(tmp_path / "report", dataset, [tmp_path / "x.png"], [(0, LOOK_ALIKE)] * 3)
    crops = [f"crops/1/hard_examples_00000{i}.jpg" for i in (1, 2)]
    assert [x["crop"] for x in lists[0]["annotations"]] == [*crops, None]
    on_page = data_of(tmp_path / "report")["lists"][0]["of"]
    assert [x["crop"] for x in on_page] == [*crops, None]
    assert files_in(tmp_path / "report") == sorted([*crops, *FILES])
    assert len(json.loads((tmp_path / "report/hard_examples.json").read_text())["annotations"]) == 3
