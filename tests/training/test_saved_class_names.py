"""Classes are known by their names, which a checkpoint holds, not by their places alone."""

import json
import logging

import pytest
import torch
from command_line import ROOT, run_train_net
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from small_data import write_coco
from torch import nn

from ohem_d2 import register_datasets
from ohem_d2.data import ClassesOfWeights
from ohem_d2.errors import InputError
from ohem_d2.evaluation.evaluators import build_evaluator
from ohem_d2.report.run import load_yaml_config
from ohem_d2.training.checkpoint import WholeCheckpointer, classes_of_weights
from ohem_d2.training.data_checks import check_num_classes, class_names
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.lazy_data import register_lazy_datasets
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


def warnings(caplog):
    return [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]


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
        "the same in the same order",
    ):
        load(file, ["cat", "dog"])
    load(file, ["cat", "dog"], trainer=nn.Linear(1, 1))  # where they are only a start
    assert "each is taken for the one in the same place" in caplog.text


def test_other_classes(tmp_path, caplog):
    file = saved(tmp_path, ["dog", "cat"])
    with pytest.raises(InputError, match=r"but the data has dog, lynx: expected the same$"):
        load(file, ["dog", "lynx"])
    load(file, ["dog", "lynx"], trainer=nn.Linear(1, 1))
    assert "but the data has dog, lynx: each is taken for the one in the same" in caplog.text
    load(file, ["dog ", "cat"])


@pytest.mark.parametrize("found", [3, "dog, cat", ["dog", 1], {"dog": 0, "cat": 1}, {1: "dog"}])
def test_class_names_that_are_none(tmp_path, caplog, found):
    file = tmp_path / "x.pth"
    torch.save({"model": nn.Linear(2, 2).state_dict(), "class_names": found}, file)
    load(str(file), ["dog", "cat"])
    assert f"x.pth' has {found!r} as class_names, expected a list of names: whether" in caplog.text
    assert classes_of_weights(str(file), "", False, training=False) is None


@pytest.mark.parametrize("found", [{0: "dog", 1: "cat"}, {1: "cat", 0: "dog"}, ("dog", "cat")])
def test_class_names_in_other_forms(tmp_path, caplog, found):
    file = tmp_path / "x.pth"
    torch.save({"model": nn.Linear(2, 2).state_dict(), "class_names": found}, file)
    load(str(file), ["dog", "cat"])
    assert not warnings(caplog)
    with pytest.raises(InputError, match="trained for the classes dog, cat, but the data has cat"):
        load(str(file), ["cat", "dog"])
    assert classes_of_weights(str(file), "", False, training=False)[1] == ["dog", "cat"]


def test_another_number_than_the_weights_are_of(tmp_path, caplog):
    file = saved(tmp_path, ["dog", "cat", "ape"])
    with pytest.raises(
        InputError,
        match=r"x.pth' has the weights of this model, but was trained for 3 classes \(dog, cat, ape"
        r"\), as its class_names say, expected those of the data: dog, cat$",
    ):
        load(file, ["dog", "cat"])
    load(file, ["dog", "cat"], trainer=nn.Linear(1, 1))  # whose heads may be new
    assert not warnings(caplog)


def test_registered_data_sets(caplog):
    for name, classes in {"a": ["dog", "cat"], "b": ("dog", "cat"), "c": ["cat", "dog"]}.items():
        MetadataCatalog.get(f"names_{name}").thing_classes = classes
    MetadataCatalog.get("names_d").thing_classes = ["dog", "lynx"]
    assert class_names(["names_b", "names_c"]) == ["dog", "cat"]
    check_num_classes("KEY", 2, ["names_a", "names_b"])
    assert caplog.text == ""
    with pytest.raises(
        InputError,
        match="'names_c' has 'cat' as class 0, where 'names_a' has 'dog': expected the same",
    ):
        check_num_classes("KEY", 2, ["names_a", "names_c"])
    check_num_classes("KEY", 2, ["names_a", "names_d"])
    assert "'names_d' has 'lynx' as class 1, where 'names_a' has 'cat'" in caplog.text


def test_what_a_checkpoint_tells(tmp_path):
    file = saved(tmp_path, ["dog", "cat"])
    folder = str(tmp_path)
    of_weights = classes_of_weights(f"{file}?matching_heuristics=True", "", False, training=True)
    assert of_weights == (file, ["dog", "cat"], True)
    assert not classes_of_weights("", folder, resume=True, training=True).is_start
    (tmp_path / "last_checkpoint").write_text("gone.pth")
    assert classes_of_weights("", folder, resume=True, training=False) == (file, ["dog", "cat"], 0)
    for nothing in ("", str(tmp_path / "none.pth"), __file__, saved(tmp_path, None)):
        assert classes_of_weights(nothing, "", False, training=False) is None


IMAGES = {"a.jpg": [("dog", [5, 5, 25, 35])], "b.jpg": [("cat", [40, 10, 30, 40])]}


def register(folder, names, of_weights):
    """The labels of the objects of `IMAGES`, and the classes, as a model sees them."""
    write_coco(folder, IMAGES, dict(enumerate(names, 1)))
    address = f"coco://{folder}/annotations.json?images={folder}/images"
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), (address,)
    register_datasets(cfg, of_weights)
    labels = [[a["category_id"] for a in r["annotations"]] for r in DatasetCatalog.get(address)]
    assert len(MetadataCatalog.get(address).thing_classes) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    return labels, MetadataCatalog.get(address).thing_classes


@pytest.mark.parametrize("is_start", [True, False])
def test_classes_are_taken_by_their_names(tmp_path, caplog, is_start):
    of_weights = ClassesOfWeights("x.pth", ["dog ", "cat"], is_start)
    with caplog.at_level(logging.INFO, "ohem_d2"):
        assert register(tmp_path, ["cat", "dog"], of_weights) == ([[0], [1]], ["dog", "cat"])
    assert "The classes are taken by their names, in the order of 'x.pth'" in caplog.text


def test_data_with_some_of_the_classes(tmp_path, caplog):
    of_weights = ClassesOfWeights("x.pth", ["ape", "cat", "dog"], False)
    labels, classes = register(tmp_path, ["dog", "cat"], of_weights)
    assert (labels, classes) == ([[2], [1]], ["ape", "cat", "dog"])
    assert "was trained for 3 classes, and the data has none of ape" in caplog.text
    # Where they are only a start, the heads are new.
    of_weights = of_weights._replace(is_start=True)
    assert register(tmp_path, ["dog", "cat"], of_weights)[1] == ["dog", "cat"]


def test_data_with_a_class_that_the_weights_have_not(tmp_path):
    of_weights = ClassesOfWeights("x.pth", ["Dog", "cat"], False)
    with pytest.raises(
        InputError,
        match=r"class 'dog' in .*a.jpg, but 'x.pth' was trained for Dog, cat: expected one of "
        r"these, such as 'Dog'",
    ):
        register(tmp_path, ["dog", "cat"], of_weights)
    assert register(tmp_path, ["dog", "cat"], of_weights._replace(is_start=True))[1][0] == "dog"
    # A category that no object has is none.
    of_weights = ClassesOfWeights("x.pth", ["cat", "dog"], False)
    assert register(tmp_path, ["ape", "dog", "cat"], of_weights)[1] == ["cat", "dog"]


def test_detections_have_the_ids_of_the_file(tmp_path):
    register(tmp_path, ["cat", "dog"], ClassesOfWeights("x.pth", ["dog", "ape", "cat"], False))
    address = f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"
    evaluator = build_evaluator(address, str(tmp_path / "out"))
    evaluator.reset()
    for record in DatasetCatalog.get(address):
        boxes = [
            BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)
            for a in record["annotations"]
        ]
        found = Instances(
            (record["height"], record["width"]),
            pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float)),
            scores=torch.ones(len(boxes)),
            pred_classes=torch.tensor([a["category_id"] for a in record["annotations"]]),
        )
        evaluator.process([record], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    results = json.loads((tmp_path / "out/inference/coco_instances_results.json").read_text())
    of_user = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    assert [x["category_id"] for x in results] == [x["category_id"] for x in of_user]


def test_the_order_of_the_test_file(tmp_path):
    """Without the training set, it would decide the order: AP would be that of other classes."""
    write_coco(tmp_path, IMAGES, {1: "dog", 2: "cat"})
    (tmp_path / "annotations.json").rename(tmp_path / "train.json")
    write_coco(tmp_path, IMAGES, {1: "cat", 2: "dog"})
    train, test = (f"coco://{x}.json?images=images" for x in ("train", "annotations"))
    shared = ("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()", "OUTPUT_DIR", "out")
    done = run_train_net(tmp_path, *shared, "DATASETS.TRAIN", train, "DATASETS.TEST", test)
    assert done.returncode == 0, done.stderr
    weights = ("MODEL.WEIGHTS", "out/model_final.pth", "DATASETS.TEST", test)
    evaluate = ("--eval-only", *shared, *weights, "DATASETS.TRAIN")
    results = []
    for given in (train, "()"):
        done = run_train_net(tmp_path, *evaluate, given)
        assert done.returncode == 0, done.stderr
        results.append((tmp_path / "out/inference/coco_instances_results.json").read_text())
    assert results[0] == results[1]
    assert "2 classes: dog, cat" in done.stdout
    assert "The classes are taken by their names, in the order of 'out/model_final.pth'" in (
        done.stdout
    )


def test_a_python_config_and_the_report(tmp_path):
    """The order is that of the weights in them, too."""
    of_weights = ClassesOfWeights("x.pth", ["dog", "cat"], False)
    write_coco(tmp_path, IMAGES, {1: "cat", 2: "dog"})
    address = f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"
    names = [f"dataloader.{x}.dataset.names" for x in ("train", "test")]
    cfg = load_lazy_config(
        str(ROOT / "configs" / "mask_rcnn_R_50_FPN_1x_ohem.py"),
        [f"{names[0]}=[]", f"{names[1]}={address}", "model.roi_heads.mask_in_features=null"],
    )
    register_lazy_datasets(cfg, of_weights)
    assert MetadataCatalog.get(address).thing_classes == ["dog", "cat"]
    assert cfg.model.roi_heads.num_classes == 2
    file = saved(tmp_path, ["dog", "lynx"])
    with pytest.raises(InputError, match=r"class 'cat' in .*, but .*x.pth' was trained for dog, l"):
        load_yaml_config(
            "quick_start.yaml", ["MODEL.WEIGHTS", file, "DATASETS.TRAIN", "()"], address
        )
