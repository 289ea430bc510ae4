"""Regions to ignore, and valid ranges: from annotations to the models that are trained."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_instance_annotations
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from detectron2.structures import Boxes
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ..config import (
    IgnoreRegionsOptions,
    base_architecture,
    ignore_regions_options,
    options_by_name,
)
from ..errors import InputError
from ..modeling.ignore_regions import GroundTruth
from ..modeling.ignore_rpn import COUNTERPARTS, IgnoreRegionsMixin
from ..modeling.mixin import OHEMMixin
from ..modeling.ohem_dense import OHEMDenseMixin
from ..modeling.valid_ranges import (
    ValidRange,
    ValidSizes,
    are_valid,
    as_valid_ranges,
    check_no_other_scales,
    ranges_of_scales,
    sizes_at,
    valid_ranges,
)
from .key_checks import WITHOUT_ROI_HEADS, is_augmentable
from .key_rules import extends
from .valid_ranges import lazy_valid_ranges, log_valid_objects

logger = logging.getLogger(__name__)

# What marks an annotation as a region to ignore. Those that are no crowds for Detectron2 would be
# objects to train on; the last one marks regions only if it is to.
_MARKS = ("iscrowd", "ignore", "difficult")
_BY_NAME = {x.__name__: new.__name__ for x, new in COUNTERPARTS.items()}


def is_region(annotation: Mapping, ignore_difficult: bool = False) -> bool:
    """
    Tell whether an annotation is a region to ignore.

    Args:
        annotation: in Detectron2's form.
        ignore_difficult: whether difficult objects are regions, too.
    """
    marks = _MARKS if ignore_difficult else _MARKS[:-1]
    return any(annotation.get(x, 0) for x in marks)


class IgnoreMapper(DatasetMapper):
    """
    Detectron2's `DatasetMapper`, which keeps the regions to ignore of an image that has any: its
    ``instances`` are a `GroundTruth` then. Their boxes go through the same augmentations as those
    of objects. An image without regions comes out as from Detectron2's, bit by bit.

    With valid ranges, objects that do not count at the scale of an image are none of its
    ``instances``, but of their ``valid.invalid_objects``.
    """

    @configurable
    def __init__(
        self, *args, ignore_difficult: bool = False, valid_ranges: Sequence = (), **kwargs
    ) -> None:
        """
        Args:
            args: those of `DatasetMapper`.
            ignore_difficult: whether difficult objects (PASCAL VOC) are regions to ignore, too.
            valid_ranges: as ``INPUT.VALID_RANGES``, for each scale of the augmentations, a
                `ResizeShortestEdge` that chooses among them.
            kwargs: those of `DatasetMapper`.

        Raises:
            InputError: there is no range for a scale, or no scale for a range, or what resizes
                images is another class.
        """
        super().__init__(*args, **kwargs)
        self.ignore_difficult = ignore_difficult
        self.valid_ranges = as_valid_ranges(valid_ranges)
        if self.valid_ranges:
            resize = [x for x in self.augmentations.augs if isinstance(x, T.ResizeShortestEdge)]
            if len(resize) != 1 or (resize[0].is_range and len({*resize[0].short_edge_length}) > 1):
                raise InputError(
                    "INPUT.VALID_RANGES is set, but images are resized by "
                    f"{self.augmentations.augs}, expected one ResizeShortestEdge, whose "
                    "sample_style is 'choice'"
                )
            self.max_size: int = resize[0].max_size
            edges, where = resize[0].short_edge_length, "the augmentations"
            self.valid_ranges = ranges_of_scales(self.valid_ranges, edges, where)
            check_no_other_scales(as_valid_ranges(valid_ranges), edges, where)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """See Detectron2's `configurable`."""
        difficult = ignore_regions_options(cfg).difficult
        ranges = _ranges_to_train_at(cfg) if is_train else ()
        of_regions = {"ignore_difficult": difficult, "valid_ranges": ranges}
        return {**super().from_config(cfg, is_train), **of_regions}

    def _transform_annotations(self, dataset_dict, transforms, image_shape) -> None:
        regions: list[dict] = []
        objects: list[dict] = []
        for annotation in dataset_dict["annotations"]:
            is_one = is_region(annotation, self.ignore_difficult)
            (regions if is_one else objects).append(annotation)
        dataset_dict["annotations"] = objects
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        if regions or self.valid_ranges:
            boxes = [{x: a[x] for x in ("bbox", "bbox_mode")} for a in regions]
            boxes = [transform_instance_annotations(a, transforms, image_shape) for a in boxes]
            inside = Boxes(np.array([a["bbox"] for a in boxes]).reshape(-1, 4))
            instances, valid = dataset_dict["instances"], None
            if self.valid_ranges:
                sizes = sizes_at(self.valid_ranges, self.max_size, transforms)
                counts = are_valid(instances.gt_boxes, *sizes)
                valid = ValidSizes(*sizes, instances.gt_boxes[~counts])
                instances = instances[counts]
            dataset_dict["instances"] = GroundTruth(
                instances.image_size, inside[inside.nonempty()], valid, **instances.get_fields()
            )


def _ranges_to_train_at(cfg: CfgNode) -> tuple[ValidRange, ...]:
    """Those of a YAML config, without those of scales of the test-time augmentation alone."""
    key = "INPUT.MIN_SIZE_TRAIN"
    return ranges_of_scales(valid_ranges(cfg), cfg.INPUT.MIN_SIZE_TRAIN, key)


def ignores_regions(cfg: CfgNode) -> bool:
    """Whether the model of a YAML config leaves out what lies in regions to ignore."""
    mines = _mines_densely(cfg) or extends(ROI_HEADS_REGISTRY, cfg.MODEL.ROI_HEADS.NAME, OHEMMixin)
    return mines and ignore_regions_options(cfg).enabled


def _mines_densely(cfg: CfgNode) -> bool:
    """Whether it has one stage, without an RPN."""
    return extends(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, OHEMDenseMixin)


def use_ignore_rpn(cfg: CfgNode) -> CfgNode:
    """
    Make the RPN of a YAML config one that learns nothing from regions to ignore, if its training
    sets have any, or if there are valid ranges.

    Args:
        cfg: a config, with its data sets registered.

    Returns:
        the config itself, or a frozen copy.

    Raises:
        InputError: difficult objects, or those of some sizes, are to be ignored, but the heads do
            not know how.
    """
    options, ranges = ignore_regions_options(cfg), _ranges_to_train_at(cfg)
    ignores = ignores_regions(cfg)
    for is_set, words, off, mines in (
        (options.difficult, "INPUT.IGNORE_REGIONS.DIFFICULT is True", "False", ignores),
        (ranges, "INPUT.VALID_RANGES is set", "()", ignores and not _mines_densely(cfg)),
    ):
        if is_set and not mines:
            architecture = cfg.MODEL.META_ARCHITECTURE
            other = "a mining head such as OHEMROIHeads"
            found = f"MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME}, which ignores no regions"
            if base_architecture(cfg) in WITHOUT_ROI_HEADS:
                found = f"MODEL.META_ARCHITECTURE is {architecture}, which ignores no regions"
                other = f"a model of two stages with {other}"
                if architecture == "RetinaNet" and not ranges:
                    other = "OHEMRetinaNet"
            if _mines_densely(cfg):
                found = f"MODEL.META_ARCHITECTURE is {architecture}, which has one stage"
            if not options.enabled:
                found = "INPUT.IGNORE_REGIONS.ENABLED is False"
            raise InputError(f"{words}, but {found}: expected {off}, or {other}, and ENABLED True")
    has_regions = _has_regions(cfg.DATASETS.TRAIN, options, ignores)
    if ranges:
        key = "INPUT.VALID_RANGES"
        log_valid_objects(ranges, cfg.DATASETS.TRAIN, _object_of(options), key)
        if cfg.DATASETS.TEST and not cfg.TEST.AUG.ENABLED:
            expected = "True, and the same scales"
            if not is_augmentable(cfg):
                expected = "another model for SNIP's evaluation, since this has no augmentation"
            logger.warning(
                "INPUT.VALID_RANGES is set, but TEST.AUG.ENABLED is False: the model is evaluated "
                f"at one scale, on objects of all sizes, expected {expected}"
            )
    elif not has_regions or _mines_densely(cfg):
        return cfg
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name in _BY_NAME:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.PROPOSAL_GENERATOR.NAME = _BY_NAME[name]
        cfg.freeze()
    registry = PROPOSAL_GENERATOR_REGISTRY
    generator = registry.get(name) if name in registry else None
    _log_generator("MODEL.PROPOSAL_GENERATOR.NAME", name, generator)
    return cfg


def use_ignore_regions_lazily(cfg: DictConfig, names: Sequence[str]) -> None:
    """
    The same for a Python config, which is changed: its RPN, and the mapper of its training data.

    Args:
        cfg: a config, with its data sets registered.
        names: those to train on.

    Raises:
        InputError: difficult objects, or those of some sizes, are to be ignored, but the heads or
            the mapper do not know how, or ``train.ignore_regions`` or ``train.valid_ranges`` is
            wrong.
    """
    options, ranges = lazy_options(cfg), lazy_valid_ranges(cfg)
    model, heads = _target(cfg, "model"), _target(cfg, "model.roi_heads")
    is_dense = isinstance(model, type) and issubclass(model, OHEMDenseMixin)
    heads_mine = isinstance(heads, type) and issubclass(heads, OHEMMixin)
    ignores = options.enabled and (is_dense or heads_mine)
    for is_set, words, off, mines in (
        (options.difficult, "train.ignore_regions.difficult is True", "False", ignores),
        (ranges, "train.valid_ranges is set", "[]", ignores and heads_mine),
    ):
        if is_set and not mines:
            raise InputError(
                f"{words}, but model.roi_heads are no heads that mine, or ignore_regions.enabled "
                f"is False: expected {off}, or heads from with_ohem"
            )
    has_regions = _has_regions(names, options, ignores)
    if ranges:
        log_valid_objects(ranges, names, _object_of(options), "train.valid_ranges")
    elif not has_regions:
        return
    key = "dataloader.train.mapper"
    mapper = _target(cfg, key)
    if mapper is DatasetMapper:
        cfg.dataloader.train.mapper["_target_"] = mapper = IgnoreMapper
    if not isinstance(mapper, type) or not issubclass(mapper, IgnoreMapper):
        name = getattr(mapper, "__name__", mapper)
        if ranges:
            raise InputError(
                f"{key} is {name}, which knows no train.valid_ranges, expected DatasetMapper, or a "
                "class that is based on ohem_d2.IgnoreMapper"
            )
        logger.warning(
            f"{key} is {name}, which drops regions to ignore: what lies in them is background, "
            "expected DatasetMapper, or a class that is based on ohem_d2.IgnoreMapper"
        )
        return
    if options.difficult:
        cfg.dataloader.train.mapper.ignore_difficult = True
    if ranges:
        cfg.dataloader.train.mapper.valid_ranges = [list(x) for x in ranges]
    if is_dense:
        return
    generator = _target(cfg, "model.proposal_generator")
    if generator in COUNTERPARTS:
        cfg.model.proposal_generator["_target_"] = COUNTERPARTS[generator]
    name = str(getattr(generator, "__name__", generator))
    _log_generator("model.proposal_generator", name, generator)


def lazy_options(cfg: DictConfig) -> IgnoreRegionsOptions:
    """
    Which annotations of a Python config's data are regions to ignore: ``train.ignore_regions``.

    Raises:
        InputError: a value is neither True nor False, or a key is unknown.
    """
    given = OmegaConf.select(cfg, "train.ignore_regions")
    return options_by_name(
        IgnoreRegionsOptions, {} if given is None else given, name="train.ignore_regions"
    )


def _target(cfg: DictConfig, key: str) -> object:
    """The class, or the function, that a node of a Python config calls; None if there is none."""
    node = OmegaConf.select(cfg, key)
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    return locate(target) if isinstance(target, str) else target


def _object_of(options: IgnoreRegionsOptions) -> Callable[[Mapping], bool]:
    return lambda annotation: not is_region(annotation, options.difficult)


def _has_regions(names: Iterable[str], options: IgnoreRegionsOptions, ignores: bool) -> bool:
    """Whether regions are to be ignored, and there are any. The log says how many."""
    if not options.enabled:
        return False
    marks = _MARKS if options.difficult else _MARKS[:-1]
    found: Counter[str] = Counter()
    for name in dict.fromkeys(names):
        for record in DatasetCatalog.get(name):
            for annotation in record.get("annotations", ()):
                mark = next((x for x in marks if annotation.get(x, 0)), None)
                if mark is not None:
                    found[mark] += 1
    if options.difficult and not found["difficult"]:
        logger.warning(
            f"no object of {', '.join(names)} is marked as difficult, expected some, since they "
            "are to be ignored (Detectron2's own voc_2007_* and voc_2012_* do not tell)"
        )
    if not found:
        return False
    words = ", ".join(f"{number} by {mark!r}" for mark, number in found.items())
    if not ignores:
        logger.warning(
            f"{found.total()} regions to ignore are marked in the training set ({words}): heads "
            "that do not mine take what lies in them for background, as in Detectron2"
        )
        return False
    logger.info(
        f"{found.total()} regions to ignore are marked in the training set ({words}): what lies in "
        "them is neither object nor background"
    )
    return True


def _log_generator(key: str, name: str, generator: object) -> None:
    if generator in COUNTERPARTS:
        logger.info(f"{key} is {_BY_NAME[name]} in place of {name}")
        return
    ignores = isinstance(generator, type) and issubclass(generator, IgnoreRegionsMixin)
    if not ignores and name not in ("PrecomputedProposals", "None"):
        logger.warning(
            f"{key} is {name}, which takes what lies in regions to ignore for background: expected "
            f"one of {', '.join(_BY_NAME.values())}, or a class that extends IgnoreRegionsMixin"
        )
