"""Data sets that are not there, or cannot be read, and where they are named."""

import errno
import json
import os
import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    load_coco_json,
    register_coco_instances,
    register_pascal_voc,
)
from small_data import write_coco

from ohem_d2.errors import InputError
from ohem_d2.training import data_checks
from ohem_d2.training.data_checks import check_datasets, named_annotations, named_data_sets

NAME = "data_that_is_checked"


@pytest.fixture
def data(tmp_path):
    """A registered data set in COCO's format: its annotations."""
    write_coco(tmp_path, {"a.jpg": [("dog", [5, 5, 25, 35])]}, {1: "dog"})
    file = tmp_path / "annotations.json"
    register_coco_instances(NAME, {}, str(file), str(tmp_path / "images"))
    yield file
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def folder_in_place(file):
    file.unlink()
    file.mkdir()


UNREADABLE = {
    "HTML": (lambda f: f.write_text("<html>404</html>"), r"is no JSON \(Expecting value"),
    "empty": (lambda f: f.write_text(""), "is no JSON"),
    "cut off": (lambda f: f.write_text(f.read_text()[:-20]), "is no JSON"),
    "bytes": (lambda f: f.write_bytes(bytes(range(256))), "is no JSON"),
    "a list": (lambda f: f.write_text("[]"), "has no list of images"),
    "without images": (lambda f: f.write_text("{}"), "has no list of images"),
    "without classes": (lambda f: f.write_text('{"images": []}'), "has no list of categories"),
    "a number of images": (lambda f: f.write_text('{"images": 5}'), "has no list of images"),
    "nested": (lambda f: f.write_text("[" * 100000), "is no JSON"),
    "a folder": (folder_in_place, "is a folder, expected a file"),
    "not there": (lambda f: f.unlink(), "does not exist"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_annotations_that_cannot_be_read(data, name):
    check_datasets(NAME)
    spoil, words = UNREADABLE[name]
    spoil(data)
    with pytest.raises(InputError, match=rf"^the data set '{NAME}' .*annotations.json {words}"):
        check_datasets(NAME)


@pytest.mark.parametrize(
    ("spoil", "is_right"),
    [
        (lambda f: None, True),
        (lambda f: f.write_text("<html>" + " " * 99), False),
        (lambda f: f.write_text(f.read_text()[:-20]), False),
    ],
)
def test_of_long_annotations_the_ends_are_looked_at(data, monkeypatch, spoil, is_right):
    data.write_text(f"\n {json.dumps(json.loads(data.read_text()), indent=9)}\n")
    monkeypatch.setattr(data_checks, "_READ", 50)
    spoil(data)
    if is_right:
        check_datasets(NAME)
        return
    with pytest.raises(InputError, match="does not begin and end as JSON does"):
        check_datasets(NAME)


def test_a_folder_that_may_not_be_read(data, monkeypatch):
    def stat(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(InputError, match=r"cannot be read: .*json \(Permission denied\)"):
        check_datasets(NAME)


def test_a_file_in_place_of_the_images(data):
    shutil.rmtree(data.parent / "images")
    (data.parent / "images").touch()
    with pytest.raises(InputError, match="images is a file, expected a folder"):
        check_datasets(NAME)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("a\n\nb\n", None),
        ("a.jpg\nb\n", r"names 'a.jpg', but .*Annotations/a.jpg.xml \(1 of 2 names"),
        ("c\nd\n", r"names 'c', but there is no .* \(2 of 2 names have none\)"),
    ],
)
def test_a_list_of_images_that_are_not_annotated(tmp_path, names, words):
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name in "ab":
        (tmp_path / "Annotations" / f"{name}.xml").touch()
    (tmp_path / "ImageSets/Main/train.txt").write_text(names)
    register_pascal_voc(NAME, str(tmp_path), "train", 2007, ("dog",))
    try:
        if words is None:
            check_datasets(NAME)
            return
        with pytest.raises(InputError, match=f"^the data set '{NAME}' .*train.txt {words}"):
            check_datasets(NAME)
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


@pytest.mark.parametrize("field", ["thing_classes", "keypoint_names"])
@pytest.mark.parametrize("names", [{"dog"}, {"dog": 0}, "dog", [1], {0: "dog"}])
def test_names_in_no_order(data, field, names):
    metadata = MetadataCatalog.get(NAME)
    metadata.set(**{field: names})
    message = f"^the data set '{NAME}' has .* as its {field}, expected a list of names"
    with pytest.raises(InputError, match=message):
        check_datasets(NAME)


def test_classes_in_another_order_name_both_data_sets(data):
    DatasetCatalog.register("data_of_others", list)
    MetadataCatalog.get("data_of_others").thing_classes = ["cat", "dog"]
    MetadataCatalog.get(NAME).thing_classes = ["dog", "cat"]
    try:
        message = f"'data_of_others' has 'cat' as class 0, where '{NAME}' has 'dog': expected the"
        with pytest.raises(InputError, match=message):
            data_checks.check_num_classes("KEY", 2, [NAME, "data_of_others"])
    finally:
        DatasetCatalog.remove("data_of_others")
        MetadataCatalog.remove("data_of_others")


def test_other_formats_are_not_looked_into(data):
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(json_file=str(data), evaluator_type="none", image_root="")
    data.write_text('{"a": 1}\n{"a": 2}\n')
    check_datasets(NAME)


def test_the_file_is_named_that_detectron2_cannot_read(data):
    data.write_text('{"images": [5]}')
    with (
        pytest.raises(InputError, match=r"^the annotations .*annotations.json cannot be read: "),
        named_annotations(),
    ):
        load_coco_json(str(data), str(data.parent))
    with pytest.raises(ZeroDivisionError), named_annotations():
        raise ZeroDivisionError  # in code of the user's own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the data set 'a' is not known", "TRAIN: the data set 'a' is not known"),
        ("the data set 'b' is not known", "TRAIN and TEST: the data set 'b' is not known"),
        ("the data set 'c' is not known", "the data set 'c' is not known"),
        ("MODEL.X is 5, as 'a' has", "MODEL.X is 5, as 'a' has"),
    ],
)
def test_it_is_said_where_a_data_set_is_named(text, expected):
    keys = {"TRAIN": ["a", "b"], "TEST": ("b",)}
    with pytest.raises(InputError) as e, named_data_sets(keys):
        raise InputError(text)
    assert str(e.value) == expected


def test_a_root_that_is_no_folder_is_named_of_data_that_is_missing(data, monkeypatch):
    data.unlink()
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/a:/data/b")
    with pytest.raises(InputError, match="is not here: "):
        check_datasets(NAME)
    MetadataCatalog.get(NAME).__dict__["json_file"] = "/data/a:/data/b/coco/annotations/x.json"
    with pytest.raises(InputError, match="^DETECTRON2_DATASETS is '/data/a.*, which is a list of"):
        check_datasets(NAME)
