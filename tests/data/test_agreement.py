"""Boxes against what else a file says of the same objects."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.agreement import _around, check_agreement
from ohem_d2.data.fields import read_outline
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
    ("points", "words"),
    [
        ([0.1, 0.2, 2, 0.3, 0.4, 2], "keypoints that all lie outside of their box: 4"),
        ([150, 150, 1, 160, 160, 2], "keypoints that all lie outside of their box: 4"),
        ([150, 150, 0, 160, 160, 0], ""),  # not labelled
        ([250, 150, 0, 35, 28, 2], ""),
        ([65, 55, 2, 160, 160, 0], ""),  # a single one beside its box
        ([150, 150, 2, 160, 160, 0], "keypoint far outside of its box: 4"),
        ([150, 150, 2, 35, 28, 2], "keypoint far outside of its box: 4"),
        ([35, 28, 2, 35, 58, 2], ""),  # a limb
        ([35, 28, 2, 215, 28, 2], "keypoint outside of its image: 4"),
        ([35, -40, 1], "keypoint outside of its image: 4"),
        ([35, 28, 2, 0.5, 0.5, 2], "keypoint at 0, 0, outside of its box, which is said to be"),
    ],
)
def test_keypoints_elsewhere(points, words):
    findings = Findings()
    check_agreement("x", [record(SIZES, keypoints=lambda *_: points)], findings)
    lines = findings.summary()
    assert len(lines) == bool(words)
    assert all(x.startswith(words) for x in lines)


def runs(x0, y0, x1, y1, compressed=False):
    """Of a rectangle in an image of 200 x 200 pixels."""
    mask = np.zeros((200, 200), np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    if compressed:
        return {"size": [200, 200], "counts": mask_util.encode(mask)["counts"].decode()}
    lengths = [0, *np.flatnonzero(np.diff(mask.ravel(order="F"))) + 1, mask.size]
    outline, _ = read_outline({"size": [200, 200], "counts": np.diff(lengths).tolist()})
    return outline


@pytest.mark.parametrize("compressed", [False, True])
def test_masks_elsewhere(compressed):
    findings = Findings()
    fits = {"segmentation": lambda *box: runs(*box, compressed)}
    check_agreement("x", [record(SIZES, **fits)], findings)
    assert not findings
    elsewhere = [
        lambda *_: runs(100, 100, 150, 120, compressed),
        lambda x0, y0, x1, y1: runs(x0, y0, x0 + 8, y1, compressed),
        lambda *_: runs(0, 0, 0, 0, compressed),  # it fills nothing
    ]
    for outline in elsewhere:
        findings = Findings()
        check_agreement("x", [record(SIZES, segmentation=outline)], findings)
        (line,) = findings.summary()
        assert line.startswith("outline that does not fit its box: 4 (a.jpg: 'cat' at [10")
    with pytest.raises(InputError, match="seem to be corners"):
        check_agreement("x", [record(CORNERS, **fits)], Findings())


def test_masks_that_cannot_be_read_tell_nothing():
    findings = Findings()
    for counts in ("", "0", "XYZ", "\xe9", runs(1, 1, 9, 9, True)["counts"][:-1]):
        outline = {"size": [200, 200], "counts": counts}
        check_agreement("x", [record(SIZES, segmentation=lambda *_, x=outline: x)], findings)
    assert not findings


def test_box_around_runs():
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 12, 2)
        mask = (rng.random((height, width)) < rng.random() / 2).astype(np.uint8)
        outline = {"size": [int(height), int(width)]}
        outline["counts"] = mask_util.encode(np.asfortranarray(mask))["counts"]
        ys, xs = np.nonzero(mask)
        whole = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0)
        assert _around({"segmentation": outline}) == whole


@pytest.mark.parametrize(
    ("number", "points", "is_odd"),
    [(2, [35, 28, 2, 35, 29, 1], 0), (1, [35, 28, 2, 0, 0, 0], 0), (None, [35, 28, 2], 0),
     (0, [35, 28, 2, 35, 29, 1], 4), (17, [35, 28, 2, 0, 0, 0], 4), (3, [], 0)],
)  # fmt: skip
def test_numbers_of_keypoints(number, points, is_odd):
    fields = {"keypoints": lambda *_: points, "num_keypoints": lambda *_: number}
    findings = Findings()
    check_agreement("x", [record(SIZES, **fields)], findings)
    names = [x.name for x in findings]
    assert len(names) == is_odd
    assert all(x.startswith("num_keypoints that is not the number of labelled") for x in names)
