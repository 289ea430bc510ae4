"""The box branch of a head: what it predicts for RoIs, without training on them."""

from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from .extended_head import ExtendedHead
from .pooling import pool_on_all_cores


class BoxBranchMixin(ExtendedHead):
    """Runs the box branch of a head that is based on Detectron2's `ROIHeads`."""

    def __init__(self, *args, **kwargs) -> None:
        """
        Args:
            args: the arguments of the extended head.
            kwargs: the same.
        """
        super().__init__(*args, **kwargs)
        pool_on_all_cores(self)

    def read_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> tuple[FastRCNNOutputLayers, tuple[Tensor, Tensor]]:
        """
        Run the box branch, from the features of the images to the predictions for each RoI.

        To be overridden for heads that have another one than `StandardROIHeads`.

        Args:
            features: as in `forward`.
            proposals: those of each image, with ``proposal_boxes``, R in all.

        Returns:
            the predictor that is trained on these RoIs, and what it returns for them.
        """
        maps = [features[f] for f in self.box_in_features]
        pooled = self.box_pooler(maps, [x.proposal_boxes for x in proposals])
        return self.box_predictor, self.box_predictor(self.box_head(pooled))

    def detect_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """
        Tell what the model finds in each of the proposals, before any of it is dropped.

        Args:
            features: as in `forward`.
            proposals: those of each image, with ``proposal_boxes``.

        Returns:
            for each image with R proposals the boxes, (R, K * 4), or (R, 4) if class-agnostic (5 in
            place of 4 for rotated boxes), and the probabilities, (R, K + 1).
        """
        predictor, predictions = self.read_boxes(features, proposals)
        return (
            predictor.predict_boxes(predictions, proposals),
            predictor.predict_probs(predictions, proposals),
        )

    def _predictors(self) -> list[FastRCNNOutputLayers]:
        """The box predictor, or those of all stages of a cascade."""
        is_list = isinstance(self.box_predictor, nn.ModuleList)
        return [*self.box_predictor] if is_list else [self.box_predictor]


def own_names(classes: Iterable[type]) -> set[str]:
    """What those of the classes define that are neither Detectron2's nor this project's."""
    ours = ("detectron2.", "ohem_d2.")
    return {name for c in classes if not c.__module__.startswith(ours) for name in vars(c)}


def config_of(*args: object, **kwargs: object) -> CfgNode | None:
    """The config among the arguments of a head, if there is one."""
    return args[0] if args else kwargs.get("cfg")


def is_configured_above(cls: type[BoxBranchMixin]) -> bool:
    """Whether a subclass has an @configurable, so that no config reaches the __init__ above."""
    return hasattr(cls.__init__, "__wrapped__")
