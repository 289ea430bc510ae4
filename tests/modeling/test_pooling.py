import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, RotatedBoxes
from hypothesis import given, settings
from hypothesis import strategies as st
from small_heads import make_batch, make_heads, train_step
from torch import nn

from ohem_d2.modeling import pooling
from ohem_d2.modeling.pooling import AllCoresROIPooler, pool_on_all_cores


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
    pooler = AllCoresROIPooler(pooler)
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
    channels=st.sampled_from([1, 5, 32, 64, 135]),
    levels=st.integers(1, 2),
    kind=st.sampled_from(["ROIAlign", "ROIAlignV2", "ROIPool", "ROIAlignRotated"]),
)
def test_values_and_gradients_are_those_of_one_core(seed, numbers, channels, levels, kind):
    pooler = make_pooler(kind, levels)
    batch = make_input(seed, numbers, channels, levels, rotated=kind == "ROIAlignRotated")
    assert_bitwise_equal(pooler, *batch)


@pytest.mark.parametrize("threads", [1, 3, 16], indirect=True)
def test_any_number_of_cores(threads):
    assert_bitwise_equal(make_pooler(), *make_input(0, [9, 4], 64))


def test_each_core_has_work():
    pooler, channels = make_pooler(), []
    pooler.level_poolers[0].register_forward_hook(lambda m, x, _: channels.append(x[0].shape[1]))
    pooler = AllCoresROIPooler(pooler)
    for number in (40, 192, 31):  # with fewer, a part would be too small
        pooler(*make_input(0, [5], number))
    assert channels == [20, 20, 64, 64, 64, 31]


def test_threads_are_kept_and_each_counts_for_one():
    pooling._executor.cache_clear()
    pooler, seen = make_pooler(), []

    def look(module, inputs, output):
        seen.append((threading.current_thread(), torch.get_num_threads()))

    pooler.level_poolers[0].register_forward_hook(look)
    pooler = AllCoresROIPooler(pooler)
    for _ in range(5):
        pooler(*make_input(0, [5], 64))
    assert len(seen) == 10
    assert len({thread for thread, _ in seen}) <= 2
    assert {number for _, number in seen} == {1}
    with ThreadPoolExecutor(1) as other:  # a thread of somebody else
        assert other.submit(torch.get_num_threads).result() == 2


def test_after_an_error_no_thread_goes_on():
    done = []

    def work(item):
        if item == 0:
            raise KeyError("broken")
        time.sleep(0.2)
        done.append(item)

    with pytest.raises(KeyError, match="broken"):
        pooling._by_all_cores(work, [0, 1])
    assert done == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not():
    pooler = make_pooler()
    pooler = AllCoresROIPooler(pooler)
    pooler(*make_input(0, [5], 64))
    assert pooling._executor.cache_info().currsize > 0
    child = os.fork()
    if child == 0:
        os._exit(pooling._executor.cache_info().currsize)
    _, status = os.waitpid(child, 0)
    assert status == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_mixed_precision(dtype):
    features, boxes = make_input(0, [6], 40)
    features = [x.to(dtype) for x in features]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert_bitwise_equal(make_pooler(), features, boxes)


def test_features_that_do_not_learn():
    pooler = make_pooler()
    pooler = AllCoresROIPooler(pooler)
    assert not pooler(*make_input(0, [6], 40)).requires_grad


def test_a_graph_that_is_gone_through_twice():
    pooler = make_pooler()
    features, boxes = make_input(0, [6], 40)
    for x in features:
        x.requires_grad_()
    pooler = AllCoresROIPooler(pooler)
    total = pooler(features, boxes).square().sum()
    first = torch.autograd.grad(total, features, retain_graph=True)
    second = torch.autograd.grad(total, features)
    assert all(a.equal(b) for a, b in zip(first, second))


@pytest.mark.parametrize("levels", [1, 2])
def test_graphs_keep_neither_features_nor_what_is_pooled(monkeypatch, levels):
    graphs, tensors = [], []
    by_channels, on_one_core = pooling._pool_by_channels, AllCoresROIPooler.on_one_core

    def spy(*args, **kwargs):
        result = by_channels(*args, **kwargs)
        graphs.extend(result[1])
        return result

    def spy_on_tensors(self, features, boxes):
        pooled = on_one_core(self, features, boxes)
        tensors.extend(map(weakref.ref, [*features, pooled]))
        return pooled

    monkeypatch.setattr(pooling, "_pool_by_channels", spy)
    monkeypatch.setattr(AllCoresROIPooler, "on_one_core", spy_on_tensors)
    pooler = make_pooler(levels=levels)
    features, boxes = make_input(0, [6], 40, levels=levels)
    pooler = AllCoresROIPooler(pooler)
    pooled = pooler([x.requires_grad_() for x in features], boxes)
    assert pooled.requires_grad
    assert len(graphs) == 2
    for graph in graphs:
        assert [x.untyped_storage().nbytes() for x in graph.features] == [4] * levels
    assert len(tensors) == 2 * (levels + 1)
    assert not any(x() is not None for x in tensors)


def test_without_gradients_what_hooks_saw_stays():
    pooler, outputs = make_pooler(levels=1), []
    pooler.level_poolers[0].register_forward_hook(lambda m, x, output: outputs.append(output))
    pooler = AllCoresROIPooler(pooler)
    pooled = pooler(*make_input(0, [6], 40, levels=1))
    # Which thread comes first is not known.
    orders = (outputs, outputs[::-1])
    assert len(outputs) == 2
    assert any(torch.cat(order, dim=1).equal(pooled) for order in orders)


def test_inference_mode():
    pooler = make_pooler()
    features, boxes = make_input(0, [6], 40)
    expected = pooler(features, boxes)
    pooler = AllCoresROIPooler(pooler)
    with torch.inference_mode():
        pooled = pooler(features, boxes)
    assert pooled.equal(expected)
    assert pooled.is_inference()


def test_gradients_of_gradients_are_refused_as_by_torchvision():
    pooler = make_pooler()
    features, boxes = make_input(0, [6], 40)
    features = [x.requires_grad_() for x in features]
    pooler = AllCoresROIPooler(pooler)
    total = pooler(features, boxes).square().sum()
    (gradient, _) = torch.autograd.grad(total, features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_each_pooler_of_a_module_is_replaced_once():
    heads = nn.ModuleDict({"box_pooler": make_pooler(), "mask_pooler": make_pooler()})
    layers = heads.box_pooler.level_poolers
    pool_on_all_cores(heads)
    before = list(heads.values())
    pool_on_all_cores(heads)
    assert list(heads.values()) == before
    assert [type(m) for m in before] == [AllCoresROIPooler] * 2
    assert heads.box_pooler.level_poolers is layers
    assert heads.state_dict() == {}


def test_a_forward_that_somebody_has_set_stays():
    heads = nn.ModuleDict({"box_pooler": make_pooler()})
    heads.box_pooler.forward = lambda features, boxes: "theirs"
    pool_on_all_cores(heads)
    assert heads.box_pooler(*make_input(0, [6], 40)) == "theirs"


@pytest.mark.parametrize("name", ["OHEMROIHeads", "OHEMCascadeROIHeads", "BoxVotingROIHeads"])
def test_heads_pool_by_all_cores(monkeypatch, name):
    calls = []
    by_channels = pooling._pool_by_channels

    def spy(*args, with_graphs):
        calls.append(with_graphs)
        return by_channels(*args, with_graphs=with_graphs)

    monkeypatch.setattr(pooling, "_pool_by_channels", spy)
    heads = make_heads(name=name)
    features, proposals, targets = make_batch(0, [(2, 9)])
    features = {k: x.requires_grad_() for k, x in features.items()}
    train_step(heads, features, proposals, targets)
    assert (True in calls) == (name != "OHEMROIHeads")  # which pools nothing again
    assert (False in calls) == (name != "BoxVotingROIHeads")  # which reads nothing first
    del calls[:]
    heads.eval()
    with torch.no_grad():
        heads(None, features, proposals)
    assert set(calls) == {False}


def test_poolers_of_ones_own_are_left_alone():
    class Normalizing(ROIPooler):
        def forward(self, x, box_lists):
            return super().forward([level / level.sum() for level in x], box_lists)

    heads = nn.ModuleDict({"box_pooler": Normalizing((4, 4), [1 / 4, 1 / 8], 0, "ROIAlignV2")})
    pool_on_all_cores(heads)
    assert type(heads.box_pooler) is Normalizing


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.pooler = AllCoresROIPooler(make_pooler(levels=1))

    def forward(self, features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return self.pooler([features], [Boxes(boxes)])


@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript(how):
    (features,), (boxes,) = make_input(0, [6], 40, levels=1)
    module = Pool()
    if how == "trace":
        scripted = torch.jit.trace(module, (features, boxes.tensor))
    else:
        scripted = torch.jit.script(module)
    others = boxes.tensor[:3] * 0.5
    assert scripted(features, others).equal(module(features, others))
