"""
Whether the first batch of a training is what Detectron2's models learn from, whoever made it: a
mapper or a loader of the user's own may give anything.

Only what Detectron2's own code reads is looked at. Other fields, models that are not its own, and
fields that a head of the user's own may read in another way are left alone.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.engine import TrainerBase
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, ProposalNetwork, SemanticSegmentor
from detectron2.structures import Instances
from torch import nn

from ..errors import InputError, shown
from ..modeling.mixin import OHEMMixin
from .data_loader import ResumableLoader
from .given_images import MOST, NothingGivenError, name_of_maker
from .named_settings import is_known

logger = logging.getLogger(__name__)

_SMALL = 2  # pixels, which the sides of some box in a batch are expected to reach
_DARK = 20  # times smaller than the mean: of another scale, rather than dark


def check_first_batch(
    trainer: TrainerBase, num_steps: int, maker: str, naming: AbstractContextManager[None]
) -> None:
    """
    Draw the first batch of a training, which the first step gets, and look at it.

    Args:
        trainer: one of Detectron2's, which has not begun. One that is resumed takes its random
            state up in its first step, too late for a batch that is drawn ahead.
        num_steps: how many steps there are to be.
        maker: what makes the images, as messages name it.
        naming: says which settings are to blame for an error of the loader.

    Raises:
        InputError: the model cannot learn from it.
    """
    steps = getattr(trainer, "_trainer", trainer)
    model, loader = getattr(steps.model, "module", steps.model), steps.data_loader
    if not isinstance(loader, ResumableLoader) or not _is_detectron2s(model):
        return
    maker += f" ({name_of_maker(loader.maker())})"
    with naming:
        try:
            batch = loader.first_batch()
        except NothingGivenError as e:
            raise InputError(
                f"{maker} gives None for all of the first {MOST} images, or for each that there "
                f"is, expected a dict with 'image'{_expected_beside(model)}"
            ) from e
        except (KeyError, TypeError, IndexError) as e:
            if _collates(e):
                raise InputError(
                    f"{maker} puts images together by torch's default collate_fn ({e}), expected "
                    "one that gives a list of dicts, such as "
                    "collate_fn=detectron2.data.build.trivial_batch_collator"
                ) from e
            if not _groups(e):
                raise
            raise InputError(
                f"{maker} gives no dict with 'width' and 'height' for an image, by which images "
                f"are grouped ({type(e).__name__}: {e}), expected both, or aspect_ratio_grouping "
                "to be False"
            ) from e
    if not isinstance(batch, (list, tuple)) or not batch:
        found = "no batch" if batch is None else _described(batch)
        raise InputError(f"{maker} gives {found}, expected a list of dicts, one for each image")
    for record in batch:
        if not isinstance(record, Mapping):
            raise InputError(
                f"{maker} gives {_described(record)} for an image, expected a dict with 'image'"
                f"{_expected_beside(model)}"
            )
        for field, found, expected in _wrong(record, model):
            file = record.get("file_name")
            of_file = f" of {file!r}" if isinstance(file, str) else ""
            raise InputError(f"{maker}: {field}{of_file} is {found}, expected {expected}")
    if (images := loader.length_of_own_sampler()) is not None:
        name, length = images
        logger.warning(
            f"{maker}: the sampler {name} has {length} images, expected one without end, unless "
            "it begins anew after these"
        )
    if (number := loader.length()) is not None and number < num_steps:
        by = f" with the sampler {name}" if (name := loader.name_of_sampler()) else ""
        raise InputError(
            f"{maker}{by} ends after {number} batches, expected one for each of {num_steps} steps: "
            "as build_detection_train_loader has them by default, without end"
        )
    for field, found, expected in _odd(batch, model):
        logger.warning(f"{maker}: {field} is {found}, expected {expected}")
    if _learns_from_instances(model) and "gt_classes" in _fields(model):
        # A class may come up late, and is taken for the background without a word.
        loader.check_each(partial(_check_classes, model=model, maker=maker))


def _check_classes(batch: Any, model: nn.Module, maker: str) -> None:
    for record in batch:
        classes = getattr(record.get("instances"), "gt_classes", None)
        if isinstance(classes, torch.Tensor) and classes.device.type == "cpu":
            for field, found, expected in _wrong_classes(classes, model):
                file = record.get("file_name")
                raise InputError(f"{maker}: {field} of {file!r} is {found}, expected {expected}")


def _collates(error: Exception) -> bool:
    """Whether it is torch's putting together of images that failed."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__") == "torch.utils.data._utils.collate"


def _groups(error: Exception) -> bool:
    """Whether it is Detectron2's grouping of images by their shape that failed."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(frame.f_locals.get("self"), AspectRatioGroupedDataset)


# -------------------------------------------------------------------------------------- the model


def _is_detectron2s(model: nn.Module) -> bool:
    """Or this project's, which takes the same."""
    of_either = "detectron2.modeling.meta_arch.", "ohem_d2.modeling."
    return type(model).__module__.startswith(of_either) and isinstance(
        getattr(model, "pixel_mean", None), torch.Tensor
    )


def _learns_from_instances(model: nn.Module) -> bool:
    """Whether all that reads them is Detectron2's or this project's: backbones do not."""
    readers = [x for name, x in model.named_children() if name != "backbone"]
    known = all(is_known(type(m).__module__) for x in readers for m in x.modules())
    return known and type(model) is not SemanticSegmentor


def _num_classes(model: nn.Module) -> int | None:
    return getattr(getattr(model, "roi_heads", model), "num_classes", None)


def _expected_beside(model: nn.Module) -> str:
    if _learns_from_instances(model):
        return " and 'instances'"
    return " and 'sem_seg'" if isinstance(model, SemanticSegmentor) else ""


# ------------------------------------------------------------------------- what cannot be learned
# Each fault is a field, what it is, and what was expected.


def _wrong(record: Mapping[str, Any], model: nn.Module) -> Iterator[tuple[str, str, str]]:
    yield from _wrong_image(record, model)
    height, width = record["image"].shape[-2:]
    if isinstance(model, (PanopticFPN, SemanticSegmentor)):
        yield from _wrong_labels(record, model, (height, width))
    if not _learns_from_instances(model):
        return
    if "targets" in record and isinstance(model, ProposalNetwork):
        return  # its older name
    computes = getattr(model, "proposal_generator", None) is not None
    if isinstance(model, GeneralizedRCNN) and not computes and "proposals" not in record:
        yield "'proposals'", "missing", "Instances, since the model computes no proposals"
    instances = record.get("instances")
    if not isinstance(instances, Instances):
        found = _described(instances) if "instances" in record else f"missing among {[*record]}"
        yield "'instances'", found, f"Instances with {', '.join(_fields(model))}"
        return
    yield from _wrong_instances(instances, model)


def _wrong_image(record: Mapping[str, Any], model: nn.Module) -> Iterator[tuple[str, str, str]]:
    image = record.get("image")
    mean: Any = model.pixel_mean
    number = len(mean)
    expected = (
        f"a torch.Tensor of shape ({number}, height, width): {number} channels, as many as numbers "
        "in pixel_mean"
    )
    if not isinstance(image, torch.Tensor):
        yield (
            "'image'", _described(image) if "image" in record else "missing", expected
        )  # fmt: skip
    # A single channel goes with any number of means, as does any number with a single mean.
    elif image.dim() != 3 or not (image.shape[0] in (number, 1) or number == 1):
        yield "'image'", _described(image), expected
    elif not image.numel():
        yield "'image'", _described(image), "an image with pixels"
    elif torch.result_type(image, mean) != mean.dtype:
        yield "'image'", _described(image), f"one of torch.uint8 or {mean.dtype}"
    elif image.is_floating_point() and not image.isfinite().all():
        yield "'image'", "nan or infinite in places", "numbers"


def _wrong_labels(
    record: Mapping[str, Any], model: nn.Module, size: tuple[int, int]
) -> Iterator[tuple[str, str, str]]:
    """Of the pixels."""
    labels, expected = record.get("sem_seg"), f"a torch.Tensor of torch.int64 and shape {size}"
    if not isinstance(labels, torch.Tensor):
        found = _described(labels) if "sem_seg" in record else "missing"
        yield "'sem_seg'", found, f"{expected}, the classes of pixels"
    elif (*labels.shape,) != size or labels.dtype not in (torch.int64, torch.uint8):
        yield "'sem_seg'", _described(labels), f"{expected}, as the image has"
    else:
        head: Any = model.sem_seg_head
        predictor = getattr(head, "predictor", None)
        if is_known(type(head).__module__) and isinstance(predictor, nn.Conv2d):
            ignored, number = head.ignore_value, predictor.out_channels
            strays = sorted({*labels.unique().tolist()} - {*range(number), ignored})
            if strays:
                found = f"{shown(strays[:10])} in places"
                yield "'sem_seg'", found, f"0 to {number - 1}, or {ignored} for no class"


def _fields(model: nn.Module) -> list[str]:
    fields = ["gt_boxes"]
    if _num_classes(model) is not None:
        fields.append("gt_classes")
    heads = getattr(model, "roi_heads", None)
    fields += ["gt_masks"] * bool(getattr(heads, "mask_on", False))
    return fields + ["gt_keypoints"] * bool(getattr(heads, "keypoint_on", False))


# By the name of a field: what Detectron2 asks of it, and what has that.
_FORMS = {
    "gt_boxes": ("tensor", "Boxes of detectron2.structures"),
    "gt_masks": ("crop_and_resize", "PolygonMasks or BitMasks of detectron2.structures"),
    "gt_keypoints": ("to_heatmap", "Keypoints of detectron2.structures"),
}
_INTEGERS = (torch.int64, torch.uint8, torch.int32, torch.int16)


def _wrong_instances(instances: Instances, model: nn.Module) -> Iterator[tuple[str, str, str]]:
    found = instances.get_fields()
    number = max((len(x) for x in found.values()), default=0)
    for field in _fields(model):
        # An image without objects has no masks or keypoints, as from Detectron2's mapper.
        if field not in found:
            if number or field in ("gt_boxes", "gt_classes"):
                yield f"'instances'.{field}", f"missing among {[*found]}", "it, since it is learned"
        elif len(found[field]) != number:
            yield f"'instances'.{field}", f"of {len(found[field])} objects", f"{number} objects"
        elif (form := _FORMS.get(field)) and not hasattr(found[field], form[0]):
            yield f"'instances'.{field}", _described(found[field]), form[1]
    yield from _wrong_boxes(found["gt_boxes"].tensor)
    if "gt_classes" in _fields(model):
        yield from _wrong_classes(found["gt_classes"], model)


def _wrong_boxes(boxes: torch.Tensor) -> Iterator[tuple[str, str, str]]:
    for box in boxes:
        if not box.isfinite().all():
            yield "'instances'.gt_boxes", _of_box(box), "numbers"
        elif len(box) == 4 and not (box[2] > box[0] and box[3] > box[1]):
            expected = "(x0, y0, x1, y1) with x1 > x0 and y1 > y0, in pixels"
            yield "'instances'.gt_boxes", _of_box(box), expected


def _wrong_classes(classes: Any, model: nn.Module) -> Iterator[tuple[str, str, str]]:
    field, number = "'instances'.gt_classes", _num_classes(model)
    heads = getattr(model, "roi_heads", None)
    # Detectron2's losses take the first two, and mining takes all of them.
    kinds = _INTEGERS if isinstance(heads, OHEMMixin) else _INTEGERS[:2]
    if not isinstance(classes, torch.Tensor) or classes.dtype not in kinds:
        yield field, _described(classes), "a torch.Tensor of torch.int64"
        return
    # What is -1 is neither object nor background for Detectron2's heads.
    least = 0 if isinstance(heads, OHEMMixin) else -1
    if strays := sorted(x for x in {*classes.tolist()} if not least <= x < (number or 0)):
        expected = f"0 to {(number or 0) - 1}, as the model has {number} classes"
        yield field, f"{shown(strays[:10])} in places", expected


# ------------------------------------------------------------------------ what could be meant so


def _odd(batch: Any, model: nn.Module) -> Iterator[tuple[str, str, str]]:
    pixel_mean: Any = model.pixel_mean
    pixel_std: Any = model.pixel_std
    mean = pixel_mean.max().item()
    peak = max(x["image"].abs().max().item() for x in batch)
    if mean > 1 and 0 < peak <= (mean / _DARK if batch[0]["image"].is_floating_point() else 1):
        found = f"{peak:.3g} at most, in all {len(batch)} images of the first batch"
        expected = f"values on the scale of pixel_mean, which is {mean:.4g}, such as 0 to 255"
        yield "'image'", found, expected
    if 0 < mean < 1 and pixel_std.max().item() < 1 < peak / _DARK:
        yield "'image'", f"up to {peak:.4g}", f"0 to 1, as pixel_mean is {mean:.3g}"
    if not _learns_from_instances(model) or not all("instances" in x for x in batch):
        return
    instances = [x["instances"] for x in batch]
    if "gt_classes" in _fields(model) and any((x.gt_classes == -1).any() for x in instances):
        yield "'instances'.gt_classes", "-1 in places", "0 or more, unless these are to be ignored"
    tensors = [x.gt_boxes.tensor.cpu() for x in instances]
    if not any(len(x) for x in tensors) or tensors[0].shape[1] != 4:
        return
    sides = torch.cat([x[:, 2:] - x[:, :2] for x in tensors])
    if sides.max() < _SMALL:
        largest = tensors[int(torch.stack([_largest(x) for x in tensors]).argmax())]
        words = f"such as {_of_box(largest[0])}, all {len(sides)} of the first batch are as small"
        yield "'instances'.gt_boxes", words, f"sides in pixels, some of {_SMALL} or more"
        return
    for record, boxes in zip(batch, tensors):
        height, width = record["image"].shape[-2:]
        low, high = boxes[:, :2], boxes[:, 2:]
        outside = (low >= torch.tensor([width, height])).any(1) | (high <= 0).any(1)
        if outside.any():
            file = record.get("file_name")
            found = f"{_of_box(boxes[outside][0])}, outside of the image"
            yield (
                "'instances'.gt_boxes",
                f"{found}{f' {file!r}' if isinstance(file, str) else ''}",
                f"boxes in the {width} x {height} pixels that the mapper makes of it",
            )
            return


def _largest(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).max() if len(boxes) else torch.tensor(-1.0)


# ------------------------------------------------------------------------------------------ words


def _described(value: object) -> str:
    kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a {kind} of {getattr(value, 'dtype', '?')} and shape {(*shape,)}"
    if isinstance(value, (list, tuple)):
        kinds = ", ".join(type(x).__name__ for x in value[:4]) + ", ..." * (len(value) > 4)
        return f"a {kind} of {kinds or 'nothing'}"
    return "None" if value is None else f"a {kind}, {shown(value)}"


def _of_box(box: torch.Tensor) -> str:
    return f"({', '.join(f'{x:.4g}' for x in box.tolist())})"
