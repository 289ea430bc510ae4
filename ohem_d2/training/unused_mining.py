"""Settings of mining that change nothing, since what they are for does not mine."""

import logging
from dataclasses import fields

from detectron2.config import CfgNode
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)

from ..config import (
    MiningOptions,
    base_architecture,
    config_key,
    ohem_dense_options,
    ohem_options,
    ohem_rpn_options,
)
from ..errors import shown
from ..modeling.mixin import OHEMMixin
from ..modeling.ohem_dense import OHEMDenseMixin
from ..modeling.ohem_rpn import OHEMRPN
from .key_checks import WITHOUT_ROI_HEADS
from .key_rules import extends

logger = logging.getLogger(__name__)


def warn_of_unused_mining(cfg: CfgNode) -> None:
    """Warn if settings of mining are changed, but the heads, or the RPN, of a model do not mine."""
    name, architecture = cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.META_ARCHITECTURE
    has_heads = base_architecture(cfg) not in WITHOUT_ROI_HEADS
    if not (has_heads and extends(ROI_HEADS_REGISTRY, name, OHEMMixin)):
        heads = f"MODEL.ROI_HEADS.NAME is {name!r}, expected one that mines, such as OHEMROIHeads"
        if not has_heads:
            heads = f"MODEL.META_ARCHITECTURE is {architecture!r}, which has no RoI heads"
        _warn_of_unused(ohem_options(cfg), heads)
    generator = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    has_rpn = has_heads or architecture == "ProposalNetwork"
    if not (has_rpn and extends(PROPOSAL_GENERATOR_REGISTRY, generator, OHEMRPN)):
        words = f"MODEL.PROPOSAL_GENERATOR.NAME is {generator!r}, expected OHEMRPN"
        if not has_rpn:
            words = f"MODEL.META_ARCHITECTURE is {architecture!r}, which has no RPN"
        _warn_of_unused(ohem_rpn_options(cfg), words)
    if not extends(META_ARCH_REGISTRY, architecture, OHEMDenseMixin):
        words = f"MODEL.META_ARCHITECTURE is {architecture!r}, expected OHEMRetinaNet"
        _warn_of_unused(ohem_dense_options(cfg), words)


def _warn_of_unused(options: MiningOptions, reason: str) -> None:
    changed = [
        f"{config_key(f.name, options.NODE)} is {shown(getattr(options, f.name))}"
        for f in fields(options)
        if getattr(options, f.name) != f.default
    ]
    if changed:
        logger.warning(f"{' and '.join(changed)}, but nothing is mined: {reason}")
