"""Decisions on suspected label errors, taken in the page as its user would."""

import json
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from browser import load, opened, requested
from deciding import Page
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from ohem_d2.report.coco_form import as_coco
from ohem_d2.report.hard_examples import HardExample
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_page

HOSTILE = '</script><img src=x onerror=alert(1)> "it\'s" & ünï \u2028'
LONG = "long " * 200
NAMES = ["cat", HOSTILE, "__proto__", LONG]
CAT, PROTO = 0, 2
SIZE = {"height": 300, "width": 400}
# The first annotation of each image is a region to ignore.
BOXES = [[0, 0, 9, 9], [100, 50, 80, 60], [200, 200.5, 40, 30], [10, 200, 50, 50]]


def xyxy(box):
    return tuple(BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))


def suspect(error_type, box, label, predicted, true_class=CAT):
    true_box = None if label is None else xyxy(BOXES[label])
    predicted_box = None if predicted is None else xyxy(box)
    true_class = None if label is None else true_class
    return HardExample(
        error_type, 3.0, xyxy(box), true_class, predicted, 0.75, true_box, 0.5, predicted_box, label
    )


MISSING = suspect("missing label", [300, 100, 60, 40], None, CAT)
SPURIOUS = suspect("spurious label", BOXES[1], 1, None)
WRONG = suspect("wrong class", BOXES[2], 2, PROTO)
PLACED = suspect("badly placed label", [20, 210, 50, 50], 3, CAT)
SUSPECTS = [(0, MISSING), (0, SPURIOUS), (1, WRONG), (1, PLACED)]
LABEL = {i: {"category": "cat", "bbox": BOXES[i], "index": i, "id": 10 + i} for i in (1, 2, 3)}


@pytest.fixture
def dataset():
    name = f"data of {HOSTILE}"
    MetadataCatalog.get(name).set(thing_classes=NAMES)
    MetadataCatalog.get("other data").set(thing_classes=NAMES)
    yield name
    MetadataCatalog.remove(name)
    MetadataCatalog.remove("other data")


@pytest.fixture
def write(tmp_path, dataset):
    """What writes a report and returns its page."""
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    files = [tmp_path / f"{i} # {HOSTILE.replace('/', '_')}.png" for i in range(2)]
    for file in files:
        file.write_bytes((tmp_path / "x.png").read_bytes())
    label = {"bbox_mode": BoxMode.XYWH_ABS, "category_id": CAT}
    annotations = [{"bbox": b, "id": 10 + i, **label} for i, b in enumerate(BOXES)]
    records = [
        {"file_name": str(x), "image_id": f"id {i}", "annotations": annotations, **SIZE}
        for i, x in enumerate(files)
    ]

    def report(folder, suspects, name=dataset, at=files):
        of = [{**x, "file_name": str(file)} for x, file in zip(records, at)]
        lists = (
            as_coco(of, [], name, "hard_examples"),
            as_coco(of, suspects, name, "label_errors"),
        )
        write_page(tmp_path / folder, name, *lists, as_model_errors(of, [], name))
        return tmp_path / folder / "index.html"

    report.files, report.records = [str(x) for x in files], records
    return report


@pytest.fixture
def open_page(tmp_path):
    """What opens a page in the browser of a user, who always has the same profile."""

    @contextmanager
    def open_page(file):
        downloads = tmp_path / "downloads"
        downloads.mkdir(exist_ok=True)
        with opened(file, tmp_path / "profile") as chrome:
            yield Page(chrome, downloads)
            assert [x for x in chrome.get_log("browser") if x["level"] == "SEVERE"] == []
            assert requested(chrome) <= {"file", "blob"}

    return open_page


@pytest.fixture
def page(write, open_page):
    with open_page(write("report", SUSPECTS)) as page:
        yield page


def test_keys_decide_and_move(page, write, dataset):
    assert page.current() == "missing label"
    assert page.text("#progress") == "0 decided (0 accepted, 0 rejected, 0 to ignore), 4 left"
    page.keys("a")
    assert page.current() == "spurious label"
    page.keys("jk")
    assert page.current() == "spurious label"
    page.keys("ari")
    assert page.verdicts() == ["accept", "accept", "reject", "ignore"]
    assert page.current() == "badly placed label"  # the last one
    assert page.text("#progress") == "4 decided (2 accepted, 1 rejected, 1 to ignore), 0 left"
    content = page.saved()
    assert content["info"]["dataset"] == dataset
    missing, spurious, wrong, placed = content["decisions"]
    file, other = write.files
    assert missing == {
        "image": file,
        "image_id": "id 0",
        "suspect": "missing label",
        "decision": "accept",
        "label": None,
        "proposal": {"category": "cat", "bbox": [300, 100, 60, 40]},
        "suspected": {"category": "cat", "bbox": [300, 100, 60, 40]},
    }
    assert (spurious["label"], spurious["proposal"]) == (LABEL[1], None)
    assert (wrong["image"], wrong["image_id"], wrong["decision"]) == (other, "id 1", "reject")
    assert (wrong["label"], wrong["proposal"]) == (
        LABEL[2],
        {"category": "__proto__", "bbox": BOXES[2]},
    )
    assert (placed["decision"], placed["label"]) == ("ignore", LABEL[3])
    page.keys("kkkkk")
    assert page.current() == "missing label"


def test_undo(page):
    page.keys("aaru")
    assert page.verdicts() == ["accept", "accept", "", ""]
    assert page.current() == "wrong class"
    page.keys("kr")  # another decision on the second
    assert page.verdicts() == ["accept", "reject", "", ""]
    page.keys("u")
    assert page.verdicts() == ["accept", "accept", "", ""]
    page.keys("uuuu")
    assert page.verdicts() == [""] * 4
    assert page.current() == "missing label"
    assert page.saved()["decisions"] == []


def test_no_key_decides_while_one_types(page):
    field = page.find("#file")
    field.send_keys("ari")
    assert page.texts("figure") == []
    assert field.get_attribute("value") == "ari"
    page.js("document.getElementById('file').blur()")
    page.keys("ariu")  # nothing is in view
    assert page.text("#progress").startswith("0 decided")
    field.send_keys("\b\b\b")
    assert len(page.texts("figure")) == 4
    page.find("#class").send_keys("r")
    page.find("#class-of-box").send_keys("a")
    assert page.text("#progress").startswith("0 decided")
    page.find("#undecided").click()  # where no one types
    page.keys("a")
    assert page.text("#progress").startswith("1 decided")


def test_no_key_decides_on_hard_examples_or_with_control(page):
    from selenium.webdriver.common.keys import Keys

    page.actions().key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    page.js("document.querySelectorAll('#lists button')[0].click()")
    page.keys("ari")
    page.to_label_errors()
    assert page.verdicts() == [""] * 4


def test_mouse(page):
    page.find("figure [data-verdict=ignore]", 2).click()
    assert page.verdicts() == ["", "", "ignore", ""]
    assert page.current() == "badly placed label"
    page.find("figure img", 1).click()
    assert page.current() == "spurious label"
    page.find("#verdicts [data-verdict=reject]").click()
    assert page.verdicts() == ["", "reject", "ignore", ""]
    for button in page.chrome.find_elements("css selector", "#verdicts button"):
        if button.text.startswith("undo"):
            button.click()
    assert page.verdicts() == ["", "", "ignore", ""]


def test_undecided_only(page):
    page.find("#undecided").click()
    page.keys("ja")
    assert page.texts("figcaption b") == ["missing label", "wrong class", "badly placed label"]
    assert page.current() == "wrong class"
    assert page.text("#count") == "3 examples"
    page.keys("aak")
    assert page.texts("figcaption b") == ["missing label"]
    page.keys("u")
    assert page.texts("figcaption b") == ["missing label", "badly placed label"]
    assert page.current() == "badly placed label"
    page.find("#undecided").click()
    assert page.verdicts() == ["", "accept", "accept", ""]


# The whole image and the close-up have other scales and origins.
@pytest.mark.parametrize("keys", ["", "z"])
def test_a_box_that_is_moved_and_resized_is_saved_in_pixels_of_the_image(page, keys):
    page.keys(keys)
    grain = page.drag((330, 120), (320, 135))
    assert page.verdicts() == ["accept", "", "", ""]
    assert page.current() == "missing label"  # and not the next
    moved = page.box()
    np.testing.assert_allclose(moved, [290, 115, 60, 40], atol=grain)
    assert page.saved()["decisions"][0]["proposal"] == {"category": "cat", "bbox": moved}
    assert moved[2:] == [60, 40]
    x, y, w, h = moved
    page.drag((x + w, y + h), (x + w + 12, y + h + 8))  # a corner
    np.testing.assert_allclose(page.box(), [x, y, w + 12, h + 8], atol=grain)
    page.drag((x, y + h / 2), (x - 10, y + h / 2 + 30))  # an edge
    box = page.box()
    np.testing.assert_allclose(box, [x - 10, y, w + 22, h + 8], atol=2 * grain)
    assert box[1] == y
    (decision,) = page.saved()["decisions"]
    assert decision["proposal"]["bbox"] == box
    assert decision["suspected"]["bbox"] == [300, 100, 60, 40]
    page.keys("uuu")
    assert page.box() == [300, 100, 60, 40]


def test_boxes_stay_in_the_image_and_keep_a_size(page):
    page.keys("z")
    page.drag((330, 120), (399, 5))
    assert page.box() == [340, 0, 60, 40]
    page.drag((399, 20), (250, 20))  # the right edge, beyond the left one
    assert page.box() == [340, 0, 1, 40]
    page.keys("u")
    page.drag((341, 20), (399, 20))  # the left one
    grain = page.drag((390, 20), (390, 20))
    np.testing.assert_allclose(page.box(), [398, 0, 2, 40], atol=2 * grain)


def test_a_label_larger_than_its_image_is_moved_into_it(page):
    assert page.js("return dragged(-10, 500, 5, true, true, 400)") == [0, 400]
    assert page.js("return dragged(-10, 50, -5, true, true, 400)") == [0, 50]


def test_a_class_is_chosen(page):
    from selenium.webdriver.support.ui import Select

    def options():
        return [x.get_attribute("textContent") for x in Select(page.find("#class-of-box")).options]

    assert options() == NAMES
    Select(page.find("#class-of-box")).select_by_index(1)
    assert page.verdicts() == ["accept", "", "", ""]
    page.keys("j")  # the field has not kept the keys
    assert options() == [*NAMES, "none: the label goes"]
    Select(page.find("#class-of-box")).select_by_index(3)  # no label that would go any more
    page.keys("j")
    Select(page.find("#class-of-box")).select_by_index(4)
    width = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.js(width) == 0  # however long a name is
    first, second, third = page.saved()["decisions"]
    assert first["proposal"] == {"category": HOSTILE, "bbox": [300, 100, 60, 40]}
    assert second["proposal"] == {"category": LONG, "bbox": BOXES[1]}
    assert (third["label"], third["proposal"]) == (LABEL[2], None)
    assert {x["decision"] for x in (first, second, third)} == {"accept"}


def test_a_label_to_ignore_keeps_its_box_and_a_new_region_can_be_moved(page):
    page.keys("i")
    page.keys("k")
    page.drag((330, 120), (320, 135))
    page.keys("ji")
    page.keys("k")
    page.drag((140, 80), (120, 80))
    region, label = page.saved()["decisions"]
    assert region["decision"] == label["decision"] == "ignore"
    assert region["proposal"]["bbox"][:2] != [300, 100]
    assert (label["label"], label["proposal"]) == (LABEL[1], None)


def test_a_label_that_would_go_can_be_moved_instead(page):
    page.keys("j")
    assert page.text("#effect") == "Accepting removes the label."
    page.drag((140, 80), (150, 90))
    assert page.text("#effect") == "Accepted: moves its box."
    (decision,) = page.saved()["decisions"]
    assert (decision["label"], decision["suspected"]) == (LABEL[1], None)
    assert decision["proposal"] == {"category": "cat", "bbox": page.box()}
    assert page.box()[:2] != BOXES[1][:2]
    page.keys("rk")
    assert page.saved()["decisions"][0]["proposal"]["bbox"] != BOXES[1]  # as it was left


def test_two_suspects_of_one_label_have_one_decision(write, open_page):
    with open_page(write("report", [(0, SPURIOUS), (1, WRONG), (0, SAME_LABEL)])) as page:
        page.keys("r")
        assert page.verdicts() == ["reject", "", "reject"]
        page.keys("ja")
        assert page.verdicts() == ["accept", "", "accept"]
        assert len(page.saved()["decisions"]) == 1


NEARBY = suspect("missing label", [305, 102, 60, 40], None, CAT)
ELSEWHERE = suspect("missing label", [300, 20, 60, 40], None, CAT)
OTHER_CLASS = suspect("missing label", [300, 100, 60, 40], None, PROTO)
SAME_LABEL = suspect("wrong class", BOXES[1], 1, PROTO)


def test_a_newer_report_shows_the_decisions(write, open_page):
    with open_page(write("report", SUSPECTS)) as page:
        page.drag((330, 120), (320, 105))  # moved, which the newer one knows nothing of
        page.keys("jariku")  # of which the last is undone
        assert page.verdicts() == ["accept", "accept", "reject", ""]
        before = page.saved()["decisions"]
        load(page.chrome, page.chrome.current_url)
        page.to_label_errors()
        assert page.verdicts() == ["accept", "accept", "reject", ""]
        assert page.saved()["decisions"] == before
    newer = [(1, PLACED), (0, OTHER_CLASS), (0, ELSEWHERE), (0, SAME_LABEL), (0, NEARBY)]
    with open_page(write("newer", newer)) as page:
        assert page.verdicts() == ["", "", "", "accept", "accept"]
        assert page.text("#progress") == (
            "2 decided (2 accepted, 0 rejected, 0 to ignore), 3 left; "
            "1 more on what this report does not list"
        )
        assert page.saved()["decisions"] == before
        page.keys("r")
        saved = page.saved()["decisions"]
        assert [x["decision"] for x in saved] == ["accept", "accept", "reject", "reject"]
    with open_page(write("other", [(0, MISSING)], "other data")) as page:
        assert page.verdicts() == [""]


def test_a_file_is_loaded_again_and_that_can_be_undone(write, open_page, tmp_path):
    with open_page(write("report", SUSPECTS)) as page:
        page.keys("arr")
        content = page.saved()
        file = tmp_path / "mine.json"
        content["decisions"][1]["label"] |= {"index": 7, "id": None}  # the same box, elsewhere
        del content["decisions"][0]["suspected"]  # which others may not write
        file.write_text(json.dumps(content), encoding="utf-8")
        page.keys("uuujaji")
        before = page.verdicts()
        assert before == ["", "accept", "", "ignore"]
        page.load(file)
        assert page.verdicts() == ["accept", "reject", "reject", "ignore"]
        assert page.text("#message") == (
            "3 decisions in mine.json: 3 are new, in place of 1 others."
        )
        assert len(page.saved()["decisions"]) == 4
        page.load(file)  # once more, which changes nothing
        assert "0 are new" in page.text("#message")
        page.keys("u")
        assert page.verdicts() == before


def test_rejections_are_loaded_into_the_report_on_corrected_labels(write, open_page, tmp_path):
    with open_page(write("report", SUSPECTS)) as page:
        page.keys("rrar")
        content = page.saved()
    missing, *_, placed = content["decisions"]
    content["decisions"].append(missing | {"image": "/elsewhere/x.png"})
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "link.png").symlink_to(write.files[1])
    at = [write.files[0], tmp_path / "link.png"]
    with open_page(write("newer", SUSPECTS, "other data", at)) as page:
        page.load(file)
        assert page.verdicts() == ["reject", "reject", "accept", "reject"]
        assert page.text("#message") == (
            "5 decisions in mine.json: 4 are new, in place of 0 others. Of the data set "
            f"{content['info']['dataset']}, 4 on images that this report lists are taken, 1 on "
            "others are not."
        )
        saved = page.saved()
        assert saved["info"]["dataset"] == "other data"
        assert saved["decisions"][0] == missing
        assert saved["decisions"][3] == placed | {"image": str(at[1])}
        page.keys("u")
        assert page.verdicts() == [""] * 4


def test_decisions_on_labels_of_one_class_and_box_are_all_loaded(write, open_page, tmp_path):
    with open_page(write("report", SUSPECTS)) as page:
        page.keys("ja")
        content = page.saved()
        (first,) = content["decisions"]
        second = first | {"decision": "reject", "label": first["label"] | {"index": 2, "id": 12}}
        content["decisions"] = [first, second]
        file = tmp_path / "mine.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        for new, undone in ((1, "uu"), (2, "u")):  # where the first one is there, and then none
            page.load(file)
            assert f"mine.json: {new} are new, in place of 0 others." in page.text("#message")
            assert page.saved()["decisions"] == [first, second]
            page.keys(undone)
            assert page.saved()["decisions"] == []


def test_ids_that_no_number_of_a_script_holds(write, open_page):
    large = 2**53
    for i, x in enumerate(write.records):
        x["image_id"] = large + i
    for i, x in enumerate(write.records[0]["annotations"]):
        x["id"] = large + i
    with open_page(write("report", SUSPECTS)) as page:
        page.keys("aaaa")
        files = [x.split("\n")[-1] for x in page.texts("figcaption .soft")]
        assert len(set(files)) == 2
        saved = page.saved()["decisions"]
    assert [x["image"] for x in saved] == [y for y in write.files for _ in range(2)]
    assert [x["image_id"] for x in saved] == [str(large)] * 2 + [str(large + 1)] * 2
    assert [x["label"] and x["label"]["id"] for x in saved] == [
        None, str(large + 1), str(large + 2), str(large + 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("other data", "it is of the data set other data, and of no image that this report lists"),
        ("no JSON", "it is no JSON, expected"),
        ("[]", "it has no decisions"),
        ("null", "it has no decisions"),
        ({"decision": "constructor"}, "decisions[0] is none"),
        ({"label": {"category": 1, "bbox": [0, 0, 1, 1]}}, "decisions[0] is none"),
        ({"proposal": {"category": "x", "bbox": [0, 0, 1]}}, "decisions[0] is none"),
        ({"proposal": None, "suspected": None}, "decisions[0] is none"),
    ],
)
def test_a_file_that_is_no_such_file_is_refused(page, tmp_path, change, problem):
    page.keys("a")
    content = page.saved()
    if isinstance(change, dict):
        content["decisions"][0] |= change
    else:
        content["info"]["dataset"] = change
        content["decisions"][0]["image"] = "/elsewhere/x.png"
    is_text = isinstance(change, str) and change != "other data"
    file = tmp_path / f"{HOSTILE.replace('/', '_')}.json"
    file.write_text(change if is_text else json.dumps(content), encoding="utf-8")
    page.keys("u")
    page.load(file)
    assert page.text("#problem").startswith(f"{file.name} is not loaded: {problem}")
    assert "\n" not in page.text("#problem")
    assert page.verdicts() == [""] * 4


def test_another_window_of_the_same_data_shows_what_is_decided(page):
    first, address = page.chrome.current_window_handle, page.chrome.current_url
    page.chrome.switch_to.new_window("tab")
    load(page.chrome, address)
    page.to_label_errors()
    page.keys("ar")
    page.chrome.switch_to.window(first)
    deadline = time.monotonic() + 30
    while page.verdicts() != ["accept", "reject", "", ""]:
        assert time.monotonic() < deadline
    page.keys("jji")  # which keeps what the other window decided
    assert [x["decision"] for x in page.saved()["decisions"]] == ["accept", "reject", "ignore"]


def test_an_image_that_is_turned_is_in_view_as_the_model_sees_it(write, open_page):
    stored = Image.fromarray(np.zeros((400, 300, 3), np.uint8))  # 300 wide, 400 high
    stored.paste(
        (255, 255, 255), (0, 0, 300, 200)
    )  # white above, which is on the right when turned
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    stored.save(write.files[0], "jpeg", exif=exif)
    with open_page(write("report", [(0, MISSING)])) as page:
        page.keys("z")
        page.js("document.getElementById('view').scrollIntoView({block: 'end'})")
        left, top, scale = page.js(
            "const v = document.getElementById('view'), m = v.getScreenCTM(),"
            "r = v.getBoundingClientRect(); return [m.e - r.left, m.f - r.top, m.a]"
        )
        deadline = time.monotonic() + 30
        while True:
            png = np.frombuffer(page.find("#view").screenshot_as_png, np.uint8)
            view = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)
            places = ((100, 20), (100, 280), (250, 20), (250, 280))  # of the image
            seen = [int(view[int(top + scale * y), int(left + scale * x)]) for x, y in places]
            if max(seen) > 200 or time.monotonic() > deadline:
                break
        assert [v > 200 for v in seen] == [False, False, True, True]


def test_a_browser_that_keeps_nothing_is_told_of(page):
    page.js(
        "const of = window.localStorage; window.isDenied = true;"
        "Object.defineProperty(window, 'localStorage', "
        "{get() { if (window.isDenied) throw new Error('denied'); return of; }})"
    )
    assert page.text("#problem") == ""
    page.keys("a")
    said = "This browser does not keep decisions: save them before you leave the page."
    assert page.text("#problem") == said
    page.keys("r")
    assert page.text("#problem") == said
    assert len(page.saved()["decisions"]) == 2
    page.js("window.isDenied = false")  # it keeps them again, and does not ask whether to leave
    page.keys("a")
    assert page.text("#problem") == ""


def test_without_a_crop_the_image_is_shown(write, open_page, monkeypatch):
    file = write("report", SUSPECTS)
    content = json.loads(file.with_name("label_errors.json").read_text(encoding="utf-8"))
    areas = [x["crop_bbox"] for x in content["annotations"]]
    monkeypatch.setattr("ohem_d2.report.page._MOST", 0)
    with open_page(write("without", SUSPECTS)) as page:
        view = "return [...document.querySelectorAll('figure svg')].map("
        boxes = page.js(f"{view}e => e.getAttribute('viewBox').split(' ').map(Number))")
        np.testing.assert_allclose(boxes, areas, atol=1.01)  # crops have whole pixels
        deadline = time.monotonic() + 30
        while not all(page.js(f"{view}e => e.querySelector('image').getAttribute('href'))")):
            assert time.monotonic() < deadline
        assert page.js("return document.getElementById('view').getAttribute('viewBox')") == (
            page.js("return document.querySelector('figure svg').getAttribute('viewBox')")
        )
        page.keys("a")
        assert page.saved()["decisions"][0]["proposal"]["bbox"] == [300, 100, 60, 40]


def test_without_image_and_crop_the_boxes_are_in_view(write, monkeypatch, tmp_path):
    monkeypatch.setattr("ohem_d2.report.page._MOST", 0)
    file = write("report", SUSPECTS)
    for image in write.files:
        (tmp_path / image).unlink()
    with opened(file, tmp_path / "profile") as chrome:
        page = Page(chrome, tmp_path)
        page.js("setCrop()")  # which there is none of
        assert page.js("return document.getElementById('picture').getAttribute('href')") != "null"
        assert page.box() == [300, 100, 60, 40]


def test_without_the_image_its_crop_is_in_view(write, open_page, tmp_path):
    file = write("report", SUSPECTS)
    for image in write.files:
        (tmp_path / image).unlink()
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with opened(file, tmp_path / "profile") as chrome:  # which says that it finds no image
        page = Page(chrome, downloads)
        deadline = time.monotonic() + 30
        while "crops" not in page.find("#picture").get_attribute("href"):
            assert time.monotonic() < deadline
        left, top, width, height = json.loads(
            (tmp_path / "report" / "label_errors.json").read_text()
        )["annotations"][0]["crop_bbox"]
        shown = page.js("const b = document.getElementById('picture').getBBox(); return [b.x, b.y]")
        assert shown == [left, top]
        # The corners of the crop are where these pixels of the image are.
        matrix = page.js(
            "const m = document.getElementById('view').getScreenCTM(),"
            "r = document.getElementById('picture').getBoundingClientRect();"
            f"return [r.left - ({left} * m.a + m.e), r.right - ({left + width} * m.a + m.e),"
            f"r.bottom - ({top + height} * m.d + m.f)]"
        )
        np.testing.assert_allclose(matrix, 0, atol=0.01)
