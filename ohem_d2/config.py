"""Every setting of mining, its default and its range."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from detectron2.config import CfgNode

from .errors import InputError, shown


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# The range of each setting: a test, and its description.
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "sampler": (
        lambda v: bool(v) and (isinstance(v, (str, Mapping)) or callable(v)),
        "the name of a sampler, or in Python a class or a function",
    ),
    "nms_thresh": (lambda v: is_number(v) and v >= 0, "a number of 0 or more"),
    "scope": (lambda v: v in ("image", "batch"), "'image' or 'batch'"),
    "max_foreground_fraction": (
        lambda v: v is None or (is_number(v) and 0 <= v <= 1),
        "None or a number in [0, 1]",
    ),
    "hard_fraction": (lambda v: is_number(v) and 0 < v <= 1, "a number in (0, 1]"),
    "start_iter": (lambda v: type(v) is int and v >= 0, "an integer of 0 or more"),
    "batch_size_per_image": (lambda v: type(v) is int and v >= 1, "an integer of 1 or more"),
    "positive_fraction": (lambda v: is_number(v) and 0 <= v <= 1, "a number in [0, 1]"),
    "focal_loss": (lambda v: isinstance(v, bool), "True or False"),
    "bg_iou_lo": (lambda v: is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
    # Costs are in single precision, in half of it under AMP: larger weights would overflow.
    "loss_weight_cls": (lambda v: is_number(v) and 0 <= v <= 1000, "a number from 0 to 1000"),
    "loss_weight_box_reg": (lambda v: is_number(v) and 0 <= v <= 1000, "a number from 0 to 1000"),
    "max_candidates": (lambda v: type(v) is int and v >= 0, "an integer of 0 or more"),
    "cascade_stages": (
        lambda v: (
            isinstance(v, tuple)
            and bool(v)
            and all(type(s) is int and s >= 0 for s in v)
            and len({*v}) == len(v)
        ),
        "a tuple of at least one stage, counted from 0, and each once",
    ),
}


# Of box voting. Each costs as much as Detectron2's detection, and two are enough.
_MOST_ROUNDS = 100

# The options that are passed to the sampler, if it has a parameter of that name.
SAMPLER_OPTIONS = (
    "nms_thresh",
    "scope",
    "max_foreground_fraction",
    "hard_fraction",
    "loss_weight_cls",
    "loss_weight_box_reg",
    "positive_fraction",
)
# Old names of keys, by which Detectron2 means something else.
_RENAMED = {"positive_fraction": "max_foreground_fraction", "warmup_iters": "start_iter"}


@dataclass(frozen=True)
class OHEMOptions:
    """
    How RoIs are chosen. Each field is a key of ``MODEL.ROI_HEADS.OHEM``, in upper case.

    The number of RoIs is not among them: it is Detectron2's own
    ``MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE``.

    Raises:
        InputError: a value lies outside its range.
    """

    NODE: ClassVar[str] = "MODEL.ROI_HEADS.OHEM"

    # What chooses the RoIs: a name from `ohem_d2.SAMPLERS`, or "my_module.MySampler", see
    # `ohem_d2.modeling.build_sampler`. "MixedSampler": hard_fraction of the budget goes to hard
    # examples, and the rest is drawn as in Detectron2; "OHEMSampler": hard examples only, as in the
    # paper; "RandomSampler": Detectron2's sampling.
    sampler: str | Callable[..., Any] | Mapping[str, Any] = "MixedSampler"
    # If two RoIs of the same image and label overlap by a higher IoU, the one with the lower loss
    # is not a hard example (but it may be drawn). 1 or more: no suppression.
    nms_thresh: float = 0.7
    # "image": each image has its own budget for hard examples. "batch": the budgets of all images
    # together go to the RoIs with the highest loss in the whole batch (of this process).
    scope: str = "image"
    # None: loss alone decides, as in the paper. A number: at most this fraction of the budget for
    # hard examples goes to foreground, and foreground and background are ranked separately (as in
    # MMDetection, whose default is 0.25).
    max_foreground_fraction: float | None = None
    # The fraction of the budget that goes to hard examples (at least one). The rest is drawn at
    # random from the other RoIs of each image, duplicates among them, in Detectron2's ratio
    # (MODEL.ROI_HEADS.POSITIVE_FRACTION). The other options of the sampler do not apply to these.
    # The default comes from the study (docs/when_it_helps.md); 1.0 is the paper's rule.
    hard_fraction: float = 0.5
    # RoIs are ranked by loss_weight_cls * classification loss + loss_weight_box_reg * box loss.
    # They do not change the training loss. With loss_weight_box_reg 0, the probability of the true
    # class alone decides (with sigmoid losses: the classification loss).
    loss_weight_cls: float = 1.0
    loss_weight_box_reg: float = 1.0
    # The iteration at which mining starts. Before it, RoIs are sampled as in Detectron2, but
    # bg_iou_lo applies then too. SOLVER.REFERENCE_WORLD_SIZE does not rescale it.
    start_iter: int = 0
    # Background RoIs whose IoU with every object is lower than this are left out, whatever the
    # sampler. An image without objects keeps its background. 0.1 gives the range [0.1, 0.5) of Fast
    # R-CNN; in the paper, mining did better without it (0).
    bg_iou_lo: float = 0.0
    # The most RoIs of each image to choose among, whatever the sampler: foreground first, then
    # background, each at random. The others are not read, which saves time, and cannot be chosen.
    # 0: all of them, as in the paper.
    max_candidates: int = 0
    # The stages of Cascade R-CNN that mine, counted from 0 as in Detectron2's logs.
    cascade_stages: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if isinstance(self.cascade_stages, Sequence) and not isinstance(self.cascade_stages, str):
            # In Python configs it is a list of OmegaConf.
            object.__setattr__(self, "cascade_stages", tuple(self.cascade_stages))
        _check_ranges(self)
        if self.loss_weight_cls == 0 == self.loss_weight_box_reg:
            raise InputError(
                f"{config_key('loss_weight_cls')} and {config_key('loss_weight_box_reg')} "
                "are both 0, expected at least one above 0: nothing is left to rank by"
            )


@dataclass(frozen=True)
class OHEMRPNOptions:
    """
    How the anchors of an `OHEMRPN` are chosen. Each field is a key of ``MODEL.RPN.OHEM``, in upper
    case. Other settings of a sampler are arguments: ``"OHEMSampler(scope='batch')"``.

    The number of anchors is not among them: it is Detectron2's own
    ``MODEL.RPN.BATCH_SIZE_PER_IMAGE``.

    Raises:
        InputError: a value lies outside its range.
    """

    NODE: ClassVar[str] = "MODEL.RPN.OHEM"

    # As in `OHEMOptions`, of anchors, whose labels are object and background. What is drawn at
    # random is drawn in the ratio of MODEL.RPN.POSITIVE_FRACTION.
    sampler: str | Callable[..., Any] | Mapping[str, Any] = "MixedSampler"
    hard_fraction: float = 0.5
    nms_thresh: float = 0.7
    start_iter: int = 0

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class OHEMDenseOptions:
    """
    How the anchors of an `OHEMRetinaNet`, or the points of an `OHEMFCOS`, are chosen. Each field is
    a key of ``MODEL.RETINANET.OHEM``, in upper case; in a Python config, of ``model.ohem``. Other
    settings of a sampler are arguments: ``"OHEMSampler(max_foreground_fraction=0.25)"``.

    Raises:
        InputError: a value lies outside its range.
    """

    NODE: ClassVar[str] = "MODEL.RETINANET.OHEM"

    # As in `OHEMOptions`, of anchors or points.
    sampler: str | Callable[..., Any] | Mapping[str, Any] = "MixedSampler"
    hard_fraction: float = 0.5
    nms_thresh: float = 0.7
    # The budget: how many to train on per image. Detectron2 trains on all, so it has no such key.
    batch_size_per_image: int = 256
    # Of those that are drawn at random, at most this fraction is foreground.
    positive_fraction: float = 0.25
    # False: the classification loss of what is chosen is the cross entropy. True: it is the focal
    # loss, with Detectron2's own keys for gamma and alpha. Anchors are ranked by the same.
    focal_loss: bool = False
    # Before it, all anchors are trained on, with the focal loss, as in Detectron2.
    start_iter: int = 0

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class BoxVotingOptions:
    """
    How detections are refined at test time. Each field is a key of ``TEST.BOX_VOTING``, in upper
    case. See `ohem_d2.modeling.box_voting`.

    Raises:
        InputError: a value lies outside its range.
    """

    # How often boxes are scored and refined before they vote. 0: off, Detectron2's own inference;
    # 1: voting alone; 2: detections are scored and refined once more, as in the paper.
    rounds: int = 0
    # If two detections of a class overlap by a higher IoU, the one with the lower score is dropped.
    nms_thresh: float = 0.3
    # A box has a vote on the position of a detection of its class if their IoU is this or more.
    vote_thresh: float = 0.5

    def __post_init__(self) -> None:
        if type(self.rounds) is not int or not 0 <= self.rounds <= _MOST_ROUNDS:
            raise InputError(
                f"TEST.BOX_VOTING.ROUNDS is {self.rounds!r}, expected an integer from 0 to "
                f"{_MOST_ROUNDS}"
            )
        for name in ("nms_thresh", "vote_thresh"):
            value = getattr(self, name)
            # With a threshold of 0, boxes that are nowhere near would vote.
            is_above = name == "nms_thresh" or value != 0
            if not (is_number(value) and 0 <= value <= 1 and is_above):
                expected = "in [0, 1]" if name == "nms_thresh" else "above 0, of 1 at most"
                raise InputError(
                    f"TEST.BOX_VOTING.{name.upper()} is {value!r}, expected a number {expected}"
                )


@dataclass(frozen=True)
class IgnoreRegionsOptions:
    """
    Which annotations are regions to ignore. Each field is a key of ``INPUT.IGNORE_REGIONS``, in
    upper case; in a Python config, of ``train.ignore_regions``. See
    `ohem_d2.modeling.ignore_regions`.

    Raises:
        InputError: a value is neither True nor False.
    """

    # Whether what lies in a region is left out. The regions are the annotations that are marked as
    # crowds (iscrowd: 1, COCO) or to be ignored (ignore: 1, any format). False: it is background,
    # as in Detectron2.
    enabled: bool = True
    # Whether objects that are marked as difficult (PASCAL VOC) are regions to ignore too. False:
    # they are objects to train on, as in Detectron2.
    difficult: bool = False

    def __post_init__(self) -> None:
        for name in ("enabled", "difficult"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise InputError(
                    f"INPUT.IGNORE_REGIONS.{name.upper()} is {value!r}, expected True or False"
                )


MiningOptions = OHEMOptions | OHEMRPNOptions | OHEMDenseOptions


def _check_ranges(options: MiningOptions) -> None:
    for field in fields(options):
        key = config_key(field.name, options.NODE)
        check_range(field.name, getattr(options, field.name), f"{key} is")


def check_range(option: str, value: Any, words: str) -> None:
    """
    Check the value of an option of mining.

    Args:
        option: its name, as in `OHEMOptions`.
        value: any.
        words: what comes before the value in the error.

    Raises:
        InputError: it lies outside its range.
    """
    is_valid, expected = _RANGES[option]
    if not is_valid(value):
        raise InputError(f"{words} {shown(value)}, expected {expected}")


def check_start_iter(options: MiningOptions, key: str, max_iter: int) -> None:
    """
    Check that mining starts before the training ends.

    Args:
        options: those of mining.
        key: the name of ``start_iter`` in the config.
        max_iter: the number of iterations of the training.

    Raises:
        InputError: it does not.
    """
    if 0 < options.start_iter >= max_iter:
        raise InputError(
            f"{key} is {options.start_iter}, expected less than {max_iter}, the number of "
            "iterations of the training: nothing would be mined"
        )


_Mining = TypeVar("_Mining", bound=MiningOptions)
_Options = TypeVar("_Options", bound=MiningOptions | BoxVotingOptions | IgnoreRegionsOptions)


def config_key(option: str, node: str = OHEMOptions.NODE) -> str:
    """The name of an option in a Detectron2 config."""
    return f"{node}.{option.upper()}"


def add_ohem_config(cfg: CfgNode) -> None:
    """
    Add the keys ``MODEL.ROI_HEADS.OHEM``, ``MODEL.RPN.OHEM``, ``MODEL.RETINANET.OHEM``,
    ``TEST.BOX_VOTING``, ``INPUT.IGNORE_REGIONS``, ``INPUT.VALID_RANGES``,
    ``DATASETS.UNREADABLE_IMAGES`` and ``MODEL.TIMM`` to a Detectron2 config, at their defaults.
    Keys that are there already keep their values.

    This is only needed to set them: without the keys, what mines uses the defaults.

    Raises:
        InputError: one of the first five has a value, where keys below it are expected.
    """
    for name, node, key, options in (
        ("MODEL.ROI_HEADS", cfg.MODEL.ROI_HEADS, "OHEM", OHEMOptions),
        ("MODEL.RPN", cfg.MODEL.RPN, "OHEM", OHEMRPNOptions),
        ("MODEL.RETINANET", cfg.MODEL.RETINANET, "OHEM", OHEMDenseOptions),
        ("TEST", cfg.TEST, "BOX_VOTING", BoxVotingOptions),
        ("INPUT", cfg.INPUT, "IGNORE_REGIONS", IgnoreRegionsOptions),
    ):
        given = node.get(key, {})
        if not isinstance(given, Mapping):
            raise _no_node(f"{name}.{key}", given, options)
        node[key] = type(cfg)({**{f.name.upper(): f.default for f in fields(options)}, **given})
    # At each scale, the sizes of the objects that count. None: all of them count at every scale.
    cfg.INPUT.setdefault("VALID_RANGES", ())
    # What becomes of images that cannot be read, in data sets by address: "error" stops before a
    # training and names them; "skip" leaves them out, and says how many.
    cfg.DATASETS.setdefault("UNREADABLE_IMAGES", "error")
    # The model of timm that build_timm_fpn_backbone takes, such as "tf_efficientnet_lite0".
    cfg.MODEL.setdefault("TIMM", type(cfg)({"NAME": ""}))
    for old, new in _RENAMED.items():
        if not cfg.key_is_renamed(config_key(old)):
            cfg.register_renamed_key(config_key(old), config_key(new))


def _no_node(key: str, value: object, options: type) -> InputError:
    names = ", ".join(f.name.upper() for f in fields(options))
    return InputError(f"{key} is {value!r}, expected keys below it: {names}")


def ohem_options(cfg: CfgNode | None) -> OHEMOptions:
    """
    The options of mining in a config; without a config, the defaults.

    Raises:
        InputError: a value lies outside its range, or a key is unknown.
    """
    return _of_node(OHEMOptions, {} if cfg is None else cfg.MODEL.ROI_HEADS.get("OHEM", {}))


def ohem_rpn_options(cfg: CfgNode) -> OHEMRPNOptions:
    """
    The options of mining among the anchors of a config.

    Raises:
        InputError: a value lies outside its range, or a key is unknown.
    """
    return _of_node(OHEMRPNOptions, cfg.MODEL.RPN.get("OHEM", {}))


def ohem_dense_options(cfg: CfgNode) -> OHEMDenseOptions:
    """
    The options of mining among the anchors of a one-stage detector of a config.

    Raises:
        InputError: a value lies outside its range, or a key is unknown.
    """
    return _of_node(OHEMDenseOptions, cfg.MODEL.RETINANET.get("OHEM", {}))


def base_architecture(cfg: CfgNode) -> str:
    """
    The name of a config's architecture or, if it is one that mines, of Detectron2's that it
    extends: ``"RetinaNet"`` for ``"OHEMRetinaNet"``.
    """
    name: str = cfg.MODEL.META_ARCHITECTURE
    return name.removeprefix("OHEM")


def _of_node(kind: type[_Mining], node: Any) -> _Mining:
    if not isinstance(node, Mapping):
        raise _no_node(kind.NODE, node, kind)
    return options_by_name(kind, node, of_config=f"{kind.NODE}.")


def box_voting_options(cfg: CfgNode | None) -> BoxVotingOptions:
    """
    The options of box voting in a config; without a config, the defaults.

    Raises:
        InputError: a value lies outside its range, or a key is unknown.
    """
    node = {} if cfg is None else cfg.TEST.get("BOX_VOTING", {})
    return options_by_name(BoxVotingOptions, node, of_config="TEST.BOX_VOTING.")


def ignore_regions_options(cfg: CfgNode | None) -> IgnoreRegionsOptions:
    """
    Which annotations of a config's data are regions to ignore; without a config, the defaults.

    Raises:
        InputError: a value is neither True nor False, or a key is unknown.
    """
    node = {} if cfg is None else cfg.INPUT.get("IGNORE_REGIONS", {})
    return options_by_name(IgnoreRegionsOptions, node, of_config="INPUT.IGNORE_REGIONS.")


def options_by_name(
    kind: type[_Options], values: Mapping[str, Any], of_config: str = "", name: str = "ohem"
) -> _Options:
    """
    Build options from those that differ from their default.

    Args:
        kind: the class of the options.
        values: the values, by the names of its fields.
        of_config: if the values are from a YAML config, what its keys begin with. Their names are
            in upper case then.
        name: of the argument that the values were given as, if they are not.

    Raises:
        InputError: a value lies outside its range, or a name is unknown.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"{of_config.rstrip('.') or name} is {shown(values)}, expected options by name, such "
            f"as dict({fields(kind)[0].name}=...)"
        )
    known = {f.name.upper() if of_config else f.name: f.name for f in fields(kind)}
    for key in values:
        if kind is OHEMOptions and (new := _RENAMED.get(key.lower())):
            new = f"{of_config}{new.upper() if of_config else new}"
            # In the words of yacs, which refuses it where `add_ohem_config` was called.
            raise InputError(
                f"Key {of_config}{key} was renamed to {new}; please update your config."
            )
        if key not in known:
            raise InputError(f"{of_config}{key} is unknown, expected one of {', '.join(known)}")
    return kind(**{known[key]: value for key, value in values.items()})
