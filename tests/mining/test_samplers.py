import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ohem_d2 import Candidates, MixedSampler, OHEMSampler, RandomSampler, Selection
from ohem_d2.errors import InputError
from ohem_d2.mining.candidates import check_selection
from ohem_d2.mining.samplers import draw, rois_by_image

NUM_CLASSES = BACKGROUND = 3


def make_candidates(seed, numbers, **fields):
    """Random RoIs, so many of each image, in no order."""
    generator = torch.Generator().manual_seed(seed)
    image_ids = torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers))
    total = len(image_ids)
    image_ids = image_ids[torch.randperm(total, generator=generator)]
    corners = torch.randint(0, 30, (total, 2), generator=generator).float()
    sides = torch.randint(5, 25, (total, 2), generator=generator).float()
    return Candidates(
        boxes=torch.cat([corners, corners + sides], dim=1),
        labels=torch.randint(0, NUM_CLASSES + 1, (total,), generator=generator),
        image_ids=image_ids,
        loss_cls=torch.rand(total, generator=generator),
        loss_box_reg=torch.rand(total, generator=generator),
        num_classes=NUM_CLASSES,
        num_images=len(numbers),
        **fields,
    )


def select_slowly(rois, cls=1.0, box=1.0, **how):
    costs = [cls * a + box * b for a, b in zip(rois.loss_cls.tolist(), rois.loss_box_reg.tolist())]
    return reference.select(
        costs,
        rois.boxes.tolist(),
        rois.labels.tolist(),
        rois.image_ids.tolist(),
        num_classes=rois.num_classes,
        num_images=rois.num_images,
        **how,
    )


numbers_of_images = st.lists(st.integers(0, 20), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    numbers=numbers_of_images,
    how=st.fixed_dictionaries(
        {
            "nms_thresh": st.sampled_from([0.3, 0.7, 1.0]),
            "scope": st.sampled_from(["image", "batch"]),
            "max_foreground_fraction": st.sampled_from([None, 0.25]),
        }
    ),
    weights=st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.5, 2.0)]),
    budget=st.integers(1, 9),
    hard_fraction=st.sampled_from([0.2, 0.5, 1.0]),
)
def test_hard_examples_are_those_of_the_reference(
    seed, numbers, how, weights, budget, hard_fraction
):
    rois = make_candidates(seed, numbers)
    sampler_settings = {**how, "loss_weight_cls": weights[0], "loss_weight_box_reg": weights[1]}
    selection = OHEMSampler(**sampler_settings)(rois, budget)
    assert selection.indices.tolist() == select_slowly(rois, *weights, num_samples=budget, **how)
    assert selection.weights is None
    assert selection.is_hard is None  # all of them

    mixed = MixedSampler(**sampler_settings, hard_fraction=hard_fraction)(rois, budget)
    number = max(1, math.floor(hard_fraction * budget + 0.5))
    expected = select_slowly(rois, *weights, num_samples=number, **how)
    assert mixed.indices[mixed.is_hard].tolist() == expected
    drawn = mixed.indices[~mixed.is_hard].tolist()
    assert len({*expected, *drawn}) == len(expected) + len(drawn)
    assert_ratio(rois, drawn, expected, budget - number, 0.25)


def assert_ratio(rois, drawn, taken, number, positive_fraction):
    """Of each image as many are drawn as Detectron2 would, foreground and background."""
    for image in range(rois.num_images):
        left = [
            i for i in (rois.image_ids == image).nonzero()[:, 0].tolist() if i not in set(taken)
        ]
        is_fg = rois.labels < BACKGROUND
        num_fg = min(int(number * positive_fraction), sum(bool(is_fg[i]) for i in left))
        num_bg = min(number - num_fg, sum(not is_fg[i] for i in left))
        of_image = [i for i in drawn if rois.image_ids[i] == image]
        assert [bool(is_fg[i]) for i in of_image] == [True] * num_fg + [False] * num_bg


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    numbers=numbers_of_images,
    budget=st.integers(1, 9),
    fraction=st.sampled_from([0.0, 0.25, 1.0]),
)
def test_random_sampling_keeps_the_ratio(seed, numbers, budget, fraction):
    rois = make_candidates(seed, numbers)
    selection = RandomSampler(positive_fraction=fraction)(rois, budget)
    assert not selection.is_hard.any()
    assert len(selection.is_hard) == len(selection.indices)
    assert len(set(selection.indices.tolist())) == len(selection.indices)
    assert_ratio(rois, selection.indices.tolist(), [], budget, fraction)


def test_every_roi_is_drawn_as_often():
    rois = make_candidates(0, [12])
    rois.labels.fill_(BACKGROUND)
    times = torch.zeros(12)
    torch.manual_seed(0)
    for _ in range(3000):
        times[draw(rois, 3, 0.25, without=torch.tensor([5, 7]))] += 1
    assert times[[5, 7]].tolist() == [0, 0]
    left = times[times > 0]  # 3 of 10: 900 times each, with a standard deviation of 25
    assert len(left) == 10
    assert (left - 900).abs().max() < 130


def test_the_rois_of_each_image():
    rois = make_candidates(1, [4, 0, 3])
    of_images = rois_by_image(rois)
    assert [len(x) for x in of_images] == [4, 0, 3]
    for image, indices in enumerate(of_images):
        assert indices.tolist() == (rois.image_ids == image).nonzero()[:, 0].tolist()


def test_what_candidates_have_not_is_named():
    rois = make_candidates(0, [3], objectness=torch.zeros(3))
    assert rois.objectness.tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="the sampler reads pred_boxes, which these candidates"):
        rois.pred_boxes  # noqa: B018
    assert len(rois) == 3


def test_what_is_costly_is_computed_once_and_only_if_read():
    calls = []

    def ious():
        calls.append(1)
        return torch.ones(3)

    rois = make_candidates(0, [3], ious=ious)
    assert not calls
    assert rois.ious is rois.ious
    assert calls == [1]


def test_the_number_of_images_is_known():
    one = torch.tensor([0.0])
    fields = {"boxes": torch.zeros(1, 4), "loss_cls": one, "loss_box_reg": one, "num_classes": 2}
    rois = Candidates(labels=torch.tensor([1]), image_ids=torch.tensor([4]), **fields)
    assert rois.num_images == 5


def two(dtype=torch.int64):
    return torch.tensor([0, 1], dtype=dtype)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (two(), "the sampler Mine returned a Tensor, expected a Selection"),
        (Selection(two(torch.int32)), r"indices \(2,\) of torch.int32, expected a vector of int64"),
        (Selection(two()[:, None]), r"indices \(2, 1\) of torch.int64"),
        (Selection(torch.tensor([0, 3])), r"indices in \[0, 3\], expected them in \[0, 3\)"),
        (Selection(torch.tensor([-1])), r"indices in \[-1, -1\]"),
        (Selection(two(), two()), r"weights \(2,\) of torch.int64, expected \(2,\) of a float"),
        (Selection(two(), torch.ones(3)), r"weights \(3,\) of torch.float32, expected \(2,\)"),
        (Selection(two().numpy()), r"indices of ndarray, expected a vector of int64"),
        (Selection(None), r"indices of NoneType, expected a vector of int64"),
        (Selection(two(), [1.0, 1.0]), r"weights of list, expected \(2,\) of a float type"),
        (Selection(two(), torch.tensor([1.0, -0.5])), r"weights in \[-0.5, 1\], expected finite v"),
        (Selection(two(), torch.tensor([1.0, torch.nan])), "expected finite values from 0 to 1e"),
        (Selection(two(), torch.tensor([1.0, 1e38])), r"weights in \[1, 1e\+38\], expected finite"),
        (Selection(two(), is_hard=two()), r"is_hard \(2,\) of torch.int64, expected \(2,\) of"),
    ],
)
def test_a_selection_that_cannot_be_trained_on(selection, message):
    class Mine:
        pass

    with pytest.raises(InputError, match=message):
        check_selection(selection, make_candidates(0, [3]), Mine())


def test_a_selection_that_can_be_trained_on():
    rois = make_candidates(0, [3])
    for selection in (
        Selection(two()),
        Selection(two()[:0], torch.zeros(0)),
        Selection(two(), torch.zeros(2), torch.tensor([True, False])),
    ):
        assert check_selection(selection, rois, "mine") is selection
