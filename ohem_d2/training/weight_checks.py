"""What weights have to be: numbers by their names, finite, of a model that was trained, and all."""

import itertools
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError

logger = logging.getLogger(__name__)

# Weights that older checkpoints may lack, because the model takes them from its config or does not
# use them: the last part of their names.
_MAY_BE_MISSING = ("pixel_mean", "pixel_std", "num_batches_tracked")
# What models are called within those of Lightning and the like.
_ATTRIBUTES = {"model", "module", "net", "network", "detector"}
# Names that a message lists, of a weight each.
_NAMES = 3
# So many layers or more that are all of one number each are no coincidence.
_FEW = 3


def check_weights_of_file(name: str, weights: object) -> None:
    """
    Make sure that a file has weights by their names.

    Raises:
        InputError: it has something else.
    """
    expected = "expected the weights of a model by their names"
    if not isinstance(weights, Mapping):
        raise InputError(f"{name!r} has a {type(weights).__name__} as 'model', {expected}")
    if not weights:
        raise InputError(f"{name!r} has no weights, {expected}")
    # As PyTorch Lightning and others have it, beside an epoch and the like.
    below = [k for k, x in weights.items() if isinstance(x, Mapping) and x and
             all(isinstance(y, (Tensor, np.ndarray)) for y in x.values())]  # fmt: skip
    for key, value in weights.items():
        is_tensor, is_array = isinstance(value, Tensor), isinstance(value, np.ndarray)
        fits = (is_array and value.dtype.kind in "biuf") or (
            is_tensor
            and not value.is_complex()
            and not value.is_meta
            and value.layout == torch.strided
            and not value.is_quantized
        )
        if not isinstance(key, str) or not fits:
            kind = value.dtype if is_tensor or is_array else type(value).__name__
            if is_tensor and value.is_meta:
                kind = "the device 'meta', without its numbers"
            elif is_tensor and value.layout != torch.strided:
                kind = f"the layout {value.layout}"
                expected = "expected torch.strided, as to_dense() makes it"
            elif is_tensor and value.is_quantized:
                expected = "expected floating-point numbers, as dequantize() makes them"
            elif below:
                expected += f": in this file they may be below {below[0]!r}, so save that alone"
                prefixes = {str(x).partition(".")[0] for x in weights[below[0]]}
                if len(prefixes) == 1 and prefixes <= _ATTRIBUTES:
                    expected += f", without {prefixes.pop() + '.'!r} in front of each name"
            raise InputError(f"{name!r} has {key!r}, of {kind}, {expected}")


def check_floating(name: str, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """
    Make sure that weights are not integers or the like where those of the model are not, which
    torch would take.

    Args:
        name: what the user calls the file.
        weights: those in it, by the names that they have in the model, or by others.
        model: what they are for.

    Raises:
        InputError: some are.
    """
    state = model.state_dict()
    for key, value in weights.items():
        weight = state.get(key.removeprefix("module."))  # Detectron2 removes it later
        if weight is not None and weight.is_floating_point() and not value.is_floating_point():
            raise InputError(
                f"{name!r} has {key!r}, of {value.dtype}, expected floating-point numbers, such as "
                f"{weight.dtype}"
            )


def check_finite(name: str, weights: Mapping[str, Tensor]) -> None:
    """
    Make sure that weights are numbers.

    Raises:
        InputError: some are NaN or infinite.
    """
    bad = [k for k, x in weights.items() if x.is_floating_point() and not x.isfinite().all()]
    if bad:
        raise InputError(
            f"{name!r} has {len(bad)} weights that are NaN or infinite: {listed(bad)}. Expected "
            "those of a training that did not diverge"
        )


def check_varied(name: str, weights: Mapping[str, Tensor], trained: bool) -> str | None:
    """
    Make sure that the layers of a model are not all of one number each, such as 0: what they make
    of an image is the same whatever it shows.

    Args:
        name: what the user calls the file.
        weights: those in it, by the names that they have in the model.
        trained: whether they are those of a trained model. In others, some layers begin at 0.

    Returns:
        what to warn of: some are; of weights that are to be trained, most.

    Raises:
        InputError: all of them are.
    """
    layers = {k: x for k, x in weights.items()
              if x.is_floating_point() and x.dim() > 1 and x.numel() > 1}  # fmt: skip
    constant = [k for k, x in layers.items() if x.amin() == x.amax()]
    if len(layers) < _FEW or not constant or (not trained and 2 * len(constant) <= len(layers)):
        return None
    first = layers[constant[0]].flatten()[0].item()
    found = f"{name!r} has {len(constant)} of {len(layers)} weights of layers that are one number"
    found = f"{found} throughout, such as {constant[0]}, which is {first:g}"
    if len(constant) == len(layers):
        raise InputError(f"{found}: expected those of a model that was trained")
    return f"{found}, expected none in a trained model" if trained else found


def check_not_cut_short(name: str, others: Sequence[str], model: nn.Module) -> None:
    """
    Make sure that no layers are left out of a part that a model has, such as the third block of a
    stage that has two: what comes after them was trained with them. A part that it lacks as a whole
    may be left out, such as a mask head.

    Args:
        name: what the user calls the file.
        others: the names of weights in it that the model lacks.
        model: it has all other weights of the file.

    Raises:
        InputError: some are.
    """
    children = {k: {n for n, _ in m.named_children()} for k, m in model.named_modules()}
    cut: dict[str, list[str]] = {}
    for other in others:
        above, found = "", ""
        for part in other.split("."):
            if above not in children or part not in children[above]:
                found = part
                break
            above = f"{above}.{part}".lstrip(".")
        row = found.rstrip("0123456789")
        if above in children and row != found and any(
            x != found and x.rstrip("0123456789") == row for x in children[above]
        ):  # fmt: skip
            cut.setdefault(f"{above}.{found}".lstrip("."), []).append(other)
    if cut:
        number = sum(map(len, cut.values()))
        raise InputError(
            f"{name!r} has {number} weights of layers that the model lacks where it has others of "
            f"their kind: {listed([*cut])}. Expected the config of their training"
        )


def missing_weights(model: nn.Module, names: set[str]) -> list[str]:
    """
    Which weights of a model a file lacks.

    Args:
        model: it may have one weight under several names.
        names: those that were not found in the file.

    Returns:
        the names without those that a model does without, or that have another name which was
        found.
    """
    state = model.state_dict(keep_vars=True)
    found = {id(x) for name, x in state.items() if name not in names}
    return [n for n, x in state.items() if n in names and id(x) not in found
            and not may_be_missing(n)]  # fmt: skip


def may_be_missing(name: str) -> bool:
    return name.rpartition(".")[2] in _MAY_BE_MISSING or "anchor_generator.cell_anchors" in name


def renamed_weights(missing: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """
    Which weights a file has under a name that is longer by some parts, as those of a model that is
    a part of another one have.

    Args:
        missing: names of the model that the file lacks.
        others: names of the file that the model lacks.

    Returns:
        the name in the file, by that in the model.
    """
    names = set(missing)
    found: dict[str, str] = {}
    for other in others:
        parts = other.split(".")
        for start, end in itertools.combinations(range(len(parts)), 2):
            name = ".".join(parts[:start] + parts[end:])
            if name in names:
                found.setdefault(name, other)
    return found


def listed(words: Sequence[str], number: int = _NAMES) -> str:
    more = len(words) - number
    return ", ".join(words[:number]) + (f" and {more} more" if more > 0 else "")
