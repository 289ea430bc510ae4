"""Mining in Detectron2's Python configs (LazyConfig)."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from types import NoneType

from detectron2.utils.registry import locate
from omegaconf import DictConfig

from ..config import BoxVotingOptions, OHEMOptions, options_by_name
from ..errors import InputError, shown
from .mixin import OHEMMixin
from .roi_heads import OHEMCascadeROIHeads, OHEMRes5ROIHeads, OHEMROIHeads, OHEMRROIHeads

# The head that each mining head extends -> the mining head.
COUNTERPARTS = {
    head.__bases__[1]: head
    for head in (OHEMROIHeads, OHEMRes5ROIHeads, OHEMCascadeROIHeads, OHEMRROIHeads)
}


def with_ohem(roi_heads: DictConfig, **options: object) -> DictConfig:
    """
    Turn the RoI heads of a Python config into their mining counterpart::

        model.roi_heads = with_ohem(model.roi_heads, nms_thresh=0.6)
        model.roi_heads = with_ohem(model.roi_heads, sampler="my_module.MySampler")
        model.roi_heads = with_ohem(model.roi_heads, sampler=L(MySampler)(num_bins=3))

    Args:
        roi_heads: the node ``model.roi_heads``.
        options: those of `OHEMOptions` that are to differ from their default, or from what a
            mining head has already. Afterwards they can be set as
            ``model.roi_heads.ohem.nms_thresh`` and so on, and those of `BoxVotingOptions` as
            ``model.roi_heads.box_voting.rounds`` and so on.

    Returns:
        a new node, with the arguments of the one given.

    Raises:
        InputError: there is no mining head that extends this one, or an option is wrong.
    """
    if not isinstance(roi_heads, Mapping | DictConfig):
        raise InputError(
            f"with_ohem was given {shown(roi_heads)}, expected the node model.roi_heads of a "
            "Python config"
        )
    if "roi_heads" in roi_heads:
        raise InputError("with_ohem was given a whole model, expected its node model.roi_heads")
    target = roi_heads["_target_"]
    target = locate(target) if isinstance(target, str) else target
    if not issubclass(target, OHEMMixin):
        if target not in COUNTERPARTS:
            raise InputError(
                f"there is no mining head for {target.__name__}, expected one of "
                f"{', '.join(base.__name__ for base in COUNTERPARTS)}, or a class that extends "
                "OHEMMixin"
            )
        target = COUNTERPARTS[target]
    mining = copy.deepcopy(roi_heads)
    mining["_target_"] = target
    if inspect.isclass(sampler := options.get("sampler")):
        # OmegaConf would take a dataclass for a schema.
        options["sampler"] = f"{sampler.__module__}.{sampler.__qualname__}"
    elif not isinstance(sampler, (str, Mapping, NoneType)):
        raise InputError(
            f"with_ohem was given the sampler {sampler!r}, expected a name, a class, or "
            "L(MySampler)(...): a Python config holds what is to be built, not what was built"
        )
    for key, kind, given in (("ohem", OHEMOptions, options), ("box_voting", BoxVotingOptions, {})):
        before = {k: v for k, v in mining.get(key, {}).items() if k != "_target_"}
        mining[key] = asdict(options_by_name(kind, {**before, **given}))
    return mining
