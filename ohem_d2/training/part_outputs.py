"""
Whether parts of a model that are the user's own give what Detectron2's models take from them: a
backbone, a proposal generator, RoI heads.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling import Backbone, GeneralizedRCNN, PanopticFPN, ProposalNetwork
from detectron2.structures import Boxes, Instances, RotatedBoxes
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from ..errors import InputError, shown
from .named_settings import is_known

# By the part of a model: where each form of a config names it.
KEYS = {
    "backbone": "MODEL.BACKBONE.NAME",
    "proposal_generator": "MODEL.PROPOSAL_GENERATOR.NAME",
    "roi_heads": "MODEL.ROI_HEADS.NAME",
}
# What Detectron2 reads of proposals and of detections.
_PROPOSALS = ("proposal_boxes", "objectness_logits")
_DETECTIONS = ("pred_boxes", "scores", "pred_classes")
_SMALL = 2  # pixels, which some coordinate in a batch is expected to reach
# A map is of another stride if it is so many times larger or smaller, and by more than this cell.
_FAR, _CELLS = 1.5, 1
LAZY_KEYS = {name: f"model.{name}" for name in KEYS}


def check_outputs_once(model: nn.Module, keys: Mapping[str, str]) -> None:
    """
    Look at what the parts of a model give when they are called first. Parts that are Detectron2's
    or this project's are not looked at, and neither are models that are the user's own.

    Args:
        model: a model. What it gives is as before.
        keys: `KEYS` or `LAZY_KEYS`.

    Raises:
        InputError: later, when the model is called: a part gives what Detectron2 cannot take.
    """
    model = getattr(model, "module", model)  # of DDP
    if type(model) not in (GeneralizedRCNN, PanopticFPN, ProposalNetwork):
        return
    own = {
        part: name
        for name in keys
        if isinstance(part := getattr(model, name, None), nn.Module)
        and not is_known(type(part).__module__)
    }

    bottom_up = getattr(getattr(model, "backbone", None), "bottom_up", None)
    if isinstance(bottom_up, nn.Module) and not is_known(type(bottom_up).__module__):
        own[bottom_up] = "backbone"  # of an FPN of Detectron2's

    def look(module: nn.Module, inputs: Any, given: Any) -> None:
        name = own.pop(module, None)
        if not own or module is model:
            handle.remove()
        if name is None:
            return
        expected, holds = _CONTRACTS[name]
        wrong = None
        if not holds(given, module.training):
            found = _described(given)
            losses = given[1] if _is_pair(given) else None
            if isinstance(losses, Mapping) and (lost := _wrong_loss(losses, module.training)):
                found = f"{shown(losses[lost])} as {lost!r}"
            wrong = f"{found}, expected {expected}"
        elif name == "backbone":
            wrong = _of_other_stride(module, inputs, given) or _not_finite(inputs, given)
        elif name == "proposal_generator":
            wrong = _wrong_instances(given[0], _PROPOSALS, None)
        elif not module.training:
            wrong = _wrong_instances(given[0], _DETECTIONS, getattr(module, "num_classes", None))
        if wrong is not None:
            handle.remove()
            kind = f"{type(module).__module__}.{type(module).__qualname__}"
            raise InputError(f"{keys[name]} ({kind}) gives {wrong}")

    # A hook of the part itself would be one more that mining has to reckon with.
    if own:
        handle = register_module_forward_hook(look)


def _are_feature_maps(given: Any, _: bool) -> bool:
    return isinstance(given, Mapping) and all(
        isinstance(x, torch.Tensor) and x.dim() == 4 for x in given.values()
    )


def _of_other_stride(
    backbone: nn.Module, inputs: Any, given: Mapping[str, torch.Tensor]
) -> str | None:
    """
    Tell of the first feature map whose size is far from what the backbone says of its stride, by
    which anchors and RoIs are placed. Layers without padding may lose cells at the borders.
    """
    image = inputs[0] if inputs else None
    if not isinstance(image, torch.Tensor) or not isinstance(backbone, Backbone):
        return None
    for name, shape in backbone.output_shape().items():
        if name not in given or not shape.stride:
            continue
        for size, cells in zip(image.shape[-2:], given[name].shape[-2:]):
            expected = size / shape.stride
            if not expected / _FAR - _CELLS <= cells <= expected * _FAR + _CELLS:
                sizes = [" x ".join(map(str, x.shape[-2:])) for x in (given[name], image)]
                return (
                    f"{name!r} of {sizes[0]} cells for images of {sizes[1]} pixels, but its "
                    f"output_shape() says that the stride is {shape.stride}, expected about "
                    f"{size / cells:.3g}"
                )
    return None


def _not_finite(inputs: Any, given: Mapping[str, torch.Tensor]) -> str | None:
    if not all(x.isfinite().all() for x in inputs if isinstance(x, torch.Tensor)):
        return None
    bad = [name for name, x in given.items() if not x.isfinite().all()]
    return f"NaN or infinite numbers in {bad[0]!r}, expected finite ones" if bad else None


def _wrong_instances(
    images: list[Instances], fields: Sequence[str], num_classes: int | None
) -> str | None:
    """
    Tell what Detectron2 would misread of boxes and what goes with them.

    Args:
        images: the proposals or the detections of each.
        fields: those that it reads, the boxes first.
        num_classes: of the model, if it is known.
    """
    for x in images:
        if missing := [f for f in fields if not x.has(f)]:
            return (
                f"Instances with {', '.join(x.get_fields()) or 'nothing'}, expected "
                f"{missing[0]}, too"
            )
        boxes = x.get(fields[0])
        if not isinstance(boxes, (Boxes, RotatedBoxes)):
            kind = type(boxes).__name__
            return f"{fields[0]} that are a {kind}, expected Boxes of detectron2.structures"
        classes = x.pred_classes if "pred_classes" in fields else torch.zeros(0)
        if num_classes and len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
            found = classes.max().item() if classes.max() >= num_classes else classes.min().item()
            return f"pred_classes of {found}, expected 0 to {num_classes - 1}, of {num_classes}"
    sides = torch.cat([x.get(fields[0]).tensor.detach().flatten() for x in images])
    if len(sides) and sides.isfinite().all() and sides.abs().max() < _SMALL:
        return (
            f"{fields[0]} of which no coordinate reaches {_SMALL} pixels, expected pixels of the "
            "image, not parts of its sides"
        )
    return None


def _are_proposals(given: Any, training: bool) -> bool:
    return _is_pair(given) and _are_instances(given[0]) and _are_losses(given[1], training)


def _are_losses_beside(given: Any, training: bool) -> bool:
    # In training, nothing reads what stands beside the losses.
    return _is_pair(given) and (
        _are_losses(given[1], training) if training else _are_instances(given[0])
    )


def _is_pair(given: Any) -> bool:
    return isinstance(given, (tuple, list)) and len(given) == 2


def _are_instances(given: Any) -> bool:
    return isinstance(given, (tuple, list)) and all(isinstance(x, Instances) for x in given)


def _are_losses(given: Any, training: bool) -> bool:
    return isinstance(given, Mapping) and _wrong_loss(given, training) is None


def _wrong_loss(given: Mapping[str, Any], training: bool) -> str | None:
    """The name of the first that is none. In training, losses are logged as tensors."""
    for name, x in given.items():
        is_number = isinstance(x, (int, float)) and not training
        if not is_number and not (isinstance(x, torch.Tensor) and x.numel() == 1):
            return name
    return None


_Holds = Callable[[Any, bool], bool]
# What each part gives, in words, and whether it does, by whether it is being trained.
_CONTRACTS: dict[str, tuple[str, _Holds]] = {
    "backbone": (
        "a dict of feature maps by name, each a tensor of 4 dimensions",
        _are_feature_maps,
    ),
    "proposal_generator": (
        "a list of Instances, one for each image, and a dict of losses, tensors of one number",
        _are_proposals,
    ),
    "roi_heads": (
        "a list of Instances, one for each image, and a dict of losses, tensors of one number",
        _are_losses_beside,
    ),
}


def _described(given: object) -> str:
    """What it is, and of what."""
    kind = "None" if given is None else f"a {type(given).__name__}"
    if isinstance(given, torch.Tensor):
        return f"{kind} of the shape {(*given.shape,)}"
    if isinstance(given, Mapping):
        of = [f"{k!r}: {type(v).__name__}" for k, v in given.items()]
    elif isinstance(given, (tuple, list)):
        of = [type(x).__name__ for x in given]
    else:
        return kind
    return f"{kind} of {', '.join(of[:4])}{', ...' * (len(of) > 4)}"
