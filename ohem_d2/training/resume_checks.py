"""What a checkpoint holds of a training, checked before any of it is taken up."""

import copy
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from detectron2.engine import TrainerBase, hooks
from detectron2.solver import LRMultiplier
from torch import Tensor
from torch.optim import Optimizer

from ..errors import InputError
from .random_state import keep_random_state, set_random_state

logger = logging.getLogger(__name__)

# How long a value may be in a message.
_SHOWN = 60


@dataclass(frozen=True)
class _Entry:
    """A value of a checkpoint, and where it is."""

    file: str
    place: str
    value: Any

    def __getitem__(self, name: object) -> "_Entry":
        place = f"{self.place}.{name}".lstrip(".") if isinstance(name, str) else None
        place = place or f"{self.place}[{name}]"
        if not isinstance(self.value, Mapping):
            raise self.wrong("a mapping")
        if name not in self.value:
            raise InputError(f"{self.file!r}: there is no {place}, expected that of a training")
        return _Entry(self.file, place, self.value[name])

    def get(self, name: object) -> "_Entry | None":
        """The same, or None if there is none."""
        is_missing = isinstance(self.value, Mapping) and name not in self.value
        return None if is_missing else self[name]

    def items(self, length: int | None = None, why: str = "") -> list["_Entry"]:
        """Those of a list, of as many as there have to be; ``why``: so many."""
        if not isinstance(self.value, (list, tuple)):
            raise self.wrong("a list")
        if length is not None and len(self.value) != length:
            raise self.wrong(f"{length} of them{why}", f"is of length {len(self.value)}")
        return [_Entry(self.file, f"{self.place}[{i}]", x) for i, x in enumerate(self.value)]

    def count(self) -> int:
        """A number of steps or the like."""
        value = self.value
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
            raise self.wrong("an integer of 0 or more")
        return int(value)

    def check_like(self, other: Any) -> None:
        """A setting, as the training has it: a number, a switch, or several numbers."""
        if isinstance(other, (list, tuple)):
            for x, y in zip(self.items(len(other)), other):
                x.check_like(y)
        elif isinstance(other, bool):
            if not isinstance(self.value, bool):
                raise self.wrong("True or False")
        else:
            value = self.value
            if isinstance(value, Tensor) and value.numel() == 1:
                value = value.item()
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or (value < 0 <= float(other)):
                raise self.wrong("a number of 0 or more" if float(other) >= 0 else "a number")

    def check_tensor(self, shape: Sequence[int] | None, floating: bool) -> None:
        """What an optimizer keeps; ``shape``: None for any."""
        value = self.value
        if isinstance(value, Real) and not isinstance(value, bool):
            value = torch.tensor(float(value))  # as older versions of torch keep a number of steps
        if not isinstance(value, Tensor):
            raise self.wrong("a tensor")
        if shape is not None and value.shape != shape:
            raise self.wrong(f"the shape {tuple(shape)}", f"is of shape {tuple(value.shape)}")
        if floating and not value.is_floating_point():
            raise self.wrong("floating-point numbers", f"is of {value.dtype}")
        if not value.isfinite().all():
            raise self.wrong(
                "those of a training that did not diverge", "has numbers that are NaN or infinite"
            )

    def wrong(self, expected: str, found: str | None = None) -> InputError:
        """What to raise; ``found``: what is wrong with it, if not its value as such."""
        if found is None:
            found = f"is a {type(self.value).__name__}"
            if isinstance(self.value, (str, Real, type(None))):
                text = repr(self.value)
                found = f"is {text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'}"
        return InputError(f"{self.file!r}: {self.place} {found}, expected {expected}")


def check_training_state(
    file: str, checkpoint: Mapping[str, Any], trainer: TrainerBase, key: str = "trainer"
) -> None:
    """
    Make sure that a training can go on from a checkpoint: with its iteration, and with what its
    optimizer and its scheduler of learning rates had.

    Random states, and the place in the training images, may be missing, as in the checkpoints of
    Detectron2's own trainer.

    Args:
        file: what the user calls the checkpoint.
        checkpoint: what is in it.
        trainer: it has been built, and has not trained.
        key: where its state is in the checkpoint.

    Raises:
        InputError: an entry is missing, or is none that such a trainer would have written.
    """
    if key not in checkpoint:
        raise InputError(
            f"{file!r} has no {key!r}, expected a checkpoint of a training to resume from. To "
            "start from its weights alone, leave --resume out, and name it in MODEL.WEIGHTS (in "
            "train.init_checkpoint of a Python config)"
        )
    top = _Entry(file, "", checkpoint)
    if (entry := top.get("iteration")) is not None:
        entry.count()
    state = top[key]
    iteration = state["iteration"].count()
    most = getattr(trainer, "max_iter", math.inf)
    if iteration >= most:
        name = "SOLVER.MAX_ITER" if hasattr(trainer, "cfg") else "train.max_iter"
        raise InputError(
            f"{file!r} has {iteration + 1} steps behind it, expected less than {name}, which is "
            f"{most}: there is nothing left to train"
        )
    why = _groups_expected(trainer)
    schedulers = [h for h in trainer._hooks if isinstance(h, hooks.LRScheduler)]
    needs_initial_lr = False
    for hook in schedulers:
        name = type(hook).__qualname__
        if fresh := hook.state_dict():
            _check_scheduler(state["hooks"][name], hook.scheduler, fresh, iteration, why)
        else:
            needs_initial_lr = True  # from which the scheduler will be built
    stored = state.get("hooks")
    if stored is not None and (resume := stored.get("ResumeHook")) is not None:
        _check_processes(resume["processes"])
    inner: Any = trainer
    is_yaml = isinstance(getattr(trainer, "_trainer", None), TrainerBase)
    if is_yaml != (state.get("_trainer") is not None):
        forms = "YAML config", "Python config"
        found, expected = forms if not is_yaml else forms[::-1]
        raise InputError(
            f"{file!r} is of a training by a {found}, expected one by a {expected}, as this is. To "
            "start from its weights alone, leave --resume out"
        )
    if is_yaml:
        inner, state = trainer._trainer, state["_trainer"]
        state["iteration"].count()
    if isinstance(optimizer := getattr(inner, "optimizer", None), Optimizer):
        _check_optimizer(state["optimizer"], optimizer, needs_initial_lr, why)
    if (scaler := getattr(inner, "grad_scaler", None)) is not None:
        for name, value in scaler.state_dict().items():
            state["grad_scaler"][name].check_like(value)


def _groups_expected(trainer: TrainerBase) -> str:
    """Why an optimizer has as many groups of parameters as it has: by which settings."""
    if (cfg := getattr(trainer, "cfg", None)) is None:
        return ", as many as the optimizer has groups of parameters by optimizer.params"
    keys = "BIAS_LR_FACTOR", "WEIGHT_DECAY", "WEIGHT_DECAY_BIAS", "WEIGHT_DECAY_NORM"
    settings = ", ".join(f"SOLVER.{x} {cfg.SOLVER[x]}" for x in keys)
    return f", as many as the optimizer has groups of parameters by {settings}"


def _check_scheduler(
    entry: _Entry, scheduler: object, fresh: Mapping[str, Any], iteration: int, why: str
) -> None:
    if "base_lrs" in fresh:
        entry["base_lrs"].items(len(fresh["base_lrs"]), why)
        entry["base_lrs"].check_like(fresh["base_lrs"])
    if "last_epoch" in fresh:
        last = entry["last_epoch"]
        steps = last.count()
        # It may be saved before or after the scheduler's own step.
        if isinstance(scheduler, LRMultiplier) and steps - iteration not in (0, 1):
            raise last.wrong(f"{iteration + 1}, one more than the iteration")
    if not isinstance(entry.value, Mapping):
        raise entry.wrong("a mapping")


def _check_optimizer(entry: _Entry, optimizer: Optimizer, needs_initial_lr: bool, why: str) -> None:
    """Compare it with an optimizer that has not made a step."""
    params: dict[Any, tuple[Tensor, Mapping[str, Any]]] = {}
    saved = entry["param_groups"].items(len(optimizer.param_groups), why)
    for x, group in zip(saved, optimizer.param_groups):
        for name, value in group.items():
            # Switches come with new versions of torch, which sets those that are missing.
            is_new = isinstance(value, bool) and x.get(name) is None
            if _is_setting(value) and not is_new:
                x[name].check_like(value)
        if needs_initial_lr:
            x["initial_lr"].check_like(0.0)
        # Some keep other things of a matrix than of a vector.
        by_dimensions = {
            n: _state_after_step(optimizer, {**group, **x.value}, n)
            for n in {param.ndim for param in group["params"]}
        }
        numbers, length = x["params"].items(), len(group["params"])
        if len(numbers) != length:
            raise x["params"].wrong(
                f"{length}, as many as the model learns by this config: that of the training, with "
                "the same layers frozen (MODEL.BACKBONE.FREEZE_AT)",
                f"is of length {len(numbers)}",
            )
        for number, param in zip(numbers, group["params"]):
            params[number.count()] = param, by_dimensions[param.ndim]
    state = entry["state"]
    if not isinstance(state.value, Mapping):
        raise state.wrong("a mapping")
    for number in state.value:
        if number not in params:
            raise InputError(f"{state.file!r}: {state.place}[{number!r}] is of no parameter")
        param, kept = params[number]
        for name, like in kept.items():
            value = state[number].get(name)
            if value is None:
                raise InputError(
                    f"{state.file!r}: {state.place}[{number}] has no {name}, expected one, as "
                    f"{type(optimizer).__name__} has"
                )
            if isinstance(like, Tensor):
                shapes = {(): torch.Size(), _shape(param.ndim): param.shape}
                value.check_tensor(shapes.get(tuple(like.shape)), like.is_floating_point())
            elif _is_setting(like):
                value.check_like(like)
    lacking = [number for number, (_, kept) in params.items() if kept and number not in state.value]
    if not lacking:
        return
    if len(lacking) == len(params):
        names = " and ".join(params[lacking[0]][1])
        raise InputError(
            f"{state.file!r}: {state.place} has no parameter, expected {names} of each, as "
            f"{type(optimizer).__name__} has"
        )
    # They may be of a part of the model that no loss depends on.
    logger.warning(
        f"{state.file}: {state.place} lacks {len(lacking)} of {len(params)} parameters, which go "
        "on as in the first step"
    )


def _is_setting(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(x, Real) for x in value)
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)


def _shape(dimensions: int) -> tuple[int, ...]:
    """That of a small parameter, which no number of it has in common with another."""
    return tuple(range(2, 2 + dimensions))


def _state_after_step(
    optimizer: Optimizer, group: dict[str, Any], dimensions: int
) -> dict[str, Any]:
    """
    What an optimizer keeps of a parameter, which only its first step shows: of a small one.

    Args:
        optimizer: it is not changed.
        group: settings of the parameter.
        dimensions: how many it has.

    Returns:
        the state of a parameter of `_shape`. Empty also where the optimizer is none of torch's, and
        cannot be copied.
    """
    some = optimizer.param_groups[0]["params"][0]
    param = torch.zeros(
        _shape(dimensions), dtype=some.dtype, device=some.device, requires_grad=True
    )
    param.grad = torch.zeros_like(param)
    try:
        shadow = copy.copy(optimizer)
        shadow.state = defaultdict(dict)
        shadow.param_groups = [{**group, "params": [param]}]
        type(shadow).step(shadow)  # not that which a scheduler has put in its place
        return {name: x for name, x in shadow.state[param].items() if x is not None}
    except Exception as e:  # there is no end to what other optimizers need
        logger.debug(f"{type(optimizer).__name__} was not looked into: {e}")
        return {}


def _check_processes(entry: _Entry) -> None:
    """Of each process, its random states, its place in the training images, and the others."""
    processes = entry.items()
    if not processes:
        raise entry.wrong("one entry for each process", "is empty")
    for i, process in enumerate(processes):
        if process.value is None and i > 0:
            continue  # of a checkpoint that only the main process saved
        _check_random(process["random"])
        if (normalizers := process.get("normalizers")) is not None:
            if not isinstance(normalizers.value, Mapping):
                raise normalizers.wrong("a mapping")
            for name in normalizers.value:
                normalizers[name].check_like(0.0)
        if (found := process.get("found_out")) is not None:
            flags = {"calls_hooks", "rois_see_each_other"}
            of_heads = found.value.values() if isinstance(found.value, Mapping) else [None]
            if not all(isinstance(x, Mapping) and flags <= x.keys() for x in of_heads):
                raise found.wrong(f"a mapping of heads to {', '.join(sorted(flags))}")
        loader = process["loader"]
        if loader.get("position") is None:
            continue  # of a loader that has no place
        loader["position"].count()
        if loader["first_state"].value is not None and not isinstance(
            loader["first_state"].value, bytes
        ):
            raise loader["first_state"].wrong("the bytes of a random state")
        for worker in loader["workers"].items():
            _check_random(worker)
        for image in loader["waiting"].items():
            index, state = image.items(2)
            index.count()
            _check_random(state)
        if i == 0 and not isinstance(loader["sampler"].value, Mapping):
            raise loader["sampler"].wrong("a mapping")


def _check_random(entry: _Entry) -> None:
    with keep_random_state():
        try:
            set_random_state(entry.value)
        except Exception:  # torch's, numpy's and Python's are of all kinds
            raise entry.wrong(
                "the random states of torch, numpy and Python", "is something else"
            ) from None
