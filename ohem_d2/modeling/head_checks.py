"""Whether a mining head fits the heads that it extends, and its config."""

import logging
from collections.abc import Mapping

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, ROIHeads
from detectron2.structures import Instances
from torch import nn

from ..config import OHEMOptions, config_key
from ..errors import InputError
from .box_branch import BoxBranchMixin, own_names

logger = logging.getLogger(__name__)


def check_class(cls: type[BoxBranchMixin], mixin: type) -> None:
    """
    Check the base classes of a mining head, and the methods that it has of its own.

    Args:
        cls: the class.
        mixin: `OHEMMixin`.

    Raises:
        TypeError: the base classes come in the wrong order, or need another mining head.
    """
    heads = [c for c in cls.__mro__ if issubclass(c, ROIHeads) and not issubclass(c, mixin)]
    if heads and cls.__mro__.index(heads[0]) < cls.__mro__.index(mixin):
        raise TypeError(
            f"class {cls.__name__} names {heads[0].__name__} before OHEMMixin, expected "
            f"class {cls.__name__}(OHEMMixin, {heads[0].__name__})"
        )
    own = own_names(cls.__mro__)
    if "_forward_box" in own and "read_boxes" not in own:
        logger.warning(
            f"class {cls.__name__} has a _forward_box of its own, and no read_boxes: if "
            "_forward_box changes the features of a RoI, read_boxes has to do the same"
        )
    for base in (Res5ROIHeads, CascadeROIHeads):
        if issubclass(cls, base) and cls.read_boxes is BoxBranchMixin.read_boxes:
            raise TypeError(
                f"class {cls.__name__} is based on {base.__name__}, which has another box "
                f"branch, expected class {cls.__name__}(OHEM{base.__name__}, "
                f"{heads[0].__name__}), or a method read_boxes"
            )


def check_arguments(cls: type, kind: str, arguments: Mapping) -> None:
    """
    Check the arguments of a Python config.

    Args:
        cls: the class of the heads.
        kind: the name of that of the mining heads which it is, or is derived from.
        arguments: those that it is built with, by name.

    Raises:
        InputError: they are those of other heads.
    """
    if "box_heads" in arguments:
        found, expected = "has 'box_heads'", ["OHEMCascadeROIHeads"]
    elif "res5" in arguments:
        found, expected = "has 'res5'", ["OHEMRes5ROIHeads"]
    else:
        found, expected = "has neither 'res5' nor 'box_heads'", ["OHEMROIHeads"]
        if kind == "OHEMRROIHeads":  # which takes the same arguments
            expected.append(kind)
    if kind not in expected:
        raise _other_heads("model.roi_heads", cls, found, expected)


def check_config(cls: type, kind: str, cfg: CfgNode, warns: bool) -> None:
    """
    Check a YAML config.

    Args:
        cls: the class of the heads.
        kind: the name of that of the mining heads which it is, or is derived from.
        cfg: the config that it is built from.
        warns: whether to warn of what may be the config of other heads.

    Raises:
        InputError: it is that of other heads.
    """
    box_head = cfg.MODEL.ROI_BOX_HEAD
    found, expected = f"NAME is {box_head.NAME}", ["OHEMROIHeads"]
    if not box_head.NAME:
        found, expected = "NAME is empty, as for C4 models", ["OHEMRes5ROIHeads"]
    elif box_head.POOLER_TYPE == "ROIAlignRotated":
        found, expected = "POOLER_TYPE is ROIAlignRotated", ["OHEMRROIHeads"]
    elif box_head.CLS_AGNOSTIC_BBOX_REG:
        expected.append("OHEMCascadeROIHeads")
    elif kind == "OHEMCascadeROIHeads":
        found = "CLS_AGNOSTIC_BBOX_REG is False"
    found = f"MODEL.ROI_BOX_HEAD.{found}"
    if kind == "OHEMCascadeROIHeads":
        found = f"this is not the config of a Cascade R-CNN ({found})"
    if kind not in expected:
        raise _other_heads("MODEL.ROI_HEADS.NAME", cls, found, expected)
    if warns and kind == "OHEMROIHeads" and "OHEMCascadeROIHeads" in expected:
        # All that a cascade's config has and another's has not; some others have it too.
        logger.warning(
            f"MODEL.ROI_HEADS.NAME is {cls.__name__}, and MODEL.ROI_BOX_HEAD."
            "CLS_AGNOSTIC_BBOX_REG is True: if this is the config of a cascade, it needs "
            "OHEMCascadeROIHeads, and is now trained with one stage only"
        )


def check_classes_of_heads(heads: nn.Module) -> None:
    """
    Check that all parts of heads have as many classes: a Python config has a number for each.

    Args:
        heads: RoI heads, with mining or without.

    Raises:
        InputError: some have not, so that a class would be another's, or background.
    """
    expected = getattr(heads, "num_classes", None)
    numbers = {name: getattr(x, "num_classes", None) for name, x in heads.named_modules() if name}
    mask_predictor = getattr(getattr(heads, "mask_head", None), "predictor", None)
    num_masks = getattr(mask_predictor, "out_channels", 1)
    if num_masks != 1:  # which is for all classes together
        numbers["mask_head"] = num_masks
    if expected is None:  # as of what wraps other heads, whose parts have to be the same
        expected = next((x for x in numbers.values() if isinstance(x, int)), None)
    for name, number in numbers.items():
        if isinstance(number, int) and number != expected:
            raise InputError(
                f"num_classes of roi_heads.{name} is {number}, expected {expected}, as of roi_heads"
            )


def check_objects(targets: list[Instances], num_classes: int) -> None:
    """
    Check that the classes of objects are those of the model: others would be taken for background.

    Args:
        targets: the objects of each image.
        num_classes: of the model.

    Raises:
        InputError: one is not.
    """
    for x in targets:
        if not len(x) or not x.has("gt_classes"):
            continue
        least, most = (int(y) for y in x.gt_classes.aminmax())
        if least < 0 or most >= num_classes:
            raise InputError(
                f"gt_classes of an object is {least if least < 0 else most}, expected 0 to "
                f"{num_classes - 1}, as the model has {num_classes} classes"
            )


def check_stages(heads: ROIHeads, options: OHEMOptions) -> None:
    """
    Check that options of a cascade are those of a cascade, and of stages that it has.

    Args:
        heads: mining heads.
        options: theirs.

    Raises:
        InputError: they are not.
    """
    default = OHEMOptions().cascade_stages
    if isinstance(heads, CascadeROIHeads):
        number = heads.num_cascade_stages
        if max(options.cascade_stages) >= number:
            raise InputError(
                f"{config_key('cascade_stages')} is {options.cascade_stages}, expected stages from "
                f"0 to {number - 1}"
            )
        for stage in options.cascade_stages:
            lowest = heads.proposal_matchers[stage].thresholds[1]
            if stage > 0 and options.bg_iou_lo >= lowest:
                raise InputError(
                    f"{config_key('bg_iou_lo')} is {options.bg_iou_lo}, expected less than "
                    f"{lowest}, that of stage {stage} in MODEL.ROI_BOX_CASCADE_HEAD.IOUS: no "
                    "background would be left"
                )
        return
    if options.cascade_stages != default:
        raise InputError(
            f"{config_key('cascade_stages')} is {options.cascade_stages}, expected {default}, the "
            f"default: {type(heads).__name__} is not a cascade, whose stages these are"
        )


def _other_heads(key: str, cls: type, found: str, expected: list[str]) -> InputError:
    return InputError(f"{key} is {cls.__name__}, but {found}: expected {' or '.join(expected)}")
