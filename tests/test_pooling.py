import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, RotatedBoxes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ohem_d2.pooling import _CHANNELS, pooled_by_all_cores


@pytest.fixture(autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(request, "param", 2))
    yield torch.get_num_threads()
    torch.set_num_threads(before)


def make_input(seed, numbers, channels, levels=2, rotated=False):
    generator = torch.Generator().manual_seed(seed)
    features = [
        torch.randn(len(numbers), channels, 16 // 2**i, 16 // 2**i, generator=generator)
        for i in range(levels)
    ]
    boxes = []
    for number in numbers:
        corners = torch.rand(number, 2, generator=generator) * 50
        sides = torch.rand(number, 2, generator=generator) * 400
        if rotated:
            angles = torch.rand(number, 1, generator=generator) * 180
            boxes.append(RotatedBoxes(torch.cat([corners, sides, angles], dim=1)))
        else:
            boxes.append(Boxes(torch.cat([corners, corners + sides], dim=1)))
    return features, boxes


def make_pooler(kind="ROIAlignV2", levels=2):
    return ROIPooler((4, 4), [1 / 2 ** (i + 2) for i in range(levels)], 0, kind)


def pool_and_differentiate(pooler, features, boxes):
    """What is pooled, and the gradients of each level."""
    features = [x.clone().requires_grad_() for x in features]
    pooled = pooler(features, boxes)
    upstream = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
    return [pooled.detach(), *torch.autograd.grad(pooled, features, upstream.to(pooled.dtype))]


def assert_bitwise_equal(pooler, features, boxes):
    expected = pool_and_differentiate(pooler, features, boxes)
    with pooled_by_all_cores(pooler):
        found = pool_and_differentiate(pooler, features, boxes)
        with torch.no_grad():
            without_gradients = pooler(features, boxes)
    for mine, theirs in zip([*found, without_gradients], [*expected, expected[0]]):
        assert mine.equal(theirs)
        assert mine.dtype == theirs.dtype
    assert not without_gradients.requires_grad


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    numbers=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    channels=st.sampled_from([1, 2, 5, _CHANNELS, 2 * _CHANNELS + 7]),
    levels=st.integers(1, 2),
    kind=st.sampled_from(["ROIAlign", "ROIAlignV2", "ROIPool", "ROIAlignRotated"]),
)
def test_values_and_gradients_are_those_of_one_core(seed, numbers, channels, levels, kind):
    pooler = make_pooler(kind, levels)
    batch = make_input(seed, numbers, channels, levels, rotated=kind == "ROIAlignRotated")
    assert_bitwise_equal(pooler, *batch)


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_any_number_of_cores(threads):
    assert_bitwise_equal(make_pooler(), *make_input(0, [9, 4], 8))


def test_each_core_has_work():
    pooler, channels = make_pooler(), []
    pooler.level_poolers[0].register_forward_hook(lambda m, x, _: channels.append(x[0].shape[1]))
    with pooled_by_all_cores(pooler):
        for number in (8, 3 * _CHANNELS):
            pooler(*make_input(0, [5], number))
    assert channels == [4, 4, _CHANNELS, _CHANNELS, _CHANNELS]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_mixed_precision(dtype):
    features, boxes = make_input(0, [6], 8)
    features = [x.to(dtype) for x in features]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert_bitwise_equal(make_pooler(), features, boxes)


def test_features_that_do_not_learn():
    pooler = make_pooler()
    with pooled_by_all_cores(pooler):
        assert not pooler(*make_input(0, [6], 8)).requires_grad


def test_a_graph_that_is_gone_through_twice():
    pooler = make_pooler()
    features, boxes = make_input(0, [6], 8)
    for x in features:
        x.requires_grad_()
    with pooled_by_all_cores(pooler):
        total = pooler(features, boxes).square().sum()
    first = torch.autograd.grad(total, features, retain_graph=True)
    second = torch.autograd.grad(total, features)
    assert all(a.equal(b) for a, b in zip(first, second))


def test_what_is_pooled_is_kept_once():
    """The graphs of the parts do not hold what they led to."""
    pooler, outputs = make_pooler(levels=1), []
    pooler.level_poolers[0].register_forward_hook(lambda m, x, output: outputs.append(output))
    features, boxes = make_input(0, [6], 8, levels=1)
    with pooled_by_all_cores(pooler):
        pooler([features[0].requires_grad_()], boxes)
    assert [x.untyped_storage().nbytes() for x in outputs] == [0, 0]


def test_it_ends_with_the_context():
    heads = nn.ModuleDict({"box_pooler": make_pooler(), "mask_pooler": make_pooler()})
    patched = []
    with pooled_by_all_cores(heads):
        with pooled_by_all_cores(heads):
            patched.append(["forward" in vars(m) for m in heads.values()])
        patched.append(["forward" in vars(m) for m in heads.values()])
    patched.append(["forward" in vars(m) for m in heads.values()])
    assert patched == [[True, True], [True, True], [False, False]]


def test_poolers_of_ones_own_are_left_alone():
    class Normalizing(ROIPooler):
        def forward(self, x, box_lists):
            return super().forward([level / level.sum() for level in x], box_lists)

    pooler = Normalizing((4, 4), [1 / 4, 1 / 8], 0, "ROIAlignV2")
    features, boxes = make_input(0, [6], 8)
    expected = pooler(features, boxes)
    with pooled_by_all_cores(pooler):
        assert pooler(features, boxes).equal(expected)
        assert "forward" not in vars(pooler)


def test_tracing():
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.pooler = make_pooler(levels=1)

        def forward(self, features, boxes):
            with pooled_by_all_cores(self):
                return self.pooler([features], [Boxes(boxes)])

    (features,), (boxes,) = make_input(0, [6], 8, levels=1)
    module = Pool()
    traced = torch.jit.trace(module, (features, boxes.tensor))
    others = boxes.tensor[:3] * 0.5
    assert traced(features, others).equal(module(features, others))
