"""How many RoIs the mask and keypoint heads are trained on, and which."""

import pytest
import torch
from detectron2.modeling.roi_heads import StandardROIHeads
from small_heads import NUM_CLASSES, SHAPES, make_batch, make_cfg, make_heads, train_step

from ohem_d2 import OHEMROIHeads
from ohem_d2.modeling.mixin import OHEMMixin

SIZES = [(3, 40), (0, 10), (1, 6)]
MOST = 2  # POSITIVE_FRACTION, which is 0.25, of a budget of 8


class Watched:
    """Keeps the RoIs that a mask or a keypoint head is trained on."""

    def __init__(self, head):
        self.rois = None
        self.forward = head.forward
        head.forward = self

    def __call__(self, features, rois):
        self.rois = rois
        return self.forward(features, rois)


def trained(*opts, **kwargs):
    """The RoIs that a step trains on, and those of the mask and of the keypoint head."""
    heads = make_heads(*opts, masks=True, keypoints=True, **kwargs)
    watched = Watched(heads.mask_head), Watched(heads.keypoint_head)
    mined, losses, _ = train_step(heads, *make_batch(0, SIZES, masks=True, keypoints=True))
    assert all(x.isfinite() for x in losses.values())
    return mined, *(x.rois for x in watched)


@pytest.mark.parametrize("name", ["OHEMROIHeads", "OHEMCascadeROIHeads"])
@pytest.mark.parametrize("hard_fraction", [0.5, 1.0])
def test_the_first_foreground_within_the_budget_of_detectron2(name, hard_fraction):
    option = "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", hard_fraction
    mined, masks, keypoints = trained(*option, name=name)
    numbers = []
    for x, *of_heads in zip(mined, masks, keypoints):
        foreground = x[x.gt_classes < NUM_CLASSES]
        numbers.append(len(foreground))
        for rois in of_heads:
            assert rois.proposal_boxes.tensor.equal(foreground.proposal_boxes.tensor[:MOST])
    assert max(numbers) > MOST  # or nothing was left out
    if hard_fraction == 1:
        x = mined[0][mined[0].gt_classes < NUM_CLASSES]
        losses = x.ohem_loss_cls + x.ohem_loss_box_reg
        assert losses.equal(losses.sort(descending=True).values)


def test_a_larger_fraction_is_a_larger_budget():
    mined, masks, _ = trained("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0)
    for x, rois in zip(mined, masks):
        assert len(rois) == (x.gt_classes < NUM_CLASSES).sum()


def test_what_detectron2_samples_stays_as_it_is():
    mined, masks, _ = trained("MODEL.ROI_HEADS.OHEM.START_ITER", 5)
    for x, rois in zip(mined, masks):
        assert not x.has("ohem_loss_cls")
        assert len(rois) == (x.gt_classes < NUM_CLASSES).sum() <= MOST


def count(rois):
    """How many are foreground; at test time, how many there are."""
    return int((rois.gt_classes < NUM_CLASSES).sum()) if rois.has("gt_classes") else len(rois)


class TheirHeads(StandardROIHeads):
    """Others' heads, with a mask branch of their own."""

    def _forward_mask(self, features, instances):
        self.seen = [*map(count, instances)]
        found = super()._forward_mask(features, instances)
        return {"loss_theirs": 7.0, **found} if self.training else found


class OtherArguments(StandardROIHeads):
    """Others' heads, whose mask branch gets more."""

    def forward(self, images, features, proposals, targets=None):
        proposals = self.label_and_sample_proposals(proposals, targets)
        return proposals, self._forward_mask(features, proposals, targets)

    def _forward_mask(self, features, instances, targets):
        self.seen = [*map(count, instances)]
        return {}


class Below(OHEMROIHeads):
    """A head that is based on one of ours."""

    def _forward_mask(self, features, instances):
        return {"loss_below": 5.0, **super()._forward_mask(features, instances)}


def with_mining(theirs):
    return type(f"OHEM{theirs.__name__}", (OHEMMixin, theirs), {"__module__": __name__})


def step_of(cls):
    cfg = make_cfg(masks=True)
    torch.manual_seed(0)
    heads = cls(cfg, SHAPES)
    mined, losses, _ = train_step(heads, *make_batch(0, SIZES, masks=True))
    return heads, mined, losses


def test_a_mask_branch_of_others_is_called_with_what_is_within_the_budget():
    heads, mined, losses = step_of(with_mining(TheirHeads))
    assert losses["loss_theirs"] == 7
    assert "loss_mask" in losses
    assert max(map(count, mined)) > MOST
    assert max(heads.seen) == MOST


def test_a_mask_branch_may_take_further_arguments():
    heads, mined, _ = step_of(with_mining(OtherArguments))
    assert max(map(count, mined)) > MOST
    assert max(heads.seen) == MOST


def test_at_test_time_nothing_is_left_out():
    heads, *_ = step_of(with_mining(TheirHeads))
    heads.eval()
    features, proposals, _ = make_batch(0, SIZES)
    with torch.no_grad():
        heads(None, features, proposals)
    assert max(heads.seen) > MOST


def test_a_mask_branch_of_a_head_based_on_ours():
    _, _, losses = step_of(Below)
    assert losses["loss_below"] == 5
    assert "loss_mask" in losses
