"""Data sets by name and by address, in Detectron2's catalogs."""

from .builtin import register_builtin
from .specs import (
    ADDRESSES,
    check_annotated,
    register_by_name,
    register_datasets,
    unknown_dataset,
)

__all__ = [
    "ADDRESSES",
    "check_annotated",
    "register_builtin",
    "register_by_name",
    "register_datasets",
    "unknown_dataset",
]
