"""Training losses in which RoIs count by the weights that a sampler gave them."""

from collections.abc import Callable
from functools import partial

import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor

from ..errors import InputError
from ..mining.losses import losses_charged


def use_weights(predictor: FastRCNNOutputLayers) -> None:
    """
    Make the ``losses`` of a box predictor weight RoIs: if proposals have a field ``ohem_weights``,
    the classification and the box loss of each RoI are multiplied by it before they are averaged
    over RoIs. Other losses, and proposals without that field, are left as they are.

    The predictor keeps its class and its parameters. A second call changes nothing.

    Args:
        predictor: a box predictor that `losses_per_roi` knows.
    """
    losses = predictor.losses
    if not (isinstance(losses, partial) and losses.func is _weighted_losses):
        predictor.losses = partial(_weighted_losses, predictor, losses)


def _weighted_losses(
    predictor: FastRCNNOutputLayers,
    losses: Callable[..., dict[str, Tensor]],
    predictions: tuple[Tensor, ...],
    proposals: list[Instances],
) -> dict[str, Tensor]:
    """The losses of a predictor, with those of each RoI weighted."""
    if not (proposals and proposals[0].has("ohem_weights")):
        return losses(predictions, proposals)
    weights = cat([x.ohem_weights for x in proposals])
    # The predictor's own are called for what else they return and log. Where they draw at random,
    # as the federated loss does, the weighted ones are to draw the same.
    gpus = [weights.device] if weights.is_cuda else []
    with torch.random.fork_rng(devices=gpus):
        all_losses = losses(predictions, proposals)
    for name, of_rois in losses_charged(predictor, predictions, proposals).items():
        if name not in all_losses:
            raise InputError(
                f"the box predictor {type(predictor).__name__} returns the losses "
                f"{', '.join(all_losses)}, expected {name} among them: the sampler weights it"
            )
        all_losses[name] = (weights * of_rois).sum() / max(1, len(of_rois))
    return all_losses
