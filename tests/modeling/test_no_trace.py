"""Reading all RoIs changes nothing but what is trained on."""

import copy
import dataclasses

import pytest
import torch
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats
from small_heads import FAMILIES, NUM_CLASSES, make_batch, make_heads, rotated, train_step
from torch import nn

from ohem_d2 import OHEMMixin
from ohem_d2.report.hard_examples import mine

BOX_HEAD = "MODEL.ROI_BOX_HEAD"


def test_reading_all_rois_leaves_no_trace():
    """Batch statistics are those of the training pass alone, and so is all that is logged."""
    norm = (
        "MODEL.ROI_BOX_HEAD.NORM",
        "BN",
        "MODEL.ROI_BOX_HEAD.NUM_CONV",
        1,
        "MODEL.ROI_BOX_HEAD.CONV_DIM",
        4,
    )
    heads = make_heads(*norm)
    before = copy.deepcopy(heads.state_dict())
    features, proposals, targets = make_batch(3, [(3, 50)])
    mined, _, logged = train_step(heads, features, proposals, targets)

    after = heads.state_dict()
    statistics = [k for k in after if "running_" in k or "num_batches" in k]
    assert statistics
    assert after["box_head.conv1.norm.num_batches_tracked"] == 1
    heads.load_state_dict(before)
    with EventStorage():
        heads._forward_box(features, mined)
    for name in statistics:
        assert heads.state_dict()[name].equal(after[name])

    assert {name for name in logged if not name.startswith(("ohem/share_of", "ohem_class"))} == {
        "roi_head/num_fg_samples",
        "roi_head/num_bg_samples",
        "ohem/cost_of_selected",
        "ohem/cost_of_all",
        "ohem/loss_ratio",
        "fast_rcnn/cls_accuracy",
        "fast_rcnn/fg_cls_accuracy",
        "fast_rcnn/false_negative",
    }


def test_precise_batch_normalization():
    """It counts how often a layer is used in a step, and refuses one that is used twice."""
    opts = f"{BOX_HEAD}.NORM", "BN", f"{BOX_HEAD}.NUM_CONV", 1
    everything = (
        *("MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000),
        *("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0),
    )
    statistics = []
    for name in ("OHEMROIHeads", "StandardROIHeads"):
        heads = make_heads(*opts, *everything, name=name)
        heads.train()
        step = nn.Module()
        step.heads = heads
        step.forward = lambda batch, heads=heads: heads(None, *copy.deepcopy(batch))
        with EventStorage():
            update_bn_stats(step, [make_batch(seed, [(3, 40)]) for seed in range(3)], 3)
        statistics.append([b for n, b in heads.named_buffers() if "running" in n])
    assert statistics[0]
    for a, b in zip(*statistics):
        torch.testing.assert_close(a, b)


def test_a_loss_without_gradients_is_no_step():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1), name="OHEMCascadeROIHeads")
    heads.observers.append(lambda mined: pytest.fail("is for training"))
    with torch.no_grad():
        mined, losses, logged = train_step(heads, *make_batch(0, [(3, 40)]))
    assert mined
    assert "loss_cls_stage0" in losses
    assert not [name for name in logged if "ohem" in name]


def test_to_mine_without_training_leaves_no_trace():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1), name="OHEMCascadeROIHeads")
    heads.observers.append(lambda mined: pytest.fail("is for training"))
    heads.train()
    with EventStorage() as storage:
        (mined,) = mine(heads, *make_batch(0, [(3, 40)]))
    assert mined.has("ohem_loss_cls")
    assert storage.histories() == {}


def read_sizes(heads):
    """A list of how many RoIs of each image are read at a time, which gets longer."""
    sizes, read_boxes = [], heads.read_boxes

    def spy(features, proposals, *stage):
        sizes.extend(len(x) for x in proposals)
        return read_boxes(features, proposals, *stage)

    heads.read_boxes = spy
    return sizes


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("number", [2, 8])
def test_rois_are_read_in_chunks_of_the_budget_or_of_the_fewest(name, number, monkeypatch):
    monkeypatch.setattr(OHEMMixin, "_fewest_at_a_time", 8)  # 4 of each of two images
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", number, name=name)
    everything = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000, name=name)
    batch = make_batch(0, [(3, 40), (2, 30)])
    features, proposals, targets = rotated(batch, 0) if name == "OHEMRROIHeads" else batch
    sizes = read_sizes(heads)
    heads._check._num_steps = everything._check._num_steps = (
        1  # in the first step, some are read once more
    )
    costs = []
    for h in (heads, everything):
        with EventStorage():
            _, candidates = h.label_and_read_proposals(features, proposals, targets)
            costs.append(candidates.loss_cls + candidates.loss_box_reg)
    torch.testing.assert_close(*costs)
    assert max(sizes) == (number if name == "OHEMRes5ROIHeads" else max(number, 4))
    assert sum(sizes) == len(costs[0])


def test_batch_normalization_sees_all_rois_together():
    heads = make_heads(
        *(f"{BOX_HEAD}.NORM", "BN", f"{BOX_HEAD}.NUM_CONV", 1),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2),
    )
    sizes = read_sizes(heads)
    train_step(heads, *make_batch(0, [(3, 40)]))
    assert sizes == [43]


def test_the_federated_loss_chooses_its_classes_by_all_rois_together():
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2)
    predictor = heads.box_predictor
    predictor.use_sigmoid_ce = predictor.use_fed_loss = True
    predictor.fed_loss_num_classes, predictor.fed_loss_cls_weights = 2, torch.ones(NUM_CLASSES)
    sizes = read_sizes(heads)
    train_step(heads, *make_batch(0, [(3, 40)]))
    assert sizes == [43]


def test_classes_that_the_federated_loss_draws_are_no_dropout(caplog):
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2)
    predictor = heads.box_predictor
    predictor.use_sigmoid_ce = predictor.use_fed_loss = True
    weights = torch.ones(NUM_CLASSES)
    predictor.fed_loss_num_classes, predictor.fed_loss_cls_weights = NUM_CLASSES, weights
    features, proposals, targets = make_batch(0, [(3, 40)])
    targets[0].gt_classes[:] = 0  # so that others are drawn
    train_step(heads, features, proposals, targets)
    assert "random numbers" not in caplog.text


def test_what_training_leaves_out_is_looked_at():
    heads, plain = (make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 30) for _ in range(2))
    heads.load_state_dict(plain.state_dict())
    heads.ohem = dataclasses.replace(heads.ohem, max_candidates=9, bg_iou_lo=0.3)
    options, sampler = heads.ohem, object()
    heads.sampler = sampler
    found = []
    for x in (heads, plain):
        features, proposals, targets = make_batch(3, [(3, 60)])
        with EventStorage():
            found.append(mine(x, features, proposals, targets))
    ((mined,), (expected,)) = found
    assert len(expected) > 9
    assert mined.proposal_boxes.tensor.equal(expected.proposal_boxes.tensor)
    assert heads.ohem is options
    assert heads.sampler is sampler
    assert 0.3 in heads.proposal_matcher.thresholds


def test_batch_normalization_without_a_single_roi():
    heads = make_heads(f"{BOX_HEAD}.NORM", "BN", f"{BOX_HEAD}.NUM_CONV", 1)
    features, proposals, targets = make_batch(0, [(0, 0), (0, 0)])
    with EventStorage():
        labelled, candidates = heads.label_and_read_proposals(features, proposals, targets)
    assert [len(x) for x in labelled] == [0, 0]
    assert candidates.loss_cls.shape == candidates.pred_scores.shape == (0,)
    assert candidates.ious.shape == (0,)
    assert candidates.pred_boxes.shape == (0, 4)
