"""Images that several data sets share."""

import logging

import pytest
from detectron2.config import get_cfg
from small_data import write_coco

from ohem_d2 import register_datasets
from ohem_d2.data import read_all_images

CAT, DOG, BIRD = (("cat", [0, 0, 20, 30]), ("dog", [30, 10, 30, 20]), ("bird", [50, 30, 9, 9]))
NAMES = {1: "cat", 2: "dog", 3: "bird"}


def warnings_of(caplog, folder, *, train=(), test=()):
    """Of data sets, each of which is the objects of its images, and the folder that they are in."""
    addresses = []
    for position, (images, place) in enumerate((*train, *test)):
        file = write_coco(folder / place, images, NAMES, f"{position}.json")
        addresses.append(f"coco://{file}?images={file.parent}/images")
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = tuple(addresses[: len(train)])
    cfg.DATASETS.TEST = tuple(addresses[len(train) :])
    register_datasets(cfg)
    caplog.clear()
    read_all_images(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    said = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    return [x.replace(str(folder), "") for x in said]


BOTH = {"a.jpg": [CAT, DOG], "b.jpg": [DOG], "c.jpg": []}
CATS = {"a.jpg": [CAT], "b.jpg": [], "c.jpg": []}
DOGS = {"a.jpg": [DOG], "b.jpg": [DOG], "c.jpg": []}


@pytest.mark.parametrize("place", ["", "copied"])
def test_training_sets_with_the_same_images_and_other_objects(tmp_path, caplog, place):
    (line,) = warnings_of(caplog, tmp_path, train=[(CATS, ""), (DOGS, place)])
    copy = " and /copied/images/a.jpg" if place else ""
    assert line.startswith(
        "2 images are in both of the training sets 'coco:///0.json?images=/images' and "
    )
    assert f", with other objects in each (/images/a.jpg{copy}; /images/b.jpg" in line
    assert "an object that one of them does not name is background in it; expected" in line


def test_the_same_objects_twice(tmp_path, caplog):
    (line,) = warnings_of(caplog, tmp_path, train=[(BOTH, ""), (BOTH, "")])
    assert line.startswith("3 images are in both of the training sets")
    assert line.endswith("; /images/c.jpg): each counts twice")


def test_test_sets(tmp_path, caplog):
    """They are evaluated one by one."""
    (line,) = warnings_of(caplog, tmp_path, test=[(CATS, ""), (DOGS, "")])
    assert line.startswith("2 images are in both of the test sets")
    assert "does not name counts as none in it" in line
    assert not warnings_of(caplog, tmp_path, test=[(BOTH, ""), (BOTH, "copied")])


def test_three_sets(tmp_path, caplog):
    lines = warnings_of(caplog, tmp_path, train=[(CATS, ""), (DOGS, ""), (BOTH, "")])
    assert [x.split(" ", 1)[0] for x in lines] == ["2", "2", "1"]
