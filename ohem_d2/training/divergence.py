"""Whether a training diverges: a learning rate that is too high makes the loss explode."""

import logging
from collections.abc import Callable

from detectron2.engine import TrainerBase

from ..errors import InputError, shown

logger = logging.getLogger(__name__)

# The losses of a step come to some ten at most, and to a thousand of a model that starts at random.
_EXPLODED = 1e5


def watch_for_divergence(trainer: TrainerBase, key: str, rate: object) -> None:
    """
    Say what a training diverges of, where it does.

    Args:
        trainer: one of Detectron2's, which has not begun.
        key: where the config has the learning rate.
        rate: what it is; None if it is not known.
    """
    run_step: Callable[[], None] = trainer.run_step
    found = "" if rate is None else f", which is {shown(rate)}"
    expected = f"expected a lower {key}{found}, or a longer warm-up"
    is_told = False

    def run_watched_step() -> None:
        nonlocal is_told
        try:
            run_step()
        except FloatingPointError as e:  # as Detectron2 raises it, once it is too late
            if trainer.iter == trainer.start_iter:
                raise  # before anything was learned
            text = " ".join(str(e).split())
            raise InputError(
                f"the training diverged in step {trainer.iter}: {text.rstrip('.')}, {expected}"
            ) from e
        history = trainer.storage.histories().get("total_loss")
        loss = history.latest() if history is not None else 0.0
        if not is_told and loss > _EXPLODED:
            is_told = True
            logger.warning(
                f"total_loss is {loss:.3g} in step {trainer.iter}: the training diverges, "
                f"{expected}"
            )

    trainer.run_step = run_watched_step
