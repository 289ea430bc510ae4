"""The example samplers of docs/samplers choose what their pages say."""

import importlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_heads import FAMILIES, make_batch, make_heads, rotated, train_step

from ohem_d2 import SAMPLERS, Candidates

FOLDER = Path(__file__).parents[2] / "docs" / "samplers"
NUM_CLASSES = 2


@pytest.fixture(scope="module", autouse=True)
def examples():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        for file in FOLDER.glob("*.py"):
            importlib.import_module(file.stem)
        yield


def make_candidates(seed, numbers):
    generator = torch.Generator().manual_seed(seed)
    total = sum(numbers)
    labels = torch.randint(0, NUM_CLASSES + 1, (total,), generator=generator)
    ious = torch.rand(total, generator=generator) / 2
    ious[labels < NUM_CLASSES] += 0.5
    return Candidates(
        boxes=torch.zeros(total, 4),
        labels=labels,
        image_ids=torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers)),
        ious=ious,
        pred_ious=torch.rand(total, generator=generator),
        loss_cls=torch.rand(total, generator=generator),
        loss_box_reg=torch.rand(total, generator=generator),
        num_classes=NUM_CLASSES,
        num_images=len(numbers),
    )


def by_image(rois, selection):
    """Of each image: all foreground and background, and what is chosen of both."""
    is_fg = rois.labels < NUM_CLASSES
    chosen = set(selection.indices.tolist())
    assert len(chosen) == len(selection.indices)
    for image in range(rois.num_images):
        of_image = rois.image_ids == image
        fg, bg = ((of_image & x).nonzero()[:, 0].tolist() for x in (is_fg, ~is_fg))
        yield fg, bg, [i for i in fg if i in chosen], [i for i in bg if i in chosen]


given_rois = given(
    seed=st.integers(0, 2**31),
    numbers=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    budget=st.integers(1, 16),
)


@settings(max_examples=40, deadline=None)
@given_rois
def test_iou_balanced(seed, numbers, budget):
    rois = make_candidates(seed, numbers)
    selection = SAMPLERS.get("IoUBalanced")(num_bins=4, positive_fraction=0.5)(rois, budget)
    for fg, bg, chosen_fg, chosen_bg in by_image(rois, selection):
        assert len(chosen_fg) == min(len(fg), int(0.5 * budget))
        number = budget - len(chosen_fg)
        assert len(chosen_bg) == min(len(bg), number)
        if not bg:
            continue
        width = max(rois.ious[i].item() for i in bg) / 4
        bins = [[], [], [], []]
        for i in bg:
            bins[min(3, int(rois.ious[i].item() / width))].append(i)
        for of_bin in bins:  # each gives its share, if it has it
            assert len(set(of_bin) & set(chosen_bg)) >= min(len(of_bin), number // 4)


@settings(max_examples=40, deadline=None)
@given_rois
def test_predicted_iou(seed, numbers, budget):
    rois = make_candidates(seed, numbers)
    selection = SAMPLERS.get("PredictedIoU")(positive_fraction=0.5)(rois, budget)
    for fg, bg, chosen_fg, chosen_bg in by_image(rois, selection):
        best = sorted(fg, key=lambda i: -rois.pred_ious[i])[: int(0.5 * budget)]
        assert chosen_fg == sorted(best)
        costliest = sorted(bg, key=lambda i: -rois.loss_cls[i])[: budget - len(best)]
        assert chosen_bg == sorted(costliest)


@pytest.mark.parametrize("name", ["iou_balanced.IoUBalanced", "predicted_iou.PredictedIoU"])
@pytest.mark.parametrize("head", FAMILIES)
def test_they_train_every_head(name, head):
    heads = make_heads(
        *("MODEL.ROI_HEADS.OHEM.SAMPLER", f"{name}(positive_fraction=0.5)"),
        *("MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5),
        name=head,
    )
    batch = make_batch(0, [(3, 40), (0, 20)])
    _, losses, logged = train_step(
        heads, *(rotated(batch, 0) if head == "OHEMRROIHeads" else batch)
    )
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert logged["ohem/loss_ratio"] > 0
