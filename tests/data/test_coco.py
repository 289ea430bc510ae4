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
        ('[{"image_id": 1, "category_id": 1, "score": 0.5}]', r"is a list of detections or annot"),
        (
            changed(lambda c: c.update(annotations=[{"image_id": 1, "segments_info": []}])),
            r"is a file of panoptic segmentation \('segments_info'\), expected an object",
        ),
        (
            changed(lambda c: c.update(annotations=[{"id": 1, "caption": "a"}])),
            r"is a file of captions",
        ),
        ('{"shapes": []}', r"is a file of labelme's, expected an object with images, annotations"),
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
        (set_in("annotations", 0, ignore="x"), r"'ignore' of annotations\[0\] is 'x'"),
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


def written(tmp_path, change):
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(changed(change))
    return load_coco(file, tmp_path / "images")[0]


@pytest.mark.parametrize("value", [None, "0", "", False, 0.0, "missing"])
def test_what_is_no_crowd(tmp_path, value):
    def change(content):
        if value == "missing":
            del content["annotations"][0]["iscrowd"]
        else:
            content["annotations"][0].update(iscrowd=value, ignore=value)

    records = written(tmp_path, change)
    assert [a["iscrowd"] for a in records[0]["annotations"]] == [0, 0]


@pytest.mark.parametrize("value", [1, "1", True, 1.0])
def test_what_is_a_crowd(tmp_path, value):
    records = written(tmp_path, lambda c: c["annotations"][0].update(iscrowd=value))
    assert [a["iscrowd"] for a in records[0]["annotations"]] == [1, 0]


def test_what_is_to_be_ignored_is_no_object(tmp_path):
    records = written(tmp_path, lambda c: c["annotations"][0].update(ignore=1))
    assert [a["iscrowd"] for a in records[0]["annotations"]] == [1, 0]


def test_ids_that_are_numbers_here_and_texts_there(tmp_path):
    def change(content):
        content["images"][0]["id"] = "1"
        content["images"][1]["id"] = 2.0
        for annotation in content["annotations"]:
            annotation.update(image_id=1, category_id=str(annotation["category_id"]))

    records = written(tmp_path, change)
    assert [r["image_id"] for r in records] == [1, 2]
    assert [a["category_id"] for a in records[0]["annotations"]] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("area", "kept"), [(7.5, 7.5), ("8", 8), (None, None), ("large", None), (math.nan, None)]
)
def test_the_area_of_the_file(tmp_path, area, kept):
    records = written(tmp_path, lambda c: c["annotations"][0].update(area=area))
    assert records[0]["annotations"][0].get("area") == kept


@pytest.mark.parametrize("name", ["../other.jpg", "/etc/other.jpg", "b/../../other.jpg"])
def test_images_outside_their_folder_are_refused(tmp_path, name):
    write_coco(tmp_path, IMAGES, CATEGORIES)
    (tmp_path / "other.jpg").write_bytes((tmp_path / "images" / "a.jpg").read_bytes())
    with pytest.raises(InputError, match=rf"names the image '{name}', which is outside .*/images:"):
        written(tmp_path, lambda c: c["images"][0].update(file_name=name))


def test_images_inside_by_another_way(tmp_path):
    write_coco(tmp_path, IMAGES, CATEGORIES)
    path = str(tmp_path / "images" / "a.jpg")
    for name in (path, "../images/a.jpg", "b/../a.jpg"):
        records = written(tmp_path, lambda c, n=name: c["images"][0].update(file_name=n))
        assert (tmp_path / "images" / "a.jpg").samefile(records[0]["file_name"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images" / "a.jpg").rename(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    file = tmp_path / "linked.json"
    file.write_text(changed(lambda c: c["images"][0].update(file_name="linked/a.jpg")))
    assert len(load_coco(file, tmp_path / "images")[0]) == 2


@pytest.mark.parametrize("names", ["nose", [1, 2], ["a", None], ["a", "a"], {"a": 1}])
def test_names_of_keypoints_stop_no_model_without_keypoints(tmp_path, names):
    found = Findings()
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(set_in("categories", 0, keypoints=names))
    records, _, metadata = load_coco(file, tmp_path / "images", found)
    assert "keypoint_names" not in metadata
    assert records[0]["annotations"]
    assert found[0].name == "names of keypoints that cannot be read, left out"


def test_two_ids_of_one_class(tmp_path):
    def change(content):
        content["categories"].append({"id": 9, "name": content["categories"][0]["name"]})

    found = Findings()
    file = write_coco(tmp_path, IMAGES, CATEGORIES)
    file.write_text(changed(change))
    load_coco(file, tmp_path / "images", found)
    assert found[0].name == "ids of categories that have the same name, taken as one"


def test_a_number_beyond_all_floats(tmp_path):
    records = written(tmp_path, lambda c: c["annotations"][0].update(area=10**400))
    assert "area" not in records[0]["annotations"][0]
