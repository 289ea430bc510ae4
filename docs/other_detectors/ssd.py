"""torchvision's SSD, with `select_hard_examples` in place of its own hard negative mining."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSD

from ohem_d2 import select_hard_examples


class OHEMSSD(SSD):
    """
    `SSD` whose background is mined without duplicates: of default boxes that overlap by more than
    ``mining_nms_thresh``, only the costliest counts. The ratio to the objects is SSD's own, 3:1.

    A model of torchvision's functions becomes one by ``model.__class__ = OHEMSSD``.
    """

    mining_nms_thresh = 0.7  # 1.0: SSD's own rule

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """See `SSD.compute_loss`."""
        ratio, self.neg_to_pos_ratio = self.neg_to_pos_ratio, 0.0
        try:  # which leaves the loss of the objects
            losses: dict[str, Tensor] = super().compute_loss(
                targets, head_outputs, anchors, matched_idxs
            )
        finally:
            self.neg_to_pos_ratio = ratio
        of_background, num_objects = losses["classification"].new_zeros(()), 0
        for logits, boxes, matched in zip(head_outputs["cls_logits"], anchors, matched_idxs):
            num_objects += int(number := (matched >= 0).sum())
            num_hard = int((ratio * number).ceil())  # as SSD, which takes all ranks below
            if num_hard:
                of_background = of_background + self._of_hard_background(
                    logits[matched < 0], boxes[matched < 0], num_hard
                )
        losses["classification"] = losses["classification"] + of_background / max(1, num_objects)
        return losses

    def _of_hard_background(self, logits: Tensor, boxes: Tensor, number: int) -> Tensor:
        """The loss of so many of the (B, K) logits of background of an image, and their boxes."""
        background = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        costs = F.cross_entropy(logits, background, reduction="none")  # which is class 0 in SSD
        hard = select_hard_examples(
            costs,
            boxes,
            labels=background,
            image_ids=background,  # a single image
            num_samples=number,
            num_classes=0,  # there is background alone
            nms_thresh=self.mining_nms_thresh,
        )
        return costs[hard].sum()
