import copy
import math

import pytest
import reference
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import configurable
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    StandardROIHeads,
    build_roi_heads,
)
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats
from hypothesis import given, settings
from hypothesis import strategies as st
from small_heads import (
    FAMILIES,
    NUM_CLASSES,
    SHAPES,
    SIZE,
    make_batch,
    make_cfg,
    make_heads,
    rotated,
    train_step,
)
from torch import nn

from ohem_d2 import OHEMCascadeROIHeads, OHEMMixin, OHEMOptions, OHEMRes5ROIHeads, OHEMROIHeads
from ohem_d2.errors import InputError
from ohem_d2.modeling.metrics import PERIOD

BACKGROUND = NUM_CLASSES
BOX_HEAD = "MODEL.ROI_BOX_HEAD"


def read_one(heads, maps, boxes):
    """The first box predictor, and what it says of a single RoI."""
    if isinstance(heads, Res5ROIHeads):
        pooled = heads.pooler(maps, [boxes])
        return heads.box_predictor, heads.box_predictor(heads.res5(pooled).mean(dim=[2, 3]))
    pooled = heads.box_pooler(maps, [boxes])
    if isinstance(heads, CascadeROIHeads):
        return heads.box_predictor[0], heads.box_predictor[0](heads.box_head[0](pooled))
    return heads.box_predictor, heads.box_predictor(heads.box_head(pooled))


def mine_slowly(heads, features, proposals, targets, bg_iou_lo=0.0, cls=1.0, box=1.0, **how):
    """
    From raw proposals to the RoIs to train on, as the README words it, one RoI at a time.

    Returns a list for each image, of (box, label, number of its object or None).
    """
    rois = []
    for i, (p, t) in enumerate(zip(proposals, targets)):
        objects = t.gt_boxes.tensor.tolist()
        boxes = p.proposal_boxes.tensor.tolist() + (objects if heads.proposal_append_gt else [])
        for b in boxes:
            ious = [reference.iou(b, o) for o in objects]
            best = max(ious, default=0.0)
            if best >= 0.5:
                match = ious.index(best)
                rois.append((i, b, t.gt_classes[match].item(), match))
            elif best >= bg_iou_lo:
                rois.append((i, b, BACKGROUND, None))

    costs = []
    for i, b, label, match in rois:
        structure = type(proposals[i].proposal_boxes)
        x = Instances((SIZE, SIZE), proposal_boxes=structure(torch.tensor([b])))
        x.gt_classes = torch.tensor([label])
        x.gt_boxes = x.proposal_boxes if match is None else targets[i].gt_boxes[match]
        maps = [features[f][i : i + 1] for f in heads.in_features]
        with torch.no_grad(), EventStorage():
            predictor, predictions = read_one(heads, maps, x.proposal_boxes)
            losses = predictor.losses(predictions, [x])
        costs.append((cls * losses["loss_cls"] + box * losses["loss_box_reg"]).item())

    selected = reference.select(
        costs,
        [b for _, b, _, _ in rois],
        [label for _, _, label, _ in rois],
        [i for i, _, _, _ in rois],
        num_samples=heads.batch_size_per_image,
        num_classes=NUM_CLASSES,
        num_images=len(proposals),
        **how,
    )
    return [[rois[k][1:] for k in selected if rois[k][0] == i] for i in range(len(proposals))]


def assert_mined(mined, expected, targets):
    assert len(mined) == len(expected)
    for x, rois, t in zip(mined, expected, targets):
        assert x.gt_classes.tolist() == [label for _, label, _ in rois]
        torch.testing.assert_close(
            x.proposal_boxes.tensor,
            torch.tensor([b for b, _, _ in rois]).reshape(x.proposal_boxes.tensor.shape),
        )
        for k, (_, _, match) in enumerate(rois):
            if match is not None:
                assert x.gt_boxes.tensor[k].equal(t.gt_boxes.tensor[match])
                for name in ("gt_masks", "gt_keypoints"):
                    if t.has(name):
                        mine, theirs = x.get(name)[[k]], t.get(name)[[match]]
                        if name == "gt_masks":
                            assert (mine.polygons[0][0] == theirs.polygons[0][0]).all()
                        else:
                            assert mine.tensor.equal(theirs.tensor)


def watch(heads):
    """A list of what is trained on in each step, which gets longer with each."""
    seen, choose = [], heads.label_and_sample_proposals

    def spy(*args):
        seen.append(choose(*args))
        return seen[-1]

    heads.label_and_sample_proposals = spy
    return seen


images = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=images,
    how=st.fixed_dictionaries(
        {
            "nms_thresh": st.sampled_from([0.3, 0.7, 1.0]),
            "scope": st.sampled_from(["image", "batch"]),
            "positive_fraction": st.sampled_from([None, 0.25]),
        }
    ),
    bg_iou_lo=st.sampled_from([0.0, 0.1]),
    weights=st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.0)]),
)
def test_trains_on_what_the_reference_selects(seed, sizes, how, bg_iou_lo, weights):
    options = {
        **how,
        "bg_iou_lo": bg_iou_lo,
        "loss_weight_cls": weights[0],
        "loss_weight_box_reg": weights[1],
    }
    opts = [x for k, v in options.items() for x in (f"MODEL.ROI_HEADS.OHEM.{k.upper()}", v)]
    heads = make_heads(*opts, seed=seed % 7)
    features, proposals, targets = make_batch(seed, sizes)
    mined, losses, _ = train_step(heads, features, proposals, targets)
    expected = mine_slowly(
        heads, features, proposals, targets, bg_iou_lo, weights[0], weights[1], **how
    )
    assert_mined(mined, expected, targets)
    assert all(loss.isfinite() for loss in losses.values())


def make_family(name, seed, sizes, **kwargs):
    """The mining head, the head that it extends with the same weights, and a batch for both."""
    heads = make_heads(name=name, seed=seed, **kwargs)
    plain = make_heads(name=FAMILIES[name][0], **kwargs)
    plain.load_state_dict(heads.state_dict(), strict=True)
    fields = {k: v for k, v in kwargs.items() if k in ("masks", "keypoints")}
    batch = make_batch(seed, sizes, **fields)
    return heads, plain, rotated(batch, seed) if name == "OHEMRROIHeads" else batch


def extras(name):
    """The heads beside the box head that there are."""
    return {
        "OHEMRROIHeads": {},
        "OHEMRes5ROIHeads": {"masks": True},
    }.get(name, {"masks": True, "keypoints": True})


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(6))
def test_every_head_trains_on_what_the_reference_selects(name, seed):
    sizes = [(3, 40), (0, 10), (2, 25)]
    heads, _, batch = make_family(name, seed, sizes, **extras(name))
    seen = watch(heads)
    _, losses, _ = train_step(heads, *batch)
    (mined,) = seen
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_what_is_not_hard_is_drawn_as_detectron2_does(name, scope):
    sizes = [(3, 40), (0, 3), (2, 25)]
    heads, _, batch = make_family(name, 0, sizes, **extras(name))
    budget, num_drawn = heads.batch_size_per_image, 6
    heads.ohem = OHEMOptions(hard_fraction=0.25, scope=scope)
    assert round(0.25 * budget) == budget - num_drawn == 2
    heads.batch_size_per_image = budget - num_drawn
    expected = mine_slowly(heads, *batch, scope=scope)
    everything = mine_slowly(copy_with_budget(heads, 1000), *batch, nms_thresh=1.0)
    heads.batch_size_per_image = budget
    seen, mined = watch(heads), []
    heads.observers.append(mined.append)
    _, losses, logged = train_step(heads, *batch)
    assert all(loss.isfinite() for loss in losses.values())
    train_step(heads, *batch)
    first, second = seen
    of_all = []
    for x, rois in zip(mined[0], expected):  # observers see the hard examples
        assert x.gt_classes.tolist() == [label for _, label, _ in rois]
    hard = torch.cat([x.ohem_loss_cls + x.ohem_loss_box_reg for x in mined[0]])
    assert logged["ohem/cost_of_selected"] == pytest.approx(hard.mean().item(), rel=1e-5)
    for x, y, rois, all_rois, targets in zip(first, second, expected, everything, batch[2]):
        assert_mined([x[: len(rois)]], [rois], [targets])
        left = [label for _, label, _ in all_rois]
        for _, label, _ in rois:
            left.remove(label)
        num_fg = sum(label < NUM_CLASSES for label in left)
        fg = min(int(num_drawn * heads.positive_fraction), num_fg)
        bg = min(num_drawn - fg, len(left) - num_fg)
        drawn = x.gt_classes[len(rois) :]
        assert int((drawn < NUM_CLASSES).sum()) == fg
        assert len(drawn) == fg + bg
        assert len({tuple(b) for b in x.proposal_boxes.tensor.tolist()}) == len(x)
        known = {tuple(round(v, 3) for v in b) for b, _, _ in all_rois}
        assert {tuple(round(v, 3) for v in b) for b in x.proposal_boxes.tensor.tolist()} <= known
        of_all.append(x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor))
    assert not all(of_all)  # another step draws others
    number = logged["roi_head/num_fg_samples"] + logged["roi_head/num_bg_samples"]
    assert number == pytest.approx(sum(map(len, first)) / len(first))
    with EventStorage():  # to mine without training draws nothing
        mined = heads.mine(*batch)
    all_hard = mine_slowly(heads, *batch, scope=scope)
    for x, rois in zip(mined, all_hard):
        assert x.gt_classes.tolist() == [label for _, label, _ in rois]


def copy_with_budget(heads, budget):
    other = copy.copy(heads)
    other.batch_size_per_image = budget
    return other


@pytest.mark.parametrize(
    ("budget", "fraction", "hard"), [(1, 0.5, 1), (8, 0.01, 1), (7, 0.5, 4), (8, 0.99, 8)]
)
def test_the_budget_is_shared_out(budget, fraction, hard):
    """To the next whole number, and at least one hard example."""
    opts = "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", fraction
    heads = make_heads(*opts, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", budget)
    mined = []
    heads.observers.append(mined.extend)
    chosen, _, _ = train_step(heads, *make_batch(0, [(3, 40), (0, 30)]))
    assert [len(x) for x in mined] == [hard, hard]
    assert [len(x) for x in chosen] == [budget, budget]


def test_background_below_the_lower_bound_is_not_drawn():
    lo = "MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.1
    heads = make_heads(*lo, "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5)
    heads.batch_size_per_image = 100
    batch = make_batch(0, [(3, 40)])
    chosen, _, _ = train_step(heads, *batch)
    iou = pairwise_iou(chosen[0].proposal_boxes, batch[2][0].gt_boxes).max(dim=1).values
    assert len(iou) > 0
    assert iou.min() >= 0.1


def test_a_later_cascade_stage_is_given_what_is_drawn_too():
    opts = ["MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1,), "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.25]
    heads = make_heads(*opts, name="OHEMCascadeROIHeads")
    seen, choose = [], heads._choose
    heads._choose = lambda *args: seen.append(choose(*args)) or seen[-1]
    for _ in range(2):
        torch.manual_seed(0)  # for the first stage, which samples
        train_step(heads, *make_batch(0, [(3, 40)]))
    ((first,), (second,)) = seen
    cost = first.ohem_loss_cls + first.ohem_loss_box_reg
    # The two hard examples by falling loss, then others.
    assert len(first) == len(second) > 2
    assert cost[0] >= cost[1] > cost[2:].min()
    assert first.proposal_boxes.tensor.equal(second.proposal_boxes.tensor)


def test_every_roi_that_is_not_hard_is_drawn_as_often():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5)
    heads.train()
    features, proposals, targets = make_batch(0, [(0, 24)])  # all background
    with EventStorage():
        labelled, cost = heads.label_and_rank_proposals(features, proposals, targets)
        labelled[0].number = torch.arange(24)
        times, rounds = torch.zeros(24), 4000
        torch.manual_seed(0)
        for _ in range(rounds):
            (chosen,) = heads._choose(labelled, cost, heads._figures[0])
            times[chosen.number] += 1
    is_hard = times == rounds
    assert int(is_hard.sum()) == 4
    # 4 of the other 20: 800 times each, with a standard deviation of 25.
    assert (times[~is_hard] - 800).abs().max() < 130


@pytest.mark.parametrize("name", FAMILIES)
def test_every_head_learns_what_the_plain_head_learns_of_the_same_rois(name, monkeypatch):
    heads, plain, batch = make_family(name, 3, [(3, 50), (1, 20)], **extras(name))
    heads.ohem = OHEMOptions(hard_fraction=0.5)
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
    choose = heads._choose

    def choose_few(rois, cost, figures):
        labelled.append((rois, cost))
        heads.batch_size_per_image = 6
        return choose(rois, cost, figures)

    heads._choose = choose_few
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
    with pytest.raises(ValueError, match=r"CASCADE_STAGES is \(0, 3\), .* in \[0, 3\)"):
        build_roi_heads(cfg, SHAPES)


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


@pytest.mark.parametrize("append_gt", [True, False])
def test_masks_and_keypoints_follow_the_selected_rois(append_gt):
    heads = make_heads("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", append_gt, masks=True, keypoints=True)
    batch = make_batch(5, [(3, 40), (2, 40)], masks=True, keypoints=True)
    mined, losses, _ = train_step(heads, *batch)
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_keypoint"}
    assert all(x.has("gt_masks") and x.has("gt_keypoints") for x in mined)
    assert not any(x.has("gt_index") for x in mined)


def test_ground_truth_is_indexed_for_the_selected_rois_only(monkeypatch):
    indexed = []
    batch = make_batch(5, [(3, 300)], masks=True)
    masks = type(batch[2][0].gt_masks)
    getitem = masks.__getitem__

    def spy(self, item):
        result = getitem(self, item)
        indexed.append(len(result))
        return result

    monkeypatch.setattr(masks, "__getitem__", spy)
    mined, _, _ = train_step(make_heads(masks=True), *batch)
    assert len(mined[0]) == 8
    assert max(indexed) <= 8


def test_learns_what_the_plain_head_learns_of_the_same_rois(monkeypatch):
    """Losses, and gradients of weights and features: nothing of the other RoIs gets through."""
    heads = make_heads(masks=True, keypoints=True)
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


def test_logged_figures():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0)
    batch = make_batch(9, [(3, 50), (2, 40)])
    mined, losses, logged = train_step(heads, *batch)
    foreground = [(x.gt_classes < NUM_CLASSES).sum().item() for x in mined]
    assert logged["roi_head/num_fg_samples"] == sum(foreground) / 2
    assert logged["roi_head/num_bg_samples"] == 8 - sum(foreground) / 2
    trained = sum(losses.values()).item()
    assert logged["ohem/cost_of_selected"] == pytest.approx(trained, rel=1e-5)

    everything = make_heads(
        "MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000
    )
    all_mined, all_losses, all_logged = train_step(everything, *batch)
    assert logged["ohem/cost_of_all"] == pytest.approx(sum(all_losses.values()).item(), rel=1e-5)
    all_foreground = sum((x.gt_classes < NUM_CLASSES).sum().item() for x in all_mined)
    assert logged["ohem/share_of_fg_selected"] == pytest.approx(sum(foreground) / all_foreground)
    assert all_logged["ohem/share_of_fg_selected"] == 1


def test_mined_rois_carry_what_the_mining_saw():
    heads = make_heads()
    mined, losses, _ = train_step(heads, *make_batch(9, [(3, 50)]))
    assert mined[0].ohem_loss_cls.mean().item() == pytest.approx(losses["loss_cls"].item())
    assert mined[0].ohem_loss_box_reg.mean().item() == pytest.approx(losses["loss_box_reg"].item())
    assert not mined[0].ohem_loss_cls.requires_grad
    assert mined[0].ohem_pred_classes.shape == (8,)


@pytest.mark.parametrize("append_gt", [True, False])
@pytest.mark.parametrize(
    "sizes", [[(0, 20)], [(0, 20), (2, 20)], [(2, 0)], [(0, 0)], [(0, 0), (0, 0)]]
)
def test_images_without_objects_or_proposals(append_gt, sizes):
    heads = make_heads("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", append_gt, masks=True, keypoints=True)
    batch = make_batch(1, sizes, masks=True, keypoints=True)
    mined, losses, _ = train_step(heads, *batch)
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    heads.ohem = OHEMOptions(hard_fraction=0.5)
    chosen, losses, _ = train_step(heads, *batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    heads.batch_size_per_image = 4
    for x, rois, targets in zip(chosen, mine_slowly(heads, *batch), batch[2]):
        assert_mined([x[: len(rois)]], [rois], [targets])


def test_only_ignored_rois():
    """With the labels (0, -1, 1) a RoI between the thresholds is neither trained on nor ranked."""
    heads = make_heads(
        "MODEL.ROI_HEADS.IOU_THRESHOLDS",
        [0.01, 0.99],
        "MODEL.ROI_HEADS.IOU_LABELS",
        [0, -1, 1],
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT",
        False,
    )
    features, proposals, targets = make_batch(1, [(1, 3)])
    box = targets[0].gt_boxes.tensor
    proposals[0].proposal_boxes = Boxes((box + torch.tensor([0, 0, -1.0, 0])).repeat(3, 1))
    mined, losses, _ = train_step(heads, features, proposals, targets)
    assert len(mined[0]) == 0
    sum(losses.values()).backward()
    heads.ohem = OHEMOptions(hard_fraction=0.5)
    chosen, _, _ = train_step(heads, features, proposals, targets)
    assert len(chosen[0]) == 0


def test_background_below_the_lower_bound_is_left_out():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.1)
    features, proposals, targets = make_batch(1, [(1, 3), (0, 5)])
    x0, y0, x1, y1 = targets[0].gt_boxes.tensor[0].tolist()
    far, near = [x1 + 1, y1 + 1, x1 + 9, y1 + 9], [x0, y0, x1, y0 + 0.3 * (y1 - y0)]
    proposals[0].proposal_boxes = Boxes(torch.tensor([far, near, [x0, y0, x1, y1]]))
    mined, _, _ = train_step(heads, features, proposals, targets)
    assert sorted(mined[0].gt_classes.tolist())[-1] == BACKGROUND
    background = mined[0][mined[0].gt_classes == BACKGROUND]
    torch.testing.assert_close(background.proposal_boxes.tensor, torch.tensor([near]))
    assert len(mined[1]) == 0


def test_without_box_loss_the_true_class_decides():
    heads = make_heads(
        "MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_BOX_REG", 0.0, "MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0
    )
    mined, _, _ = train_step(heads, *make_batch(9, [(3, 50)]))
    probability = (-mined[0].ohem_loss_cls).exp()
    assert probability.tolist() == sorted(probability.tolist())


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


def test_no_config_keys_needed():
    cfg = make_cfg()
    del cfg.MODEL.ROI_HEADS["OHEM"]
    assert build_roi_heads(cfg, SHAPES).ohem == OHEMOptions()


def test_built_from_arguments():
    given = OHEMROIHeads.from_config(make_cfg(), SHAPES)
    given["ohem"] = OHEMOptions(nms_thresh=0.5, scope="batch")
    heads = OHEMROIHeads(**given)
    assert heads.ohem.nms_thresh == 0.5
    mined, _, _ = train_step(heads, *make_batch(1, [(2, 30)]))
    assert len(mined[0]) == 8
    del given["ohem"]
    assert OHEMROIHeads(**given).ohem == OHEMOptions()


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
    with pytest.raises(InputError, match=f"NAME is {head}, but MODEL.* expected {expected}$"):
        build_roi_heads(cfg, SHAPES)


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


def test_each_figure_is_logged_once_in_a_step():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1, 2), name="OHEMCascadeROIHeads")
    heads.train()
    with EventStorage() as storage:
        heads(None, *make_batch(0, [(3, 40)]))
    assert "stage2/roi_head/num_fg_samples" in storage.histories()
    assert {len(h.values()) for h in storage.histories().values()} == {1}
    # Detectron2's console line shows what has "loss" in its name, and so the ratio of one stage.
    ratios = [name for name in storage.histories() if "_ratio" in name]
    assert ratios == ["ohem/loss_ratio", "stage1/ohem/cost_ratio", "stage2/ohem/cost_ratio"]


def test_figures_of_classes_are_those_of_each_stage():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (2, 0), name="OHEMCascadeROIHeads")
    heads.train()
    seen = []  # of a step, first what the first stage mined, then the third
    heads.observers.append(lambda mined: seen.append(mined[0]))
    with EventStorage(start_iter=1) as storage:
        for seed in range(PERIOD):
            heads(None, *make_batch(seed, [(3, 40)]))
            storage.step()
        logged = storage.latest()
    assert len(seen) == 2 * PERIOD
    for prefix, mined in ("", seen[::2]), ("stage2/", seen[1::2]):
        losses = []
        for x in mined:
            concerned = torch.where(x.gt_classes == BACKGROUND, x.ohem_pred_classes, x.gt_classes)
            losses += (x.ohem_loss_cls + x.ohem_loss_box_reg)[concerned == 1].tolist()
        name = f"{prefix}ohem_class/1"
        assert logged[f"{name}/selected"] == (len(losses) / PERIOD, PERIOD)
        assert logged[f"{name}/cost"][0] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_loss_without_gradients_is_no_step():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1), name="OHEMCascadeROIHeads")
    heads.observers.append(lambda mined: pytest.fail("is for training"))
    with torch.no_grad():
        mined, losses, logged = train_step(heads, *make_batch(0, [(3, 40)]))
    assert mined
    assert "loss_cls_stage0" in losses
    assert not [name for name in logged if "ohem" in name]


WARMUP_ITERS = "MODEL.ROI_HEADS.OHEM.WARMUP_ITERS"


@pytest.mark.parametrize(
    ("name", "stages"),
    [*((name, (0, 1, 2)) for name in FAMILIES), ("OHEMCascadeROIHeads", (1,))],
)
def test_during_the_warm_up_rois_are_sampled_as_by_the_extended_head(name, stages):
    opts = []
    if name == "OHEMCascadeROIHeads":
        opts = ["MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", stages]
    batch = make_batch(0, [(3, 60), (0, 20), (2, 50)])
    if name == "OHEMRROIHeads":
        batch = rotated(batch, 0)
    heads = make_heads(WARMUP_ITERS, 5, *opts, name=name)
    seen = []
    heads.observers.append(seen.extend)
    plain, mining = make_heads(name=FAMILIES[name][0]), make_heads(*opts, name=name)
    for iteration, other in ((0, plain), (4, plain), (5, mining), (6, mining)):
        of_both = []
        for h in (heads, other):
            torch.manual_seed(iteration)
            h.train()
            with EventStorage(iteration) as storage:
                of_both.append((h(None, *batch)[1], storage.latest()))
        assert of_both[0] == of_both[1]
        assert bool(seen) == (other is mining)


def test_what_is_no_step_does_not_end_the_warm_up_nor_begin_it_again():
    batch = make_batch(0, [(3, 60)])
    heads, plain, mining = (
        make_heads(WARMUP_ITERS, 5),
        make_heads(name="StandardROIHeads"),
        make_heads(),
    )
    for iteration, other in ((4, plain), (5, mining)):
        with EventStorage(iteration):
            heads.train()(None, *batch)
        of_both = []
        for h in (heads, other):
            torch.manual_seed(0)
            # As PreciseBN calls it, whose storage begins at 0; and a validation, at any number.
            with torch.no_grad(), EventStorage(9 - iteration):
                of_both.append(h.train()(None, *batch)[1])
        assert of_both[0] == of_both[1]
    heads.eval()(None, *batch[:2])  # where no events are stored


def test_the_tools_mine_with_a_warm_up_too():
    batch = make_batch(0, [(3, 60)])
    heads = make_heads(WARMUP_ITERS, 5)
    train_step(heads, *batch)
    mined = []
    for h in (heads, make_heads()):
        with EventStorage():
            mined += h.mine(*batch)
    assert mined[0].proposal_boxes.tensor.equal(mined[1].proposal_boxes.tensor)


def test_to_mine_without_training_leaves_no_trace():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1), name="OHEMCascadeROIHeads")
    heads.observers.append(lambda mined: pytest.fail("is for training"))
    heads.train()
    with EventStorage() as storage:
        (mined,) = heads.mine(*make_batch(0, [(3, 40)]))
    assert mined.has("ohem_loss_cls")
    assert storage.histories() == {}


def test_the_lower_bound_of_background_is_that_of_the_stages_that_mine():
    lo = "MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.3
    stages = "MODEL.ROI_HEADS.OHEM.CASCADE_STAGES"
    first = make_heads(*lo, name="OHEMCascadeROIHeads")
    assert 0.3 in first.proposal_matcher.thresholds
    second = make_heads(*lo, stages, (1,), name="OHEMCascadeROIHeads")
    assert 0.3 not in second.proposal_matcher.thresholds

    choose, seen = second._choose, []
    second._choose = lambda labelled, *args: seen.extend(labelled) or choose(labelled, *args)
    batch = make_batch(0, [(3, 40), (0, 20)])
    train_step(second, *batch)
    iou = pairwise_iou(seen[0].proposal_boxes, batch[2][0].gt_boxes).max(dim=1).values
    assert len(iou) > 0
    assert iou.min() >= 0.3
    assert len(seen[1]) == 0  # where there is no object, there is no overlap


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


def test_observers_see_each_stage_that_mines():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1, 2), name="OHEMCascadeROIHeads")
    seen = []
    heads.observers.append(seen.append)
    train_step(heads, *make_batch(0, [(3, 40)]))
    assert len(seen) == 2


def test_a_box_branch_of_its_own_without_read_boxes(caplog):
    class Plain(StandardROIHeads):
        def _forward_box(self, features, proposals):
            return super()._forward_box(features, proposals)

    type("Mine", (OHEMMixin, Plain), {})
    assert "class Mine has a _forward_box of its own, and no read_boxes" in caplog.text
    caplog.clear()
    type("Mine", (OHEMMixin, Plain), {"read_boxes": lambda self, features, proposals: None})
    assert not caplog.text


def test_the_heads_are_called_not_their_forward():
    with pytest.raises(RuntimeError, match="expected a call of the heads themselves"):
        make_heads().forward(None, *make_batch(0, [(3, 40)]))


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


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("OHEM.NMS_THRESH", -0.5, "a number of 0 or more"),
        ("OHEM.NMS_THRESH", math.nan, "a number of 0 or more"),
        ("OHEM.SCOPE", "batches", "'image' or 'batch'"),
        ("OHEM.POSITIVE_FRACTION", 25, r"None or a number in \[0, 1\]"),
        ("OHEM.POSITIVE_FRACTION", "none", r"None or a number in \[0, 1\]"),
        ("OHEM.HARD_FRACTION", 0.0, r"a number in \(0, 1\]"),
        ("OHEM.HARD_FRACTION", 50.0, r"a number in \(0, 1\]"),
        ("OHEM.WARMUP_ITERS", -1, "an integer of 0 or more"),
        ("OHEM.BG_IOU_LO", -0.1, r"a number in \[0, 1\)"),
        ("OHEM.BG_IOU_LO", 0.5, "less than 0.5"),
        ("OHEM.LOSS_WEIGHT_CLS", -1.0, "a number of 0 or more"),
        ("OHEM.LOSS_WEIGHT_BOX_REG", math.inf, "a number of 0 or more"),
        ("OHEM.CASCADE_STAGES", (), "a tuple of at least one stage"),
        ("OHEM.CASCADE_STAGES", (0.5,), "a tuple of at least one stage"),
        ("BATCH_SIZE_PER_IMAGE", 0, "1 or more"),
    ],
)
def test_wrong_values_are_refused_when_the_model_is_built(key, value, expected):
    cfg = make_cfg(f"MODEL.ROI_HEADS.{key}", value)
    with pytest.raises(ValueError, match=f"MODEL.ROI_HEADS.{key} is .*, expected {expected}") as e:
        build_roi_heads(cfg, SHAPES)
    assert str(value) in str(e.value)


def test_both_weights_zero_are_refused():
    cfg = make_cfg(
        "MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_CLS", 0.0, "MODEL.ROI_HEADS.OHEM.LOSS_WEIGHT_BOX_REG", 0.0
    )
    with pytest.raises(ValueError, match=r"LOSS_WEIGHT_CLS and .*LOSS_WEIGHT_BOX_REG are both 0"):
        build_roi_heads(cfg, SHAPES)


def test_unknown_keys_are_refused():
    cfg = make_cfg()
    cfg.MODEL.ROI_HEADS.OHEM.NMS_TRESH = 0.5
    with pytest.raises(ValueError, match=r"OHEM.NMS_TRESH is unknown, expected one of NMS_THRESH"):
        build_roi_heads(cfg, SHAPES)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("number", [2, 8])
def test_rois_are_read_in_pieces_of_the_budget_or_of_the_fewest(name, number, monkeypatch):
    monkeypatch.setattr(OHEMMixin, "_fewest_at_a_time", 8)  # 4 of each of two images
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", number, name=name)
    everything = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000, name=name)
    batch = make_batch(0, [(3, 40), (2, 30)])
    features, proposals, targets = rotated(batch, 0) if name == "OHEMRROIHeads" else batch
    sizes = []
    read_boxes = heads.read_boxes

    def spy(features, proposals):
        sizes.extend(len(x) for x in proposals)
        return read_boxes(features, proposals)

    heads.read_boxes = spy
    costs = []
    for h in (heads, everything):
        with EventStorage():
            costs.append(h.label_and_rank_proposals(features, proposals, targets)[1])
    torch.testing.assert_close(*costs)
    assert max(sizes) == (number if name == "OHEMRes5ROIHeads" else max(number, 4))
    assert sum(sizes) == len(costs[0])


def test_batch_normalization_sees_all_rois_together():
    heads = make_heads(
        *(f"{BOX_HEAD}.NORM", "BN", f"{BOX_HEAD}.NUM_CONV", 1),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2),
    )
    sizes = []
    heads.box_predictor.register_forward_hook(lambda m, args, output: sizes.append(len(args[0])))
    train_step(heads, *make_batch(0, [(3, 40)]))
    assert sizes == [43, 2]


def test_the_federated_loss_chooses_its_classes_by_all_rois_together():
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2)
    predictor = heads.box_predictor
    predictor.use_sigmoid_ce = predictor.use_fed_loss = True
    predictor.fed_loss_num_classes, predictor.fed_loss_cls_weights = 2, torch.ones(NUM_CLASSES)
    sizes = []
    predictor.register_forward_hook(lambda m, args, output: sizes.append(len(args[0])))
    train_step(heads, *make_batch(0, [(3, 40)]))
    assert sizes == [43, 2]


def test_batch_normalization_without_a_single_roi():
    heads = make_heads(f"{BOX_HEAD}.NORM", "BN", f"{BOX_HEAD}.NUM_CONV", 1)
    features, proposals, targets = make_batch(0, [(0, 0), (0, 0)])
    with EventStorage():
        labelled, cost = heads.label_and_rank_proposals(features, proposals, targets)
    assert [len(x) for x in labelled] == [0, 0]
    assert cost.shape == (0,)
