import json
import logging

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from small_data import HEIGHT, WIDTH, write_coco

from ohem_d2 import add_ohem_config, register_datasets
from ohem_d2.data import check_annotated, records_of, warn_of_limit, warn_without_pairs
from ohem_d2.errors import InputError

POLYGON = [[5, 5, 20, 5, 20, 20]]
IMAGES = {"a.jpg": [("dog", [5, 5, 20, 20]), ("dog", [30, 5, 20, 20])], "b.jpg": []}


def write(folder, name="a.json", images=IMAGES, names=None, each=None, **first):
    """A data set whose objects have fields, of which the first object has others."""
    write_coco(folder, images, {1: "dog"}, name)
    content = json.loads((folder / name).read_text())
    for annotation in content["annotations"]:
        annotation.update(each or {})
    content["annotations"][0].update(first)
    if names:
        content["categories"][0]["keypoints"] = names
    (folder / name).write_text(json.dumps(content))
    return f"coco://{folder}/{name}?images={folder}/images"


def register(train, test=(), **model):
    cfg = get_cfg()
    add_ohem_config(cfg)
    cfg.MODEL.update(model)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), test
    register_datasets(cfg)
    return cfg


BAD = [
    ([[1, 1, 9, 9]], r"annotations\[0\]: a polygon of 2 points"),
    ([], "an object without 'segmentation'"),
    (None, "an object without 'segmentation'"),
    ([1, 2, 3, 4, 5, 6], "neither a list of polygons nor an RLE"),
    (
        {"size": [9, 9], "counts": [81]},
        f"an RLE of 9 x 9 pixels, in an image of {WIDTH} x {HEIGHT}",
    ),
    ({"size": [HEIGHT, WIDTH], "counts": "P"}, "an RLE whose runs do not fill its image"),
]


@pytest.mark.parametrize(("outline", "words"), BAD)
def test_bad_outlines_keep_their_box_and_are_an_error_with_masks(tmp_path, caplog, outline, words):
    address = write(tmp_path, each={"segmentation": POLYGON}, segmentation=outline)
    register(address)
    assert [len(r["annotations"]) for r in DatasetCatalog.get(address)] == [2, 0]
    assert said(caplog) == []
    with pytest.raises(
        InputError, match=rf"MASK_ON is True, but 1 of 2 objects .*{words}.*_ON False"
    ):
        register(address, MASK_ON=True)


def test_crowds_need_no_outline_to_train_but_to_test(tmp_path):
    address = write(tmp_path, each={"segmentation": POLYGON}, segmentation=None, iscrowd=1)
    register(address, MASK_ON=True)
    with pytest.raises(InputError, match=r"1 of 2 objects"):
        check_annotated([address], "segmentation", "x", "y", testing=True)


def test_runs_need_bitmasks(tmp_path):
    runs = {"size": [HEIGHT, WIDTH], "counts": [10, HEIGHT * WIDTH - 10]}
    address = write(tmp_path, each={"segmentation": POLYGON}, segmentation=runs)
    with pytest.raises(
        InputError, match=r"INPUT.MASK_FORMAT is 'polygon', but 1 objects .*'bitmask'"
    ):
        register(address, MASK_ON=True)


def said(caplog):
    """The warnings, but for those that outlines or keypoints are not where the boxes are."""
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [x for x in lines if " fit its box" not in x and "outside of their box" not in x]


POINTS = {"keypoints": [9, 9, 2, 15, 9, 2]}
NAMES = ["left_ear", "right_ear"]


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (
            {"keypoints": [9, 9, 2]},
            r"1 of 2 objects .*annotations\[0\]: 1 keypoints, where 2 have n",
        ),
        ({"keypoints": [9, 9]}, r"not a list of x, y and visibility"),
        ({"keypoints": None}, r"an object without 'keypoints'"),
    ],
)
def test_each_object_needs_its_keypoints(tmp_path, first, words):
    address = write(tmp_path, each=POINTS, names=NAMES, **first)
    register(address)  # which nobody looks at without the head
    with pytest.raises(InputError, match=rf"KEYPOINT_ON is True, but .*{words}.*KEYPOINT_ON False"):
        register(address, KEYPOINT_ON=True)


def test_keypoints_need_names(tmp_path):
    with pytest.raises(
        InputError, match=r"no category of the data set .* has 'keypoints', the list"
    ):
        register(write(tmp_path, each=POINTS), KEYPOINT_ON=True)


def test_test_sets_need_the_same_keypoints(tmp_path):
    train = write(tmp_path, each=POINTS, names=NAMES)
    test = write(tmp_path, "b.json", each=POINTS, names=NAMES[::-1])
    with pytest.raises(
        InputError, match=r"has the keypoints right_ear, left_ear, expected those of"
    ):
        register(train, (test,), KEYPOINT_ON=True)
    assert register(train, (train,), KEYPOINT_ON=True).MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 2


def test_classes_with_other_keypoints(tmp_path):
    address = write(tmp_path, each=POINTS, names=NAMES, category_id=2)
    file = tmp_path / "a.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 2, "name": "fly", "keypoints": ["wing", "leg"]})
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"its class has other keypoints than the first that has"):
        register(address, KEYPOINT_ON=True)


@pytest.mark.parametrize(("names", "warns"), [(NAMES, False), (["ear 1", "ear 2"], True)])
def test_flips_without_pairs(tmp_path, caplog, names, warns):
    address = write(tmp_path, each=POINTS, names=names)
    register(address)
    warn_without_pairs([address], "INPUT.RANDOM_FLIP 'none'")
    lines = said(caplog)
    assert len(lines) == warns
    assert all("ear 1, ear 2" in x and x.endswith("or set INPUT.RANDOM_FLIP 'none'") for x in lines)


def test_more_objects_than_detections(tmp_path, caplog):
    boxes = [("dog", [i, i, 9, 9]) for i in range(12)]
    address = write(tmp_path, images={"a.jpg": boxes, "b.jpg": boxes[:3]})
    register(address)
    warn_of_limit([address], "TEST.DETECTIONS_PER_IMAGE", 12)
    assert "TEST.DETECTIONS_PER_IMAGE" not in caplog.text
    warn_of_limit([address], "TEST.DETECTIONS_PER_IMAGE", 10)
    assert caplog.records[-1].message == (
        f"1 images of the data set {address!r} have more than 10 objects, up to 12, but "
        "TEST.DETECTIONS_PER_IMAGE is 10: the model can find no more in an image"
    )


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (
            None,
            "the function that is registered for the data set 'odd' returns None, expected a",
        ),
        ({"a": 1}, "the function that is registered for the data set 'odd' returns .*, expected a"),
        ([{}, None], "the data set 'odd' has None for an image, expected a dict"),
        (["a.jpg"], "the data set 'odd' has 'a.jpg' for an image, expected a dict"),
    ],
)
def test_functions_that_return_no_records(records, words):
    DatasetCatalog.register("odd", lambda: records)
    try:
        with pytest.raises(InputError, match=words):
            records_of("odd")
    finally:
        DatasetCatalog.remove("odd")
