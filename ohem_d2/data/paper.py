"""
The data sets of the paper that Detectron2 does not have.

- ``voc_2012_test``: images only, since its annotations are not public. Its evaluation writes the
  files that PASCAL VOC's evaluation server takes.
- ``coco_2014_train_voc_classes`` and ``coco_2014_val_voc_classes``: the objects of COCO that are of
  one of PASCAL VOC's classes.

Their files are expected where Detectron2 expects those of the others, below the folder that
``$DETECTRON2_DATASETS`` names, or below ``datasets``.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from detectron2.data.datasets import load_coco_json
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from PIL import Image

from ..errors import InputError

# Data sets by name: what loads each of them, and its metadata.
Known = dict[str, tuple[Callable[[], list[dict]], dict]]

# COCO's name of a class -> PASCAL VOC's, where they differ.
_RENAMED = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}


def load_images(folder: Path, split: str) -> list[dict]:
    """
    Load a split of PASCAL VOC without its annotations.

    Args:
        folder: the devkit's, with ``ImageSets`` and ``JPEGImages``.
        split: the name of a list in ``ImageSets/Main``.

    Returns:
        records in Detectron2's form, without objects.

    Raises:
        InputError: the split is not there.
    """
    records = []
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.exists():
        raise InputError(
            f"{listed} does not exist, expected the images of PASCAL VOC's {split} set, which are "
            "a download of their own"
        )
    for image_id in listed.read_text().split():
        file = folder / "JPEGImages" / f"{image_id}.jpg"
        with Image.open(file) as image:
            width, height = image.size
        records.append(
            {
                "file_name": str(file),
                "image_id": image_id,
                "width": width,
                "height": height,
                "annotations": [],
            }
        )
    return records


def load_coco_with_voc_classes(json_file: str, image_root: str) -> list[dict]:
    """
    Load COCO with the objects that are of one of PASCAL VOC's classes, in VOC's order.

    Args:
        json_file: COCO's annotations.
        image_root: the folder of the images.

    Returns:
        records in Detectron2's form.

    Raises:
        InputError: the annotations are not there.
    """
    if not os.path.exists(json_file):
        raise InputError(f"{json_file} does not exist, expected COCO's annotations")
    labels = {
        category["id"]: CLASS_NAMES.index(name)
        for category in COCO_CATEGORIES
        if (name := _RENAMED.get(category["name"], category["name"])) in CLASS_NAMES
    }
    records = load_coco_json(json_file, image_root)  # with COCO's own ids of classes
    for record in records:
        record["annotations"] = [
            {**a, "category_id": labels[a["category_id"]]}
            for a in record["annotations"]
            if a["category_id"] in labels
        ]
    return records


def datasets() -> Known:
    """Return what is known of each of them."""
    root = Path(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
    voc = root / "VOC2012"
    classes = list(CLASS_NAMES)
    metadata = {"dirname": str(voc), "split": "test", "year": 2012}
    metadata |= {"thing_classes": classes, "evaluator_type": "pascal_voc_server"}
    known: Known = {"voc_2012_test": (partial(load_images, voc, "test"), metadata)}
    for split in ("train", "val"):
        json_file = str(root / "coco" / "annotations" / f"instances_{split}2014.json")
        image_root = str(root / "coco" / f"{split}2014")
        # No json_file in the metadata: it would be evaluated by, with all of COCO's classes.
        known[f"coco_2014_{split}_voc_classes"] = (
            partial(load_coco_with_voc_classes, json_file, image_root),
            {"thing_classes": classes, "image_root": image_root, "evaluator_type": "coco"},
        )
    return known
