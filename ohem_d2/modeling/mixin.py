"""RoI heads that choose the RoIs they are trained on: label, read, sample, train."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from numbers import Integral
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import cat
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..config import OHEMOptions, ohem_options, options_by_name
from ..errors import InputError, shown
from ..mining.candidates import Candidates
from ..mining.losses import check_predictor
from .box_branch import config_of, is_configured_above, own_names
from .box_voting import BoxVotingMixin
from .build_sampler import build_sampler
from .foreground_budget import ForegroundBudgetMixin
from .head_checks import check_class, check_classes_of_heads, check_objects, check_stages
from .labelling import LabellingMixin, ignore_below, with_ground_truth, within_limit
from .metrics import MiningMetrics, add_up
from .pooling_once import keeping, pool_once
from .reading import Reading, features_of_forward, read_rois
from .sampler_check import choose
from .self_check import SelfCheck, learns_statistics
from .weighted_losses import use_weights

logger = logging.getLogger(__name__)


class OHEMMixin(ForegroundBudgetMixin, LabellingMixin, BoxVotingMixin):
    """
    Online hard example mining for heads that are based on Detectron2's `ROIHeads`.

    Put it before the heads to extend, and register the result::

        @ROI_HEADS_REGISTRY.register()
        class OHEMROIHeads(OHEMMixin, StandardROIHeads):
            pass

    It replaces one step, ``label_and_sample_proposals``, in which Detectron2's heads choose the
    RoIs to train on, and adds no weights. Inference is that of the extended heads.

    In addition to Detectron2's fields, the RoIs that it returns have ``ohem_loss_cls`` and
    ``ohem_loss_box_reg``, the losses of each, ``ohem_pred_classes``, the class that the model
    predicts, and ``ohem_weights`` if the sampler gives weights. RoIs that Detectron2 samples, as
    before ``start_iter``, have none of these.

    A box predictor with losses of its own needs a method that returns the loss of each RoI::

        def losses_per_roi(self, predictions, proposals) -> dict[str, Tensor]

    It takes the arguments of ``losses`` and returns ``loss_cls`` and ``loss_box_reg``, (R,) each.
    It is given a chunk of the RoIs at a time. The predictions must begin with the class scores,
    (R, K + 1).

    Heads that change the features of a RoI before they reach the box predictor, in ``forward`` or
    in ``_forward_box``, need a `read_boxes` that does the same. Otherwise RoIs are ranked by other
    losses than those they are trained with.

    Attributes:
        sampler: what chooses the RoIs, see `ohem_d2.mining.samplers`.
        observers: functions that are called in each step that mines, with the hard examples of
            each image, before masks and keypoints are looked up. If several stages of a cascade
            mine, they are called once for each.
        class_names: names of the foreground classes, for the logs of each. None: numbers.
        metrics: what logs each stage that mines: see `MiningMetrics`.
        rois_see_each_other: whether the predictions for a RoI depend on the other RoIs, as with
            attention between them. Then all are read at once. Batch normalization is recognized.
            Other layers are noticed, with a warning, if the loss of a RoI depends on the others.
        mines_without_gradients: whether a pass in training mode without gradients mines. By default
            it takes the RoIs that the extended heads sample, so that a validation loss compares
            with that of a model without mining. (If batch normalization in the heads is learning,
            it takes RoIs as a training step does: its statistics have to be of those.)

    RoIs come back in another order than from Detectron2's heads, whose foreground comes first: see
    `Selection.indices`.
    """

    rois_see_each_other = False
    mines_without_gradients = False
    _has_own_forward = False
    __jit_unused_properties__ = ("ohem",)  # so that the heads can be scripted
    # RoIs are read in chunks, as many of each image as the budget, which takes no more memory than
    # training on them. Each chunk takes some time, however small it is: a chunk has at least this
    # many RoIs, from all images together. On a GPU, where many are read as fast as few, it has more
    # (docs/cost.md).
    _fewest_at_a_time = 512
    _fewest_at_a_time_on_gpu = 4096

    def __init_subclass__(cls, **kwargs) -> None:
        """See `check_class`."""
        super().__init_subclass__(**kwargs)
        check_class(cls, OHEMMixin)
        cls._has_own_forward = "forward" in own_names(cls.__mro__)

    def __init__(self, *args, ohem: OHEMOptions | Mapping | None = None, **kwargs) -> None:
        """
        Args:
            args: the config and the shapes of the features, unless all arguments are named.
            ohem: how RoIs are chosen, or only the options that differ from their default, by name.
                None: as the config says, or the defaults.
            kwargs: the arguments of the extended heads.

        Raises:
            InputError: an option does not fit the heads, or the heads do not fit the config.
        """
        cfg = config_of(*args, **kwargs)
        self.check_kind(cfg, kwargs)
        if not isinstance(ohem, OHEMOptions):
            ohem = ohem_options(cfg) if ohem is None else options_by_name(OHEMOptions, ohem)
        super().__init__(*args, **kwargs)
        pool_once(self)
        self._matcher: Matcher = self.proposal_matcher
        self.metrics: dict[int, MiningMetrics] = {}  # of each stage that mines
        self.ohem = ohem
        budget = self.batch_size_per_image
        if not isinstance(budget, Integral) or budget < 1:
            raise InputError(
                f"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE is {shown(budget)}, expected an integer of "
                "1 or more: it is the number of RoIs to train on per image"
            )
        check_classes_of_heads(self)
        for predictor in self._predictors():
            check_predictor(predictor)
        self.observers: list[Callable[[list[Instances]], None]] = []
        self.class_names: Sequence[str] | None = None
        self._reader = Reading()
        self._is_too_early = False  # whether the last step came before start_iter
        self._features: dict[str, Tensor] | None = None
        self._was_asked = False  # whether this pass has come to label_and_sample_proposals
        self._check = SelfCheck(self._reader)

    @property
    def ohem(self) -> OHEMOptions:
        """The options of mining. New ones take effect in the next step."""
        return self._ohem

    @ohem.setter
    def ohem(self, options: OHEMOptions) -> None:
        if not isinstance(options, OHEMOptions):
            raise InputError(f"ohem is {shown(options)}, expected OHEMOptions, such as "
                             "dataclasses.replace(heads.ohem, hard_fraction=0.3)")  # fmt: skip
        check_stages(self, options)
        self._ohem = options
        self.sampler = build_sampler(options, self.positive_fraction)
        self.proposal_matcher = self._matcher
        if options.bg_iou_lo > 0 and self.mines_among_proposals():
            self.proposal_matcher = ignore_below(self._matcher, options.bg_iou_lo)
        first, *later = self.mined_stages()
        if self.metrics.keys() != {first, *later}:
            before = self.metrics
            self.metrics = {first: before.get(first) or MiningMetrics()}
            self.metrics |= {x: before.get(x) or MiningMetrics(on_console=False) for x in later}
            for x in self.metrics.values():
                x.collects = any(y.collects for y in before.values())

    @classmethod
    def check_kind(cls, cfg: CfgNode | None, arguments: Mapping | None = None) -> None:
        """
        Check that the heads are of the kind that their config, or their arguments, are for.

        Args:
            cfg: a YAML config; None: they are built from arguments.
            arguments: these, by name; None: they are not built yet, and nothing is warned of.

        Raises:
            InputError: they are not.
        """

    def found_out(self) -> dict[str, bool]:
        """What steps have found out about the heads, by which RoIs are read since."""
        return {
            "calls_hooks": self._reader.calls_hooks,
            "rois_see_each_other": self.rois_see_each_other,
        }

    def load_found_out(self, saved: Mapping[str, bool]) -> None:
        """Go on with what `found_out` returned."""
        self._reader.calls_hooks |= saved["calls_hooks"]
        self.rois_see_each_other |= saved["rois_see_each_other"]

    def mined_stages(self) -> list[int]:
        """The stages that mine, in their order; other heads than those of a cascade have one."""
        return [0]

    def mines_among_proposals(self) -> bool:
        """Whether the candidates are proposals, not boxes that an earlier stage predicts."""
        return True

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape) -> dict:
        """See Detectron2's `configurable`."""
        arguments = super().from_config(cfg, input_shape)
        if is_configured_above(cls):
            arguments["ohem"] = ohem_options(cfg)
        return arguments

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See Detectron2's `ROIHeads.forward`, which stays as it is, and can be scripted."""
        # Detectron2 does not hand the features to label_and_sample_proposals, which ranks by them.
        outer, self._features = self._features, args[1] if len(args) > 1 else kwargs["features"]
        self._check.begin()
        self._was_asked = False
        try:
            with keeping(self):
                result = super().__call__(*args, **kwargs)
        except AssertionError as e:
            if "'targets' argument is required" not in str(e):
                raise
            raise InputError(
                f"{type(self).__name__} was called in training mode without targets, expected the "
                "objects of each image, or a call in eval mode"
            ) from e
        finally:
            self._features = outer
        # A teacher may predict in training mode: it has no losses, and learns nothing from any.
        learns = self.training and torch.is_grad_enabled() and isinstance(result[1], dict)
        if learns and result[1] and not self._was_asked:
            self._check.warn_once(
                f"{type(self).__module__}.{type(self).__qualname__} does not call "
                "OHEMMixin.label_and_sample_proposals in training, so nothing is mined: expected "
                "it to choose the RoIs by super().label_and_sample_proposals"
            )
        self._check.end(self, result[1])
        return result

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as a moving average of the weights, has no observers."""
        return {**vars(self), "observers": []}

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances], *args: Any, **kwargs: Any
    ) -> list[Instances]:
        """
        Label and read all proposals, and return those to train on, which the sampler chooses.

        Or return those that the extended heads sample: before `start_iter`, if proposals are not
        mined, and in a pass without gradients (see `mines_without_gradients`).

        Arguments and result are those of Detectron2's `ROIHeads.label_and_sample_proposals`, or of
        the extended heads' own. RoIs come in another order: see `Selection.indices`.
        """
        self._was_asked = True
        is_step = torch.is_grad_enabled()
        features = self._features_to_mine(is_step) if self.mines_among_proposals() else None
        with torch.no_grad():
            if features is None:
                return super().label_and_sample_proposals(proposals, targets, *args, **kwargs)
            labelled, candidates = self.label_and_read_proposals(
                features, proposals, targets, *args, **kwargs
            )
            chosen = self._sample(labelled, candidates, is_step)
            return [with_ground_truth(x, x_targets) for x, x_targets in zip(chosen, targets)]

    def _features_to_mine(self, is_step: bool) -> dict[str, Tensor] | None:
        """What RoIs are ranked by, in a step of training or in a pass without gradients; None where
        they are not mined."""
        features = self._features
        if features is None or self._forward_pre_hooks or self._has_own_forward:
            features = features_of_forward(self)  # which may be others than those of the call
        if features is None:
            self._check.warn_once(
                "label_and_sample_proposals was called outside the heads' forward, so the features "
                "to rank by are unavailable: falling back to Detectron2's sampling"
            )
            return None
        # A checkpoint (torch.utils.checkpoint) runs a step without gradients first, and then again
        # with them, and both passes have to take the same RoIs.
        is_checkpoint = any(x.requires_grad for x in features.values())
        return features if self._mines(is_step or is_checkpoint) else None

    def _mines(self, is_step: bool) -> bool:
        if is_step or self.mines_without_gradients:
            # A pass that is not a training step may count its iterations differently.
            iteration = get_event_storage().iter
            self._is_too_early = iteration < self.ohem.start_iter
            if self._is_too_early:
                self._check.waits_for(self.ohem.start_iter, iteration)
        else:
            self._check.goes_without_gradients(self)
            if not any(map(learns_statistics, self.modules())):
                return False
        return not self._is_too_early

    @torch.no_grad()
    def label_and_read_proposals(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[list[Instances], Candidates]:
        """
        Label all proposals and compute the loss and the prediction for each, without training.

        Args:
            features: as in `forward`.
            proposals: as in `forward`.
            targets: as in `forward`.
            args: further arguments of the extended heads' ``label_and_sample_proposals``.
            kwargs: the same.

        Returns:
            all proposals of each image except those that the matcher ignores, with the appended
            ground truth, or of these as many as ``ohem.max_candidates`` says; R in all, with the
            fields that the class describes. And the candidates that a sampler gets.
        """

        if self._check.is_due:
            for predictor in self._predictors():  # which may have been replaced meanwhile
                check_predictor(predictor)
            check_objects(targets, self.num_classes)

        seed = self._draw_seed()

        def label_and_read() -> tuple[list[Instances], Candidates]:
            labelled = self.label_proposals(proposals, targets, *args, **kwargs)
            labelled = within_limit(labelled, self.ohem.max_candidates, self.num_classes, seed)
            return labelled, self._read(features, labelled, targets)

        return self._reader.read(self, label_and_read)

    def _draw_seed(self) -> int:
        """Of `within_limit`: before RoIs are read, after which random states are as before."""
        return int(torch.randint(2**31, ())) if self.ohem.max_candidates else 0

    def _read(
        self,
        features: dict[str, Tensor],
        labelled: list[Instances],
        targets: list[Instances],
        *stage: int,
    ) -> Candidates:
        """The candidates of R labelled RoIs, which get some of the values as fields."""
        is_on_gpu = any(x.is_cuda for x in features.values())
        fewest = self._fewest_at_a_time_on_gpu if is_on_gpu else self._fewest_at_a_time
        chunk_size = max(self.batch_size_per_image, fewest // max(1, len(labelled)))

        def read_boxes(chunk: list[Instances]) -> Any:
            pair = self.read_boxes(features, chunk, *stage)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InputError(
                    f"{type(self).__name__}.read_boxes returns {shown(pair)}, expected the box "
                    "predictor and its predictions for the RoIs"
                )
            return pair

        def read(rois: list[Instances], chunk_size: int) -> Candidates:
            return read_rois(
                read_boxes,
                rois,
                targets,
                num_classes=self.num_classes,
                chunk_size=chunk_size,
            )

        return self._check.read(self, read, labelled, chunk_size)

    def _sample(
        self,
        labelled: list[Instances],
        candidates: Candidates,
        is_step: bool = True,
        stage: int = 0,
    ) -> list[Instances]:
        """
        Return the RoIs that the sampler chooses: for each image the hard examples, then the others.
        In a training step, they are logged, and observers get the hard examples.
        """
        indices, weights, is_hard = choose(
            self.sampler,
            candidates,
            self.batch_size_per_image,
            is_checked=is_step and self._check.is_due,
            warn=self._check.warn_once,
        )
        if is_hard is None:
            is_hard = torch.ones_like(indices, dtype=torch.bool)
        # Sort by image, hard examples first. A part holds the RoIs that are equal in both.
        parts = 2 * candidates.image_ids[indices] + ~is_hard
        order = parts.argsort(stable=True)
        indices, is_hard, parts = indices[order], is_hard[order], parts[order]
        weights = None if weights is None else weights[order].to(candidates.loss_cls)
        cuts = torch.searchsorted(parts, torch.arange(2 * len(labelled) + 1, device=parts.device))
        if is_step:
            bounds = self._log_chosen(candidates, indices, weights, is_hard, cuts, stage)
        else:
            bounds = cuts.tolist()
        starts = accumulate(map(len, labelled), initial=0)
        of_images = list(pairwise(bounds[::2]))
        chosen = [x[indices[a:b] - s] for x, (a, b), s in zip(labelled, of_images, starts)]
        if weights is not None:
            use_weights(self._predictors()[stage])
            for x, (a, b) in zip(chosen, of_images):
                x.ohem_weights = weights[a:b]
        if is_step:
            num_hard = [b - a for a, b in zip(bounds[::2], bounds[1::2])]
            for observe in self.observers:
                observe([x[:n] for x, n in zip(chosen, num_hard)])
        return chosen

    def _log_chosen(
        self,
        candidates: Candidates,
        indices: Tensor,
        weights: Tensor | None,
        is_hard: Tensor,
        cuts: Tensor,
        stage: int,
    ) -> list[int]:
        """Log the RoIs that a step trains on, and return the values of ``cuts``."""
        losses = (candidates.loss_cls + candidates.loss_box_reg)[indices].float()
        loss = (losses if weights is None else losses * weights).sum() / max(1, len(losses))
        sums = add_up(candidates, indices, is_hard)
        # One transfer from the GPU for all images, and for all that is logged.
        values = cat([cuts.to(sums.dtype), loss[None].to(sums.dtype), sums]).tolist()
        num_cuts = len(cuts)
        self._check.read_losses[stage] = values[num_cuts]
        metrics = self.metrics.setdefault(stage, MiningMetrics(on_console=False))
        metrics.add(values[num_cuts + 1 :], self.class_names)
        return [int(x) for x in values[:num_cuts]]
