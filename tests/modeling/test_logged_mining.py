"""What is logged of the mining, and what observers and mined RoIs show of it."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from mined_rois import BACKGROUND
from small_heads import NUM_CLASSES, make_batch, make_heads, train_step

from ohem_d2.modeling.metrics import PERIOD


def test_logged_metrics():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0)
    batch = make_batch(9, [(3, 50), (2, 40)])
    mined, losses, logged = train_step(heads, *batch)
    foreground = [(x.gt_classes < NUM_CLASSES).sum().item() for x in mined]
    assert logged["roi_head/num_fg_samples"] == sum(foreground) / 2
    assert logged["roi_head/num_bg_samples"] == 8 - sum(foreground) / 2
    trained = sum(losses.values()).item()
    assert logged["ohem/cost_of_selected"] == pytest.approx(trained, rel=1e-5)

    everything = make_heads(
        "MODEL.ROI_HEADS.OHEM.NMS_THRESH", 1.0, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000
    )
    all_mined, all_losses, all_logged = train_step(everything, *batch)
    assert logged["ohem/cost_of_all"] == pytest.approx(sum(all_losses.values()).item(), rel=1e-5)
    all_foreground = sum((x.gt_classes < NUM_CLASSES).sum().item() for x in all_mined)
    assert logged["ohem/share_of_fg_selected"] == pytest.approx(sum(foreground) / all_foreground)
    assert all_logged["ohem/share_of_fg_selected"] == 1


def test_mined_rois_carry_what_the_mining_saw():
    heads = make_heads()
    mined, losses, _ = train_step(heads, *make_batch(9, [(3, 50)]))
    assert mined[0].ohem_loss_cls.mean().item() == pytest.approx(losses["loss_cls"].item())
    assert mined[0].ohem_loss_box_reg.mean().item() == pytest.approx(losses["loss_box_reg"].item())
    assert not mined[0].ohem_loss_cls.requires_grad
    assert mined[0].ohem_pred_classes.shape == (8,)


def test_each_figure_is_logged_once_in_a_step():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1, 2), name="OHEMCascadeROIHeads")
    heads.train()
    with EventStorage() as storage:
        heads(None, *make_batch(0, [(3, 40)]))
    assert "stage2/roi_head/num_fg_samples" in storage.histories()
    assert {len(h.values()) for h in storage.histories().values()} == {1}
    # Detectron2's console line shows what has "loss" in its name, and so the ratio of one stage.
    ratios = [name for name in storage.histories() if "_ratio" in name]
    assert ratios == ["ohem/loss_ratio", "stage1/ohem/cost_ratio", "stage2/ohem/cost_ratio"]


def test_figures_of_classes_are_those_of_each_stage():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (2, 0), name="OHEMCascadeROIHeads")
    heads.train()
    seen = []  # of a step, first what the first stage mined, then the third
    heads.observers.append(lambda mined: seen.append(mined[0]))
    with EventStorage(start_iter=1) as storage:
        for seed in range(PERIOD):
            heads(None, *make_batch(seed, [(3, 40)]))
            storage.step()
        logged = storage.latest()
    assert len(seen) == 2 * PERIOD
    for prefix, mined in ("", seen[::2]), ("stage2/", seen[1::2]):
        losses = []
        for x in mined:
            concerned = torch.where(x.gt_classes == BACKGROUND, x.ohem_pred_classes, x.gt_classes)
            losses += (x.ohem_loss_cls + x.ohem_loss_box_reg)[concerned == 1].tolist()
        name = f"{prefix}ohem_class/1"
        assert logged[f"{name}/selected"] == (len(losses) / PERIOD, PERIOD)
        assert logged[f"{name}/cost"][0] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_observers_see_each_stage_that_mines():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (1, 2), name="OHEMCascadeROIHeads")
    seen = []
    heads.observers.append(seen.append)
    train_step(heads, *make_batch(0, [(3, 40)]))
    assert len(seen) == 2
