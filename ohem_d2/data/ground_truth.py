"""The ground truth of a data set in COCO's form, as pycocotools evaluates by it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode, PolygonMasks

from .image_reading import plain_path


def coco_ground_truth(
    records: Sequence[dict], classes: Sequence[str], ids: Sequence[int] | None = None
) -> dict[str, Any]:
    """
    Write a data set in COCO's form, so that pycocotools says of it what it says of the user's own
    file: with its areas, crowds and numbers of boxes as they are.

    Detectron2 has a function for this, which computes areas anew, rounds boxes, and moves the
    keypoints of the records by half a pixel each time.

    Args:
        records: in Detectron2's form. They are left as they are.
        classes: the names, in the order of the model's labels.
        ids: of the categories. By default, the labels.

    Returns:
        what `json.dumps` takes. Ids of annotations are those of the records where pycocotools can
        work with them, else they are counted from 1.
    """
    ids = range(len(classes)) if ids is None else ids
    annotations = []
    for record in records:
        for annotation in record.get("annotations", []):
            box = [float(x) for x in annotation["bbox"]]
            form = BoxMode.XYWH_ABS if len(box) == 4 else BoxMode.XYWHA_ABS
            box = BoxMode.convert(box, annotation["bbox_mode"], form)
            entry = {
                "id": annotation.get("id"),
                "image_id": record["image_id"],
                "category_id": ids[annotation["category_id"]],
                "bbox": box,
                "iscrowd": int(annotation.get("iscrowd", 0)),
                "area": annotation.get("area"),
            }
            outline = annotation.get("segmentation")
            if outline is not None:
                entry["segmentation"] = _as_text(outline)
            if entry["area"] is None:
                entry["area"] = box[2] * box[3] if outline is None else _area(outline)
            if "keypoints" in annotation:
                points = [float(x) for x in annotation["keypoints"]]
                # COCO counts pixels from the middle of the first one.
                entry["keypoints"] = [x if i % 3 == 2 else x - 0.5 for i, x in enumerate(points)]
                seen = sum(x > 0 for x in points[2::3])
                entry["num_keypoints"] = annotation.get("num_keypoints", seen)
            annotations.append(entry)
    own = [entry["id"] for entry in annotations]
    # To pycocotools, a detection that is matched to the id 0 is matched to nothing.
    if any(type(x) is not int or x < 1 for x in own) or len(set(own)) < len(own):
        for number, entry in enumerate(annotations, 1):
            entry["id"] = number
    images = [
        {
            "id": record["image_id"],
            "width": int(record["width"]),
            "height": int(record["height"]),
            "file_name": plain_path(str(record["file_name"])),
        }
        for record in records
    ]
    categories = [{"id": i, "name": name} for i, name in zip(ids, classes)]
    info = {"description": "ground truth of ohem_d2"}
    return {"info": info, "images": images, "categories": categories, "annotations": annotations}


def _as_text(outline: Any) -> Any:
    if isinstance(outline, dict):
        counts = outline["counts"]
        size = [int(x) for x in outline["size"]]
        return {"size": size, "counts": counts.decode() if isinstance(counts, bytes) else counts}
    return [np.asarray(polygon, dtype=float).tolist() for polygon in outline]


def _area(outline: Any) -> float:
    if isinstance(outline, dict):
        return float(mask_util.area(outline))
    return float(PolygonMasks([outline]).area()[0])
