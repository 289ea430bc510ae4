"""The errors of detections on the page, used as its user would."""

import time

import cv2
import numpy as np
import pytest
from browser import opened, requested
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from small_findings import findings

from ohem_d2.report.coco_form import as_coco
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_page

HOSTILE = '</script><img src=x onerror=alert(1)> "it\'s" & ünï \u2028'
SIZE = {"height": 120, "width": 160}
CAT, DOG, OTHER = 0, 1, 2
NAMES = ["cat", HOSTILE, "__proto__"]
A, B, C, NOWHERE = [10, 10, 20, 20], [60, 40, 20, 20], [100, 80, 20, 20], [130, 5, 20, 20]
# Of each image its labels, and its detections.
IMAGES = [
    (
        [(A, CAT), (B, DOG), (C, CAT)],
        [(A, CAT, 0.9), (A, CAT, 0.3), (B, CAT, 0.8), (B, DOG, 0.4), (NOWHERE, OTHER, 0.7)],
    ),
    ([(A, CAT), (B, DOG)], [(A, CAT, 0.95), (B, DOG, 0.85)]),
]


@pytest.fixture
def dataset():
    name = f"data of {HOSTILE}"
    MetadataCatalog.get(name).set(thing_classes=NAMES)
    yield name
    MetadataCatalog.remove(name)


def write_report(folder, dataset, images, most=None):
    """`images`: as `IMAGES`."""
    pixels = np.full((120, 160, 3), 90, np.uint8)
    cv2.imwrite(str(folder / "x.png"), pixels)
    records, found = [], []
    for i, (labels, detections) in enumerate(images):
        file = folder / f"{i} # {HOSTILE.replace('/', '_')}.png"
        file.write_bytes((folder / "x.png").read_bytes())
        label = {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
        annotations = [{"bbox": list(b), "category_id": k, **label} for b, k in labels]
        records.append({"file_name": str(file), "image_id": i, "annotations": annotations, **SIZE})
        found.append(findings(records[-1], detections))
    lists = [as_coco(records, [], dataset, name) for name in ("hard_examples", "label_errors")]
    write_page(folder / "report", dataset, *lists, as_model_errors(records, found, dataset))
    return folder / "report" / "index.html"


class Page:
    """A page in a browser, and what a user does there."""

    def __init__(self, chrome):
        self.chrome = chrome
        self.click("#lists button", 2)

    def js(self, script, *args):
        return self.chrome.execute_script(script, *args)

    def click(self, css, number=0):
        self.js("document.querySelectorAll(arguments[0])[arguments[1]].click()", css, number)

    def texts(self, css):
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css
        )

    def rows(self, table):
        return self.js(
            "return [...document.getElementById(arguments[0]).tBodies[0].rows]"
            ".map(r => [...r.cells].map(c => c.textContent))",
            table,
        )

    def choose(self, name, value, event="input"):
        self.js(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event(arguments[2], {bubbles: true}))",
            name,
            value,
            event,
        )

    def cell(self, row, column):
        self.js(
            "document.getElementById('matrix').tBodies[0].rows[arguments[0]].cells[arguments[1]]"
            ".querySelector('button').click()",
            row,
            column,
        )

    def cards(self):
        return self.texts("#behind figcaption")


@pytest.fixture
def page(tmp_path, dataset):
    with opened(write_report(tmp_path, dataset, IMAGES), tmp_path / "profile") as chrome:
        yield Page(chrome)
        assert [x for x in chrome.get_log("browser") if x["level"] == "SEVERE"] == []
        assert requested(chrome) == {"file"}


def test_what_errors_cost(page):
    assert page.js("return document.getElementById('gallery').offsetParent") is None
    costs = {row[0]: row[1:] for row in page.rows("costs")}
    assert list(costs) == ["Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"]
    assert [row[2] for row in costs.values()] == ["1", "0", "0", "1", "1", "1"]
    by_class = {row[0]: row[1:] for row in page.rows("costs-by-class")}
    assert by_class.keys() == set(NAMES)
    assert [by_class[HOSTILE][i] for i in (0, 1)] == ["100.0", "2"]
    page.click("#costs button", 3)  # Dupe
    assert page.texts("#behind-title") == ["Dupe: another detection has found the object (1)"]
    (card,) = page.cards()
    assert card.startswith("cat 0.30label near it: cat, IoU 1.00")
    page.click("#lists button", 0)
    assert page.js("return document.getElementById('model').offsetParent") is None


def test_the_confusion_matrix_at_each_score(page):
    at = {}
    for score in (0, 0.5, 0.75):
        page.choose("score", score)
        at[score] = [row[1:5] for row in page.rows("matrix")]
    # Rows: cat, dog, other, no label; columns: cat, dog, other, not found.
    assert at[0] == [
        ["2", "", "", "1"],
        ["", "2", "", ""],
        ["", "", "", ""],
        ["2", "", "1", ""],
    ]
    # The dog that is found with a score of 0.4 is taken for a cat then.
    assert at[0.5] == [
        ["2", "", "", "1"],
        ["1", "1", "", ""],
        ["", "", "", ""],
        ["", "", "1", ""],
    ]
    assert at[0.75][3] == ["", "", "", ""]
    assert page.texts("#at-score") == [
        "4 detections: 75.0 % of them are right, and 60.0 % of 5 labels are found"
    ]


def test_the_score_with_the_best_balance_comes_first(page):
    # By falling score: three are right, two wrong, one right. Twice the right ones over detections
    # and labels is 6 / 8 with the first three, and 8 / 11 with all six.
    assert page.texts("#score-value") == ["0.85"]
    page.choose("score", 1)
    assert page.texts("#at-score")[0].startswith("0 detections: none of them")
    page.click("#best-score")
    assert page.texts("#score-value") == ["0.85"]


def test_pictures_behind_a_cell(page):
    page.choose("score", 0.5)
    page.cell(1, 1)
    assert page.texts("#behind-title") == [f"Labelled {HOSTILE}, predicted cat (1)"]
    (card,) = page.cards()
    assert f"cat 0.80labelled {HOSTILE}, IoU 1.00Cls: the class is wrong" in card
    assert HOSTILE.replace("/", "_") in card
    view = "return document.querySelector('#behind svg').getAttribute('viewBox')"
    assert page.js(view) == "48 28 44 44"  # the box, and 0.6 of its side around it
    page.js("document.querySelector('#behind svg').dispatchEvent(new Event('click'))")
    assert page.js(view) == "0 0 160 120"
    check_picture_loads(page)
    page.cell(0, 4)
    assert page.texts("#behind-title") == ["Labelled cat, not found (1)"]
    assert page.cards()[0].startswith("not foundlabelled cat")


def check_picture_loads(page):
    """The image of the first card is asked for, and is there."""
    script = "return document.querySelector('#behind svg image').getAttribute('href')"
    deadline = time.monotonic() + 30
    while not (url := page.js(script)):
        assert time.monotonic() < deadline
    is_read = page.chrome.execute_async_script(
        "const i = new Image(); i.onload = () => arguments[1](i.naturalWidth);"
        "i.onerror = () => arguments[1](0); i.src = arguments[0]",
        url,
    )
    assert is_read == SIZE["width"]


def test_images_the_worst_first(page):
    page.choose("score", 0)
    rows = page.rows("worst-images")
    assert [row[1:] for row in rows] == [["4", "2", "", "3", "1"], ["", "2", "", "", ""]]
    page.click("#worst-images button")
    assert page.texts("#behind-title")[0].endswith(".png (4)")
    assert len(page.cards()) == 4  # behind the image itself
    number = "return document.querySelectorAll('#behind .whole-image rect.detection').length"
    assert page.js(number) == 5


def test_images_by_the_part_that_is_right(tmp_path, dataset):
    """Two of ten against one of one."""
    many = [([10 * i, 0, 9, 9], CAT) for i in range(10)]
    found = [(*x, 0.9) for x in many[:8]]
    images = [(many, found), ([(A, CAT)], [])]
    with opened(write_report(tmp_path, dataset, images), tmp_path / "profile") as chrome:
        page = Page(chrome)
        assert [row[1] for row in page.rows("worst-images")] == ["2", "1"]
        page.choose("image-order", "share", "change")
        assert [row[1] for row in page.rows("worst-images")] == ["1", "2"]


def test_many_detections_of_many_classes(tmp_path, monkeypatch):
    """Those with the highest scores are on the page; of the classes those with most errors."""
    monkeypatch.setattr("ohem_d2.report.page._MOST_DETECTIONS", 60)
    name = "many classes"
    MetadataCatalog.get(name).set(thing_classes=[str(k) for k in range(50)])
    images = [([(A, 49)], [(NOWHERE, k, 0.5 + k / 1000) for k in range(50)])] * 2
    try:
        file = write_report(tmp_path, name, images)
    finally:
        MetadataCatalog.remove(name)
    with opened(file, tmp_path / "profile") as chrome:
        page = Page(chrome)
        page.choose("score", 0)
        assert page.texts("#score-value") == ["0.52"]  # the least there is
        assert "the 40 with the lowest scores are not on this page" in page.texts("#at-score")[0]
        assert page.texts("#matrix-title") == [
            "Confusion matrix of the 40 classes with the most errors"
        ]
        rows = page.rows("matrix")
        assert (len(rows), rows[0][0]) == (41, "49")


def test_a_data_set_without_anything(tmp_path, dataset):
    with opened(write_report(tmp_path, dataset, [([], [])]), tmp_path / "profile") as chrome:
        page = Page(chrome)
        assert page.texts("#at-score")[0].startswith("0 detections: none of them are right")
        assert page.rows("worst-images") == []
        assert [x for x in chrome.get_log("browser") if x["level"] == "SEVERE"] == []
