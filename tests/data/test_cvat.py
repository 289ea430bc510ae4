import pytest
from detectron2.structures import BoxMode
from small_data import HEIGHT, WIDTH, write_image

from ohem_d2.data.addresses import load_address
from ohem_d2.data.box_order import SORTED
from ohem_d2.data.cvat import load_cvat
from ohem_d2.data.findings import Findings
from ohem_d2.errors import InputError

BOX = '<box label="dog" xtl="10.00" ytl="20.50" xbr="30" ybr="40" occluded="0"/>'
META = (
    "<meta><task><labels>"
    "<label><name>dog</name><type>any</type></label><label><name>cat </name></label>"
    "<label><name>pose</name><type>skeleton</type></label>"
    "</labels></task></meta>"
)


def image(name, shapes="", more=f'width="{WIDTH}" height="{HEIGHT}"'):
    return f'<image id="0" name="{name}" {more}>{shapes}</image>'


def write_cvat(folder, *images, meta=META, draw=("a.jpg", "b.jpg")):
    for i, name in enumerate(draw):
        write_image(folder / "images" / name, seed=i)
    file = folder / "annotations.xml"
    file.write_text(f"<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>")
    return file


def test_load(tmp_path):
    file = write_cvat(tmp_path, image("a.jpg", BOX), image("b.jpg"))
    records, classes, _ = load_cvat(file)
    assert classes == ["dog", "cat"]
    assert records[0] == {
        "file_name": str(tmp_path / "images/a.jpg"),
        "image_id": "a.jpg",
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": [
            {"category_id": "dog", "bbox": [10, 20.5, 30, 40], "bbox_mode": BoxMode.XYXY_ABS}
        ],
    }
    assert records[1]["annotations"] == []
    assert load_cvat(tmp_path)[0] == records
    assert len(load_cvat(file, images=str(tmp_path / "images"))[0]) == 2


@pytest.mark.parametrize(
    ("shape", "box", "finding"),
    [
        ('<polygon label="dog" points="1,2;11,2.5;6,22"/>', [1, 2, 11, 22], None),
        ('<ellipse label="dog" cx="20" cy="30" rx="10" ry="5"/>', [10, 25, 30, 35], None),
        (
            '<box label="dog" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>',
            [15, 5, 25, 25],
            "rotated shape, taken as the upright box around it",
        ),
        (
            '<mask label="dog" rle="1,2" left="4" top="5" width="10" height="20"/>',
            [4, 5, 14, 25],
            "mask, of which the box is taken",
        ),
    ],
)
def test_shapes(tmp_path, shape, box, finding):
    found = Findings()
    records, *_ = load_cvat(write_cvat(tmp_path, image("a.jpg", shape)), findings=found)
    (annotation,) = records[0]["annotations"]
    assert annotation["bbox"] == pytest.approx(box)
    assert ("segmentation" in annotation) == ("polygon" in shape)
    assert [x.name for x in found] == ([finding] if finding else [])


@pytest.mark.parametrize(
    "written",
    [
        image("a.jpg", BOX.replace("box", "Box").replace("xtl", "Xtl")),
        image("a.jpg", BOX).replace("image", "Image"),
        f"<images>{image('a.jpg', BOX)}</images>",
    ],
)
def test_other_ways_to_write_the_same(tmp_path, written):
    records, *_ = load_cvat(write_cvat(tmp_path, written))
    assert [a["bbox"] for a in records[0]["annotations"]] == [[10, 20.5, 30, 40]]


@pytest.mark.parametrize(
    ("value", "expected"), [("true", 1), ("1", 1), ("Yes", 1), ("false", None), ("", None)]
)
def test_an_attribute_says_what_to_ignore(tmp_path, value, expected):
    attribute = f'<attribute name="ignore">{value}</attribute>'
    records, *_ = load_cvat(
        write_cvat(tmp_path, image("a.jpg", BOX.replace("/>", f">{attribute}</box>")))
    )
    (annotation,) = records[0]["annotations"]
    assert annotation.get("ignore") == expected


def test_corners_in_another_order(tmp_path):
    found = Findings()
    shape = BOX.replace('xbr="30"', 'xbr="5"')
    records, *_ = load_cvat(write_cvat(tmp_path, image("a.jpg", shape)), findings=found)
    assert records[0]["annotations"][0]["bbox"] == [5, 20.5, 10, 40]
    assert [x.name for x in found] == [SORTED]


def test_attributes_in_any_case(tmp_path):
    attributes = "".join(
        f'<attribute name="{name}">true</attribute>' for name in ("Ignore", "difficult", "occluded")
    )
    shape = BOX.replace("/>", f">{attributes}</box>")
    records, *_ = load_cvat(write_cvat(tmp_path, image("a.jpg", shape)))
    (annotation,) = records[0]["annotations"]
    assert (annotation["ignore"], annotation["difficult"]) == (1, 1)


def test_what_has_no_box_is_counted(tmp_path):
    shapes = BOX + '<points label="dog" points="1,2"/><tag label="night"/>'
    found = Findings()
    records, *_ = load_cvat(write_cvat(tmp_path, image("a.jpg", shapes)), findings=found)
    assert len(records[0]["annotations"]) == 1
    assert [(x.name, x.words) for x in found] == [
        ("<points>, which has no box, left out", "shape 2, 'dog'"),
        ("<tag>, which has no box, left out", "shape 3, 'night'"),
    ]


def test_subsets(tmp_path):
    file = write_cvat(tmp_path, *(image(f"{x}.jpg", BOX, f'subset="{s}"') for x, s in ("aT", "bV")))
    assert [r["image_id"] for r in load_cvat(file, split="V")[0]] == ["b.jpg"]
    assert load_address(f"cvat://{file}").records[0]["width"] == WIDTH  # of the image
    with pytest.raises(InputError, match=r"has no subset 'x', expected one of T, V"):
        load_cvat(file, split="x")


def test_images_in_folders_of_the_server(tmp_path):
    file = write_cvat(tmp_path, image("far/in/a.jpg", BOX), draw=["in/a.jpg"])
    assert load_cvat(file)[0][0]["file_name"] == str(tmp_path / "images/in/a.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (image("no.jpg"), r"image 'no.jpg' is not in .*images"),
        (image("../a.jpg"), r"image '../a.jpg' lies outside of the folder"),
        (image(""), r"image number 1 has no name"),
        (image("a.jpg") * 2 + image("x/a.jpg"), r"are both for the image"),
        (image("a.jpg", more='width="w"'), r"image 'a.jpg' has the size \['w', None\]"),
        (image("a.jpg", '<box label="dog"/>'), r"its <box> 1 has xtl '', expected a number"),
        (image("a.jpg", BOX.replace("dog", " ")), r"its shape 1 has no label"),
        (
            image("a.jpg", '<polygon label="dog" points="1,2;3,4"/>'),
            r"its <polygon> 1 has points '1,2;3,4', expected x,y;x,y;x,y of three",
        ),
        (
            image("a.jpg", BOX.replace("/>", '><attribute name="ignore">?</attribute></box>')),
            r"shape 1, 'dog' has the attribute 'ignore' '\?', expected 0 or 1",
        ),
        (f"{image('a.jpg')}{BOX}", r"<box> lies where it is not read, expected it in an <image>"),
        (f"{image('a.jpg')}<job>{image('a.jpg', BOX)}</job>", r"<box> lies where it is not"),
        (f"{image('a.jpg')}<tracks><track id='0'/></tracks>", r"<track> lies where it is not"),
        (image("a.jpg", f"<boxes>{BOX}</boxes>"), r"image 'a.jpg': <box> is not read, expected"),
        (image("a.jpg", BOX.replace("box", "bbox")), r"<bbox> is not read, expected <box>, <pol"),
        ("<track/>", r"has tracks, as CVAT for video has: expected CVAT for images 1.1"),
        ("", r"has no images"),
    ],
)
def test_errors_name_the_image(tmp_path, content, message):
    with pytest.raises(InputError, match=rf"annotations.xml.*{message}"):
        load_cvat(write_cvat(tmp_path, content))


def test_other_files(tmp_path):
    with pytest.raises(InputError, match=r"annotations.xml does not exist, expected annotations"):
        load_cvat(tmp_path)
    (tmp_path / "a.xml").write_text("<annotation/>")
    with pytest.raises(InputError, match=r"a.xml begins with <annotation>, expected CVAT's"):
        load_cvat(tmp_path / "a.xml")


@pytest.mark.parametrize(
    "tag",
    [
        '<tag label=" Ignore"/>',
        '<tag label="night"/><tag label="quality"><attribute name="ignore">true</attribute></tag>',
    ],
)
def test_an_image_with_the_tag_ignore_is_left_out(tmp_path, tag):
    meta = META.replace("dog<", "dog</name></label><label><name>ignore<", 1)
    with pytest.raises(InputError, match=r"all images have the tag 'ignore', expected some witho"):
        load_cvat(write_cvat(tmp_path, image("a.jpg", BOX + tag), meta=meta))
    other = '<tag label="quality"><attribute name="ignore">false</attribute></tag>'
    images = image("a.jpg", BOX + other), image("b.jpg", BOX + tag)
    found = Findings()
    records, classes, _ = load_cvat(write_cvat(tmp_path, *images, meta=meta), findings=found)
    assert [r["image_id"] for r in records] == ["a.jpg"]
    assert "ignore" not in classes
    (finding,) = (x for x in found if "ignore" in x.name)
    assert finding.name == "image with the tag 'ignore', left out"
    assert finding.file.endswith("image 'b.jpg'")
    bad = tag.replace("true", "perhaps").replace("Ignore", "night")
    if "perhaps" in bad:
        with pytest.raises(InputError, match=r"a <tag> has the attribute 'ignore' 'perhaps'"):
            load_cvat(write_cvat(tmp_path, image("a.jpg", BOX + bad)))
