"""Logs mining for all processes, and for all calls of the heads in a step."""

from contextlib import nullcontext

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..errors import InputError
from ..modeling.metrics import MiningMetrics
from ..modeling.mixin import OHEMMixin


class MiningLogs(HookBase):
    """
    Collects what the heads would log, and logs it after the step: for all processes together, which
    wait for each other here and not within the model, and once per step, however often the heads
    were called.

    Without it, each process logs its own images only. Register it on all processes, before the hook
    that writes (`PeriodicWriter`).
    """

    def __init__(self, period: int = 20) -> None:
        """
        Args:
            period: every how many steps the values of several processes are combined: the period
                of the writer. A single process logs every step.

        Raises:
            InputError: it is no integer of 1 or more.
        """
        if not isinstance(period, int) or period < 1:
            raise InputError(
                f"the period of MiningLogs is {period!r}, expected an integer of 1 or more"
            )
        self._period = period
        self._heads: dict[str, OHEMMixin] = {}  # also if another hook fails before they are found

    def before_train(self) -> None:
        """Find the heads. If a model has several, each logs below its own name."""
        named = self.trainer.model.named_modules()
        self._heads = {n: m for n, m in named if isinstance(m, OHEMMixin)}
        for metrics in self._metrics():
            metrics.collects = True

    def after_step(self) -> None:
        """Log, if it is time."""
        done = self.trainer.iter + 1
        if comm.get_world_size() > 1 and done % self._period and done < self.trainer.max_iter:
            return
        for name, heads in self._heads.items():
            prefix = f"{name}/" if len(self._heads) > 1 else ""
            device = next(heads.parameters()).device
            for stage in sorted(heads.metrics):
                sums = torch.from_numpy(heads.metrics[stage].take_collected(heads.num_classes))
                if comm.get_world_size() > 1:
                    on_device = sums.to(device, torch.float32)
                    torch.distributed.all_reduce(on_device)
                    sums = on_device.cpu()
                scope = f"{prefix}stage{stage}" if stage > 0 else prefix
                storage = self.trainer.storage
                with storage.name_scope(scope) if scope else nullcontext():
                    heads.metrics[stage].log_collected(sums.tolist())

    def after_train(self) -> None:
        """Let the heads log by themselves again."""
        for metrics in self._metrics():
            metrics.collects = False

    def _metrics(self) -> list[MiningMetrics]:
        return [m for heads in self._heads.values() for m in heads.metrics.values()]
