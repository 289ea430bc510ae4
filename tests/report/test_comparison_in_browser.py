"""The comparison of two models on the page, used as its user would."""

import cv2
import numpy as np
import pytest
from browser import opened, requested
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from small_findings import findings
from test_model_errors_in_browser import (
    CAT,
    DOG,
    HOSTILE,
    NAMES,
    NOWHERE,
    OTHER,
    SIZE,
    A,
    B,
    C,
    Page,
    check_picture_loads,
)

from ohem_d2.report.coco_form import as_coco
from ohem_d2.report.comparison import as_comparison
from ohem_d2.report.earlier import read_earlier
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_list, write_page

# Of each image its labels, and what the earlier model detects, and that of now.
IMAGES = [
    (
        [(A, CAT), (B, DOG), (C, CAT)],
        [(A, CAT, 0.9), (B, CAT, 0.8), (NOWHERE, OTHER, 0.7)],
        [(A, CAT, 0.95), (B, DOG, 0.6), (NOWHERE, OTHER, 0.3), (NOWHERE, CAT, 0.65)],
    ),
    ([(A, CAT), (B, DOG)], [(A, CAT, 0.95), (B, DOG, 0.85)], [(A, CAT, 0.9)]),
]


@pytest.fixture
def dataset():
    name = f"two models on {HOSTILE}"
    MetadataCatalog.get(name).set(thing_classes=NAMES)
    yield name
    MetadataCatalog.remove(name)


@pytest.fixture
def write(tmp_path, dataset):
    """What writes a report, perhaps with fewer labels, and a newer one, perhaps of fewer images."""

    def write(labels_then=None, images=None):
        cv2.imwrite(str(tmp_path / "x.png"), np.full((120, 160, 3), 90, np.uint8))
        records = []
        for i, (labels, _, _) in enumerate(IMAGES):
            file = tmp_path / f"{i} # {HOSTILE.replace('/', '_')}.png"
            file.write_bytes((tmp_path / "x.png").read_bytes())
            label = {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
            annotations = [{"bbox": list(b), "category_id": k, **label} for b, k in labels]
            found = {"file_name": str(file), "image_id": i, "annotations": annotations}
            records.append({**found, **SIZE})
        then = [{**r, "annotations": r["annotations"][:labels_then]} for r in records]
        before = [findings(r, x[1]) for r, x in zip(then, IMAGES)]
        now = [findings(r, x[2]) for r, x in zip(records, IMAGES)]
        records, now = records[:images], now[:images]
        folder = tmp_path / f"earlier {HOSTILE.replace('/', '_')}"
        write_list(folder, "model_errors", as_model_errors(then, before, dataset))
        of_now = as_model_errors(records, now, dataset)
        comparison = as_comparison(read_earlier(folder), records, now, dataset, of_now)
        lists = [as_coco(records, [], dataset, x) for x in ("hard_examples", "label_errors")]
        write_page(tmp_path / "report", dataset, *lists, of_now, comparison)
        return tmp_path / "report" / "index.html"

    return write


@pytest.fixture
def open_page(tmp_path):
    with opened(tmp_path / "report" / "index.html", tmp_path / "profile") as chrome:
        page = Page(chrome)
        page.click("#lists button", 3)
        yield page
        assert [x for x in chrome.get_log("browser") if x["level"] == "SEVERE"] == []
        assert requested(chrome) == {"file"}


@pytest.fixture
def page(write, request):
    write()
    return request.getfixturevalue("open_page")


def count(page, row, column):
    page.js(
        "document.getElementById('compared-objects').tBodies[0].rows[arguments[0]]"
        ".cells[arguments[1]].querySelector('button').click()",
        row,
        column,
    )
    return page.cards()


def test_figures_side_by_side(page):
    text = page.texts("#compared")[0]
    assert "AP at an IoU of 0.5 was" in text
    assert HOSTILE.replace("/", "_") in text
    assert "labels are new" not in text
    costs = {row[0]: row[1:] for row in page.rows("compared-costs")}
    assert [row[3:] for row in costs.values()] == [
        ["1", "0"], ["0", "0"], ["0", "0"], ["0", "0"], ["1", "2"], ["1", "2"],
    ]  # fmt: skip
    assert all(row[2][0] in "+\u2212" for row in costs.values())
    classes = {row[0]: row[1:] for row in page.rows("compared-classes")}
    # Dogs: one of two is found earlier, and one of two now.
    assert classes[HOSTILE][:4] == ["2", "50.5", "50.5", "+0.0"]
    assert classes["cat"][0] == "3"


def test_what_each_gets_right(page):
    page.choose("score-earlier", 0)
    page.choose("score-now", 0)
    rows = {row[0]: row[1:] for row in page.rows("compared-objects")}
    # Objects found by both, only earlier, only now, by neither; and false positives of both, only
    # earlier, only now.
    assert rows["all"] == ["2", "1", "1", "1", "1", "1", "1"]
    assert rows["cat"] == ["2", "", "", "1", "", "1", "1"]
    assert rows[HOSTILE] == ["", "1", "1", "", "", "", ""]
    page.choose("score-now", 0.65)  # which leaves three of four
    rows = {row[0]: row[1:] for row in page.rows("compared-objects")}
    assert rows["all"] == ["2", "1", "", "2", "", "2", "1"]
    assert page.texts("#score-now-value") == ["0.65"]


def test_it_begins_with_the_best_score_of_each(page):
    # Of the earlier model by falling score: right, right, right, wrong, wrong; and now: right,
    # right, wrong, right, wrong. Of five labels.
    assert page.texts("#score-earlier-value") == ["0.85"]
    assert page.texts("#score-now-value") == ["0.60"]
    page.choose("score-now", 1)
    page.click("#best-scores")
    assert page.texts("#score-now-value") == ["0.60"]


def test_pictures(page):
    (card,) = count(page, 0, 3)
    assert page.texts("#behind-title") == ["Objects that only the model of now finds (1)"]
    assert card.startswith(f"{HOSTILE} 0.60labelled {HOSTILE}, IoU 1.00")
    check_picture_loads(page)
    (card,) = count(page, 0, 2)
    assert card.startswith(f"{HOSTILE} 0.85labelled {HOSTILE}")
    (card,) = count(page, 0, 4)
    assert card.startswith("not foundlabelled cat")
    page.choose("score-earlier", 0.75)
    (card,) = count(page, 1, 6)  # cats
    assert page.texts("#behind-title") == [
        "False positives that only the earlier model has, cat (1)"
    ]
    assert f"label near it: {HOSTILE}, IoU 1.00Cls: the class is wrong" in card
    page.click("#lists button", 2)
    assert page.cards() == []
    assert page.js("return document.getElementById('comparison').offsetParent") is None
    page.click("#lists button", 0)
    assert page.js("return document.getElementById('pictures').offsetParent") is None


def test_labels_that_changed_are_told_of(write, request):
    write(labels_then=2)
    page = request.getfixturevalue("open_page")
    assert (
        "Since that report, 1 labels are new and 0 are gone. Both models are judged by those of now"
        in page.texts("#compared")[0]
    )


def test_images_that_do_not_count_are_told_of(write, request):
    write(labels_then=2, images=1)
    text = request.getfixturevalue("open_page").texts("#compared")[0]
    assert "judged by those of now. That report has 2 images; only the 1 of this one count." in text


def test_a_report_without_an_earlier_one_has_no_comparison(tmp_path, dataset):
    record = {"file_name": "x.png", "image_id": 1, "annotations": [], **SIZE}
    lists = [as_coco([record], [], dataset, x) for x in ("hard_examples", "label_errors")]
    of_now = as_model_errors([record], [findings(record, [])], dataset)
    write_page(tmp_path / "report", dataset, *lists, of_now)
    with opened(tmp_path / "report" / "index.html", tmp_path / "profile") as chrome:
        assert len(Page(chrome).texts("#lists button")) == 3
        assert [x for x in chrome.get_log("browser") if x["level"] == "SEVERE"] == []
