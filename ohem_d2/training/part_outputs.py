"""
Whether parts of a model that are the user's own give what Detectron2's models take from them: a
backbone, a proposal generator, RoI heads.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.modeling import Backbone, GeneralizedRCNN, PanopticFPN, ProposalNetwork
from detectron2.structures import Instances
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from ..errors import InputError
from .named_settings import is_known

# By the part of a model: where each form of a config names it.
KEYS = {
    "backbone": "MODEL.BACKBONE.NAME",
    "proposal_generator": "MODEL.PROPOSAL_GENERATOR.NAME",
    "roi_heads": "MODEL.ROI_HEADS.NAME",
}
# A map is of another stride if it is so many times larger or smaller, and by more than these cells.
_FAR, _CELLS = 1.5, 2
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
            wrong = f"{_described(given)}, expected {expected}"
        elif name == "backbone":
            wrong = _of_other_stride(module, inputs, given)
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


def _are_proposals(given: Any, _: bool) -> bool:
    return _is_pair(given) and _are_instances(given[0]) and _are_losses(given[1])


def _are_losses_beside(given: Any, training: bool) -> bool:
    # In training, nothing reads what stands beside the losses.
    return _is_pair(given) and (_are_losses(given[1]) if training else _are_instances(given[0]))


def _is_pair(given: Any) -> bool:
    return isinstance(given, (tuple, list)) and len(given) == 2


def _are_instances(given: Any) -> bool:
    return isinstance(given, (tuple, list)) and all(isinstance(x, Instances) for x in given)


def _are_losses(given: Any) -> bool:
    if not isinstance(given, Mapping):
        return False
    values = given.values()
    return all(
        isinstance(x, (int, float)) or (isinstance(x, torch.Tensor) and x.numel() == 1)
        for x in values
    )


_Holds = Callable[[Any, bool], bool]
# What each part gives, in words, and whether it does, by whether it is being trained.
_CONTRACTS: dict[str, tuple[str, _Holds]] = {
    "backbone": (
        "a dict of feature maps by name, each a tensor of 4 dimensions",
        _are_feature_maps,
    ),
    "proposal_generator": (
        "a list of Instances, one for each image, and a dict of losses, each of one number",
        _are_proposals,
    ),
    "roi_heads": (
        "a list of Instances, one for each image, and a dict of losses, each of one number",
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
