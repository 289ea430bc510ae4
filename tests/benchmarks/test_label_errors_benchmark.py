import sys

import label_errors
import numpy as np
import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.shapes import write_shapes
from ohem_d2.report.hard_examples import HardExample

HERE, THERE, AWAY = (0, 0, 10, 10), (5, 0, 15, 10), (50, 50, 60, 60)


def label(box, error, true_box, category=0):
    x0, y0, x1, y1 = box
    box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "bbox_mode": BoxMode.XYWH_ABS}
    return {**box, "error": error, "true_bbox": true_box, "category_id": category}


def suspect(error_type, box, true_box, true_class):
    return HardExample(error_type, 1.0, box, true_class, 0, 0.9, true_box, 0.0, box)


RECORD = {
    "annotations": [label(THERE, "moved", HERE), label(AWAY, "swapped", AWAY, 1)],
    "removed": [label((30, 30, 40, 40), "removed", (30, 30, 40, 40))],
}
RANKED = [
    (7, suspect("missing label", (31, 30, 41, 40), None, None)),
    (9, suspect("missing label", (30, 30, 40, 40), None, None)),  # again
    (8, suspect("missing label", HERE, THERE, None)),
    (3, suspect("badly placed label", AWAY, AWAY, 1)),
    (4, suspect("badly placed label", HERE, THERE, 0)),
    (5, suspect("wrong class", AWAY, AWAY, 0)),  # another label at the same place
    (6, suspect("wrong class", AWAY, AWAY, 1)),
]


def test_hits_by_hand():
    assert label_errors.hits(RECORD, RANKED, "removed") == [(7, True), (8, False)]
    assert label_errors.hits(RECORD, RANKED, "moved") == [(3, False), (4, True)]
    assert label_errors.hits(RECORD, RANKED, "swapped") == [(5, False), (6, True)]
    # Pointing at the moved label, or to where its object is; each error counts once.
    right = [
        place for place, is_right in label_errors.hits(RECORD, RANKED, "any of them") if is_right
    ]
    assert right == [7, 8, 3]


def test_score_by_hand():
    ranked = [(5, False), (1, True), (3, False), (4, True)]
    # Right are the first and the third; of two, the first two hold one.
    assert label_errors.score(ranked, 2) == pytest.approx([100 * (1 + 2 / 3) / 2, 50, 100])
    assert label_errors.score([], 3) == [0, 0, 0]
    assert label_errors.score([(0, True)], 4) == [25, 25, 25]


@pytest.mark.slow
def test_writes_a_page(monkeypatch, tmp_path, capsys):
    pytest.importorskip("cleanlab")
    write_shapes(tmp_path / "data", sizes={"train": 60, "test": 20})
    data = [
        f"('coco://{tmp_path}/data/{x}.json?images={tmp_path}/data/JPEGImages',)"
        for x in ("train", "test")
    ]
    opts = ["DATASETS.TRAIN", data[0], "DATASETS.TEST", data[1], "SOLVER.MAX_ITER", "3"]
    command = ["label_errors.py", "--share", "0.2", "--seeds", "0", "1", "--max-images", "12"]
    output = ["--output", str(tmp_path / "page.md"), "--opts"]
    monkeypatch.setattr(sys, "argv", [*command, *output, *opts])
    label_errors.main()
    page = (tmp_path / "page.md").read_text()
    assert page.strip() in capsys.readouterr().out
    rows = [x.split(" | ") for x in page.splitlines() if "by loss" in x]
    assert len(rows) == 2 * 5
    assert all(0 <= float(v.strip(" |").split(" ±")[0]) <= 100 for row in rows for v in row[3:])
    assert np.ptp([len(row) for row in rows]) == 0
