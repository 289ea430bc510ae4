"""The page of hard examples, used as its user would."""

import itertools
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import opened, requested
from command_line import ROOT, run_command, run_train_net
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ohem_d2.data.shapes import write_shapes
from ohem_d2.report.coco_form import as_coco
from ohem_d2.report.hard_examples import HardExample
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_page

HOSTILE = '</script><img src=x onerror=alert(1)> "it\'s" & ünï \u2028'
SMALL, MEDIUM, LARGE = (2, 2, 22, 22), (30, 20, 80, 70), (5, 5, 125, 115)


def example(error_type, loss, box, true_class, predicted_class, label=None):
    true_box = None if true_class is None else box
    predicted_box = None if predicted_class is None else box
    ends = (0.75, true_box, 0.5, predicted_box)
    return HardExample(error_type, loss, box, true_class, predicted_class, *ends, label)


HARD = [
    (0, example("missed object", 5.0, LARGE, 0, None)),
    (1, example("look-alike", 4.0, SMALL, None, 0)),
    (0, example("confused class", 3.0, MEDIUM, 1, 0)),
    (0, example("badly placed box", 2.0, MEDIUM, 1, 1)),
]
ERRORS = [
    (1, example("missing label", 4.5, LARGE, None, 1)),
    (1, example("spurious label", 1.5, SMALL, 0, None, label=0)),
]


@pytest.fixture
def dataset(tmp_path):
    name = f"data of {HOSTILE}"
    MetadataCatalog.get(name).set(thing_classes=[HOSTILE, "dog"])
    yield name
    MetadataCatalog.remove(name)


@pytest.fixture
def records(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.full((120, 160, 3), 90, np.uint8))
    files = [tmp_path / f"{i} {HOSTILE.replace('/', '_')}.png" for i in range(2)]
    for file in files:
        file.write_bytes((tmp_path / "x.png").read_bytes())
    label = {"bbox": list(SMALL), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    rest = {"height": 120, "width": 160, "annotations": [label]}
    return [{"file_name": str(x), "image_id": i, **rest} for i, x in enumerate(files)]


@pytest.fixture
def page(tmp_path, dataset, records):
    folder = tmp_path / "a report"
    lists = (
        as_coco(records, HARD, dataset, "hard_examples"),
        as_coco(records, ERRORS, dataset, "label_errors"),
    )
    write_page(folder, dataset, *lists, as_model_errors(records, [], dataset))
    with opened(folder / "index.html", tmp_path / "profile") as chrome:
        yield chrome
        assert [x for x in chrome.get_log("browser") if x["level"] == "SEVERE"] == []
        assert requested(chrome) == {"file"}


def texts(chrome, css):
    return chrome.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css
    )


def error_types_shown(chrome):
    return texts(chrome, "figcaption b")


def fill(chrome, name, value):
    chrome.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def click(chrome, css, number=0):
    chrome.execute_script(
        "document.querySelectorAll(arguments[0])[arguments[1]].click()", css, number
    )


def check_pictures(chrome, number):
    """That so many load, wherever they are: those that are not in view do not, before they are."""
    script = (
        "document.querySelectorAll('img').forEach(i => i.loading = 'eager');"
        "return [...document.images].every(i => i.naturalWidth > 0)"
    )
    deadline = time.monotonic() + 30
    while not chrome.execute_script(script):
        assert time.monotonic() < deadline
    assert chrome.execute_script("return document.images.length") == number


def test_names_are_shown_as_they_are_and_every_picture_loads(page):
    assert error_types_shown(page) == [x.error_type for _, x in HARD]
    captions = texts(page, "figcaption")
    assert f"{HOSTILE}, taken for background (0.75)" in captions[0]
    assert f"no label, taken for {HOSTILE} (0.75)" in captions[1]
    assert all(HOSTILE.replace("/", "_") in x for x in captions)
    check_pictures(page, len(HARD))


def test_filters(page):
    hard = [x.error_type for _, x in HARD]
    click(page, "#error_types input", 0)
    assert error_types_shown(page) == hard[1:]
    click(page, "#error_types input", 0)
    for name, value, found in (
        ("class", "2", hard[2:]),  # of it, or taken for it
        ("class", "1", hard[:3]),
        ("size", "small", [hard[1]]),
        ("size", "medium", hard[2:]),
        ("size", "large", [hard[0]]),
        ("loss", "3", hard[:3]),
        ("file", "1 <_SCR", [hard[1]]),
    ):
        fill(page, name, value)
        assert error_types_shown(page) == found, (name, value)
        assert texts(page, "#count") == [f"{len(found)} examples"]
        fill(page, name, "0" if name == "loss" else "")
    assert error_types_shown(page) == hard


def test_label_errors_are_the_other_list(page):
    titles = ["hard examples (4)", "suspected label errors (2)", "errors of detections"]
    assert texts(page, "#lists button") == titles
    click(page, "#lists button", 1)
    assert error_types_shown(page) == [x.error_type for _, x in ERRORS]
    assert texts(page, "#error_types label")[0] == "missing label"
    assert texts(page, "#by-class button") == ["dog", HOSTILE]
    assert texts(page, "#by-class td.number") == ["1", "1"]
    click(page, "#by-class button", 1)
    assert error_types_shown(page) == ["spurious label"]
    click(page, "#lists button", 0)  # the class stays chosen
    assert error_types_shown(page) == [x.error_type for _, x in HARD[:3]]


def test_summaries_filter_too(page):
    assert texts(page, "#by-image td:nth-child(2)") == ["3", "1"]
    click(page, "#by-image button", 1)
    assert error_types_shown(page) == ["look-alike"]


def write_many(folder, dataset, records, number):
    """A page with so many hard examples and as many suspects, of which no crops are drawn."""

    def many(error_types):
        # Scores and boxes with all digits, as those of a model.
        boxes = ((2 + i / 7919, 3.0, 50 + i / 7919, 61 + i / 104729) for i in range(number))
        kinds = itertools.cycle(error_types)
        found = [
            (i % 2, example(kind, 9 - i / number, box, None, i % 2))
            for i, (kind, box) in enumerate(zip(kinds, boxes))
        ]
        return [(i, replace(x, score=0.1 + 0.8 / (1 + j))) for j, (i, x) in enumerate(found)]

    lists = (
        as_coco(records, many(["look-alike"]), dataset, "hard_examples"),
        as_coco(records, many(["missing label"]), dataset, "label_errors"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ohem_d2.report.page._MOST", 0)
        write_page(folder, dataset, *lists, as_model_errors(records, [], dataset))
    return folder / "index.html"


def cards(page):
    """The numbers of the examples whose cards are in the page."""
    script = "return [...document.querySelectorAll('figure')].map(e => Number(e.dataset.id))"
    return page.execute_script(script)


def scroll_to_the_end(page, last):
    """Until the card of the last example is in view, whatever the estimate of all others is."""
    in_view = (
        "window.scrollTo(0, document.body.scrollHeight);"
        f"const e = document.querySelector('figure[data-id=\"{last}\"]');"
        "return Boolean(e) && e.getBoundingClientRect().top < window.innerHeight"
    )
    deadline = time.monotonic() + 60
    while not page.execute_script(in_view):
        assert time.monotonic() < deadline


def test_of_thousands_only_those_near_the_view_are_in_the_page(tmp_path, dataset, records):
    with opened(
        write_many(tmp_path / "report", dataset, records, 8000), tmp_path / "profile"
    ) as page:
        titles = ["hard examples (8000)", "suspected label errors (8000)"]
        assert texts(page, "#lists button")[:2] == titles
        assert cards(page)[:60] == list(range(1, 61))
        seen = set()
        for at in range(40):  # as far as the view goes, there are cards
            page.execute_script("window.scrollTo(0, arguments[0])", 700 * at)
            seen |= set(wait_for_cards_in_view(page))
        assert seen == set(range(1, max(seen) + 1))
        assert max(seen) > 250
        scroll_to_the_end(page, 8000)
        assert 0 < len(cards(page)) <= 600
        took = page.execute_script(
            "const start = performance.now(); const e = document.getElementById('class');"
            "e.value = '2'; e.dispatchEvent(new Event('input', {bubbles: true}));"
            "return performance.now() - start"
        )
        assert took < 2000  # milliseconds; a tenth of it on an idle machine
        assert texts(page, "#count") == ["4000 examples"]


def wait_for_cards_in_view(page):
    """Their numbers, once no chunk in view is empty."""
    script = (
        "const isSeen = e => { const r = e.getBoundingClientRect();"
        "  return r.bottom > 0 && r.top < window.innerHeight; };"
        "if ([...document.querySelectorAll('.chunk:empty')].some(isSeen)) return null;"
        "return [...document.querySelectorAll('figure')].filter(isSeen)"
        ".map(e => Number(e.dataset.id))"
    )
    deadline = time.monotonic() + 30
    while (found := page.execute_script(script)) is None:
        assert time.monotonic() < deadline
    return found


def test_suspects_that_are_decided_go_off_a_long_list(tmp_path, dataset, records):
    file = write_many(tmp_path / "report", dataset, records, 200)
    with opened(file, tmp_path / "profile") as page:
        click(page, "#lists button", 1)
        page.execute_script("document.getElementById('undecided').click()")
        scroll_to_the_end(page, 200)
        for number in (1, 2, 150):
            x = f"suspects[{number - 1}]"
            page.execute_script(f"view({x}); decide({x}, 'reject')")
        page.execute_script("view(suspects[9])")
        left = [x for x in range(1, 201) if x not in (1, 2, 150)]
        assert page.execute_script("return found.map(x => x.id)") == left
        shown = cards(page)
        assert shown == [x for x in left if x in shown]
        for i in range(4):  # each chunk that is filled has those that belong there
            script = f"return [...chunks[{i}].children].map(e => Number(e.dataset.id))"
            assert page.execute_script(script) in ([], left[60 * i : 60 * (i + 1)])


@pytest.mark.slow
def test_a_page_of_a_hundred_thousand_suspects_opens(tmp_path, dataset, records):
    """In a second or so, benchmarks/page_opening.py says; a machine of tests may be busy."""
    file = write_many(tmp_path / "report", dataset, records, 100_000)
    with opened(file, tmp_path / "profile") as page:
        (entry,) = page.execute_script("return performance.getEntriesByType('navigation')")
        assert entry["loadEventEnd"] < 10_000  # milliseconds
        click(page, "#lists button", 1)
        assert texts(page, "#count") == ["100000 examples"]
        scroll_to_the_end(page, 100_000)
        assert len(cards(page)) <= 600
        assert [x for x in page.get_log("browser") if x["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_report_of_a_model_that_was_trained(tmp_path):
    write_shapes(tmp_path / "shapes", sizes={"train": 24, "test": 4})
    train, test = (f"coco://shapes/{x}.json?images=shapes/JPEGImages" for x in ("train", "test"))
    data = ["DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)"]
    few = ["SOLVER.MAX_ITER", 8, "OUTPUT_DIR", "output"]
    run = run_train_net(tmp_path, *data, *few, config=ROOT / "configs" / "quick_start.yaml")
    assert run.returncode == 0, run.stderr
    given = ["--config-file", "output/config.yaml", "--dataset", test, "--output", "report"]
    weights = ["MODEL.WEIGHTS", "output/model_final.pth"]
    run_command(tmp_path, "report", *given, *weights).check_returncode()
    check_report(tmp_path / "report", tmp_path / "profile")


def test_report_of_ones_own(report_folder, tmp_path):
    """With `pytest --report <folder>`."""
    check_report(Path(report_folder).resolve(), tmp_path / "profile")


def check_report(folder, profile):
    """All that it shows of the lists beside it: each example and picture, by each filter."""
    with opened(folder / "index.html", profile) as page:
        for number, name in enumerate(("hard_examples", "label_errors")):
            coco = json.loads((folder / f"{name}.json").read_text())
            examples = coco["annotations"]
            click(page, "#lists button", number)
            check_count(page, len(examples))
            check_error_types(page, Counter(x["error_type"] for x in examples))
            names = {x["id"]: x["name"] for x in coco["categories"]}
            of_classes = Counter(
                category
                for x in examples
                for category in {x["category_id"], x["predicted_category_id"]} - {None}
            )
            assert set(texts(page, "#by-class button")) == {names[i] for i in of_classes}
            for category, of_class in of_classes.items():
                check_filter(page, "class", category, "", of_class)
            losses = sorted(x["loss"] for x in examples)
            for loss in losses[:: len(losses) // 3 + 1]:
                check_filter(page, "loss", loss, 0, sum(x >= loss for x in losses))
            areas = [x["area"] for x in examples]
            check_filter(page, "size", "small", "", sum(a < 32**2 for a in areas))
            check_filter(page, "size", "large", "", sum(a > 96**2 for a in areas))
            files = Counter(x["image_id"] for x in examples)
            for image in [x for x in coco["images"] if x["id"] in files][:5]:
                file = Path(image["file_name"]).name
                check_filter(page, "file", file, "", files[image["id"]])
            check_all_pictures(page, len(examples))
        assert [x for x in page.get_log("browser") if x["level"] == "SEVERE"] == []
        assert requested(page) == {"file"}


def check_all_pictures(page, number):
    """Those of all cards, of which only some are in the page at a time."""
    script = (
        "const all = [...document.querySelectorAll('figure')];"
        "all.forEach(e => e.querySelector('img')?.setAttribute('loading', 'eager'));"
        "window.scrollBy(0, window.innerHeight / 2);"
        "return all.filter(e => e.querySelector('svg') || e.querySelector('img').naturalWidth > 0)"
        ".map(e => Number(e.dataset.id))"
    )
    page.execute_script("window.scrollTo(0, 0)")
    seen: set[int] = set()
    deadline = time.monotonic() + 30 + number / 10
    while len(seen) < number:
        seen |= set(page.execute_script(script))
        assert time.monotonic() < deadline


def check_count(page, number):
    assert texts(page, "#count") == [f"{number} examples"]


def check_error_types(page, numbers):
    for i, label in enumerate(texts(page, "#error_types label")):
        click(page, "#error_types input", i)
        error_type, _, _ = label.partition(" (")  # behind it comes TIDE's name
        check_count(page, numbers.total() - numbers[error_type])
        click(page, "#error_types input", i)
    check_count(page, numbers.total())


def check_filter(page, name, value, nothing, number):
    fill(page, name, str(value))
    check_count(page, number)
    fill(page, name, str(nothing))
