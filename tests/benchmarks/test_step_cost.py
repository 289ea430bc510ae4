"""What a training step takes, counted: it is not to creep up."""

import re
import sys

import pytest
import step_cost
import torch
from mined_rois import set_options
from small_models import SHRINK_OPTS

from ohem_d2.modeling import mixin, reading
from ohem_d2.training.config_file import load_config

FPN, C4, CASCADE = (
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
)


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def contenders(name, images=1, proposals=500, budget=16):
    """Plain Detectron2 and mining."""
    number = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", budget]
    # Mining may choose more foreground, which alone has masks.
    cfg = load_config(name, [*SHRINK_OPTS, *map(str, number), "MODEL.MASK_ON", "False"])
    plain = cfg.MODEL.ROI_HEADS.NAME
    data = step_cost.make_inputs(cfg, images, proposals, (64, 64))
    return [
        step_cost.Contender(cfg, head, None, *data) for head in (plain, step_cost.MINING[plain])
    ]


@pytest.mark.parametrize("name", [FPN, CASCADE, C4])
def test_peak_memory(name, monkeypatch):
    """Reading 500 RoIs to train on 16 of them does not take more than the training."""
    # Models as small as this have so little else that 512 RoIs would be most of their memory.
    monkeypatch.setattr(mixin.OHEMMixin, "_fewest_at_a_time", 0)
    plain, mining = contenders(name)
    limit = plain.peak_memory()
    assert mining.peak_memory() <= 1.01 * limit
    # Without chunks it would, or this test could not fail.
    monkeypatch.setattr(reading, "read_in_chunks", lambda read, rois, size: read(rois))
    assert mining.peak_memory() > 2 * limit


@pytest.mark.parametrize(("name", "number"), [(FPN, 13), (CASCADE, 13), (C4, 9)])
def test_synchronizations(name, number):
    """Those of reading and selection, and of drawing: 2 an image, and the sizes of all."""
    for images in (1, 4):
        plain, mining = contenders(name, images, proposals=100, budget=128)  # one chunk
        mining.model.roi_heads._check._num_steps = 1  # in the first step, losses are compared
        extra = mining.synchronizations() - plain.synchronizations()
        assert extra <= number + 2 + (images - 1)
        set_options(mining.model.roi_heads, hard_fraction=1.0)
        drawn = 2 * images + 1
        assert mining.synchronizations() - plain.synchronizations() == extra - drawn


@pytest.mark.parametrize("images", [1, 4])
def test_peak_memory_does_not_grow_with_images(images, monkeypatch):
    torch.set_num_threads(1)  # pooling channel by channel needs memory of its own in a small model
    plain, mining = contenders(FPN, images, proposals=1500, budget=512)
    # The values that samplers get of each RoI are more than 1 % of a model as small as this.
    limit = 1.015 * plain.peak_memory()
    assert mining.peak_memory() <= limit
    monkeypatch.setattr(mixin.OHEMMixin, "_fewest_at_a_time", 1024 * images)
    assert mining.peak_memory() > limit


def test_the_budget_is_that_of_mining(monkeypatch, capsys, tmp_path):
    """Also where the name of the mining head contains that of plain Detectron2's."""
    arguments = f"--config-file {C4} --size 64 64 --proposals 30 --rounds 1 --budget 7 --output"
    monkeypatch.setattr(
        sys,
        "argv",
        ["step_cost.py", *arguments.split(), str(tmp_path / "cost.md"), "--", *SHRINK_OPTS],
    )
    step_cost.main()
    page = capsys.readouterr().out
    assert re.search(r"^\| OHEMRes5ROIHeads \|.* 7 \(\d+\) \|$", page, re.MULTILINE)
    assert re.search(r"^\| Res5ROIHeads \|.* 12 \(\d+\) \|$", page, re.MULTILINE)


def test_synchronizations_of_each_chunk(monkeypatch):
    """One for each level of the pyramid, and three more."""
    monkeypatch.setattr(mixin.OHEMMixin, "_fewest_at_a_time", 20)
    numbers = []
    for proposals in (20, 60):  # with the ground truth, two and four chunks
        plain, mining = contenders(FPN, proposals=proposals, budget=10)
        numbers.append(mining.synchronizations() - plain.synchronizations())
    assert numbers[1] - numbers[0] <= 2 * 7


def test_the_script_writes_a_page(capsys, monkeypatch, tmp_path):
    """The script itself, on the smallest of inputs: a page with a table and a plot."""
    monkeypatch.setitem(step_cost.SWEEPS, "proposals", [40])
    page = tmp_path / "cost.md"
    command = f"step_cost.py --config-file {FPN} --size 64 64 --proposals 30 --rounds 1"
    command += " --candidates 15 --rpn --sweep"
    arguments = [*command.split(), "proposals", "--title", "Small", "--output", str(page), "--"]
    monkeypatch.setattr(sys, "argv", [*arguments, *SHRINK_OPTS])
    step_cost.main()
    text = page.read_text()
    for name in ("StandardROIHeads", "StandardROIHeads pooled by all cores", "OHEMROIHeads",
                 "StandardROIHeads and OHEMRPN", "OHEMROIHeads and OHEMRPN"):  # fmt: skip
        assert re.search(rf"^\| {name} \| \d+\.\d+ \|", text, re.MULTILINE)
    assert re.search(r"^\| OHEMROIHeads of 15 candidates \| \d+\.\d+ \|", text, re.MULTILINE)
    assert "## Small" in text
    assert "the mining takes: labelling" in text
    assert re.search(r"^\| 40 \| \d+\.\d+ \|", text, re.MULTILINE)
    assert (tmp_path / "cost_proposals.png").read_bytes().startswith(b"\x89PNG")
    assert "## Small" in capsys.readouterr().out
