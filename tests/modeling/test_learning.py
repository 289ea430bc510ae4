"""The heads learn and predict what the heads that they extend do."""

import copy
import math

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from mined_rois import extras, make_family, set_options, watch
from small_heads import FAMILIES, make_batch, make_heads, train_step


@pytest.mark.parametrize("name", FAMILIES)
def test_every_head_learns_what_the_plain_head_learns_of_the_same_rois(name, monkeypatch):
    heads, plain, batch = make_family(name, 3, [(3, 50), (1, 20)], **extras(name))
    set_options(heads, hard_fraction=0.5)
    heads.positive_fraction = 1.0  # so that masks and keypoints are learnt of all foreground
    seen = watch(heads)
    _, losses, _ = train_step(heads, *batch)
    sum(losses.values()).backward()
    monkeypatch.setattr(plain, "label_and_sample_proposals", lambda *_: seen[0])
    _, plain_losses, _ = train_step(plain, *batch)
    sum(plain_losses.values()).backward()
    assert losses.keys() == plain_losses.keys()
    for key, value in losses.items():
        assert value.equal(plain_losses[key]), key
    for (key, p), q in zip(heads.named_parameters(), plain.parameters()):
        assert (p.grad is None and q.grad is None) or p.grad.equal(q.grad), key


@pytest.mark.parametrize("name", FAMILIES)
def test_every_head_predicts_what_the_plain_head_predicts(name):
    heads, plain, (features, proposals, _) = make_family(name, 2, [(2, 30), (1, 9)], **extras(name))
    with torch.no_grad():
        results = [h.eval()(None, features, copy.deepcopy(proposals))[0] for h in (heads, plain)]
    for a, b in zip(*results):
        assert len(a) > 0
        assert a.get_fields().keys() == b.get_fields().keys()
        assert a.pred_boxes.tensor.equal(b.pred_boxes.tensor)
        for key in a.get_fields().keys() - {"pred_boxes"}:
            assert a.get(key).equal(b.get(key)), key


@pytest.mark.parametrize("name", FAMILIES)
def test_every_head_mines_in_mixed_precision(name):
    heads, _, batch = make_family(name, 2, [(2, 30), (0, 9)], **extras(name))
    seen = []
    heads.observers.append(seen.extend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, losses, _ = train_step(heads, *batch)
        sum(losses.values()).backward()
    assert all(p.grad is not None for p in heads.parameters())
    assert [len(x) for x in seen] == [8, 8]
    assert all(loss.isfinite() for loss in losses.values())
    assert all(x.ohem_loss_cls.isfinite().all() for x in seen)


def test_learns_what_the_plain_head_learns_of_the_same_rois(monkeypatch):
    """Losses, and gradients of weights and features: nothing of the other RoIs gets through."""
    heads = make_heads(masks=True, keypoints=True)
    heads.positive_fraction = 1.0  # so that masks and keypoints are learnt of all foreground
    plain = make_heads("MODEL.ROI_HEADS.NAME", "StandardROIHeads", masks=True, keypoints=True)
    plain.load_state_dict(heads.state_dict())
    features, proposals, targets = make_batch(3, [(3, 50), (1, 20)], masks=True, keypoints=True)
    seen = {name: x.clone().requires_grad_() for name, x in features.items()}
    mined, losses, _ = train_step(heads, seen, proposals, targets)
    sum(losses.values()).backward()

    monkeypatch.setattr(plain, "label_and_sample_proposals", lambda *_: mined)
    seen_by_plain = {name: x.clone().requires_grad_() for name, x in features.items()}
    _, plain_losses, _ = train_step(plain, seen_by_plain, proposals, targets)
    sum(plain_losses.values()).backward()

    assert {k: v.item() for k, v in losses.items()} == {
        k: v.item() for k, v in plain_losses.items()
    }
    for (name, p), q in zip(heads.named_parameters(), plain.parameters()):
        assert p.grad is not None, name
        assert p.grad.equal(q.grad), name
    for name in features:
        assert seen[name].grad.equal(seen_by_plain[name].grad)


def test_all_rois_are_what_plain_detectron2_trains_on():
    """With a budget for all and no suppression, mining and random sampling take the same RoIs."""
    opts = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000]
    heads = make_heads(*opts, "MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0)
    plain = make_heads(
        *opts, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0, "MODEL.ROI_HEADS.NAME", "StandardROIHeads"
    )
    plain.load_state_dict(heads.state_dict())
    batch = make_batch(4, [(3, 50), (0, 10)])
    results = [train_step(h, *batch)[1] for h in (heads, plain)]
    for losses in results:
        sum(losses.values()).backward()
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name])
    for p, q in zip(heads.parameters(), plain.parameters()):
        torch.testing.assert_close(p.grad, q.grad)


def test_broken_weights_reach_the_loss():
    heads = make_heads()
    with torch.no_grad():
        heads.box_predictor.cls_score.bias[0] = math.nan
    _, losses, _ = train_step(heads, *make_batch(1, [(2, 30)]))
    assert losses["loss_cls"].isnan()


def test_weights_move_both_ways_and_inference_is_the_same(tmp_path):
    mining = make_heads(masks=True, keypoints=True, seed=1)
    plain = make_heads(
        "MODEL.ROI_HEADS.NAME", "StandardROIHeads", masks=True, keypoints=True, seed=2
    )
    features, proposals, _ = make_batch(2, [(2, 30), (2, 10)])
    for source, target in ((mining, plain), (plain, mining)):
        with torch.no_grad():
            for p in source.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        DetectionCheckpointer(source, str(tmp_path)).save("model")
        loaded = torch.load(tmp_path / "model.pth")["model"]
        missing = target.load_state_dict(loaded, strict=True)
        assert not missing.missing_keys
        assert not missing.unexpected_keys
        with torch.no_grad():
            results = [
                h.eval()(None, features, copy.deepcopy(proposals))[0] for h in (mining, plain)
            ]
        for a, b in zip(*results):
            assert len(a) > 0
            assert a.get_fields().keys() == b.get_fields().keys()
            assert a.pred_boxes.tensor.equal(b.pred_boxes.tensor)
            for name in ("scores", "pred_classes", "pred_masks", "pred_keypoints"):
                assert a.get(name).equal(b.get(name))
