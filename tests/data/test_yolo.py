import os
from pathlib import Path

import pytest
import yaml
from detectron2.structures import BoxMode
from PIL import Image
from small_data import HEIGHT, WIDTH, write_image

from ohem_d2.data.addresses import load_address
from ohem_d2.data.findings import Findings
from ohem_d2.data.yolo import load_yolo
from ohem_d2.errors import InputError

BOX = "0 0.5 0.5 0.25 0.5"  # of an image of 80 x 60: 30, 15, 50, 45
YAML = "path: .\ntrain: images/train\nval: images/val\nnames: [dog, cat]\n"


def write_set(folder, split, labels):
    for i, (name, text) in enumerate(labels.items()):
        write_image(folder / f"images/{split}/{name}.jpg", seed=i)
        if text is not None:
            file = folder / f"labels/{split}/{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


@pytest.fixture
def folder(tmp_path):
    """Ultralytics' layout."""
    write_set(tmp_path, "train", {"a": BOX, "b": None})
    write_set(tmp_path, "val", {"c": "1 0.1 0.2 0.1 0.2\n\n0 0.5 0.5 1 1\n"})
    (tmp_path / "data.yaml").write_text(YAML)
    return tmp_path


def boxes(records):
    return [[(a["category_id"], a["bbox"]) for a in r["annotations"]] for r in records]


TRAIN = [[("dog", [30, 15, 50, 45])], []]


def test_load(folder):
    found = Findings()
    records, classes, metadata = load_yolo(folder / "data.yaml", "train", findings=found)
    assert classes == ["dog", "cat"]
    assert metadata == {"category_ids": {"dog": 0, "cat": 1}}
    assert boxes(records) == TRAIN
    assert records[0] == {
        "file_name": str(folder / "images/train/a.jpg"),
        "image_id": "images/train/a.jpg",
        "annotations": [
            {"category_id": "dog", "bbox": [30, 15, 50, 45], "bbox_mode": BoxMode.XYXY_ABS}
        ],
    }
    assert [(x.name, Path(x.file).name) for x in found] == [
        ("image without a file of labels, taken to be without objects", "b.jpg")
    ]
    records, *_ = load_yolo(folder, "val")
    assert boxes(records) == [
        [("cat", pytest.approx([4, 6, 12, 18])), ("dog", [0, 0, WIDTH, HEIGHT])]
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"path: .\n": ""},
        {"path: .\n": "path: /content/datasets/cells\n"},  # of another machine
        {"path: .\n": "", "images/train": "../images/train"},  # as Roboflow writes it
        {"images/train": "/content/cells/images/train"},
        {"images/train": "[images/train]"},
        {"[dog, cat]": "{0: dog, 1: cat}"},
        {"[dog, cat]": "{1: cat, 0: 'dog '}\nnc: 2"},
        {"val: images/val": "valid: images/val"},
    ],
)
def test_ways_to_write_a_yaml(folder, change):
    text = YAML
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "data.yaml").write_text(text)
    records, classes, _ = load_yolo(folder / "data.yaml", "train")
    assert boxes(records) == TRAIN
    assert classes == ["dog", "cat"]
    assert len(load_yolo(folder / "data.yaml", "val")[0]) == 1


@pytest.mark.parametrize("start", ["", "./", "data/", "/content/cells/"])
def test_a_list_of_images(folder, start):
    (folder / "data.yaml").write_text(YAML.replace("images/train", "train.txt"))
    lines = [f"{start}images/train/{x}.jpg" for x in "aba"]
    (folder / "train.txt").write_text("\n".join(lines))
    found = Findings()
    records, *_ = load_yolo(folder / "data.yaml", "train", findings=found)
    assert boxes(records) == TRAIN
    assert found[0].name == "image listed more than once, taken once"


def test_roboflow_splits_in_folders_of_their_own(tmp_path):
    for split in ("train", "valid"):
        write_image(tmp_path / split / "images/a.jpg")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels/a.txt").write_text(BOX)
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['dog']\n"
    )
    for split in ("train", "val", "valid"):
        assert boxes(load_yolo(tmp_path / "data.yaml", split)[0]) == TRAIN[:1]


def test_a_path_that_may_mean_two_folders(tmp_path):
    for folder in (tmp_path, tmp_path / "mine"):
        write_image(folder / "train/images/a.jpg")
        (folder / "train/labels").mkdir()
        (folder / "train/labels/a.txt").write_text(BOX)
    (tmp_path / "mine/data.yaml").write_text("train: ../train/images\nnames: [dog]\n")
    found = Findings()
    records, *_ = load_yolo(tmp_path / "mine", findings=found)
    assert Path(records[0]["file_name"]).resolve() == tmp_path / "train/images/a.jpg"
    assert found[0].name == "path that may mean another one, which exists, too"
    assert found[0].words.endswith(f"and there is {tmp_path}/mine/train/images")


def darknet(folder, images="obj_train_data"):
    (folder / "obj_train_data").mkdir(parents=True)
    for i, name in enumerate("ab"):
        write_image(folder / images / f"{name}.jpg", seed=i)
    (folder / "obj_train_data/a.txt").write_text(BOX)
    (folder / "obj.names").write_text("dog\ncat\n")
    (folder / "train.txt").write_text("".join(f"data/obj_train_data/{x}.jpg\n" for x in "ab"))
    (folder / "obj.data").write_text(
        "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    return folder


@pytest.mark.parametrize("address", ["", "obj.data"])
def test_darknet(tmp_path, address):
    records, classes, _ = load_yolo(darknet(tmp_path) / address)
    assert boxes(records) == TRAIN
    assert classes == ["dog", "cat"]


def test_darknet_with_the_images_elsewhere(tmp_path):
    records, *_ = load_yolo(darknet(tmp_path / "yolo", "../images"))
    assert boxes(records) == TRAIN
    records, *_ = load_yolo(tmp_path / "yolo/obj.data", images=str(tmp_path / "images"))
    assert boxes(records) == TRAIN


@pytest.mark.parametrize("where", ["classes.txt", "obj.names", "labels/classes.txt"])
def test_a_folder_with_names(tmp_path, where):
    for i, name in enumerate("ab"):
        write_image(tmp_path / f"images/{name}.jpg", seed=i)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(BOX)
    (tmp_path / where).write_text("dog\ncat\n")
    assert boxes(load_yolo(tmp_path)[0]) == TRAIN


def test_labels_beside_the_images(tmp_path):
    for i, name in enumerate("ab"):
        write_image(tmp_path / f"{name}.jpg", seed=i)
    (tmp_path / "a.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("dog\n")
    assert boxes(load_yolo(tmp_path)[0]) == TRAIN


def test_polygons(folder):
    (folder / "labels/train/a.txt").write_text("1 0.25 0.5 0.5 0.25 0.75 1")
    records, *_ = load_yolo(folder, "train")
    (annotation,) = records[0]["annotations"]
    assert annotation["bbox"] == [20, 15, 60, 60]
    assert annotation["segmentation"] == [[20, 30, 40, 15, 60, 60]]


def test_the_box_of_an_object_with_keypoints(folder):
    (folder / "data.yaml").write_text(YAML + "kpt_shape: [2, 2]\n")
    (folder / "labels/train/a.txt").write_text(f"{BOX} 0.1 0.1 0.2 0.2")
    found = Findings()
    assert boxes(load_yolo(folder, "train", findings=found)[0]) == TRAIN
    assert found[0].name == "keypoints, which are not read"


def test_keypoints_that_the_yaml_does_not_name(folder):
    rows = [f"0 0.{i} 0.{i} 0.1 0.1 0.{i}1 0.{i}2" for i in (1, 3, 5, 7, 8)]
    (folder / "labels/train/a.txt").write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"a.txt, line 1: .* expected 'kpt_shape: \[1, 2\]' in"):
        load_yolo(folder, "train")
    (folder / "data.yaml").write_text(YAML + "kpt_shape: []\n")
    assert len(load_yolo(folder, "train")[0][0]["annotations"][0]["segmentation"][0]) == 6
    (folder / "data.yaml").write_text(YAML + "kpt_shape: [1, 2]\n")
    assert load_yolo(folder, "train")[0][0]["annotations"][0]["bbox"] == pytest.approx(
        [4, 3, 12, 9]
    )
    (folder / "data.yaml").write_text(YAML + "kpt_shape: [1, 3]\n")
    with pytest.raises(InputError, match=r"line 1: 7 columns, expected 5 or 8, as kpt_shape says"):
        load_yolo(folder, "train")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("labels/train/classes.txt", "cat\ndog\n", "class 0 is 'cat', and 'dog' in "),
        ("labels/classes.txt", "dog\nbird\n", "class 1 is 'bird', and 'cat' in "),
        ("obj.names", "dog\n\n", None),
        ("labels.txt", "Dog\ncat \nbird\n", None),
        ("labels/train/predefined_classes.txt", "cat\ndog\n", None),
    ],
)
def test_another_list_of_class_names(folder, file, content, words):
    (folder / file).write_text(content)
    found = Findings()
    load_yolo(folder / "data.yaml", "train", findings=found)
    names = [x for x in found if x.name.startswith("list of class names that differs")]
    assert [x.file for x in names] == ([str(folder / file)] if words else [])
    assert not words or names[0].words.startswith(words)


def test_numbers_of_classes_with_gaps(folder):
    (folder / "data.yaml").write_text(YAML.replace("[dog, cat]", "{0: dog, 2: cat}"))
    (folder / "labels/train/a.txt").write_text(BOX.replace("0", "1", 1))
    with pytest.raises(
        InputError, match=r"the class is 1, expected one of 0, 2, since names has n"
    ):
        load_yolo(folder, "train")


def test_an_image_that_is_shown_turned(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images/train/a.jpg", exif=exif)
    data = load_address(f"yolo://{folder}?split=train")
    assert (data.records[0]["width"], data.records[0]["height"]) == (HEIGHT, WIDTH)
    # Nobody can tell whether it was shown so to those who annotated it.
    assert data.findings[1].name.startswith("image that its EXIF data turn: boxes are taken to be")


def test_names_are_texts_whatever_yaml_makes_of_them(folder):
    (folder / "data.yaml").write_text(YAML.replace("[dog, cat]", "[no, 007]"))
    assert load_yolo(folder, "train")[1] == ["no", "007"]
    (folder / "data.yaml").write_text(YAML.replace("[dog, cat]", "{0: on, 1: 1e3}"))
    assert load_yolo(folder, "train")[1] == ["on", "1e3"]


def test_two_numbers_of_one_class(folder):
    found = Findings()
    (folder / "data.yaml").write_text(YAML.replace("[dog, cat]", "[dog, 'dog ', cat]"))
    assert load_yolo(folder, "train", findings=found)[1] == ["dog", "cat"]
    assert (found[0].name, found[0].words) == (
        "numbers of classes that have the same name, taken as one",
        "'dog': 0 and 1",
    )


def test_a_number_of_classes_that_darknet_has_not(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text(BOX)
    (tmp_path / "list.txt").write_text("a.jpg")
    (tmp_path / "obj.names").write_text("dog")
    (tmp_path / "obj.data").write_text("classes = 3\ntrain = list.txt\nnames = obj.names\n")
    found = Findings()
    load_yolo(tmp_path / "obj.data", findings=found)
    assert [x.words for x in found] == ["classes is '3', and there are 1 names"]


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_list_that_leads_outside_is_refused(folder, tmp_path_factory, is_relative):
    other = tmp_path_factory.mktemp("other") / "z.jpg"
    write_image(other, seed=5)
    path = os.path.relpath(other, folder) if is_relative else other
    (folder / "list.txt").write_text(f"images/train/a.jpg\n{path}\n")
    (folder / "data.yaml").write_text(YAML.replace("images/train", "list.txt"))
    with pytest.raises(InputError, match=r"list.txt, line 2 names the image .*z.jpg, which is out"):
        load_yolo(folder, "train")
    write_image(folder / "images/all/z.jpg", seed=5)  # in the folder that the address gives
    assert len(load_yolo(folder, "train", images=str(folder / "images"))[0]) == 2


def test_labels_without_an_image_are_named(folder):
    (folder / "labels/train/gone.txt").write_text(BOX)
    (folder / "labels/train/classes.txt").write_text("dog\n")
    found = Findings()
    load_yolo(folder, "train", findings=found)
    assert found[-1].name == "file of labels without an image, left out"
    assert found[-1].file.endswith("gone.txt")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.25", r"4 columns, expected 5"),
        ("0 0.5 0.5 0.25 0.5 0.9", r"6 columns, expected 5"),
        (
            "0 .5 .5 .2 .2 .9 2",
            r"2 is no .*, expected 0 to 1; or labels saved without conf.*kpt_shape",
        ),
        ("0 0.5 0.5 1.25 0.5", r"1.25 is no normalised coordinate, expected 0 to 1"),
        ("0 320 240 40 60", r"320 is no normalised coordinate"),
        ("0 -0.1 0.5 0.25 0.5", r"-0.1 is no normalised coordinate"),
        ("0 nan 0.5 0.25 0.5", r"nan is no normalised coordinate"),
        ("2 0.5 0.5 0.25 0.5", r"the class is 2, expected one of 0 to 1"),
        ("0.5 0.5 0.5 0.25 0.5", r"the class is 0.5"),
        ("dog 0.5 0.5 0.25 0.5", r"'dog 0.5 .*', expected numbers"),
        ("0,0.5,0.5,0.25,0.5", r"1 columns, expected 5"),
    ],
)
def test_errors_name_the_line(folder, line, message):
    (folder / "labels/train/a.txt").write_text(f"{BOX}\n{line}\n")
    with pytest.raises(InputError, match=rf"labels/train/a.txt, line 2: {message}"):
        load_yolo(folder, "train")


def test_numbers_of_classes_may_be_texts(folder):
    before = load_yolo(folder, "train")[:2]
    file = folder / "data.yaml"
    content = yaml.safe_load(file.read_text())
    content["names"] = {str(i): x for i, x in enumerate(content["names"])}
    file.write_text(yaml.safe_dump(content))
    assert load_yolo(folder, "train")[:2] == before


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("[", r"data.yaml is no YAML"),
        ("- 1", r"data.yaml has \[1\], expected the keys train, val and names"),
        ("train: images", r"names is None, expected a list"),
        ("train: images/train\nnames: []", r"names is empty"),
        ("train: images/train\nnames: {dog: 0}", r"names has the key 'dog', expected numbers"),
        ("train: images/train\nnames: {0: a, '0': b}", r"names has a number twice, expected"),
        ("train: images/train\nnames: [' ']", r"the name of class 0 is ' ', expected a text"),
        ("train: images/train\nnames: [dog]\nkpt_shape: 17", r"kpt_shape is 17, expected \[number"),
        ("train: 3\nnames: [dog]", r"train is \[3\], expected folders or lists"),
        ("train: no/such\nnames: [dog]", r"train is no/such, which does not exist"),
        ("train: labels\nnames: [dog]", r"there are no images in 'train', labels"),
        ("test: images/train\nnames: [dog]", r"has no split 'train', expected one of test"),
        ("train: images/train/a.jpg\nnames: [dog]", r"train is the image images/train/a.jpg"),
        (
            "train: /x/images/train\nval: /y/images/train\nnames: [dog]",
            r"neither train \(/x/images/train\) nor val .* exists as it is written",
        ),
    ],
)
def test_errors_of_a_yaml(folder, yaml, message):
    (folder / "data.yaml").write_text(yaml)
    with pytest.raises(InputError, match=message):
        load_yolo(folder / "data.yaml", "train")


def test_other_errors(folder, tmp_path):
    with pytest.raises(InputError, match=r"has the splits train, val: expected one, as '\?split="):
        load_yolo(folder)
    with pytest.raises(InputError, match=r"none does not exist, expected a data.yaml"):
        load_yolo(tmp_path / "none")
    with pytest.raises(InputError, match=r"images has no data.yaml, obj.data, obj.names or cl"):
        load_yolo(folder / "images")
    (folder / "images/train/a.png").write_bytes((folder / "images/train/a.jpg").read_bytes())
    with pytest.raises(InputError, match=r"a.txt may be for .*a.jpg and .*a.png"):
        load_yolo(folder, "train")
    (folder / "images/train/a.png").unlink()
    (folder / "labels/train/a.txt").unlink()
    with pytest.raises(InputError, match=r"no image of 'train' has a file of labels, expected tha"):
        load_yolo(folder, "train")
    (folder / "train.txt").write_text("images/train/gone.jpg\n")
    (folder / "data.yaml").write_text(YAML.replace("images/train", "train.txt"))
    with pytest.raises(InputError, match=r"train.txt, line 1 names the image images/train/gone.j"):
        load_yolo(folder, "train")


def test_labels_beside_images_without_an_image(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "classes.txt").write_text("cat\n")
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "notes.txt").write_text("Taken on a Monday, with five or more words.\n")
    findings = Findings()
    load_yolo(tmp_path, findings=findings)
    (line,) = findings.summary()
    assert line.startswith("file of labels without an image, left out: 1 (")
    assert "b.txt" in line


def test_a_key_twice_in_obj_data(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "obj.names").write_text("cat\n")
    (tmp_path / "obj.data").write_text("names = obj.names\ntrain = a\nnames = other.names\n")
    with pytest.raises(InputError, match=r"obj\.data, line 3: the key 'names' stands twice"):
        load_yolo(tmp_path)


@pytest.mark.parametrize(
    ("line", "box", "number"),
    [
        ("0 0.5 0.5 1.000002 1", [0, 0, 80, 60], 0),
        ("0 -1e-9 0 1.0000001 0 1 1.0000001 -0.0 1", [0, 0, 80, 60], 0),
        ("0 0.5 0.5 1.005 0.5", [0, 15, 80, 45], 1),
        ("0 -0.004 0.5 1 0.5 1.008 1.008 0 1", [0, 30, 80, 60], 1),
    ],
)
def test_coordinates_a_little_outside(folder, line, box, number):
    """Which Ultralytics takes, too."""
    (folder / "labels/train/a.txt").write_text(f"{BOX}\n{line}\n")
    found = Findings()
    records, *_ = load_yolo(folder, "train", findings=found)
    assert records[0]["annotations"][1]["bbox"] == pytest.approx(box)
    lines = [
        x.file for x in found if x.name == "coordinate a little less than 0 or more than 1, cut off"
    ]
    assert len(lines) == number
    assert all(x.endswith("a.txt, line 2") for x in lines)


@pytest.mark.parametrize(
    ("used", "number"), [((1, 2, 3), 1), ((0, 1, 2), 0), ((1, 3), 0), ((0, 1, 2, 3), 0)]
)
def test_numbers_from_one(folder, used, number):
    text = "".join(BOX.replace("0 ", f"{x} ", 1) + "\n" for x in used)
    (folder / "labels/train/a.txt").write_text(text)
    (folder / "data.yaml").write_text(YAML.replace("cat]", "cat, bird, cow]"))
    found = Findings()
    load_yolo(folder, "train", findings=found)
    assert sum("as if numbers began at 1" in x.name for x in found) == number
