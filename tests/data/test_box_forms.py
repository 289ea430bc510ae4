"""Boxes with x and y exchanged, and boxes for images of another size."""

import numpy as np
import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.box_forms import CORNERS, MIDDLES, SIZES, check_form, check_scale
from ohem_d2.data.findings import Findings
from ohem_d2.errors import InputError

LANDSCAPE, PORTRAIT = (320, 240), (240, 320)


def records(boxes, mode=BoxMode.XYXY_ABS):
    """An image for each box: its size, and the box."""
    return [
        {
            "file_name": f"{i}.jpg",
            "width": width,
            "height": height,
            "annotations": [{"bbox": box, "bbox_mode": mode, "category_id": "cat"}],
        }
        for i, ((width, height), box) in enumerate(boxes)
    ]


RIGHT = [
    (LANDSCAPE, [200, 30, 310, 130]),
    (LANDSCAPE, [20, 30, 90, 130]),
    (LANDSCAPE, [150, 60, 250, 200]),
    (PORTRAIT, [20, 250, 100, 310]),
    (PORTRAIT, [150, 20, 220, 110]),
    (LANDSCAPE, [30, 90, 110, 190]),
    (LANDSCAPE, [10, 10, 30, 40]),
    (PORTRAIT, [10, 10, 30, 40]),
]


def sizes(box):
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def exchanged(box):
    return [box[1], box[0], box[3], box[2]]


def found(boxes, numbers, mode=BoxMode.XYXY_ABS):
    findings = Findings()
    check_form("x", records(boxes, mode), numbers, findings)
    return findings


@pytest.mark.parametrize("numbers", [CORNERS, SIZES, ""])
def test_x_and_y_exchanged(numbers):
    mode = BoxMode.XYWH_ABS if numbers == SIZES else BoxMode.XYXY_ABS
    turn = sizes if numbers == SIZES else list
    assert not found([(size, turn(box)) for size, box in RIGHT], numbers, mode)
    wrong = [(size, exchanged(turn(box))) for size, box in RIGHT]
    (finding,) = found(wrong, numbers, mode)
    assert finding.name.endswith("where all would fit with x and y exchanged")
    assert finding.words.startswith("2 of 8, such as [30, 200, ")
    with pytest.raises(InputError, match=r"'x' seem to be .*with x and y exchanged.* 4 of 10 lie"):
        found([*wrong, *[wrong[0]] * 2], numbers, mode)
    # One may be a slip, and so may be two that do not fit in either way.
    assert not found(wrong[1:], numbers, mode)[1:]
    assert not found([*wrong[1:3], *wrong[4:]], numbers, mode)
    assert not found([*wrong, (LANDSCAPE, turn([300, 200, 400, 300]))], numbers, mode)


def test_corners_of_tensorflow_in_the_place_of_sizes():
    wrong = [(size, exchanged(box)) for size, box in RIGHT]
    with pytest.raises(InputError, match=r"seem to be corners, .* with x and y exchanged"):
        found(wrong, SIZES, BoxMode.XYWH_ABS)


def test_parts_of_the_sides_fit_in_either_order():
    wrong = [(size, exchanged(box)) for size, box in RIGHT]
    assert not found(wrong, MIDDLES)


def spread(number, width, height, images=(1000, 750)):
    """Boxes all over a part of the images."""
    rng = np.random.default_rng(0)
    corners = [np.sort(rng.uniform(0, 1, (2, 2)), 0) for _ in range(number)]
    boxes = [[*(c * (width, height)).ravel().tolist()] for c in corners]
    boxes[0], boxes[1] = [0, 0, 0.1 * width, height], [0.5 * width, 0.5 * height, width, height]
    return [(images, box) for box in boxes]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (spread(30, 500, 375), "all boxes end within half of the width and of the height"),
        (spread(30, 250, 187), "all boxes end within a quarter of the width"),
        (spread(30, 640, 640, (1600, 1200)), "within the first 640 pixels of larger images"),
        (spread(30, 1000, 1000, (4000, 3000)), "as if they were those of images of 1000 x 1000"),
        (spread(8, 96, 97, (320, 240)), "as if they were percents of width and height"),
        (spread(30, 1000, 750), None),
        (spread(30, 400, 375), None),  # the left of the image, and not as much of it
        (spread(30, 500, 750), None),
        (spread(19, 500, 375), None),  # too few to tell
        (spread(8, 60, 60, (320, 240)), None),
        (spread(3, 96, 97, (320, 240)), None),
        (spread(30, 640, 640, (900, 700)), None),
    ],
)
def test_boxes_for_smaller_images(boxes, words):
    findings = Findings()
    check_scale("x", records(boxes), findings)
    assert [x.file for x in findings] == ["x"] * (words is not None)
    assert all(words in x.name for x in findings)


def test_no_boxes():
    findings = Findings()
    check_scale("x", [{"file_name": "a.jpg", "width": 9, "height": 9, "annotations": []}], findings)
    assert not findings


def test_height_in_front_of_width():
    def turned(box):
        x, y, width, height = sizes(box)
        return [x, y, height, width]

    wrong = [(size, turned(box)) for size, box in [*RIGHT, *[(LANDSCAPE, [20, 200, 300, 230])] * 2]]
    (finding,) = found(wrong, SIZES, BoxMode.XYWH_ABS)
    assert finding.name.endswith("where all would fit as [x, y, height, width]")
    assert finding.words.startswith("2 of 10, such as ")
    wrong += [(LANDSCAPE, turned([20, y, 300, y + 30])) for y in (150, 170, 190, 210)]
    with pytest.raises(InputError, match=r"seem to be \[x, y, height, width\]: read as"):
        found(wrong, SIZES, BoxMode.XYWH_ABS)
