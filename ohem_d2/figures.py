"""What a training step logs of its mining, over the images of all processes."""

from collections.abc import Sequence

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, distributed


def add_up(
    losses: Tensor,
    foreground: Tensor,
    selected: Tensor,
    num_images: int,
    of_all_processes: bool = True,
) -> Tensor:
    """
    Add up what is logged.

    Args:
        losses: (R,) what each RoI of this process costs.
        foreground: (R,) bool.
        selected: indices into R.
        num_images: number of images of this process.
        of_all_processes: whether the images of all processes that train together count, each of
            which has to call this then.

    Returns:
        (7,) for `log_figures`, on the device of the losses: to bring it to the host takes time.
    """
    rois = torch.stack([torch.ones_like(foreground), foreground, losses]).float()
    sums = torch.cat(
        [rois.new_full((1,), num_images), rois.sum(dim=1), rois[:, selected].sum(dim=1)]
    )
    if of_all_processes and comm.get_world_size() > 1:
        distributed.all_reduce(sums)
    return sums


def log_figures(sums: Sequence[float]) -> None:
    """
    Log what was selected, and of what, to Detectron2's event storage.

    Args:
        sums: what `add_up` returned.
    """
    num_images, num_all, num_all_fg, all_cost, num, num_fg, cost = sums
    storage = get_event_storage()
    # By these names Detectron2 logs what it samples.
    storage.put_scalar("roi_head/num_fg_samples", num_fg / num_images)
    storage.put_scalar("roi_head/num_bg_samples", (num - num_fg) / num_images)
    # Detectron2's console line shows all that is called a loss, and is long enough.
    if num:
        storage.put_scalar("ohem/cost_of_selected", cost / num)
        storage.put_scalar("ohem/cost_of_all", all_cost / num_all)
    if num_all_fg:
        storage.put_scalar("ohem/share_of_fg_selected", num_fg / num_all_fg)
