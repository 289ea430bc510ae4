"""`OHEMRPN`: what it chooses, and that all else is Detectron2's."""

import copy
import math
from unittest import mock

import pytest
import reference
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model, build_proposal_generator
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from small_heads import SHAPES, SIZE, make_batch
from small_models import (
    SHRINK_OPTS,
    assert_is_scripted_alike,
    assert_same_inference,
    make_inputs,
    step,
    tamed,
)
from torch.utils.checkpoint import checkpoint

from ohem_d2 import OHEMRPN, GroundTruth, Selection, add_ohem_config
from ohem_d2.errors import InputError
from ohem_d2.mining import select
from ohem_d2.training.config_file import load_config
from ohem_d2.training.key_checks import check_keys

ALL = {"MODEL.RPN.BATCH_SIZE_PER_IMAGE": 10**6, "MODEL.RPN.POSITIVE_FRACTION": 1.0}
PAPERS = {"MODEL.RPN.OHEM.HARD_FRACTION": 1.0}
KEY = "MODEL.RPN.OHEM"


def make_cfg(name="OHEMRPN", **keys):
    cfg = get_cfg()
    add_ohem_config(cfg)
    keys = {
        "MODEL.PROPOSAL_GENERATOR.NAME": name,
        "MODEL.RPN.IN_FEATURES": ["p2", "p3"],
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 16,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16]],
        **keys,
    }
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    return cfg


def make_rpn(name="OHEMRPN", **keys):
    torch.manual_seed(0)
    rpn = build_proposal_generator(make_cfg(name, **keys), SHAPES)
    with torch.no_grad():  # as initialized, all anchors cost nearly the same
        rpn.rpn_head.objectness_logits.weight.normal_(std=2.0)
        rpn.rpn_head.anchor_deltas.weight.normal_(std=0.5)
    return rpn


def call(rpn, features, targets, iteration=0):
    """The proposals and losses of a step, and what it logged."""
    torch.manual_seed(1)
    images = ImageList(torch.zeros(len(targets), 3, SIZE, SIZE), [(SIZE, SIZE)] * len(targets))
    with EventStorage(iteration) as storage:
        proposals, losses = rpn(images, features, targets)
    return proposals, losses, {k: v[0] for k, v in storage.latest().items()}


def gradients(rpn, losses):
    rpn.zero_grad()
    sum(losses.values()).backward()
    return [p.grad.clone() for p in rpn.parameters()]


def assert_same(rpn, plain, features, targets, iteration=0):
    """Bit by bit: losses, gradients, proposals and the random state."""
    results = []
    for x in (rpn, plain):
        proposals, losses, _ = call(x, features, targets, iteration)
        state = torch.get_rng_state()
        results.append((losses, gradients(x, losses), state, proposals))
    (losses, grads, state, proposals), other = results
    assert losses.keys() == other[0].keys()
    assert all(losses[k].equal(v) for k, v in other[0].items())
    assert all(a.equal(b) for a, b in zip(grads, other[1]))
    assert state.equal(other[2])
    for x, y in zip(proposals, other[3]):
        assert x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor)
        assert x.objectness_logits.equal(y.objectness_logits)


def watch(rpn):
    """What the sampler gets and returns, and the labels that Detectron2's losses get."""
    seen = {}
    sampler, losses = rpn.sampler, RPN.losses

    def spy(candidates, num_samples):
        seen["candidates"], seen["budget"] = candidates, num_samples
        seen["selection"] = sampler(candidates, num_samples)
        return seen["selection"]

    def spy_on_losses(self, anchors, logits, labels, *args):
        seen["labels"] = torch.stack(labels)
        return losses(self, anchors, logits, labels, *args)

    rpn.sampler = spy
    return seen, mock.patch.object(RPN, "losses", spy_on_losses)


def label_slowly(anchors, targets):
    """
    Of each anchor of each image: object (1), background (0) or neither (-1), and the box of the
    object. As Detectron2 labels them that draws all; but for what lies in regions to ignore.
    """
    plain = make_rpn("RPN", **ALL)
    for labels, boxes, t in zip(*plain.label_and_sample_anchors(anchors, targets), targets):
        regions = t.ignore_regions.tensor.tolist() if isinstance(t, GroundTruth) else []
        together = Boxes.cat(anchors).tensor.tolist()
        left_out = [any(reference.lies_in(a, r) for r in regions) for a in together]
        labels = [-1 if x == 0 and out else x for x, out in zip(labels.tolist(), left_out)]
        yield labels, boxes.tolist()


def loss_slowly(anchor, label, logit, deltas, box):
    """Of one anchor, by the words of Detectron2's config: cross entropy, and the L1 loss."""
    probability = 1 / (1 + math.exp(-logit))
    if label == 0:
        return -math.log(max(1 - probability, 1e-300)), 0.0
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    to_width, to_height = box[2] - box[0], box[3] - box[1]
    targets = (
        (box[0] + to_width / 2 - anchor[0] - width / 2) / width,
        (box[1] + to_height / 2 - anchor[1] - height / 2) / height,
        math.log(to_width / width),
        math.log(to_height / height),
    )
    return -math.log(max(probability, 1e-300)), sum(abs(a - b) for a, b in zip(deltas, targets))


def with_regions(targets, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(len(targets), 2, generator=generator) * SIZE / 2
    regions = torch.cat([corners, corners + SIZE * 0.4], dim=1)
    return [
        GroundTruth(t.image_size, Boxes(r[None]), **t.get_fields())
        for t, r in zip(targets, regions)
    ]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    number=st.integers(0, 3),
    regions=st.booleans(),
    budget=st.sampled_from([1, 16, 300]),
    nms_thresh=st.sampled_from([0.3, 0.7, 1.0]),
    how=st.sampled_from(["", "(scope='batch')", "(max_foreground_fraction=0.25)"]),
    at_first=st.sampled_from([1, 2]),
)
def test_equals_the_reference(seed, number, regions, budget, nms_thresh, how, at_first):
    rpn = make_rpn(
        **{
            "MODEL.RPN.BATCH_SIZE_PER_IMAGE": budget,
            "MODEL.RPN.OHEM.SAMPLER": f"OHEMSampler{how}",
            "MODEL.RPN.OHEM.NMS_THRESH": nms_thresh,
        }
    )
    features, _, targets = make_batch(seed, [(number, 0), (2, 0)])
    if regions:
        targets = with_regions(targets, seed)
    seen, patch = watch(rpn)
    with patch, mock.patch.object(select, "_AT_FIRST", at_first):
        _, losses, _ = call(rpn, features, targets)

    maps = [features[f] for f in rpn.in_features]
    of_maps = rpn.anchor_generator(maps)
    anchors = Boxes.cat(of_maps).tensor.tolist()
    with torch.no_grad():
        logits, deltas = rpn.rpn_head(maps)
    logits = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in logits], dim=1).tolist()
    deltas = [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas]
    deltas = torch.cat(deltas, dim=1).tolist()

    rows, places = [], []
    for i, (labels, boxes) in enumerate(label_slowly(of_maps, targets)):
        for j, (label, box) in enumerate(zip(labels, boxes)):
            if label >= 0:
                rows.append((*loss_slowly(anchors[j], label, logits[i][j], deltas[i][j], box),
                             anchors[j], 1 - label, i))  # fmt: skip
                places.append((i, j))
    cls, box, boxes, labels, images = map(list, zip(*rows))
    candidates = seen["candidates"]
    assert candidates.boxes.tolist() == boxes
    assert candidates.labels.tolist() == labels
    assert candidates.image_ids.tolist() == images
    assert (candidates.num_classes, candidates.num_images) == (1, 2)
    torch.testing.assert_close(candidates.loss_cls, torch.tensor(cls), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(candidates.loss_box_reg, torch.tensor(box), rtol=1e-4, atol=1e-4)

    # Ranked by the model's own figures, since the others differ from them in the last digits.
    ranked_by = (candidates.loss_cls + candidates.loss_box_reg).tolist()
    expected = reference.select(
        ranked_by, boxes, labels, images, num_classes=1, num_samples=budget, nms_thresh=nms_thresh,
        scope="batch" if "batch" in how else "image",
        max_foreground_fraction=0.25 if "max" in how else None, num_images=2,
    )  # fmt: skip
    trained = torch.full((2, len(anchors)), -1)
    for x in expected:
        trained[places[x]] = 1 - labels[x]
    assert seen["labels"].equal(trained.to(seen["labels"].dtype))
    sums = (sum(of[x] for x in expected) / (budget * 2) for of in (cls, box))
    for name, value in zip(("loss_rpn_cls", "loss_rpn_loc"), sums):
        assert losses[name].item() == pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou", "diou", "ciou"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0)])
def test_told_to_take_every_anchor_it_is_detectron2s(box_loss, weights):
    keys = {
        **ALL,
        "MODEL.RPN.BBOX_REG_LOSS_TYPE": box_loss,
        "MODEL.RPN.LOSS_WEIGHT": weights[0],
        "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": weights[1],
    }
    rpn = make_rpn(
        **keys, **{"MODEL.RPN.OHEM.SAMPLER": "OHEMSampler", "MODEL.RPN.OHEM.NMS_THRESH": 1.0}
    )
    plain = make_rpn("RPN", **keys)
    features, _, targets = make_batch(0, [(3, 0), (0, 0), (2, 0)])
    seen, patch = watch(rpn)
    with patch:
        results = [call(x, features, targets) for x in (rpn, plain)]
    # Detectron2 takes all in an order that it draws, but sums them in theirs.
    (_, losses, _), (_, others, _) = results
    assert all(losses[k].equal(v) for k, v in others.items())
    for a, b in zip(gradients(rpn, losses), gradients(plain, others)):
        assert a.equal(b)
    # So are the losses of single anchors.
    total = seen["candidates"].loss_cls.sum() / (3 * 10**6)
    assert total.item() == pytest.approx(losses["loss_rpn_cls"].item(), rel=1e-5)
    total = seen["candidates"].loss_box_reg.sum() / (3 * 10**6)
    assert total.item() == pytest.approx(losses["loss_rpn_loc"].item(), rel=1e-5)


def test_before_start_iter_it_is_detectron2s():
    rpn, plain = make_rpn(**{"MODEL.RPN.OHEM.START_ITER": 5}), make_rpn("RPN")
    features, _, targets = make_batch(0, [(3, 0), (0, 0)])
    assert_same(rpn, plain, features, targets, iteration=4)
    seen, patch = watch(rpn)
    with patch:
        call(rpn, features, targets, iteration=5)
    assert len(seen["selection"].indices) > 0


def test_a_pass_without_gradients_is_detectron2s():
    rpn, plain = make_rpn(), make_rpn("RPN")
    features, _, targets = make_batch(0, [(3, 0), (0, 0)])
    with torch.no_grad():
        (_, losses, logged), (_, others, _) = (call(x, features, targets) for x in (rpn, plain))
    assert losses == others
    assert not any(name.startswith("ohem") for name in logged)


def test_a_checkpointed_step_trains_on_the_same_anchors():
    rpn = make_rpn()
    features, _, targets = make_batch(0, [(3, 0), (1, 0)])
    _, losses, _ = call(rpn, features, targets)
    expected = gradients(rpn, losses)
    leaves = {k: x.clone().requires_grad_() for k, x in features.items()}
    images = ImageList(torch.zeros(2, 3, SIZE, SIZE), [(SIZE, SIZE)] * 2)

    def run(*maps):
        return tuple(rpn(images, dict(zip(leaves, maps)), targets)[1].values())

    torch.manual_seed(1)
    with EventStorage():
        recomputed = checkpoint(run, *leaves.values(), use_reentrant=True)
        assert all(a.equal(b) for a, b in zip(recomputed, losses.values()))
        found = gradients(rpn, dict(enumerate(recomputed)))  # of a second pass
    assert all(a.equal(b) for a, b in zip(found, expected))


def test_the_default_mines_half_and_draws_the_rest():
    rpn = make_rpn()
    features, _, targets = make_batch(0, [(3, 0), (0, 0), (2, 0)])
    seen, patch = watch(rpn)
    with patch:
        _, _, logged = call(rpn, features, targets)
    candidates, (indices, _, is_hard) = seen["candidates"], seen["selection"]
    assert len(set(indices.tolist())) == len(indices) == 3 * 16
    images = candidates.image_ids[indices]
    assert images[is_hard].bincount().tolist() == [8, 8, 8]
    assert images[~is_hard].bincount().tolist() == [8, 8, 8]
    assert (seen["labels"] >= 0).sum(dim=1).tolist() == [16, 16, 16]
    assert logged["rpn/num_pos_anchors"] + logged["rpn/num_neg_anchors"] == 16
    hard, costs = indices[is_hard], candidates.loss_cls + candidates.loss_box_reg
    of_selected, of_all = costs[hard].mean().item(), costs.mean().item()
    assert logged["ohem_rpn/cost_of_selected"] == pytest.approx(of_selected, rel=1e-5)
    assert logged["ohem_rpn/cost_of_all"] == pytest.approx(of_all, rel=1e-5)
    assert logged["ohem_rpn/cost_ratio"] == pytest.approx(of_selected / of_all, rel=1e-5)
    share = (candidates.labels[hard] == 0).sum() / (candidates.labels == 0).sum()
    assert logged["ohem_rpn/share_of_fg_selected"] == pytest.approx(share.item(), rel=1e-5)


def test_the_random_sampler_draws_as_detectron2():
    rpn = make_rpn(**{"MODEL.RPN.OHEM.SAMPLER": "RandomSampler"})
    features, _, targets = make_batch(0, [(3, 0), (0, 0), (2, 0)])
    _, _, logged = call(rpn, features, targets)
    _, _, expected = call(make_rpn("RPN"), features, targets)
    assert expected.items() <= logged.items()  # as many objects, and as much background
    assert not any(name.startswith("ohem") for name in logged)


def test_an_image_that_is_one_region_trains_nothing():
    rpn = make_rpn()
    features, _, targets = make_batch(0, [(0, 0)])
    targets = [GroundTruth(t.image_size, Boxes([[-99.0, -99.0, 199.0, 199.0]]), **t.get_fields())
               for t in targets]  # fmt: skip
    _, losses, _ = call(rpn, features, targets)
    assert all(loss == 0 for loss in losses.values())


def test_regions_to_ignore_are_ignored_before_start_iter_too():
    rpn, plain = make_rpn(**{"MODEL.RPN.OHEM.START_ITER": 5}), make_rpn("IgnoreRPN")
    features, _, targets = make_batch(0, [(3, 0), (0, 0)])
    assert_same(rpn, plain, features, with_regions(targets, 0))


def test_what_straddles_the_edge_is_left_out_if_detectron2_is_told_so():
    rpn = make_rpn(**{"MODEL.RPN.BOUNDARY_THRESH": 0, **ALL})
    features, _, targets = make_batch(0, [(3, 0), (0, 0)])
    seen, patch = watch(rpn)
    with patch:
        call(rpn, features, targets)
    boxes = seen["candidates"].boxes
    assert 0 <= boxes.min() < boxes.max() <= SIZE
    assert len(boxes) > 0


def test_weights_of_a_sampler():
    features, _, targets = make_batch(0, [(3, 0), (0, 0)])
    rpn = make_rpn(**PAPERS)
    _, expected, _ = call(rpn, features, targets)
    of_expected = gradients(rpn, expected)
    mines = rpn.sampler
    seen, patch = watch(rpn)

    def weighted(factor):
        def sampler(candidates, num_samples):
            indices = mines(candidates, num_samples).indices
            is_fg = candidates.labels[indices] == 0
            return Selection(indices, torch.where(is_fg, factor, 1.0))

        return sampler

    rpn.sampler = weighted(1.0)
    _, losses, _ = call(rpn, features, targets)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])
    for a, b in zip(gradients(rpn, losses), of_expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    rpn.sampler = weighted(0.5)
    seen, patch = watch(rpn)
    with patch:
        _, losses, _ = call(rpn, features, targets)
    chosen, weights, _ = seen["selection"]
    costs = seen["candidates"].loss_cls[chosen]
    assert losses["loss_rpn_cls"].item() == pytest.approx((weights * costs).sum().item() / 32)
    assert losses["loss_rpn_loc"].item() == pytest.approx(expected["loss_rpn_loc"].item() / 2)


def test_what_is_chosen_twice_counts_twice():
    features, _, targets = make_batch(0, [(3, 0), (0, 0)])
    rpn = make_rpn(**PAPERS)
    _, once, _ = call(rpn, features, targets)
    mines = rpn.sampler
    rpn.sampler = lambda *args: Selection(mines(*args).indices.repeat(2))
    _, twice, _ = call(rpn, features, targets)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], 2 * value)


def test_what_a_sampler_can_read():
    rpn = make_rpn()
    features, _, targets = make_batch(0, [(3, 0), (0, 0)])
    seen, patch = watch(rpn)
    with patch:
        call(rpn, features, targets)
        candidates = seen["candidates"]
        objects = targets[0].gt_boxes.tensor.tolist()
        for box, iou, image in zip(candidates.boxes.tolist(), candidates.ious.tolist(),
                                   candidates.image_ids.tolist()):  # fmt: skip
            best = max(reference.iou(box, x) for x in objects) if image == 0 else 0
            assert iou == pytest.approx(best, abs=1e-5)
        is_object = candidates.objectness > 0
        assert candidates.pred_classes.equal((~is_object).long())
        p = candidates.objectness.sigmoid()
        torch.testing.assert_close(candidates.pred_scores, torch.maximum(p, 1 - p))
        assert candidates.pred_boxes.shape == candidates.boxes.shape
        assert not candidates.loss_cls.requires_grad
        for name in ("objects", "pred_ious"):
            with pytest.raises(InputError, match=f"the sampler reads {name}"):
                getattr(candidates, name)


def test_inference_and_weights_are_those_of_detectron2():
    rpn, plain = make_rpn(), make_rpn("RPN")
    assert list(rpn.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(rpn.state_dict())
    rpn.load_state_dict(plain.state_dict())
    features, _, _ = make_batch(0, [(3, 0)])
    images = ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)])
    (x,), (y,) = (m.eval()(images, features)[0] for m in (rpn, plain))
    assert x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor)
    assert x.objectness_logits.equal(y.objectness_logits)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("HARD_FRACTION", 0.0, rf"{KEY}.HARD_FRACTION is 0.0, expected a number in \(0, 1\]"),
        ("NMS_THRESH", -1.0, f"{KEY}.NMS_THRESH is -1.0, expected a number of 0 or more"),
        ("START_ITER", -1, f"{KEY}.START_ITER is -1, expected an integer of 0 or more"),
        ("SAMPLER", "Hardest", f"{KEY}.SAMPLER is 'Hardest', expected one of"),
        ("SAMPLER", "OHEMSampler(scope='all')",
         f"{KEY}.SAMPLER is .*, and its scope is 'all', expected 'image' or 'batch'"),
        ("SAMPLER", "OHEMSampler(size=3)", f"{KEY}.SAMPLER is .*OHEMSampler has no argument size"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(key, value, message):
    with pytest.raises(InputError, match=message):
        make_rpn(**{f"{KEY}.{key}": value})


def test_settings_that_the_sampler_does_not_have_are_named():
    words = f"{KEY}.HARD_FRACTION is 0.25, but OHEMSampler has no such setting"
    with pytest.raises(InputError, match=words):
        make_rpn(**{f"{KEY}.HARD_FRACTION": 0.25, f"{KEY}.SAMPLER": "OHEMSampler"})


def test_a_sampler_that_does_what_none_may_is_named():
    rpn = make_rpn()
    rpn.sampler = lambda candidates, num_samples: torch.arange(3)
    features, _, targets = make_batch(0, [(3, 0)])
    with pytest.raises(InputError, match=f"{KEY}.SAMPLER: the sampler <lambda> returned a Tensor"):
        call(rpn, features, targets)


def test_a_python_config():
    plain = make_rpn("RPN")
    node = L(OHEMRPN)(
        in_features=["p2", "p3"], head=None, anchor_generator=None, anchor_matcher=None,
        box2box_transform=None, batch_size_per_image=16, positive_fraction=0.5,
        pre_nms_topk=(20, 10), post_nms_topk=(20, 10), ohem={"hard_fraction": 1.0},
    )  # fmt: skip
    rpn = instantiate(OmegaConf.create(node, flags={"allow_objects": True}))
    assert rpn.ohem.hard_fraction == rpn.sampler.hard_fraction == 1.0
    assert rpn.sampler.positive_fraction == 0.5
    for name in ("rpn_head", "anchor_generator", "anchor_matcher", "box2box_transform"):
        setattr(rpn, name, getattr(plain, name))
    features, _, targets = make_batch(0, [(3, 0)])
    yaml = make_rpn(**PAPERS)
    (_, losses, _), (_, others, _) = (call(x, features, targets) for x in (rpn, yaml))
    assert losses == others
    node.ohem = {"hard_fractoin": 1.0}
    with pytest.raises(InputError, match="hard_fractoin is unknown, expected one of sampler, hard"):
        instantiate(node)


ZOO = {
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml": ("StandardROIHeads", "OHEMROIHeads"),
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml": ("OHEMRes5ROIHeads",),
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml": ("OHEMCascadeROIHeads",),
}


def zoo_model(path, heads, generator="OHEMRPN", **keys):
    keys = {"MODEL.ROI_HEADS.NAME": heads, "MODEL.PROPOSAL_GENERATOR.NAME": generator, **keys}
    cfg = load_config(path, [*SHRINK_OPTS, *(x for pair in keys.items() for x in pair)])
    check_keys(cfg)
    torch.manual_seed(0)
    return tamed(build_model(cfg))


@pytest.mark.parametrize(("path", "heads"), [(p, h) for p, x in ZOO.items() for h in x])
@pytest.mark.parametrize("regions", [False, True])
def test_whole_models_with_and_without_mining_heads(path, heads, regions):
    model, plain = (zoo_model(path, heads, x) for x in ("OHEMRPN", "RPN"))
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    assert_same_inference(model, plain, inputs)
    if regions:
        for x in inputs:
            x["instances"] = with_regions([x["instances"]], 0)[0]
    seen, patch = watch(model.proposal_generator)
    with patch:
        losses = step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert model.proposal_generator.rpn_head.objectness_logits.weight.grad.abs().sum() > 0
    assert len(seen["selection"].indices) > 0


def test_in_mixed_precision():
    model = zoo_model(next(iter(ZOO)), "OHEMROIHeads")
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    seen, patch = watch(model.proposal_generator)
    with torch.autocast("cpu", torch.bfloat16), patch:
        losses = step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    assert seen["candidates"].loss_cls.dtype == torch.float32


@pytest.mark.gpu
def test_on_a_gpu():
    """It chooses the same anchors there: all predictions are given."""
    rpn = make_rpn(**PAPERS)
    features, _, targets = make_batch(0, [(3, 0), (0, 0), (2, 0)])
    maps = [features[f] for f in rpn.in_features]
    with torch.no_grad():
        predictions = rpn.rpn_head(maps)
    labels = []
    for device in ("cpu", "cuda"):
        x = copy.deepcopy(rpn).to(device)
        x.rpn_head.forward = lambda _, to=device: [[y.to(to) for y in of] for of in predictions]
        seen, patch = watch(x)
        with patch, mock.patch.object(select, "_AT_ONCE_ON_GPU", 0):
            _, losses, _ = call(x, {k: v.to(device) for k, v in features.items()},
                                [t.to(device) for t in targets])  # fmt: skip
        labels.append((seen["labels"].cpu(), losses["loss_rpn_cls"].cpu()))
    assert labels[0][0].equal(labels[1][0])
    torch.testing.assert_close(labels[0][1], labels[1][1])


def test_it_can_be_scripted():
    assert_is_scripted_alike(zoo_model(next(iter(ZOO)), "OHEMROIHeads"))
