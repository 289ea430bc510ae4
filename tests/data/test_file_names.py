"""Names of files in the two forms of Unicode, and with the separators of another system."""

import json
import unicodedata

import pytest
from small_data import HEIGHT, OBJECT, WIDTH, coco_content, write_image

from ohem_d2.data.addresses import load_address
from ohem_d2.data.file_names import as_on_disk
from ohem_d2.errors import InputError

STEM = "Kühe_é1"
FORMS = ["NFC", "NFD"]


def coco(folder, image, named):
    content = coco_content({f"{named}.jpg": [("cat", [10, 10, 20, 20])]}, {1: "cat"})
    (folder / "a.json").write_text(json.dumps(content))
    write_image(folder / "images" / f"{image}.jpg")
    return f"coco://{folder}/a.json?images={folder}/images"


def voc(folder, image, named):
    write_image(folder / "JPEGImages" / f"{image}.jpg")
    (folder / "Annotations" / named).parent.mkdir(parents=True)
    (folder / "Annotations" / f"{named}.xml").write_text(
        f"<annotation><filename>{named}.jpg</filename><size><width>{WIDTH}</width>"
        f"<height>{HEIGHT}</height></size>{OBJECT.format(11, 11, 30, 30, name='cat', extra='')}"
        "</annotation>"
    )
    return f"voc://{folder}"


def voc_list(folder, image, named):
    """Its XML file has the form of the image."""
    address = voc(folder, image, image)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(f"{named}.jpg\n")
    return f"{address}?split=train"


def yolo(folder, image, named):
    write_image(folder / "images" / "train" / f"{image}.jpg")
    (folder / "labels" / "train" / named).parent.mkdir(parents=True)
    (folder / "labels" / "train" / f"{named}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("names: [cat]\ntrain: images/train\n")
    return f"yolo://{folder}"


def yolo_list(folder, image, named):
    address = yolo(folder, image, image)
    (folder / "train.txt").write_text(f"./images/train/{named}.jpg\n")
    (folder / "data.yaml").write_text("names: [cat]\ntrain: train.txt\n")
    return address


def cvat(folder, image, named):
    write_image(folder / "images" / f"{image}.jpg")
    (folder / "annotations.xml").write_text(
        f'<annotations><image id="0" name="{named}.jpg" width="{WIDTH}" height="{HEIGHT}">'
        '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="30"/></image></annotations>'
    )
    return f"cvat://{folder}"


def labelme(folder, image, named):
    write_image(folder / f"{image}.jpg")
    shape = {"label": "cat", "points": [[10, 10], [30, 30]], "shape_type": "rectangle"}
    (folder / named).parent.mkdir(exist_ok=True)
    (folder / f"{named}.json").write_text(
        json.dumps({"shapes": [shape], "imagePath": f"{named}.jpg"})
    )
    return f"labelme://{folder}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("write", [coco, voc, voc_list, yolo, yolo_list, cvat, labelme])
def test_accents_in_another_form(tmp_path, write, form):
    image, named = (unicodedata.normalize(x, STEM) for x in (form, *{*FORMS} - {form}))
    assert image != named
    data = load_address(write(tmp_path, image, named))
    (record,) = data.records
    assert record["file_name"].endswith(f"{image}.jpg")
    assert len(record["annotations"]) == 1
    assert not [x for x in data.findings if "size" not in x.name]


def test_both_forms_are_there(tmp_path):
    """Then each name means what is written."""
    names = [unicodedata.normalize(form, STEM) for form in FORMS]
    for name in names:
        yolo(tmp_path, name, name) if name == names[0] else None
        write_image(tmp_path / "images" / "train" / f"{name}.jpg")
        (tmp_path / "labels" / "train" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    records = load_address(f"yolo://{tmp_path}").records
    assert sorted(r["file_name"].rsplit("/", 1)[1] for r in records) == sorted(
        f"{name}.jpg" for name in names
    )


def test_folders_and_files_in_two_forms(tmp_path):
    folder, file = unicodedata.normalize("NFC", "Kühe"), unicodedata.normalize("NFD", "é.jpg")
    write_image(tmp_path / folder / file)
    for form in FORMS:
        name = unicodedata.normalize(form, f"{folder}/{file}")
        assert as_on_disk(str(tmp_path / name)) == str(tmp_path / folder / file)
    assert as_on_disk(str(tmp_path / folder / "ü.jpg")) is None


def test_backslashes_of_windows(tmp_path):
    (tmp_path / "images").mkdir()
    records = load_address(coco(tmp_path, "sub/a", ".\\sub\\a")).records
    assert records[0]["file_name"].endswith("images/./sub/a.jpg")
    # A file that has one in its name
    records = load_address(coco(tmp_path, "sub\\a", "sub\\a")).records
    assert records[0]["file_name"].endswith("images/sub\\a.jpg")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("C:\\data\\a", r"'C:\\\\data\\\\a\.jpg', a path on a machine with Windows: expected a p"),
        ("d:/data/a", r"a path on a machine with Windows: expected a path inside of .*images"),
        ("\\\\server\\data\\a", r"a path on a machine with Windows"),
        ("..\\a", r"'\.\.\\\\a\.jpg', which is outside"),
        ("sub\\b", r"names the image .*images/sub/b\.jpg: no such file"),
    ],
)
def test_paths_of_windows_that_are_refused(tmp_path, named, message):
    with pytest.raises(InputError, match=message):
        load_address(coco(tmp_path, "sub/a", named))


@pytest.mark.parametrize("write", [coco, voc, voc_list, yolo, yolo_list, cvat, labelme])
def test_other_capitals(tmp_path, write):
    address = write(tmp_path, "sub/Ab", "SUB/aB" if write in (coco, cvat) else "sub/aB")
    data = load_address(address)
    (record,) = data.records
    assert record["file_name"].endswith("sub/Ab.jpg")
    assert len(record["annotations"]) == 1
    (line,) = (x for x in data.findings.summary() if "size" not in x)
    assert line.startswith("file whose name or folder has other capitals than expected: 1 (")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (coco, r"names the image .*images/AB\.jpg: no such file"),
        (voc, r"AB\.xml exists, but there is no image for it"),
        (cvat, r"image 'AB\.jpg' is not in"),
        (labelme, r"AB\.json is for the image AB\.jpg, which is not in"),
    ],
)
def test_other_capitals_of_two_files(tmp_path, write, message):
    address = write(tmp_path, "aB", "AB")
    (image,) = tmp_path.rglob("aB.jpg")
    image.with_name("Ab.jpg").write_bytes(image.read_bytes())
    with pytest.raises(InputError, match=message):
        load_address(address)


def test_labels_of_another_image(tmp_path):
    """Whose name only differs in capitals."""
    address = yolo(tmp_path, "a", "a")
    write_image(tmp_path / "images" / "train" / "A.jpg", seed=1)
    records = load_address(address).records
    assert [len(r["annotations"]) for r in records] == [0, 1]


@pytest.mark.parametrize("folders", [("Labels",), ("Images",), ("Labels", "Images")])
def test_folders_in_other_capitals(tmp_path, folders):
    address = yolo(tmp_path, "a", "a")
    (tmp_path / "labels" / "train" / "gone.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    for folder in folders:
        (tmp_path / folder.lower()).rename(tmp_path / folder)
    data = load_address(address)
    assert len(data.records[0]["annotations"]) == 1
    (gone,) = (x for x in data.findings if x.name == "file of labels without an image, left out")
    assert gone.file.endswith("gone.txt")


def test_one_file_for_two_names(tmp_path):
    """As of a set that was unpacked where capitals do not matter."""
    images = {f"{x}.jpg": [("cat", [10, 10, 20, 20])] for x in "aA"}
    (tmp_path / "a.json").write_text(json.dumps(coco_content(images, {1: "cat"})))
    write_image(tmp_path / "images" / "a.jpg")
    message = r"a\.json names the images 'a\.jpg' and 'A\.jpg', and there is one file for both"
    with pytest.raises(InputError, match=message):
        load_address(f"coco://{tmp_path}/a.json?images={tmp_path}/images")
    write_image(tmp_path / "images" / "A.jpg", seed=1)
    assert len(load_address(f"coco://{tmp_path}/a.json?images={tmp_path}/images").records) == 2
