"""What a sampler is given is what the model makes of each RoI."""

import math

import pytest
import reference
import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from hypothesis import given
from hypothesis import strategies as st
from mined_rois import extras, make_family, read_one, set_options, spy_on_sampler
from small_heads import FAMILIES, NUM_CLASSES, SIZE, make_batch, make_heads, train_step

from ohem_d2 import RandomSampler
from ohem_d2.modeling.labelling import within_limit


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
def test_each_roi_is_read_right(name, sigmoid, agnostic):
    opts = ["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", sigmoid]
    if name != "OHEMCascadeROIHeads":  # which is always class-agnostic
        opts += ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic]
    heads, _, (features, proposals, targets) = make_family(name, 1, [(3, 12), (0, 5)])
    heads = make_heads(*opts, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 4, name=name)
    heads._fewest_at_a_time = 0  # so that there are several chunks
    with EventStorage(7):
        rois = heads.label_and_read_proposals(features, proposals, targets)[1]
    assert len(rois) == 12 + 3 + 5
    assert (rois.num_images, rois.num_classes, rois.iteration) == (2, NUM_CLASSES, 7)
    for k in range(len(rois)):
        i = int(rois.image_ids[k])
        box = type(proposals[0].proposal_boxes)(rois.boxes[k : k + 1])
        maps = [features[f][i : i + 1] for f in heads.in_features]
        with torch.no_grad():
            predictor, predictions = read_one(heads, maps, box)
            x = Instances((SIZE, SIZE), proposal_boxes=box)
            probs = predictor.predict_probs(predictions, [x])[0][0]
            boxes = predictor.predict_boxes(predictions, [x])[0][0]
        objects = targets[i].gt_boxes.tensor.tolist()

        def best(box, objects=objects):
            return max((reference.iou(box.tolist(), o) for o in objects), default=0.0)

        foreground = probs[:NUM_CLASSES]
        if sigmoid:
            is_background = foreground.max() < 0.5
            score = 1 - foreground.max() if is_background else foreground.max()
        else:
            is_background = probs.argmax() == NUM_CLASSES
            score = probs.max()
        expected = NUM_CLASSES if is_background else int(foreground.argmax())
        assert rois.pred_classes[k] == expected
        assert rois.pred_scores[k].item() == pytest.approx(score.item(), rel=1e-4)
        boxes = boxes.view(-1, rois.boxes.shape[1])
        box = boxes[int(foreground.argmax()) if len(boxes) > 1 else 0]
        torch.testing.assert_close(rois.pred_boxes[k], box, rtol=1e-4, atol=1e-3)
        assert rois.ious[k].item() == pytest.approx(best(rois.boxes[k]), abs=1e-4)
        ious = [reference.iou(rois.boxes[k].tolist(), o) for o in objects]
        assert rois.objects[k] == (ious.index(max(ious)) if ious else -1)
        assert rois.pred_ious[k].item() == pytest.approx(best(box), abs=1e-4)
    is_object = torch.isclose(rois.objectness, torch.tensor(math.log(1e10)), rtol=0.1)
    assert int(is_object.sum()) == 3  # the appended ground truth


def test_the_predicted_box_needs_no_second_read():
    heads = make_heads()
    heads._fewest_at_a_time, heads._check._num_steps = 0, 1
    calls, read_boxes = [], heads.read_boxes
    heads.read_boxes = lambda *args: calls.append(1) or read_boxes(*args)
    with EventStorage():
        rois = heads.label_and_read_proposals(*make_batch(0, [(3, 40)]))[1]
    number = len(calls)
    assert rois.pred_boxes.shape == rois.boxes.shape
    assert rois.pred_ious.shape == rois.labels.shape
    assert len(calls) == number == 6


def test_later_stages_of_a_cascade_have_no_objectness():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1), name="OHEMCascadeROIHeads")
    seen = spy_on_sampler(heads)
    train_step(heads, *make_batch(0, [(3, 40)]))
    (first, _), (second, _) = seen
    assert len(first.objectness) == len(first)
    assert second.pred_ious.shape == (len(second),)
    with pytest.raises(ValueError, match="objectness, which these candidates do not have"):
        second.objectness  # noqa: B018


@pytest.mark.parametrize("name", FAMILIES)
def test_random_sampling_is_that_of_the_extended_head(name):
    heads, plain, batch = make_family(name, 4, [(3, 40), (0, 20), (2, 30)], **extras(name))
    heads.sampler = RandomSampler(heads.positive_fraction)
    found = []
    for h in (heads, plain):
        torch.manual_seed(2)
        found.append(train_step(h, *batch))
    (_, losses, logged), (_, plain_losses, plain_logged) = found
    assert losses.keys() == plain_losses.keys()
    for key, value in losses.items():
        assert value.equal(plain_losses[key]), key
    for key in ("roi_head/num_fg_samples", "roi_head/num_bg_samples"):
        assert logged[key] == plain_logged[key]
    assert "ohem/loss_ratio" not in logged


@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    most=st.integers(0, 8),
)
def test_the_limit_of_candidates(seed, sizes, most):
    generator = torch.Generator().manual_seed(seed)
    rois = []
    for size in sizes:
        x = Instances((9, 9), gt_classes=torch.randint(1, 3, (size,), generator=generator))
        x.number = torch.arange(size)
        rois.append(x)
    state, background = torch.get_rng_state(), 2
    of_all = within_limit(rois, most, num_classes=background, seed=seed)
    assert state.equal(torch.get_rng_state())
    again = within_limit(rois, most, num_classes=background, seed=seed)
    assert len(of_all) == len(again) == len(rois)
    for x, kept, repeated in zip(rois, of_all, again):
        numbers = kept.number.tolist()
        assert numbers == repeated.number.tolist() == sorted(set(numbers))
        assert kept.gt_classes.equal(x.gt_classes[kept.number])
        objects = [i for i, label in enumerate(x.gt_classes.tolist()) if label != background]
        if most == 0 or len(x) <= most:
            assert numbers == list(range(len(x)))
        elif len(objects) >= most:
            assert len(numbers) == most
            assert set(numbers) <= set(objects)
        else:
            assert len(numbers) == most
            assert set(objects) <= set(numbers)


def test_background_within_the_limit_is_any_of_it():
    """Each of ten with the same chance, whatever its objectness: by the law of large numbers."""
    x = Instances((9, 9), gt_classes=torch.tensor([1] * 2 + [2] * 10))
    x.number, x.objectness_logits = torch.arange(12), torch.arange(12).float()
    times = torch.zeros(12)
    for seed in range(2000):
        times[within_limit([x], 6, num_classes=2, seed=seed)[0].number] += 1
    assert times[:2].tolist() == [2000, 2000]
    assert times[2:].sum() == 4 * 2000
    # A standard deviation is sqrt(2000 * 0.4 * 0.6) = 22.
    assert (times[2:] - 800).abs().max() < 110


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_read_no_more_than_the_limit(name):
    heads, _, (features, proposals, targets) = make_family(name, 0, [(2, 40), (0, 9)])
    set_options(heads, max_candidates=25)
    with EventStorage():
        labelled, candidates = heads.label_and_read_proposals(features, proposals, targets)
    assert [*map(len, labelled)] == [25, 9]
    assert candidates.image_ids.bincount().tolist() == [25, 9]
    again = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with EventStorage():
            again.append(heads.label_and_read_proposals(features, proposals, targets)[0][0])
    boxes = [x.proposal_boxes.tensor for x in again]
    assert boxes[0].equal(boxes[1])
    assert not boxes[0].equal(boxes[2])  # by the random state, from step to step
    set_options(heads, max_candidates=0)
    state = torch.get_rng_state()
    with EventStorage():
        labelled, _ = heads.label_and_read_proposals(features, proposals, targets)
    assert [*map(len, labelled)] == [42, 9]
    assert state.equal(torch.get_rng_state())
