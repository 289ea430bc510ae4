"""What the model gets wrong about a RoI."""

import torch
from torch import Tensor

# In this order; the numbers that `error_types` returns are positions in it.
ERROR_TYPES = ("missed object", "look-alike", "confused class", "badly placed box", "right class")
# The names of the same mistakes of a detection in TIDE (Bolya et al., "TIDE: A General Toolbox for
# Identifying Object Detection Errors", ECCV 2020).
TIDE_NAMES = {
    "missed object": "Miss",
    "look-alike": "Bkg",
    "confused class": "Cls",
    "badly placed box": "Loc",
}


def error_types(
    labels: Tensor, pred_classes: Tensor, loss_cls: Tensor, loss_box_reg: Tensor, num_classes: int
) -> Tensor:
    """
    Sort RoIs by what the model gets wrong about them.

    Args:
        labels: (R,) int64, the true class of each RoI; ``num_classes`` is background.
        pred_classes: (R,) int64, the class that the model predicts for it.
        loss_cls: (R,) its classification loss.
        loss_box_reg: (R,) its box loss.
        num_classes: number of foreground classes.

    Returns:
        (R,) int64, positions in `ERROR_TYPES`:

        - missed object: foreground taken for background
        - look-alike: background taken for an object
        - confused class: an object taken for one of another class
        - badly placed box: the class is right, and the box loss is higher than the class loss
        - right class: the class is right; any loss comes from a lack of certainty
    """
    is_fg, seen_as_fg = labels < num_classes, pred_classes < num_classes
    types = torch.full_like(labels, ERROR_TYPES.index("right class"))
    types[is_fg & (loss_box_reg > loss_cls)] = ERROR_TYPES.index("badly placed box")
    types[is_fg & (pred_classes != labels)] = ERROR_TYPES.index("confused class")
    types[~is_fg & seen_as_fg] = ERROR_TYPES.index("look-alike")
    types[is_fg & ~seen_as_fg] = ERROR_TYPES.index("missed object")
    return types
