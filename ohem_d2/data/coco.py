"""A COCO-format JSON file, checked before Detectron2 reads it."""

import json
from numbers import Real
from pathlib import Path

from detectron2.data.datasets import load_coco_json

from ..errors import InputError


def load_coco(json_file: Path, image_folder: Path) -> tuple[list[dict], list[str]]:
    """
    Read a data set in COCO's format.

    Args:
        json_file: the annotations.
        image_folder: what the ``file_name`` of each image is relative to.

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id``; and the
        class names, in the order of their ids.

    Raises:
        InputError: a file is missing or malformed.
    """
    if not json_file.is_file():
        raise InputError(f"{json_file} does not exist")
    if not image_folder.is_dir():
        raise InputError(f"{image_folder}, the folder of the images of {json_file}, does not exist")
    try:
        content = json.loads(json_file.read_text(encoding="utf-8"))
        names = _check(content)
    except ValueError as e:
        raise InputError(f"{json_file}: {e}") from None

    records = load_coco_json(str(json_file), str(image_folder))
    for record in records:
        if not Path(record["file_name"]).is_file():
            raise InputError(f"{json_file} names the image {record['file_name']}: no such file")
        for annotation in record["annotations"]:
            annotation["category_id"] = names[annotation["category_id"]]
    return records, list(dict.fromkeys(names[i] for i in sorted(names)))


def _check(content: object) -> dict[int, str]:
    """
    Check what Detectron2 and pycocotools take for granted.

    Returns:
        the name of each category id.

    Raises:
        ValueError: says which entry is wrong.
    """
    if not isinstance(content, dict):
        raise ValueError("expected an object with images, annotations and categories")
    is_number = lambda v: isinstance(v, Real) and not isinstance(v, bool)  # noqa: E731
    is_box = lambda v: isinstance(v, list) and len(v) == 4 and all(map(is_number, v))  # noqa: E731
    is_id = lambda v: isinstance(v, (int, str))  # noqa: E731
    fields = {
        "categories": {"id": (is_id, "an id"), "name": (lambda v: isinstance(v, str), "a text")},
        "images": {
            "id": (is_id, "an id"),
            "file_name": (lambda v: isinstance(v, str), "a text"),
            "width": (is_number, "a number"),
            "height": (is_number, "a number"),
        },
        "annotations": {
            "id": (is_id, "an id"),
            "image_id": (is_id, "an id"),
            "category_id": (is_id, "an id"),
            "bbox": (is_box, "[x, y, width, height]"),
        },
    }
    ids = {}
    for kind, checks in fields.items():
        entries = content.get(kind)
        if not isinstance(entries, list):
            raise ValueError(f"expected a list of {kind!r}")
        for position, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ValueError(f"{kind}[{position}] is {entry!r}, expected an object")
            for name, (is_valid, expected) in checks.items():
                if not is_valid(entry.get(name)):
                    raise ValueError(
                        f"{name!r} of {kind}[{position}] is {entry.get(name)!r}, "
                        f"expected {expected}"
                    )
        ids[kind] = [entry["id"] for entry in entries]
        if len(set(ids[kind])) < len(ids[kind]):
            raise ValueError(f"two of its {kind} have the same id")
    if not ids["images"]:
        raise ValueError("it has no images")
    known = {kind: set(v) for kind, v in ids.items()}
    for position, entry in enumerate(content["annotations"]):
        for name, kind in (("image_id", "images"), ("category_id", "categories")):
            if entry[name] not in known[kind]:
                raise ValueError(
                    f"{name!r} of annotations[{position}] is {entry[name]!r}, "
                    f"which is none of its {kind}"
                )
    return {entry["id"]: entry["name"] for entry in content["categories"]}
