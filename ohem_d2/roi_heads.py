"""Detectron2's RoI heads with mining in place of random sampling: label, rank, select, train."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.layers import cat
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    ROIHeads,
    RROIHeads,
    StandardROIHeads,
)
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .box_voting import detect
from .config import (
    BoxVotingOptions,
    OHEMOptions,
    box_voting_options,
    config_key,
    ohem_options,
)
from .errors import InputError
from .figures import log_figures
from .losses import check_predictor, losses_per_roi, predicted_classes
from .mining import select_hard_examples

logger = logging.getLogger(__name__)


class OHEMMixin:
    """
    Online hard example mining for a head that is based on Detectron2's `ROIHeads`.

    Put it before the head to extend, and register the result::

        @ROI_HEADS_REGISTRY.register()
        class OHEMROIHeads(OHEMMixin, StandardROIHeads):
            pass

    It replaces one step, ``label_and_sample_proposals``, by which Detectron2's heads choose the
    RoIs of a training step, and adds no weights. Inference is that of the extended head.

    The RoIs that it returns carry, beside Detectron2's fields, what the mining knew of them:
    ``ohem_loss_cls`` and ``ohem_loss_box_reg``, the loss terms of each, and ``ohem_pred_classes``,
    the class that the model takes it for.

    A box predictor with losses of its own needs a method that says what each RoI costs::

        def losses_per_roi(self, predictions, proposals) -> dict[str, Tensor]

    with the arguments of its ``losses``, returning ``loss_cls`` and ``loss_box_reg``, (R,) each;
    and its predictions must begin with the class scores, (R, K + 1).

    Attributes:
        observers: functions that are called with the RoIs to train on, of each image, in each step.
    """

    def __init_subclass__(cls, **kwargs) -> None:
        """Refuse base classes in the wrong order, and those that need another mining head."""
        super().__init_subclass__(**kwargs)
        heads = [c for c in cls.__mro__ if issubclass(c, ROIHeads) and not issubclass(c, OHEMMixin)]
        if heads and cls.__mro__.index(heads[0]) < cls.__mro__.index(OHEMMixin):
            raise TypeError(
                f"class {cls.__name__} names {heads[0].__name__} before OHEMMixin, expected "
                f"class {cls.__name__}(OHEMMixin, {heads[0].__name__})"
            )
        for base in (Res5ROIHeads, CascadeROIHeads):
            if issubclass(cls, base) and cls.read_boxes is OHEMMixin.read_boxes:
                raise TypeError(
                    f"class {cls.__name__} is based on {base.__name__}, whose box branch is "
                    f"another one, expected class {cls.__name__}(OHEM{base.__name__}, "
                    f"{heads[0].__name__}), or a method read_boxes"
                )

    def __init__(
        self,
        *args,
        ohem: OHEMOptions | None = None,
        box_voting: BoxVotingOptions | None = None,
        **kwargs,
    ) -> None:
        """
        Args:
            args: the config and the shapes of the features, unless all is given by name.
            ohem: how hard examples are chosen. None: as the config says, or as in the paper.
            box_voting: how detections are refined at test time. None: as the config says, or not.
            kwargs: the arguments of the extended head.

        Raises:
            InputError: an option does not fit the head.
        """
        # Not @configurable: the extended head reads the config in its own way, which may be that
        # of the heads that are older than @configurable.
        cfg = args[0] if args else kwargs.get("cfg")
        if ohem is None:
            ohem = OHEMOptions() if cfg is None else ohem_options(cfg)
        if box_voting is None:
            box_voting = BoxVotingOptions() if cfg is None else box_voting_options(cfg)
        super().__init__(*args, **kwargs)
        self.ohem, self.box_voting = ohem, box_voting
        if self.batch_size_per_image < 1:
            raise InputError(
                f"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE is {self.batch_size_per_image}, "
                "expected 1 or more: it is the number of RoIs to select per image"
            )
        if ohem.bg_iou_lo > 0:
            self.proposal_matcher = _ignore_below(self.proposal_matcher, ohem.bg_iou_lo)
        is_list = isinstance(self.box_predictor, nn.ModuleList)  # one for each stage of a cascade
        for predictor in self.box_predictor if is_list else [self.box_predictor]:
            check_predictor(predictor)
        self.observers: list[Callable[[list[Instances]], None]] = []
        self._features = None

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape) -> dict:
        """See Detectron2's `configurable`."""
        arguments = super().from_config(cfg, input_shape)
        if hasattr(cls.__init__, "__wrapped__"):
            # A subclass has an @configurable of its own: no config will reach our __init__.
            arguments.update(ohem=ohem_options(cfg), box_voting=box_voting_options(cfg))
        return arguments

    def __call__(
        self, images, features: dict[str, Tensor], proposals: list[Instances], *args, **kwargs
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See Detectron2's `ROIHeads.forward`, which stays as it is, and can be scripted."""
        if self.box_voting.rounds and not self.training:
            return self._detect_with_voting(features, proposals), {}
        # Detectron2 does not hand the features to label_and_sample_proposals, which ranks by them.
        self._features = features
        try:
            return super().__call__(images, features, proposals, *args, **kwargs)
        finally:
            self._features = None

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """
        Label all proposals, and return those to train on: the hard examples.

        Arguments and result are those of Detectron2's `ROIHeads.label_and_sample_proposals`.
        """
        labelled, cost = self.label_and_rank_proposals(self._features, proposals, targets)
        mined = self._select(labelled, cost)
        for observe in self.observers:
            observe(mined)
        return [_with_ground_truth(x, x_targets) for x, x_targets in zip(mined, targets)]

    def _select(self, labelled: list[Instances], cost: Tensor) -> list[Instances]:
        """Of R labelled RoIs, and what each costs, (R,): the hard examples, which are logged."""
        image_ids = cat([torch.full_like(x.gt_classes, i) for i, x in enumerate(labelled)])
        selected = select_hard_examples(
            cost,
            cat([x.proposal_boxes.tensor for x in labelled]),
            cat([x.gt_classes for x in labelled]),
            image_ids,
            num_samples=self.batch_size_per_image,
            num_classes=self.num_classes,
            nms_thresh=self.ohem.nms_thresh,
            scope=self.ohem.scope,
            positive_fraction=self.ohem.positive_fraction,
            num_images=len(labelled),
        )
        mined, start = [], 0
        for i, labelled_i in enumerate(labelled):
            mined.append(labelled_i[selected[image_ids[selected] == i] - start])
            start += len(labelled_i)
        log_figures(labelled, mined, self.num_classes)
        return mined

    @torch.no_grad()
    def label_and_rank_proposals(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> tuple[list[Instances], Tensor]:
        """
        Label all proposals and tell what each costs, without learning from them.

        Args:
            features: as in `forward`.
            proposals: as in `forward`.
            targets: as in `forward`.

        Returns:
            all proposals of each image but for those that the matcher ignores, the appended
            ground truth among them, R in all, with the fields that the class describes; and (R,)
            the loss that each is ranked by.
        """
        with _read_only(self):
            labelled = self._label_proposals(proposals, targets)
            predictor, predictions = self.read_boxes(features, labelled)
        return labelled, self._cost(predictor, predictions, labelled)

    def _cost(
        self,
        predictor: FastRCNNOutputLayers,
        predictions: tuple[Tensor, Tensor],
        labelled: list[Instances],
    ) -> Tensor:
        """(R,) the loss that each RoI is ranked by; what it consists of is added to the fields."""
        losses = losses_per_roi(predictor, predictions, labelled)
        pred_classes = predicted_classes(predictor, predictions[0])
        sizes = [len(x) for x in labelled]
        for name, values in (*losses.items(), ("pred_classes", pred_classes)):
            for labelled_i, values_i in zip(labelled, values.split(sizes)):
                labelled_i.set(f"ohem_{name}", values_i)
        return (
            self.ohem.loss_weight_cls * losses["loss_cls"]
            + self.ohem.loss_weight_box_reg * losses["loss_box_reg"]
        )

    def _label_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """
        Every proposal, and the ground truth if it is appended, but for those that the matcher
        ignores; with ``gt_classes``, ``gt_boxes`` and ``gt_index``, the object it is matched to.
        """
        # Detectron2 copies each gt_* field to every RoI, which is slow for masks: it is given what
        # the ranking needs, and the rest follows for the selected RoIs alone.
        needed = [
            Instances(
                x.image_size,
                gt_boxes=x.gt_boxes,
                gt_classes=x.gt_classes,
                gt_index=torch.arange(len(x), device=x.gt_classes.device),
            )
            for x in targets
        ]
        return super().label_and_sample_proposals(proposals, needed)

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Takes every RoI that is not ignored, where Detectron2 draws some at random."""
        indices = (matched_labels != -1).nonzero().squeeze(1)
        foreground = matched_labels[indices] == 1
        labels = torch.full_like(indices, self.num_classes)
        labels[foreground] = gt_classes[matched_idxs[indices[foreground]]]
        return indices, labels

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
        features = [features[f] for f in self.box_in_features]
        pooled = self.box_pooler(features, [x.proposal_boxes for x in proposals])
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

    def _detect_with_voting(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        """What the extended head does at test time, but for how boxes are found."""
        predictors = self.box_predictor
        last = predictors[-1] if isinstance(predictors, nn.ModuleList) else predictors
        found = detect(
            lambda x: self.detect_boxes(features, x),
            proposals,
            self.box_voting,
            last.test_score_thresh,
            last.test_topk_per_image,
        )
        return self.forward_with_given_boxes(features, found)


@ROI_HEADS_REGISTRY.register()
class OHEMROIHeads(OHEMMixin, StandardROIHeads):
    """`StandardROIHeads` (box, mask and keypoint heads on FPN or dilated C5) with mining."""

    # For TorchScript, as Detectron2 annotates StandardROIHeads: a head that is not there is not
    # compiled.
    mask_on: torch.jit.Final[bool]
    keypoint_on: torch.jit.Final[bool]

    def __init__(self, *args, **kwargs) -> None:
        """
        See `OHEMMixin`.

        Raises:
            InputError: the arguments are those of another kind of head.
        """
        for argument, other in (("res5", "OHEMRes5ROIHeads"), ("box_heads", "OHEMCascadeROIHeads")):
            if argument in kwargs:
                raise InputError(
                    f"model.roi_heads is {type(self).__name__}, but has a {argument!r}: "
                    f"expected {other}"
                )
        super().__init__(*args, **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape) -> dict:
        """
        See Detectron2's `StandardROIHeads.from_config`.

        Raises:
            InputError: the config is that of another kind of head.
        """
        box_head = cfg.MODEL.ROI_BOX_HEAD
        if not box_head.NAME:
            other, reason = "OHEMRes5ROIHeads", "ROI_BOX_HEAD.NAME is empty, as for C4 models"
        elif box_head.POOLER_TYPE == "ROIAlignRotated":
            other, reason = "OHEMRROIHeads", "ROI_BOX_HEAD.POOLER_TYPE is ROIAlignRotated"
        else:
            if box_head.CLS_AGNOSTIC_BBOX_REG:
                # All that a cascade's config has and another's has not; some others have it too.
                logger.warning(
                    f"MODEL.ROI_HEADS.NAME is {cls.__name__}, and MODEL.ROI_BOX_HEAD."
                    "CLS_AGNOSTIC_BBOX_REG is True: if this is the config of a cascade, it needs "
                    "OHEMCascadeROIHeads, and is now trained with one stage only"
                )
            return super().from_config(cfg, input_shape)
        raise InputError(
            f"MODEL.ROI_HEADS.NAME is {cls.__name__}, but MODEL.{reason}: expected {other}"
        )


@ROI_HEADS_REGISTRY.register()
class OHEMRes5ROIHeads(OHEMMixin, Res5ROIHeads):
    """`Res5ROIHeads` (C4: box and mask heads share res5) with mining."""

    def read_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> tuple[FastRCNNOutputLayers, tuple[Tensor, Tensor]]:
        """See `OHEMMixin.read_boxes`."""
        features = [features[f] for f in self.in_features]
        shared = self._shared_roi_transform(features, [x.proposal_boxes for x in proposals])
        return self.box_predictor, self.box_predictor(shared.mean(dim=[2, 3]))


@ROI_HEADS_REGISTRY.register()
class OHEMRROIHeads(OHEMMixin, RROIHeads):
    """`RROIHeads` (rotated boxes) with mining: rotated IoU in matching and in suppression."""


@ROI_HEADS_REGISTRY.register()
class OHEMCascadeROIHeads(OHEMMixin, CascadeROIHeads):
    """
    `CascadeROIHeads` with mining in the stages that ``ohem.cascade_stages`` names.

    The first stage mines among the proposals, or samples them as Detectron2 does. A later stage is
    given the boxes that the stage before predicts, matched at its own IoU; it mines among these
    with its own head and loss, or takes all of them as Detectron2 does.
    """

    def __init__(self, *args, **kwargs) -> None:
        """See `OHEMMixin`."""
        super().__init__(*args, **kwargs)
        for stage in self.ohem.cascade_stages:
            if stage >= self.num_cascade_stages:
                raise InputError(
                    f"{config_key('cascade_stages')} is {self.ohem.cascade_stages}, expected "
                    f"stages in [0, {self.num_cascade_stages})"
                )

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """See `OHEMMixin.label_and_sample_proposals`."""
        if 0 in self.ohem.cascade_stages:
            return super().label_and_sample_proposals(proposals, targets)
        return CascadeROIHeads.label_and_sample_proposals(self, proposals, targets)

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        if 0 in self.ohem.cascade_stages:
            return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)
        return CascadeROIHeads._sample_proposals(self, matched_idxs, matched_labels, gt_classes)

    def read_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances], stage: int = 0
    ) -> tuple[FastRCNNOutputLayers, tuple[Tensor, Tensor]]:
        """See `OHEMMixin.read_boxes`."""
        features = [features[f] for f in self.box_in_features]
        return self.box_predictor[stage], self._run_stage(features, proposals, stage)

    def detect_boxes(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See `OHEMMixin.detect_boxes`: the boxes of the last stage, the mean score of all."""
        probs, boxes = [], None
        for stage in range(self.num_cascade_stages):
            if stage > 0:
                sizes = [x.image_size for x in proposals]
                proposals = self._create_proposals_from_boxes(boxes, sizes)
            predictor, predictions = self.read_boxes(features, proposals, stage)
            boxes = predictor.predict_boxes(predictions, proposals)
            probs.append(predictor.predict_probs(predictions, proposals))
        return boxes, [torch.stack(x).mean(dim=0) for x in zip(*probs)]

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """Label the boxes that the stage before predicted, and mine among them if asked to."""
        labelled = super()._match_and_label_boxes(proposals, stage, targets)
        if stage not in self.ohem.cascade_stages:
            return labelled
        with _read_only(self):
            predictor, predictions = self.read_boxes(self._features, labelled, stage)
        cost = self._cost(predictor, predictions, labelled)
        with get_event_storage().name_scope(f"stage{stage}"):
            return self._select(labelled, cost)


def _ignore_below(matcher: Matcher, bg_iou_lo: float) -> Matcher:
    """
    The same matcher, but for RoIs whose best IoU is below ``bg_iou_lo``: it ignores them.

    Raises:
        InputError: no background would be left.
    """
    thresholds = matcher.thresholds[1:-1]  # without the infinities at both ends
    if bg_iou_lo >= thresholds[0]:
        raise InputError(
            f"{config_key('bg_iou_lo')} is {bg_iou_lo}, expected less than {thresholds[0]}, "
            "the first of MODEL.ROI_HEADS.IOU_THRESHOLDS: no background would be left"
        )
    return Matcher(
        [bg_iou_lo, *thresholds], [-1, *matcher.labels], matcher.allow_low_quality_matches
    )


def _with_ground_truth(mined: Instances, targets: Instances) -> Instances:
    """The RoIs of one image, each with all the fields of the object that it is matched to."""
    if mined.has("gt_index"):
        matched = mined.gt_index
        mined.remove("gt_index")
        for name, values in targets.get_fields().items():
            if name.startswith("gt_") and not mined.has(name):
                mined.set(name, values[matched])
    return mined


@contextmanager
def _read_only(module: nn.Module) -> Iterator[None]:
    """Whatever batch normalization learns inside is forgotten, and whatever is logged is lost."""
    norms = [m for m in module.modules() if isinstance(m, _NormBase)]
    before = [(b, b.clone()) for m in norms for b in m.buffers(recurse=False)]
    try:
        with EventStorage(get_event_storage().iter):
            yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
