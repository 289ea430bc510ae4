"""The schedule of learning rates, over all steps and at the end."""

import logging
import math
import re

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.solver import LRMultiplier, WarmupParamScheduler, build_lr_scheduler
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    ExponentialParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from small_models import ZOO
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from ohem_d2.errors import InputError
from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.schedule import EndingSchedule, settings_of, with_an_end

STEPS = 7


class Mine(ParamScheduler):
    """Of the user's own, with a state."""

    def __init__(self, factor=lambda where: 1.0):
        self.calls = 0
        self._factor = factor

    def __call__(self, where):
        self.calls += 1
        return self._factor(where)


def fixed_gamma(steps=STEPS, decays=3):
    return StepWithFixedGammaParamScheduler(1.0, decays, 0.1, steps)


def multi_step(milestones, number):
    return MultiStepParamScheduler([1, 0.1, 0.01], number, milestones)


def optimizer():
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("WarmupStepWithFixedGammaLR", {}),
        ("WarmupStepWithFixedGammaLR", {"NUM_DECAYS": 30, "RESCALE_INTERVAL": True}),
        ("WarmupMultiStepLR", {"STEPS": (3,), "RESCALE_INTERVAL": True}),
        ("WarmupCosineLR", {}),
    ],
)
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_yaml_schedule_has_detectron2s_rates_and_an_end(name, settings, warmup):
    cfg = get_cfg()
    cfg.SOLVER.update(MAX_ITER=STEPS, WARMUP_ITERS=warmup, LR_SCHEDULER_NAME=name, **settings)
    plain = build_lr_scheduler(cfg, optimizer())
    ours = with_an_end(build_lr_scheduler(cfg, optimizer()), "KEY", STEPS)
    for _ in range(STEPS - 1):
        plain.step()
        ours.step()
        assert ours.get_last_lr() == plain.get_last_lr()
    ours.step()
    assert 0 <= ours.get_last_lr()[0] <= 0.25


def test_the_end_is_that_of_the_last_step():
    assert EndingSchedule(fixed_gamma())(1.0) == fixed_gamma()(0.99)
    # In longer trainings, the last steps have none either.
    assert EndingSchedule(fixed_gamma())(1 - 1e-7) == fixed_gamma()(0.99)
    assert EndingSchedule(CosineParamScheduler(1, 0))(1.0) == 0
    warmup = WarmupParamScheduler(ConstantParamScheduler(1.0), 0.1, 1.0, "linear", True)
    assert EndingSchedule(warmup)(1.0) == pytest.approx(1, abs=1e-5)


def test_what_fails_before_the_end():
    def fails(where):
        return [1.0][int(where * 2)]

    with pytest.raises(IndexError):
        with_an_end(Mine(fails), "KEY", STEPS)


@pytest.mark.parametrize("factor", [-0.1, math.nan, math.inf, "0.1", None, torch.tensor(-1.0)])
def test_what_is_no_rate(factor):
    schedule = StepParamScheduler(STEPS, [torch.tensor(1.0), factor])
    with pytest.raises(InputError, match=r"^KEY makes .* times the learning .* at 50% of the tr"):
        with_an_end(schedule, "KEY", STEPS)


def test_what_fails_between_steps_is_never_asked_for():
    def fails(where):
        return {0: 1.0, 0.5: 0.1}[where]

    with_an_end(Mine(fails), "KEY", 2)


@pytest.mark.parametrize("max_iter", [2, STEPS])
@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            StepParamScheduler(STEPS, [1.0, 10.0, 100.0]),
            "100 times as large .* at 67% of the training",
        ),
        (StepParamScheduler(STEPS, [0.01, 0.1, 1.0]), r"lower in the middle .*\(0.1 .* \(1\)"),
        (LinearParamScheduler(0.0, 1.0), "lower in the middle"),
        (fixed_gamma(decays=30), "down to 1e-15 of what is set in the middle"),
        (StepParamScheduler(STEPS, [1.0, 0.0, 0.0]), "down to 0 of what is set in the middle"),
        (ConstantParamScheduler(0.0), "makes all learning rates 0"),
        (ConstantParamScheduler(0.1), "never above 0.1 of what is set: SETTINGS$"),
        (multi_step([0.6, 0.9], 90000), "largest, 1 of what is set, in only .* training: SETTINGS"),
        (multi_step([60, 80], 90000), "near its largest, 1 of what is set, in only"),
        (multi_step([60, 80000], 90000), "near its largest, 1 of what is set, in only"),
        # By the end of its warm-up, all is over.
        (WarmupParamScheduler(multi_step([0.6, 0.9], 90000), 0.001, 0.01), "never above 0.01 of"),
    ],
)
def test_what_is_strange(schedule, message, max_iter, caplog):
    with_an_end(schedule, "KEY", max_iter, "SETTINGS")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("KEY ")
    assert re.search(message, record.getMessage())


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantParamScheduler(1.0),
        CosineParamScheduler(1.0, 0.0),
        MultiStepParamScheduler([1, 0.1, 0.01], milestones=[3, 5], num_updates=STEPS),
        WarmupParamScheduler(fixed_gamma(), 0.001, 0.2),
        WarmupParamScheduler(ConstantParamScheduler(1.0), 0.001, 0.4),
        ExponentialParamScheduler(1.0, 0.001),
        MultiStepParamScheduler([1, 0.1], milestones=[1], num_updates=STEPS),
    ],
)
def test_what_is_usual(schedule, caplog):
    with_an_end(schedule, "KEY", STEPS)
    assert not caplog.records


def test_what_is_left_as_it_is():
    mine = Mine()
    with_an_end(mine, "KEY", STEPS)
    assert mine.calls == 0
    torchs = StepLR(optimizer(), 3)
    assert with_an_end(torchs, "KEY", STEPS) is torchs


def test_a_long_training_is_tried_at_some_steps():
    schedule = with_an_end(fixed_gamma(2**31 - 1), "KEY", 2**31 - 1)
    assert isinstance(schedule, EndingSchedule)
    assert isinstance(
        with_an_end(LRMultiplier(optimizer(), fixed_gamma(), 9), "K", 9), LRMultiplier
    )


def test_the_settings_of_a_yaml_schedule():
    cfg = get_cfg()
    cfg.SOLVER.update(STEPS=(60, 80), MAX_ITER=90000)
    assert settings_of(cfg) == (
        "SOLVER.STEPS is (60, 80), SOLVER.GAMMA is 0.1, SOLVER.MAX_ITER is 90000, "
        "SOLVER.WARMUP_ITERS is 1000"
    )


def test_the_settings_of_a_python_configs_schedule():
    cfg = LazyConfig.load(str(ZOO / "COCO-InstanceSegmentation" / "mask_rcnn_R_50_FPN_1x.py"))
    cfg.lr_multiplier.scheduler.milestones = [0.6, 0.9]
    cfg.lr_multiplier.scheduler.num_updates = 90000
    words = settings_of(cfg)
    assert "lr_multiplier.warmup_length is 0.0111" in words
    assert "lr_multiplier.scheduler.milestones is [0.6, 0.9], " in words
    assert "lr_multiplier.scheduler.num_updates is 90000" in words


@pytest.mark.parametrize(
    "path",
    [x for x in sorted(ZOO.rglob("*")) if x.suffix in (".yaml", ".py")]
    + [x for x in sorted(CONFIGS.rglob("*.yaml")) if x.parent.name != "parts"],
    ids=lambda x: f"{x.parent.name}/{x.name}",
)
def test_the_schedules_of_the_model_zoo(caplog, path):
    if path.suffix == ".py":
        cfg = LazyConfig.load(str(path))
        if "common" in path.parts or not {"lr_multiplier", "train"} <= cfg.keys():
            pytest.skip("a part of other configs")
        scheduler, number = instantiate(cfg.lr_multiplier), cfg.train.max_iter
    else:
        cfg = load_config(str(path))
        scheduler, number = build_lr_scheduler(cfg, optimizer()), cfg.SOLVER.MAX_ITER
    caplog.clear()
    with_an_end(scheduler, "KEY", number, settings_of(cfg))
    assert caplog.text == ""
