"""What a training step logs of its mining, over the images of all processes."""

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, cat, distributed

from .kinds import KINDS, kinds_of_rois

PERIOD = 100  # steps
_NUM_TOTALS = 6  # of all RoIs and of the selected ones: how many, of them foreground, and the loss
_FIELDS = ("gt_classes", "ohem_pred_classes", "ohem_loss_cls", "ohem_loss_box_reg")


@torch.no_grad()
def add_up(
    labelled: Sequence[Instances],
    selected: Tensor,
    num_classes: int,
    of_all_processes: bool = True,
) -> Tensor:
    """
    Add up what is logged.

    Args:
        labelled: all RoIs of each image of this process, R in all, with the fields that
            `OHEMMixin.label_and_rank_proposals` adds.
        selected: indices into R.
        num_classes: number of foreground classes.
        of_all_processes: whether the images of all processes that train together count, each of
            which has to call this then.

    Returns:
        a vector for `log_figures` and `ClassFigures`, on the device of the RoIs: to bring it to the
        host takes time.
    """
    rois = Instances((0, 0), **{name: cat([x.get(name) for x in labelled]) for name in _FIELDS})
    losses = (rois.ohem_loss_cls + rois.ohem_loss_box_reg).float()
    foreground = rois.gt_classes < num_classes
    of_all = torch.stack([torch.ones_like(losses), foreground, losses])

    kinds = kinds_of_rois(rois[selected], num_classes)
    # Background concerns the class that it is taken for; else, the class of number num_classes.
    concerned = torch.where(foreground, rois.gt_classes, rois.ohem_pred_classes)[selected]
    of_kinds = losses.new_zeros((num_classes + 1) * len(KINDS))
    of_kinds.scatter_add_(0, concerned * len(KINDS) + kinds, torch.ones_like(losses[selected]))
    costs = losses.new_zeros(num_classes + 1).scatter_add_(0, concerned, losses[selected])
    num_images = of_all.new_full((1,), len(labelled))
    totals = of_all.sum(dim=1), of_all[:, selected].sum(dim=1)
    sums = cat([num_images, *totals, of_kinds, costs])
    if of_all_processes and comm.get_world_size() > 1:
        distributed.all_reduce(sums)
    return sums


def log_figures(sums: Sequence[float]) -> None:
    """
    Log what was selected, and of what, to Detectron2's event storage.

    Args:
        sums: what `add_up` returned.
    """
    num_images, num_all, num_all_fg, all_cost, num, num_fg, cost, *rest = sums
    storage = get_event_storage()
    # By these names Detectron2 logs what it samples.
    storage.put_scalar("roi_head/num_fg_samples", num_fg / num_images)
    storage.put_scalar("roi_head/num_bg_samples", (num - num_fg) / num_images)
    if num:
        storage.put_scalar("ohem/cost_of_selected", cost / num)
        storage.put_scalar("ohem/cost_of_all", all_cost / num_all)
        numbers, _ = _of_classes(rest)
        _log_shares("ohem", numbers.sum(axis=0))
    if num and all_cost:
        # Detectron2's console line shows all that is called a loss, so this one alone.
        storage.put_scalar("ohem/loss_ratio", (cost / num) / (all_cost / num_all))
    if num_all_fg:
        storage.put_scalar("ohem/share_of_fg_selected", num_fg / num_all_fg)


class ClassFigures:
    """
    Logs what was selected that concerns each class, of `PERIOD` steps together: Detectron2 keeps
    every value that is logged, and there may be a thousand classes.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._num_images, self._numbers, self._costs = 0.0, 0.0, 0.0

    def log(self, sums: Sequence[float], class_names: Sequence[str] | None = None) -> None:
        """
        Add a step, and log all since the last time if the period is over.

        Args:
            sums: what `add_up` returned.
            class_names: those of the foreground classes; without them, classes have their numbers.
        """
        num_images, *rest = sums
        numbers, costs = _of_classes(rest[_NUM_TOTALS:])
        self._num_images += num_images
        self._numbers += numbers
        self._costs += costs
        storage = get_event_storage()
        if storage.iter % PERIOD:
            return
        for i in np.flatnonzero(self._numbers[:-1].sum(axis=1)).tolist():
            # A glossy ibis is not to be on the console.
            has_name = class_names and "loss" not in class_names[i]
            name = f"ohem_class/{class_names[i] if has_name else i}"
            number = self._numbers[i].sum()
            storage.put_scalar(f"{name}/selected", number / self._num_images)
            storage.put_scalar(f"{name}/cost", self._costs[i] / number)
            _log_shares(name, self._numbers[i])
        self._clear()


def _of_classes(sums: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(K + 1, len(KINDS)) numbers, and (K + 1,) losses, of the selected RoIs."""
    of_classes = np.array(sums).reshape(len(KINDS) + 1, -1)
    return of_classes[:-1].reshape(-1, len(KINDS)), of_classes[-1]


def _log_shares(name: str, numbers: np.ndarray) -> None:
    """Of each kind, (len(KINDS),)."""
    storage = get_event_storage()
    for kind, share in zip(KINDS, numbers / numbers.sum()):
        storage.put_scalar(f"{name}/share_of_{kind.replace(' ', '_')}", share)
