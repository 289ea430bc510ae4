import math

import pytest
import reference
import samplers  # noqa: F401  (registers them)
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mined_rois import spy_on_sampler
from small_heads import NUM_CLASSES, make_batch, make_heads, train_step

from ohem_d2 import SAMPLERS, Candidates, MixedSampler

BACKGROUND = NUM_CLASSES
SAMPLER = "MODEL.ROI_HEADS.OHEM.SAMPLER"


def step(heads, iteration=0):
    """What is trained on in a step, and the candidates."""
    seen = spy_on_sampler(heads)
    mined, _, _ = train_step(heads, *make_batch(0, [(3, 60), (2, 50)]), iteration=iteration)
    return mined, seen[0][0]


def same(a, b):
    return all(x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor) for x, y in zip(a, b))


@pytest.mark.parametrize("name", ["Capped", "Balanced"])
def test_by_default_they_mine_as_the_package_does(name):
    assert same(step(make_heads(SAMPLER, name))[0], step(make_heads())[0])


@pytest.mark.parametrize(("iteration", "weight"), [(0, 0.0), (450, 1.0), (900, 2.0)])
def test_the_box_loss_weighs_more_and_more(iteration, weight):
    staged = make_heads(SAMPLER, "Staged(max_iter=900)")
    expected = make_heads("MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_BOX_REG", weight)
    mined, candidates = step(staged, iteration)
    assert candidates.iteration == iteration
    assert same(mined, step(expected, iteration)[0])


def test_background_that_costs_too_much_comes_last():
    mined, _ = step(make_heads())
    of_background = [x.ohem_loss_cls[x.gt_classes == BACKGROUND] for x in mined]
    limit = 0.99 * torch.cat(of_background).min().item()

    def above(chosen):
        return [(x.ohem_loss_cls > limit) & (x.gt_classes == BACKGROUND) for x in chosen]

    def foreground(chosen):
        return [int((x.gt_classes != BACKGROUND).sum()) for x in chosen]

    capped, _ = step(make_heads(SAMPLER, f"Capped(max_loss={limit})"))
    assert torch.cat(above(mined)).any()
    assert not torch.cat(above(capped)).any()
    assert all(a >= b for a, b in zip(foreground(capped), foreground(mined)))


@pytest.mark.parametrize(("positive_fraction", "num_fg"), [(0.25, 4), (0.75, 6)])
def test_foreground_is_drawn_only_where_the_hard_examples_hold_too_little(
    positive_fraction, num_fg
):
    opts = "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5
    heads = make_heads(
        SAMPLER, "Balanced", *opts, "MODEL.ROI_HEADS.POSITIVE_FRACTION", positive_fraction
    )
    hard = []
    heads.observers.append(hard.extend)
    trained, candidates = step(heads)

    def foreground(chosen):
        return [int((x.gt_classes < BACKGROUND).sum()) for x in chosen]

    assert [len(x) for x in trained] == [heads.batch_size_per_image] * 2 == [8, 8]
    assert foreground(hard) == [4, 4]
    assert foreground(trained) == [num_fg, num_fg]
    drawn = MixedSampler(positive_fraction=positive_fraction)(candidates, 8)
    assert int((candidates.labels[drawn.indices] < BACKGROUND).sum()) != 2 * num_fg


# ------------------------------------------------------ those of others, on made-up candidates


def make_candidates(seed, numbers, num_objects=3):
    generator = torch.Generator().manual_seed(seed)
    total = sum(numbers)
    corners = 20 * torch.rand(total, 2, generator=generator)
    sizes = 5 + 10 * torch.rand(total, 2, generator=generator)
    return Candidates(
        boxes=torch.cat([corners, corners + sizes], dim=1),
        labels=torch.randint(0, NUM_CLASSES + 1, (total,), generator=generator),
        image_ids=torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers)),
        ious=torch.rand(total, generator=generator),
        objects=torch.randint(0, num_objects, (total,), generator=generator),
        pred_ious=torch.rand(total, generator=generator),
        loss_cls=torch.rand(total, generator=generator),
        loss_box_reg=torch.rand(total, generator=generator),
        num_classes=NUM_CLASSES,
        num_images=len(numbers),
    )


given_candidates = given(
    seed=st.integers(0, 2**31),
    numbers=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    budget=st.integers(1, 12),
)


def images_of(candidates, selection):
    """The RoIs of each image, and those that are chosen of them, each once."""
    chosen = selection.indices.tolist()
    assert len({*chosen}) == len(chosen)
    for image in range(candidates.num_images):
        rois = [i for i, x in enumerate(candidates.image_ids.tolist()) if x == image]
        yield rois, [i for i in chosen if i in rois]


@given_candidates
@settings(max_examples=40, deadline=None)
def test_hard_pool(seed, numbers, budget):
    candidates = make_candidates(seed, numbers)
    sampler = SAMPLERS.get("HardPool")(nms_thresh=1.0, pool_size=1.5)
    losses = candidates.loss_cls + candidates.loss_box_reg
    for rois, chosen in images_of(candidates, sampler(candidates, budget)):
        pool = sorted(rois, key=lambda i: -losses[i])[: round(1.5 * budget)]
        assert len(chosen) == min(budget, len(pool))
        assert {*chosen} <= {*pool}


def test_hard_pool_draws_each_of_the_pool():
    candidates = make_candidates(0, [30])
    sampler = SAMPLERS.get("HardPool")(nms_thresh=1.0)
    drawn = torch.cat([sampler(candidates, 3).indices for _ in range(200)]).bincount(minlength=30)
    assert int((drawn > 0).sum()) == 6
    assert drawn.max() < 2 * drawn[drawn > 0].min()


@given_candidates
@settings(max_examples=40, deadline=None)
def test_in_proportion_fills_the_budget(seed, numbers, budget):
    candidates = make_candidates(seed, numbers)
    candidates.loss_cls = torch.zeros_like(candidates.loss_cls)
    candidates.loss_box_reg[::2] = 0
    sampler = SAMPLERS.get("InProportion")()
    for rois, chosen in images_of(candidates, sampler(candidates, budget)):
        assert len(chosen) == min(budget, len(rois))
        costly = {i for i in rois if candidates.loss_box_reg[i] > 0}
        assert {*chosen} <= costly or costly <= {*chosen}


def test_in_proportion():
    candidates = make_candidates(0, [4])
    candidates.loss_cls = torch.tensor([1.0, 2.0, 3.0, 4.0])
    candidates.loss_box_reg = torch.zeros(4)
    sampler = SAMPLERS.get("InProportion")()
    drawn = torch.cat([sampler(candidates, 1).indices for _ in range(4000)]).bincount(minlength=4)
    torch.testing.assert_close(drawn / 4000, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ["SoftRandom", "SoftMixed"])
def test_soft_sampling(name):
    candidates = make_candidates(1, [30, 20])
    chosen = SAMPLERS.get(name)()(candidates, 8)
    assert len(chosen.indices) > 8
    for i, weight in zip(chosen.indices.tolist(), chosen.weights.tolist()):
        iou = candidates.ious[i].item()
        soft = 0.25 + 0.75 * math.exp(-50 * math.exp(-20 * iou))
        is_background = candidates.labels[i] == NUM_CLASSES
        assert weight == pytest.approx(soft if is_background else 1.0, abs=1e-5)


def rank_by_hand(scores, groups, members):
    """{member: rank}: first the best of each group, best first, then the second ones, and so on."""
    left = {g: sorted((i for i in members if groups[i] == g), key=lambda i: -scores[i])
            for g in {groups[i] for i in members}}  # fmt: skip
    order = []
    while any(left.values()):
        best = [x.pop(0) for x in left.values() if x]
        order += sorted(best, key=lambda i: -scores[i])
    return {i: rank for rank, i in enumerate(order)}


@given_candidates
@settings(max_examples=40, deadline=None)
def test_prime_samples(seed, numbers, budget):
    candidates = make_candidates(seed, numbers)
    labels, boxes = candidates.labels.tolist(), candidates.boxes.tolist()
    selection = SAMPLERS.get("PrimeSamples")()(candidates, budget)
    trained = []
    for rois, chosen in images_of(candidates, selection):
        fg = [i for i in chosen if labels[i] < NUM_CLASSES]
        trained += fg
        all_fg = sum(labels[i] < NUM_CLASSES for i in rois)
        assert len(fg) == min(int(0.25 * budget), all_fg)
        scores = {i: 1 - math.exp(-candidates.loss_cls[i]) for i in rois}
        left = sorted((i for i in rois if labels[i] == NUM_CLASSES), key=lambda i: -scores[i])
        background, clusters = list(left), {}
        while left:
            best = left[0]
            near = [i for i in left if i == best or reference.iou(boxes[i], boxes[best]) > 0.5]
            clusters |= dict.fromkeys(near, best)
            left = [i for i in left if i not in near]
        rank = rank_by_hand(scores, clusters, background)
        expected = sorted(background, key=rank.get)[: budget - len(fg)]
        assert [i for i in chosen if labels[i] == NUM_CLASSES] == expected

    weights = dict(zip(selection.indices.tolist(), selection.weights.tolist()))
    assert all(w == 1 for i, w in weights.items() if labels[i] == NUM_CLASSES)
    by_class = {c: [i for i in trained if labels[i] == c] for c in range(NUM_CLASSES)}
    most = max(map(len, by_class.values()))
    objects = {i: (int(candidates.image_ids[i]), int(candidates.objects[i])) for i in trained}
    expected = {}
    for members in by_class.values():
        rank = rank_by_hand(candidates.pred_ious, objects, members)
        expected |= {i: ((most - r) / most) ** 2 for i, r in rank.items()}
    before = sum(float(candidates.loss_cls[i]) for i in trained)
    after = sum(w * float(candidates.loss_cls[i]) for i, w in expected.items())
    for i, w in expected.items():
        assert weights[i] == pytest.approx(w * before / after, rel=1e-3)


@pytest.mark.parametrize(
    "name", ["HardPool", "InProportion", "SoftRandom", "SoftMixed", "PrimeSamples", "IoUBalanced"]
)
def test_a_step_with_each(name):
    mined, _ = step(make_heads(SAMPLER, name, "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5))
    assert [len(x) for x in mined] == [8, 8]
