"""Weights of a sampler weigh the losses of RoIs in training."""

import pytest
import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.utils.events import EventStorage
from mined_rois import make_family, spy_on_sampler
from small_heads import FAMILIES, NUM_CLASSES, make_batch, make_heads, train_step
from torch import nn

from ohem_d2 import MixedSampler, Selection
from ohem_d2.errors import InputError
from ohem_d2.mining.losses import losses_per_roi
from ohem_d2.modeling.weighted_losses import use_weights

BOX_HEAD = "MODEL.ROI_BOX_HEAD"
LOSS_TYPES = {
    "smooth_l1": (),
    "smooth": (f"{BOX_HEAD}.SMOOTH_L1_BETA", 0.5),
    "giou": (f"{BOX_HEAD}.BBOX_REG_LOSS_TYPE", "giou"),
    "diou": (f"{BOX_HEAD}.BBOX_REG_LOSS_TYPE", "diou"),
    "ciou": (f"{BOX_HEAD}.BBOX_REG_LOSS_TYPE", "ciou"),
    "weighted": (f"{BOX_HEAD}.BBOX_REG_LOSS_WEIGHT", 2.5),
    "agnostic": (f"{BOX_HEAD}.CLS_AGNOSTIC_BBOX_REG", True),
    "sigmoid": (f"{BOX_HEAD}.USE_SIGMOID_CE", True),
    "federated": (f"{BOX_HEAD}.USE_SIGMOID_CE", True),
}


def give_weights(heads, weigh):
    """The heads' own sampler, with weights: a function of the candidates and the indices."""
    sampler = heads.sampler

    def weighted(candidates, num_samples):
        chosen = sampler(candidates, num_samples)
        return chosen._replace(weights=weigh(candidates, chosen.indices))

    heads.sampler = weighted


def ones(candidates, indices):
    return torch.ones(len(indices))


def predictors_of(heads):
    is_list = isinstance(heads.box_predictor, nn.ModuleList)
    return list(heads.box_predictor) if is_list else [heads.box_predictor]


def federate(heads):
    for predictor in predictors_of(heads):
        predictor.use_fed_loss, predictor.fed_loss_num_classes = True, 2
        predictor.fed_loss_cls_weights = torch.ones(NUM_CLASSES)


def losses_and_gradients(heads, batch):
    torch.manual_seed(5)
    _, losses, logged = train_step(heads, *batch)
    after = torch.rand(3)
    sum(losses.values()).backward()
    return losses, {n: p.grad for n, p in heads.named_parameters()}, logged, after


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_weights_of_one_change_nothing(name, loss_type):
    opts = LOSS_TYPES[loss_type]
    if name == "OHEMRROIHeads" and loss_type in ("giou", "diou", "ciou"):
        pytest.skip("Detectron2 has no such loss for rotated boxes")
    extras = {} if name == "OHEMRROIHeads" else {"masks": True}
    _, _, batch = make_family(name, 3, [(3, 40), (0, 10), (1, 20)], **extras)
    half = "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5
    found = []
    for weigh in (None, ones):
        heads = make_heads(*opts, *half, name=name, **extras)
        if loss_type == "federated":
            federate(heads)
        if weigh is not None:
            give_weights(heads, weigh)
        found.append(losses_and_gradients(heads, batch))
    (losses, gradients, logged, after), (w_losses, w_gradients, w_logged, w_after) = found
    assert losses.keys() == w_losses.keys()
    for key, value in losses.items():
        torch.testing.assert_close(w_losses[key], value, msg=key)
    for key, gradient in gradients.items():
        torch.testing.assert_close(w_gradients[key], gradient, msg=key)
    assert logged == w_logged
    assert after.equal(w_after)  # and as much was drawn at random


def test_each_roi_counts_by_its_weight():
    heads = make_heads(masks=True)
    give_weights(heads, lambda rois, indices: 0.5 + indices.double() % 3)
    batch = make_batch(2, [(3, 40), (2, 20)], masks=True)
    mined, losses, _ = train_step(heads, *batch)
    weights = cat([x.ohem_weights for x in mined])
    assert len(set(weights.tolist())) == 3
    for name in ("loss_cls", "loss_box_reg"):
        of_rois = cat([x.get(f"ohem_{name}") for x in mined])
        torch.testing.assert_close(losses[name], (weights * of_rois).mean())
    plain = make_heads(masks=True)
    torch.testing.assert_close(train_step(plain, *batch)[1]["loss_mask"], losses["loss_mask"])


def test_a_roi_of_weight_0_is_not_learned_from():
    """Gradients are those of the others alone, but for the number that they are divided by."""
    batch = make_batch(2, [(3, 40)])
    found = []
    for number in (4, 8):
        heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8)
        hardest = heads.sampler(spied(heads, batch), 8).indices

        def choose(candidates, num_samples, hardest=hardest, number=number):
            weights = (torch.arange(8) < 4).float()
            return Selection(hardest[:number], weights[:number])

        heads.sampler = choose
        found.append(losses_and_gradients(heads, batch)[1])
    for four, eight in zip(found[0].values(), found[1].values()):
        torch.testing.assert_close(four, 2 * eight)


def spied(heads, batch):
    with EventStorage():
        return heads.label_and_read_proposals(*batch)[1]


def test_weights_follow_their_rois_into_any_order():
    heads = make_heads()
    seen = spy_on_sampler(heads)
    sampler = heads.sampler

    def shuffled(candidates, num_samples):
        indices = sampler(candidates, num_samples).indices
        indices = indices[torch.randperm(len(indices))]
        return Selection(indices, candidates.loss_cls[indices], indices % 2 == 0)

    heads.sampler = shuffled
    mined, _, _ = train_step(heads, *make_batch(2, [(3, 40), (2, 20)]))
    assert sum(map(len, mined)) == len(seen[0][1].indices)
    for x in mined:
        assert x.ohem_weights.equal(x.ohem_loss_cls)


def test_a_stage_without_weights_is_left_as_it_is():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1,), name="OHEMCascadeROIHeads")
    plain = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1,), name="OHEMCascadeROIHeads")
    give_weights(heads, lambda rois, indices: torch.full((len(indices),), 3.0))
    batch = make_batch(2, [(3, 40)])
    found = []
    for h in (heads, plain):
        torch.manual_seed(0)
        found.append(train_step(h, *batch)[1])
    for key, value in found[1].items():
        factor = 3 if key in ("loss_cls_stage1", "loss_box_reg_stage1") else 1
        torch.testing.assert_close(found[0][key], factor * value, msg=key)


def test_after_weights_come_no_weights():
    """A sampler may give weights in some steps only."""
    heads, plain = make_heads(), make_heads()
    sampler = heads.sampler
    give_weights(heads, lambda rois, indices: torch.full((len(indices),), 2.0))
    batch = make_batch(2, [(3, 40)])
    doubled = train_step(heads, *batch)[1]
    heads.sampler = sampler
    expected = train_step(plain, *batch)[1]
    again = train_step(heads, *batch)[1]
    assert {k: v.item() for k, v in again.items()} == {k: v.item() for k, v in expected.items()}
    torch.testing.assert_close(doubled["loss_cls"], 2 * expected["loss_cls"])


class _Renamed(FastRCNNOutputLayers):
    def losses(self, predictions, proposals):
        return {"loss_of_class": super().losses(predictions, proposals)["loss_cls"]}

    def losses_per_roi(self, predictions, proposals):
        zeros = torch.zeros(len(predictions[0]))
        return {"loss_cls": zeros, "loss_box_reg": zeros}


def test_losses_of_other_names_cannot_be_weighed():
    heads = make_heads()
    heads.box_predictor.__class__ = _Renamed
    train_step(heads, *make_batch(2, [(3, 40)]))
    give_weights(heads, ones)
    with pytest.raises(InputError, match="_Renamed returns the losses loss_of_class, expected"):
        train_step(heads, *make_batch(2, [(3, 40)]))


def test_weights_are_used_once_however_often_it_is_asked_for():
    heads = make_heads()
    give_weights(heads, lambda rois, indices: torch.full((len(indices),), 2.0))
    batch = make_batch(2, [(3, 40)])
    first, second = (train_step(heads, *batch)[1] for _ in range(2))
    assert first["loss_cls"].equal(second["loss_cls"])
    use_weights(heads.box_predictor)
    assert heads.box_predictor.losses.func.__name__ == "_weighted_losses"
    assert heads.box_predictor.losses.args[1].__func__ is FastRCNNOutputLayers.losses


def test_without_a_single_roi():
    heads = make_heads()
    give_weights(heads, ones)
    _, losses, _ = train_step(heads, *make_batch(0, [(0, 0)]))
    assert [x.item() for x in losses.values()] == [0, 0]
    sum(losses.values()).backward()


def test_no_weights_are_no_trace():
    heads = make_heads()
    assert heads.sampler == MixedSampler(hard_fraction=1.0)
    mined, _, _ = train_step(heads, *make_batch(2, [(3, 40)]))
    assert not mined[0].has("ohem_weights")
    assert "losses" not in vars(heads.box_predictor)
    assert losses_per_roi.__module__ == "ohem_d2.mining.losses"
