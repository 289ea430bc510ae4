"""The examples of docs/other_detectors mine as their page says."""

import sys
from pathlib import Path

import pytest
import reference
import torch
from torch.nn import functional as F
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.ssd import SSD

FOLDER = Path(__file__).parents[2] / "docs" / "other_detectors"


@pytest.fixture(scope="module")
def kind():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        from ssd import OHEMSSD

        yield OHEMSSD
        del sys.modules["ssd"]


@pytest.fixture(scope="module")
def step():
    """What `compute_loss` gets of two tiny images, one of them without objects, in a model."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    boxes = torch.tensor([[4.0, 4.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1, 3])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    given = []
    model.compute_loss = lambda *args: given.append(args) or {}
    with torch.no_grad():
        model([torch.rand(3, 48, 64), torch.rand(3, 64, 64)], targets)
    del model.compute_loss
    ((targets, outputs, anchors, matched),) = given
    kept = (matched[0] >= 0) | (torch.arange(len(matched[0])) % 4 == 0)  # the reference is slow
    outputs = {k: x[:, kept] for k, x in outputs.items()}
    anchors, matched = ([x[kept] for x in of] for of in (anchors, matched))
    outputs["cls_logits"] = torch.randn_like(outputs["cls_logits"])  # none costs the same
    return model, (targets, outputs, anchors, matched)


def losses_of(kind, step, nms_thresh=None):
    model, (targets, outputs, *rest) = step
    model.__class__ = kind
    if nms_thresh is not None:
        model.mining_nms_thresh = nms_thresh
    outputs = {k: x.clone().requires_grad_() for k, x in outputs.items()}
    losses = model.compute_loss(targets, outputs, *rest)
    sum(losses.values()).backward()
    return losses, {k: x.grad for k, x in outputs.items()}


def test_with_duplicates_it_is_ssds_own_rule(kind, step):
    (losses, grads), (others, of_others) = losses_of(kind, step, 1.0), losses_of(SSD, step)
    assert losses.keys() == others.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, others[name])
    for name, value in grads.items():
        torch.testing.assert_close(value, of_others[name])
        assert ((value != 0) == (of_others[name] != 0)).all()  # of the same boxes


@pytest.mark.parametrize("positive_fraction", [0.1, 0.25, 0.3, 0.6, 0.75, 1.0])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_with_another_ratio_it_is_ssds_own_rule(kind, step, positive_fraction, number):
    """Which rounds up, also to none."""
    model, (targets, outputs, anchors, matched) = step
    objects = (matched[0] >= 0).nonzero().squeeze(1)
    some = [matched[0].clone(), matched[1]]
    some[0][objects[number:]] = -1
    before = model.neg_to_pos_ratio
    model.neg_to_pos_ratio = (1 - positive_fraction) / positive_fraction  # as SSD sets it
    try:
        given = model, (targets, outputs, anchors, some)
        (losses, grads), (others, of_others) = losses_of(kind, given, 1.0), losses_of(SSD, given)
    finally:
        model.neg_to_pos_ratio = before
    assert len(objects) >= number
    for name, value in losses.items():
        torch.testing.assert_close(value, others[name])
    learned = [x["cls_logits"].any(dim=2) for x in (grads, of_others)]
    assert learned[0].equal(learned[1])


@pytest.mark.parametrize("nms_thresh", [0.3, 0.7])
def test_without_duplicates_it_equals_the_reference(kind, step, nms_thresh):
    losses, grads = losses_of(kind, step, nms_thresh)
    _, (targets, outputs, anchors, matched) = step
    logits, matched, anchors = outputs["cls_logits"][0], matched[0], anchors[0]
    labels = torch.zeros(len(matched), dtype=torch.int64)
    labels[matched >= 0] = targets[0]["labels"][matched[matched >= 0]]
    costs = F.cross_entropy(logits, labels, reduction="none")
    number = int((matched >= 0).sum())
    assert number > 0
    background = (matched < 0).nonzero().squeeze(1)
    zeros = [0] * len(background)
    hard = reference.select(
        costs[background].tolist(), anchors[background].tolist(), zeros, zeros,
        num_classes=0, num_samples=3 * number, nms_thresh=nms_thresh,
    )  # fmt: skip
    chosen = {*background[hard].tolist(), *(matched >= 0).nonzero().squeeze(1).tolist()}
    assert {*grads["cls_logits"][0].any(dim=1).nonzero().squeeze(1).tolist()} == chosen
    assert not grads["cls_logits"][1].any()  # without objects, SSD learns nothing
    expected = costs[sorted(chosen)].sum() / number
    torch.testing.assert_close(losses["classification"], expected)


def test_it_trains_and_detects(kind, step):
    model, (targets, *_) = step
    model.__class__ = kind
    images = [torch.rand(3, 320, 320) for _ in targets]
    losses = model.train()(images, targets)
    sum(losses.values()).backward()
    assert all(x.isfinite() for x in losses.values())
    with torch.no_grad():
        assert {"boxes", "labels", "scores"} == model.eval()(images)[0].keys()
