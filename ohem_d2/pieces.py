"""Reading many RoIs piece by piece."""

from collections.abc import Callable

from detectron2.structures import Instances
from torch import Tensor, cat


def read_in_pieces(
    read: Callable[[list[Instances]], tuple[Tensor, ...]], rois: list[Instances], size: int
) -> tuple[Tensor, ...]:
    """
    Read RoIs, not more of an image at a time than a number, so that memory does not grow with all.

    Args:
        read: from RoIs to tensors that have a row for each of them, those of the first image first.
        rois: those of each image, R in all.
        size: how many of each image are read at a time.

    Returns:
        what ``read`` would return for all: (R, ...) each.
    """
    most = max(map(len, rois), default=0)
    pieces = [[x[a : a + size] for x in rois] for a in range(0, most, size)] or [rois]
    outputs = [read(piece) for piece in pieces]
    sizes = [[len(x) for x in piece] for piece in pieces]
    return tuple(_by_image(parts, sizes) for parts in zip(*outputs))


def _by_image(parts: tuple[Tensor, ...], sizes: list[list[int]]) -> Tensor:
    """
    Put parts together, each of which has some rows of each image: those of the first image come
    first.

    Args:
        parts: each has a row for each of its RoIs.
        sizes: for each part, how many of its rows belong to each image.
    """
    of_parts = [part.split(n) for part, n in zip(parts, sizes)]
    return cat([rows for of_image in zip(*of_parts) for rows in of_image])
