"""Whether there are more RoIs than are trained on, so that mining has a choice."""

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.modeling.proposal_generator import RPN
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..modeling.mixin import OHEMMixin

logger = logging.getLogger(__name__)

KEYS = {
    "budget": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "candidates": "MODEL.ROI_HEADS.OHEM.MAX_CANDIDATES",
    "proposals": "MODEL.RPN.POST_NMS_TOPK_TRAIN",
}
LAZY_KEYS = {
    "budget": "model.roi_heads.batch_size_per_image",
    "candidates": "model.roi_heads.ohem.max_candidates",
    "proposals": "model.proposal_generator.post_nms_topk[0]",
}


def warn_without_choice(model: nn.Module, keys: Mapping[str, str]) -> None:
    """
    Warn if a model that mines is to train on as many RoIs as it has to choose among, or more.

    Args:
        model: any, also in DistributedDataParallel.
        keys: what the form of its config calls the settings: `KEYS` or `LAZY_KEYS`.
    """
    model = model.module if isinstance(model, DistributedDataParallel) else model
    heads: Any = getattr(model, "roi_heads", None)
    if not isinstance(heads, OHEMMixin):
        return
    limits = {"candidates": heads.ohem.max_candidates}
    if isinstance(generator := getattr(model, "proposal_generator", None), RPN):
        limits["proposals"] = generator.post_nms_topk[True]
    budget = heads.batch_size_per_image
    for name, limit in limits.items():
        if 0 < limit <= budget:
            logger.warning(
                f"{keys[name]} is {limit}, and {keys['budget']}, the RoIs of an image to train on, "
                f"is {budget}: expected fewer of these, since nearly all are trained on, and "
                "mining has nothing to choose among"
            )
