"""Reading many RoIs without gradients, piece by piece."""

from collections.abc import Callable

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

_Read = Callable[[list[Instances]], tuple[nn.Module, tuple[Tensor, ...]]]


def read_in_pieces(
    read: _Read, rois: list[Instances], size: int
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """
    Read RoIs, not more of an image at a time than a number, so that memory does not grow with all.

    Args:
        read: from RoIs to their predictor and what it returns for them. If that is anything else
            than tensors with a row for each RoI, they are read all at once.
        rois: those of each image.
        size: how many of each image are read at a time.

    Returns:
        what ``read`` would return for all.
    """
    most = max(map(len, rois), default=0)
    if most <= size:
        return read(rois)
    outputs, numbers = [], []
    for start in range(0, most, size):
        piece = [x[start : start + size] for x in rois]
        predictor, predictions = read(piece)
        number = [len(x) for x in piece]
        if not all(isinstance(x, Tensor) and len(x) == sum(number) for x in predictions):
            return read(rois)
        outputs.append(predictions)
        numbers.append(number)
    return predictor, tuple(_by_image(x, numbers) for x in zip(*outputs))


def _by_image(parts: list[Tensor], numbers: list[list[int]]) -> Tensor:
    """
    Put parts together, each of which has some rows of each image: those of the first image come
    first.

    Args:
        parts: each has a row for each of its RoIs.
        numbers: for each part, how many of its rows belong to each image.
    """
    of_parts = [part.split(n) for part, n in zip(parts, numbers)]
    return torch.cat([rows for of_image in zip(*of_parts) for rows in of_image])
