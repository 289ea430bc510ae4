"""Classes are known by their names, which a checkpoint holds, not by their places alone."""

import logging

import pytest
import torch
from command_line import run_train_net
from detectron2.data import MetadataCatalog
from small_data import write_coco
from torch import nn

from ohem_d2.errors import InputError
from ohem_d2.training.checkpoint import WholeCheckpointer
from ohem_d2.training.data_checks import check_num_classes, class_names
from ohem_d2.training.weights import SafeCheckpointer


def saved(tmp_path, names):
    checkpointer = WholeCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.class_names = names
    checkpointer.save("x")
    return str(tmp_path / "x.pth")


def load(file, names, **checkpointables):
    checkpointer = SafeCheckpointer(nn.Linear(2, 2), **checkpointables)
    checkpointer.class_names = names
    checkpointer.load(file, checkpointables=[] if checkpointables else None)


def test_they_are_saved_with_the_weights(tmp_path):
    content = torch.load(saved(tmp_path, ("dog", "cat")), weights_only=True)
    assert content["class_names"] == ["dog", "cat"]
    assert "class_names" not in torch.load(saved(tmp_path, None), weights_only=True)


@pytest.mark.parametrize("names", [["dog", "cat"], None])
def test_the_same_or_not_known(tmp_path, caplog, names):
    load(saved(tmp_path, ["dog", "cat"]), names)
    load(saved(tmp_path, None), ["dog", "cat"])
    assert "trained for" not in caplog.text


def test_another_order(tmp_path, caplog):
    file = saved(tmp_path, ["dog", "cat"])
    with pytest.raises(
        InputError,
        match=r"x\.pth' was trained for the classes dog, cat, but the data has cat, dog: expected "
        "them in the same order. The training set decides the order",
    ):
        load(file, ["cat", "dog"])
    load(file, ["cat", "dog"], trainer=nn.Linear(1, 1))  # where they are only a start
    assert "each is taken for the one in the same place" in caplog.text


def test_other_classes(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load(saved(tmp_path, ["dog", "cat"]), ["dog", "lynx"])
    assert "for the classes dog, cat, but the data has dog, lynx: each is taken" in caplog.text


def test_registered_data_sets(caplog):
    for name, classes in {"a": ["dog", "cat"], "b": ("dog", "cat"), "c": ["cat", "dog"]}.items():
        MetadataCatalog.get(f"names_{name}").thing_classes = classes
    MetadataCatalog.get("names_d").thing_classes = ["dog", "lynx"]
    assert class_names(["names_b", "names_c"]) == ["dog", "cat"]
    check_num_classes("KEY", 2, ["names_a", "names_b"])
    assert caplog.text == ""
    with pytest.raises(
        InputError,
        match="'names_c' has 'cat' as class 0, where another has 'dog': expected the same",
    ):
        check_num_classes("KEY", 2, ["names_a", "names_c"])
    check_num_classes("KEY", 2, ["names_a", "names_d"])
    assert "'names_d' has 'lynx' as class 1, where another has 'cat'" in caplog.text


def test_the_order_of_the_test_file(tmp_path):
    """Without the training set, the test set decides it: AP would be that of other classes."""
    images = {"a.jpg": [("dog", [5, 5, 25, 35])], "b.jpg": [("cat", [40, 10, 30, 40])]}
    write_coco(tmp_path, images, {1: "dog", 2: "cat"})
    (tmp_path / "annotations.json").rename(tmp_path / "train.json")
    write_coco(tmp_path, images, {1: "cat", 2: "dog"})
    train, test = (f"coco://{x}.json?images=images" for x in ("train", "annotations"))
    shared = ("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()", "OUTPUT_DIR", "out")
    done = run_train_net(tmp_path, *shared, "DATASETS.TRAIN", train, "DATASETS.TEST", test)
    assert done.returncode == 0, done.stderr
    weights = ("MODEL.WEIGHTS", "out/model_final.pth", "DATASETS.TEST", test)
    evaluate = ("--eval-only", *shared, *weights, "DATASETS.TRAIN")
    done = run_train_net(tmp_path, *evaluate, "()")
    assert done.returncode == 1
    assert "was trained for the classes dog, cat, but the data has cat, dog" in done.stderr
    assert run_train_net(tmp_path, *evaluate, train).returncode == 0
