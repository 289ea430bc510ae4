"""
Files of precomputed proposals, checked before a run: Detectron2 takes what is in them as it comes,
and drops boxes without an area without a word.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rrpn import RRPN
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf

from ..data import records_of
from ..data.pickles import read_pickle
from ..errors import InputError, shown
from .checks import missing_file
from .lazy_targets import target_of

logger = logging.getLogger(__name__)

# What Detectron2 reads from such a file, by its name and an older one.
_NAMES = {"ids": "indexes", "boxes": "boxes", "objectness_logits": "scores"}
# Forms of boxes that Detectron2 converts, and how many numbers they have.
_MODES = {BoxMode.XYXY_ABS: 4, BoxMode.XYWH_ABS: 4, BoxMode.XYWHA_ABS: 5}
# By how much the second corner may lie before the first one, as some conventions have it of a box
# of no size.
_TOLERANCE = 1


def check_proposal_files(
    key: str, files: Sequence[str], names: Sequence[str], switch: str = "MODEL.LOAD_PROPOSALS"
) -> None:
    """
    Make sure that each data set has its file of precomputed proposals, and each of its images has
    boxes that may be some.

    Args:
        key: where the config names the files.
        files: their paths or addresses.
        names: the data sets, which are registered.
        switch: what asks for the files.

    Raises:
        InputError: there are more or fewer files than data sets, or one of them is not here, has
            no proposals, or other ones, or could run code.
    """
    check_number_of_proposal_files(key, files, names, switch)
    contents = []
    for file in files:
        if reason := missing_file(file):
            raise InputError(f"{key}: {file!r} cannot be loaded: it {reason}")
        # Detectron2 will run what it says.
        contents.append(read_pickle(key, PathManager.get_local_path(file)))
        _check_parts(f"{key}: {file!r}", contents[-1])
    for file, content, name in zip(files, contents, names):
        _check_content(f"{key}: {file!r}", content, name)


def check_number_of_proposal_files(
    key: str, files: Sequence[str], names: Sequence[str], switch: str = "MODEL.LOAD_PROPOSALS"
) -> None:
    """
    Make sure that there is a file for each data set.

    Raises:
        InputError: there are more or fewer.
    """
    if len(files) != len(names):
        raise InputError(
            f"{key} has {len(files)} files, expected {len(names)}: with {switch}, one for each of "
            f"{', '.join(names)}"
        )


def check_lazy_use(cfg: DictConfig, split: str, key: str) -> None:
    """
    Make sure that a Python config has files of proposals where Detectron2's model takes them, and
    nowhere else.

    Args:
        cfg: the config.
        split: "train" or "test".
        key: where it names the files.

    Raises:
        InputError: they would not be used, or are missing.
    """
    if target_of(cfg.model) is not GeneralizedRCNN or "proposal_generator" not in cfg.model:
        return
    files, generator = OmegaConf.select(cfg, key), cfg.model.proposal_generator
    if files is not None and target_of(generator) in (RPN, RRPN):
        raise InputError(
            f"{key} is {shown(OmegaConf.to_object(files))}, expected null, since "
            "model.proposal_generator makes proposals itself: to use those of files, set it to null"
        )
    mapper = OmegaConf.select(cfg, f"dataloader.{split}.mapper")
    if generator is not None or target_of(mapper) is not DatasetMapper:
        return
    if files is None:
        raise InputError(
            f"{key} is null, expected a file for each data set, since model.proposal_generator is "
            "null"
        )
    topk = f"dataloader.{split}.mapper.precomputed_proposal_topk"
    if OmegaConf.select(cfg, topk) is None:
        raise InputError(
            f"{topk} is null, expected how many proposals of an image to take, since {key} is set"
        )


def _part(content: dict, name: str) -> Any:
    # As Detectron2 has it: the older name is the stronger one.
    return content[_NAMES[name] if _NAMES[name] in content else name]


def _check_parts(where: str, content: object) -> None:
    if not isinstance(content, dict) or not all(content.keys() & {*x} for x in _NAMES.items()):
        raise InputError(
            f"{where} has no proposals, expected a pickle of ids, boxes, objectness_logits and "
            "bbox_mode"
        )
    lengths = []
    for name in _NAMES:
        part = _part(content, name)
        if not isinstance(part, (list, tuple)) and getattr(part, "ndim", 0) == 0:
            raise InputError(
                f"{where} has {name} of {type(part).__name__}, expected a list with one entry for "
                "each image"
            )
        lengths.append(len(part))
    if len({*lengths}) > 1:
        counts = ", ".join(f"{n} {name}" for n, name in zip(lengths, _NAMES))
        raise InputError(f"{where} has {counts}, expected as many of each: one for each image")


def _check_content(where: str, content: dict, dataset: str) -> None:
    mode = _mode(where, content)
    places: dict[str, list[int]] = {}
    for i, image in enumerate(_part(content, "ids")):
        places.setdefault(str(image), []).append(i)  # Detectron2 compares them as texts
    records = records_of(dataset)
    images = [_image_id(record, dataset) for record in records]
    if missing := [image for image in images if str(image) not in places]:
        raise InputError(
            f"{where} lacks {len(missing)} of {len(images)} images of the data set {dataset!r}, "
            f"such as {shown(missing[0])}, expected proposals for each, by its image_id"
        )
    total = empty = outside = 0
    largest = 0.0
    for image, record in zip(images, records):
        boxes = _boxes_of(where, content, image, places[str(image)], mode)
        if len(boxes):
            total, empty = total + len(boxes), empty + int((_sizes(boxes, mode) <= 0).sum())
            largest = max(largest, float(np.abs(boxes).max()))
            outside += _number_outside(boxes, mode, record.get("width"), record.get("height"))
    if records and not total:
        raise InputError(f"{where} has no box for any image of {dataset!r}, expected some")
    if 2 * empty > total:
        raise InputError(
            f"{where} has {empty} of {total} boxes without an area, expected boxes as its "
            f"bbox_mode, {mode.name}, has them"
        )
    if total and largest <= 1:
        raise InputError(
            f"{where} has boxes from 0 to {largest:g} alone, which are parts of an image: expected "
            "pixels"
        )
    if 2 * outside > total:
        logger.warning(
            f"{where} has {outside} of {total} boxes that reach out of their images, where "
            "Detectron2 cuts them: they may be of images of another size, or of another form than "
            f"its bbox_mode, {mode.name}"
        )


def _boxes_of(
    where: str, content: dict, image: Any, places: list[int], mode: BoxMode
) -> np.ndarray:
    """Those of an image, which may be in several places if they are the same in each."""
    entries = [[_part(content, x)[i] for x in ("boxes", "objectness_logits")] for i in places]
    for boxes, scores in entries:
        if fault := _fault(boxes, scores, mode):
            raise InputError(f"{where} has, for the image {shown(image)}, {fault}")
    for entry in entries[1:]:
        if not all(map(np.array_equal, entry, entries[0])):
            raise InputError(
                f"{where} has two different entries for the image {shown(image)}, expected one: "
                "Detectron2 would take the last"
            )
    return entries[-1][0]


def _image_id(record: dict, dataset: str) -> Any:
    if "image_id" not in record:
        raise InputError(
            f"the data set {dataset!r} has images without image_id, expected one for each, by "
            "which Detectron2 finds its proposals"
        )
    return record["image_id"]


def _mode(where: str, content: dict) -> BoxMode:
    found = content.get("bbox_mode", BoxMode.XYXY_ABS)
    is_number = isinstance(found, (int, np.integer)) and not isinstance(found, bool)
    known = [mode for mode in _MODES if is_number and mode == found]
    if not known:
        names = ", ".join(f"BoxMode.{mode.name} ({mode.value})" for mode in _MODES)
        raise InputError(f"{where} has {shown(found)} as bbox_mode, expected one of {names}")
    return known[0]


def _fault(boxes: Any, scores: Any, mode: BoxMode) -> str | None:
    """What is wrong with those of an image, as what the file has."""
    for what, part in (("boxes", boxes), ("objectness_logits", scores)):
        if not isinstance(part, np.ndarray) or part.dtype.kind not in "fiu":
            kind = part.dtype if isinstance(part, np.ndarray) else type(part).__name__
            return f"{what} of {kind}, expected an array of numbers"
    if boxes.size == scores.size == 0:
        return None
    number = _MODES[mode]
    if boxes.ndim != 2 or boxes.shape[1] != number:
        return f"boxes of shape {boxes.shape}, expected (N, {number}), as {mode.name} has"
    if scores.shape != (len(boxes),):
        return (
            f"{len(boxes)} boxes, but objectness_logits of shape {scores.shape}, expected "
            f"({len(boxes)},)"
        )
    if not np.isfinite(boxes).all():
        return "boxes that are NaN or infinite, expected numbers"
    if np.isnan(scores).any():
        return "objectness_logits that are NaN, expected numbers"
    wrong = _sizes(boxes, mode) < -_TOLERANCE
    if wrong.any():
        box = boxes[wrong.argmax()].tolist()
        return (
            f"the box {shown(box)}, whose sides are below 0 (its bbox_mode is {mode.name}), "
            "expected boxes of that form"
        )
    return None


def _sizes(boxes: np.ndarray, mode: BoxMode) -> np.ndarray:
    """The shorter sides."""
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:4] - boxes[:, :2] if mode == BoxMode.XYXY_ABS else boxes[:, 2:4]
    return sides.min(axis=1)


def _number_outside(
    boxes: np.ndarray, mode: BoxMode, width: float | None, height: float | None
) -> int:
    """How many reach out of an image, whose size may not be known."""
    if mode == BoxMode.XYWHA_ABS or width is None or height is None:
        return 0
    ends = boxes[:, 2:] + (boxes[:, :2] if mode == BoxMode.XYWH_ABS else 0)
    outside = (boxes[:, :2] < -_TOLERANCE) | (ends > np.array([width, height]) + _TOLERANCE)
    return int(outside.any(axis=1).sum())
