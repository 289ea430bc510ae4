"""Files that are not what they were expected to be, in each format."""

import json
import zipfile

import pytest
from small_data import coco_content, write_image
from test_file_names import coco, cvat, labelme, voc, voc_list, yolo, yolo_list

from ohem_d2.data.addresses import load_address
from ohem_d2.errors import InputError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def darknet(folder, image, named):
    yolo(folder, image, named)
    (folder / "data.yaml").unlink()
    (folder / "obj.names").write_text("cat\n")
    (folder / "train.txt").write_text(f"images/train/{image}.jpg\n")
    (folder / "obj.data").write_text("classes = 1\ntrain = train.txt\nnames = obj.names\n")
    return f"yolo://{folder}/obj.data"


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (coco, "a.json"),
        (coco, "images/a.jpg"),
        (voc, "Annotations/a.xml"),
        (voc, "JPEGImages/a.jpg"),
        (voc_list, "ImageSets/Main/train.txt"),
        (yolo, "data.yaml"),
        (yolo, "labels/train/a.txt"),
        (yolo, "images/train/a.jpg"),
        (yolo_list, "train.txt"),
        (darknet, "obj.data"),
        (darknet, "obj.names"),
        (darknet, "train.txt"),
        (cvat, "annotations.xml"),
        (cvat, "images/a.jpg"),
        (labelme, "a.json"),
        (labelme, "a.jpg"),
    ],
)
def test_pointers_of_git_lfs(tmp_path, write, file):
    address = write(tmp_path, "a", "a")
    load_address(address)
    (tmp_path / file).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{file}:? (it )?is a Git LFS pointer and not the file"):
        load_address(address)


@pytest.mark.parametrize("number", [0, 2])
def test_a_class_that_groups_the_others_and_has_objects(tmp_path, number):
    images = {f"{i}.jpg": [("dog", [10, 10, 20, 20])] for i in range(3)}
    content = coco_content(images, {0: "animals", 1: "cat", 2: "dog"})
    for category in content["categories"]:
        category["supercategory"] = "animals" if category["id"] else "none"
    for annotation in content["annotations"][:number]:
        annotation["category_id"] = 0
    for i, name in enumerate(images):
        write_image(tmp_path / name, seed=i)
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(content))
    data = load_address(f"coco://{tmp_path}")
    assert ("animals" in data.classes) == (number > 0)
    kind = "and has objects of its own, kept" if number else "left out"
    (finding,) = (x for x in data.findings if "groups the others" in x.name)
    assert finding.name.endswith(kind)
    assert finding.words == "'animals', id 0" + (", 2 of 3 objects" if number else "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a.jpg1000": {"filename": "a.jpg", "size": 1000, "regions": []}}, "VIA's"),
        ({"info": {}, "categories": {"label": {}}, "items": []}, "Datumaro's"),
        ({"shapes": []}, "labelme's"),
    ],
)
def test_json_of_other_tools(tmp_path, content, words):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"a\.json is a file of {words}, expected an object with"):
        load_address(f"coco://{tmp_path}/a.json?images={tmp_path}")


@pytest.mark.parametrize(
    ("address", "expected"),
    [("voc://", "the PASCAL VOC layout"), ("labelme://", "a folder of"), ("cvat://", "XML"),
     ("coco://", "JSON")],
)  # fmt: skip
def test_archives_that_are_not_unpacked(tmp_path, address, expected):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.xml", "<annotations>" + "é" * 500)
    with pytest.raises(InputError, match=rf"a\.zip is a ZIP archive, expected {expected}"):
        load_address(f"{address}{tmp_path}/a.zip" + "?images=." * (address == "coco://"))


def test_a_blank_line_in_front_of_xml(tmp_path):
    address = voc(tmp_path, "a", "a")
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(f'\n<?xml version="1.0" encoding="utf-8"?>\n{file.read_text()}')
    assert len(load_address(address).records[0]["annotations"]) == 1


def test_blanks_around_a_name(tmp_path):
    address = coco(tmp_path, "a", "a")
    file = tmp_path / "a.json"
    file.write_text(file.read_text().replace('"a.jpg"', '" a.jpg "'))
    assert load_address(address).records[0]["file_name"].endswith("/a.jpg")


@pytest.mark.parametrize("written", ["1", " 1\n", "0", ""])
def test_objects_that_were_deleted(tmp_path, written):
    address = voc(tmp_path, "a", "a")
    file = tmp_path / "Annotations" / "a.xml"
    gone = f"<object><name>dog</name><deleted>{written}</deleted></object>"
    text = file.read_text()
    if written.strip() != "1":  # of which others need a box, as ever
        gone = gone.replace("</object>", text[text.index("<bndbox>") : text.index("</object>")])
        gone += "</object>"
    file.write_text(text.replace("</annotation>", f"{gone}</annotation>"))
    data = load_address(address)
    names = [x.name for x in data.findings if "deleted" in x.name]
    assert len(data.records[0]["annotations"]) == 2 - len(names)
    assert len(names) == (written.strip() == "1")
