"""What a training step logs of the anchors that it mines."""

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..mining.candidates import Candidates


def log_hard_anchors(scope: str, candidates: Candidates, hard: Tensor) -> None:
    """
    Log the hard examples among anchors, of this process: nothing waits for others. Without any,
    nothing is logged.

    Args:
        scope: what the names of the figures begin with.
        candidates: all R anchors.
        hard: (H,) indices into R.
    """
    losses = candidates.loss_cls + candidates.loss_box_reg
    of_all = torch.stack([losses, candidates.labels < candidates.num_classes])
    # One transfer from a GPU.
    sums = torch.stack([of_all.sum(dim=1), of_all[:, hard].sum(dim=1)])
    (all_cost, num_all_fg), (cost, num_fg) = sums.tolist()
    if not len(hard):
        return
    storage, number = get_event_storage(), len(candidates)
    storage.put_scalar(f"{scope}/cost_of_selected", cost / len(hard))
    storage.put_scalar(f"{scope}/cost_of_all", all_cost / number)
    if all_cost:
        storage.put_scalar(f"{scope}/cost_ratio", (cost / len(hard)) / (all_cost / number))
    if num_all_fg:
        storage.put_scalar(f"{scope}/share_of_fg_selected", num_fg / num_all_fg)
