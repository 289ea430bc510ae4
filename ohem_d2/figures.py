"""What a training step logs of its mining, over the images of all processes."""

import torch
from detectron2.layers import cat
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, distributed


def log_figures(
    labelled: list[Instances],
    mined: list[Instances],
    num_classes: int,
    of_all_processes: bool = True,
) -> None:
    """
    Log what was selected, and of what, to Detectron2's event storage.

    Args:
        labelled: all RoIs of each image of this process, as a mining head labels and ranks them.
        mined: those of them that were selected.
        num_classes: number of foreground classes.
        of_all_processes: whether the images of all processes that train together count, each of
            which has to call this then.
    """
    num_images = labelled[0].ohem_loss_cls.new_tensor([len(labelled)], dtype=torch.float)
    sums = cat([num_images, _sums(labelled, num_classes), _sums(mined, num_classes)])
    if of_all_processes and comm.get_world_size() > 1:
        distributed.all_reduce(sums)
    num_images, num_all, num_all_fg, all_cost, num, num_fg, cost = sums.tolist()

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


def _sums(rois: list[Instances], num_classes: int) -> Tensor:
    """Of RoIs: their number, the number of those that are foreground, and what they cost."""
    cost = cat([x.ohem_loss_cls + x.ohem_loss_box_reg for x in rois]).float()
    foreground = cat([x.gt_classes for x in rois]) < num_classes
    return torch.stack([torch.ones_like(cost).sum(), foreground.sum(), cost.sum()])
