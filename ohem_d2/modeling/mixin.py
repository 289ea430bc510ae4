"""RoI heads that mine, beside random sampling: label, rank, select, draw, train."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

import torch
from detectron2.config import CfgNode
from detectron2.layers import cat
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, ROIHeads
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config import OHEMOptions, config_key, ohem_options, options_by_name
from ..errors import InputError
from ..mining.losses import check_predictor, losses_per_roi, predicted_classes
from ..mining.select import select_hard_examples
from .box_voting import BoxVotingMixin, config_of, is_configured_above
from .metrics import MiningMetrics, add_up
from .reading import read_in_chunks, read_only

logger = logging.getLogger(__name__)


def _own_names(classes: Iterable[type]) -> set[str]:
    """What those of the classes define that are neither Detectron2's nor this project's."""
    ours = ("detectron2.", "ohem_d2.")
    return {name for c in classes if not c.__module__.startswith(ours) for name in vars(c)}


class OHEMMixin(BoxVotingMixin):
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
    the class that the model takes it for; but for those before ``warmup_iters``, which Detectron2
    samples.

    A box predictor with losses of its own needs a method that says what each RoI costs::

        def losses_per_roi(self, predictions, proposals) -> dict[str, Tensor]

    with the arguments of its ``losses``, returning ``loss_cls`` and ``loss_box_reg``, (R,) each;
    and its predictions must begin with the class scores, (R, K + 1). It is given a part of the RoIs
    at a time.

    A head that does something of its own to the features of a RoI before they reach its predictor,
    in ``forward`` or in ``_forward_box``, needs a `read_boxes` that does the same, since the mining
    would rank by other losses than are trained on.

    Attributes:
        observers: functions that are called in each step that mines, with the hard examples of
            each image, as they were ranked: masks and keypoints are looked up afterwards. Where
            several stages of a cascade mine, they are called once for each.
        class_names: names of the foreground classes, for what is logged of each. None: numbers.
    """

    # RoIs are read piece by piece, as many of each image as the budget, which takes no more memory
    # than to train on them. Each piece takes some time however small it is: where the budget is
    # small, a piece has at least this many RoIs, of all images together.
    _fewest_at_a_time = 512

    def __init_subclass__(cls, **kwargs) -> None:
        """Refuse base classes in the wrong order, and those that need another mining head."""
        super().__init_subclass__(**kwargs)
        heads = [c for c in cls.__mro__ if issubclass(c, ROIHeads) and not issubclass(c, OHEMMixin)]
        if heads and cls.__mro__.index(heads[0]) < cls.__mro__.index(OHEMMixin):
            raise TypeError(
                f"class {cls.__name__} names {heads[0].__name__} before OHEMMixin, expected "
                f"class {cls.__name__}(OHEMMixin, {heads[0].__name__})"
            )
        own = _own_names(cls.__mro__)
        if "_forward_box" in own and "read_boxes" not in own:
            logger.warning(
                f"class {cls.__name__} has a _forward_box of its own, and no read_boxes: if the "
                "first does something to the features of a RoI, the mining needs the second"
            )
        for base in (Res5ROIHeads, CascadeROIHeads):
            if issubclass(cls, base) and cls.read_boxes is BoxVotingMixin.read_boxes:
                raise TypeError(
                    f"class {cls.__name__} is based on {base.__name__}, whose box branch is "
                    f"another one, expected class {cls.__name__}(OHEM{base.__name__}, "
                    f"{heads[0].__name__}), or a method read_boxes"
                )

    def __init__(self, *args, ohem: OHEMOptions | Mapping | None = None, **kwargs) -> None:
        """
        Args:
            args: the config and the shapes of the features, unless all is given by name.
            ohem: how hard examples are chosen, or those options that differ from their default, by
                name. None: as the config says, or the defaults.
            kwargs: the arguments of the extended head.

        Raises:
            InputError: an option does not fit the head, or the head not what it is built from.
        """
        cfg = config_of(*args, **kwargs)
        self._check_kind(cfg, kwargs)
        if not isinstance(ohem, OHEMOptions):
            ohem = ohem_options(cfg) if ohem is None else options_by_name(OHEMOptions, ohem)
        super().__init__(*args, **kwargs)
        self.ohem = ohem
        if self.batch_size_per_image < 1:
            raise InputError(
                f"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE is {self.batch_size_per_image}, "
                "expected 1 or more: it is the number of RoIs to train on per image"
            )
        if ohem.bg_iou_lo > 0 and self.mines_among_proposals():
            self.proposal_matcher = _ignore_below(self.proposal_matcher, ohem.bg_iou_lo)
        is_list = isinstance(self.box_predictor, nn.ModuleList)  # one for each stage of a cascade
        for predictor in self.box_predictor if is_list else [self.box_predictor]:
            check_predictor(predictor)
        self.observers: list[Callable[[list[Instances]], None]] = []
        self.class_names: Sequence[str] | None = None
        self._figures = {0: MiningMetrics()}  # of each stage that mines
        self._features, self._is_step = None, False
        # Whether the last step was one of the warm-up; and whether the extended head is sampling.
        self._is_warmup, self._samples = False, False

    @classmethod
    def _check_kind(cls, cfg: CfgNode | None, arguments: dict) -> None:
        """
        Make sure that the head is of the kind that its config, or its arguments, are for.

        Raises:
            InputError: it is not.
        """

    def mines_among_proposals(self) -> bool:
        """Whether the RoIs that are mined are proposals of the RPN, not of a stage before."""
        return True

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape) -> dict:
        """See Detectron2's `configurable`."""
        arguments = super().from_config(cfg, input_shape)
        if is_configured_above(cls):
            arguments["ohem"] = ohem_options(cfg)
        return arguments

    def __call__(
        self, images, features: dict[str, Tensor], *args, **kwargs
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See Detectron2's `ROIHeads.forward`, which stays as it is, and can be scripted."""
        # Detectron2 does not hand the features to label_and_sample_proposals, which ranks by them.
        self._features = features
        # A loss without gradients, such as that of a validation, is no step of the training.
        self._is_step = torch.is_grad_enabled()
        if self.training and self._is_step and self.ohem.warmup_iters > 0:
            # Other passes, such as those of PreciseBN, choose RoIs as the last step did: the events
            # that they store may have iterations of their own.
            self._is_warmup = get_event_storage().iter < self.ohem.warmup_iters
        try:
            return super().__call__(images, features, *args, **kwargs)
        finally:
            self._features = None

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """
        Label all proposals, and return those to train on: the hard examples, and where
        `hard_fraction` is below 1, others that are drawn at random; or, before `warmup_iters` and
        where proposals are not mined, those that the extended head samples.

        Arguments and result are those of Detectron2's `ROIHeads.label_and_sample_proposals`.
        """
        if self._features is None:
            raise RuntimeError("expected a call of the heads themselves, not of their forward")
        if self._is_warmup or not self.mines_among_proposals():
            self._samples = True
            try:
                return super().label_and_sample_proposals(proposals, targets)
            finally:
                self._samples = False
        ranked = self.label_and_rank_proposals(self._features, proposals, targets)
        chosen = self._choose(*ranked, self._figures[0])
        return [_with_ground_truth(x, x_targets) for x, x_targets in zip(chosen, targets)]

    @torch.no_grad()
    def mine(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """
        Label all proposals and choose the hard examples, as a step of training would, but with
        nothing logged and no observer called, and of the whole budget: nothing is drawn at random.

        Arguments are those of `label_and_rank_proposals`.

        Returns:
            the hard examples of each image, by falling loss, with the fields that it adds.
        """
        labelled, cost = self.label_and_rank_proposals(features, proposals, targets)
        hard, bounds = self._select(labelled, cost, self.batch_size_per_image)
        return [x[i] for x, i in zip(labelled, _by_image(labelled, hard, bounds.tolist()))]

    def _choose(
        self, labelled: list[Instances], cost: Tensor, figures: MiningMetrics
    ) -> list[Instances]:
        """
        Of R labelled RoIs, and what each costs, (R,): the hard examples of each image, then what is
        drawn at random. In a step of training they are logged, and the first shown to observers.
        """
        num_hard = max(1, round(self.ohem.hard_fraction * self.batch_size_per_image))
        hard, bounds = self._select(labelled, cost, num_hard)
        drawn = self._draw(labelled, hard, self.batch_size_per_image - num_hard)
        if self._is_step:
            starts = accumulate(map(len, labelled), initial=0)
            trained = cat([hard, *(x + start for x, start in zip(drawn, starts))])
            sums = add_up(labelled, hard, trained, self.num_classes)
            # One transfer from the GPU for all images, and for all that is logged.
            values = cat([bounds.to(sums.dtype), sums]).tolist()
            bounds = [int(x) for x in values[: len(bounds)]]
            figures.log(values[len(bounds) :], self.class_names)
        else:
            bounds = bounds.tolist()
        hard = _by_image(labelled, hard, bounds)
        chosen = [x[cat(indices)] for x, *indices in zip(labelled, hard, drawn)]
        if self._is_step:
            for observe in self.observers:
                observe([x[: len(i)] for x, i in zip(chosen, hard)])
        return chosen

    def _select(
        self, labelled: list[Instances], cost: Tensor, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """
        Of R labelled RoIs, and what each costs, (R,): indices into R of the hard examples, ordered
        by image and by falling loss; and for N images, (N + 1,) where those of each begin and end.
        """
        image_ids = cat([torch.full_like(x.gt_classes, i) for i, x in enumerate(labelled)])
        selected = select_hard_examples(
            cost,
            cat([x.proposal_boxes.tensor for x in labelled]),
            cat([x.gt_classes for x in labelled]),
            image_ids,
            num_samples=num_samples,
            num_classes=self.num_classes,
            nms_thresh=self.ohem.nms_thresh,
            scope=self.ohem.scope,
            positive_fraction=self.ohem.positive_fraction,
            num_images=len(labelled),
        )
        images = torch.arange(len(labelled) + 1, device=selected.device)
        return selected, torch.searchsorted(image_ids[selected], images)

    def _draw(self, labelled: list[Instances], hard: Tensor, number: int) -> list[Tensor]:
        """Indices of this many other RoIs of each image, drawn at random as Detectron2 does it."""
        if number == 0:
            return [hard[:0] for _ in labelled]
        labels = cat([x.gt_classes for x in labelled]).index_fill(0, hard, -1)
        return [
            cat(subsample_labels(x, number, self.positive_fraction, self.num_classes))
            for x in labels.split([len(x) for x in labelled])
        ]

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
        with read_only(self):
            labelled = self._label_proposals(proposals, targets)
            return labelled, self._cost(features, labelled)

    def _cost(self, features: dict[str, Tensor], labelled: list[Instances], *stage: int) -> Tensor:
        """(R,) the loss that each RoI is ranked by; what it consists of is added to the fields."""

        def read(piece: list[Instances]) -> tuple[Tensor, Tensor, Tensor]:
            predictor, predictions = self.read_boxes(features, piece, *stage)
            losses = losses_per_roi(predictor, predictions, piece)
            pred_classes = predicted_classes(predictor, predictions[0])
            return losses["loss_cls"], losses["loss_box_reg"], pred_classes

        size = max(self.batch_size_per_image, self._fewest_at_a_time // max(1, len(labelled)))
        if any(map(_needs_all_rois, self.modules())):
            size = max(1, *map(len, labelled))
        values = read_in_chunks(read, labelled, size)
        for name, of_all in zip(("loss_cls", "loss_box_reg", "pred_classes"), values):
            for x, of_image in zip(labelled, of_all.split([len(x) for x in labelled])):
                x.set(f"ohem_{name}", of_image)
        loss_cls, loss_box_reg, _ = values
        return self.ohem.loss_weight_cls * loss_cls + self.ohem.loss_weight_box_reg * loss_box_reg

    def _label_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """
        Every proposal, and the ground truth if it is appended, but for those that the matcher
        ignores; with ``gt_classes``, ``gt_boxes`` and ``gt_index``, the object it is matched to.
        """
        # Detectron2 copies each gt_* field to every RoI, which is slow for masks: it is given what
        # the ranking needs, and the rest follows for those that are trained on.
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
        if self._samples:
            return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)
        indices = torch.arange(len(matched_labels), device=matched_labels.device)
        # To look is to wait for the GPU; a matcher of another kind may ignore some as well.
        if -1 in getattr(self.proposal_matcher, "labels", [-1]):
            indices = indices[matched_labels != -1]
        background = torch.full_like(indices, self.num_classes)
        if len(gt_classes) == 0:
            return indices, background
        foreground = matched_labels[indices] == 1
        return indices, torch.where(foreground, gt_classes[matched_idxs[indices]], background)


def _by_image(labelled: list[Instances], indices: Tensor, bounds: Sequence[int]) -> list[Tensor]:
    """Split indices into the RoIs of all images into those of each."""
    starts = accumulate(map(len, labelled), initial=0)
    return [indices[a:b] - start for a, b, start in zip(bounds, bounds[1:], starts)]


def _needs_all_rois(module: nn.Module) -> bool:
    """Whether what it makes of a RoI depends on the others: on their mean, or on their classes."""
    return isinstance(module, _BatchNorm) or getattr(module, "use_fed_loss", False)


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
