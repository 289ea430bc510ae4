"""What kind of mistake a mined RoI is."""

import torch
from detectron2.structures import Instances
from torch import Tensor

# In this order; the numbers that `error_types` returns are positions in it.
ERROR_TYPES = ("missed object", "look-alike", "confused class", "badly placed box", "right class")


def error_types(mined: Instances, num_classes: int) -> Tensor:
    """
    Tell RoIs apart by what the model gets wrong about them.

    Args:
        mined: R RoIs of an image, as a mining head returns them: ``gt_classes`` with the true
            class of each, ``ohem_pred_classes`` with the class that the model takes it for, and
            ``ohem_loss_cls`` and ``ohem_loss_box_reg`` with its loss.
        num_classes: number of foreground classes; the class of that number is background.

    Returns:
        (R,) int64, positions in `ERROR_TYPES`:

        - missed object: foreground taken for background
        - look-alike: background taken for an object
        - confused class: an object taken for one of another class
        - badly placed box: the class is right, and the box costs more than the class does
        - right class: the class is right; what cost there is, is its lack of certainty
    """
    labels, predicted = mined.gt_classes, mined.ohem_pred_classes
    is_fg, seen_as_fg = labels < num_classes, predicted < num_classes
    kinds = torch.full_like(labels, ERROR_TYPES.index("right class"))
    kinds[is_fg & (mined.ohem_loss_box_reg > mined.ohem_loss_cls)] = ERROR_TYPES.index(
        "badly placed box"
    )
    kinds[is_fg & (predicted != labels)] = ERROR_TYPES.index("confused class")
    kinds[~is_fg & seen_as_fg] = ERROR_TYPES.index("look-alike")
    kinds[is_fg & ~seen_as_fg] = ERROR_TYPES.index("missed object")
    return kinds
