"""The errors of a model's detections, in COCO's format: their types, and what these cost in AP."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import MetadataCatalog

from .coco_form import TITLES, box_of, category_ids, frame, ids_of_images
from .hard_examples import Findings
from .tide import ERRORS, RIGHT, Matches, Truth, costs, match


def as_model_errors(
    records: Sequence[dict], findings: Sequence[Findings], dataset_name: str
) -> dict:
    """
    Sort the detections of all images by their errors.

    Args:
        records: those of the images in Detectron2's catalog.
        findings: what `look_at` returned of each.
        dataset_name: the registered data set.

    Returns:
        what a JSON file of COCO's has, with the detections as annotations, and ``labels``; see
        docs/model_errors.md for their fields.
    """
    errors = ModelErrors(dataset_name)
    for record, f in zip(records, findings):
        errors.add(record, f)
    return errors.result()


@dataclass(frozen=True)
class _OfImage:
    record: dict
    matches: Matches
    labels: list[dict]
    annotations: list[dict]
    # How many there are with those of all images before.
    num_labels: int
    num_annotations: int


class ModelErrors:
    """
    The same image by image, so that what is asked for on the way matches none twice. ``len`` is how
    many images there are.
    """

    def __init__(self, dataset_name: str):
        self._dataset_name = dataset_name
        self._ids = category_ids(dataset_name)
        self._images: list[_OfImage] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, record: dict, findings: Findings) -> None:
        """Match the detections of an image, whose arguments are those of `as_model_errors`."""
        of_image, is_region = _labels_of(record, findings)
        boxes = np.array([box_of(a) for a in of_image], dtype=float).reshape(-1, 4)
        classes = np.array([a["category_id"] for a in of_image], dtype=int)
        found = findings.detections
        truth = Truth(boxes[~is_region], classes[~is_region], boxes[is_region], classes[is_region])
        m = match(found.boxes, found.classes, found.scores, truth)
        missed = np.zeros(len(of_image), dtype=bool)
        missed[~is_region] = m.is_missed
        last = self._images[-1] if self._images else None
        first = last.num_labels + 1 if last else 1
        labels = [
            {
                "id": first + i,
                "image_id": None,  # which depends on those of all images
                "category_id": self._ids[a["category_id"]],
                "bbox": boxes[i].tolist(),
                "iscrowd": int(is_region[i]),
                "label_index": i,
                "label_id": a.get("id"),
                "error_type": "Miss" if missed[i] else None,
            }
            for i, a in enumerate(of_image)
        ]
        of_truth = [first + i for i in np.flatnonzero(~is_region).tolist()]
        before = last.num_annotations if last else 0
        annotations = _detections(m, found.boxes, self._ids, of_truth, before)
        numbers = first - 1 + len(labels), before + len(annotations)
        # All at once, or, if this is interrupted, nothing.
        self._images.append(_OfImage(record, m, labels, annotations, *numbers))

    def result(self) -> dict:
        """What `as_model_errors` returns of the images that were added."""
        records = [of_image.record for of_image in self._images]
        for image_id, of_image in zip(ids_of_images(records), self._images):
            for x in (*of_image.labels, *of_image.annotations):
                x["image_id"] = image_id
        result = {
            **frame(records, self._dataset_name, TITLES["model_errors"]),
            "annotations": [x for of_image in self._images for x in of_image.annotations],
            "labels": [x for of_image in self._images for x in of_image.labels],
        }
        _add_costs(result, [of_image.matches for of_image in self._images], self._dataset_name)
        return result


def _labels_of(record: dict, f: Findings) -> tuple[list[dict], np.ndarray]:
    """All annotations, and whether each is a region to ignore."""
    is_region = np.zeros(len(record["annotations"]), dtype=bool)
    is_region[f.region_positions] = True
    return record["annotations"], is_region


def _detections(
    m: Matches,
    boxes: np.ndarray,
    ids: dict[int, int | str],
    label_ids: list[int],
    before: int,
) -> list[dict]:
    return [
        {
            "id": before + 1 + i,
            "image_id": None,
            "category_id": ids[int(m.classes[i])],
            "bbox": (box := boxes[m.order[i]].tolist()),
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": float(m.scores[i]),
            "error_type": None if m.types[i] == RIGHT else ERRORS[m.types[i]],
            "is_ignored": bool(m.is_ignored[i]),
            "iou": float(m.ious[i]),
            "label": None if m.labels[i] < 0 else label_ids[m.labels[i]],
            "labels_of_other_classes": [label_ids[x] for x in m.others[i]],
        }
        for i in range(len(m.order))
    ]


def _add_costs(result: dict, matches: Sequence[Matches], dataset_name: str) -> None:
    c = costs(matches, len(MetadataCatalog.get(dataset_name).thing_classes))
    numbers = c.numbers.sum(axis=0)
    result["info"] |= {"ap50": c.ap, "costs": _named(c.costs), "numbers": _named(numbers)}
    for k, category in enumerate(result["categories"]):
        category |= {
            "ap50": float(c.ap_by_class[k]),
            "labels": int(c.labels[k]),
            "costs": _named(c.costs_by_class[k]),
            "numbers": _named(c.numbers[k]),
        }


def _named(values: np.ndarray) -> dict:
    return dict(zip(ERRORS, values.tolist()))


def for_page(model_errors: dict, most: int) -> dict:
    """
    Make what `as_model_errors` returned smaller, for a page.

    Args:
        model_errors: what it returned.
        most: how many detections the page has, those with the highest scores.

    Returns:
        ``detections`` by falling score, each as image id, category id, score, box, error type
        (empty: right), label, labels of other classes; and ``labels``, each as image id, category
        id, box, whether it is missed. The numbers of labels are positions in these, from 0.
        ``left_out`` is how many detections the page does not have.
    """
    labels = [x for x in model_errors["labels"] if not x["iscrowd"]]
    positions = {x["id"]: i for i, x in enumerate(labels)}
    found = [x for x in model_errors["annotations"] if not x["is_ignored"]]
    found.sort(key=lambda x: -x["score"])
    detections = [
        [
            x["image_id"],
            x["category_id"],
            round(x["score"], 4),
            [round(v, 1) for v in x["bbox"]],
            x["error_type"] or "",
            None if x["label"] is None else positions[x["label"]],
            [positions[i] for i in x["labels_of_other_classes"]],
        ]
        for x in found[:most]
    ]
    return {
        **{name: model_errors["info"][name] for name in ("ap50", "costs", "numbers")},
        "categories": model_errors["categories"],
        "detections": detections,
        "left_out": len(found) - len(detections),
        "labels": [
            [
                x["image_id"],
                x["category_id"],
                [round(v, 1) for v in x["bbox"]],
                x["error_type"] == "Miss",
            ]
            for x in labels
        ],
    }
