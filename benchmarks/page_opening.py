#!/usr/bin/env python
"""
How long the page of a report takes to open, by the number of suspected label errors.

    python benchmarks/page_opening.py --output docs/report/measured.md

Examples are made up, with boxes and scores of as many digits as those of a model: of each number as
many suspects, as many hard examples, and twice as many detections, in a tenth as many images. The
page is opened from disk in Chromium without a window, several times; needs selenium, Chromium and
its driver.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from environment import describe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from ohem_d2.files import write_whole
from ohem_d2.mining.error_types import ERROR_TYPES
from ohem_d2.report.coco_form import as_coco
from ohem_d2.report.hard_examples import Box, Detections, Findings, HardExample
from ohem_d2.report.label_errors import LABEL_ERRORS
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_page

NUMBERS = (1_000, 10_000, 100_000)
_DATA = "opening_of_the_page"
_SIZE = {"height": 480, "width": 640}
_CLASSES = 20
_TIMES = 5
_FRAMES = 200  # that are scrolled through
_SCROLL = f"""
const done = arguments[0], times = [];
let last = performance.now();
function step(now) {{
  times.push(now - last);
  last = now;
  if (times.length > {_FRAMES}) return done(times.slice(1));
  window.scrollBy(0, 100);
  requestAnimationFrame(step);
}}
requestAnimationFrame(step);
"""
_AT_THE_END = """
window.scrollTo(0, document.body.scrollHeight);
const e = document.querySelector(`figure[data-id="${arguments[0]}"]`);
return Boolean(e) && e.getBoundingClientRect().top < window.innerHeight;
"""
_ABOUT = """Seconds until the page is drawn: the median of {times}, and in parentheses the least and
the most. *Suspects*: until their list is drawn. *The last one*: from there until the last suspect
is in view. *Scrolling*: the median, the 99th percentile and the longest time of a frame, in
{frames} frames of 100 pixels each: from the first suspect on, and from 7 of 10 on, where of more
than 7,000 suspects pictures come from the images (640 x 480 pixels of noise). On the page are as
many hard examples as suspects, and twice as many detections. {browser}, which draws by the CPU.
{machine}."""


def _corners(random: np.random.Generator) -> Box:
    (x, y), (width, height) = random.random(2) * 400, 20 + random.random(2) * 60
    return float(x), float(y), float(x + width), float(y + height)


def _examples(
    types: Sequence[str], number: int, images: int, random: np.random.Generator
) -> list[tuple[int, HardExample]]:
    found = []
    for i in range(number):
        label, seen = _corners(random), _corners(random)
        is_labelled = i % 2 == 0
        true_class = int(random.integers(_CLASSES)) if is_labelled else None
        predicted = int(random.integers(_CLASSES))
        loss, score, iou = (9 * (1 - i / number), float(random.random()), float(random.random()))
        box = label if is_labelled else seen
        ends = (label, iou, seen, 0 if is_labelled else None)
        example = HardExample(types[i % len(types)], loss, box, true_class, predicted, score, *ends)
        found.append((i % images, example))
    return found


def _findings(random: np.random.Generator) -> Findings:
    none, no_boxes = np.zeros(0), np.zeros((0, 4))
    boxes = np.column_stack([random.random((20, 2)) * 400, 20 + random.random((20, 2)) * 60])
    found = Detections(boxes, random.integers(_CLASSES, size=20), random.random(20))
    of_labels = (no_boxes, none, none, none, none, none)
    regions = (no_boxes, np.zeros(0, dtype=int))
    return Findings([], *of_labels, _CLASSES, no_boxes, none, none, *regions, found)


def write(folder: Path, number: int) -> Path:
    """
    Write a report.

    Args:
        folder: where to.
        number: of suspects.

    Returns:
        its page.
    """
    random = np.random.default_rng(0)
    MetadataCatalog.get(_DATA).set(thing_classes=[f"class {k}" for k in range(_CLASSES)])
    (folder / "images").mkdir(parents=True)
    noise = random.integers(0, 255, (_SIZE["height"], _SIZE["width"], 3), np.uint8)
    cv2.imwrite(str(folder / "image.jpg"), noise)
    records, findings = [], []
    for i in range(number // 10):
        file = folder / "images" / f"{i:06d}.jpg"
        os.link(folder / "image.jpg", file)
        labels = [
            {
                "bbox": [round(v) for v in _corners(random)],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": int(random.integers(_CLASSES)),
                "id": 5 * i + j,
            }
            for j in range(5)
        ]
        records.append({"file_name": str(file), "image_id": i, "annotations": labels, **_SIZE})
        findings.append(_findings(random))
    hard, errors = (
        as_coco(records, _examples(types, number, len(records), random), _DATA, name)
        for name, types in (("hard_examples", ERROR_TYPES[:-1]), ("label_errors", LABEL_ERRORS))
    )
    of_model = as_model_errors(records, findings, _DATA)
    write_page(folder / "report", _DATA, hard, errors, of_model)
    return folder / "report" / "index.html"


@contextmanager
def _browser(profile: Path) -> Iterator:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    for flag in (*flags, "--window-size=1300,1000", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        chrome.set_script_timeout(120)
        yield chrome
    finally:
        chrome.quit()


def measure(chrome, page: Path, number: int) -> dict[str, list[float]]:
    """Open a page several times, and go through its suspects. In seconds; frames in ms."""
    names = ("opened", "suspects", "last", "frames", "frames of images")
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_TIMES):
        chrome.get(page.as_uri())
        while not (
            end := chrome.execute_script(
                "return performance.getEntriesByType('navigation')[0].loadEventEnd"
            )
        ):
            time.sleep(0.01)
        found["opened"].append(end / 1000)
        found["suspects"].append(
            chrome.execute_async_script(
                "const done = arguments[0], start = performance.now();"
                "document.querySelectorAll('#lists button')[1].click();"
                "requestAnimationFrame(() => setTimeout(() => "
                "done((performance.now() - start) / 1000)))"
            )
        )
        found["frames"] += chrome.execute_async_script(_SCROLL)
        chrome.execute_script("window.scrollTo(0, 0.7 * document.body.scrollHeight)")
        time.sleep(1)
        found["frames of images"] += chrome.execute_async_script(_SCROLL)
        start = time.monotonic()
        while not chrome.execute_script(_AT_THE_END, number):
            pass
        found["last"].append(time.monotonic() - start)
    return found


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(rows: dict[int, tuple[float, dict[str, list[float]]]]) -> str:
    """
    Args:
        rows: by the number of suspects, the megabytes of the page, and what `measure` returned.
    """
    titles = ["suspects", "page, MB", "opens, s", "suspects, s", "the last one, s"]
    titles += ["scrolling, ms", "from 7 of 10 on, ms"]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for number, (size, of) in rows.items():
        frames = [
            ", ".join(f"{x:.0f}" for x in np.percentile(of[name], [50, 99, 100]))
            for name in ("frames", "frames of images")
        ]
        cells = [f"{number:,}", f"{size:.0f}"]
        cells += [_spread(of[name]) for name in ("opened", "suspects", "last")]
        lines.append(f"| {' | '.join([*cells, *frames])} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, write the page."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, type=Path, help="the page to write")
    args = parser.parse_args()
    rows = {}
    for number in NUMBERS:
        with tempfile.TemporaryDirectory() as folder:
            page = write(Path(folder) / "data", number)
            size = page.stat().st_size / 1e6
            with _browser(Path(folder) / "profile") as chrome:
                rows[number] = (size, measure(chrome, page, number))
                browser = f"Chromium {chrome.capabilities['browserVersion']}"
        print(table(rows))
    about = _ABOUT.format(times=_TIMES, frames=_FRAMES, browser=browser, machine=describe("cpu"))
    text = f"# How long the page of a report takes to open\n\n{about}\n\n{table(rows)}\n"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.output, text)


if __name__ == "__main__":
    main()
