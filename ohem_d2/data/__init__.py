"""Data sets by name and by address, in Detectron2's catalogs."""

from . import paper, shapes  # noqa: F401  (which register data sets)
from .specs import check_annotated, register_addresses, register_datasets, unknown_dataset

__all__ = ["check_annotated", "register_addresses", "register_datasets", "unknown_dataset"]
