"""What a report finds, in COCO's format."""

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import count

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ..data import plain_path
from .hard_examples import Box, HardExample

_EXACT = 2**53 - 1  # the largest whole number that a script of a page tells from the next one
# What the lists are called.
TITLES = {
    "hard_examples": "hard examples",
    "label_errors": "suspected label errors",
    "model_errors": "errors of detections",
}


def as_coco(
    records: Sequence[dict],
    ranked: Sequence[tuple[int, HardExample]],
    dataset_name: str,
    name: str,
) -> dict:
    """
    Turn examples into COCO's format, each an annotation with fields of its own.

    Args:
        records: those of the images in Detectron2's catalog.
        ranked: pairs of the index of an image and an example, in the order to show them.
        dataset_name: the registered data set.
        name: "hard_examples" or "label_errors".

    Returns:
        what a JSON file of COCO's has. An annotation has the box of the example, the class of the
        object or, where there is none, that for which it is taken; and ``error_type``, ``loss``,
        ``score``, ``iou``, ``predicted_category_id`` (null: background), ``is_labelled``,
        ``true_bbox``, ``predicted_bbox``; ``label_index``, ``label_id`` and ``label_bbox`` of the
        label that it belongs to, as the record has it; ``crop`` and ``crop_bbox``, for which see
        `write_page`.
    """
    ids = category_ids(dataset_name)
    image_ids = ids_of_images(records)
    annotations = []
    for number, (image, x) in enumerate(ranked, 1):
        # Of a label and of what the model finds, no more than one is background.
        classes = [k for k in (x.true_class, x.predicted_class) if k is not None]
        predicted = None if x.predicted_class is None else ids.get(x.predicted_class)
        box = xywh(x.box)
        label = None if x.label is None else records[image]["annotations"][x.label]
        annotations.append(
            {
                "id": number,
                "image_id": image_ids[image],
                "category_id": ids[classes[0]],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "error_type": x.error_type,
                "loss": x.loss,
                "score": x.score,
                "iou": x.iou,
                "is_labelled": x.true_class is not None,
                "predicted_category_id": predicted,
                "true_bbox": None if x.true_box is None else xywh(x.true_box),
                "predicted_bbox": None if x.predicted_box is None else xywh(x.predicted_box),
                "label_index": x.label,
                "label_id": label.get("id") if label else None,
                "label_bbox": box_of(label) if label else None,
                "crop": None,
                "crop_bbox": None,
            }
        )
    return {**frame(records, dataset_name, TITLES[name]), "annotations": annotations}


def frame(records: Sequence[dict], dataset_name: str, title: str) -> dict:
    """What a file of COCO's has beside its annotations, for whose arguments see `as_coco`."""
    ids = category_ids(dataset_name)
    return {
        "info": {
            "description": f"{title} of {dataset_name}",
            "dataset": dataset_name,
            "ohem_d2": package_version(),
        },
        "images": [
            {
                "id": i,
                "file_name": os.path.abspath(
                    plain_path(r["file_name"])
                ),  # wherever the file is read from
                "height": r["height"],
                "width": r["width"],
                "original_id": r["image_id"],
            }
            for i, r in zip(ids_of_images(records), records)
        ],
        "categories": [
            {"id": ids[i], "name": x}
            for i, x in enumerate(MetadataCatalog.get(dataset_name).thing_classes)
        ],
    }


def category_ids(dataset_name: str) -> dict[int, int | str]:
    """The ids that the classes have in the user's file, if a page can have them, or others."""
    metadata = MetadataCatalog.get(dataset_name)
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    if contiguous and all(map(_is_exact, contiguous)):
        return {v: k for k, v in contiguous.items()}
    in_file = {k: v for k, v in metadata.get("category_ids", {}).items() if _is_exact(v)}
    names = metadata.thing_classes
    # A class of the training set alone has none.
    unused = (i for i in count(1) if i not in in_file.values())
    return {i: in_file[x] if x in in_file else next(unused) for i, x in enumerate(names)}


def ids_of_images(records: Sequence[dict]) -> list[int]:
    """
    Those of the user's file where they are numbers, as COCO's are, and a page can have them; or
    numbers from 1.
    """
    ids = [r["image_id"] for r in records]
    is_kept = all(isinstance(i, int) and _is_exact(i) for i in ids)
    return ids if is_kept else list(range(1, len(ids) + 1))


def _is_exact(i: int | str) -> bool:
    return not isinstance(i, int) or abs(i) <= _EXACT


def id_for_page(i: int | str | None) -> int | str | None:
    """An id of the user's file: as a text where a script would take it for another number."""
    return i if i is None or _is_exact(i) else str(i)


def package_version() -> str | None:
    """That of this package; None where it is not installed, as in a clone."""
    try:
        return version("ohem_d2")
    except PackageNotFoundError:
        return None


def box_of(label: dict) -> list[float]:
    """The box of an annotation of a record, XYWH."""
    box = [float(v) for v in label["bbox"]]
    return BoxMode.convert(box, label["bbox_mode"], BoxMode.XYWH_ABS)


def xywh(box: Box) -> list[float]:
    """Of an XYXY box."""
    return BoxMode.convert(list(box), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
