"""Decisions on labels by one who knows the truth, as many as are asked for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ohem_d2.data.boxes import iou
from ohem_d2.relabel.decisions import Box, Object, as_xywh
from ohem_d2.relabel.suspects import Suspect

# A suspect points at an object that has no label, if their boxes overlap by this IoU.
_AT_IT = 0.5

# What is labelled, or to be labelled: of the id of each image, by the id of the annotation.
Objects = dict[Any, dict[Any, Object]]


def read_objects(file: Path) -> tuple[dict[int, str], Objects]:
    """
    Read a file in COCO's format.

    Returns:
        the names of the images' files by the ids of the images; and what is labelled in each.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    names = {x["id"]: x["name"] for x in content["categories"]}
    objects: Objects = {x["id"]: {} for x in content["images"]}
    for x in content["annotations"]:
        left, top, width, height = x["bbox"]
        box = Box(left, top, left + width, top + height)
        objects[x["image_id"]][x["id"]] = Object(names[x["category_id"]], box, x["id"])
    return {x["id"]: x["file_name"] for x in content["images"]}, objects


def on_suspects(
    suspects: Sequence[Suspect], labels: Objects, truth: Objects, number: int
) -> list[dict]:
    """
    Decide on the first suspects of a report, one decision on each: a label that is wrong becomes
    right, whatever is suspected of it; an object without a label gets one, if it is suspected at
    its place. All else is rejected.

    Args:
        suspects: all of the report, in its order.
        labels: what is labelled. A label has the id of its object.
        truth: the objects.
        number: of decisions.

    Returns:
        entries of a file of decisions; fewer, if there are fewer suspects.
    """
    decisions = []
    for x in suspects[:number]:
        objects, labelled = truth[x.image_id], labels[x.image_id]
        label = None if x.label is None else labelled[x.label.id]
        if label is None:
            right = _unlabelled_at(x.shown.box, objects, labelled)
        else:
            right = objects[label.id]
        entry = _decided(x.image, x.image_id, label, right)
        decisions.append({**entry, "suspect": x.name})
    return decisions


def _unlabelled_at(box: Box, objects: dict, labelled: dict) -> Object | None:
    there = [(iou(x.box, box), i) for i, x in objects.items() if i not in labelled]
    best, i = max(there, default=(0, None))
    return objects[i] if best >= _AT_IT else None


def on_random_images(
    images: dict[int, str], labels: Objects, truth: Objects, number: int, seed: int
) -> list[dict]:
    """
    Decide on all that is in images drawn at random, one image after another: one decision on each
    object, whether it has a label or not, until all decisions are used up. In the last image, some
    objects may be left.

    Args:
        images: the path of each image, by its id.
        labels: what is labelled. A label has the id of its object.
        truth: the objects.
        number: of decisions.
        seed: of what is random. With more decisions, the first ones are the same.

    Returns:
        entries of a file of decisions; fewer, if there are fewer objects.
    """
    rng = np.random.default_rng(seed)
    decisions: list[dict] = []
    for image_id in rng.permutation(sorted(images)).tolist():
        for i in rng.permutation(sorted(truth[image_id])).tolist():
            if len(decisions) == number:
                return decisions
            label, right = labels[image_id].get(i), truth[image_id][i]
            decisions.append(_decided(images[image_id], image_id, label, right))
    return decisions


def _decided(image: str, image_id: int | str, label: Object | None, right: Object | None) -> dict:
    """Accept what is right, where it is not what is labelled."""
    proposal = None if right == label else right
    if label is None:
        suspect = "missing label"
    elif right is not None and right.box != label.box:
        suspect = "badly placed label"
    else:
        suspect = "wrong class"
    return {
        "image": image,
        "image_id": image_id,
        "suspect": suspect,
        "decision": "reject" if proposal is None else "accept",
        "label": None if label is None else {"id": label.id, **_described(label)},
        "proposal": None if proposal is None else _described(proposal),
    }


def _described(x: Object) -> dict:
    return {"category": x.category, "bbox": as_xywh(x.box)}
