"""Options of this project that change nothing, because of what another one or the model is."""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from detectron2.modeling.proposal_generator import RPN
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..config import BoxVotingOptions, IgnoreRegionsOptions
from ..errors import shown
from ..mining.samplers import MixedSampler, OHEMSampler, RandomSampler
from ..modeling.mixin import OHEMMixin
from ..modeling.ohem_dense import OHEMDenseMixin
from ..modeling.ohem_rpn import OHEMRPN

logger = logging.getLogger(__name__)

# What the forms of a config call them; what ends with a point is a node.
KEYS = {
    "heads": "MODEL.ROI_HEADS.",
    "rpn": "MODEL.RPN.",
    "dense": "MODEL.RETINANET.",
    "voting": "TEST.BOX_VOTING.",
    "regions": "INPUT.IGNORE_REGIONS.",
    "name": "MODEL.ROI_HEADS.NAME",
    "batch": "SOLVER.IMS_PER_BATCH",
    "nms": "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "proposals": "MODEL.RPN.POST_NMS_TOPK_TRAIN",
}
LAZY_KEYS = {
    "heads": "model.roi_heads.",
    "rpn": "model.proposal_generator.",
    "dense": "model.",
    "voting": "model.roi_heads.box_voting.",
    "regions": "train.ignore_regions.",
    "name": "model.roi_heads",
    "batch": "dataloader.train.total_batch_size",
    "nms": "model.roi_heads.box_predictor.test_nms_thresh",
    "proposals": "model.proposal_generator.post_nms_topk",
}
# Detectron2's own defaults.
_POSITIVE_FRACTION = {"heads": 0.25, "rpn": 0.5}
_NMS_THRESH_TEST = 0.5
_STAGES = "cascade_stages"
# Keys and values that change nothing, the key that is the reason, and what it is.
_Unread = tuple[dict[str, Any], str, str]


def warn_of_unread_options(
    model: nn.Module,
    keys: Mapping[str, str],
    voting: BoxVotingOptions | None = None,
    regions: IgnoreRegionsOptions | None = None,
    training: bool = True,
    images: int | None = None,
    given: Collection[str] = (),
) -> None:
    """
    Warn of options that are changed to no effect. Where the command line turns off what a config
    has, no more than that is meant.

    Args:
        model: any, also in DistributedDataParallel.
        keys: what the form of its config calls the settings: `KEYS` or `LAZY_KEYS`.
        voting: how boxes are to vote; None: as the heads have it.
        regions: what is to be ignored in training.
        training: whether it is to be trained, not only evaluated.
        images: how many of them each process trains on in a step. None: not known.
        given: the keys of the settings of the command line.
    """
    model = model.module if isinstance(model, DistributedDataParallel) else model
    names = _Names(keys)
    heads: Any = getattr(model, "roi_heads", None)
    found = [*_of_voting(heads, names, voting or getattr(heads, "box_voting", None))]
    if training:
        if not isinstance(model, OHEMDenseMixin):
            found += _of_regions(heads, names, regions)
        generator: Any = getattr(model, "proposal_generator", None)
        if isinstance(heads, OHEMMixin):
            found += _of_heads(heads, names, images)
            found += _of_candidates(heads, generator, names)
        if isinstance(generator, OHEMRPN):
            found += _of_sampler(generator, "rpn", names)
        if isinstance(model, OHEMDenseMixin):
            found += _of_dense(model, names)
    for unread, key, words in found:
        unread = {k: x for k, x in unread.items() if k in given or key not in given}
        if unread:
            changed = " and ".join(f"{k} is {shown(x)}" for k, x in unread.items())
            logger.warning(f"{changed}, to no effect: {key} is {words}")


class _Names:
    """The names of settings in a form of a config."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = keys

    def of(self, where: str, name: str = "") -> str:
        """That of a setting, in a node or by itself."""
        key = self.keys[where]
        return f"{key}{name.upper() if key.isupper() else name}"


def _changed(options: Any, names: Iterator[str] | Collection[str]) -> dict[str, Any]:
    """Those of the options that differ from their default."""
    defaults = {f.name: f.default for f in fields(options)}
    return {x: getattr(options, x) for x in names if getattr(options, x) != defaults[x]}


def _of_voting(heads: Any, names: _Names, voting: BoxVotingOptions | None) -> Iterator[_Unread]:
    if voting is None:
        return
    if not voting.rounds:
        changed = _changed(voting, ["nms_thresh", "vote_thresh"])
        unread = {names.of("voting", x): value for x, value in changed.items()}
        yield unread, names.of("voting", "rounds"), "0, expected 1 or more"
    elif (predictors := getattr(heads, "_predictors", None)) is not None:
        nms_thresh = getattr(predictors()[-1], "test_nms_thresh", _NMS_THRESH_TEST)
        if nms_thresh not in (_NMS_THRESH_TEST, voting.nms_thresh):
            words = f"{voting.rounds}, so {names.of('voting', 'nms_thresh')} is taken in its place"
            yield {names.of("nms"): nms_thresh}, names.of("voting", "rounds"), words


def _of_regions(
    heads: Any, names: _Names, regions: IgnoreRegionsOptions | None
) -> Iterator[_Unread]:
    if regions is not None and not regions.enabled and not isinstance(heads, OHEMMixin):
        words = f"{type(heads).__name__}, which ignores no regions anyway"
        yield {names.of("regions", "enabled"): False}, names.of("name"), words


def _of_heads(heads: OHEMMixin, names: _Names, images: int | None) -> Iterator[_Unread]:
    options = heads.ohem
    yield from _of_sampler(heads, "heads", names)
    if type(heads.sampler) not in (OHEMSampler, MixedSampler):
        return
    weights = ["loss_weight_cls", "loss_weight_box_reg"]
    changed = {names.of("heads", f"ohem.{x}"): v for x, v in _changed(options, weights).items()}
    of_cls, of_box = (names.of("heads", f"ohem.{x}") for x in weights)
    if options.loss_weight_box_reg == 0 and of_cls in changed:
        yield {of_cls: changed[of_cls]}, of_box, "0, so the order of RoIs is that of one loss"
    elif options.loss_weight_cls == 0 and of_box in changed:
        yield {of_box: changed[of_box]}, of_cls, "0, so the order of RoIs is that of one loss"
    elif options.loss_weight_cls == options.loss_weight_box_reg and changed:
        yield {of_cls: changed[of_cls]}, of_box, "the same, and only their ratio matters"
    if options.scope == "batch" and images == 1:
        words = "one image for each process, expected more"
        yield {names.of("heads", "ohem.scope"): "batch"}, names.of("batch"), words


def _of_sampler(part: Any, where: str, names: _Names) -> Iterator[_Unread]:
    """Of heads, or of an RPN."""
    sampler, options = part.sampler, part.ohem
    key = names.of(where, "ohem.sampler")
    # Which limit what is drawn, or draw once more, from that iteration on.
    begins_more = getattr(options, "max_candidates", 0) or getattr(options, _STAGES, (0,)) != (0,)
    if type(sampler) is RandomSampler and options.start_iter and not begins_more:
        words = f"{shown(options.sampler)}, which draws as before that iteration"
        yield {names.of(where, "ohem.start_iter"): options.start_iter}, key, words
    draws_nothing = _draws_nothing(sampler)
    # Before mining starts, and of the foreground for masks and keypoints, it is read.
    is_read = (
        options.start_iter
        or getattr(part, "mask_on", False)
        or getattr(part, "keypoint_on", False)
        or 0 not in getattr(options, _STAGES, (0,))
    )
    if draws_nothing and not is_read and part.positive_fraction != _POSITIVE_FRACTION[where]:
        words = shown(options.sampler)
        if getattr(options, "hard_fraction", None) == 1:
            key, words = names.of(where, "ohem.hard_fraction"), "1.0"
        unread = {names.of(where, "positive_fraction"): part.positive_fraction}
        yield unread, key, f"{words}, by which no RoIs or anchors are drawn at random"


def _draws_nothing(sampler: object) -> bool:
    """Whether all that it chooses are hard examples."""
    return type(sampler) is OHEMSampler or (
        type(sampler) is MixedSampler and sampler.hard_fraction == 1
    )


def _of_dense(model: OHEMDenseMixin, names: _Names) -> Iterator[_Unread]:
    if _draws_nothing(model.sampler):
        changed = _changed(model.ohem, ["positive_fraction"])
        unread = {names.of("dense", f"ohem.{x}"): value for x, value in changed.items()}
        is_of_fraction = model.ohem.hard_fraction == 1
        key = names.of("dense", f"ohem.{'hard_fraction' if is_of_fraction else 'sampler'}")
        words = "1.0" if is_of_fraction else shown(model.ohem.sampler)
        yield unread, key, f"{words}, by which no anchors are drawn at random"


def _of_candidates(heads: OHEMMixin, generator: Any, names: _Names) -> Iterator[_Unread]:
    if not isinstance(generator, RPN):
        return
    limit, most = heads.ohem.max_candidates, generator.post_nms_topk[True]
    # Objects are candidates as well, but no image has more of them than proposals.
    if limit >= most * (1 + heads.proposal_append_gt):
        yield (
            {names.of("heads", "ohem.max_candidates"): limit},
            names.of("proposals"),
            (f"{most}: there are fewer to choose among"),
        )
