"""What a training step logs of its mining, over the images of all processes."""

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, cat, distributed

from .kinds import KINDS, kinds_of_rois

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
        a vector for `log_figures`, on the device of the RoIs: to bring it to the host takes time.
    """
    rois = Instances((0, 0), **{name: cat([x.get(name) for x in labelled]) for name in _FIELDS})
    losses = (rois.ohem_loss_cls + rois.ohem_loss_box_reg).float()
    foreground = rois.gt_classes < num_classes
    of_all = torch.stack([torch.ones_like(losses), foreground, losses])

    kinds = kinds_of_rois(rois[selected], num_classes)
    of_kinds = (kinds[:, None] == torch.arange(len(KINDS), device=kinds.device)).sum(dim=0)
    # Background concerns the class that it is taken for; else, the class of number num_classes.
    concerned = torch.where(foreground, rois.gt_classes, rois.ohem_pred_classes)[selected]
    of_classes = losses.new_zeros(2, num_classes + 1)
    of_classes[0].scatter_add_(0, concerned, torch.ones_like(losses[selected]))
    of_classes[1].scatter_add_(0, concerned, losses[selected])
    sums = cat(
        [
            of_all.new_full((1,), len(labelled)),
            of_all.sum(dim=1),
            of_all[:, selected].sum(dim=1),
            of_kinds,
            of_classes[:, :-1].flatten(),
        ]
    )
    if of_all_processes and comm.get_world_size() > 1:
        distributed.all_reduce(sums)
    return sums


def log_figures(sums: Sequence[float], class_names: Sequence[str] | None = None) -> None:
    """
    Log what was selected, and of what, to Detectron2's event storage.

    Args:
        sums: what `add_up` returned.
        class_names: those of the foreground classes; without them, classes have their numbers.
    """
    num_images, num_all, num_all_fg, all_cost, num, num_fg, cost, *rest = sums
    storage = get_event_storage()
    # By these names Detectron2 logs what it samples.
    storage.put_scalar("roi_head/num_fg_samples", num_fg / num_images)
    storage.put_scalar("roi_head/num_bg_samples", (num - num_fg) / num_images)
    if num:
        storage.put_scalar("ohem/cost_of_selected", cost / num)
        storage.put_scalar("ohem/cost_of_all", all_cost / num_all)
        for kind, number in zip(KINDS, rest):
            storage.put_scalar(f"ohem/share_of_{kind.replace(' ', '_')}", number / num)
    if num and all_cost:
        # Detectron2's console line shows all that is called a loss, so this one alone.
        storage.put_scalar("ohem/loss_ratio", (cost / num) / (all_cost / num_all))
    if num_all_fg:
        storage.put_scalar("ohem/share_of_fg_selected", num_fg / num_all_fg)
    numbers, costs = _halves(rest[len(KINDS) :])
    for i, (number, of_class) in enumerate(zip(numbers, costs)):
        if number:
            # A glossy ibis is not to be on the console.
            has_name = class_names and "loss" not in class_names[i]
            name = class_names[i] if has_name else i
            storage.put_scalar(f"ohem_class/{name}", of_class / number)


def _halves(values: list[float]) -> tuple[list[float], list[float]]:
    return values[: len(values) // 2], values[len(values) // 2 :]
