import shutil
from pathlib import Path

import pytest
from detectron2.structures import BoxMode
from PIL import Image
from small_data import HEIGHT, OBJECT, WIDTH, write_voc

from ohem_d2.data.addresses import load_address
from ohem_d2.data.box_order import SORTED
from ohem_d2.data.findings import Finding, Findings
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


A_BOX = OBJECT.format(1, 1, 20, 30, name="dog", extra="")


def test_size_of_the_image_if_the_annotation_has_none(tmp_path):
    folder = write_voc(tmp_path, {"a": []})
    (folder / "Annotations/a.xml").write_text(f"<annotation>{A_BOX}</annotation>")
    data = load_address(f"voc://{folder}")
    assert (data.records[0]["width"], data.records[0]["height"]) == (WIDTH, HEIGHT)
    assert data.classes == ["dog"]
    assert [x.name for x in data.findings] == ["size of an image missing, taken from its file"]


def test_size_as_the_photograph_is_shown(tmp_path):
    folder = write_voc(tmp_path, {"a": []})
    (folder / "Annotations/a.xml").write_text(f"<annotation>{A_BOX}</annotation>")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "JPEGImages/a.jpg", exif=exif)
    data = load_address(f"voc://{folder}")
    assert (data.records[0]["width"], data.records[0]["height"]) == (HEIGHT, WIDTH)
    # Without a size, nobody can tell whether it was shown so to those who annotated it.
    assert data.findings[1].name.startswith("image that its EXIF data turn: boxes are taken to be")


def test_other_files_beside_the_images(tmp_path):
    folder = write_voc(tmp_path, IMAGES)
    (folder / "JPEGImages/a.json").write_text("{}")
    (folder / "JPEGImages/Thumbs.db").write_text("")
    records, *_ = load_voc(folder, "trainval")
    assert records[0]["file_name"].endswith("a.jpg")


def laid_out(tmp_path, annotations, images):
    """The same data without lists, in other folders."""
    write_voc(tmp_path / "data", IMAGES)
    shutil.rmtree(tmp_path / "data/ImageSets")
    for old, new in (("Annotations", annotations), ("JPEGImages", images)):
        (tmp_path / "data" / new).mkdir(parents=True, exist_ok=True)
        for file in [x for x in (tmp_path / "data" / old).iterdir() if x.is_file()]:
            file.rename(tmp_path / "data" / new / file.name)
        if not any((tmp_path / "data" / old).iterdir()):
            (tmp_path / "data" / old).rmdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("Annotations", "JPEGImages"),
        ("annotations", "images"),
        ("annots", "Images"),
        ("", ""),
        ("", "images"),
        ("annotations", "annotations"),
        ("Annotations/far/in", "JPEGImages/far/in"),
        ("Annotations/far/in", "JPEGImages"),
    ],
)
def test_layouts_without_lists(tmp_path, annotations, images):
    records, classes, _ = load_voc(laid_out(tmp_path, annotations, images))
    assert classes == ["cat", "dog"]
    assert [len(r["annotations"]) for r in records] == [2, 0]
    assert [Path(r["file_name"]) for r in records] == [
        tmp_path / "data" / images / f"{x}.jpg" for x in "ab"
    ]


def test_the_folder_of_the_xml_files_beside_that_of_the_images(tmp_path):
    records, *_ = load_voc(laid_out(tmp_path, "xml", "images") / "xml")
    assert [Path(r["file_name"]).parent.name for r in records] == ["images", "images"]


def test_images_elsewhere(tmp_path):
    folder = laid_out(tmp_path, "Annotations", "JPEGImages")
    (folder / "JPEGImages").rename(tmp_path / "photos")
    records, *_ = load_voc(folder, images=str(tmp_path / "photos"))
    assert len(records) == 2
    with pytest.raises(InputError, match=r"the folder of images none does not exist"):
        load_voc(folder, images="none")


def test_images_without_an_xml_file_are_left_out_and_named(tmp_path):
    folder = laid_out(tmp_path, "Annotations", "JPEGImages")
    (folder / "Annotations/b.xml").unlink()
    found = Findings()
    records, *_ = load_voc(folder, findings=found)
    assert len(records) == 1
    image = folder / "JPEGImages/b.jpg"
    assert found == [Finding("image without an XML file, left out", str(image), "")]


def test_splits_in_folders_of_their_own(tmp_path):
    laid_out(tmp_path, "train", "train")
    with pytest.raises(InputError, match=r"no XML files in .* There are some in train: add one"):
        load_voc(tmp_path / "data")


def named_in_xml(folder, name, stem="a"):
    file = folder / f"Annotations/{stem}.xml"
    text = file.read_text().replace("<annotation>", f"<annotation><filename>{name}</filename>")
    file.write_text(text)


@pytest.mark.parametrize("name", ["a.jpg", "C:\\photos\\a.jpg", "a.png"])
def test_the_xml_file_says_which_image_of_its_stem(tmp_path, name):
    folder = write_voc(tmp_path, IMAGES)
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "JPEGImages/a.png")
    named_in_xml(folder, name)
    records, *_ = load_voc(folder, "trainval")
    assert records[0]["file_name"].endswith(f"/{name[-5:]}")


@pytest.mark.parametrize("name", ["", "b.jpg", "a.gif"])
def test_two_images_of_a_stem(tmp_path, name):
    folder = write_voc(tmp_path, IMAGES)
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "JPEGImages/a.png")
    named_in_xml(folder, name)
    with pytest.raises(InputError, match=r"a.xml may be for .*a.jpg and .*a.png, and names"):
        load_voc(folder, "trainval")


def test_an_image_by_the_name_in_the_xml_file_alone(tmp_path):
    folder = write_voc(tmp_path, {"a": IMAGES["a"]})
    (folder / "JPEGImages/a.jpg").rename(folder / "JPEGImages/photo.jpg")
    named_in_xml(folder, "photo.jpg")
    records, *_ = load_voc(folder)
    assert records[0]["file_name"].endswith("photo.jpg")


def test_an_xml_file_that_names_the_image_of_another(tmp_path):
    folder = write_voc(tmp_path, IMAGES)
    named_in_xml(folder, "b.jpg")
    found = Findings()
    records, *_ = load_voc(folder, "trainval", findings=found)
    assert records[0]["file_name"].endswith("a.jpg")
    assert found[0].words == "'b.jpg' instead of 'a.jpg'"


def test_two_xml_files_of_one_image(tmp_path):
    folder = write_voc(tmp_path, IMAGES)
    (folder / "JPEGImages/a.jpg").unlink()
    named_in_xml(folder, "b.jpg")
    with pytest.raises(InputError, match=r"a.xml and .*b.xml are both for the image .*b.jpg"):
        load_voc(folder, "trainval")


def test_names_with_dots(tmp_path):
    folder = write_voc(tmp_path, {"a.v1": IMAGES["a"], "a.v2": [], "a": []})
    records, *_ = load_voc(folder, "trainval")
    assert [Path(r["file_name"]).name for r in records] == ["a.v1.jpg", "a.v2.jpg", "a.jpg"]
    assert [r["image_id"] for r in records] == ["a.v1", "a.v2", "a"]


def test_lists_joined(tmp_path):
    folder = write_voc(tmp_path, {**IMAGES, "c": []})
    lines = ["a  1", "b  0", "c -1", "a -1", "b  1", "c  1"]
    (folder / "ImageSets/Main/joined.txt").write_text("\n".join(lines))
    found = Findings()
    records, *_ = load_voc(folder, "joined", findings=found)
    assert [r["image_id"] for r in records] == ["a", "b", "c"]
    assert [x.words for x in found] == ["'a'", "'b'", "'c'"]


def test_lists_with_the_suffix_of_images(tmp_path):
    folder = write_voc(tmp_path, IMAGES)
    (folder / "ImageSets/Main/x.txt").write_text("a.jpg\nb.jpg\n")
    assert len(load_voc(folder, "x")[0]) == 2


@pytest.mark.parametrize("name", ["a 2", "a 1", "../a"])
def test_an_image_that_is_not_there(tmp_path, name):
    folder = write_voc(tmp_path, IMAGES)
    (folder / "ImageSets/Main/x.txt").write_text(f"a\n{name}\n")
    with pytest.raises(InputError, match=rf"x.txt names '{name}'"):
        load_voc(folder, "x")


def test_numbers_from_zero(tmp_path):
    folder = write_voc(tmp_path, {"a": [("dog", (0, 5, 20, 30), "")]})
    found = Findings()
    load_voc(folder, "trainval", findings=found)
    assert found[0].name.startswith("box that begins at pixel 0, where VOC counts from 1")
    records, *_ = load_voc(folder, "trainval", first_pixel=0)
    assert records[0]["annotations"][0]["bbox"] == [0, 5, 20, 30]


@pytest.mark.parametrize("corners", [(20, 30, 1, 1), (1, 30, 20, 1), (20, 1, 1, 30)])
def test_corners_in_another_order(tmp_path, corners):
    folder = write_voc(tmp_path, {"a": [("dog", corners, ""), ("dog", (5, 5, 9, 9), "")]})
    data = load_address(f"voc://{folder}")
    assert data.records[0]["annotations"][0]["bbox"] == [0, 0, 20, 30]
    assert [x.name for x in data.findings] == [SORTED]


def test_difficult_objects_of_which_nothing_is_said(tmp_path):
    words = [f"<difficult>{x}</difficult>" for x in ("Unspecified", "yes", "")]
    folder = write_voc(tmp_path, {"a": [("dog", (1, 1, 20, 30), x) for x in words]})
    found = Findings()
    records, *_ = load_voc(folder, findings=found)
    assert [a["difficult"] for a in records[0]["annotations"]] == [0, 1, 0]
    assert [(x.name, x.words) for x in found] == [
        ("<difficult> that says nothing, taken as 0", "'dog': 'Unspecified'")
    ]


def test_class_names_are_written_in_one_way(tmp_path):
    objects = [
        (name, (1, 1, 20, 30), "") for name in ("car", "car ", "\n\tcar\n", "traffic  light")
    ]
    _, classes, _ = load_voc(write_voc(tmp_path, {"a": objects}), "trainval")
    assert classes == ["car", "traffic light"]


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("GBK", "gbk", "车"),
        ("gb2312", "gbk", "镕"),  # which is in GBK alone: tools write one and name the other
        ("Shift_JIS", "shift_jis", "車"),
        ("windows-1252", "cp1252", "né"),
        ("UTF-16", "utf-16", "車"),
        ("UTF-8", "utf-8-sig", "né"),
        ("utf8", "utf-8", "né"),
        ("GBK", "utf-8-sig", "né"),  # the mark at the beginning says what it is
        ("ISO-2022-JP", "iso-2022-jp", "車"),
    ],
)
def test_encodings(tmp_path, declared, encoding, name):
    folder = write_voc(tmp_path, {"a": []})
    rewrite_xml(folder, declared, encoding, name)
    assert load_voc(folder, "trainval")[1] == [name]


def rewrite_xml(folder, declared, encoding, name):
    body = OBJECT.format(1, 1, 20, 30, name=name, extra="")
    declaration = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    text = f"{declaration}<annotation>{body}</annotation>"
    (folder / "Annotations/a.xml").write_bytes(text.encode(encoding))


@pytest.mark.parametrize(
    ("declared", "encoding", "message"),
    [
        ("", "gbk", r"a.xml is no text in UTF-8 and names no other encoding: expected one in its"),
        ("klingon", "utf-8", r"a.xml is in the encoding 'klingon', which is not known"),
        ("GBK", "latin-1", r"a.xml says that it is in GBK, and is not"),
        ("undefined", "utf-8", r"a.xml says that it is in undefined, and is not"),
    ],
)
def test_encodings_that_are_not_read(tmp_path, declared, encoding, message):
    folder = write_voc(tmp_path, {"a": []})
    rewrite_xml(folder, declared, encoding, "né" if encoding == "latin-1" else "车")
    with pytest.raises(InputError, match=message):
        load_voc(folder, "trainval")


def test_what_systems_leave_behind_is_no_annotation(tmp_path):
    folder = write_voc(tmp_path, IMAGES)
    (folder / "Annotations/._a.xml").write_bytes(b"\0\5\x16")
    (folder / "Annotations/.ipynb_checkpoints").mkdir()
    (folder / "Annotations/.ipynb_checkpoints/a-checkpoint.xml").write_text("<annotation/>")
    (folder / "Annotations/b.xml").rename(folder / "Annotations/b.XML")
    assert len(load_voc(folder)[0]) == 2


def write_xml(tmp_path, text):
    folder = write_voc(tmp_path, {"a": []})
    (folder / "Annotations/a.xml").write_text(text)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        f"<annotation><objects>{A_BOX}</objects></annotation>",
        f"<Annotation>{A_BOX}</Annotation>".replace("object", "Object"),
        f"<annotation>{A_BOX}</annotation>".replace("bndbox", "bndBox").replace("xmin", "Xmin"),
        f'<annotation xmlns="http://example.com/voc">{A_BOX}</annotation>',
        f"<annotation><objects>1</objects><source><image>x</image></source>{A_BOX}</annotation>",
        f"<annotation>{A_BOX.replace('</name>', f'</name><part>{A_BOX[8:-9]}</part>')}"
        "</annotation>",
        f"<annotation>{A_BOX.replace('</name>', '</name><polygon><x1>1</x1></polygon>')}"
        "</annotation>",
    ],
)
def test_other_ways_to_write_the_same(tmp_path, text):
    found = Findings()
    records, classes, _ = load_voc(write_xml(tmp_path, text), findings=found)
    assert classes == ["dog"]
    assert [a["bbox"] for a in records[0]["annotations"]] == [[0, 0, 20, 30]]
    assert not found


NOT_READ = r"a.xml: <{}> lies where it is not read, expected an <object> with a <bndbox>"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"<outputs>{A_BOX}</outputs>", NOT_READ.format("object")),
        (f"<annotation>{A_BOX}</annotation>", NOT_READ.format("object")),
        (A_BOX.replace("object", "item"), NOT_READ.format("bndbox")),
        (A_BOX + "<bndbox><xmin>1</xmin></bndbox>", NOT_READ.format("bndbox")),
        ("<box xmin='1' ymin='1' xmax='9' ymax='9'/>", NOT_READ.format("box")),
        (A_BOX.replace("bndbox", "bbox"), r"object 1 \('dog'\) has no <bndbox> but <bbox>, exp"),
        (A_BOX.replace("bndbox", "x"), r"object 1 \('dog'\) has no <bndbox> but <x>, expected"),
        (A_BOX.replace("<bndbox>", f"{A_BOX}<bndbox>"), r"object 1 \('dog'\) has an <object> ins"),
    ],
)
def test_objects_that_are_not_read_are_no_background(tmp_path, body, message):
    folder = write_xml(tmp_path, f"<annotation>{body}</annotation>")
    with pytest.raises(InputError, match=message):
        load_voc(folder)


def test_corners_of_something_else_are_named(tmp_path):
    crop = "<crop><xmin>1</xmin><xmax>9</xmax></crop>"
    found = Findings()
    load_voc(write_xml(tmp_path, f"<annotation>{crop}{A_BOX}</annotation>"), findings=found)
    assert [x.name for x in found] == ["<crop> with corners, which is no <object>, not read"]


def break_file(name, content):
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "ImageSets/Main/trainval.txt").unlink(), r"trainval.txt does not exist"),
        (lambda f: (f / "Annotations/b.xml").unlink(), r"b.xml does not exist, but .*b.jpg does"),
        (
            lambda f: (f / "JPEGImages/b.jpg").unlink(),
            r"b.xml exists, but there is no image for it in .*JPEGImages",
        ),
        (break_file("ImageSets/Main/trainval.txt", "\n"), r"trainval.txt names no image"),
        (
            lambda f: (f / "ImageSets/Main/trainval.txt").write_bytes(b"\xff\xfe"),
            r"trainval.txt is no text in UTF-8",
        ),
        (break_file("Annotations/a.xml", "<annotation>"), r"a.xml is no valid XML"),
        (break_file("Annotations/a.xml", "<annotations/>"), r"a.xml begins with <annotations>"),
        (
            break_file(
                "Annotations/a.xml",
                "<annotation><size><width>wide</width></size></annotation>",
            ),
            r"a.xml: its <size> has \['wide', None\], expected two numbers",
        ),
        (
            break_file(
                "Annotations/a.xml",
                "<annotation><object><name>dog</name><robndbox><cx>1</cx></robndbox></object>"
                "</annotation>",
            ),
            r"a.xml: object 1 \('dog'\) has a rotated box",
        ),
        (
            break_file(
                "Annotations/a.xml",
                "<annotation><object><name>dog</name><bndbox/><bndbox/></object></annotation>",
            ),
            r"a.xml: object 1 \('dog'\) has 2 <bndbox>, expected one",
        ),
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
