"""A COCO-format JSON file, checked before Detectron2 reads it."""

import json
import math
import tempfile
from numbers import Real
from pathlib import Path

from detectron2.data.datasets import load_coco_json

from ..errors import InputError
from .findings import Findings


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# What Detectron2 and pycocotools take for granted: of each list, the fields of its entries, the
# test for each, and the words for it.
_FIELDS = {
    "categories": {"id": (_is_id, "an id"), "name": (_is_text, "a text")},
    "images": {
        "id": (_is_id, "an id"),
        "file_name": (_is_text, "a text"),
        "width": (_is_number, "a number"),
        "height": (_is_number, "a number"),
    },
    "annotations": {
        "id": (_is_id, "an id"),
        "image_id": (_is_id, "an id"),
        "category_id": (_is_id, "an id"),
        "bbox": (_is_box, "[x, y, width, height]"),
    },
}


ROBOFLOW = "_annotations.coco.json"  # beside the images, in a folder as Roboflow writes it


def load_coco(
    json_file: Path, image_folder: Path, findings: Findings | None = None
) -> tuple[list[dict], list[str], dict]:
    """
    Read a data set in COCO's format.

    Args:
        json_file: the annotations.
        image_folder: what the ``file_name`` of each image is relative to.
        findings: where to put what is odd.

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id``; the class
        names, in the order of their ids; and further metadata: ``category_ids``, the id of each
        name, and that of the keypoints, if any.

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
    if (root := _root_class(content)) is not None:
        words = f"{names.pop(root)!r}, id {root}"
        if findings is not None:
            findings.add("class that only groups the others, left out", json_file, words)

    try:
        records = _load(json_file, image_folder, content)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(
            f"{json_file}: Detectron2 cannot read it ({type(e).__name__}: {e})"
        ) from None
    for record in records:
        if not Path(record["file_name"]).is_file():
            raise InputError(f"{json_file} names the image {record['file_name']}: no such file")
        for annotation in record["annotations"]:
            annotation["category_id"] = names[annotation["category_id"]]
    classes = list(dict.fromkeys(names[i] for i in sorted(names)))
    metadata = {"category_ids": {name: i for i, name in names.items()}}
    return records, classes, metadata | _keypoint_metadata(content["categories"])


def _load(json_file: Path, image_folder: Path, content: dict) -> list[dict]:
    """
    Detectron2's records. It refuses annotations that are to be ignored (``"ignore": 1``): they are
    crowds for it, which it keeps apart from objects everywhere.
    """
    ignored = [a for a in content["annotations"] if a.get("ignore")]
    if not ignored:
        return load_coco_json(str(json_file), str(image_folder))
    for annotation in ignored:
        annotation.update(ignore=0, iscrowd=1)
    with tempfile.TemporaryDirectory(prefix="coco_") as folder:
        file = Path(folder) / json_file.name
        file.write_text(json.dumps(content), encoding="utf-8")
        return load_coco_json(str(file), str(image_folder))


def _root_class(content: dict) -> int | None:
    """
    The id of the class that Roboflow puts before the others as that which they belong to. No
    object has it.
    """
    roots = [c for c in content["categories"] if c["id"] == 0 and c.get("supercategory") == "none"]
    for root in roots:
        others = [c for c in content["categories"] if c is not root]
        used = any(a["category_id"] == root["id"] for a in content["annotations"])
        if others and not used and all(c.get("supercategory") == root["name"] for c in others):
            return root["id"]
    return None


def _keypoint_metadata(categories: list[dict]) -> dict:
    """What Detectron2 needs to know of keypoints; all classes that have some share their names."""
    names = next((c["keypoints"] for c in categories if c.get("keypoints")), None)
    if names is None:
        return {}
    pairs = [(n, n.replace("left", "right")) for n in names if "left" in n]
    return {
        "keypoint_names": names,
        "keypoint_flip_map": [(left, right) for left, right in pairs if right in names],
    }


def _check(content: object) -> dict[int, str]:
    """
    Check the content of a file against `_FIELDS`, and that ids refer to something.

    Returns:
        the name of each category id.

    Raises:
        ValueError: says which entry is wrong.
    """
    if not isinstance(content, dict):
        raise ValueError("expected an object with images, annotations and categories")
    ids = {}
    for kind, checks in _FIELDS.items():
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
        if len({type(i) for i in ids[kind]}) > 1:
            raise ValueError(f"the ids of its {kind} are partly numbers and partly texts")
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
