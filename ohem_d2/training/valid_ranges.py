"""Valid ranges: the keys, and how many objects count at each scale."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from omegaconf import DictConfig, OmegaConf

from ..data.boxes import corners
from ..errors import InputError
from ..modeling.valid_ranges import (
    ValidRange,
    as_valid_ranges,
    check_no_other_scales,
    ranges_of_scales,
    valid_ranges,
)

logger = logging.getLogger(__name__)


def check_valid_ranges(cfg: CfgNode) -> None:
    """
    Make sure that each scale of a YAML config has a valid range, if any has, and no other.

    Raises:
        InputError: it is not so, or they are no ranges.
    """
    if not (ranges := valid_ranges(cfg)):
        return
    if (sampling := cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING) != "choice":
        raise InputError(
            f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {sampling!r}, expected 'choice', since "
            "INPUT.VALID_RANGES has a range for each scale"
        )
    scales = {"INPUT.MIN_SIZE_TRAIN": cfg.INPUT.MIN_SIZE_TRAIN}
    if cfg.TEST.AUG.ENABLED:
        scales["TEST.AUG.MIN_SIZES"] = cfg.TEST.AUG.MIN_SIZES
    for key, edges in scales.items():
        ranges_of_scales(ranges, edges, key)
    used = {edge for edges in scales.values() for edge in edges}
    check_no_other_scales(ranges, sorted(used), " and ".join(scales))


def lazy_valid_ranges(cfg: DictConfig) -> tuple[ValidRange, ...]:
    """
    The valid ranges of a Python config: ``train.valid_ranges``.

    Raises:
        InputError: see `as_valid_ranges`.
    """
    given = OmegaConf.select(cfg, "train.valid_ranges")
    return as_valid_ranges(() if given is None else given)


def log_valid_objects(
    ranges: Sequence[ValidRange],
    names: Sequence[str],
    is_object: Callable[[Mapping], bool],
    key: str,
) -> None:
    """
    Say how many objects count at each scale, and warn of those that count at none.

    Args:
        ranges: at least one.
        names: the training sets, registered.
        is_object: tells whether an annotation is an object.
        key: where the ranges are set.

    Raises:
        InputError: no object counts at any scale.
    """
    if all(x.smallest == 0 and x.largest == math.inf for x in ranges):
        logger.warning(f"{key} leaves nothing out: each range is from 0 to infinity")
    names = list(dict.fromkeys(names))
    sizes = np.array(
        [
            _size(annotation)
            for name in names
            for record in DatasetCatalog.get(name)
            for annotation in record.get("annotations", ())
            if is_object(annotation)
        ]
    )
    counts = np.array([(x.smallest <= sizes) & (sizes <= x.largest) for x in ranges])
    at_each = {x.edge: int(n) for x, n in zip(ranges, counts.sum(axis=1))}
    words = ", ".join(f"{n} at {edge}" for edge, n in at_each.items())
    logger.info(f"{key}: of {len(sizes)} objects of the training set, these count: {words}")
    at_no_scale = int((~counts.any(axis=0)).sum())
    if at_no_scale and at_no_scale == len(sizes):
        raise InputError(
            f"{key} is {[tuple(x) for x in ranges]}, by which none of the {len(sizes)} objects of "
            f"{', '.join(names)} counts, expected ranges of their sizes, which are from "
            f"{sizes.min():.0f} to {sizes.max():.0f} pixels of the file"
        )
    if at_no_scale:
        logger.warning(
            f"{at_no_scale} of {len(sizes)} objects of {', '.join(names)} are in no range of "
            f"{key}: they are trained on at no scale"
        )
    if without := [edge for edge, n in at_each.items() if not n]:
        logger.warning(f"{key}: no object of {', '.join(names)} counts at {without}")


def _size(annotation: Mapping) -> float:
    """The square root of the area of an object's box, in pixels."""
    if annotation["bbox_mode"] == BoxMode.XYWHA_ABS:
        width, height = annotation["bbox"][2:4]
    else:
        x0, y0, x1, y1 = corners(dict(annotation))
        width, height = x1 - x0, y1 - y0
    return math.sqrt(max(width * height, 0))
