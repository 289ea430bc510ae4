import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ohem_d2.hard_examples import HardExample
from ohem_d2.kinds import KINDS
from ohem_d2.pictures import KIND_COLORS
from ohem_d2.report import Report, draw_crop

HOSTILE = '</script><img src=x onerror=alert(1)> "it\'s" & ünï \u2028.jpg'
MISSED = HardExample("missed object", 2.0, (40, 30, 60, 50), 0, None, 0.5, (30, 30, 60, 60), 0.4)
LOOK_ALIKE = HardExample("look-alike", 1.0, (0, 0, 10, 20), None, 0, 0.75, None, 0.0)


class _Scripts(HTMLParser):
    """The text of each script element, and the names of all elements."""

    def __init__(self):
        super().__init__()
        self.scripts, self.elements = [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)

    def handle_data(self, data):
        if self.elements and self.elements[-1] == "script":
            self.scripts.append(data)


def test_the_page_has_the_data_and_nothing_from_outside(tmp_path):
    coco = {
        "info": {"description": HOSTILE},
        "images": [{"id": 1, "file_name": HOSTILE}],
        "categories": [{"id": 1, "name": HOSTILE}],
        "annotations": [],
    }
    Report(tmp_path).write(coco)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    parser = _Scripts()
    parser.feed(page)
    data = json.loads(parser.scripts[0])
    assert data["categories"][0]["name"] == data["images"][0]["file_name"] == HOSTILE
    assert data["kinds"] == list(KINDS[:-1])
    assert "img" not in parser.elements
    assert not re.findall(r"(?:https?:)?//\w|@import|innerHTML|document\.write", page)
    assert json.loads((tmp_path / "hard_examples.json").read_text()) == coco


def test_a_crop_of_each_example(tmp_path):
    picture = tmp_path / HOSTILE.replace("/", "_")
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((80, 100, 3), np.uint8))
    (tmp_path / "x.jpg").rename(picture)
    (tmp_path / "report/crops").mkdir(parents=True)
    (tmp_path / "report/crops/of_before.jpg").touch()
    report = Report(tmp_path / "report")
    crops = report.add_crops(str(picture), [MISSED, LOOK_ALIKE])
    assert report.add_crops("not read, since there is nothing to show", []) == []
    crops += report.add_crops(str(picture), [MISSED])
    assert crops == [f"crops/00000{i}.jpg" for i in (1, 2, 3)]
    assert sorted(x.name for x in (tmp_path / "report/crops").iterdir()) == [
        x.removeprefix("crops/") for x in crops
    ]
    assert all(cv2.imread(str(tmp_path / "report" / x)) is not None for x in crops)


@pytest.mark.parametrize("example", [MISSED, LOOK_ALIKE])
def test_crops_show_boxes_with_what_is_around_them(example):
    image = np.full((80, 100, 3), 90, np.uint8)
    crop = draw_crop(image, example)
    assert max(crop.shape) == 260
    color = np.round(255 * np.array(KIND_COLORS[KINDS.index(example.kind)]))
    assert (np.abs(crop - color).max(axis=2) <= 1).any()
    assert (crop == 255).all(axis=2).any() == (example.true_box is not None)
    assert (crop == 90).all(axis=2).mean() > 0.5
    assert image.min() == image.max() == 90  # not drawn upon
