"""Ranking by the IoU after regression, after PISA's prime samples (Cao et al., CVPR 2020)."""

from dataclasses import dataclass

import torch

from ohem_d2 import SAMPLERS, Candidates, Selection


@SAMPLERS.register()
@dataclass(frozen=True)
class PredictedIoU:
    """
    Takes the foreground whose predicted boxes fit their objects best, and the background that costs
    most: what decides the precision of a detector is what ranks highest at test time.
    """

    positive_fraction: float = 0.25

    def __call__(self, rois: Candidates, num_samples: int) -> Selection:
        """See `ohem_d2.mining.samplers.Sampler`."""
        is_foreground = rois.labels < rois.num_classes
        rank = torch.where(is_foreground, rois.pred_ious, rois.loss_cls.to(rois.pred_ious))
        best_first = rank.argsort(descending=True, stable=True)
        chosen = []
        for image in range(rois.num_images):
            of_image = best_first[rois.image_ids[best_first] == image]
            foreground = of_image[is_foreground[of_image]]
            background = of_image[~is_foreground[of_image]]
            foreground = foreground[: int(num_samples * self.positive_fraction)]
            chosen += [foreground, background[: num_samples - len(foreground)]]
        return Selection(torch.cat(chosen))
