"""A COCO-format JSON file, read as tools write it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from ..errors import InputError
from ..paths import wrong_file
from .class_names import of_one_name
from .fields import (
    counterpart,
    flag,
    is_number,
    number,
    plain_id,
    read_keypoints,
    read_outline,
)
from .file_names import (
    as_on_disk,
    composed,
    folded,
    in_other_capitals,
    is_of_windows,
    note_capitals,
)
from .findings import Findings
from .keypoints import flip_pairs
from .other_files import not_of_coco
from .text_files import read_json


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# What is needed: of each list, the fields of its entries, the test for each, and the words for it.
# Besides these, each entry has an id.
_FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "categories": {"name": (_is_text, "a text")},
    "images": {"file_name": (_is_text, "a text")},
    "annotations": {"bbox": (_is_box, "[x, y, width, height]")},
}


ROBOFLOW = "_annotations.coco.json"  # beside the images, in a folder as Roboflow writes it


def load_coco(
    json_file: Path, image_folder: Path, findings: Findings | None = None
) -> tuple[list[dict], list[str], dict]:
    """
    Read a data set in COCO's format.

    Own code: Detectron2's reader drops objects whose ``segmentation`` is bad, also of a model
    without masks, and takes an ``iscrowd`` of null for a crowd.

    Args:
        json_file: the annotations.
        image_folder: what the ``file_name`` of each image is relative to.
        findings: where to put what is odd.

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id``, and the
        ``id`` and ``area`` of the file; what is wrong with a field that not every model looks at is
        in ``unusable``, by the name of the field, which is left out; the class names, in the order
        of their ids; and further metadata: ``category_ids``, the id of each name, and that of the
        keypoints, if any.

    Raises:
        InputError: a file is missing or malformed.
    """
    if reason := wrong_file(json_file):
        raise InputError(f"{json_file} {reason}, expected annotations in COCO's format")
    if not image_folder.is_dir():
        raise InputError(f"{image_folder}, the folder of the images of {json_file}, does not exist")
    content = read_json(json_file)
    if other := not_of_coco(content):
        raise InputError(
            f"{json_file} is {other}, expected an object with images, annotations and categories"
        )
    try:
        names = check_content(content)
        points = _keypoint_names(content["categories"], json_file, findings)
        used = next((x for x in points.values() if x), [])
        of_images = _objects(content["annotations"], points, used, json_file, findings)
    except ValueError as e:
        raise InputError(f"{json_file}: {e}") from None
    if (root := _root_class(content)) is not None:
        used_by = sum(a["category_id"] == root for a in content["annotations"])
        words = f"{names[root]!r}, id {root}"
        if used_by:
            kind = "class that groups the others, and has objects of its own, kept"
            words += f", {used_by} of {len(content['annotations'])} objects"
        else:
            kind = "class that only groups the others, left out"
            del names[root]
        if findings is not None:
            findings.add(kind, json_file, words)

    records = []
    first_names: dict[str, str] = {}
    for image in sorted(content["images"], key=lambda x: x["id"]):
        objects = of_images.get(image["id"], [])
        for annotation in objects:
            annotation["category_id"] = names[annotation["category_id"]]
        file = find_image(json_file, image_folder, image["file_name"], findings)
        first = first_names.setdefault(file, image["file_name"])
        if composed(first) != composed(image["file_name"]) and folded(first) == folded(
            image["file_name"]
        ):
            raise InputError(
                f"{json_file} names the images {first!r} and {image['file_name']!r}, and there is "
                f"one file for both, {file}: expected one for each"
            )
        records.append(
            {
                "file_name": file,
                "image_id": image["id"],
                "width": image.get("width"),
                "height": image.get("height"),
                "annotations": objects,
            }
        )
    if findings is not None:
        for words in of_one_name(names):
            findings.add(
                "ids of categories that have the same name, taken as one", json_file, words
            )
    classes = list(dict.fromkeys(names[i] for i in sorted(names)))
    ids: dict[str, int | str] = {}
    for i in sorted(names):
        ids.setdefault(names[i], i)
    metadata: dict[str, Any] = {"category_ids": ids}
    if used:
        metadata |= {"keypoint_names": used, "keypoint_flip_map": flip_pairs(used)}
    return records, classes, metadata


def _keypoint_names(
    categories: list[dict], json_file: Path, findings: Findings | None
) -> dict[int | str, list[str]]:
    """The names of the keypoints of each category, which not every model looks at."""
    points: dict[int | str, list[str]] = {}
    for category in categories:
        names = category.get("keypoints") or []
        good = isinstance(names, list) and all(map(_is_text, names))
        if not good or len(set(names)) < len(names):
            if findings is not None:
                words = f"category {category['name']!r}: {names!r}, expected texts, each once"
                findings.add("names of keypoints that cannot be read, left out", json_file, words)
            names = []
        points[category["id"]] = names
    return points


def _root_class(content: dict) -> int | None:
    """
    The id of the class that Roboflow puts before the others as that which they belong to. It gives
    it to no object.
    """
    roots = [c for c in content["categories"] if c["id"] == 0 and c.get("supercategory") == "none"]
    for root in roots:
        others = [c for c in content["categories"] if c is not root]
        if others and all(c.get("supercategory") == root["name"] for c in others):
            return root["id"]
    return None


def find_image(json_file: Path, folder: Path, name: str, findings: Findings | None) -> str:
    """
    Return the path of an image, which an annotation file of somebody else's must not lead anywhere.

    Raises:
        InputError: it is not there, or outside the folder.
    """
    if is_of_windows(name):
        raise InputError(
            f"{json_file} names the image {name!r}, a path on a machine with Windows: expected a "
            f"path inside of {folder}"
        )
    if not os.path.isfile(os.path.join(folder, name)):
        name = name.strip()
    path = os.path.join(folder, name)
    if not os.path.isfile(path):  # which may have the separators of Windows
        path = os.path.join(folder, name.replace("\\", "/"))
    inside = os.path.join(os.path.abspath(folder), "")
    if not os.path.abspath(path).startswith(inside):
        raise InputError(
            f"{json_file} names the image {name!r}, which is outside {folder}: expected one inside "
            "of it (give the folder that holds all images, or put a link to the other one into it)"
        )
    found = as_on_disk(path)
    if found is None and (found := in_other_capitals(path)) and findings is not None:
        note_capitals(found, path, findings)
    if found is None or not os.path.isfile(found):
        raise InputError(f"{json_file} names the image {path}: no such file")
    return found


def _objects(
    annotations: list[dict],
    points: dict[int | str, list[str]],
    used: list[str],
    json_file: Path,
    findings: Findings | None,
) -> dict[int | str, list[dict]]:
    """
    The objects of each image, by its id.

    Raises:
        ValueError: says which entry is wrong.
    """
    of_images: dict[int | str, list[dict]] = {}
    for position, entry in enumerate(annotations):
        annotation = {name: entry[name] for name in ("id", "category_id")}
        annotation |= {"bbox": entry["bbox"], "bbox_mode": BoxMode.XYWH_ABS}
        for name in ("iscrowd", "ignore"):
            try:
                annotation[name] = flag(entry.get(name))
            except ValueError as e:
                raise ValueError(f"{name!r} of annotations[{position}] is {e}") from None
        # A crowd is what Detectron2 keeps apart from objects everywhere.
        annotation["iscrowd"] |= annotation.pop("ignore")
        if (area := number(entry.get("area"))) is not None:
            annotation["area"] = area
        elif findings is not None and entry.get("area") is not None:
            findings.add("area that is no number, computed", json_file, f"annotations[{position}]")
        attributes = entry.get("attributes")
        if findings is not None and isinstance(attributes, dict) and attributes.get("rotation"):
            findings.add(
                "box with the attribute 'rotation', which is not turned",
                json_file,
                f"annotations[{position}]",
            )
        if (seen := number(entry.get("num_keypoints"))) is not None:
            annotation["num_keypoints"] = int(seen)
        for name, (value, fault) in _optional(entry, points, used):
            if value is not None:
                annotation[name] = value
            elif fault:
                words = f"annotations[{position}]: {fault}"
                annotation.setdefault("unusable", {})[name] = words
        of_images.setdefault(entry["image_id"], []).append(annotation)
    return of_images


def _optional(
    entry: dict, points: dict[int | str, list[str]], used: list[str]
) -> Iterator[tuple[str, tuple[list | dict | None, str]]]:
    """What only some models look at."""
    yield "segmentation", read_outline(entry.get("segmentation"))
    keypoints, fault = read_keypoints(entry.get("keypoints"))
    names = points[entry["category_id"]]
    if keypoints is not None and names != used:
        keypoints, fault = None, "its class has other keypoints than the first that has some"
    elif keypoints is not None and used and len(keypoints) != 3 * len(used):
        fault = f"{len(keypoints) // 3} keypoints, where {len(used)} have names"
        keypoints = None
    yield "keypoints", (keypoints, fault)


def check_content(content: object) -> dict[int | str, str]:
    """
    Check the content of a file against `_FIELDS`, and that ids refer to something, which they are
    made to where one is a number and the other its text.

    Returns:
        the name of each category id.

    Raises:
        ValueError: says which entry is wrong.
    """
    if not isinstance(content, dict):
        raise ValueError("expected an object with images, annotations and categories")
    known: dict[str, set[int | str]] = {}
    for kind, checks in _FIELDS.items():
        entries = content.get(kind)
        if not isinstance(entries, list):
            raise ValueError(f"expected a list of {kind!r}")
        for position, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ValueError(f"{kind}[{position}] is {entry!r}, expected an object")
            for name in ("id", "image_id", "category_id") if kind == "annotations" else ("id",):
                try:
                    entry[name] = plain_id(entry.get(name))
                except ValueError as e:
                    raise ValueError(f"{name!r} of {kind}[{position}] is {e}") from None
            for name, (is_valid, expected) in checks.items():
                if not is_valid(entry.get(name)):
                    raise ValueError(
                        f"{name!r} of {kind}[{position}] is {entry.get(name)!r}, "
                        f"expected {expected}"
                    )
        known[kind] = _check_unique(kind, entries)
    if not known["images"]:
        raise ValueError("it has no images")
    for position, entry in enumerate(content["annotations"]):
        for name, kind in (("image_id", "images"), ("category_id", "categories")):
            if entry[name] not in known[kind]:
                other = counterpart(entry[name])
                if other not in known[kind]:
                    raise ValueError(
                        f"{name!r} of annotations[{position}] is {entry[name]!r}, "
                        f"which is none of its {kind}"
                    )
                entry[name] = other
    return {entry["id"]: entry["name"] for entry in content["categories"]}


def _check_unique(kind: str, entries: list[dict]) -> set[int | str]:
    """The ids of entries, which are made numbers if some are and the others can be."""
    if len({type(entry["id"]) for entry in entries}) > 1:
        for entry in entries:
            if isinstance(entry["id"], str):
                number_in = counterpart(entry["id"])
                if number_in is None:
                    raise ValueError(f"the ids of its {kind} are partly numbers and partly texts")
                entry["id"] = number_in
    positions: dict[int | str, int] = {}
    for position, entry in enumerate(entries):
        first = positions.setdefault(entry["id"], position)
        if first != position:
            raise ValueError(
                f"two of its {kind} have the same id, {entry['id']!r}: {kind}[{first}] and "
                f"{kind}[{position}]"
            )
    return set(positions)
