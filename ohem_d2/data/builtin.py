"""The data sets that come with the project. Importing it registers none of them."""

from collections.abc import Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog

from . import paper, shapes
from .root import data_root


def register_builtin(names: Iterable[str]) -> None:
    """
    Register those of the project's data sets that are asked for.

    Args:
        names: of any data sets. What is registered under one of them already stays as it is: it
            may be a data set of the user's own.

    Raises:
        InputError: see `data_root`.
    """
    known = {**shapes.datasets(), **paper.datasets()}
    for name in names:
        if name in known and name not in DatasetCatalog:
            data_root()  # else what it refuses looks like files that are missing
            load, metadata = known[name]
            DatasetCatalog.register(name, load)
            MetadataCatalog.get(name).set(**metadata)
