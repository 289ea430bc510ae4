"""Files of precomputed proposals that Detectron2 would take, or fail of in the training."""

import os
import pickle

import numpy as np
import pytest
from detectron2 import model_zoo
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from omegaconf import OmegaConf

from ohem_d2.errors import InputError
from ohem_d2.training.proposal_files import check_lazy_use, check_proposal_files

NAME = "images_of_proposals"
BOXES = np.array([[1, 2, 30, 40], [5, 5, 5, 9]], np.float32)  # the second has no area
SCORES = np.array([3, -np.inf])


class Opens:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = [{"image_id": i, "width": 60, "height": 50} for i in range(3)]
    DatasetCatalog.register(NAME, lambda: images)
    yield images
    DatasetCatalog.remove(NAME)


def proposals(of_second=BOXES, scores=SCORES, **parts):
    """Those of three images, of which only the second may have other ones."""
    return {
        "ids": ["0", "1", "2", "of another data set"],
        "boxes": [BOXES, of_second, BOXES, None],
        "objectness_logits": [SCORES, scores, SCORES, None],
        **parts,
    }


def check(content, number=1):
    with open("p.pkl", "wb") as f:
        pickle.dump(content, f)
    check_proposal_files("KEY", ["p.pkl"] * number, [NAME])


def of_all(boxes, **parts):
    """The same for each image."""
    scores = [np.zeros(len(boxes))] * 4
    return proposals(boxes=[np.array(boxes)] * 4, objectness_logits=scores, **parts)


RIGHT = {
    "as numbers": proposals(),
    "ids that are numbers": proposals(ids=[0, 1, 2, 3]),
    "none for an image": proposals(np.zeros((0, 4)), np.zeros(0)),
    "none for an image, without a shape": proposals(np.array([]), np.array([])),
    "older names": {
        "indexes": [0, 1, 2], "boxes": [BOXES] * 3, "scores": [SCORES] * 3,
    },
    "one array": {
        "ids": np.arange(3), "boxes": np.stack([BOXES] * 3),
        "objectness_logits": np.stack([SCORES] * 3), "bbox_mode": 0,
    },
    "twice the same": proposals(ids=[0, 1, 2, "2"], boxes=[BOXES] * 4,
                                objectness_logits=[SCORES] * 4),
    "no size, ends included": proposals(np.array([[5, 5, 9, 9], [5, 5, 4.5, 9]])),
    "width and height": of_all([[20, 20, 10, 10]], bbox_mode=BoxMode.XYWH_ABS),
    "rotated": of_all([[20, 20, 10, 10, 45]], bbox_mode=BoxMode.XYWHA_ABS),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones(name, caplog):
    check(RIGHT[name])
    assert not caplog.records


WRONG = {
    "code": (Opens(), "was not loaded, because it names posix.mkdir"),
    "a list": ([1], "has no proposals"),
    "ids alone": ({"ids": ["a"]}, "has no proposals"),
    "a number": (proposals(boxes=5), "has boxes of int, expected a list"),
    "more images than boxes": (
        {**proposals(), "boxes": [BOXES] * 3}, "has 4 ids, 3 boxes, 4 objectness_logits"
    ),
    "of other images": (
        proposals(ids=["a", "b", 1, 2]), r"lacks 1 of 3 images of the data set '.*', such as 0,"
    ),
    "twice": (
        proposals(ids=[0, 1, 2, 2], boxes=[BOXES, BOXES, BOXES, BOXES + 1],
                  objectness_logits=[SCORES] * 4),
        "has two different entries for the image 2",
    ),
    "a text as mode": (proposals(bbox_mode="XYWH"), r"has 'XYWH' as bbox_mode, expected .*ABS \(4"),
    "relative": (proposals(bbox_mode=BoxMode.XYXY_REL), "has .* as bbox_mode"),
    "fewer scores": (proposals(scores=SCORES[:1]), "has, for the image 1, 2 boxes, but"),
    "scores in a column": (proposals(scores=SCORES[:, None]), r"has, for .* shape \(2, 1\), exp"),
    "five numbers": (
        proposals(np.zeros((2, 5))), r"has, for the image 1, .*\(2, 5\), expected \(N, 4"
    ),
    "four of rotated ones": (proposals(bbox_mode=4), r"has, for the image 0, .* expected \(N, 5\)"),
    "NaN": (proposals(BOXES * np.nan), "has, for the image 1, boxes that are NaN"),
    "NaN as a score": (proposals(scores=SCORES * np.nan), "has, .*_logits that are NaN"),
    "objects": (proposals(BOXES.astype(object)), "has, .* boxes of object, expected an array"),
    "a list of scores": (proposals(scores=[1.0, 2.0]), "has, .* objectness_logits of list"),
    "the second corner before the first": (
        proposals(np.array([[60, 60, 20, 20]] * 2)), r"has, .* \[60, 60, 20, 20\], whose sides are"
    ),
    "a negative width": (of_all([[9, 9, -5, 5]], bbox_mode=1), "has, .* bbox_mode is XYWH_ABS"),
    "no box": (of_all(np.zeros((0, 4))), "has no box for any image"),
    "without area": (of_all([[5, 5, 5, 5]] * 2), "has 6 of 6 boxes without an area"),
    "parts of the image": (of_all([[0, 0, 0.5, 1]]), "has boxes from 0 to 1 alone"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones(name):
    content, words = WRONG[name]
    with pytest.raises(InputError, match=f"^KEY: 'p.pkl' {words}"):
        check(content)
    assert not os.path.exists("ran")


def test_files_and_data_sets(data):
    with pytest.raises(InputError, match="KEY has 2 files, expected 1: with MODEL.LOAD_PROPOSALS"):
        check(proposals(), number=2)
    with pytest.raises(InputError, match="KEY: 'no.pkl' cannot be loaded: it does not exist"):
        check_proposal_files("KEY", ["no.pkl"], [NAME])
    del data[0]["image_id"]
    with pytest.raises(InputError, match="has images without image_id"):
        check(proposals())


def test_a_warning_of_boxes_out_of_their_images(caplog):
    check(of_all([[30, 30, 80, 90], [1, 1, 9, 9], [0, 0, 61.5, 9]]))
    assert "has 6 of 9 boxes that reach out of their images" in caplog.text


SOME = "dataloader.train.dataset.proposal_files"
TOPK = "dataloader.train.mapper.precomputed_proposal_topk"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({SOME: ["p.pkl"]}, rf"^{SOME} is \['p.pkl'\], expected null, since model.proposal_gen"),
        ({"model.proposal_generator": None}, f"^{SOME} is null, expected a file for each data set"),
        (
            {"model.proposal_generator": None, SOME: ["p.pkl"]},
            f"^{TOPK} is null, expected how many",
        ),
        ({"model.proposal_generator": None, SOME: ["p.pkl"], TOPK: 100}, None),
        ({"model.proposal_generator._target_": "my.Proposals", SOME: ["p.pkl"]}, None),
        ({"model._target_": "my.Model", SOME: ["p.pkl"]}, None),
        ({"model.proposal_generator": None, "dataloader.train.mapper._target_": "my.Mapper"}, None),
        ({}, None),
    ],
)
def test_files_in_a_python_config_are_used(settings, error):
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    for key, value in settings.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    if error is None:
        return check_lazy_use(cfg, "train", SOME)
    with pytest.raises(InputError, match=error):
        check_lazy_use(cfg, "train", SOME)
