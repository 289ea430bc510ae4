import pytest
import samplers  # noqa: F401  (registers them)
import torch
from mined_rois import spy_on_sampler
from small_heads import NUM_CLASSES, make_batch, make_heads, train_step

from ohem_d2 import MixedSampler

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
