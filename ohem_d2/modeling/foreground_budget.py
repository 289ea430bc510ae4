"""Mask and keypoint heads train on no more foreground than Detectron2 would give them."""

from typing import Any

from detectron2.structures import Instances

from .extended_head import ExtendedHead


class _WithinBudget:
    """
    A method of the extended head, which gets less foreground in training. It is no function that
    calls super(), which TorchScript does not know: a script has the extended head's own method.
    """

    def __init__(self, is_on: str) -> None:
        self.is_on = is_on

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, heads: Any, cls: type) -> Any:
        extended = getattr(super(self.owner, cls if heads is None else heads), self.name)
        if heads is None or not heads.training or not getattr(heads, self.is_on, True):
            return extended

        def within_budget(features: Any, rois: list[Instances], *args: Any, **kwargs: Any) -> Any:
            return extended(features, heads.within_foreground_budget(rois), *args, **kwargs)

        return within_budget


class ForegroundBudgetMixin(ExtendedHead):
    """
    Limits what the mask and keypoint heads of a head that is based on `StandardROIHeads` train on.

    Mining finds more foreground than random sampling, and only foreground has masks and keypoints.
    These heads get, of each image, as much of it as Detectron2 samples at most. The box head trains
    on all of it.
    """

    _forward_mask = _WithinBudget("mask_on")
    _forward_keypoint = _WithinBudget("keypoint_on")

    def within_foreground_budget(self, rois: list[Instances]) -> list[Instances]:
        """
        The RoIs that the mask and the keypoint head get in training.

        Args:
            rois: those that a step trains on, of each image, the hardest first.

        Returns:
            the same RoIs, of which the first ``BATCH_SIZE_PER_IMAGE`` x ``POSITIVE_FRACTION`` of
            each image that are foreground still are, and the others have the label of background,
            which these heads leave out. All are as they were if Detectron2 sampled them.
        """
        if not all(x.has("ohem_loss_cls") for x in rois):
            return rois
        most = int(self.batch_size_per_image * self.positive_fraction)
        limited = []
        for x in rois:
            is_foreground = x.gt_classes != self.num_classes
            is_surplus = is_foreground & (is_foreground.cumsum(0) > most)
            # No masks are copied, and nothing waits for the GPU.
            fields = {
                **x.get_fields(),
                "gt_classes": x.gt_classes.masked_fill(is_surplus, self.num_classes),
            }
            limited.append(Instances(x.image_size, **fields))
        return limited
