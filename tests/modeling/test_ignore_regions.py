"""What lies in a region to ignore is neither object nor background: heads and RPNs leave it out."""

import copy
import pickle

import pytest
import reference
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model, build_proposal_generator
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, ImageList, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from mined_rois import assert_mined, extras, make_family, mine_slowly, set_options, watch
from small_heads import (
    FAMILIES,
    NUM_CLASSES,
    SHAPES,
    SIZE,
    make_batch,
    make_heads,
    random_boxes,
    train_step,
)
from small_models import SHRINK_OPTS, assert_is_scripted_alike, make_inputs, step, tamed

from ohem_d2 import GroundTruth
from ohem_d2.modeling import labelling, roi_heads
from ohem_d2.modeling.ignore_regions import lie_in, outside_regions, regions_of
from ohem_d2.modeling.ignore_rpn import COUNTERPARTS
from ohem_d2.training.config_file import load_config
from ohem_d2.training.key_checks import check_keys

BACKGROUND = NUM_CLASSES
MATCHER = Matcher([0.5], [0, 1], allow_low_quality_matches=False)
SIZES = [(3, 40), (0, 20), (2, 30)]


def boxes_of(*rows):
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))


def rotated_of(*rows):
    return RotatedBoxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 5))


def with_regions(targets, regions):
    """`regions`: of each image, as tensors."""
    return [
        GroundTruth(t.image_size, type(t.gt_boxes)(r), **t.get_fields())
        for t, r in zip(targets, regions)
    ]


def random_regions(seed, targets):
    """A large one for each image, and two small ones for the first."""
    generator = torch.Generator().manual_seed(seed)
    regions = []
    for i, t in enumerate(targets):
        corner = torch.rand(1, 2, generator=generator) * SIZE / 2
        large = torch.cat([corner, corner + SIZE * 0.6], dim=1)
        boxes = torch.cat([large, random_boxes(generator, 2)]) if i == 0 else large
        if isinstance(t.gt_boxes, RotatedBoxes):
            x0, y0, x1, y1 = boxes.unbind(1)
            angles = torch.rand(len(boxes), generator=generator) * 180 - 90
            boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, angles], dim=1)
        regions.append(boxes)
    return regions


def is_in(box, target):
    return any(reference.lies_in(box, r) for r in target.ignore_regions.tensor.tolist())


def background_in_regions(rois, targets):
    """How many of the RoIs of all images are background that lies in a region."""
    return sum(
        is_in(box, t)
        for x, t in zip(rois, targets)
        for box in x.proposal_boxes.tensor[x.gt_classes == BACKGROUND].tolist()
    )


def test_half_of_a_box_has_to_lie_in_one_region():
    region = [10, 10, 50, 50]
    boxes = boxes_of(
        [0, 20, 20, 30],  # half of it
        [0, 20, 19, 30],  # a little less
        [20, 20, 30, 30],  # all of it
        [0, 0, 60, 60],  # holds the region, which is less than half of it
        [60, 60, 70, 70],
        [20, 20, 20, 30],  # has no area
    )
    assert lie_in(boxes, boxes_of(region)).tolist() == [True, False, True, False, False, False]
    # A box of which two regions hold 0.4 each.
    two = boxes_of([0, 0, 4, 10], [6, 0, 10, 10])
    assert lie_in(boxes_of([0, 0, 10, 10]), two).tolist() == [False]


def test_rotated_boxes_by_hand():
    # A square on its corner has an area of 200; the right half of it lies in the region.
    diamond = [20, 20, 200**0.5, 200**0.5, 45]
    assert lie_in(rotated_of(diamond), boxes_of([19.9, 0, 40, 40])).tolist() == [True]
    assert lie_in(rotated_of(diamond), boxes_of([20.1, 0, 40, 40])).tolist() == [False]
    assert lie_in(rotated_of(diamond), rotated_of([30, 20, 40, 20.2, 90])).tolist() == [True]
    assert lie_in(rotated_of(diamond), rotated_of([90, 90, 5, 5, 0])).tolist() == [False]


def test_what_an_object_is_matched_to_stays():
    target = GroundTruth(
        (SIZE, SIZE),
        boxes_of([0, 0, 40, 40]),
        gt_boxes=boxes_of([10, 10, 30, 30]),
        gt_classes=torch.tensor([1]),
    )
    boxes = [[10, 10, 30, 29], [0, 0, 20, 20], [45, 45, 60, 60]]
    proposals = Instances((SIZE, SIZE), proposal_boxes=boxes_of(*boxes))
    (kept,) = outside_regions([proposals], [target], MATCHER)
    assert kept.proposal_boxes.tensor.tolist() == [boxes[0], boxes[2]]
    # Without objects, all that lies in a region goes.
    (kept,) = outside_regions([proposals], [target[[]]], MATCHER)
    assert kept.proposal_boxes.tensor.tolist() == [boxes[2]]


def test_regions_stay_with_the_objects_but_are_none():
    target = GroundTruth((SIZE, SIZE), boxes_of([0, 0, 9, 9], [1, 1, 5, 5]), gt_boxes=boxes_of())
    target.gt_classes = torch.zeros(0, dtype=torch.int64)
    assert len(target) == 0
    assert target.get_fields().keys() == {"gt_boxes", "gt_classes"}
    for same in (
        target.to("cpu"),
        target[torch.zeros(0, dtype=torch.int64)],
        copy.deepcopy(target),
        pickle.loads(pickle.dumps(target)),
    ):
        assert regions_of(same).tensor.equal(target.ignore_regions.tensor)
        assert same.get_fields().keys() == target.get_fields().keys()
    assert target.to("meta").ignore_regions.device.type == "meta"
    assert regions_of(Instances((SIZE, SIZE))) is None
    assert regions_of(GroundTruth((SIZE, SIZE), boxes_of())) is None


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=3),
    bg_iou_lo=st.sampled_from([0.0, 0.1]),
)
def test_trains_on_what_the_reference_selects(seed, sizes, bg_iou_lo):
    heads = make_heads("MODEL.ROI_HEADS.OHEM.BG_IOU_LO", bg_iou_lo, seed=seed % 7)
    features, proposals, targets = make_batch(seed, sizes)
    targets = with_regions(targets, random_regions(seed, targets))
    mined, losses, _ = train_step(heads, features, proposals, targets)
    assert_mined(mined, mine_slowly(heads, features, proposals, targets, bg_iou_lo), targets)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_every_head_mines_outside_of_them(name, seed):
    heads, _, (features, proposals, targets) = make_family(name, seed, SIZES, **extras(name))
    targets = with_regions(targets, random_regions(seed, targets))
    seen = watch(heads)
    _, losses, _ = train_step(heads, features, proposals, targets)
    assert_mined(seen[0], mine_slowly(heads, features, proposals, targets), targets)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", [{"start_iter": 5}, {"sampler": "RandomSampler"}, {}])
def test_nothing_in_them_is_drawn_or_logged(name, how):
    heads, _, (features, proposals, targets) = make_family(name, 0, SIZES, **extras(name))
    set_options(heads, **how)
    heads.batch_size_per_image = 100  # all of them
    seen = watch(heads)
    regions = random_regions(0, targets)
    train_step(heads, features, proposals, with_regions(targets, [r[:0] for r in regions]))
    targets = with_regions(targets, regions)
    _, _, logged = train_step(heads, features, proposals, targets)
    before, after = seen
    for x, y, t in zip(before, after, targets):
        expected = sorted(
            box
            for box, label in zip(x.proposal_boxes.tensor.tolist(), x.gt_classes.tolist())
            if label != BACKGROUND or not is_in(box, t)
        )
        assert sorted(y.proposal_boxes.tensor.tolist()) == expected
    assert background_in_regions(before, targets) > 10
    number = sum(int((x.gt_classes == BACKGROUND).sum()) for x in after)
    assert logged["roi_head/num_bg_samples"] == pytest.approx(number / len(after))


@pytest.mark.parametrize("mining", [(0,), (0, 1, 2), (2,)])
def test_no_stage_of_a_cascade_learns_from_them(mining):
    heads, _, (features, proposals, targets) = make_family("OHEMCascadeROIHeads", 0, SIZES)
    set_options(heads, cascade_stages=mining, hard_fraction=1.0, nms_thresh=1.0)
    heads.batch_size_per_image = 100
    trained = []
    for predictor in heads.box_predictor:
        losses = predictor.losses

        def spy(predictions, proposals, losses=losses):
            trained.append(proposals)
            return losses(predictions, proposals)

        predictor.losses = spy
    regions = random_regions(0, targets)
    train_step(heads, features, proposals, targets)
    targets = with_regions(targets, regions)
    _, _, logged = train_step(heads, features, proposals, targets)
    assert [background_in_regions(x, targets) > 0 for x in trained] == [True] * 3 + [False] * 3
    for stage in (1, 2):
        number = sum(int((x.gt_classes == BACKGROUND).sum()) for x in trained[3 + stage])
        logged_number = logged[f"stage{stage}/roi_head/num_bg_samples"]
        assert logged_number == pytest.approx(number / len(SIZES))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", [{"start_iter": 5}, {}], ids=["sampling", "mining"])
def test_without_regions_all_is_as_before(name, how, monkeypatch):
    """Bit by bit: RoIs, losses, gradients and the random state."""
    results = []
    for is_known in (False, True):
        heads, plain, (features, proposals, targets) = make_family(name, 0, SIZES, **extras(name))
        set_options(heads, **how)
        with monkeypatch.context() as patch:
            if is_known:  # an image may have been left without any by a crop
                targets = with_regions(targets, [t.gt_boxes.tensor[:0] for t in targets])
            else:
                for module in (labelling, roi_heads):
                    patch.setattr(module, "outside_regions", lambda proposals, *_: proposals)
            models = [heads] if is_known or not how else [heads, plain]
            for model in models:
                seen = watch(model)
                torch.manual_seed(0)
                _, losses, _ = train_step(model, features, proposals, targets)
                state = torch.get_rng_state()
                sum(losses.values()).backward()
                gradients = [p.grad for p in model.parameters()]
                (rois,) = seen
                results.append((rois, losses, state, gradients))
    first = results[0]
    assert len(results) == (3 if how else 2)
    for rois, losses, state, gradients in results[1:]:
        assert losses.keys() == first[1].keys()
        assert all(losses[k].equal(v) for k, v in first[1].items())
        assert state.equal(first[2])
        for mine, theirs in zip(gradients, first[3]):
            assert (mine is None and theirs is None) or mine.equal(theirs)
        for mine, theirs in zip(rois, first[0]):
            assert mine.proposal_boxes.tensor.equal(theirs.proposal_boxes.tensor)
            assert mine.gt_classes.equal(theirs.gt_classes)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", [{"start_iter": 5}, {}], ids=["sampling", "mining"])
def test_an_image_that_is_one_region_trains_nothing(name, how):
    heads, _, (features, proposals, targets) = make_family(name, 0, [(0, 9)], **extras(name))
    set_options(heads, **how)
    everything = [-SIZE, -SIZE, 2 * SIZE, 2 * SIZE]
    if name == "OHEMRROIHeads":
        everything = [SIZE / 2, SIZE / 2, 3 * SIZE, 3 * SIZE, 0]
    targets = with_regions(targets, [torch.tensor([everything], dtype=torch.float32)])
    _, losses, _ = train_step(heads, features, proposals, targets)
    assert all(loss == 0 for loss in losses.values())


def make_rpn(name, seed=0):
    cfg = get_cfg()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = name
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3"]
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 64
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16]]
    if "RR" in name:
        cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
        cfg.MODEL.ANCHOR_GENERATOR.ANGLES = [[-45, 0, 45]]
        cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1.0,) * 5
    torch.manual_seed(seed)
    return build_proposal_generator(cfg, SHAPES)


def rpn_batch(name, seed, sizes):
    features, _, targets = make_batch(seed, sizes)
    if "RR" in name:
        for t in targets:
            x0, y0, x1, y1 = t.gt_boxes.tensor.unbind(1)
            middle = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, torch.zeros_like(x0)]
            t.remove("gt_boxes")
            t.gt_boxes = RotatedBoxes(torch.stack(middle, dim=1))
    return features, targets


RPNS = [x.__name__ for x in COUNTERPARTS.values()]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), number=st.integers(0, 3), name=st.sampled_from(RPNS))
def test_anchors_in_regions_are_neither_object_nor_background(seed, number, name):
    rpn = make_rpn(name)
    rpn.batch_size_per_image = 10**6  # all of them
    rpn.positive_fraction = 1.0
    features, targets = rpn_batch(name, seed, [(number, 0), (2, 0)])
    anchors = rpn.anchor_generator([features[f] for f in rpn.in_features])
    regions = random_regions(seed, targets)
    known = with_regions(targets, [regions[0], regions[1][:0]])
    plain = make_rpn(name.removeprefix("Ignore"))
    plain.batch_size_per_image, plain.positive_fraction = 10**6, 1.0
    # What Detectron2 takes for background: all but objects, and what it is not sure of.
    before, boxes_before = plain.label_and_sample_anchors(anchors, targets)
    after, boxes = rpn.label_and_sample_anchors(anchors, known)
    together = type(anchors[0]).cat(anchors).tensor.tolist()
    expected = [
        -1 if label == 0 and any(reference.lies_in(a, r) for r in regions[0].tolist()) else label
        for a, label in zip(together, before[0].tolist())
    ]
    near = _on_the_edge(together, regions[0].tolist()) if "RR" in name else set()
    differ = {i for i, (a, b) in enumerate(zip(after[0].tolist(), expected)) if a != b}
    assert differ <= near
    assert after[1].equal(before[1])
    assert all(a.equal(b) for a, b in zip(boxes, boxes_before))


def test_regions_are_looked_for_again_without_the_memory_of_a_gpu(monkeypatch):
    """By Detectron2's fallback, which moves what has a device, as boxes have."""
    rpn = make_rpn(RPNS[0])
    features, targets = rpn_batch(RPNS[0], 0, [(2, 0)])
    anchors = rpn.anchor_generator([features[f] for f in rpn.in_features])
    known = with_regions(targets, random_regions(0, targets))
    rpn.batch_size_per_image, rpn.positive_fraction = 10**6, 1.0
    expected = rpn.label_and_sample_anchors(anchors, known)[0][0]
    moved = []

    def retry(function):
        """In place of Detectron2's: as if all that has a device had been moved."""

        def of_cpu(*args):
            moved.append([type(x) for x in args if hasattr(x, "device")])
            assert len(moved[-1]) == len(args)
            return function(*args)

        return of_cpu

    monkeypatch.setattr("ohem_d2.modeling.ignore_rpn.retry_if_cuda_oom", retry)
    assert rpn.label_and_sample_anchors(anchors, known)[0][0].equal(expected)
    assert moved == [[Boxes, Boxes]]


def _on_the_edge(boxes, regions):
    """Rotated boxes of which a region holds half, but for what single precision rounds."""
    grown = [[[*r[:2], r[2] + d, r[3] + d, r[4]] for r in regions] for d in (0.02, -0.02)]
    return {
        i
        for i, box in enumerate(boxes)
        if len({any(reference.lies_in(box, r) for r in of_size) for of_size in grown}) > 1
    }


@pytest.mark.parametrize("name", RPNS)
def test_an_rpn_without_regions_is_detectron2s(name):
    """Bit by bit: losses, gradients, proposals and the random state."""
    results = []
    for generator in (name.removeprefix("Ignore"), name):
        rpn = make_rpn(generator)
        features, targets = rpn_batch(generator, 0, SIZES)
        if generator == name:
            targets = with_regions(targets, [t.gt_boxes.tensor[:0] for t in targets])
        torch.manual_seed(1)
        images = ImageList(torch.zeros(3, 3, SIZE, SIZE), [(SIZE, SIZE)] * 3)
        with EventStorage():
            proposals, losses = rpn(images, features, targets)
        state = torch.get_rng_state()
        sum(losses.values()).backward()
        results.append((losses, state, [p.grad for p in rpn.parameters()], proposals))
        names = list(rpn.state_dict())
        assert names == list(make_rpn(name).state_dict())
    (losses, state, gradients, proposals), other = results
    assert all(losses[k].equal(v) for k, v in other[0].items())
    assert state.equal(other[1])
    assert all(a.equal(b) for a, b in zip(gradients, other[2]))
    for x, y in zip(proposals, other[3]):
        assert x.proposal_boxes.tensor.equal(y.proposal_boxes.tensor)


@pytest.mark.parametrize("name", RPNS)
def test_an_rpn_draws_as_many_anchors_outside(name):
    rpn = make_rpn(name)
    features, targets = rpn_batch(name, 3, SIZES)
    targets = with_regions(targets, random_regions(3, targets))
    anchors = rpn.anchor_generator([features[f] for f in rpn.in_features])
    labels, _ = rpn.label_and_sample_anchors(anchors, targets)
    together = type(anchors[0]).cat(anchors).tensor
    for x, t in zip(labels, targets):
        assert int((x >= 0).sum()) == rpn.batch_size_per_image
        assert not any(is_in(a, t) for a in together[x == 0].tolist())
    assert rpn._left_out is None


ZOO_MODELS = {
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml": "OHEMROIHeads",
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml": "OHEMRes5ROIHeads",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml": "OHEMCascadeROIHeads",
}


def zoo_model(path, generator, *opts):
    heads = ("MODEL.ROI_HEADS.NAME", ZOO_MODELS[path], *opts)
    torch.manual_seed(0)
    cfg = load_config(path, [*SHRINK_OPTS, *heads, "MODEL.PROPOSAL_GENERATOR.NAME", generator])
    check_keys(cfg)
    return tamed(build_model(cfg))


@pytest.mark.parametrize("path", ZOO_MODELS)
@pytest.mark.parametrize("start_iter", [0, 5])
def test_a_whole_model_without_regions_is_as_with_detectron2s_rpn(path, start_iter):
    """Bit by bit: losses, gradients and the random state."""
    results = []
    for generator in ("RPN", "IgnoreRPN"):
        model = zoo_model(path, generator, "MODEL.ROI_HEADS.OHEM.START_ITER", start_iter)
        inputs = make_inputs(model, torch.Generator().manual_seed(1))
        if generator == "IgnoreRPN":
            for x in inputs:
                x["instances"] = with_regions([x["instances"]], [torch.zeros(0, 4)])[0]
        losses = step(model, inputs)
        state = torch.get_rng_state()
        sum(losses.values()).backward()
        results.append((losses, state, [p.grad for p in model.parameters()]))
    (losses, state, gradients), other = results
    assert all(losses[k].equal(v) for k, v in other[0].items())
    assert state.equal(other[1])
    assert all((a is None and b is None) or a.equal(b) for a, b in zip(gradients, other[2]))


@pytest.mark.parametrize("path", ZOO_MODELS)
def test_a_whole_model_trains_where_there_are_regions(path):
    model = zoo_model(path, "IgnoreRPN")
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    regions = [torch.tensor([[0.0, 0.0, 40.0, 64.0]]), torch.zeros(0, 4)]
    targets = with_regions([x["instances"] for x in inputs], regions)
    for x, t in zip(inputs, targets):
        x["instances"] = t
    mined = []
    model.roi_heads.observers.append(mined.extend)
    losses = step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    num_classes = model.roi_heads.num_classes
    boxes = mined[0].proposal_boxes[mined[0].gt_classes == num_classes]
    assert len(mined[0]) > 0
    assert not lie_in(boxes, targets[0].ignore_regions).any()


def test_a_model_that_ignores_regions_can_be_scripted():
    assert_is_scripted_alike(zoo_model(next(iter(ZOO_MODELS)), "IgnoreRPN"))
