import copy

import pytest
import torch
from detectron2.structures import Boxes, Instances, RotatedBoxes
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import iou
from small_heads import FAMILIES, NUM_CLASSES, make_batch, make_heads, rotated
from small_models import SHRINK_OPTS, SIZE, ZOO, build_from, make_inputs

from ohem_d2 import BoxVotingOptions
from ohem_d2.errors import InputError
from ohem_d2.evaluation.tta import TTA, _ProposalMapperTTA
from ohem_d2.modeling.box_voting import detect, vote
from ohem_d2.training.config_file import load_config

VOTING = "TEST.BOX_VOTING"


def infer(heads, features, proposals):
    heads.eval()
    with torch.no_grad():
        return heads(None, features, copy.deepcopy(proposals))[0]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("sizes", [[(3, 40), (2, 30)], [(2, 20), (0, 0)]])
def test_one_round_without_votes_is_detectron2s_inference(name, sizes):
    masks = name != "OHEMRROIHeads"
    opts = f"{VOTING}.ROUNDS", 1, f"{VOTING}.NMS_THRESH", 0.5, f"{VOTING}.VOTE_THRESH", 1.0
    voting, plain = make_heads(*opts, name=name, masks=masks), make_heads(name=name, masks=masks)
    batch = make_batch(0, sizes, masks=masks)
    features, proposals, _ = batch if masks else rotated(batch, 0)
    for a, b in zip(*(infer(heads, features, proposals) for heads in (voting, plain))):
        assert len(a) == len(b)
        assert a.pred_classes.equal(b.pred_classes)
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        if masks:
            torch.testing.assert_close(a.pred_masks, b.pred_masks)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_head_refines_and_votes(name):
    heads = make_heads(f"{VOTING}.ROUNDS", 3, name=name)
    plain = make_heads(name=name)
    batch = make_batch(0, [(3, 40), (2, 30)])
    features, proposals, _ = rotated(batch, 0) if name == "OHEMRROIHeads" else batch
    for a, b in zip(infer(heads, features, proposals), infer(plain, features, proposals)):
        assert len(a) > 0
        assert a.pred_boxes.tensor.isfinite().all()
        assert a.pred_boxes.tensor.shape != b.pred_boxes.tensor.shape or not (
            a.pred_boxes.tensor.equal(b.pred_boxes.tensor)
        )


def slow_detect(predict, boxes, rounds, nms_thresh, vote_thresh, score_thresh, topk):
    """One image, box by box. `predict`: a box -> a box and a score for each class."""
    found, current = [], []
    for box in boxes:
        for label, (refined, score) in enumerate(predict(box)):
            if score > score_thresh:
                current.append((score, label, refined))
    for _ in range(rounds - 1):
        found += current
        current.sort(key=lambda x: -x[0])
        scored_again = []
        for _, label, box in current[: len(boxes)]:
            refined, score = predict(box)[label]
            if score > score_thresh:
                scored_again.append((score, label, refined))
        current = scored_again
    found += current
    kept = []
    for score, label, box in sorted(found, key=lambda x: -x[0]):
        if all(k[1] != label or iou(k[2], box) <= nms_thresh for k in kept):
            kept.append((score, label, box))
    voted = []
    for score, label, box in kept[:topk]:
        voters = [f for f in found if f[1] == label and iou(f[2], box) >= vote_thresh]
        total = sum(f[0] for f in voters)
        mean = [sum(f[0] * f[2][i] for f in voters) / total for i in range(4)]
        voted.append((score, label, mean))
    return voted


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    number=st.integers(0, 12),
    rounds=st.integers(1, 3),
    nms_thresh=st.sampled_from([0.3, 0.5]),
    vote_thresh=st.sampled_from([0.4, 0.5, 0.7]),
    agnostic=st.booleans(),
)
def test_against_a_slow_reference(seed, number, rounds, nms_thresh, vote_thresh, agnostic):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 5 + 15 * torch.rand_like(corners)], dim=1)
    target = torch.rand(NUM_CLASSES, 4, generator=generator) * 10
    target += torch.tensor([5.0, 5, 30, 30])
    if agnostic:
        target[:] = target[0]

    def refine(boxes):
        """Half of the way to where the object of each class is; sure of what is near it."""
        refined = (boxes[:, None] + target) / 2
        distance = (boxes[:, None] - target).abs().mean(dim=2)
        return refined, torch.exp(-distance / 10)

    def predict(proposals):
        refined, scores = zip(*(refine(x.proposal_boxes.tensor) for x in proposals))
        boxes = [r[:, 0] if agnostic else r.flatten(1) for r in refined]
        return boxes, [torch.cat([s, s[:, :1]], dim=1) for s in scores]

    def predict_one(box):
        refined, scores = refine(torch.tensor([box]))
        return list(zip(refined[0].tolist(), scores[0].tolist()))

    proposals = Instances((SIZE, SIZE), proposal_boxes=Boxes(boxes))
    options = BoxVotingOptions(rounds, nms_thresh, vote_thresh)
    (found,) = detect(predict, [proposals], options, 0.3, 5)
    expected = slow_detect(predict_one, boxes.tolist(), rounds, nms_thresh, vote_thresh, 0.3, 5)
    assert found.pred_classes.tolist() == [label for _, label, _ in expected]
    assert found.scores.tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-5)
    for box, (*_, other) in zip(found.pred_boxes.tensor.tolist(), expected):
        assert box == pytest.approx(other, abs=1e-3)


def instances(boxes, scores, classes):
    box_type = RotatedBoxes if len(boxes[0]) == 5 else Boxes
    return Instances(
        (100, 100),
        pred_boxes=box_type(torch.tensor(boxes, dtype=torch.float)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes),
    )


def test_the_example_of_the_docs():
    """docs/paper.md works it out by hand."""
    found = instances(
        [[10, 10, 50, 50], [14, 10, 54, 50], [30, 10, 70, 50], [10, 10, 50, 50]],
        [0.9, 0.6, 0.5, 0.8],
        [0, 0, 0, 1],
    )
    voted = vote(found[:1], found, 0.5)
    assert voted.tensor.tolist() == [pytest.approx([11.6, 10, 51.6, 50])]


def test_the_forms_of_a_rotated_box_vote_for_the_same():
    found = instances(
        [[50, 50, 20, 10, 30], [50, 50, 10, 20, 120], [50, 50, 10, 20, -60], [52, 50, 20, 10, 34]],
        [0.5, 0.2, 0.2, 0.1],
        [0, 0, 0, 0],
    )
    voted = vote(found[:1], found, 0.5)
    assert voted.tensor.tolist() == [pytest.approx([50.2, 50, 20, 10, 30.4], abs=1e-4)]


def test_nothing_to_vote_on():
    found = instances([[0, 0, 10, 10]], [0.5], [0])
    assert len(vote(found[:0], found[:0], 0.5)) == 0


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("ROUNDS", -1, "an integer from 0 to 100"),
        ("NMS_THRESH", 1.5, r"a number in \[0, 1\]"),
        ("VOTE_THRESH", -0.5, "a number above 0, of 1 at most"),
        ("VOTE_THRESH", 0.0, "a number above 0, of 1 at most"),
        ("NMS_THRESH", -0.5, r"a number in \[0, 1\]"),
    ],
)
def test_wrong_values_are_refused_when_the_model_is_built(key, value, expected):
    with pytest.raises(
        InputError, match=rf"TEST\.BOX_VOTING\.{key} is {value}, expected {expected}"
    ):
        make_heads(f"{VOTING}.{key}", value)


def test_with_test_time_augmentation_and_precomputed_proposals():
    path = ZOO / "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml"
    cfg = load_config(str(path), [*SHRINK_OPTS, "TEST.AUG.MIN_SIZES", "(48, 96)"])
    cfg.TEST.BOX_VOTING.ROUNDS = 2
    model = build_from(cfg.clone(), mining=True).eval()
    inputs = make_inputs(model, torch.Generator().manual_seed(0))
    for x in inputs:  # the data set's images are twice as large
        x["height"] = x["width"] = 2 * SIZE
    boxes = inputs[0]["proposals"].proposal_boxes.tensor

    sizes, flipped = [48, 48, 96, 96], [False, True, False, True]
    for x, size, is_flipped in zip(_ProposalMapperTTA(cfg)(inputs[0]), sizes, flipped, strict=True):
        expected = boxes * size / SIZE
        if is_flipped:
            expected[:, [0, 2]] = size - expected[:, [2, 0]]
        assert x["proposals"].image_size == (size, size)
        torch.testing.assert_close(x["proposals"].proposal_boxes.tensor, expected)

    with torch.no_grad():
        (found,) = TTA(cfg, model)(inputs[:1])
        cfg.TEST.BOX_VOTING.ROUNDS = 0
        (without_votes,) = TTA(cfg, model)(inputs[:1])
    found, without_votes = found["instances"], without_votes["instances"]
    assert len(found) > 0
    assert found.image_size == (2 * SIZE, 2 * SIZE)
    assert not found.pred_boxes.tensor.equal(without_votes.pred_boxes.tensor)


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_broken_boxes_are_dropped(broken):
    def predict(proposals):
        boxes = [x.proposal_boxes.tensor.clone() for x in proposals]
        boxes[0][0, 0] = broken
        return boxes, [torch.full((len(x), 3), 0.5) for x in boxes]

    boxes = Boxes(torch.tensor([[0.0, 0, 9, 9], [10, 10, 30, 30]]))
    proposals = [Instances((SIZE, SIZE), proposal_boxes=boxes)]
    (found,) = detect(predict, proposals, BoxVotingOptions(rounds=1), 0.05, 10)
    assert found.pred_boxes.tensor.tolist() == [[10, 10, 30, 30]] * 2
    assert found.pred_classes.tolist() == [0, 1]
    (found,) = detect(predict, proposals, BoxVotingOptions(rounds=2), 0.05, 10)
    assert found.pred_boxes.tensor.isfinite().all()


def test_masks_of_augmented_images_with_voting():
    path = ZOO / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    cfg = load_config(str(path), [*SHRINK_OPTS, "TEST.AUG.MIN_SIZES", "(48, 64)"])
    cfg.TEST.BOX_VOTING.ROUNDS, cfg.TEST.BOX_VOTING.NMS_THRESH = 2, 0.1
    model = build_from(cfg.clone(), mining=True).eval()
    inputs = make_inputs(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = TTA(cfg, model)(inputs[:1])[0]["instances"]
    assert len(found) > 0
    assert found.pred_masks.shape == (len(found), SIZE, SIZE)


def test_the_detections_of_all_scales_go_through_the_suppression_of_the_vote():
    path = ZOO / "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
    cfg = load_config(str(path), SHRINK_OPTS)
    cfg.TEST.BOX_VOTING.ROUNDS = 2
    numbers = []
    for nms_thresh in (0.3, 0.9):
        cfg.TEST.BOX_VOTING.NMS_THRESH = nms_thresh
        tta = TTA(cfg, build_from(cfg.clone(), mining=True))
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 14]])  # their IoU is 0.71
        scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        merged = tta._merge_detections(boxes, list(scores), list(classes), (SIZE, SIZE))
        numbers.append(len(merged))
    assert numbers == [1, 2]
