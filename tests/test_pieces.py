import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Instances, RotatedBoxes
from hypothesis import given, settings
from hypothesis import strategies as st
from small_heads import SHAPES, make_batch

from ohem_d2.pieces import pool, read_in_pieces


@settings(max_examples=50, deadline=None)
@given(numbers=st.lists(st.integers(0, 9), min_size=1, max_size=4), size=st.integers(1, 5))
def test_pieces_are_put_together_again(numbers, size):
    values = torch.arange(float(sum(numbers))).split(numbers)
    rois = [Instances((9, 9), value=v) for v in values]
    calls = []

    def read(piece):
        calls.append([len(x) for x in piece])
        all_values = torch.cat([x.value for x in piece])
        return "predictor", (all_values, all_values[:, None] * 2)

    predictor, (scores, deltas) = read_in_pieces(read, rois, size)
    assert predictor == "predictor"
    assert scores.equal(torch.cat(values))
    assert deltas.equal(torch.cat(values)[:, None] * 2)
    assert max(map(max, calls)) <= size
    assert len(calls) == max(1, -(-max(numbers) // size))


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("sizes", [[(2, 41)], [(2, 30), (0, 0), (1, 2)], [(0, 0)]])
def test_all_cores_pool_what_one_does(threads, sizes):
    features, proposals, _ = make_batch(0, sizes)
    features = [features[f] for f in SHAPES]
    pooler = ROIPooler((4, 4), [1 / s.stride for s in SHAPES.values()], 0, "ROIAlignV2")
    boxes = [x.proposal_boxes for x in proposals]
    calls = []
    pooler.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    expected = pooler(features, boxes)
    assert pool(pooler, features, boxes).equal(expected)
    assert len(calls) == 2  # with gradients, by one
    with torch.no_grad():
        pooled = pool(pooler, features, boxes)
    assert pooled.equal(expected)
    assert not pooled.requires_grad
    assert len(calls) == 2 + threads


def test_pooling_in_mixed_precision():
    features, proposals, _ = make_batch(0, [(2, 41)])
    features = [features[f].bfloat16() for f in SHAPES]
    pooler = ROIPooler((4, 4), [1 / s.stride for s in SHAPES.values()], 0, "ROIAlignV2")
    boxes = [x.proposal_boxes for x in proposals]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert pool(pooler, features, boxes).equal(pooler(features, boxes))


def test_predictions_of_another_form_are_made_at_once():
    rois = [Instances((9, 9), value=torch.arange(7))]
    _, predictions = read_in_pieces(lambda x: (None, ("text", x[0].value)), rois, 3)
    assert predictions[1].equal(rois[0].value)


def test_parts_of_rotated_boxes():
    boxes = RotatedBoxes(torch.rand(7, 5))
    seen = []

    def pooler(features, part):
        seen.extend(type(x) for x in part)
        return torch.cat([x.tensor for x in part])

    with torch.no_grad():
        assert pool(pooler, [torch.zeros(1)], [boxes]).equal(boxes.tensor)
    assert set(seen) == {RotatedBoxes}
