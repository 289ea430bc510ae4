"""Trainings that go on after an interruption as if there had been none."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from detectron2.engine import hooks
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from ..modeling.mixin import OHEMMixin
from .data_loader import ResumableLoader
from .random_state import random_state, set_random_state

logger = logging.getLogger(__name__)

# Of a cluster, of Ctrl-C, and of a terminal that closes, which Windows lacks.
SIGNALS = tuple(x for x in signal.Signals if x.name in ("SIGTERM", "SIGINT", "SIGHUP"))
# Where Detectron2's one-stage detectors keep it, in no state_dict.
_NORMALIZER = "loss_normalizer"


class Interrupted(KeyboardInterrupt):
    """A signal ended the training. There is a checkpoint of all that it did."""

    def __init__(self, signum: int, message: str) -> None:
        """
        Args:
            signum: the signal.
            message: where the training stopped.
        """
        super().__init__(message)
        self.signum = signum


class ResumeHook(hooks.PeriodicCheckpointer):
    """
    Detectron2's `PeriodicCheckpointer`, to be registered on all processes, whose checkpoints also
    hold where each process was in the stream of images, its random state, and what the losses of a
    one-stage detector are divided by, which Detectron2 averages over steps beside the weights.

    It also answers SIGTERM, SIGINT and SIGHUP: the step is finished, a checkpoint is written, and
    `Interrupted` is raised; during an evaluation between two steps, at once. The second SIGINT ends
    a training of one process at once.

    The hooks that follow this one do not touch the random state of the next step: a training is the
    same whether or not it is evaluated in between.
    """

    period: int

    def __init__(
        self,
        checkpointer: Checkpointer,
        period: int,
        max_to_keep: int | None = None,
        eval_period: int = 0,
    ) -> None:
        """
        Args:
            checkpointer: it has the trainer among its checkpointables.
            period: every how many steps to save a checkpoint.
            max_to_keep: how many of them are kept, if not all.
            eval_period: every how many steps the model is evaluated. 0: never.
        """
        super().__init__(checkpointer, period, max_to_keep=max_to_keep)
        self._eval_period = eval_period
        self._random: dict[str, Any] | None = None  # in which the next step begins
        self._step, self._saved = -1, -1  # those that were finished, and saved, last
        self._states: list[dict[str, Any]] = []  # of all processes after that step, if gathered
        self._is_resumed = False
        self._signum, self._may_stop = 0, False
        self._interruption: Interrupted | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def before_train(self) -> None:
        """Listen to signals."""
        super().before_train()
        start, end = self.trainer.start_iter, self.trainer.max_iter
        if start >= end > 0:
            logger.warning(
                f"{self.checkpointer.get_checkpoint_file()} is of iteration {start - 1}, and the "
                f"training ends before {end}: nothing is left to train. To go on, give more "
                "iterations (SOLVER.MAX_ITER, or train.max_iter in a Python config)"
            )
        elif start > 0 and not self._is_resumed:
            logger.warning(
                "The checkpoint has neither random states nor a place in the training images: the "
                "training goes on, but not bit by bit as if it had not been interrupted"
            )
        if threading.current_thread() is threading.main_thread():  # others may not
            self._handlers = {x: signal.signal(x, self._on_signal) for x in _heard()}

    def before_step(self) -> None:
        """Begin a step with the random state in which the last one ended."""
        self._may_stop = False
        if self._random is not None:
            set_random_state(self._random)

    def after_step(self) -> None:
        """
        Save a checkpoint if it is time to, or if the training has to stop.

        Raises:
            Interrupted: a signal came.
        """
        self._step, self._random = self.trainer.iter, random_state()
        signum, is_alone = self._signum, comm.get_world_size() == 1
        if not is_alone:
            # It may have reached some processes before the step ended, and others not.
            signum = next((x for x in comm.all_gather(signum) if x), 0)
        is_last, is_evaluated = self._is_last(), self._is_due(self._eval_period)
        is_saved = is_last or self._is_due(self.period)
        self._states = []
        if signum or is_saved or is_evaluated:
            self._states = comm.gather(self._state())
        if is_saved and comm.is_main_process():
            super().after_step()
            self._saved = self._step
        if signum:
            self._stop(signum)
        # Evaluation may be long, and a signal ends it at once. What else comes before the next step
        # is short, and is not left in the middle: it may be an import, or a file half written.
        self._may_stop = is_evaluated
        if self._may_stop and self._signum and not is_last:
            self._stop(self._signum)
        if self._interruption is not None and not is_last:
            raise self._interruption

    def after_train(self) -> None:
        """
        Listen no more.

        Raises:
            Interrupted: a signal came in the last step. The model is not evaluated any more.
        """
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}
        if self._interruption is not None and self._is_last():
            raise self._interruption

    def state_dict(self) -> dict[str, Any]:
        """
        Tell the random state of each process, and the others that the class names. A checkpoint
        that only the main process saves, at a step of its own choice, has those of this one only.
        """
        if self._step != self.trainer.iter or not self._states:
            states: list[dict[str, Any] | None] = [None] * comm.get_world_size()
            states[comm.get_rank()] = self._state()
            return {"processes": states}
        return {"processes": self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the state that this process, or one of another training, had."""
        states = state["processes"]
        mine = states[comm.get_rank()] if len(states) == comm.get_world_size() else None
        self._is_resumed = True
        if mine is not None:
            self._random = mine["random"]
        elif len(states) == comm.get_world_size():
            self._is_resumed = False
        loader = self.trainer.data_loader
        if isinstance(loader, ResumableLoader):
            # What is the same for all is in that of the main process.
            loader.load_state_dict({**states[0]["loader"], **(mine or states[0])["loader"]})
        self._load_normalizers((mine or states[0]).get("normalizers"))
        found_out = (mine or states[0]).get("found_out", {})
        for name, module in self._modules():
            if isinstance(module, OHEMMixin) and name in found_out:
                module.load_found_out(found_out[name])

    def _load_normalizers(self, saved: Mapping[str, float] | None) -> None:
        """``saved``: None of an older version."""
        detectors = [x for _, x in self._modules() if isinstance(x, DenseDetector)]
        if detectors and saved is None:
            logger.warning(
                "The checkpoint does not hold what losses are divided by (loss_normalizer of "
                f"{type(detectors[0]).__name__}), which begins anew: the training goes on, but "
                "not bit by bit as if it had not been interrupted"
            )
        for name, module in self._modules():
            if saved is not None and name in saved:
                setattr(module, _NORMALIZER, saved[name])

    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        model = self.trainer.model
        yield from getattr(model, "module", model).named_modules()

    def _state(self) -> dict[str, Any]:
        """That of this process."""
        is_between_steps = self._random is not None and self._step == self.trainer.iter
        loader = self.trainer.data_loader
        return {
            "random": self._random if is_between_steps else random_state(),
            "loader": loader.state_dict() if isinstance(loader, ResumableLoader) else {},
            "normalizers": {
                name: vars(x)[_NORMALIZER] for name, x in self._modules() if _NORMALIZER in vars(x)
            },
            "found_out": {
                name: x.found_out() for name, x in self._modules() if isinstance(x, OHEMMixin)
            },
        }

    def _is_due(self, period: int) -> bool:
        return period > 0 and (self._step + 1) % period == 0

    def _is_last(self) -> bool:
        return self._step >= self.max_iter - 1

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum and signum == signal.SIGINT and comm.get_world_size() == 1:
            signal.default_int_handler(signum, frame)
        self._signum = self._signum or signum
        if self._may_stop and self._interruption is None:
            self._stop(self._signum)
            raise self._interruption  # type: ignore[misc]

    def _stop(self, signum: int) -> None:
        """Save what there is, if it is not saved."""
        self._signum = signum
        where = f"after {self._step + 1} of {self.max_iter} iterations"
        if comm.is_main_process():
            if self._saved != self._step:
                period = self.period
                self.period = 1  # so that this step is due
                self.step(self._step)
                self._saved, self.period = self._step, period
            where += f", which are in {self.checkpointer.get_checkpoint_file()}"
        self._interruption = Interrupted(signum, f"{signal.Signals(signum).name} {where}")


@contextmanager
def interruptible() -> Iterator[None]:
    """
    Let the first signal that would end this process raise `Interrupted` where no training answers
    it: before the first step, and in the evaluation after the last.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)
        raise Interrupted(signum, signal.Signals(signum).name)

    is_main = threading.current_thread() is threading.main_thread()  # others may not
    heard = [x for x in SIGNALS if is_main and signal.getsignal(x) != signal.SIG_IGN]
    handlers = {x: signal.signal(x, stop) for x in heard}
    try:
        yield
    finally:
        for x, handler in handlers.items():
            signal.signal(x, handler)


def _heard() -> list[signal.Signals]:
    """Those to answer. Under nohup, a terminal that closes is to be ignored."""
    return [x for x in SIGNALS if x.name != "SIGHUP" or signal.getsignal(x) != signal.SIG_IGN]


def end_by(signum: int) -> NoReturn:
    """
    End this process as a signal ends one that does not listen, so that whoever waits for it is told
    the usual code: a shell has 143 for SIGTERM and 130 for Ctrl-C.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    raise SystemExit(128 + signum)  # where signals are not delivered at once


@contextmanager
def passing_on_signals() -> Iterator[list[int]]:
    """
    Let the processes that this one started answer signals, each as SIGTERM. The second Ctrl-C kills
    them.

    Yields:
        the signals that came.
    """
    came: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        is_enough = came.count(signal.SIGINT) > 1
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL if is_enough else signal.SIGTERM)  # type: ignore

    handlers = {x: signal.signal(x, pass_on) for x in _heard()}
    try:
        yield came
    finally:
        for x, handler in handlers.items():
            signal.signal(x, handler)
