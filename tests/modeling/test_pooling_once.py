from contextlib import nullcontext

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from small_heads import make_batch, make_heads, random_boxes, rotated, train_step
from torch import nn

from ohem_d2.modeling import pooling_once
from ohem_d2.modeling.pooling import AllCoresROIPooler
from ohem_d2.modeling.pooling_once import OnceROIPooler


@pytest.fixture(autouse=True, params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def room(monkeypatch):
    """For all RoIs of small images, whose features are smaller still."""
    monkeypatch.setattr(pooling_once, "_ROOM", 1000)


def make_pooler(levels=2, kind="ROIAlignV2", sampling_ratio=0):
    scales = [1 / 2 ** (i + 2) for i in range(levels)]
    pooler = ROIPooler((4, 4), scales, sampling_ratio, kind, canonical_box_size=32)
    return OnceROIPooler(AllCoresROIPooler(pooler))


def make_features(seed, number, channels=20, levels=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(number, channels, 16 // 2**i, 16 // 2**i, generator=generator)
        .to(dtype)
        .requires_grad_()
        for i in range(levels)
    ]


def make_boxes(seed, numbers):
    generator = torch.Generator().manual_seed(seed)
    return [Boxes(random_boxes(generator, n)) for n in numbers]


def read(pooler, features, boxes):
    with torch.no_grad():
        return pooler(features, boxes)


def with_gradients(pooler, features, boxes):
    pooled = pooler(features, boxes)
    upstream = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
    return [pooled.detach(), *torch.autograd.grad(pooled, features, upstream.to(pooled.dtype))]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected):
        assert mine.dtype == theirs.dtype
        assert mine.equal(theirs)


def count_pooled(monkeypatch):
    """How many RoIs each call pools."""
    numbers = []
    anew = OnceROIPooler.anew

    def spy(self, x, box_lists):
        numbers.append(sum(map(len, box_lists)))
        return anew(self, x, box_lists)

    monkeypatch.setattr(OnceROIPooler, "anew", spy)
    return numbers


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    numbers=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    new=st.integers(0, 3),
    chunk=st.integers(1, 20),
    channels=st.sampled_from([1, 32, 135]),
    levels=st.integers(1, 3),
    kind=st.sampled_from(["ROIAlign", "ROIAlignV2"]),
    sampling_ratio=st.integers(0, 2),
    room=st.sampled_from([0.5, 2, 1000]),
)
def test_values_and_gradients_are_those_of_pooling_again(
    seed, numbers, new, chunk, channels, levels, kind, sampling_ratio, room
):
    pooler = make_pooler(levels, kind, sampling_ratio)
    features = make_features(seed, len(numbers), channels, levels)
    boxes = make_boxes(seed, numbers)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for x in boxes:  # some of those that were read, in another order, one twice, and some others
        some = x.tensor[torch.randperm(len(x), generator=generator)[: (len(x) + 1) // 2]]
        chosen.append(Boxes(torch.cat([some, some[:1], random_boxes(generator, new)])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling_once, "_ROOM", room)
        with pooler.keeping():
            for start in range(0, max([1, *numbers]), chunk):
                read(pooler, features, [x[start : start + chunk] for x in boxes])
            found = with_gradients(pooler, features, chosen)
    assert_equal(found, with_gradients(pooler, features, chosen))


def test_what_was_pooled_is_not_pooled_again(monkeypatch, room):
    pooler, features = make_pooler(), make_features(0, 2)
    boxes = make_boxes(0, [6, 4])
    numbers = count_pooled(monkeypatch)
    with pooler.keeping():
        read(pooler, features, boxes)
        pooler(features, [boxes[0][:3], boxes[1][2:]])
        assert numbers == [10]
        pooler(features, boxes)  # for which nothing is left
        assert numbers == [10, 10]
        read(pooler, features, boxes)
        other = Boxes(boxes[1].tensor + 1)
        pooler(features, [boxes[0], other])  # the boxes of an image have changed
        assert numbers == [10, 10, 10, 4]
        read(pooler, features, boxes)
        pooler(features, boxes[::-1])  # each is in the other image
        assert numbers == [10, 10, 10, 4, 10, 10]


def test_no_more_is_kept_than_there_is_room_for(monkeypatch):
    pooler, features = make_pooler(), make_features(0, 1)
    boxes = make_boxes(0, [30])[0]
    numbers = count_pooled(monkeypatch)
    # 20 channels of 16 x 16 and 8 x 8, and 1.5 times as much: 30 RoIs of 4 x 4.
    with pooler.keeping():
        for chunk in (boxes[:20], boxes[20:30], boxes[:1]):
            read(pooler, features, [chunk])
        pooler(features, [boxes])
    assert numbers == [20, 10, 1]
    with pooler.keeping():
        for chunk in (boxes[:20], Boxes(boxes.tensor[20:] + 1), boxes[20:]):
            read(pooler, features, [chunk])
        pooler(features, [boxes])
    assert numbers[3:] == [20, 10, 10, 10]


@pytest.mark.parametrize("change", ["features", "pooled", "other features"])
def test_changes_in_place(room, change):
    pooler, features, boxes = make_pooler(), make_features(0, 1), make_boxes(0, [6])
    with pooler.keeping():
        pooled = read(pooler, features, boxes)
        if change == "features":
            with torch.no_grad():
                features[1].mul_(2)
        elif change == "pooled":
            pooled.flatten(1).mul_(2)
        else:
            features = [(2 * x).detach().requires_grad_() for x in features]
        found = with_gradients(pooler, features, boxes)
    assert_equal(found, with_gradients(pooler, features, boxes))


def test_layers_with_hooks_are_called(room):
    pooler, features, boxes = make_pooler(), make_features(0, 1), make_boxes(0, [6])
    with pooler.keeping():
        read(pooler, features, boxes)
        pooler.level_poolers[0].register_forward_hook(lambda module, inputs, output: 2 * output)
        found = with_gradients(pooler, features, boxes)
    assert_equal(found, with_gradients(pooler, features, boxes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_precision(room, dtype):
    pooler, boxes = make_pooler(), make_boxes(0, [6])
    features = make_features(0, 1, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        with pooler.keeping():
            read(pooler, features, boxes)
            found = with_gradients(pooler, features, boxes)
        assert_equal(found, with_gradients(pooler, features, boxes))


def test_features_that_do_not_learn(monkeypatch):
    pooler, boxes = make_pooler(), make_boxes(0, [6])
    features = [x.detach() for x in make_features(0, 1)]
    with pooler.keeping():
        expected = read(pooler, features, boxes)
        pooled = pooler(features, boxes)
    assert pooled.equal(expected)
    assert not pooled.requires_grad


def step(heads, batch):
    features, proposals, targets = batch
    features = {name: x.detach().clone().requires_grad_() for name, x in features.items()}
    heads.zero_grad()
    torch.manual_seed(0)
    _, losses, _ = train_step(heads, features, list(proposals), targets)
    sum(losses.values()).backward()
    gradients = [x.grad for x in (*features.values(), *heads.parameters())]
    return [*(x.detach() for x in losses.values()), *(x for x in gradients if x is not None)]


@pytest.mark.parametrize("sizes", [[(2, 12), (3, 20)], [(0, 9)], [(2, 0)], [(0, 0), (1, 12)]])
@pytest.mark.parametrize(
    ("name", "opts", "masks", "stages"),
    [
        ("OHEMROIHeads", [], False, 1),
        ("OHEMROIHeads", ["MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5], True, 1),
        ("OHEMCascadeROIHeads", [], False, 1),
        ("OHEMCascadeROIHeads", ["MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 2)], False, 2),
        ("OHEMRes5ROIHeads", [], False, 0),
        ("OHEMRROIHeads", [], False, 0),
    ],
)
def test_a_step_is_that_of_heads_that_pool_again(
    monkeypatch, room, name, opts, masks, stages, sizes
):
    batch = make_batch(0, sizes, masks=masks)
    if name == "OHEMRROIHeads":
        batch = rotated(batch, 0)
    heads = make_heads(*opts, name=name, masks=masks)
    take, were_kept = pooling_once._Kept.take, []

    def spy(*args, **kwargs):
        found = take(*args, **kwargs)
        were_kept.append(all(found))
        return found

    monkeypatch.setattr(pooling_once._Kept, "take", spy)
    found = step(heads, batch)
    assert were_kept == [True] * stages
    monkeypatch.setattr("ohem_d2.modeling.mixin.keeping", nullcontext)
    assert_equal(found, step(heads, batch))
    assert len(were_kept) == stages


def test_nothing_is_kept_after_a_step_or_outside_of_training(monkeypatch, room):
    heads = make_heads()
    features, proposals, targets = make_batch(0, [(2, 12)])
    features = {name: x.requires_grad_() for name, x in features.items()}
    kept = []
    add = pooling_once._Kept.add
    monkeypatch.setattr(
        pooling_once._Kept, "add", lambda self, *args: (kept.append(self), add(self, *args))
    )
    train_step(heads, features, proposals, targets)
    assert kept
    assert not any(vars(x)["_parts"] or vars(x)["_features"] for x in kept)
    assert heads.box_pooler._kept is None
    del kept[:]
    heads.mines_without_gradients = True
    with torch.no_grad():
        train_step(heads, features, proposals, targets)
        heads.eval()
        heads(None, features, proposals)
    assert not kept


def test_poolers_of_ones_own_are_left_alone():
    class Doubling(ROIPooler):
        def forward(self, x, box_lists):
            return 2 * super().forward(x, box_lists)

    heads = nn.Module()
    heads.box_pooler = Doubling((4, 4), [1 / 4], 0, "ROIAlignV2")
    pooling_once.pool_once(heads)
    assert type(heads.box_pooler) is Doubling
    with pooling_once.keeping(heads):
        assert not hasattr(heads.box_pooler, "_kept")
