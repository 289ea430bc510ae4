"""Overrides of a Python config's optimizer that do nothing."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.solver import get_default_optimizer_params
from omegaconf import OmegaConf

from ohem_d2.training.overrides import warn_of_unused_overrides


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"pos_embed": {"weight_decay": 0.0}, "bias": {"lr": 0.1, "momentum": 0.5}}, ()),
        (
            {"pos_embd": {"weight_decay": 0.0}},
            ("has 'pos_embd', which", "the nearest is pos_embed"),
        ),
        ({"backbone.bias": {"lr": 0.1}}, ("has 'backbone.bias'", "the nearest is bias")),
        ({"weight": {"lr": 0.1}}, ("has 'weight'", "that are trained")),
        ({"bias": {"weight_decy": 0.0}}, (".bias has 'weight_decy'", "nearest is weight_decay")),
        (None, ()),
    ],
)
def test_overrides_that_do_nothing(caplog, overrides, words):
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad = False  # as of a frozen part
    model.pos_embed = torch.nn.Parameter(torch.ones(2))
    params = L(get_default_optimizer_params)(overrides=overrides)
    cfg = OmegaConf.create({"optimizer": {"params": params}}, flags={"allow_objects": True})
    warn_of_unused_overrides(cfg, model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert len(caplog.records) == bool(words)
    assert all(x in caplog.text for x in words)
