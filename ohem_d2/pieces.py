"""Reading many RoIs without gradients: piece by piece, and pooled by all cores of a CPU."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from detectron2.structures import Boxes, Instances
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


def pool(pooler: nn.Module, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
    """
    Pool the features of RoIs. On the CPU, where torchvision's RoIAlign works on one core, each core
    gets a part of them, unless gradients are needed.

    Args:
        pooler: Detectron2's `ROIPooler`.
        features: (N, C, H, W) of each level.
        boxes: the RoIs of each image, R in all.

    Returns:
        (R, C, h, w), bitwise what the pooler itself returns.
    """
    threads = torch.get_num_threads()
    is_eager = not (torch.is_grad_enabled() or torch.jit.is_tracing())
    if threads == 1 or not is_eager or features[0].device.type != "cpu":
        return pooler(features, boxes)
    parts = [[] for _ in range(threads)]
    for x in boxes:
        size = -(-len(x) // threads)
        for i, part in enumerate(parts):
            part.append(x[i * size : (i + 1) * size])
    dtype, is_autocast = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def pool_part(part: list[Boxes]) -> Tensor:
        # Both settings are those of a thread.
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=is_autocast):
            return pooler(features, part)

    with ThreadPoolExecutor(threads) as executor:
        pooled = list(executor.map(pool_part, parts))
    return _by_image(pooled, [[len(x) for x in part] for part in parts])


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
