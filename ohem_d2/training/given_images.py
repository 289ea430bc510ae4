"""
Mappers that give None in place of an image. Detectron2 takes another image then, again and again,
and where it evaluates, too.
"""

import inspect
from typing import Any

from detectron2.data.common import MapDataset
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset

MOST = 1000  # images in a row that a mapper may leave out of a training


class NothingGivenError(ValueError):
    """A mapper has left out too many images in a row."""


class _Counting(PicklableWrapper):
    def __init__(self, mapper: Any, most: int) -> None:
        super().__init__(mapper)
        self._most, self._number = most, 0

    def __call__(self, record: Any) -> Any:
        made = super().__call__(record)
        self._number = self._number + 1 if made is None else 0
        if self._number >= self._most:
            raise NothingGivenError(f"{name_of_maker(self._obj)} gives None")
        return made


def limit_nothing(dataset: Dataset, most: int = MOST) -> None:
    """
    Let a data set of Detectron2's raise `NothingGivenError` once its mapper has given None for so
    many images in a row, or for all of them.

    Args:
        dataset: that of a loader. If it is none of Detectron2's, it is left alone.
        most: the number of images.
    """
    if isinstance(dataset, MapDataset):
        dataset._map_func = _Counting(dataset._map_func, min(most, len(dataset)))


def name_of_maker(maker: Any) -> str:
    """Name what makes images: a class or a function."""
    maker = getattr(maker, "func", maker)  # of a partial
    named = maker if inspect.isclass(maker) or inspect.isroutine(maker) else type(maker)
    if inspect.isgenerator(maker):  # of whose function this is the name
        return maker.__qualname__
    return f"{named.__module__}.{named.__qualname__}"
