"""Settings that nothing looks at, because another one says so."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode, get_cfg

from ..errors import shown

logger = logging.getLogger(__name__)


class _Switch(NamedTuple):
    """What has to be so that some keys are read."""

    key: str
    value: Any
    # What these keys begin with.
    read: tuple[str, ...]
    training: bool  # whether they are of a training alone


_SWITCHES = (
    _Switch("MODEL.LOAD_PROPOSALS", True, ("DATASETS.PROPOSAL_FILES_TEST",), False),
    _Switch("MODEL.LOAD_PROPOSALS", True, ("DATASETS.PROPOSAL_FILES_TRAIN",), True),
    _Switch("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler",
            ("DATALOADER.REPEAT_THRESHOLD", "DATALOADER.REPEAT_SQRT"), True),
    _Switch("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True, ("MODEL.ROI_BOX_HEAD.FED_LOSS_",), True),
    _Switch("INPUT.CROP.ENABLED", True, ("INPUT.CROP.",), True),
    _Switch("SOLVER.CLIP_GRADIENTS.ENABLED", True, ("SOLVER.CLIP_GRADIENTS.",), True),
    _Switch("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", ("SOLVER.BASE_LR_END",), True),
    _Switch("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR", ("SOLVER.NUM_DECAYS",), True),
    _Switch("TEST.AUG.ENABLED", True, ("TEST.AUG.",), False),
    _Switch("TEST.PRECISE_BN.ENABLED", True, ("TEST.PRECISE_BN.",), True),
)  # fmt: skip


def warn_of_unread_keys(cfg: CfgNode, training: bool, opts: Sequence[str] = ()) -> None:
    """
    Warn of keys that were changed, but that Detectron2 does not read for another one. Where the
    command line turns off what a config has, no more than that is meant.

    Args:
        cfg: a YAML config.
        training: whether it is to be trained, not only evaluated.
        opts: the settings of the command line, keys and values in turn.
    """
    defaults, given = get_cfg(), {*opts[::2]}
    for switch in _SWITCHES:
        found = _at(cfg, switch.key)
        if found == switch.value or (switch.training and not training):
            continue
        changed = [
            f"{key} is {shown(value)}"
            for key, value in _below(cfg, switch.read)
            if key != switch.key
            and value != _at(defaults, key)
            and (key in given or switch.key not in given)
        ]
        if changed:
            logger.warning(
                f"{' and '.join(changed)}, but nothing reads it: {switch.key} is {shown(found)}, "
                f"expected {switch.value!r}"
            )
    loader = cfg.DATALOADER
    if (
        training
        and loader.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
        and loader.REPEAT_THRESHOLD == 0
    ):
        logger.warning(
            "DATALOADER.REPEAT_THRESHOLD is 0.0, so DATALOADER.SAMPLER_TRAIN, which is "
            "'RepeatFactorTrainingSampler', repeats no image: expected the part of all images that "
            "have a class, below which it is repeated, such as 0.001"
        )


def _at(cfg: CfgNode, key: str) -> Any:
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _below(cfg: CfgNode, prefixes: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The keys that Detectron2 has below them, and their values."""
    for prefix in prefixes:
        node = prefix.rpartition(".")[0]
        for name in _at(get_cfg(), node):
            if (key := f"{node}.{name}").startswith(prefix):
                yield key, _at(cfg, key)
