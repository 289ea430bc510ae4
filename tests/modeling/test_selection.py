"""Which RoIs the heads train on: the hard examples, those drawn beside them, and the warm-up."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from mined_rois import (
    assert_mined,
    copy_with_budget,
    extras,
    make_family,
    mine,
    mine_slowly,
    set_options,
    watch,
)
from small_heads import FAMILIES, NUM_CLASSES, make_batch, make_heads, rotated, train_step

from ohem_d2 import Selection

images = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=images,
    how=st.fixed_dictionaries(
        {
            "nms_thresh": st.sampled_from([0.3, 0.7, 1.0]),
            "scope": st.sampled_from(["image", "batch"]),
            "max_foreground_fraction": st.sampled_from([None, 0.25]),
        }
    ),
    bg_iou_lo=st.sampled_from([0.0, 0.1]),
    weights=st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.0)]),
)
def test_trains_on_what_the_reference_selects(seed, sizes, how, bg_iou_lo, weights):
    options = {
        **how,
        "bg_iou_lo": bg_iou_lo,
        "loss_weight_cls": weights[0],
        "loss_weight_box_reg": weights[1],
    }
    opts = [x for k, v in options.items() for x in (f"MODEL.ROI_HEADS.OHEM.{k.upper()}", v)]
    heads = make_heads(*opts, seed=seed % 7)
    features, proposals, targets = make_batch(seed, sizes)
    mined, losses, _ = train_step(heads, features, proposals, targets)
    expected = mine_slowly(
        heads, features, proposals, targets, bg_iou_lo, weights[0], weights[1], **how
    )
    assert_mined(mined, expected, targets)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(6))
def test_every_head_trains_on_what_the_reference_selects(name, seed):
    sizes = [(3, 40), (0, 10), (2, 25)]
    heads, _, batch = make_family(name, seed, sizes, **extras(name))
    seen = watch(heads)
    _, losses, _ = train_step(heads, *batch)
    (mined,) = seen
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_what_is_not_hard_is_drawn_as_detectron2_does(name, scope):
    sizes = [(3, 40), (0, 3), (2, 25)]
    heads, _, batch = make_family(name, 0, sizes, **extras(name))
    budget, num_drawn = heads.batch_size_per_image, 6
    set_options(heads, hard_fraction=0.25, scope=scope)
    assert round(0.25 * budget) == budget - num_drawn == 2
    heads.batch_size_per_image = budget - num_drawn
    expected = mine_slowly(heads, *batch, scope=scope)
    everything = mine_slowly(copy_with_budget(heads, 1000), *batch, nms_thresh=1.0)
    heads.batch_size_per_image = budget
    seen, mined = watch(heads), []
    heads.observers.append(mined.append)
    _, losses, logged = train_step(heads, *batch)
    assert all(loss.isfinite() for loss in losses.values())
    train_step(heads, *batch)
    first, second = seen
    of_all = []
    for x, rois in zip(mined[0], expected):  # observers see the hard examples
        assert x.gt_classes.tolist() == [label for _, label, _ in rois]
    hard = torch.cat([x.ohem_loss_cls + x.ohem_loss_box_reg for x in mined[0]])
    assert logged["ohem/cost_of_selected"] == pytest.approx(hard.mean().item(), rel=1e-5)
    for x, y, rois, all_rois, targets in zip(first, second, expected, everything, batch[2]):
        assert_mined([x[: len(rois)]], [rois], [targets])
        left = [label for _, label, _ in all_rois]
        for _, label, _ in rois:
            left.remove(label)
        num_fg = sum(label < NUM_CLASSES for label in left)
        fg = min(int(num_drawn * heads.positive_fraction), num_fg)
        bg = min(num_drawn - fg, len(left) - num_fg)
        drawn = x.gt_classes[len(rois) :]
        assert int((drawn < NUM_CLASSES).sum()) == fg
        assert len(drawn) == fg + bg
        assert len({tuple(b) for b in x.proposal_boxes.tensor.tolist()}) == len(x)
        known = {tuple(round(v, 3) for v in b) for b, _, _ in all_rois}
        assert {tuple(round(v, 3) for v in b) for b in x.proposal_boxes.tensor.tolist()} <= known
        of_all.append(x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor))
    assert not all(of_all)  # another step draws others
    number = logged["roi_head/num_fg_samples"] + logged["roi_head/num_bg_samples"]
    assert number == pytest.approx(sum(map(len, first)) / len(first))
    mined = mine(heads, *batch)  # to mine without training draws nothing
    all_hard = mine_slowly(heads, *batch, scope=scope)
    for x, rois in zip(mined, all_hard):
        assert x.gt_classes.tolist() == [label for _, label, _ in rois]


@pytest.mark.parametrize(
    ("budget", "fraction", "hard"), [(1, 0.5, 1), (8, 0.01, 1), (7, 0.5, 4), (8, 0.99, 8)]
)
def test_the_budget_is_shared_out(budget, fraction, hard):
    """To the next whole number, and at least one hard example."""
    opts = "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", fraction
    heads = make_heads(*opts, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", budget)
    mined = []
    heads.observers.append(mined.extend)
    chosen, _, _ = train_step(heads, *make_batch(0, [(3, 40), (0, 30)]))
    assert [len(x) for x in mined] == [hard, hard]
    assert [len(x) for x in chosen] == [budget, budget]


def test_every_roi_that_is_not_hard_is_drawn_as_often():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5)
    heads.train()
    features, proposals, targets = make_batch(0, [(0, 24)])  # all background
    with EventStorage():
        labelled, candidates = heads.label_and_read_proposals(features, proposals, targets)
        labelled[0].number = torch.arange(24)
        times, rounds = torch.zeros(24), 4000
        torch.manual_seed(0)
        for _ in range(rounds):
            (chosen,) = heads._sample(labelled, candidates)
            times[chosen.number] += 1
    is_hard = times == rounds
    assert int(is_hard.sum()) == 4
    # 4 of the other 20: 800 times each, with a standard deviation of 25.
    assert (times[~is_hard] - 800).abs().max() < 130


def test_without_box_loss_the_true_class_decides():
    heads = make_heads(
        "MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_BOX_REG", 0.0, "MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0
    )
    mined, _, _ = train_step(heads, *make_batch(9, [(3, 50)]))
    probability = (-mined[0].ohem_loss_cls).exp()
    assert probability.tolist() == sorted(probability.tolist())


START_ITER = "MODEL.ROI_HEADS.OHEM.START_ITER"


@pytest.mark.parametrize(
    ("name", "stages"),
    [*((name, (0, 1, 2)) for name in FAMILIES), ("OHEMCascadeROIHeads", (1,))],
)
def test_during_the_warm_up_rois_are_sampled_as_by_the_extended_head(name, stages):
    opts = []
    if name == "OHEMCascadeROIHeads":
        opts = ["MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", stages]
    batch = make_batch(0, [(3, 60), (0, 20), (2, 50)])
    if name == "OHEMRROIHeads":
        batch = rotated(batch, 0)
    heads = make_heads(START_ITER, 5, *opts, name=name)
    seen = []
    heads.observers.append(seen.extend)
    plain, mining = make_heads(name=FAMILIES[name][0]), make_heads(*opts, name=name)
    for iteration, other in ((0, plain), (4, plain), (5, mining), (6, mining)):
        of_both = []
        for h in (heads, other):
            torch.manual_seed(iteration)
            h.train()
            with EventStorage(iteration) as storage:
                of_both.append((h(None, *batch)[1], storage.latest()))
        assert of_both[0] == of_both[1]
        assert bool(seen) == (other is mining)


def test_what_is_no_step_does_not_end_the_warm_up_nor_begin_it_again():
    batch = make_batch(0, [(3, 60)])
    heads, plain, mining = (
        make_heads(START_ITER, 5),
        make_heads(name="StandardROIHeads"),
        make_heads(),
    )
    for iteration, other in ((4, plain), (5, mining)):
        with EventStorage(iteration):
            heads.train()(None, *batch)
        of_both = []
        for h in (heads, other):
            torch.manual_seed(0)
            # As PreciseBN calls it, whose storage begins at 0; and a validation, at any number.
            with torch.no_grad(), EventStorage(9 - iteration):
                of_both.append(h.train()(None, *batch)[1])
        assert of_both[0] == of_both[1]
    heads.eval()(None, *batch[:2])  # where no events are stored


def test_the_tools_mine_with_a_warm_up_too():
    batch = make_batch(0, [(3, 60)])
    heads = make_heads(START_ITER, 5)
    train_step(heads, *batch)
    mined = []
    for h in (heads, make_heads()):
        mined += mine(h, *batch)
    assert mined[0].proposal_boxes.tensor.equal(mined[1].proposal_boxes.tensor)


@pytest.mark.parametrize(
    ("indices", "numbers"),
    [([0, 0, 0, 41], [3, 1]), ([5] * 20, [20, 0]), ([50, 3], [1, 1]), ([], [0, 0])],
)
def test_a_sampler_may_repeat_rois_and_give_images_different_numbers(indices, numbers):
    """As docs/write_a_sampler.md says: a RoI that is chosen twice counts twice."""
    heads, seen = make_heads(), []

    def sampler(rois, num_samples):
        seen.append((rois.loss_cls + rois.loss_box_reg)[indices])
        return Selection(torch.tensor(indices, dtype=torch.int64))

    heads.sampler = sampler
    trained, losses, _ = train_step(heads, *make_batch(0, [(3, 38), (2, 20)]))
    assert [len(x) for x in trained] == numbers
    expected = seen[0].mean().item() if indices else 0.0
    assert sum(losses.values()).item() == pytest.approx(expected, rel=1e-5)
