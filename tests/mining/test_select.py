import doctest
import math
from unittest import mock

import pytest
import reference
import torch
from detectron2.structures import RotatedBoxes, pairwise_iou_rotated
from hypothesis import given, settings
from hypothesis import strategies as st

from ohem_d2 import select_hard_examples
from ohem_d2.mining import select

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
NUM_CLASSES = 3

# Few different values, so that ties and equal boxes are common; whole and odd coordinates.
grid = st.integers(0, 300 * 1024).map(lambda n: n / 1024)
coordinate = st.one_of(st.integers(0, 20).map(float), grid)
size = st.one_of(st.integers(0, 20).map(float), grid)
loss = st.one_of(st.sampled_from([0.0, 0.5, 1.0, math.inf, math.nan]), st.floats(0, 100, width=16))


@st.composite
def rois(draw, rotated=False):
    box = (
        st.tuples(coordinate, coordinate, size, size, st.sampled_from([-90.0, 0.0, 30.0, 45.0]))
        if rotated
        else st.tuples(coordinate, coordinate, size, size).map(
            lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
        )
    )
    num_images = draw(st.integers(1, 4))
    return num_images, draw(
        st.lists(
            st.tuples(loss, box, st.integers(0, NUM_CLASSES), st.integers(0, num_images - 1)),
            max_size=40,
        )
    )


settings_of_mining = st.fixed_dictionaries(
    {
        "num_samples": st.integers(1, 12),
        "scope": st.sampled_from(["image", "batch"]),
        "max_foreground_fraction": st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        "nms_thresh": st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    }
)


def run(rows, device="cpu", dtype=torch.float32, **kwargs):
    losses, boxes, labels, image_ids = zip(*rows) if rows else ((), (), (), ())
    boxes = torch.tensor(boxes, device=device, dtype=torch.float32)
    return select_hard_examples(
        torch.tensor(losses, device=device, dtype=dtype),
        boxes if rows else boxes.reshape(0, 4),
        torch.tensor(labels, device=device, dtype=torch.int64),
        torch.tensor(image_ids, device=device, dtype=torch.int64),
        num_classes=NUM_CLASSES,
        **kwargs,
    )


def expected(rows, **kwargs):
    columns = [list(c) for c in zip(*rows)] if rows else [[], [], [], []]
    return reference.select(*columns, num_classes=NUM_CLASSES, **kwargs)


def clear_of_threshold(rows, nms_thresh):
    """No two boxes overlap by so nearly the threshold that rounding decides."""
    boxes = [row[1] for row in rows]
    return all(
        abs(reference.iou(a, b) - nms_thresh) > 1e-6 or reference.iou(a, b) == nms_thresh == 0
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@settings(max_examples=200, deadline=None)
@given(rois(), settings_of_mining, st.booleans())
def test_equals_reference(device, dtype, drawn, how, name_num_images):
    num_images, rows = drawn
    if name_num_images:
        how = {**how, "num_images": num_images}
    selected = run(rows, device, dtype, **how)
    assert selected.dtype == torch.int64
    assert selected.device.type == device
    assert selected.tolist() == expected(rows, **how)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=200, deadline=None)
@given(rois(), settings_of_mining)
def test_equals_reference_where_the_costliest_are_looked_at_first(device, drawn, how):
    """As among the anchors of an RPN."""
    few = {"_AT_FIRST": 1, "_AT_ONCE_ON_GPU": 0}
    with mock.patch.multiple(select, **few):
        _, rows = drawn
        assert run(rows, device, **how).tolist() == expected(rows, **how)


def test_duplicates_do_not_hide_the_rest():
    """The hundred costliest are duplicates of one, so that more than those are looked at."""
    rows = [(200.0 - i, A, BG, 0) for i in range(100)]
    rows += [(50.0 - i, (20.0 * i, 50.0, 20.0 * i + 9, 59.0), BG, 0) for i in range(9)]
    assert run(rows, num_samples=3).tolist() == [0, 100, 101]
    assert run(rows, num_samples=3, max_foreground_fraction=0.5).tolist() == [0, 100, 101]


@settings(max_examples=100, deadline=None)
@given(rois(rotated=True), settings_of_mining)
def test_equals_reference_on_rotated_boxes(drawn, how):
    _, rows = drawn
    if clear_of_threshold(rows, how["nms_thresh"]):
        assert run(rows, **how).tolist() == expected(rows, **how)


def test_reference_knows_rotated_iou():
    a, b = (10.0, 10.0, 8.0, 4.0, 0.0), (11.0, 10.0, 8.0, 4.0, 30.0)
    measured = pairwise_iou_rotated(RotatedBoxes([a]), RotatedBoxes([b])).item()
    assert reference.iou(a, b) == pytest.approx(measured, abs=1e-5)
    # A square turned by 45 degrees in one of the same size leaves a regular octagon.
    octagon = 8 * (math.sqrt(2) - 1)
    square, turned = (0.0, 0.0, 2.0, 2.0, 0.0), (0.0, 0.0, 2.0, 2.0, 45.0)
    assert reference.iou(square, turned) == pytest.approx(octagon / (8 - octagon))


@settings(max_examples=50, deadline=None)
@given(rois(), st.integers(0, 10**6))
def test_many_groups_do_not_blur_the_boxes(drawn, label):
    """Far label numbers move the boxes far apart, which must not change which ones overlap."""
    _, rows = drawn
    near = run(rows, num_samples=40, nms_thresh=0.5)
    far = select_hard_examples(
        torch.tensor([r[0] for r in rows]),
        torch.tensor([r[1] for r in rows]).reshape(-1, 4),
        torch.tensor([r[2] + label for r in rows], dtype=torch.int64),
        torch.tensor([r[3] for r in rows], dtype=torch.int64),
        num_samples=40,
        num_classes=label + NUM_CLASSES,
        nms_thresh=0.5,
    )
    assert near.tolist() == far.tolist()


def test_the_example_of_the_docstring():
    assert doctest.testmod(select).attempted > 0
    assert doctest.testmod(select).failed == 0


FG, BG = 0, NUM_CLASSES
A, A_TOO, FAR, FARTHER = (
    (0.0, 0.0, 10.0, 10.0),
    (0.0, 0.0, 10.0, 9.0),
    (50.0, 50.0, 60.0, 60.0),
    (90.0, 90.0, 99.0, 99.0),
)


def test_worked_suppression_by_image_and_label():
    # 1 is a duplicate of 0 (IoU 0.9). 2 has another label, 3 lies in another image: both stay.
    rows = [(0.9, A, BG, 0), (0.8, A_TOO, BG, 0), (0.7, A, FG, 0), (0.6, A, BG, 1)]
    assert run(rows, num_samples=9).tolist() == [0, 2, 3]
    assert run(rows, num_samples=9, nms_thresh=1).tolist() == [0, 1, 2, 3]
    # The threshold itself still passes: 9 / 10 is not above 0.9.
    assert run(rows, num_samples=9, nms_thresh=0.9).tolist() == [0, 1, 2, 3]


def test_worked_suppressed_rois_suppress_nobody():
    # 0 drops 1; 2 overlaps 1 by 2/3, but 0 only by 1/3, so with a threshold of 0.5 it stays.
    rows = [
        (3.0, (0.0, 0.0, 12.0, 10.0), BG, 0),
        (2.0, (3.0, 0.0, 15.0, 10.0), BG, 0),
        (1.0, (6.0, 0.0, 18.0, 10.0), BG, 0),
    ]
    assert run(rows, num_samples=9, nms_thresh=0.5).tolist() == [0, 2]


def test_worked_scope():
    rows = [(5.0, A, BG, 0), (4.0, FAR, BG, 0), (3.0, FARTHER, BG, 0), (1.0, A, BG, 1)]
    assert run(rows, num_samples=1).tolist() == [0, 3]
    assert run(rows, num_samples=1, scope="batch").tolist() == [0, 1]
    assert run(rows, num_samples=1, scope="batch", num_images=3).tolist() == [0, 1, 2]


def test_worked_max_foreground_fraction():
    places = [(20.0 * i, 0.0, 20.0 * i + 9, 9.0) for i in range(8)]
    labels = [FG, FG, FG, BG, BG, BG, BG, BG]
    rows = [(8.0 - i, places[i], labels[i], 0) for i in range(8)]  # all foreground is costlier
    assert run(rows, num_samples=4).tolist() == [0, 1, 2, 3]
    assert run(rows, num_samples=4, max_foreground_fraction=0.25).tolist() == [0, 3, 4, 5]
    # What foreground leaves unused goes to background, never the other way round.
    assert run(rows[2:], num_samples=4, max_foreground_fraction=0.5).tolist() == [0, 1, 2, 3]
    assert run(rows[:4], num_samples=4, max_foreground_fraction=0.5).tolist() == [0, 1, 3]


def test_broken_losses_come_first_and_stay():
    rows = [(9.0, A, BG, 0), (math.nan, A, BG, 0), (math.inf, A, BG, 0), (-math.inf, A, BG, 0)]
    assert run(rows, num_samples=3).tolist() == [1, 2, 3]


def test_broken_boxes_do_not_disturb_the_others():
    rows = [(9.0, A, BG, 0), (8.0, A_TOO, BG, 0), (math.nan, (0.0, math.nan, math.inf, 1.0), FG, 0)]
    assert run(rows, num_samples=9).tolist() == [2, 0]


def test_ties_go_by_index():
    rows = [(1.0, (20.0 * i, 0.0, 20.0 * i + 9, 9.0), BG, 0) for i in range(40)]
    assert run(rows, num_samples=7).tolist() == list(range(7))
    assert run([(1.0, A, BG, 0)] * 5, num_samples=7).tolist() == [0]


def test_nothing_to_select():
    assert run([], num_samples=4).tolist() == []
    assert (
        run([], num_samples=4, num_images=2, scope="batch", max_foreground_fraction=0.5).numel()
        == 0
    )


def test_does_not_change_its_arguments_or_keep_their_graph():
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    boxes = torch.tensor([A, FAR])
    before = boxes.clone()
    labels = torch.tensor([1, 2], dtype=torch.int32)
    selected = select_hard_examples(
        losses * 1, boxes, labels, labels * 0, num_samples=1, num_classes=NUM_CLASSES
    )
    assert selected.tolist() == [1]
    assert boxes.equal(before)


@pytest.mark.gpu
def test_same_on_every_device():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(4000, 2, generator=generator) * 500
    boxes = torch.cat([corners, corners + torch.rand(4000, 2, generator=generator) * 200], dim=1)
    losses = (torch.rand(4000, generator=generator) * 20).round()
    labels = torch.randint(0, 81, (4000,), generator=generator)
    image_ids = torch.randint(0, 2, (4000,), generator=generator)
    on_cpu, on_gpu = (
        select_hard_examples(
            *(x.to(device) for x in (losses, boxes, labels, image_ids)),
            num_samples=512,
            num_classes=80,
        ).tolist()
        for device in ("cpu", "cuda")
    )
    assert on_cpu == on_gpu


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"losses": torch.ones(2, 1)}, r"losses is \(2, 1\) of torch.float32, expected a vector"),
        ({"losses": torch.ones(2, dtype=torch.int64)}, "losses is .*int64, expected .*floating"),
        ({"boxes": torch.ones(2, 3)}, r"boxes is \(2, 3\).*, expected \(2, 4\) or \(2, 5\)"),
        ({"boxes": torch.ones(1, 4)}, r"boxes is \(1, 4\)"),
        ({"labels": torch.tensor([0, 4])}, r"labels spans \[0, 4\], expected \[0, 4\)"),
        ({"labels": torch.tensor([-1, 0])}, r"labels spans \[-1, 0\]"),
        ({"labels": torch.ones(2)}, "labels is .*, expected .* integers"),
        ({"image_ids": torch.tensor([0, 2]), "num_images": 2}, r"image_ids spans \[0, 2\]"),
        ({"image_ids": torch.tensor([-1, 2])}, r"image_ids spans .*the number of images"),
        ({"num_samples": 0}, "num_samples is 0, expected 1 or more"),
        ({"nms_thresh": math.nan}, "nms_thresh is nan"),
        ({"nms_thresh": -0.1}, "nms_thresh is -0.1, expected 0 or more"),
        ({"scope": "all"}, "scope is 'all', expected 'image' or 'batch'"),
        (
            {"max_foreground_fraction": 1.5},
            r"max_foreground_fraction is 1.5, expected None or \[0, 1\]",
        ),
    ],
)
def test_wrong_arguments_are_named(changed, message):
    arguments = {
        "losses": torch.ones(2),
        "boxes": torch.tensor([A, FAR]),
        "labels": torch.tensor([FG, BG]),
        "image_ids": torch.tensor([0, 0]),
        "num_samples": 2,
        "num_classes": NUM_CLASSES,
        **changed,
    }
    with pytest.raises(ValueError, match=message):
        select_hard_examples(**arguments)
