import json

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from small_data import HEIGHT, WIDTH, coco_content, write_image, write_voc

from ohem_d2.data.paper import load_coco_with_voc_classes, load_images
from ohem_d2.errors import InputError


def test_images_without_annotations(tmp_path):
    write_voc(tmp_path, {"a": [("dog", (1, 1, 20, 30), "")], "b": []}, split="test")
    records = load_images(tmp_path, "test")
    assert [r["image_id"] for r in records] == ["a", "b"]
    assert [r["annotations"] for r in records] == [[], []]
    assert (records[0]["height"], records[0]["width"]) == (HEIGHT, WIDTH)


def test_the_objects_of_coco_that_voc_knows(tmp_path):
    objects = [("tv", [1, 2, 9, 8]), ("giraffe", [0, 0, 9, 9]), ("dog", [3, 3, 5, 5])]
    names = {72: "tv", 25: "giraffe", 18: "dog"}  # with COCO's own ids
    (tmp_path / "coco.json").write_text(json.dumps(coco_content({"a.jpg": objects}, names)))
    write_image(tmp_path / "images" / "a.jpg")
    (record,) = load_coco_with_voc_classes(str(tmp_path / "coco.json"), str(tmp_path / "images"))
    classes = MetadataCatalog.get("voc_2007_trainval").thing_classes
    labels = [classes[a["category_id"]] for a in record["annotations"]]
    assert labels == ["tvmonitor", "dog"]
    assert record["annotations"][0]["bbox"] == [1, 2, 9, 8]


def test_all_of_vocs_classes_are_in_coco(tmp_path):
    things = {c["id"]: c["name"] for c in COCO_CATEGORIES if c["isthing"]}
    objects = [(name, [0, 0, 9, 9]) for name in things.values()]
    (tmp_path / "coco.json").write_text(json.dumps(coco_content({"a.jpg": objects}, things)))
    (record,) = load_coco_with_voc_classes(str(tmp_path / "coco.json"), str(tmp_path))
    assert sorted(a["category_id"] for a in record["annotations"]) == list(range(20))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"test\.txt does not exist, expected the images of"):
        load_images(tmp_path, "test")
    with pytest.raises(InputError, match=r"no\.json does not exist, expected COCO's annotations"):
        load_coco_with_voc_classes(str(tmp_path / "no.json"), str(tmp_path))
