"""Data sets by name and by address, in Detectron2's catalogs."""

from . import shapes  # noqa: F401  (registers the built-in data set)
from .specs import check_annotated, register_addresses, register_datasets, unknown_dataset

__all__ = ["check_annotated", "register_addresses", "register_datasets", "unknown_dataset"]
