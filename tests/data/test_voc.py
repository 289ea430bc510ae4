import pytest
from detectron2.structures import BoxMode
from PIL import Image
from small_data import HEIGHT, WIDTH, write_voc

from ohem_d2.data.voc import load_voc
from ohem_d2.errors import InputError

HARD = "<difficult>1</difficult>"
IMAGES = {
    "a": [("dog", (1, 1, 20, 30), ""), ("cat", (11, 11, 40.5, 30), HARD)],
    "b": [],
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".JPEG"])
def test_load(tmp_path, suffix):
    records, classes, _ = load_voc(write_voc(tmp_path, IMAGES, suffix=suffix), "trainval")
    assert classes == ["cat", "dog"]
    assert [r["image_id"] for r in records] == ["a", "b"]
    a, b = records
    assert a["file_name"] == str(tmp_path / "JPEGImages" / f"a{suffix}")
    assert (a["width"], a["height"]) == (WIDTH, HEIGHT)
    # VOC's pixels count from 1 and the last one is included.
    assert a["annotations"] == [
        {"category_id": "dog", "bbox": [0, 0, 20, 30], "bbox_mode": BoxMode.XYXY_ABS,
         "difficult": 0},
        {"category_id": "cat", "bbox": [10, 10, 40.5, 30], "bbox_mode": BoxMode.XYXY_ABS,
         "difficult": 1},
    ]  # fmt: skip
    assert b["annotations"] == []


def test_split_files_of_one_class_and_names_with_spaces(tmp_path):
    folder = write_voc(tmp_path, {"one two": [], "b": IMAGES["a"]})
    (folder / "ImageSets/Main/dog_val.txt").write_text("one two\n\nb  -1\nb  -1\n")
    records, *_ = load_voc(folder, "dog_val")
    assert [r["image_id"] for r in records] == ["one two", "b"]


def test_size_of_the_image_if_the_annotation_has_none(tmp_path):
    folder = write_voc(tmp_path, {"a": []})
    (folder / "Annotations/a.xml").write_text("<annotation></annotation>")
    records, classes, _ = load_voc(folder, "trainval")
    assert (records[0]["width"], records[0]["height"]) == (WIDTH, HEIGHT)
    assert classes == []


def test_size_as_the_photograph_is_shown(tmp_path):
    folder = write_voc(tmp_path, {"a": []})
    (folder / "Annotations/a.xml").write_text("<annotation></annotation>")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "JPEGImages/a.jpg", exif=exif)
    records, *_ = load_voc(folder, "trainval")
    assert (records[0]["width"], records[0]["height"]) == (HEIGHT, WIDTH)


def test_other_files_beside_the_images(tmp_path):
    folder = write_voc(tmp_path, IMAGES)
    (folder / "JPEGImages/a.json").write_text("{}")
    (folder / "JPEGImages/Thumbs.db").write_text("")
    records, *_ = load_voc(folder, "trainval")
    assert records[0]["file_name"].endswith("a.jpg")


def break_file(name, content):
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "ImageSets/Main/trainval.txt").unlink(), r"trainval.txt does not exist"),
        (lambda f: (f / "Annotations/b.xml").unlink(), r"b.xml does not exist, but .*b.jpg does"),
        (lambda f: (f / "JPEGImages/b.jpg").unlink(), r"b.xml exists, but there is no image for it in .*JPEGImages"),
        (break_file("ImageSets/Main/trainval.txt", "\n"), r"trainval.txt names no image"),
        (
            lambda f: (f / "ImageSets/Main/trainval.txt").write_bytes(b"\xff\xfe"),
            r"trainval.txt is no text in UTF-8",
        ),
        (break_file("Annotations/a.xml", "<annotation>"), r"a.xml is no valid XML"),
        (
            break_file("Annotations/a.xml", "<annotation><object></object></annotation>"),
            r"a.xml: object 1 has no <name>",
        ),
        (
            break_file(
                "Annotations/a.xml",
                "<annotation><object><name>dog</name><bndbox><xmin>x</xmin></bndbox></object>"
                "</annotation>",
            ),
            r"a.xml: object 1 \('dog'\) has the <bndbox> \['x', None, .*expected four numbers",
        ),
    ],
)
def test_errors_name_the_file(tmp_path, damage, message):
    folder = write_voc(tmp_path, IMAGES)
    damage(folder)
    with pytest.raises(InputError, match=message):
        load_voc(folder, "trainval")


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match=r"does not exist, expected the PASCAL VOC layout"):
        load_voc(tmp_path / "nothing", "trainval")
