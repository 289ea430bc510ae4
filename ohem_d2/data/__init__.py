"""Data sets by name and by address, in Detectron2's catalogs."""

from .builtin import register_builtin
from .checks import most_objects
from .ground_truth import coco_ground_truth
from .image_reading import plain_path, read_image
from .needs import (
    by_address,
    check_annotated,
    check_annotated_keypoints,
    check_image_counts,
    check_learned,
    check_mask_format,
    check_objects,
    check_semantic_labels,
    records_of,
    warn_of_classes_without_objects,
    warn_of_limit,
    warn_of_tested_on_training,
    warn_without_pairs,
)
from .specs import (
    ADDRESSES,
    ClassesOfWeights,
    read_all_images,
    register_by_name,
    register_datasets,
    unknown_dataset,
    warn_of_other_number,
)

__all__ = [
    "ADDRESSES",
    "ClassesOfWeights",
    "by_address",
    "check_annotated",
    "check_annotated_keypoints",
    "check_image_counts",
    "check_learned",
    "check_mask_format",
    "check_objects",
    "check_semantic_labels",
    "coco_ground_truth",
    "most_objects",
    "plain_path",
    "read_all_images",
    "read_image",
    "records_of",
    "register_builtin",
    "register_by_name",
    "register_datasets",
    "unknown_dataset",
    "warn_of_classes_without_objects",
    "warn_of_limit",
    "warn_of_other_number",
    "warn_of_tested_on_training",
    "warn_without_pairs",
]
