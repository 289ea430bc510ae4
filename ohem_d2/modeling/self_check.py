"""Whether RoIs cost when they are read what they cost in training."""

import logging
from collections.abc import Callable
from typing import Any

from detectron2.layers import cat
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ..mining.candidates import Candidates
from .metrics import PERIOD
from .reading import Reading, has_hooks_of_others, is_sharded

logger = logging.getLogger(__name__)

# Losses that differ by no more than this part are the same, whatever the precision.
_TOLERANCE = 0.05
# So many passes in one iteration are no accumulation of gradients, and so many without gradients
# are no validation before the first step.
_MANY_STEPS = 100


class SelfCheck:
    """
    Compares, in the first step and in every `PERIOD`th, the loss of the chosen RoIs with their loss
    in training.

    Attributes:
        read_losses: of each stage that mines, the mean loss of the RoIs that this step trains on.
    """

    def __init__(self, reading: Reading) -> None:
        """
        Args:
            reading: what the RoIs are read with.
        """
        self._reading = reading
        self.read_losses: dict[int, float] = {}
        self._num_steps = 0
        self._last_iteration, self._num_same = -1, 0
        self._num_without = 0
        self._warned: set[str] = set()

    @property
    def is_due(self) -> bool:
        """Whether this step is compared."""
        return self._num_steps % PERIOD == 0

    def begin(self) -> None:
        """Begin a step."""
        self.read_losses.clear()

    def end(self, heads: nn.Module, losses: dict[str, Tensor]) -> None:
        """
        End a step, and warn if RoIs cost something else.

        Args:
            heads: mining heads.
            losses: what they return in training.
        """
        if not self.read_losses:
            return  # nothing was mined
        is_due, self._num_steps = self.is_due, self._num_steps + 1
        if not is_due or heads.rois_see_each_other or any(map(_differs, heads.modules())):
            return
        for stage, read in self.read_losses.items():
            names = [n for n in (f"loss_cls_stage{stage}", "loss_cls") if n in losses][:1]
            names += [n.replace("cls", "box_reg") for n in names]
            trained = sum(float(losses[n].detach()) for n in names if n in losses)
            if not names or abs(read - trained) <= _TOLERANCE * max(abs(read), abs(trained)):
                continue
            if not self._reading.calls_hooks and has_hooks_of_others(heads):
                self._reading.calls_hooks = True
                advice = "forward hooks are called while RoIs are read too from now on"
            else:
                advice = "override read_boxes to match the training forward pass"
            self.warn_once(
                f"the RoIs that {type(heads).__name__} trains on were ranked with a mean loss of "
                f"{read:.4g}, but train with {trained:.4g}: {advice}"
            )

    def read(
        self,
        heads: Any,
        read: Callable[[list[Instances], int], Candidates],
        rois: list[Instances],
        chunk_size: int,
    ) -> Candidates:
        """
        Read RoIs chunk by chunk, or all at once if what the heads predict for a RoI depends on the
        others. In a step that is compared, some are read in both ways, to notice such heads.

        Args:
            heads: mining heads.
            read: takes RoIs and the number of each image to read at a time. They get the field
                ``ohem_loss_cls``.
            rois: those of each image, with their labels.
            chunk_size: how many of each image to read at a time.
        """
        most = max(1, *map(len, rois))
        sees_all = heads.rois_see_each_other or any(map(needs_all_rois, heads.modules()))
        if sees_all or is_sharded(heads):
            chunk_size = most
        candidates = read(rois, chunk_size)
        if chunk_size >= most or not self.is_due:
            return candidates
        few = [x[: max(1, chunk_size // 2)] for x in rois]
        losses = cat([x.ohem_loss_cls for x in few])
        if _are_same(read(few, most).loss_cls, losses):
            return candidates
        heads.rois_see_each_other = True
        self.warn_once(
            f"what {type(heads).__name__} predicts for a RoI depends on the other RoIs: "
            "from now on all are read at once, and memory grows with their number"
        )
        return read(rois, most)

    def waits_for(self, start_iter: int, iteration: int) -> None:
        """
        Note a step before mining starts, and warn if it may never.

        Args:
            start_iter: the iteration at which it does.
            iteration: that of the step, by Detectron2's `EventStorage`.
        """
        self._num_same = self._num_same + 1 if iteration == self._last_iteration else 0
        self._last_iteration = iteration
        if self._num_same >= _MANY_STEPS:  # gradients are accumulated over some at most
            self.warn_once(
                f"mining waits for iteration {start_iter} (MODEL.ROI_HEADS.OHEM.START_ITER), but "
                f"the EventStorage has stayed at {iteration} for {_MANY_STEPS} steps: expected its "
                "step() to be called in each"
            )

    def goes_without_gradients(self, heads: nn.Module) -> None:
        """
        Note a pass in training mode without gradients, and warn if there are no others.

        Args:
            heads: mining heads.
        """
        self._num_without += 1
        if self._num_without == _MANY_STEPS and not self._num_steps:
            self.warn_once(
                f"{type(heads).__name__} was called in training mode {_MANY_STEPS} times, and each "
                "time without gradients: it learns nothing so, and mines nothing"
            )

    def warn_once(self, message: str) -> None:
        """Log a warning that these heads have not logged before."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)


def _are_same(losses: Tensor, others: Tensor) -> bool:
    """Whether the losses of RoIs, (R,) each, are the same on the whole."""
    return bool((losses - others).abs().mean() <= _TOLERANCE * others.abs().mean())


def needs_all_rois(module: nn.Module) -> bool:
    """Whether what it makes of a RoI depends on the others: on their mean, or on their classes."""
    return isinstance(module, _BatchNorm) or getattr(module, "use_fed_loss", False)


def learns_statistics(module: nn.Module) -> bool:
    """Whether a pass in training mode changes it, with gradients or without."""
    return isinstance(module, _NormBase) and module.training and module.track_running_stats


def _differs(module: nn.Module) -> bool:
    """Whether RoIs cost something else in training for a reason that is known."""
    drops = isinstance(module, _DropoutNd) and module.training and module.p > 0
    return drops or learns_statistics(module) or needs_all_rois(module)
