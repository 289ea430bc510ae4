"""Mining in heads as other projects have them: with arguments, losses and passes of their own."""

import logging

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase
from detectron2.layers import cat
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNOutputLayers,
    StandardROIHeads,
)
from detectron2.structures import Boxes, pairwise_iou
from detectron2.utils.events import EventStorage, get_event_storage
from mined_rois import assert_mined, mine_slowly
from small_heads import SHAPES, make_batch, make_cfg, make_heads, train_step

import ohem_d2
from ohem_d2.mining.samplers import SharedSampler

SIZES = [(3, 40), (0, 40), (2, 50)]


def _pair(mining, plain, *opts, name="OHEMROIHeads", seed=0):
    """Both heads with the same weights, with which RoIs cost different amounts."""
    cfg = make_cfg(*opts, name=name)
    mining, plain = mining(cfg, SHAPES), plain(cfg, SHAPES)
    plain.load_state_dict(make_heads(*opts, name=name, seed=seed).state_dict())
    mining.load_state_dict(plain.state_dict())
    return mining, plain


class _SemiSupervised(StandardROIHeads):
    """As Unbiased Teacher's: told by an argument what a call is for, in either mode."""

    def __init__(self, cfg, input_shape):
        super().__init__(cfg, input_shape)

    def forward(self, images, features, proposals, targets=None, branch="supervised"):
        if branch != "pseudo-labels":
            proposals = self.label_and_sample_proposals(proposals, targets, branch=branch)
        maps = [features[f] for f in self.box_in_features]
        pooled = self.box_pooler(maps, [x.proposal_boxes for x in proposals])
        predictions = self.box_predictor(self.box_head(pooled))
        if branch == "pseudo-labels":
            return self.box_predictor.inference(predictions, proposals)[0], predictions
        return proposals, self.box_predictor.losses(predictions, proposals)

    def label_and_sample_proposals(self, proposals, targets, branch):
        sampled = []
        for x, t in zip(add_ground_truth_to_proposals(targets, proposals), targets):
            matched, labels = self.proposal_matcher(pairwise_iou(t.gt_boxes, x.proposal_boxes))
            kept, classes = self._sample_proposals(matched, labels, t.gt_classes)
            x = x[kept]
            x.gt_classes = classes
            x.gt_boxes = t.gt_boxes[matched[kept]] if len(t) else Boxes(torch.zeros(len(x), 4))
            sampled.append(x)
        get_event_storage().put_scalar(f"num_rois_{branch}", sum(map(len, sampled)))
        return sampled


class _OHEMSemiSupervised(ohem_d2.OHEMMixin, _SemiSupervised):
    pass


def test_heads_that_are_told_the_branch_mine():
    heads, _ = _pair(_OHEMSemiSupervised, _SemiSupervised)
    batch = make_batch(3, SIZES)
    heads.train()
    with EventStorage() as storage:
        mined, losses = heads(None, *batch, branch="supervised")
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])
    costs = {k: cat([x.get(f"ohem_{k}") for x in mined]).mean() for k in losses}
    torch.testing.assert_close(costs, {k: v.detach() for k, v in losses.items()})
    assert storage.history("ohem/loss_ratio").latest() > 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rounds", [0, 1])
def test_a_loss_for_validation_is_that_of_the_heads_without_mining(training, rounds):
    heads, plain = _pair(_OHEMSemiSupervised, _SemiSupervised, "TEST.BOX_VOTING.ROUNDS", rounds)
    batch = make_batch(3, SIZES)
    losses = []
    for h in (heads, plain):
        h.train(training)
        torch.manual_seed(5)
        with EventStorage() as storage, torch.no_grad():
            losses.append(h(None, *batch, branch="validation")[1])
        assert storage.history("num_rois_validation").latest() == 24
        assert not [name for name in storage.latest() if name.startswith("ohem")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("gradients", [False, True])
def test_pseudo_labels_of_a_teacher_in_training_mode_are_those_without_mining(gradients, caplog):
    caplog.set_level(logging.WARNING)
    heads, plain = _pair(_OHEMSemiSupervised, _SemiSupervised)
    features, proposals, _ = make_batch(3, SIZES)
    found = []
    for h in (heads, plain):
        h.train()
        with EventStorage(), torch.set_grad_enabled(gradients):
            found.append(h(None, features, proposals, branch="pseudo-labels")[0])
    assert not caplog.messages  # such as that it does not mine
    for mine, theirs in zip(*found):
        assert len(mine)
        assert mine.scores.equal(theirs.scores)
        assert mine.pred_boxes.tensor.equal(theirs.pred_boxes.tensor)


@pytest.mark.parametrize("iteration", [4, 5])
def test_a_teacher_looks_at_the_rois_that_its_student_chose(iteration):
    # As aldi's: both are given the student's proposals, and draw with the same random state.
    student, teacher = (make_heads("MODEL.ROI_HEADS.OHEM.START_ITER", 5, seed=s) for s in (0, 1))
    shared = SharedSampler(student.sampler)
    student.sampler = shared
    teacher.sampler = shared.follower
    teacher.mines_without_gradients = True
    batch = make_batch(3, SIZES)
    torch.manual_seed(5)
    chosen, _, _ = train_step(student, *batch, iteration=iteration)
    assert chosen[0].has("ohem_loss_cls") == (iteration == 5)
    torch.manual_seed(5)
    with torch.no_grad():
        taken, _, _ = train_step(teacher, *batch, iteration=iteration)
    for x, y in zip(chosen, taken):
        assert x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor)
        assert x.gt_classes.equal(y.gt_classes)


class _WithIoUs(_SemiSupervised):
    """As Omni3D's: its sampling is given the IoUs too, and ignores what hardly overlaps."""

    def label_and_sample_proposals(self, proposals, targets):
        self.seen = []
        sampled = []
        for x, t in zip(add_ground_truth_to_proposals(targets, proposals), targets):
            ious = pairwise_iou(t.gt_boxes, x.proposal_boxes)
            matched, labels = self.proposal_matcher(ious)
            best = ious.max(dim=0).values if len(t) else torch.zeros(len(x))
            kept, classes = self._sample_proposals(matched, labels, t.gt_classes, matched_ious=best)
            x = x[kept]
            x.gt_classes = classes
            x.gt_boxes = t.gt_boxes[matched[kept]] if len(t) else Boxes(torch.zeros(len(x), 4))
            sampled.append(x)
        return sampled

    def _sample_proposals(self, matched_idxs, matched_labels, gt_classes, matched_ious=None):
        self.seen.append(matched_ious)
        return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)

    def forward(self, images, features, proposals, targets=None):
        return StandardROIHeads.forward(self, images, features, proposals, targets)


class _OHEMWithIoUs(ohem_d2.OHEMMixin, _WithIoUs):
    pass


def test_a_sampling_that_is_given_ious_mines_and_samples():
    heads, plain = _pair(
        _OHEMWithIoUs, _WithIoUs, "MODEL.ROI_HEADS.OHEM.START_ITER", 5, "MODEL.MASK_ON", False
    )
    batch = make_batch(3, SIZES)
    torch.manual_seed(5)
    before, losses, _ = train_step(heads, *batch, iteration=4)
    assert len(heads.seen) == 3
    assert all(len(x) for x in heads.seen)
    torch.manual_seed(5)
    sampled, plain_losses, _ = train_step(plain, *batch, iteration=4)
    assert losses == plain_losses
    for x, y in zip(before, sampled):
        assert x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor)
    mined, _, _ = train_step(heads, *batch, iteration=5)
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])


class _FocalLoss(FastRCNNOutputLayers):
    """As Unbiased Teacher's: a classification loss of its own, and Detectron2's box loss."""

    def losses(self, predictions, proposals):
        classes = cat([x.gt_classes for x in proposals])
        loss = torch.nn.functional.cross_entropy(predictions[0], classes, reduction="none")
        loss_cls = ((1 - (-loss).exp()) ** 1.5 * loss).mean()
        return {**super().losses(predictions, proposals), "loss_cls": loss_cls}

    def losses_per_roi(self, predictions, proposals):
        losses = ohem_d2.losses_per_roi(self, predictions, proposals)
        loss = losses["loss_cls"]
        return {**losses, "loss_cls": (1 - (-loss).exp()) ** 1.5 * loss}


class _SameLosses(FastRCNNOutputLayers):
    """As CenterNet2's: a method of its own that computes what Detectron2's does."""

    def losses(self, predictions, proposals):
        return super().losses(predictions, proposals)

    losses_per_roi = ohem_d2.losses_per_roi


class _Cascade(CascadeROIHeads):
    """As CenterNet2's: the predictors and the way through the stages are its own."""

    predictor = _SameLosses

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        made = super()._init_box_head(cfg, input_shape)
        made["box_predictors"] = [cls.predictor(cfg, x.output_shape) for x in made["box_heads"]]
        return made

    def _forward_box(self, features, proposals, targets=None):
        return super()._forward_box(features, proposals, targets)

    def forward(self, images, features, proposals, targets=None):
        if not self.training:
            return super().forward(images, features, proposals, targets)
        proposals = self.label_and_sample_proposals(proposals, targets)
        return proposals, self._forward_box(features, proposals, targets)


class _OHEMCascade(ohem_d2.OHEMCascadeROIHeads, _Cascade):
    pass


class _FocalCascade(_Cascade):
    predictor = _FocalLoss


class _OHEMFocalCascade(ohem_d2.OHEMCascadeROIHeads, _FocalCascade):
    pass


@pytest.mark.parametrize(
    ("mining", "plain"), [(_OHEMCascade, _Cascade), (_OHEMFocalCascade, _FocalCascade)]
)
def test_a_cascade_whose_predictors_say_what_each_roi_costs(mining, plain):
    stages = ("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 2))
    heads, plain = _pair(mining, plain, *stages, name="OHEMCascadeROIHeads")
    batch = make_batch(3, SIZES)
    mined, losses, logged = train_step(heads, *batch)
    for name in ("loss_cls", "loss_box_reg"):
        ranked = cat([x.get(f"ohem_{name}") for x in mined]).mean()
        torch.testing.assert_close(ranked, losses[f"{name}_stage0"].detach())
    assert logged["stage2/ohem/cost_ratio"] > 1
    with torch.no_grad():
        found = [h.eval()(None, *batch[:2])[0] for h in (heads, plain)]
    for mine, theirs in zip(*found):
        assert mine.scores.equal(theirs.scores)


class _Trainer(TrainerBase):
    """Trains heads on a batch."""

    def __init__(self, heads, batch):
        super().__init__()
        self.heads, self.batch = heads.train(), batch
        self.optimizer = torch.optim.SGD(heads.parameters(), 0.01)

    def run_step(self):
        _, losses = self.heads(None, *self.batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()


class _ValidationLoss(HookBase):
    """As detectree2's: after a step, the loss of other data, in training mode."""

    def __init__(self, batch):
        self.batch = batch
        self.found = []

    def after_step(self):
        torch.manual_seed(self.trainer.iter)
        self.found.append(self.loss())

    def loss(self):
        losses = self.trainer.heads(None, *self.batch)[1]
        return sum(x.item() for x in losses.values())


class _WithoutGradients(_ValidationLoss):
    loss = torch.no_grad()(_ValidationLoss.loss)


def test_a_hook_that_computes_a_validation_loss():
    heads = make_heads()
    seen = []
    heads.observers.append(seen.append)
    trainer = _Trainer(heads, make_batch(3, SIZES))
    hook = _WithoutGradients(make_batch(4, SIZES))
    trainer.register_hooks([hook])
    weights = []
    hook.trainer.heads.register_forward_pre_hook(
        lambda h, _: weights.append({k: v.clone() for k, v in h.state_dict().items()})
    )
    trainer.train(0, 3)

    steps = [iteration for _, iteration in trainer.storage.history("ohem/loss_ratio").values()]
    assert steps == [0, 1, 2]
    assert len(seen) == 3
    plain = make_heads(name="StandardROIHeads").train()
    for iteration, (state, found) in enumerate(zip(weights[1::2], hook.found)):
        plain.load_state_dict(state)
        torch.manual_seed(iteration)
        with EventStorage(), torch.no_grad():
            losses = plain(None, *hook.batch)[1]
        assert sum(x.item() for x in losses.values()) == found
