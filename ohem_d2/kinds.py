"""What kind of mistake a mined RoI is."""

import torch
from torch import Tensor

# In this order; the numbers that `kinds_of_rois` returns are positions in it.
KINDS = ("missed object", "look-alike", "confused class", "badly placed box", "right class")


def kinds_of_rois(
    labels: Tensor, predicted: Tensor, loss_cls: Tensor, loss_box_reg: Tensor, num_classes: int
) -> Tensor:
    """
    Tell mined RoIs apart by what the model gets wrong about them.

    Args:
        labels: (R,) integers in [0, num_classes], the true class; ``num_classes`` is background.
        predicted: (R,) integers likewise, the class that the model takes the RoI for.
        loss_cls: (R,) classification loss.
        loss_box_reg: (R,) box regression loss, 0 for background.
        num_classes: number of foreground classes.

    Returns:
        (R,) int64, positions in `KINDS`:

        - missed object: foreground taken for background
        - look-alike: background taken for an object
        - confused class: an object taken for one of another class
        - badly placed box: the class is right, and the box costs more than the class does
        - right class: the class is right; what cost there is, is its lack of certainty
    """
    is_fg, seen_as_fg = labels < num_classes, predicted < num_classes
    kinds = torch.full_like(labels, KINDS.index("right class"))
    kinds[is_fg & (loss_box_reg > loss_cls)] = KINDS.index("badly placed box")
    kinds[is_fg & (predicted != labels)] = KINDS.index("confused class")
    kinds[~is_fg & seen_as_fg] = KINDS.index("look-alike")
    kinds[is_fg & ~seen_as_fg] = KINDS.index("missed object")
    return kinds
