"""One-stage detectors that mine: of all anchors, they train on those that a sampler chooses."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import FCOS, RetinaNet
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import matched_pairwise_iou
from detectron2.utils.events import EventStorage, get_event_storage
from detectron2.utils.memory import retry_if_cuda_oom
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor
from torch.nn import functional as F

from ..config import OHEMDenseOptions, config_key, ohem_dense_options, options_by_name
from ..errors import InputError
from ..mining.candidates import Candidates
from ..mining.losses import box_losses
from .anchor_logs import log_hard_anchors
from .build_sampler import build_sampler
from .ignore_regions import lie_in, regions_of, valid_of
from .sampler_check import choose

if TYPE_CHECKING:
    from detectron2.modeling.meta_arch import RetinaNet as ExtendedDetector
else:
    ExtendedDetector = object

logger = logging.getLogger(__name__)

# The focal loss is the cross entropy then.
_CROSS_ENTROPY = {"focal_loss_gamma": 0.0, "focal_loss_alpha": -1.0}


class _Anchors(NamedTuple):
    """The R anchors of each of N images, one image after the other, and what is predicted."""

    boxes: Tensor  # (R, 4), the same in each image
    labels: Tensor  # (N * R,): in [0, K), K for background, -1 for neither
    gt_boxes: Tensor  # (N * R, 4), of what is background it may be any
    logits: Tensor  # (N * R, K)
    deltas: Tensor  # (N * R, 4), in single precision, which IoU losses need under AMP
    others: tuple[Tensor, ...]  # (N * R, 1) each: of FCOS, the centerness

    def boxes_of(self, numbers: Tensor) -> Tensor:
        """The anchors of these numbers, in [0, N * R)."""
        return self.boxes[numbers % len(self.boxes)]


class OHEMDenseMixin(ExtendedDetector):
    """
    Mining for a detector that is based on Detectron2's `RetinaNet` or `FCOS`: of all anchors of a
    batch, a sampler chooses those to train on, where Detectron2 trains on all with the focal loss.
    Of those that are chosen, the classification loss is the cross entropy, unless the options say
    otherwise. It learns nothing from regions to ignore.

    It adds no weights and no second pass, since all anchors have their predictions before any is
    chosen. Inference is Detectron2's. So is a pass without gradients, such as a validation loss.

    Attributes:
        sampler: what chooses the anchors, see `ohem_d2.mining.samplers`. Candidates have no
            ``objectness``, no ``objects`` and no ``pred_ious``.
    """

    # Whether Detectron2's losses leave out anchors with the label -1.
    _leaves_out = True
    _name_of_cls = "loss_cls"
    # What the losses are divided by, before it is averaged over steps; None: Detectron2's.
    _num_foreground: int | None = None

    def __init__(self, *, ohem: OHEMDenseOptions | Mapping | None = None, **kwargs: Any) -> None:
        """
        Args:
            ohem: how anchors are chosen, or only the options that differ from their default, by
                name.
            kwargs: the arguments of the detector that is extended.

        Raises:
            InputError: an option is wrong.
        """
        super().__init__(**kwargs)
        if not isinstance(ohem, OHEMDenseOptions):
            ohem = options_by_name(OHEMDenseOptions, ohem or {})
        self.ohem = ohem
        self.sampler = build_sampler(ohem, ohem.positive_fraction)
        self._is_checked = False  # what the sampler does, once

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See Detectron2's `RetinaNet.label_anchors`. What lies in a region to ignore has -1."""
        gt_labels, gt_boxes = super().label_anchors(anchors, gt_instances)
        for labels, targets in zip(gt_labels, gt_instances):
            if valid_of(targets) is not None:
                raise InputError(
                    f"there are valid ranges (INPUT.VALID_RANGES) for {type(self).__name__}, which "
                    "has none: expected none of them, or a two-stage model"
                )
            if (regions := regions_of(targets)) is not None:
                is_left_out = retry_if_cuda_oom(lie_in)(Boxes.cat(anchors), regions)
                labels[is_left_out.to(labels.device) & (labels == self.num_classes)] = -1
        return gt_labels, gt_boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
        *others: list[Tensor],
    ) -> dict[str, Tensor]:
        """See Detectron2's `RetinaNet.losses`, which is given the chosen anchors alone."""
        labels = cat(gt_labels)
        mines = torch.is_grad_enabled() and get_event_storage().iter >= self.ohem.start_iter
        if not mines and (self._leaves_out or not (labels < 0).any()):
            losses: dict[str, Tensor] = super().losses(
                anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes, *others
            )
            return losses
        of_batch = _Anchors(
            Boxes.cat(anchors).tensor,
            labels,
            cat(gt_boxes),
            cat(pred_logits, dim=1).flatten(0, 1),
            cat(pred_anchor_deltas, dim=1).flatten(0, 1).float(),
            tuple(cat(x, dim=1).flatten(0, 1) for x in others),
        )
        numbers = (labels >= 0).nonzero().squeeze(1)
        if not mines:
            return self._losses_on(of_batch, numbers, None, len(gt_labels))
        with self._as_mined(int((labels[numbers] < self.num_classes).sum())):
            chosen, weights = self._choose(of_batch, numbers, len(gt_labels))
            return self._losses_on(of_batch, chosen, weights, len(gt_labels))

    @contextmanager
    def _as_mined(self, num_foreground: int) -> Iterator[None]:
        """With the loss of what is mined; `num_foreground`: of all anchors of the batch."""
        settings = {} if self.ohem.focal_loss else _CROSS_ENTROPY
        before = {name: getattr(self, name) for name in settings}
        self._num_foreground = num_foreground
        try:
            for name, value in settings.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)
            self._num_foreground = None

    def _ema_update(self, name: str, value: float, *args: Any, **kwargs: Any) -> float:
        """Divide by the foreground among all anchors, as Detectron2, whichever are chosen."""
        if self._num_foreground is not None:
            value = max(self._num_foreground, 1)
        average: float = super()._ema_update(name, value, *args, **kwargs)
        return average

    def _losses_on(
        self, anchors: _Anchors, chosen: Tensor, weights: Tensor | None, num_images: int
    ) -> dict[str, Tensor]:
        """Detectron2's losses of some anchors, which it is given as if they were of one image."""
        with EventStorage(get_event_storage().iter) as of_one_image:
            losses: dict[str, Tensor] = super().losses(
                [Boxes(anchors.boxes_of(chosen))],
                [anchors.logits[chosen][None]],
                [anchors.labels[chosen]],
                [anchors.deltas[chosen][None]],
                [anchors.gt_boxes[chosen]],
                *([x[chosen][None]] for x in anchors.others),
            )
        for name, (value, _) in of_one_image.latest().items():
            get_event_storage().put_scalar(name, value / num_images)  # num_pos_anchors
        if weights is not None:
            normalizer = self.loss_normalizer  # of this step
            for name, of_anchors in self._losses_of(anchors, chosen).items():
                losses[name] = (weights * of_anchors).sum() / normalizer
        return losses

    @torch.no_grad()
    def _choose(
        self, anchors: _Anchors, numbers: Tensor, num_images: int
    ) -> tuple[Tensor, Tensor | None]:
        """Which of the N * R anchors to train on, and their weights, if the sampler gives any."""
        candidates = self._candidates(anchors, numbers, num_images)
        indices, weights, is_hard = choose(
            self.sampler,
            candidates,
            self.ohem.batch_size_per_image,
            is_checked=not self._is_checked,
            warn=logger.warning,
            key=config_key("sampler", OHEMDenseOptions.NODE),
            chosen_for=("anchors", "detector"),
        )
        self._is_checked = True
        hard = indices if is_hard is None else indices[is_hard]
        log_hard_anchors("ohem_dense", candidates, hard)
        chosen, order = numbers[indices].sort()  # Detectron2 sums losses in this order
        return chosen, None if weights is None else weights[order]

    def _candidates(self, anchors: _Anchors, numbers: Tensor, num_images: int) -> Candidates:
        """What a sampler gets: the anchors of these numbers, in [0, N * R)."""
        losses = self._losses_of(anchors, numbers)
        loss_cls = losses.pop(self._name_of_cls)
        best, classes = anchors.logits[numbers].float().max(dim=1)

        def pred_boxes() -> Tensor:
            return self._pred_boxes(anchors, numbers)

        return Candidates(
            boxes=self._boxes(anchors, numbers),
            labels=anchors.labels[numbers],
            image_ids=numbers // len(anchors.boxes),
            loss_cls=loss_cls,
            loss_box_reg=torch.stack([*losses.values()]).sum(dim=0),
            num_classes=self.num_classes,
            num_images=num_images,
            iteration=get_event_storage().iter,
            ious=self._ious(anchors, numbers),
            pred_classes=classes.masked_fill(best <= 0, self.num_classes),
            pred_scores=best.abs().sigmoid(),
            pred_boxes=pred_boxes,
        )

    def _boxes(self, anchors: _Anchors, numbers: Tensor) -> Tensor:
        """By which duplicates are told."""
        return anchors.boxes_of(numbers)

    def _ious(self, anchors: _Anchors, numbers: Tensor) -> Any:
        """What computes the IoU of each anchor with the object that it overlaps most, if any."""
        boxes, gt_boxes = anchors.boxes_of(numbers), anchors.gt_boxes[numbers]
        return lambda: matched_pairwise_iou(Boxes(boxes), Boxes(gt_boxes))

    def _pred_boxes(self, anchors: _Anchors, numbers: Tensor) -> Tensor:
        deltas = anchors.deltas[numbers]
        boxes: Tensor = self.box2box_transform.apply_deltas(deltas, anchors.boxes_of(numbers))
        return boxes

    def _losses_of(self, anchors: _Anchors, numbers: Tensor) -> dict[str, Tensor]:
        """
        The losses of single anchors: the sums over those that are trained on, divided by the
        normalizer, are Detectron2's.
        """
        labels, logits = anchors.labels[numbers], anchors.logits[numbers]
        targets = F.one_hot(labels, self.num_classes + 1)[:, :-1].to(logits.dtype)
        of_classes = sigmoid_focal_loss_jit(
            logits, targets, alpha=self.focal_loss_alpha, gamma=self.focal_loss_gamma
        )
        loss_cls = of_classes.sum(dim=1)
        foreground = (labels < self.num_classes).nonzero().squeeze(1)
        of_objects = self._losses_on_objects(anchors, numbers[foreground])
        zeros = torch.zeros_like(loss_cls)
        return {
            self._name_of_cls: loss_cls,
            **{k: zeros.index_copy(0, foreground, x.float()) for k, x in of_objects.items()},
        }

    def _losses_on_objects(self, anchors: _Anchors, numbers: Tensor) -> dict[str, Tensor]:
        """What else these anchors cost, which are all on objects."""
        raise NotImplementedError


@META_ARCH_REGISTRY.register()
class OHEMRetinaNet(OHEMDenseMixin, RetinaNet):
    """`RetinaNet` with mining, see `OHEMDenseMixin`."""

    @configurable
    def __init__(self, *, ohem: OHEMDenseOptions | Mapping | None = None, **kwargs: Any) -> None:
        """
        Args:
            ohem: how anchors are chosen, or only the options that differ from their default, by
                name.
            kwargs: the arguments of `RetinaNet`.

        Raises:
            InputError: an option is wrong.
        """
        super().__init__(ohem=ohem, **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """See Detectron2's `configurable`."""
        return {**super().from_config(cfg), "ohem": ohem_dense_options(cfg)}

    def _losses_on_objects(self, anchors: _Anchors, numbers: Tensor) -> dict[str, Tensor]:
        losses = box_losses(
            self.box2box_transform,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
            anchors.deltas[numbers],
            anchors.boxes_of(numbers),
            anchors.gt_boxes[numbers],
        )
        return {"loss_box_reg": losses}


class OHEMFCOS(OHEMDenseMixin, FCOS):
    """
    `FCOS` with mining among its points, see `OHEMDenseMixin`. Like `FCOS`, it has no YAML config.

    The ``boxes`` of its candidates are those that the points predict, so that points are duplicates
    if they predict nearly the same box. Candidates have no ``ious``.
    """

    _leaves_out = False
    _name_of_cls = "loss_fcos_cls"

    def _boxes(self, anchors: _Anchors, numbers: Tensor) -> Tensor:
        return self._pred_boxes(anchors, numbers)

    def _ious(self, anchors: _Anchors, numbers: Tensor) -> None:
        """None: Detectron2 does not tell which object background is nearest to."""

    def _losses_on_objects(self, anchors: _Anchors, numbers: Tensor) -> dict[str, Tensor]:
        points, gt_boxes = anchors.boxes_of(numbers), anchors.gt_boxes[numbers]
        deltas, (centerness,) = anchors.deltas[numbers], anchors.others
        targets = self.compute_ctrness_targets([Boxes(points)], [gt_boxes])[0]
        return {
            "loss_fcos_loc": box_losses(
                self.box2box_transform, "giou", 0.0, deltas, points, gt_boxes
            ),
            "loss_fcos_ctr": F.binary_cross_entropy_with_logits(
                centerness[numbers, 0].float(), targets, reduction="none"
            ),
        }
