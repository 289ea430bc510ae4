"""IoU-balanced negative sampling, as in Libra R-CNN (Pang et al., CVPR 2019, section 3.1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ohem_d2 import SAMPLERS, Candidates, Selection


@SAMPLERS.register()
@dataclass(frozen=True)
class IoUBalanced:
    """
    Draws background evenly over bins of IoU: at random, most background overlaps no object. What
    the bins lack is drawn at random from the rest; foreground is drawn as Detectron2 does.
    """

    num_bins: int = 3
    positive_fraction: float = 0.25

    def __call__(self, rois: Candidates, num_samples: int) -> Selection:
        """See `ohem_d2.mining.samplers.Sampler`."""
        chosen = []
        for image in range(rois.num_images):
            in_image = rois.image_ids == image
            foreground = shuffled(in_image & (rois.labels < rois.num_classes))
            background = shuffled(in_image & (rois.labels == rois.num_classes))
            foreground = foreground[: int(num_samples * self.positive_fraction)]
            num_background = num_samples - len(foreground)
            ious = rois.ious[background]
            width = ious.max().clamp(min=1e-6) / self.num_bins if len(ious) else 1.0
            bins = (ious / width).long().clamp(max=self.num_bins - 1)
            drawn = torch.zeros_like(bins, dtype=torch.bool)
            for number in range(self.num_bins):
                of_bin = (bins == number).nonzero().squeeze(1)
                drawn[of_bin[: num_background // self.num_bins]] = True
            background = torch.cat([background[drawn], background[~drawn]])
            chosen += [foreground, background[:num_background]]
        return Selection(torch.cat(chosen))


def shuffled(mask: Tensor) -> Tensor:
    """The indices of what a mask holds, in random order."""
    indices = mask.nonzero().squeeze(1)
    return indices[torch.randperm(len(indices), device=indices.device)]
