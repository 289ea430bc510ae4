"""Boxes against what else a file says of the same objects."""

import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.agreement import check_agreement
from ohem_d2.data.findings import Findings
from ohem_d2.errors import InputError

CORNERS = [(10, 10, 40, 30), (20, 10, 60, 50), (30, 30, 70, 50), (10, 20, 50, 60)]


def square(x0, y0, x1, y1, scale=1.0):
    return [[v * scale for v in (x0, y0, x1, y0, x1, y1, x0, y1)]]


def record(boxes, **fields):
    """Fields: a function of the corners of an object, each."""
    annotations = [
        {
            "bbox": list(box),
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": "cat",
            **{name: field(*corners) for name, field in fields.items()},
        }
        for box, corners in zip(boxes, CORNERS)
    ]
    return {"file_name": "a.jpg", "width": 200, "height": 200, "annotations": annotations}


SIZES = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in CORNERS]
TELLING = [
    {"segmentation": square},
    {"area": lambda x0, y0, x1, y1: (x1 - x0) * (y1 - y0)},
]


@pytest.mark.parametrize("fields", TELLING, ids=["outlines", "areas"])
def test_corners_that_would_do_as_sizes(fields):
    with pytest.raises(InputError, match=r"'x' seem to be corners.* of 4 of 4 objects .*in a\.jpg"):
        check_agreement("x", [record(CORNERS, **fields)], Findings())
    findings = Findings()
    check_agreement("x", [record(SIZES, **fields)], findings)
    check_agreement("x", [record(CORNERS)], findings)  # nothing tells
    check_agreement("x", [record(CORNERS[:2], area=lambda *_: 1)], findings)  # a few tell nothing
    # The areas of outlines, which are less than those of boxes.
    check_agreement("x", [record(SIZES, area=lambda *_: 200)], findings)
    assert not findings.summary()


@pytest.mark.parametrize("scale", [0.005, 0.3])
def test_outlines_of_another_scale(scale):
    findings = Findings()
    outline = {"segmentation": lambda *corners: square(*corners, scale=scale)}
    check_agreement("x", [record(SIZES, **outline)], findings)
    (line,) = findings.summary()
    assert line.startswith("outline that does not fit its box: 4 (a.jpg: 'cat' at [10")


@pytest.mark.parametrize(
    ("points", "number"),
    [
        ([0.1, 0.2, 2, 0.3, 0.4, 2], 4),
        ([150, 150, 1, 160, 160, 2], 4),
        ([150, 150, 0, 160, 160, 0], 0),  # not labelled
        ([150, 150, 2, 160, 160, 0], 0),  # a single one may be a slip
        ([150, 150, 2, 35, 28, 2], 0),
    ],
)
def test_keypoints_elsewhere(points, number):
    findings = Findings()
    check_agreement("x", [record(SIZES, keypoints=lambda *_: points)], findings)
    lines = findings.summary()
    assert len(lines) == (number > 0)
    assert all(
        x.startswith(f"keypoints that all lie outside of their box: {number}") for x in lines
    )
