import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from ohem_d2 import losses_per_roi
from ohem_d2.mining.losses import losses_charged, predicted_classes

CLASSIFICATION = {
    "softmax": {},
    "sigmoid": {"use_sigmoid_ce": True},
    "federated": {"use_sigmoid_ce": True, "use_fed_loss": True},
}
BOX_REGRESSION = {
    "l1": {"box_reg_loss_type": "smooth_l1", "smooth_l1_beta": 0.0},
    "smooth_l1": {"box_reg_loss_type": "smooth_l1", "smooth_l1_beta": 0.5},
    "giou": {"box_reg_loss_type": "giou"},
    "diou": {"box_reg_loss_type": "diou"},
    "ciou": {"box_reg_loss_type": "ciou"},
}


def make_predictor(num_classes=6, rotated=False, **kwargs):
    transform = (
        Box2BoxTransformRotated(weights=(10.0, 10.0, 5.0, 5.0, 1.0))
        if rotated
        else Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))
    )
    return FastRCNNOutputLayers(
        ShapeSpec(channels=8),
        box2box_transform=transform,
        num_classes=num_classes,
        fed_loss_num_classes=4,
        get_fed_loss_cls_weights=lambda: torch.linspace(0.1, 1, num_classes),
        **kwargs,
    )


def make_proposals(sizes, generator, num_classes=6, rotated=False):
    proposals = []
    for size in sizes:
        x = Instances((200, 200))
        if rotated:
            boxes = torch.rand(2, size, 5, generator=generator) * 50 + 10
            x.proposal_boxes, gt_boxes = RotatedBoxes(boxes[0]), RotatedBoxes(boxes[1])
        else:
            corners = torch.rand(2, size, 2, generator=generator) * 100
            extent = torch.rand(2, size, 2, generator=generator) * 90 + 1
            boxes = torch.cat([corners, corners + extent], dim=2)
            x.proposal_boxes, gt_boxes = Boxes(boxes[0]), Boxes(boxes[1])
        x.gt_classes = torch.randint(0, num_classes + 1, (size,), generator=generator)
        if (x.gt_classes < num_classes).any():  # else as in an image without objects
            x.gt_boxes = gt_boxes
        proposals.append(x)
    return proposals


def assert_means_are_what_detectron2_reports(predictor, seed, sizes, rotated=False):
    generator = torch.Generator().manual_seed(seed)
    proposals = make_proposals(sizes, generator, predictor.num_classes, rotated)
    features = torch.randn(sum(sizes), 8, generator=generator)
    with torch.no_grad():
        predictor.bbox_pred.weight.normal_(std=0.5, generator=generator)
        predictor.cls_score.weight.normal_(std=0.5, generator=generator)
        predictions = predictor(features)

    torch.manual_seed(seed)  # for the classes that the federated loss draws
    mine = losses_per_roi(predictor, predictions, proposals)
    torch.manual_seed(seed)
    with EventStorage():
        theirs = predictor.losses(predictions, proposals)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name].shape == (sum(sizes),)
        expected = value.item()
        mean = mine[name].mean().item() if sum(sizes) else 0.0
        assert mean == pytest.approx(expected, rel=1e-5, abs=1e-6), name
    return predictor, predictions, proposals, mine


sizes_of_images = st.lists(st.integers(0, 20), min_size=1, max_size=3)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("box_regression", BOX_REGRESSION)
@pytest.mark.parametrize("classification", CLASSIFICATION)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), sizes=sizes_of_images)
def test_mean_is_detectron2s(classification, box_regression, agnostic, seed, sizes):
    predictor = make_predictor(
        cls_agnostic_bbox_reg=agnostic,
        loss_weight={"loss_cls": 0.5, "loss_box_reg": 3.0},
        **CLASSIFICATION[classification],
        **BOX_REGRESSION[box_regression],
    )
    assert_means_are_what_detectron2_reports(predictor, seed, sizes)


@pytest.mark.parametrize("agnostic", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), sizes=sizes_of_images)
def test_mean_is_detectron2s_for_rotated_boxes(agnostic, seed, sizes):
    predictor = make_predictor(rotated=True, cls_agnostic_bbox_reg=agnostic, smooth_l1_beta=0.1)
    assert_means_are_what_detectron2_reports(predictor, seed, sizes, rotated=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_mean_is_detectron2s_with_a_single_class(seed):
    assert_means_are_what_detectron2_reports(make_predictor(num_classes=1), seed, [9, 4])


@pytest.mark.parametrize("classification", ["softmax", "sigmoid"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), data=st.data())
def test_mean_over_any_set_is_detectron2s(classification, seed, data):
    predictor = make_predictor(loss_weight=2.0, **CLASSIFICATION[classification])
    *_, (scores, deltas), proposals, mine = assert_means_are_what_detectron2_reports(
        predictor, seed, [15]
    )
    chosen = data.draw(st.lists(st.integers(0, 14), unique=True, min_size=1))
    with EventStorage():
        theirs = predictor.losses((scores[chosen], deltas[chosen]), [proposals[0][chosen]])
    for name, value in theirs.items():
        assert mine[name][chosen].mean().item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6)


def test_worked_example():
    """Two classes, all logits 0: each costs log 3. A box half as wide costs 5 * log 2 more."""
    predictor = make_predictor(num_classes=2, loss_weight={"loss_box_reg": 2.0})
    x = Instances((100, 100))
    x.proposal_boxes = Boxes(torch.tensor([[0.0, 0, 20, 20], [0, 0, 20, 20]]))
    x.gt_boxes = Boxes(torch.tensor([[5.0, 0, 15, 20], [5, 0, 15, 20]]))
    x.gt_classes = torch.tensor([1, 2])
    losses = losses_per_roi(predictor, (torch.zeros(2, 3), torch.zeros(2, 8)), [x])
    log = torch.tensor([3.0, 2.0]).log()
    torch.testing.assert_close(losses["loss_cls"], log[0].expand(2))
    torch.testing.assert_close(losses["loss_box_reg"], torch.stack([2 * 5 * log[1], log[0] * 0]))


def test_nothing_is_logged():
    predictor = make_predictor()
    proposals = make_proposals([5], torch.Generator().manual_seed(0))
    with EventStorage() as storage:
        losses_per_roi(predictor, predictor(torch.zeros(5, 8)), proposals)
    assert storage.latest() == {}


def test_predicted_classes():
    scores = torch.tensor([[1.0, -1.0, 3.0], [2.0, 5.0, 3.0], [-1.0, -2.0, -9.0]])
    softmax = make_predictor(2)
    classes, probs = predicted_classes(softmax, scores)
    assert classes.tolist() == [2, 1, 0]
    of_all = softmax.predict_probs((scores, None), [range(3)])[0]
    torch.testing.assert_close(probs, of_all.max(dim=1).values)
    sigmoid = make_predictor(2, use_sigmoid_ce=True)  # whose last column means nothing
    classes, probs = predicted_classes(sigmoid, scores)
    assert classes.tolist() == [0, 1, 2]
    of_all = sigmoid.predict_probs((scores, None), [range(3)])[0]
    torch.testing.assert_close(
        probs, torch.stack([of_all[0, 0], of_all[1, 1], 1 - of_all[2, :2].max()])
    )


def test_losses_of_a_wrong_shape_are_named():
    class Predictor:
        def losses_per_roi(self, predictions, proposals):
            return {"loss_cls": torch.zeros(1)}

    proposals = [Instances((9, 9), gt_classes=torch.zeros(3))]
    with pytest.raises(ValueError, match=r"returned \{'loss_cls': \(1,\)\}, expected loss_cls and"):
        losses_charged(Predictor(), None, proposals)
