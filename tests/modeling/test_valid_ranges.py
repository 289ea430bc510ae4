"""At each scale, only what is of its sizes counts: for heads, RPNs and test-time augmentation."""

import copy
import math
import pickle
from unittest import mock

import numpy as np
import pytest
import reference
import torch
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.modeling import build_proposal_generator
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from mined_rois import assert_mined, extras, make_family, mine_slowly, set_options, watch
from small_heads import FAMILIES, SHAPES, SIZE, make_batch, make_heads, rotated, train_step
from small_models import SHRINK_OPTS, ZOO, build_from, make_inputs

from ohem_d2 import GroundTruth, add_ohem_config
from ohem_d2.errors import InputError
from ohem_d2.evaluation.tta import TTA
from ohem_d2.modeling.ignore_regions import outside_regions, valid_of
from ohem_d2.modeling.valid_ranges import ValidRange, ValidSizes, are_near, are_valid, sizes_at
from ohem_d2.training.config_file import load_config

SIZES = [(4, 40), (0, 20), (3, 30)]
ALL = (0.0, math.inf)
RANGES = st.sampled_from([ALL, (0.0, 11.0), (9.0, 14.0), (12.0, math.inf), (30.0, 31.0)])
PAPERS = [ValidRange(480, 120, math.inf), ValidRange(800, 40, 160), ValidRange(1400, 0, 80)]


def boxes_of(*rows):
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))


def with_sizes(targets, smallest, largest):
    """The objects of these sizes, and the others as invalid ones; by the reference."""
    known = []
    for t in targets:
        boxes = t.gt_boxes.tensor.tolist()
        count = torch.tensor([reference.counts(b, smallest, largest) for b in boxes]).bool()
        valid = ValidSizes(smallest, largest, t.gt_boxes[~count])
        fields = t[count].get_fields()
        known.append(GroundTruth(t.image_size, t.gt_boxes[[]], valid, **fields))
    return known


def test_sizes_and_overlaps_by_hand():
    boxes = boxes_of([0, 0, 10, 10], [0, 0, 20, 5], [0, 0, 9, 11], [5, 5, 5, 9])
    assert are_valid(boxes, 10, 20).tolist() == [True, True, False, False]
    assert are_valid(boxes, 0, 9.96).tolist() == [False, False, True, True]
    assert are_valid(boxes, *ALL).all()
    turned = RotatedBoxes(torch.tensor([[9.0, 9, 10, 10, 30], [9, 9, 30, 5, 45]]))
    assert are_valid(turned, 0, 10).tolist() == [True, False]
    invalid = boxes_of([0, 0, 10, 10], [50, 50, 60, 60])
    # IoU of 0.3, of a little more, and of 1 with the second.
    near = boxes_of([0, 0, 3, 10], [0, 0, 3.1, 10], [50, 50, 60, 60], [20, 20, 30, 30])
    assert are_near(near, invalid).tolist() == [False, True, True, False]


def test_a_box_of_no_size_is_for_others_to_find():
    boxes = boxes_of([0, 0, math.nan, 5], [5, 0, 0, 5])
    assert are_valid(boxes, *ALL).all()


@pytest.mark.parametrize(
    ("size", "max_size", "expected"),
    [
        ((800, 1066), 2000, (40, 160)),
        ((1066, 800), 2000, (40, 160)),
        ((480, 640), 2000, (120, math.inf)),
        ((1400, 1866), 2000, (0, 80)),
        ((1000, 1333), 1333, (0, 80)),  # 1400, but for the limit
        ((800, 1333), 1333, (0, 160)),  # which makes it the image at 800
        ((400, 2000), 2000, ALL),  # and this the same at all scales
    ],
)
def test_the_scale_of_an_image(size, max_size, expected):
    # From an image of twice the size, in whose pixels the ranges are.
    resize = T.ResizeTransform(2 * size[0], 2 * size[1], *size)
    assert sizes_at(PAPERS, max_size, T.TransformList([resize])) == tuple(x / 2 for x in expected)


def test_sizes_are_those_of_the_file():
    crop, flip = T.CropTransform(10, 20, 400, 300), T.HFlipTransform(400)
    transforms = T.TransformList([crop, T.ResizeTransform(300, 400, 800, 1067), flip])
    smallest, largest = sizes_at(PAPERS, 2000, transforms)
    assert smallest == pytest.approx(40 * 800 / 300, rel=1e-3)
    assert largest == pytest.approx(160 * 800 / 300, rel=1e-3)
    # What counts is what counts in the file, but for rounding.
    box = np.array([[60.0, 60, 60 + 41, 60 + 41]])
    assert are_valid(Boxes(transforms.apply_box(box)), smallest, largest).all()
    box = np.array([[60.0, 60, 60 + 39, 60 + 39]])
    assert not are_valid(Boxes(transforms.apply_box(box)), smallest, largest).any()


@settings(max_examples=60, deadline=None)
@given(
    edges=st.lists(st.integers(16, 900), min_size=1, max_size=4, unique=True),
    shape=st.tuples(st.integers(20, 900), st.integers(20, 900)),
    max_size=st.integers(100, 1500),
    drawn=st.integers(0, 3),
)
def test_the_range_is_that_of_the_scale_that_was_drawn(edges, shape, max_size, drawn):
    """Or of those that give the same image."""
    ranges = [ValidRange(edge, edge, edge + 0.5) for edge in edges]
    edge = edges[drawn % len(edges)]
    resize = T.ResizeShortestEdge.get_output_shape
    size = resize(*shape, edge, max_size)
    sizes = sizes_at(ranges, max_size, T.TransformList([T.ResizeTransform(*shape, *size)]))
    same = [x for x in edges if resize(*shape, x, max_size) == size]
    scale = math.sqrt(size[0] * size[1] / (shape[0] * shape[1]))
    assert sizes == pytest.approx((min(same) * scale, (max(same) + 0.5) * scale))


@pytest.mark.parametrize(
    "after",
    [
        T.CropTransform(0, 0, 800, 800),  # as large as the image at 800
        T.CropTransform(7, 9, 480, 640),
        T.PadTransform(0, 0, 400, 800, 1867, 1400),
        T.RotationTransform(1400, 1867, 30),
        T.TransformList([T.HFlipTransform(1867), T.CropTransform(0, 0, 800, 800)]),
    ],
)
def test_the_scale_is_not_that_of_a_crop_after_it(after):
    transforms = T.TransformList([T.ResizeTransform(480, 640, 1400, 1867), after])
    assert sizes_at(PAPERS, 2000, transforms) == pytest.approx((0, 80 * 1400 / 480), rel=1e-3)


@pytest.mark.parametrize(
    "transforms",
    [
        [T.ResizeTransform(480, 640, 1400, 1867), T.ResizeTransform(1400, 1867, 700, 933)],
        [T.ResizeTransform(480, 640, 1400, 1867), T.ExtentTransform((0, 0, 933, 700), (800, 1067))],
        [T.ResizeTransform(480, 640, 700, 933)],
        [T.NoOpTransform()],
    ],
)
def test_an_image_of_no_scale(transforms):
    with pytest.raises(InputError, match="but an image went through .*Transform, expected nothing"):
        sizes_at(PAPERS, 2000, T.TransformList(transforms))


def test_an_image_that_is_resized_before_its_scale_is_drawn():
    resizes = [T.ResizeTransform(960, 1280, 480, 640), T.ResizeTransform(480, 640, 800, 1067)]
    sizes = sizes_at(PAPERS, 2000, T.TransformList(resizes))
    assert sizes == pytest.approx((40 * 800 / 960, 160 * 800 / 960), rel=1e-3)


def test_they_stay_with_the_objects():
    valid = ValidSizes(3.0, 9.0, boxes_of([0, 0, 20, 20]))
    target = GroundTruth((SIZE, SIZE), boxes_of(), valid, gt_boxes=boxes_of([1, 1, 9, 9]))
    for same in (
        target.to("cpu"),
        target[[]],
        copy.deepcopy(target),
        pickle.loads(pickle.dumps(target)),
    ):
        assert valid_of(same)[:2] == (3.0, 9.0)
        assert valid_of(same).invalid_objects.tensor.equal(valid.invalid_objects.tensor)
        assert same.get_fields().keys() == {"gt_boxes"}
    assert valid_of(target.to("meta")).invalid_objects.device.type == "meta"
    assert valid_of(Instances((SIZE, SIZE))) is None


# ---------------------------------------------------------------------------------------- heads


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=3),
    valid=RANGES,
)
def test_trains_on_what_the_reference_selects(seed, sizes, valid):
    heads = make_heads(seed=seed % 7)
    features, proposals, targets = make_batch(seed, sizes)
    targets = with_sizes(targets, *valid)
    mined, losses, _ = train_step(heads, features, proposals, targets)
    assert_mined(mined, mine_slowly(heads, features, proposals, targets), targets)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("valid", [(0.0, 11.0), (9.0, 14.0)])
def test_every_head_mines_what_counts(name, valid):
    heads, _, (features, proposals, targets) = make_family(name, 1, SIZES, **extras(name))
    targets = with_sizes(targets, *valid)
    seen = watch(heads)
    _, losses, _ = train_step(heads, features, proposals, targets)
    assert_mined(seen[0], mine_slowly(heads, features, proposals, targets), targets)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("how", [{"start_iter": 5}, {"sampler": "RandomSampler"}, {}])
def test_nothing_else_is_drawn(how):
    heads, _, (features, proposals, targets) = make_family("OHEMROIHeads", 0, SIZES)
    set_options(heads, **how)
    heads.batch_size_per_image = 100  # all of them
    targets = with_sizes(targets, 9.0, 14.0)
    seen = watch(heads)
    train_step(heads, features, proposals, targets)
    expected = mine_slowly(heads, features, proposals, targets, nms_thresh=1.0)
    for x, rois in zip(seen[0], expected):
        boxes = torch.tensor([box for box, _, _ in rois]).reshape(-1, 4)
        assert sorted(x.proposal_boxes.tensor.tolist()) == sorted(boxes.tolist())
    assert any(len(x) for x in seen[0])
    assert sum(map(len, seen[0])) < sum(map(len, proposals))


def test_later_stages_of_a_cascade_leave_out_the_same():
    heads, _, (features, proposals, targets) = make_family("OHEMCascadeROIHeads", 0, SIZES)
    heads.batch_size_per_image = 100
    trained = []
    for predictor in heads.box_predictor:
        losses = predictor.losses

        def spy(predictions, proposals, losses=losses):
            trained.append(proposals)
            return losses(predictions, proposals)

        predictor.losses = spy
    train_step(heads, features, proposals, with_sizes(targets, 9.0, 14.0))
    boxes = [x.proposal_boxes for of_stage in trained for x in of_stage]
    assert all(are_valid(x, 9.0, 14.0).all() for x in boxes)
    assert all(any(len(x) for x in of_stage) for of_stage in trained)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", [{"start_iter": 5}, {}], ids=["sampling", "mining"])
def test_where_all_sizes_count_all_is_as_before(name, how):
    """Bit by bit: losses, gradients and the random state."""
    results = []
    for is_known in (False, True):
        heads, _, (features, proposals, targets) = make_family(name, 0, SIZES, **extras(name))
        set_options(heads, **how)
        torch.manual_seed(0)
        targets = with_sizes(targets, *ALL) if is_known else targets
        _, losses, _ = train_step(heads, features, proposals, targets)
        state = torch.get_rng_state()
        sum(losses.values()).backward()
        results.append((losses, state, [p.grad for p in heads.parameters()]))
    assert_same(*results)


def assert_same(one, other):
    (losses, state, gradients), (others, other_state, other_gradients) = one, other
    assert losses.keys() == others.keys()
    assert all(losses[k].equal(v) for k, v in others.items())
    assert state.equal(other_state)
    for a, b in zip(gradients, other_gradients):
        assert (a is None and b is None) or a.equal(b)


def test_what_an_object_is_matched_to_stays_near_invalid_ones():
    valid = ValidSizes(0.0, 24.0, boxes_of([10, 10, 34, 36]))
    target = GroundTruth((SIZE, SIZE), boxes_of(), valid, gt_boxes=boxes_of([10, 10, 30, 30]))
    matcher = make_heads().proposal_matcher
    boxes = [[10, 10, 30, 31], [20, 20, 36, 36], [40, 40, 50, 50], [30, 30, 60, 60]]
    proposals = Instances((SIZE, SIZE), proposal_boxes=boxes_of(*boxes))
    (kept,) = outside_regions([proposals], [target], matcher)
    assert kept.proposal_boxes.tensor.tolist() == [boxes[0], boxes[2]]


# ---------------------------------------------------------------------------------------- RPNs

RPNS = ("IgnoreRPN", "IgnoreRRPN", "OHEMRPN")


def make_rpn(name, everything=True):
    cfg = get_cfg()
    add_ohem_config(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = name
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3"]
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 10**6 if everything else 16
    cfg.MODEL.RPN.POSITIVE_FRACTION = 1.0 if everything else 0.5
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16]]
    if "RR" in name:
        cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
        cfg.MODEL.ANCHOR_GENERATOR.ANGLES = [[-45, 0, 45]]
        cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1.0,) * 5
    torch.manual_seed(0)
    return build_proposal_generator(cfg, SHAPES)


def rpn_batch(name, seed, sizes):
    batch = make_batch(seed, sizes)
    features, _, targets = rotated(batch, seed) if "RR" in name else batch
    return features, targets


def call(rpn, features, targets):
    images = ImageList(torch.zeros(len(targets), 3, SIZE, SIZE), [(SIZE, SIZE)] * len(targets))
    with EventStorage():
        return rpn(images, features, targets)[1]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    number=st.integers(0, 4),
    name=st.sampled_from(RPNS),
    valid=RANGES,
)
def test_anchors_near_invalid_objects_are_left_out(seed, number, name, valid):
    rpn = make_rpn(name)
    features, targets = rpn_batch(name, seed, [(number, 0), (2, 0)])
    anchors = rpn.anchor_generator([features[f] for f in rpn.in_features])
    known = with_sizes(targets, *valid)
    plain = make_rpn("RRPN" if "RR" in name else "RPN")
    before, _ = plain.label_and_sample_anchors(anchors, known)
    after, _ = rpn.label_and_sample_anchors(anchors, known)
    together = type(anchors[0]).cat(anchors).tensor.tolist()
    for x, y, t in zip(before, after, known):
        invalid = t.valid.invalid_objects.tensor.tolist()
        ious = [max((reference.iou(a, o) for o in invalid), default=0) for a in together]
        expected = [-1 if iou > 0.3 else label for iou, label in zip(ious, x.tolist())]
        differ = [i for i, (a, b) in enumerate(zip(y.tolist(), expected)) if a != b]
        assert all(abs(ious[i] - 0.3) < 1e-4 for i in differ)


def test_an_rpn_that_mines_leaves_them_out():
    rpn = make_rpn("OHEMRPN", everything=False)
    features, targets = rpn_batch("OHEMRPN", 0, SIZES)
    known = with_sizes(targets, 0.0, 11.0)
    near = [t.valid.invalid_objects for t in known]
    assert sum(map(len, near)) == 2
    losses, seen = RPN.losses, []

    def spy(self, anchors, logits, labels, *args):
        seen.append((Boxes.cat(anchors), labels))
        return losses(self, anchors, logits, labels, *args)

    with mock.patch.object(RPN, "losses", spy):
        call(rpn, features, known)
        call(rpn, features, targets)
    numbers = []
    for anchors, labels in seen:
        of_images = [(anchors[x >= 0], o) for x, o in zip(labels, near) if len(o)]
        numbers.append(sum(int(are_near(x, o).sum()) for x, o in of_images))
    assert numbers[0] == 0 < numbers[1]


@pytest.mark.parametrize("name", RPNS)
def test_an_rpn_where_all_sizes_count_is_as_before(name):
    """Bit by bit: losses, gradients and the random state."""
    results = []
    for is_known in (False, True):
        rpn = make_rpn(name, everything=False)
        features, targets = rpn_batch(name, 0, SIZES)
        torch.manual_seed(1)
        losses = call(rpn, features, with_sizes(targets, *ALL) if is_known else targets)
        state = torch.get_rng_state()
        sum(losses.values()).backward()
        results.append((losses, state, [p.grad for p in rpn.parameters()]))
    assert_same(*results)


# --------------------------------------------------------------------- test-time augmentation


def tta_config(*opts):
    path = ZOO / "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
    sizes = ("TEST.AUG.MIN_SIZES", "(48, 96)", "TEST.AUG.ENABLED", "True")
    return load_config(str(path), [*SHRINK_OPTS, *sizes, *opts])


def test_detections_of_other_sizes_are_dropped_before_scales_are_merged():
    # The file is twice as large as the image that is augmented, 64 by 64.
    cfg = tta_config("INPUT.VALID_RANGES", "((48, 30, 1e9), (96, 0, 40))")
    tta = TTA(cfg, build_from(cfg.clone(), mining=True).eval())
    found = {
        # Sizes in the file, 128 by 128: 32, 29.3 and 53.3.
        48: [[0, 0, 12, 12], [20, 0, 31, 11], [20, 20, 40, 40]],
        # And here: 32, 42.7 and 10.7.
        96: [[0, 0, 24, 24], [40, 0, 72, 32], [80, 80, 88, 88]],
    }

    def inference(inputs, instances, do_postprocess):
        results = []
        for x in inputs:
            shape = tuple(x["image"].shape[1:])
            boxes = boxes_of(*found[shape[0]])
            if len(results) % 2:  # the flipped one
                x0, y0, x1, y1 = boxes.tensor.unbind(1)
                boxes = Boxes(torch.stack([shape[1] - x1, y0, shape[1] - x0, y1], dim=1))
            scores = torch.tensor([0.9, 0.8, 0.7]) - (0.05 if shape[0] == 96 else 0)
            classes = torch.zeros(3, dtype=torch.int64)
            results.append(Instances(shape, pred_boxes=boxes, scores=scores, pred_classes=classes))
        return results

    tta.batch_size = 2  # an image and its flip
    image = {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "height": 128, "width": 128}
    with mock.patch.object(tta.model, "inference", inference):
        (result,) = tta([image])
    kept = result["instances"]
    # Of what both scales find, the box with the higher score.
    expected = [[0, 0, 32, 32], [160 / 3, 160 / 3, 320 / 3, 320 / 3], [320 / 3] * 2 + [352 / 3] * 2]
    torch.testing.assert_close(kept.pred_boxes.tensor, torch.tensor(expected))
    torch.testing.assert_close(kept.scores, torch.tensor([0.9, 0.7, 0.65]))


@pytest.mark.parametrize(
    "path",
    [
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
        "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    ],
)
@pytest.mark.parametrize("rounds", ["0", "1"])
def test_what_is_dropped_suppresses_nothing(path, rounds):
    """Nor does it take the place of what is kept, or vote on it."""
    opts = [*SHRINK_OPTS, "TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", "False"]
    opts += ["TEST.BOX_VOTING.ROUNDS", rounds, "TEST.DETECTIONS_PER_IMAGE", "2"]
    cfg = load_config(str(ZOO / path), opts)
    cfg.MODEL.MASK_ON = False
    cfg.INPUT.VALID_RANGES = ((64, 0, 20),)
    model = build_from(cfg.clone(), mining=True).eval()
    # Too large, and better than what it overlaps; the same elsewhere, and two that count.
    boxes = [[4, 4, 26, 26], [5, 5, 24, 24], [40, 0, 63, 22], [40, 40, 50, 50]]
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    given = Instances((64, 64), proposal_boxes=boxes_of(*boxes), objectness_logits=scores)
    probs = torch.cat([scores[:, None], torch.zeros(4, model.roi_heads.num_classes)], dim=1)
    for x in model.roi_heads._predictors():
        x.predict_probs = lambda predictions, proposals: [probs]
        x.predict_boxes = lambda predictions, proposals: [boxes_of(*boxes).tensor]
    model.proposal_generator.forward = lambda *_: ([given], {})
    image = {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "height": 64, "width": 64}
    with torch.no_grad():
        found = TTA(cfg, model)([image])[0]["instances"]
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([boxes[1], boxes[3]]).float())
    torch.testing.assert_close(found.scores, scores[[1, 3]])


def test_the_model_is_as_before_after_it():
    cfg = tta_config("INPUT.VALID_RANGES", "((48, 30, 1e9), (96, 0, 40))")
    model = build_from(cfg.clone(), mining=True).eval()
    heads, predictor = model.roi_heads, model.roi_heads.box_predictor
    before = heads.box_voting, predictor.test_nms_thresh, predictor.test_topk_per_image
    broken = {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "height": 64, "width": 64}
    fails = mock.patch.object(model, "inference", side_effect=MemoryError)
    with fails, pytest.raises(MemoryError):
        TTA(cfg, model)([broken])
    assert before == (heads.box_voting, predictor.test_nms_thresh, predictor.test_topk_per_image)


def test_augmented_results_are_as_before_where_all_sizes_count():
    cfg = tta_config()
    model = build_from(cfg.clone(), mining=True).eval()
    inputs = make_inputs(model, torch.Generator().manual_seed(0))
    results = []
    for ranges in ((), ((48, 0, math.inf), (96, 0, math.inf)), ((48, 1e6, 1e7), (96, 1e6, 1e7))):
        cfg.INPUT.VALID_RANGES = ranges
        with torch.no_grad():
            results.append(TTA(cfg, model)(inputs[:1])[0]["instances"])
    assert len(results[0]) > 0
    assert results[0].pred_boxes.tensor.equal(results[1].pred_boxes.tensor)
    assert results[0].scores.equal(results[1].scores)
    assert len(results[2]) == 0


def test_masks_of_what_is_kept():
    path = ZOO / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    cfg = load_config(str(path), [*SHRINK_OPTS, "TEST.AUG.MIN_SIZES", "(48, 64)"])
    cfg.INPUT.VALID_RANGES = ((48, 12, math.inf), (64, 0, 12))
    model = build_from(cfg.clone(), mining=True).eval()
    inputs = make_inputs(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = TTA(cfg, model)(inputs[:1])[0]["instances"]
    assert found.pred_masks.shape == (len(found), SIZE, SIZE)


def test_a_scale_of_the_augmentation_without_a_range():
    cfg = tta_config("INPUT.VALID_RANGES", "((48, 30, 1e9),)")
    with pytest.raises(InputError, match=r"ranges for \[48\], expected one for each .* \[48, 96\]"):
        TTA(cfg, build_from(cfg.clone(), mining=True))
