"""Mining in heads and with box predictors of one's own, and those that it does not fit."""

import copy
import re

import pytest
import torch
from detectron2.config import configurable
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    StandardROIHeads,
    build_roi_heads,
)
from detectron2.utils.events import EventStorage
from mined_rois import assert_mined, mine_slowly
from small_heads import SHAPES, make_batch, make_cfg, make_heads, train_step

from ohem_d2 import OHEMMixin, OHEMOptions, OHEMRes5ROIHeads, OHEMROIHeads
from ohem_d2.errors import InputError
from ohem_d2.mining.losses import check_predictor
from ohem_d2.modeling.head_checks import check_classes_of_heads


@pytest.mark.parametrize("name", ["OHEMRes5ROIHeads", "OHEMRROIHeads"])
def test_the_standard_head_in_the_config_of_another(name):
    cfg = make_cfg("MODEL.ROI_HEADS.NAME", "OHEMROIHeads", name=name)
    with pytest.raises(ValueError, match=f"NAME is OHEMROIHeads, but .*: expected {name}"):
        build_roi_heads(cfg, SHAPES)


class _HalvedLosses(FastRCNNOutputLayers):
    def losses(self, predictions, proposals):
        return {k: v / 2 for k, v in super().losses(predictions, proposals).items()}


class _HalvedLossesPerRoI(_HalvedLosses):
    def losses_per_roi(self, predictions, proposals):
        left = torch.cat([x.proposal_boxes.tensor[:, 0] for x in proposals])
        assert len(left) == len(predictions[0])
        return {"loss_cls": left / 2, "loss_box_reg": torch.zeros_like(left)}


def test_a_predictor_with_losses_of_its_own():
    cfg = make_cfg()
    given = OHEMROIHeads.from_config(cfg, SHAPES)
    given["ohem"] = OHEMOptions(nms_thresh=1.0, hard_fraction=1.0)
    shape = given["box_head"].output_shape
    with pytest.raises(ValueError, match=r"_HalvedLosses has a method 'losses' .* losses_per_roi"):
        OHEMROIHeads(**{**given, "box_predictor": _HalvedLosses(cfg, shape)})
    heads = OHEMROIHeads(**{**given, "box_predictor": _HalvedLossesPerRoI(cfg, shape)})
    features, proposals, targets = make_batch(1, [(0, 30)])
    mined, _, _ = train_step(heads, features, proposals, targets)
    left = proposals[0].proposal_boxes.tensor[:, 0]
    assert mined[0].ohem_loss_cls.equal(left.sort(descending=True).values[:8] / 2)


def test_a_compiled_predictor():
    heads, plain = make_heads(seed=3), make_heads(seed=3)
    heads.box_predictor = torch.compile(heads.box_predictor, backend="eager")
    batch = make_batch(0, [(3, 40)])
    results = []
    for x in (heads, plain):
        torch.manual_seed(0)
        results.append(train_step(x, *copy.deepcopy(batch))[1])
    assert results[0]["loss_cls"].item() == pytest.approx(results[1]["loss_cls"].item(), rel=1e-5)
    heads.box_predictor._orig_mod.__class__ = _HalvedLosses
    with pytest.raises(InputError, match=r"_HalvedLosses has a method 'losses' .* losses_per_roi"):
        check_predictor(heads.box_predictor)


def test_the_mixin_makes_a_mining_head_of_another():
    name = "OHEMHeadOfATest"
    if name not in ROI_HEADS_REGISTRY:
        standard = ROI_HEADS_REGISTRY.get("StandardROIHeads")
        ROI_HEADS_REGISTRY.register(type(name, (OHEMMixin, standard), {}))
    heads = make_heads("MODEL.ROI_HEADS.NAME", name)
    batch = make_batch(1, [(2, 30)])
    mined, _, _ = train_step(heads, *batch)
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])


@pytest.mark.parametrize(
    ("head", "others_config", "expected"),
    [
        ("OHEMRes5ROIHeads", "OHEMROIHeads", "OHEMROIHeads"),
        ("OHEMRes5ROIHeads", "OHEMRROIHeads", "OHEMRROIHeads"),
        ("OHEMRROIHeads", "OHEMROIHeads", "OHEMROIHeads"),
        ("OHEMCascadeROIHeads", "OHEMROIHeads", "OHEMROIHeads"),
        ("OHEMCascadeROIHeads", "OHEMRes5ROIHeads", "OHEMRes5ROIHeads"),
        ("OHEMRes5ROIHeads", "OHEMCascadeROIHeads", "OHEMROIHeads or OHEMCascadeROIHeads"),
    ],
)
def test_another_head_in_the_config_of_another(head, others_config, expected):
    cfg = make_cfg(name=others_config)
    cfg.MODEL.ROI_HEADS.NAME = head
    with pytest.raises(InputError, match=f"NAME is {head}, but .*MODEL.* expected {expected}$"):
        build_roi_heads(cfg, SHAPES)


def test_a_box_branch_of_its_own_without_read_boxes(caplog):
    class Plain(StandardROIHeads):
        def _forward_box(self, features, proposals):
            return super()._forward_box(features, proposals)

    type("Mine", (OHEMMixin, Plain), {})
    assert "class Mine has a _forward_box of its own, and no read_boxes" in caplog.text
    caplog.clear()
    type("Mine", (OHEMMixin, Plain), {"read_boxes": lambda self, features, proposals: None})
    assert not caplog.text


class _WithoutMining(OHEMROIHeads):
    def label_and_sample_proposals(self, proposals, targets):
        return StandardROIHeads.label_and_sample_proposals(self, proposals, targets)


def test_heads_that_pass_mining_over(caplog):
    cfg = make_cfg()
    heads = _WithoutMining(cfg, SHAPES)
    for _ in range(2):
        with EventStorage():
            features, proposals, targets = make_batch(1, [(2, 30)])
            heads.train()(None, features, proposals, targets)
    message = (
        r"_WithoutMining does not call OHEMMixin.label_and_sample_proposals in training, so no"
    )
    assert [message in x for x in caplog.messages].count(True) == 1


def test_classes_that_the_model_does_not_have():
    heads = make_heads()
    features, proposals, targets = make_batch(1, [(2, 30)])
    targets[0].gt_classes[0] = heads.num_classes
    message = f"^gt_classes of an object is {heads.num_classes}, expected 0 to .*, as the model has"
    with pytest.raises(InputError, match=message):
        train_step(heads, features, proposals, targets)


def test_heads_that_are_only_called_without_gradients(caplog):
    heads, batch = make_heads().train(), make_batch(1, [(2, 5)])
    message = "OHEMROIHeads was called in training mode 100 times, and each time without gradients"
    with EventStorage(), torch.no_grad():
        for _ in range(99):
            heads(None, *batch)
        assert message not in caplog.text
        for _ in range(3):
            heads(None, *batch)
    assert caplog.text.count(message) == 1


def test_passes_without_gradients_beside_a_training(caplog):
    heads, batch = make_heads(), make_batch(1, [(2, 5)])
    train_step(heads, *batch)
    with EventStorage(), torch.no_grad():
        for _ in range(101):
            heads(None, *batch)
    assert not caplog.messages


def test_heads_within_others(caplog):
    class Wrapper(torch.nn.Module):
        def __init__(self, heads):
            super().__init__()
            self.heads = heads

    check_classes_of_heads(Wrapper(make_heads()))
    heads = make_heads()
    heads.box_predictor.num_classes += 1
    with pytest.raises(InputError, match=r"^num_classes of roi_heads.heads.box_predictor is"):
        check_classes_of_heads(Wrapper(heads))


def test_a_predictor_that_is_replaced_later():
    cfg = make_cfg()
    heads = OHEMROIHeads(cfg, SHAPES)
    heads.box_predictor = _HalvedLosses(cfg, heads.box_head.output_shape)
    with pytest.raises(InputError, match=r"_HalvedLosses has a method 'losses' .* losses_per_roi"):
        train_step(heads, *make_batch(1, [(2, 30)]))


def test_mining_that_waits_for_a_storage_that_nobody_steps(caplog):
    heads = make_heads("MODEL.ROI_HEADS.OHEM.START_ITER", 2)
    batch = make_batch(1, [(2, 5)])
    message = "mining waits for iteration 2 .* the EventStorage has stayed at 0 for 100 steps"
    for _ in range(100):  # as where gradients are accumulated
        train_step(heads, *batch)
    assert not caplog.messages
    for _ in range(5):
        train_step(heads, *batch)
    assert len(re.findall(message, caplog.text)) == 1


def test_heads_whose_forward_is_called():
    """As by heads that call themselves: hooks and what comes with a call are left out."""
    called, forwarded = make_heads(), make_heads()
    batch = make_batch(0, [(3, 40)])
    expected = train_step(called, *batch)[1]
    with EventStorage():
        _, losses = forwarded.train().forward(None, *batch)
    assert all(losses[k].equal(v) for k, v in expected.items())


class _OlderHeads(StandardROIHeads):
    """As TridentNet's and DensePose's: the config itself is what it is built from."""

    def __init__(self, cfg, input_shape):
        super().__init__(cfg, input_shape)
        self.num_branch = cfg.MODEL.ROI_BOX_HEAD.NUM_FC

    def forward(self, images, features, proposals, targets=None):
        return super().forward(images, features, proposals, targets)


class _OHEMOlderHeads(OHEMMixin, _OlderHeads):
    pass


def _configurable(base):
    """A head that is built from arguments of its own."""

    class Heads(base):
        @configurable
        def __init__(self, *, more, **kwargs):
            super().__init__(**kwargs)
            self.more = more

        @classmethod
        def from_config(cls, cfg, input_shape):
            return {**super().from_config(cfg, input_shape), "more": 5}

    return Heads


class _OHEMNewerHeads(OHEMMixin, _configurable(StandardROIHeads)):
    pass


class _NewerOHEMHeads(_configurable(OHEMROIHeads)):
    """Extends a mining head, where the one above is extended by it."""


@pytest.mark.parametrize("heads", [_OHEMOlderHeads, _OHEMNewerHeads, _NewerOHEMHeads])
def test_the_mixin_in_heads_however_they_are_built(heads):
    built = heads(make_cfg("MODEL.ROI_HEADS.OHEM.NMS_THRESH", 0.5), SHAPES)
    assert built.ohem == OHEMOptions(nms_thresh=0.5, hard_fraction=1.0)
    mined, losses, logged = train_step(built, *make_batch(0, [(3, 40)]))
    assert len(mined[0]) == 8
    assert logged["ohem/cost_of_selected"] > 0
    assert all(loss.isfinite() for loss in losses.values())


def test_what_may_be_the_config_of_a_cascade(caplog):
    make_heads("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    assert "if this is the config of a cascade, it needs OHEMCascadeROIHeads" in caplog.text
    caplog.clear()
    make_heads()
    make_heads(name="OHEMCascadeROIHeads")
    assert not caplog.text


class _TridentHeads(Res5ROIHeads):
    """As TridentNet's: three branches, each with its own features, see the same objects."""

    def __init__(self, cfg, input_shape):
        super().__init__(cfg, input_shape)

    def forward(self, images, features, proposals, targets=None):
        return super().forward(images, features, proposals, targets * 3)


class _OHEMTridentHeads(OHEMRes5ROIHeads, _TridentHeads):
    pass


def test_heads_that_extend_a_c4_head():
    heads = _OHEMTridentHeads(make_cfg(name="OHEMRes5ROIHeads"), SHAPES)
    features, proposals, _ = make_batch(0, [(3, 40)] * 3)
    _, _, targets = make_batch(0, [(3, 40)])
    seen = []
    heads.observers.append(seen.append)
    _, losses, _ = train_step(heads, features, proposals, targets)
    assert [len(x) for x in seen[0]] == [8, 8, 8]
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("base", [Res5ROIHeads, CascadeROIHeads])
def test_heads_that_the_mixin_alone_does_not_fit(base):
    with pytest.raises(
        TypeError, match=rf"expected class Mine\(OHEM{base.__name__}, {base.__name__}"
    ):
        type("Mine", (OHEMMixin, base), {})


def test_the_mixin_comes_first():
    standard = ROI_HEADS_REGISTRY.get("StandardROIHeads")
    with pytest.raises(TypeError, match=r"expected class Swapped\(OHEMMixin, StandardROIHeads\)"):
        type("Swapped", (standard, OHEMMixin), {})
