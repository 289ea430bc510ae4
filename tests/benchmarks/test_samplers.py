import pytest
import torch
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.utils.events import EventStorage
from samplers import add_study_config
from small_heads import NUM_CLASSES, SHAPES, make_batch, make_cfg, make_heads, train_step

from ohem_d2.config import OHEMOptions

BACKGROUND = NUM_CLASSES


def study_heads(**study):
    """The weights of `make_heads`."""
    cfg = make_cfg("MODEL.ROI_HEADS.NAME", "StudyROIHeads")
    add_study_config(cfg)
    for key, value in study.items():
        cfg.STUDY[key] = value
    heads = build_roi_heads(cfg, SHAPES)
    heads.load_state_dict(make_heads().state_dict())
    return heads


def step(heads, iteration):
    heads.train()
    with EventStorage(iteration):
        return heads(None, *make_batch(0, [(3, 60), (2, 50)]))[0]


def same(a, b):
    return all(x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor) for x, y in zip(a, b))


def test_by_default_it_mines_as_the_package_does():
    mined, _, _ = train_step(make_heads(), *make_batch(0, [(3, 60), (2, 50)]))
    assert same(step(study_heads(), 0), mined)


@pytest.mark.parametrize(("iteration", "weight"), [(0, 0.0), (45000, 1.0), (90000, 2.0)])
def test_the_box_loss_weighs_more_and_more(iteration, weight):
    heads = study_heads(STAGED=True)
    assert heads.max_iter == 40000
    heads.max_iter = 90000
    expected = make_heads("MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_BOX_REG", weight)
    assert same(step(heads, iteration), step(expected, iteration))
    assert heads.ohem.loss_weight_box_reg == 1


def test_background_that_costs_too_much_comes_last():
    mined = step(study_heads(), 0)
    of_background = [x.ohem_loss_cls[x.gt_classes == BACKGROUND] for x in mined]
    limit = 0.99 * torch.cat(of_background).min().item()

    def above(chosen):
        return [(x.ohem_loss_cls > limit) & (x.gt_classes == BACKGROUND) for x in chosen]

    def foreground(chosen):
        return [int((x.gt_classes != BACKGROUND).sum()) for x in chosen]

    capped = step(study_heads(MAX_LOSS=limit), 0)
    assert torch.cat(above(mined)).any()
    assert not torch.cat(above(capped)).any()
    assert all(a >= b for a, b in zip(foreground(capped), foreground(mined)))


@pytest.mark.parametrize(("positive_fraction", "num_fg"), [(0.25, 4), (0.75, 6)])
def test_foreground_is_drawn_only_where_the_hard_examples_hold_too_little(
    positive_fraction, num_fg
):
    heads = study_heads(BALANCED=True)
    heads.ohem, heads.positive_fraction = OHEMOptions(hard_fraction=0.5), positive_fraction
    hard = []
    heads.observers.append(hard.extend)
    trained = step(heads, 0)

    def foreground(chosen):
        return [int((x.gt_classes < BACKGROUND).sum()) for x in chosen]

    assert [len(x) for x in trained] == [heads.batch_size_per_image] * 2 == [8, 8]
    assert foreground(hard) == [4, 4]
    assert foreground(trained) == [num_fg, num_fg]
