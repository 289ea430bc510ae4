"""
The schedule of learning rates, tried over all steps before the first, and looked at to the end.

After the last step, Detectron2 asks for the rate of one more. Its schedules are for progress in
[0, 1) though, and some fail at 1: that of fixed gamma has no value there, and one behind a warm-up
may be asked for more than 1, by rounding. No step has that rate, so the last one is as good.
"""

import copy
import logging
import math
from numbers import Real

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig, ListConfig

from ..errors import InputError, shown
from .lazy_targets import parts_of
from .random_state import keep_random_state

logger = logging.getLogger(__name__)

# Of a longer training, so many steps are tried; and in each training so many places.
_MOST_TRIED, _PLACES = 10_000, 1000
# A part of the largest rate that is none beside it, in the precision of the weights.
_NO_RATE = 1e-7
# A rate of half the largest is near it, as it should be for some part of a training; and the
# largest should be more than this part of what is set.
_NEAR, _LEAST_PART, _LOW = 0.5, 0.05, 0.1


class EndingSchedule(ParamScheduler):
    """A schedule that has a value at the end of a training, too."""

    def __init__(self, schedule: ParamScheduler) -> None:
        """
        Args:
            schedule: it is as before wherever it has a value.
        """
        self._schedule = schedule

    def __call__(self, where: float) -> float:
        """See fvcore's `ParamScheduler`."""
        try:
            return self._schedule(where)
        except Exception:  # a schedule of the user's own may raise anything
            if where + self.WHERE_EPSILON < 1:
                raise
            return self._schedule(1 - 2 * self.WHERE_EPSILON)


def with_an_end(scheduler: object, key: str, max_iter: int, settings: str = "") -> object:
    """
    Let a schedule have a value at the end of a training, and try it.

    Args:
        scheduler: what Detectron2's hook of learning rates takes. Those of torch's own, which keep
            a state, are left alone.
        key: where the config names it.
        max_iter: how many steps the training has.
        settings: those that the rates are made of, for warnings.

    Returns:
        the scheduler to use.

    Raises:
        InputError: a rate is none.
    """
    if isinstance(scheduler, LRMultiplier):
        scheduler._multiplier = EndingSchedule(scheduler._multiplier)
        _try(scheduler._multiplier, key, max_iter, settings)
    elif isinstance(scheduler, ParamScheduler):
        scheduler = EndingSchedule(scheduler)
        factors = _try(scheduler, key, max_iter, settings)
        if (middle := factors[len(factors) // 2]) < factors[-1] <= 1:
            logger.warning(
                f"{key} has its learning rate lower in the middle of the training ({middle:g} of "
                f"what is set) than at its end ({factors[-1]:g})"
            )
    return scheduler


def settings_of(cfg: CfgNode | DictConfig) -> str:
    """What a config in either form has its schedule fall by, and when: in words."""
    found = {}
    if isinstance(cfg, CfgNode):
        solver = cfg.SOLVER
        names = {"WarmupMultiStepLR": ("STEPS", "GAMMA"), "WarmupCosineLR": ("BASE_LR_END",)}
        names_of_schedule = names.get(solver.LR_SCHEDULER_NAME, ("NUM_DECAYS", "GAMMA"))
        for name in (*names_of_schedule, "MAX_ITER", "WARMUP_ITERS"):
            found[f"SOLVER.{name}"] = solver[name]
    else:
        for key, part in parts_of(cfg.lr_multiplier, "lr_multiplier"):
            for name in ("values", "milestones", "num_updates", "warmup_length"):
                if isinstance(value := part.get(name), (int, float, ListConfig)):
                    found[f"{key}.{name}"] = [*value] if isinstance(value, ListConfig) else value
    return ", ".join(f"{key} is {shown(value)}" for key, value in found.items())


def _try(schedule: ParamScheduler, key: str, max_iter: int, settings: str) -> list[float]:
    """The factors of the learning rate that a schedule has, from the first step to the last."""
    number = min(max_iter, _MOST_TRIED)
    steps = {int(x) / max_iter for x in np.linspace(0, max_iter - 1, number).round()}
    factors: dict[float, float] = {}
    with keep_random_state():
        schedule = copy.deepcopy(schedule)  # one of the user's own may keep a state
        # A first try of two steps is to show what a long training would do: so also between steps.
        for where in sorted({*steps, *(i / _PLACES for i in range(_PLACES))}):
            try:
                factor = schedule(where)
            except Exception:
                if where in steps:
                    raise
                continue
            factors[where] = factor.item() if isinstance(factor, torch.Tensor) else factor
    for where, factor in factors.items():
        if not isinstance(factor, Real) or not math.isfinite(factor) or factor < 0:
            raise InputError(
                f"{key} makes {shown(factor)} times the learning rate that is set at {where:.0%} "
                "of the training, expected a factor of 0 or more"
            )
    where = max(factors, key=lambda x: factors[x])
    values, largest = list(factors.values()), factors[where]
    middle, part = values[len(values) // 2], _part_near(largest, values)
    because = f": {settings}" if settings else ""
    if largest == 0:
        logger.warning(f"{key} makes all learning rates 0: nothing will be learned")
    elif largest > 1 and not math.isclose(largest, 1):
        logger.warning(
            f"{key} makes the learning rate {largest:g} times as large as it is set, at "
            f"{where:.0%} of the training"
        )
    if middle < _NO_RATE * largest:
        logger.warning(
            f"{key} has the learning rate down to {middle:g} of what is set in the middle of the "
            "training: nothing is learned then"
        )
    elif part < _LEAST_PART:
        logger.warning(
            f"{key} has the learning rate near its largest, {largest:g} of what is set, in only "
            f"{max(part, 1 / max_iter):.2%} of the training{because}"
        )
    elif 0 < largest <= _LOW * (1 + 1e-6) and middle >= values[-1]:  # else it is still rising
        logger.warning(
            f"{key} has the learning rate never above {largest:g} of what is set{because}"
        )
    return values


def _part_near(largest: float, values: list[float]) -> float:
    """In which part of a training rates are near the largest."""
    return sum(x >= _NEAR * largest for x in values) / len(values)
