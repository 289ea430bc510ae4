import json

import pytest
from detectron2.structures import BoxMode
from small_data import HEIGHT, WIDTH, write_image

from ohem_d2.data.addresses import load_address
from ohem_d2.data.findings import Findings
from ohem_d2.data.labelme import load_labelme
from ohem_d2.errors import InputError


def shape(kind, *points, label="dog", **more):
    return {"label": label, "points": [list(p) for p in points], "shape_type": kind, **more}


RECTANGLE = shape("rectangle", (30, 40.5), (10, 20))


def write_labelme(folder, name="a", shapes=(RECTANGLE,), images=None, **more):
    write_image((images or folder) / f"{name}.jpg", seed=ord(name[0]))
    content = {
        "imagePath": f"{name}.jpg",
        "imageData": None,
        "imageWidth": WIDTH,
        "imageHeight": HEIGHT,
        "shapes": shapes,
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def load_one(folder, *shapes, **more):
    found = Findings()
    records, *_ = load_labelme(write_labelme(folder, "a", shapes, **more), findings=found)
    return records[0]["annotations"], [x.name for x in found]


def test_load(tmp_path):
    write_labelme(tmp_path)
    write_labelme(tmp_path / "far", "b", shapes=[], imageWidth=None)
    records, classes, _ = load_labelme(tmp_path)
    assert classes == ["dog"]
    assert records[0] == {
        "file_name": str(tmp_path / "a.jpg"),
        "image_id": "a",
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": [
            {"category_id": "dog", "bbox": [10, 20, 30, 40.5], "bbox_mode": BoxMode.XYXY_ABS}
        ],
    }
    assert (records[1]["image_id"], records[1]["width"]) == ("far/b", None)
    whole = load_address(f"labelme://{tmp_path}")
    assert whole.records[1]["width"] == WIDTH
    assert whole.findings[0].name == "size of an image missing, taken from its file"


@pytest.mark.parametrize(
    ("kind", "points", "box", "findings"),
    [
        ("polygon", [(1, 2), (11, 2.5), (6, 22)], [1, 2, 11, 22], []),
        (None, [(1, 2), (11, 2.5), (6, 22)], [1, 2, 11, 22], []),
        ("rectangle", [(1, 2), (9, 2), (9, 8), (1, 8)], [1, 2, 9, 8], []),
        ("circle", [(20, 30), (23, 34)], [15, 25, 25, 35], []),
        ("mask", [(1, 2), (9, 8)], [1, 2, 9, 8], ["mask, of which the box is taken"]),
        (
            "rotation",
            [(5, 0), (10, 5), (5, 10), (0, 5)],
            [0, 0, 10, 10],
            ["rotated shape, taken as the upright box around it"],
        ),
    ],
)
def test_shapes(tmp_path, kind, points, box, findings):
    (annotation,), found = load_one(tmp_path, shape(kind, *points))
    assert annotation["bbox"] == pytest.approx(box)
    assert ("segmentation" in annotation) == (kind in ("polygon", None))
    assert found == findings


def test_polygons_of_one_group_are_one_object(tmp_path):
    parts = [shape("polygon", (x, 0), (x + 5, 0), (x, 5), group_id=1) for x in (0, 20)]
    other = shape("polygon", (40, 0), (45, 0), (40, 5), group_id=None)
    annotations, _ = load_one(tmp_path, *parts, other, {**other, "label": "cat", "group_id": 1})
    assert [a["bbox"] for a in annotations] == [[0, 0, 25, 5], [40, 0, 45, 5], [40, 0, 45, 5]]
    assert annotations[0]["segmentation"] == [[0, 0, 5, 0, 0, 5], [20, 0, 25, 0, 20, 5]]


def test_a_flag_says_what_to_ignore(tmp_path):
    marked = {**RECTANGLE, "flags": {"ignore": True}}
    other = {**RECTANGLE, "flags": {"ignore": False, "blurred": True}}
    annotations, _ = load_one(tmp_path, marked, other)
    assert [x.get("ignore") for x in annotations] == [1, None]


@pytest.mark.parametrize("value", ["false", "0", "", None, 0])
def test_a_flag_that_is_not_set(tmp_path, value):
    annotations, _ = load_one(tmp_path, {**RECTANGLE, "flags": {"ignore": value}})
    assert "ignore" not in annotations[0]


def test_difficult_objects(tmp_path):
    shapes = [{**RECTANGLE, "difficult": True}, {**RECTANGLE, "flags": {"Difficult": True}}]
    annotations, _ = load_one(tmp_path, *shapes, {**RECTANGLE, "difficult": False})
    assert [x.get("difficult") for x in annotations] == [1, 1, None]


def test_an_image_with_the_flag_ignore_is_left_out(tmp_path):
    write_labelme(tmp_path, "b", flags={"Ignore": True, "night": True})
    with pytest.raises(InputError, match=r"all images have the flag 'ignore', expected some witho"):
        load_labelme(tmp_path)
    write_labelme(tmp_path, flags={"ignore": False})
    found = Findings()
    records, *_ = load_labelme(tmp_path, findings=found)
    assert [r["image_id"] for r in records] == ["a"]
    assert [(x.name, x.file) for x in found] == [
        ("image with the flag 'ignore', left out", str(tmp_path / "b.json"))
    ]


def test_a_json_file_that_names_the_image_of_another(tmp_path):
    write_labelme(tmp_path)
    write_labelme(tmp_path, "b", imagePath="..\\a.jpg")
    found = Findings()
    records, *_ = load_labelme(tmp_path, findings=found)
    assert records[1]["file_name"].endswith("b.jpg")
    assert [x.words for x in found] == ["'a.jpg' instead of 'b.jpg'"]


def test_what_systems_leave_behind_is_no_annotation(tmp_path):
    write_labelme(tmp_path)
    (tmp_path / "._a.json").write_bytes(b"\0\5\x16")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints/a-checkpoint.json").write_text("{")
    (tmp_path / "folder.json").mkdir()
    assert len(load_labelme(tmp_path)[0]) == 1


def test_what_has_no_box_is_counted(tmp_path):
    annotations, found = load_one(tmp_path, RECTANGLE, shape("point", (1, 1)))
    assert len(annotations) == 1
    assert found == ["point, which has no box, left out"]


def test_what_is_left_out_is_named(tmp_path):
    write_labelme(tmp_path)
    write_image(tmp_path / "b.jpg")
    (tmp_path / "coco.json").write_text("{}")
    found = Findings()
    load_labelme(tmp_path, findings=found)
    assert [(x.name, x.file) for x in found] == [
        ("JSON file that is not labelme's, left out", str(tmp_path / "coco.json")),
        ("image without a JSON file, left out", str(tmp_path / "b.jpg")),
    ]


@pytest.mark.parametrize("path", ["a.jpg", "..\\images\\a.jpg", "/home/x/a.jpg"])
def test_images_in_another_folder(tmp_path, path):
    images = tmp_path / "images"
    write_labelme(tmp_path / "json", images=images, imagePath=path)
    for given in (None, str(images)):
        records, *_ = load_labelme(tmp_path / "json", given)
        assert records[0]["file_name"] == str(images / "a.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": 3}, r"shapes is 3, expected a list"),
        ({"shapes": [3]}, r"shapes\[0\] is 3, expected an object"),
        ({"shapes": [{**RECTANGLE, "label": " "}]}, r"shapes\[0\] has the label ' '"),
        ({"shapes": [{**RECTANGLE, "points": [[1, 2]]}]}, r"\('dog'\) has the points \[\[1, 2\]\]"),
        ({"shapes": [{**RECTANGLE, "points": [[1, "2"], [3, 4]]}]}, r"expected 2 \[x, y\]"),
        ({"shapes": [{**RECTANGLE, "shape_type": "star"}]}, r"is a 'star', expected one of poly"),
        ({"shapes": [{**RECTANGLE, "flags": {"ignore": "?"}}]}, r"has the flag 'ignore' '\?', exp"),
        ({"flags": {"ignore": "?"}}, r"has the flag 'ignore' '\?', expected 0 or 1"),
        ({"imagePath": 3}, r"imagePath is 3, expected a text"),
    ],
)
def test_errors_name_the_shape(tmp_path, change, message):
    write_labelme(tmp_path, **change)
    with pytest.raises(InputError, match=rf"a.json: .*{message}"):
        load_labelme(tmp_path)


def test_other_errors(tmp_path):
    with pytest.raises(InputError, match=r"none does not exist, expected a folder"):
        load_labelme(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no JSON file of labelme's"):
        load_labelme(tmp_path)
    write_labelme(tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a.json is for the image a.jpg, which is not in"):
        load_labelme(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a.json is no JSON"):
        load_labelme(tmp_path)
