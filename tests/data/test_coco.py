import json
import math

import pytest
from small_data import HEIGHT, WIDTH, coco_content, write_coco

from ohem_d2.data.coco import load_coco
from ohem_d2.data.findings import Finding, Findings
from ohem_d2.errors import InputError

IMAGES = {"a.jpg": [("dog", [0, 0, 20, 30]), ("cat", [10, 10.5, 30, 20])], "b/c.png": []}
CATEGORIES = {7: "dog", 3: "cat"}


def test_load(tmp_path):
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    records, classes, metadata = load_coco(file, tmp_path / "images")
    assert classes == ["cat", "dog"]  # in the order of their ids
    assert [r["file_name"] for r in records] == [str(tmp_path / "images" / n) for n in IMAGES]
    assert (records[0]["width"], records[0]["height"]) == (WIDTH, HEIGHT)
    found = [(a["category_id"], a["bbox"]) for a in records[0]["annotations"]]
    assert found == IMAGES["a.jpg"]
    assert records[1]["annotations"] == []
    assert metadata == {"category_ids": {"dog": 7, "cat": 3}}


def test_keypoints(tmp_path):
    content = coco_content(IMAGES, CATEGORIES)
    content["categories"][0]["keypoints"] = ["nose", "left_eye", "right_eye", "left_over"]
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(json.dumps(content))
    *_, metadata = load_coco(file, tmp_path / "images")
    assert metadata == {
        "category_ids": {"dog": 7, "cat": 3},
        "keypoint_names": ["nose", "left_eye", "right_eye", "left_over"],
        "keypoint_flip_map": [("left_eye", "right_eye")],
    }


def test_polygons_crowds_and_texts_for_ids(tmp_path):
    content = coco_content(IMAGES, CATEGORIES)
    for image, annotation in zip(content["images"], content["annotations"]):
        image["id"] = f"photo {image['id']}"
        annotation["image_id"] = "photo 1"
    first, second = content["annotations"]
    first["segmentation"] = [[0, 0, 20, 0, 20, 30]]
    second["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [10, HEIGHT * WIDTH - 10]}
    second["iscrowd"] = 1
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(json.dumps(content))
    records, *_ = load_coco(file, tmp_path / "images")
    assert [a["iscrowd"] for a in records[0]["annotations"]] == [0, 1]
    assert records[0]["annotations"][0]["segmentation"] == [[0, 0, 20, 0, 20, 30]]


def with_root(change=lambda content: None):
    """As Roboflow writes it: a class 0 that the others belong to."""
    content = coco_content(IMAGES, {1: "dog", 2: "cat"})
    for category in content["categories"]:
        category["supercategory"] = "animals"
    content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    change(content)
    return content


def test_a_class_that_only_groups_the_others_is_left_out(tmp_path):
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(json.dumps(with_root()))
    found = Findings()
    _, classes, metadata = load_coco(file, tmp_path / "images", found)
    assert classes == ["dog", "cat"]
    assert metadata == {"category_ids": {"dog": 1, "cat": 2}}
    assert found == [
        Finding("class that only groups the others, left out", str(file), "'animals', id 0")
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["annotations"][0].update(category_id=0),
        lambda content: content["categories"][1].update(supercategory="pets"),
        lambda content: content["categories"][0].update(supercategory="things"),
    ],
)
def test_other_classes_of_id_0_stay(tmp_path, change):
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(json.dumps(with_root(change)))
    assert load_coco(file, tmp_path / "images")[1] == ["animals", "dog", "cat"]


def changed(change):
    content = coco_content(IMAGES, CATEGORIES)
    change(content)
    return json.dumps(content)


def set_in(kind, position, **values):
    return changed(lambda c: c[kind][position].update(values))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"Expecting property name"),
        ("[]", r"expected an object with images, annotations and categories"),
        (changed(lambda c: c.pop("images")), r"expected a list of 'images'"),
        (changed(lambda c: c.update(images=[], annotations=[])), r"it has no images"),
        (changed(lambda c: c["images"].append(3)), r"images\[2\] is 3, expected an object"),
        (set_in("images", 1, file_name=None), r"'file_name' of images\[1\] is None"),
        (set_in("images", 1, id=1), r"two of its images have the same id"),
        (set_in("images", 1, file_name="no.jpg"), r"names the image .*no.jpg: no such file"),
        (set_in("annotations", 0, bbox=[1, 2]), r"'bbox' of annotations\[0\] is \[1, 2\]"),
        (set_in("annotations", 0, bbox=[1, 2, "3", 4]), r"expected \[x, y, width, height\]"),
        (set_in("annotations", 1, image_id=9), r"'image_id' of annotations\[1\] is 9"),
        (set_in("annotations", 1, category_id=9), r"is 9, which is none of its categories"),
        (set_in("annotations", 0, bbox=[1, 2, math.inf, 4]), r"expected \[x, y, width, height\]"),
        (set_in("annotations", 0, iscrowd=2), r"'iscrowd' of annotations\[0\] is 2, expected 0 or"),
        (set_in("annotations", 1, iscrowd="x"), r"'iscrowd' of annotations\[1\] is 'x'"),
        (set_in("annotations", 1, iscrowd=[]), r"'iscrowd' of annotations\[1\] is \[\]"),
        (set_in("annotations", 0, ignore=1), r"'ignore' of annotations\[0\] is 1"),
        (set_in("categories", 0, id="x"), r"ids of its categories are partly numbers"),
        (set_in("categories", 0, name=5), r"'name' of categories\[0\] is 5, expected a text"),
    ],
)
def test_errors_name_the_file_and_the_entry(tmp_path, content, message):
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(content)
    with pytest.raises(InputError, match=rf"annotations.json.*{message}"):
        load_coco(file, tmp_path / "images")


def test_missing_file_or_folder(tmp_path):
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    with pytest.raises(InputError, match=r"nothing.json does not exist"):
        load_coco(tmp_path / "nothing.json", tmp_path)
    with pytest.raises(InputError, match=r"photos, the folder of the images of .*does not exist"):
        load_coco(file, tmp_path / "photos")
