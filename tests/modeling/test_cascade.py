"""The stages of a cascade that mine, and those that do not."""

import dataclasses
import math

import pytest
import reference
import torch
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers, build_roi_heads
from detectron2.structures import pairwise_iou
from detectron2.utils.events import EventStorage
from small_heads import NUM_CLASSES, SHAPES, make_batch, make_cfg, make_heads, train_step

from ohem_d2 import OHEMCascadeROIHeads
from ohem_d2.errors import InputError


def test_a_later_cascade_stage_is_given_what_is_drawn_too():
    opts = ["MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1,), "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.25]
    heads = make_heads(*opts, name="OHEMCascadeROIHeads")
    seen, sample = [], heads._sample
    heads._sample = lambda *args: seen.append(sample(*args)) or seen[-1]
    for _ in range(2):
        torch.manual_seed(0)  # for the first stage, which samples
        train_step(heads, *make_batch(0, [(3, 40)]))
    ((first,), (second,)) = seen
    cost = first.ohem_loss_cls + first.ohem_loss_box_reg
    # The two hard examples by falling loss, then others.
    assert len(first) == len(second) > 2
    assert cost[0] >= cost[1] > cost[2:].min()
    assert first.proposal_boxes.tensor.equal(second.proposal_boxes.tensor)


def test_later_cascade_stages_mine_with_their_own_head():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1,), name="OHEMCascadeROIHeads")
    trained = []
    for k, predictor in enumerate(heads.box_predictor):
        original = predictor.losses

        def spy(predictions, proposals, k=k, original=original):
            trained.append((k, proposals))
            return original(predictions, proposals)

        predictor.losses = spy
    heads.batch_size_per_image = 40  # the first stage samples that many, as Detectron2 does
    labelled = []
    sample = heads._sample

    def sample_few(rois, candidates, *how):
        labelled.append((rois, candidates.loss_cls + candidates.loss_box_reg))
        heads.batch_size_per_image = 6
        return sample(rois, candidates, *how)

    heads._sample = sample_few
    features, proposals, targets = make_batch(4, [(3, 60)])
    _, losses, logged = train_step(heads, features, proposals, targets)
    assert [k for k, _ in trained] == [0, 1, 2]
    (first,), (second,), (third,) = (rois for _, rois in trained)
    assert not first.has("ohem_loss_cls")
    assert len(first) > len(second) == 6 >= len(third)

    (((rois,), cost),) = labelled
    costs = []
    for i in range(len(rois)):
        maps = [features[f] for f in heads.in_features]
        with torch.no_grad(), EventStorage():
            pooled = heads.box_pooler(maps, [rois[i].proposal_boxes])
            predictions = heads.box_predictor[1](heads.box_head[1](pooled))
            parts = FastRCNNOutputLayers.losses(heads.box_predictor[1], predictions, [rois[i]])
        costs.append(sum(parts.values()).item())
    torch.testing.assert_close(cost, torch.tensor(costs))
    expected = reference.select(
        costs, rois.proposal_boxes.tensor.tolist(), rois.gt_classes.tolist(), [0] * len(rois),
        num_samples=6, num_classes=NUM_CLASSES,
    )  # fmt: skip
    assert second.proposal_boxes.tensor.equal(rois.proposal_boxes.tensor[expected])
    assert math.isfinite(logged["stage1/ohem/cost_of_selected"])
    assert "ohem/cost_of_selected" not in logged
    assert all(loss.isfinite() for loss in losses.values())


def test_a_stage_that_the_cascade_does_not_have():
    cfg = make_cfg("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 3), name="OHEMCascadeROIHeads")
    with pytest.raises(ValueError, match=r"CASCADE_STAGES is \(0, 3\), .* from 0 to 2"):
        build_roi_heads(cfg, SHAPES)


def test_the_lower_bound_of_background_is_that_of_the_stages_that_mine():
    lo = "MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.3
    stages = "MODEL.ROI_HEADS.OHEM.CASCADE_STAGES"
    first = make_heads(*lo, name="OHEMCascadeROIHeads")
    assert 0.3 in first.proposal_matcher.thresholds
    second = make_heads(*lo, stages, (1,), name="OHEMCascadeROIHeads")
    assert 0.3 not in second.proposal_matcher.thresholds

    sample, seen = second._sample, []
    second._sample = lambda labelled, *args: seen.extend(labelled) or sample(labelled, *args)
    batch = make_batch(0, [(3, 40), (0, 20)])
    train_step(second, *batch)
    iou = pairwise_iou(seen[0].proposal_boxes, batch[2][0].gt_boxes).max(dim=1).values
    assert len(iou) > 0
    assert iou.min() >= 0.3
    assert len(seen[1]) > 0  # where there is no object, all is background


def test_a_stage_that_does_not_mine_samples_as_the_extended_head_does():
    calls = []

    class Sampling(CascadeROIHeads):
        def _sample_proposals(self, *args):
            calls.append(args)
            return super()._sample_proposals(*args)

    class Mine(OHEMCascadeROIHeads, Sampling):
        pass

    cfg = make_cfg("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1,), name="OHEMCascadeROIHeads")
    train_step(Mine(cfg, SHAPES), *make_batch(0, [(3, 40)]))
    assert len(calls) == 1


def test_background_below_the_lowest_iou_is_left_out_of_a_later_stage():
    """Before mining starts, too; and never foreground, which refined boxes may be at any IoU."""
    opts = ["MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1,), "MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.2]
    heads = make_heads(*opts, name="OHEMCascadeROIHeads")
    heads.batch_size_per_image = 40
    for start_iter in (0, 1000):
        heads.ohem = dataclasses.replace(heads.ohem, start_iter=start_iter)
        label, kept = heads._match_and_label_boxes, []
        heads._match_and_label_boxes = lambda *a, label=label, kept=kept: (
            kept.append(label(*a)) or kept[-1]
        )
        torch.manual_seed(0)
        features, proposals, targets = make_batch(4, [(3, 60), (0, 9)])
        train_step(heads, features, proposals, targets)
        del heads._match_and_label_boxes
        (first, without), _ = kept
        iou = pairwise_iou(targets[0].gt_boxes, first.proposal_boxes).max(dim=0).values
        is_background = first.gt_classes == NUM_CLASSES
        assert is_background.any()
        assert iou[is_background].min() >= 0.2
        assert len(without)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cascade_stages": (7,)}, r"CASCADE_STAGES is \(7,\), expected stages from 0 to 2"),
        ({"cascade_stages": (1,), "bg_iou_lo": 0.6},
         "BG_IOU_LO is 0.6, expected less than 0.6, that of stage 1 in MODEL.ROI_BOX_CASCADE_HEAD"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_stages(options, words):
    heads = make_heads(name="OHEMCascadeROIHeads")
    with pytest.raises(InputError, match=words):
        heads.ohem = dataclasses.replace(heads.ohem, **options)


def test_other_stages_during_a_training():
    heads = make_heads(name="OHEMCascadeROIHeads")
    (first,) = heads.metrics.values()
    first.collects = True  # as a training's logs have it
    heads.ohem = dataclasses.replace(heads.ohem, cascade_stages=(2, 0))
    assert [*heads.metrics] == [0, 2]
    assert heads.metrics[0] is first
    assert heads.metrics[2].collects
