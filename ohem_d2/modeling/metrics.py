"""What a training step logs of its mining."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..errors import InputError
from ..mining.candidates import Candidates
from ..mining.error_types import ERROR_TYPES, error_types

PERIOD = 100  # steps; where there are more classes than that, as many as there are classes
# How many, of them foreground, and the loss: of all RoIs, and of the hard examples; and the first
# two of those that are trained on.
_NUM_TOTALS = 8


@torch.no_grad()
def add_up(candidates: Candidates, indices: Tensor, is_hard: Tensor) -> Tensor:
    """
    Add up what is logged, over the images of this process.

    Args:
        candidates: all R RoIs of the images of this process.
        indices: (S,) into R, those that are trained on.
        is_hard: (S,) bool, which of these are hard examples.

    Returns:
        a vector for `MiningMetrics.log`, on the device of the RoIs: to copy it takes time.
    """
    num_classes = candidates.num_classes
    losses = (candidates.loss_cls + candidates.loss_box_reg).float()
    foreground = candidates.labels < num_classes
    of_all = torch.stack([torch.ones_like(losses), foreground, losses])
    of_trained = of_all[:, indices]
    # Looking up which are hard would wait for the GPU: the others count as 0.
    of_hard = of_trained.masked_fill(~is_hard, 0)

    types = error_types(
        candidates.labels,
        candidates.pred_classes,
        candidates.loss_cls,
        candidates.loss_box_reg,
        num_classes,
    )
    # Background concerns the class that it is taken for; else, the class of number num_classes.
    concerned = torch.where(foreground, candidates.labels, candidates.pred_classes)
    cells = (concerned * len(ERROR_TYPES) + types)[indices]
    of_types = losses.new_zeros((num_classes + 1) * len(ERROR_TYPES))
    of_types.scatter_add_(0, cells, of_hard[0])
    costs = losses.new_zeros(num_classes + 1).scatter_add_(0, concerned[indices], of_hard[2])
    num_images = of_all.new_full((1,), candidates.num_images)
    totals = of_all.sum(dim=1), of_hard.sum(dim=1), of_trained[:2].sum(dim=1)
    return torch.cat([num_images, *totals, of_types, costs])


def error_types_of(rois: Instances, num_classes: int) -> Tensor:
    """
    See `error_types`.

    Args:
        rois: R RoIs of an image, as a mining head returns them.
        num_classes: number of foreground classes.
    """
    return error_types(
        rois.gt_classes,
        rois.ohem_pred_classes,
        rois.ohem_loss_cls,
        rois.ohem_loss_box_reg,
        num_classes,
    )


class MiningMetrics:
    """
    Logs to Detectron2's event storage the hard examples, and what they were chosen from, of the
    heads or of a stage of a cascade. What concerns each class is logged of `PERIOD` steps together,
    since Detectron2 keeps every value, and there may be a thousand classes.

    Attributes:
        collects: whether sums are kept for somebody who calls `log_collected`, as the hook
            `MiningLogs` does, instead of being logged at once. Heads may be called several times in
            a step, and processes may have to wait for each other.
    """

    def __init__(self, on_console: bool = True) -> None:
        """
        Args:
            on_console: whether Detectron2's printer is to show one metric, the ratio of losses.
        """
        self.collects = False
        self._collected: np.ndarray | float = 0.0
        self._class_names: Sequence[str] | None = None
        self._ratio = "ohem/loss_ratio" if on_console else "ohem/cost_ratio"
        self._last_iter = -1
        self._clear()

    def _clear(self) -> None:
        self._num_images: float = 0.0
        # Arrays, of each class, from the first step on.
        self._numbers: Any = 0.0
        self._costs: Any = 0.0

    def add(self, sums: Sequence[float], class_names: Sequence[str] | None = None) -> None:
        """
        Log a step, or collect it.

        Args:
            sums: what `add_up` returned.
            class_names: those of the foreground classes; without them, classes have their numbers.
        """
        if isinstance(class_names, str):  # whose letters would be taken for names
            raise InputError(f"class_names is {class_names!r}, expected a list of names")
        self._class_names = class_names
        if self.collects:
            self._collected = self._collected + np.array(sums)
        else:
            self._log(sums)

    def take_collected(self, num_classes: int) -> np.ndarray:
        """The sums that were collected since the last time, 0 each if there are none."""
        size = 1 + _NUM_TOTALS + (num_classes + 1) * (len(ERROR_TYPES) + 1)
        collected, self._collected = self._collected + np.zeros(size), 0.0
        return collected

    def log_collected(self, sums: Sequence[float]) -> None:
        """Log sums that were collected, perhaps over several processes."""
        if sums[0]:
            self._log(sums)

    def _log(self, sums: Sequence[float]) -> None:
        num_images, *rest = sums
        numbers, costs = _of_classes(rest[_NUM_TOTALS:])
        _log_step(num_images, rest[:_NUM_TOTALS], numbers.sum(axis=0), self._ratio)
        self._num_images += num_images
        self._numbers += numbers
        self._costs += costs
        if self._period_is_over(max(PERIOD, len(numbers) - 1)):
            self._log_classes()

    def _period_is_over(self, period: int) -> bool:
        iteration, last = get_event_storage().iter, self._last_iter
        self._last_iter = iteration
        # A step may log nothing, and the first one may be in the middle of a period.
        return iteration % period == 0 or 0 <= last // period < iteration // period

    def _log_classes(self) -> None:
        storage = get_event_storage()
        for i in np.flatnonzero(self._numbers[:-1].sum(axis=1)).tolist():
            number = self._numbers[i].sum()
            shares = _shares(self._numbers[i])
            values = {"selected": number / self._num_images, "cost": self._costs[i] / number}
            for name, value in (values | shares).items():
                name = f"ohem_class/{_name(i, self._class_names)}/{name}"
                # A median of the last steps, which Detectron2 would show, is not of one value.
                storage.put_scalar(name, value, smoothing_hint=False)
        self._clear()


def _log_step(
    num_images: float, totals: Sequence[float], numbers: np.ndarray, name_of_ratio: str
) -> None:
    """Of the hard examples of all classes, (len(ERROR_TYPES),) numbers."""
    num_all, num_all_fg, all_cost, num, num_fg, cost, num_trained, num_trained_fg = totals
    storage = get_event_storage()
    # By these names Detectron2 logs what it samples.
    storage.put_scalar("roi_head/num_fg_samples", num_trained_fg / num_images)
    storage.put_scalar("roi_head/num_bg_samples", (num_trained - num_trained_fg) / num_images)
    if num:
        storage.put_scalar("ohem/cost_of_selected", cost / num)
        storage.put_scalar("ohem/cost_of_all", all_cost / num_all)
        for name, share in _shares(numbers).items():
            storage.put_scalar(f"ohem/{name}", share)
    if num and all_cost:
        # Detectron2's console line shows all that is called a loss.
        storage.put_scalar(name_of_ratio, (cost / num) / (all_cost / num_all))
    if num_all_fg:
        storage.put_scalar("ohem/share_of_fg_selected", num_fg / num_all_fg)


def _name(number: int, class_names: Sequence[str] | None) -> str:
    """The name of a class; its number if the name is not its own, or is taken for a loss."""
    # A model may have more classes than the data set has names.
    if class_names and number < len(class_names):
        name = class_names[number]
        if name and class_names.count(name) == 1 and "loss" not in name:  # as in "glossy ibis"
            return name
    return str(number)


def _of_classes(sums: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(K + 1, len(ERROR_TYPES)) numbers, and (K + 1,) losses, of the hard examples."""
    of_classes = np.array(sums).reshape(len(ERROR_TYPES) + 1, -1)
    return of_classes[:-1].reshape(-1, len(ERROR_TYPES)), of_classes[-1]


def _shares(numbers: np.ndarray) -> dict[str, float]:
    """Of each error type, (len(ERROR_TYPES),)."""
    names = (f"share_of_{x.replace(' ', '_')}" for x in ERROR_TYPES)
    return dict(zip(names, (numbers / numbers.sum()).tolist()))
