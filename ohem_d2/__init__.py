"""Online hard example mining for Detectron2."""

from . import libraries  # noqa: F401  (first: it tells what is wrong with the environment)
from .config import (
    BoxVotingOptions,
    IgnoreRegionsOptions,
    OHEMDenseOptions,
    OHEMOptions,
    OHEMRPNOptions,
    add_ohem_config,
)
from .data import register_datasets
from .mining.candidates import Candidates, Selection
from .mining.losses import losses_per_roi
from .mining.samplers import (
    SAMPLERS,
    MixedSampler,
    OHEMSampler,
    RandomSampler,
    SharedSampler,
)
from .mining.select import select_hard_examples
from .modeling import timm_backbone, vgg  # noqa: F401  (registers backbones and a box head)
from .modeling.ignore_regions import GroundTruth
from .modeling.ignore_rpn import IgnoreRegionsMixin, IgnoreRPN, IgnoreRRPN
from .modeling.lazy import with_ohem
from .modeling.mixin import OHEMMixin
from .modeling.ohem_dense import OHEMFCOS, OHEMRetinaNet
from .modeling.ohem_rpn import OHEMRPN
from .modeling.roi_heads import (
    OHEMCascadeROIHeads,
    OHEMRes5ROIHeads,
    OHEMROIHeads,
    OHEMRROIHeads,
)
from .training.ignore_regions import IgnoreMapper

__version__ = "0.1.0"
__all__ = [
    "OHEMFCOS",
    "OHEMRPN",
    "SAMPLERS",
    "BoxVotingOptions",
    "Candidates",
    "GroundTruth",
    "IgnoreMapper",
    "IgnoreRPN",
    "IgnoreRRPN",
    "IgnoreRegionsMixin",
    "IgnoreRegionsOptions",
    "MixedSampler",
    "OHEMCascadeROIHeads",
    "OHEMDenseOptions",
    "OHEMMixin",
    "OHEMOptions",
    "OHEMROIHeads",
    "OHEMRPNOptions",
    "OHEMRROIHeads",
    "OHEMRes5ROIHeads",
    "OHEMRetinaNet",
    "OHEMSampler",
    "RandomSampler",
    "Selection",
    "SharedSampler",
    "add_ohem_config",
    "losses_per_roi",
    "register_datasets",
    "select_hard_examples",
    "with_ohem",
]
