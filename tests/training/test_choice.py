"""Budgets that leave mining no choice."""

import pytest
from small_heads import make_heads
from torch import nn

from ohem_d2.training.choice import KEYS, LAZY_KEYS, warn_without_choice

LIMIT = "MODEL.ROI_HEADS.OHEM.MAX_CANDIDATES"


def model_of(heads, proposals=None):
    model = nn.Module()
    model.roi_heads = heads
    if proposals is not None:
        model.proposal_generator = proposals
    return model


@pytest.mark.parametrize(
    ("limit", "told"), [(0, False), (4, True), (8, True), (9, False), (300, False)]
)
def test_candidates(caplog, limit, told):
    warn_without_choice(model_of(make_heads(LIMIT, limit)), KEYS)  # the budget is 8
    words = f"{LIMIT} is {limit}, and MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, the RoIs of an image"
    assert (words in caplog.text) == told
    assert bool(caplog.messages) == told


def test_heads_that_do_not_mine(caplog):
    warn_without_choice(model_of(make_heads(name="StandardROIHeads")), KEYS)
    warn_without_choice(nn.Linear(1, 1), LAZY_KEYS)
    assert caplog.text == ""


@pytest.mark.parametrize(("number", "told"), [(8, True), (50, False)])
def test_proposals(caplog, monkeypatch, number, told):
    proposals = nn.Module()
    proposals.post_nms_topk = {True: number, False: 1}
    monkeypatch.setattr("ohem_d2.training.choice.RPN", nn.Module)
    warn_without_choice(model_of(make_heads(), proposals), LAZY_KEYS)
    words = "model.proposal_generator.post_nms_topk[0] is 8, and model.roi_heads.batch_size_per_ima"
    assert (words in caplog.text) == told
