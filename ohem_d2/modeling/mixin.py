"""RoI heads that choose what they are trained on: label, read, sample, train."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from detectron2.config import CfgNode
from detectron2.layers import cat
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, ROIHeads
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config import OHEMOptions, ohem_options, options_by_name
from ..errors import InputError
from ..mining.candidates import Candidates, check_selection
from ..mining.losses import (
    check_predictor,
    use_weights,
)
from ..mining.samplers import Sampler
from .box_voting import BoxVotingMixin, config_of, is_configured_above
from .build_sampler import build_sampler
from .labelling import LabellingMixin, ignore_below, with_ground_truth
from .metrics import MiningMetrics, add_up
from .reading import read_only, read_rois

logger = logging.getLogger(__name__)


def _own_names(classes: Iterable[type]) -> set[str]:
    """What those of the classes define that are neither Detectron2's nor this project's."""
    ours = ("detectron2.", "ohem_d2.")
    return {name for c in classes if not c.__module__.startswith(ours) for name in vars(c)}


class OHEMMixin(LabellingMixin, BoxVotingMixin):
    """
    Online hard example mining for a head that is based on Detectron2's `ROIHeads`.

    Put it before the head to extend, and register the result::

        @ROI_HEADS_REGISTRY.register()
        class OHEMROIHeads(OHEMMixin, StandardROIHeads):
            pass

    It replaces one step, ``label_and_sample_proposals``, by which Detectron2's heads choose the
    RoIs of a training step, and adds no weights. Inference is that of the extended head.

    The RoIs that it returns carry, beside Detectron2's fields, what the model made of them:
    ``ohem_loss_cls`` and ``ohem_loss_box_reg``, the loss terms of each, ``ohem_pred_classes``, the
    class that the model takes it for, and ``ohem_weights`` where the sampler gives weights; but for
    those before ``start_iter``, which Detectron2 samples.

    A box predictor with losses of its own needs a method that says what each RoI costs::

        def losses_per_roi(self, predictions, proposals) -> dict[str, Tensor]

    with the arguments of its ``losses``, returning ``loss_cls`` and ``loss_box_reg``, (R,) each;
    and its predictions must begin with the class scores, (R, K + 1). It is given a chunk of the
    RoIs at a time.

    A head that does something of its own to the features of a RoI before they reach its predictor,
    in ``forward`` or in ``_forward_box``, needs a `read_boxes` that does the same, since the mining
    would rank by other losses than are trained on.

    Attributes:
        sampler: what chooses, see `ohem_d2.mining.samplers`.
        observers: functions that are called in each step that mines, with the hard examples of
            each image: masks and keypoints are looked up afterwards. Where several stages of a
            cascade mine, they are called once for each.
        class_names: names of the foreground classes, for what is logged of each. None: numbers.
    """

    # RoIs are read in chunks, as many of each image as the budget, which takes no more memory than
    # to train on them. Each chunk takes some time however small it is: where the budget is small, a
    # chunk has at least this many RoIs, of all images together.
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
            ohem: how RoIs are chosen, or those options that differ from their default, by name.
                None: as the config says, or the defaults.
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
            self.proposal_matcher: Matcher = ignore_below(self.proposal_matcher, ohem.bg_iou_lo)
        is_list = isinstance(self.box_predictor, nn.ModuleList)  # one for each stage of a cascade
        for predictor in self.box_predictor if is_list else [self.box_predictor]:
            check_predictor(predictor)
        self.sampler: Sampler = build_sampler(ohem, self.positive_fraction)
        self.observers: list[Callable[[list[Instances]], None]] = []
        self.class_names: Sequence[str] | None = None
        self._metrics = {0: MiningMetrics()}  # of each stage that mines
        self._features: dict[str, Tensor] | None = None
        self._is_step = False
        self._is_too_early = False  # whether the last step came before start_iter

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
        if self.training and self._is_step and self.ohem.start_iter > 0:
            # Other passes, such as those of PreciseBN, choose RoIs as the last step did: the events
            # that they store may have iterations of their own.
            self._is_too_early = get_event_storage().iter < self.ohem.start_iter
        try:
            return super().__call__(images, features, *args, **kwargs)
        finally:
            self._features = None

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """
        Label and read all proposals, and return those to train on, which the sampler chooses; or,
        before `start_iter` and where proposals are not mined, those that the extended head samples.

        Arguments and result are those of Detectron2's `ROIHeads.label_and_sample_proposals`.
        """
        features = self._features_of_call()
        if self._is_too_early or not self.mines_among_proposals():
            return super().label_and_sample_proposals(proposals, targets)
        labelled, candidates = self.label_and_read_proposals(features, proposals, targets)
        chosen = self._sample(labelled, candidates)
        return [with_ground_truth(x, x_targets) for x, x_targets in zip(chosen, targets)]

    def _features_of_call(self) -> dict[str, Tensor]:
        """What the call that is under way was given."""
        if self._features is None:
            raise RuntimeError("expected a call of the heads themselves, not of their forward")
        return self._features

    @torch.no_grad()
    def label_and_read_proposals(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> tuple[list[Instances], Candidates]:
        """
        Label all proposals and tell what the model makes of each, without learning from them.

        Args:
            features: as in `forward`.
            proposals: as in `forward`.
            targets: as in `forward`.

        Returns:
            all proposals of each image but for those that the matcher ignores, the appended ground
            truth among them, R in all, with the fields that the class describes; and what a sampler
            is given of them.
        """
        with read_only(self):
            labelled = self.label_proposals(proposals, targets)
            return labelled, self._read(features, labelled, targets)

    def _read(
        self,
        features: dict[str, Tensor],
        labelled: list[Instances],
        targets: list[Instances],
        *stage: int,
    ) -> Candidates:
        """What the model makes of R labelled RoIs, a part of which is added to their fields."""
        chunk_size = max(self.batch_size_per_image, self._fewest_at_a_time // max(1, len(labelled)))
        if any(map(_needs_all_rois, self.modules())):
            chunk_size = max(1, *map(len, labelled))
        return read_rois(
            lambda chunk: self.read_boxes(features, chunk, *stage),
            labelled,
            targets,
            num_classes=self.num_classes,
            chunk_size=chunk_size,
        )

    def _sample(
        self, labelled: list[Instances], candidates: Candidates, stage: int = 0
    ) -> list[Instances]:
        """
        Of R labelled RoIs, those that the sampler chooses: of each image the hard examples, then
        the others. In a step of training they are logged, and the first shown to observers.
        """
        selection = self.sampler(candidates, self.batch_size_per_image)
        indices, weights, is_hard = check_selection(selection, candidates, self.sampler)
        if is_hard is None:
            is_hard = torch.ones_like(indices, dtype=torch.bool)
        # By image, hard examples first; a part is what is alike in both.
        parts = 2 * candidates.image_ids[indices] + ~is_hard
        order = parts.argsort(stable=True)
        indices, is_hard, parts = indices[order], is_hard[order], parts[order]
        cuts = torch.searchsorted(parts, torch.arange(2 * len(labelled) + 1, device=parts.device))
        if self._is_step:
            sums = add_up(candidates, indices, is_hard)
            # One transfer from the GPU for all images, and for all that is logged.
            values = cat([cuts.to(sums.dtype), sums]).tolist()
            bounds = [int(x) for x in values[: len(cuts)]]
            self._metrics[stage].log(values[len(cuts) :], self.class_names)
        else:
            bounds = cuts.tolist()
        starts = accumulate(map(len, labelled), initial=0)
        of_images = list(pairwise(bounds[::2]))
        chosen = [x[indices[a:b] - s] for x, (a, b), s in zip(labelled, of_images, starts)]
        if weights is not None:
            use_weights(self._predictor(stage))
            for x, (a, b) in zip(chosen, of_images):
                x.ohem_weights = weights[order][a:b].to(x.ohem_loss_cls)
        if self._is_step:
            num_hard = [b - a for a, b in zip(bounds[::2], bounds[1::2])]
            for observe in self.observers:
                observe([x[:n] for x, n in zip(chosen, num_hard)])
        return chosen

    def _predictor(self, stage: int) -> nn.Module:
        """The box predictor, or that of a stage of a cascade."""
        is_list = isinstance(self.box_predictor, nn.ModuleList)
        return self.box_predictor[stage] if is_list else self.box_predictor


def _needs_all_rois(module: nn.Module) -> bool:
    """Whether what it makes of a RoI depends on the others: on their mean, or on their classes."""
    return isinstance(module, _BatchNorm) or getattr(module, "use_fed_loss", False)
