"""A sampler of the user's own is called here, and held to what samplers may do."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..config import config_key
from ..errors import InputError, shown
from ..mining.candidates import Candidates, Selection, check_selection, name_of
from ..mining.samplers import Sampler

_FIELDS = ("boxes", "labels", "image_ids", "loss_cls", "loss_box_reg")


def choose(
    sampler: Sampler,
    candidates: Candidates,
    num_samples: int,
    is_checked: bool,
    warn: Callable[[str], None],
    key: str = config_key("sampler"),
    chosen_for: tuple[str, str] = ("RoIs", "box head"),
) -> Selection:
    """
    Call a sampler.

    Args:
        sampler: any.
        candidates: those of a step.
        num_samples: the budget of an image.
        is_checked: whether to look at all that it does, which waits for a GPU.
        warn: takes what is strange, but may be meant.
        key: what names the sampler in a config.
        chosen_for: what messages call the candidates, and what is trained on them.

    Returns:
        what it chooses.

    Raises:
        InputError: it does what no sampler may.
    """
    (rois, part), name = chosen_for, f"{key}: the sampler {name_of(sampler)}"
    if not callable(sampler):
        raise InputError(
            f"{key}: the sampler is {shown(sampler)}, which cannot be called, expected one such "
            "as OHEMSampler()"
        )
    before = {k: x.clone() for k, x in _tensors(candidates)} if is_checked else {}
    try:
        selection = sampler(candidates, num_samples)
    except SystemExit as e:  # which would end the training as if it were done
        raise InputError(f"{name} ended the program (SystemExit: {e}), expected a Selection") from e
    try:
        chosen = check_selection(selection, candidates, sampler, waits=is_checked)
    except InputError as e:
        raise InputError(f"{key}: {e}") from e
    after = dict(_tensors(candidates))
    if changed := [k for k, x in before.items() if not _are_same(x, after.get(k))]:
        raise InputError(
            f"{name} changed {', '.join(changed)} of the candidates, which logs and "
            "training use too: expected it to leave them as they are, and change copies"
        )
    # Always in the same words, which are told once.
    if is_checked and len(candidates) and not len(chosen.indices):
        warn(f"{name} chose none of the {rois} of a step, which does not train the {part}")
    elif is_checked and chosen.weights is not None and not chosen.weights.any():
        warn(f"{name} gave all {rois} of a step the weight 0, which does not train the {part}")
    elif is_checked and len(chosen.indices.unique()) < len(chosen.indices):
        warn(f"{name} chose some {rois} of a step more than once, which count as often")
    return chosen


def untrained_parameters(sampler: Sampler) -> list[str]:
    """The names of what a sampler means to learn: what it returns carries no gradients."""
    if not isinstance(sampler, nn.Module):
        return []
    return [name for name, x in sampler.named_parameters() if x.requires_grad]


def _tensors(candidates: Candidates) -> Iterator[tuple[str, Tensor]]:
    """Those that are there; others are computed when they are asked for."""
    for name in _FIELDS:
        yield name, getattr(candidates, name)
    yield from candidates.computed()


def _are_same(before: Tensor, after: object) -> bool:
    # A loss that is NaN is still the same.
    return (
        isinstance(after, Tensor)
        and before.shape == after.shape
        and bool(torch.allclose(before, after, rtol=0, atol=0, equal_nan=True))
    )
