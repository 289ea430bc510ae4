"""A folder of JSON files as labelme writes them, one for each image."""

# Own code: supervision does not read them, and Datumaro's "LabelMe" is the XML of another tool.

import math
from pathlib import Path

from detectron2.structures import BoxMode

from ..errors import InputError
from .class_names import normalise
from .fields import marks
from .findings import Findings
from .image_files import (
    Described,
    ImageFolder,
    base_name,
    files_below,
    find_image,
    find_other_name,
    image_folders,
)
from .other_files import check_folder
from .text_files import read_json

_WITHOUT_BOX = ("point", "points", "line", "linestrip")


def load_labelme(
    folder: Path, images: str | None = None, findings: Findings | None = None
) -> tuple[list[dict], list[str], dict]:
    """
    Read labelme's JSON files of a folder and of those inside of it. Rectangles and circles become
    boxes, polygons become boxes with a segmentation; the polygons of a class that share a
    ``group_id`` are one object. Points and lines are left out and counted.

    Args:
        folder: that of the JSON files.
        images: that of the images; by default, the images beside the JSON files, or in a folder
            ``images``. Pictures inside of JSON files are not read.
        findings: where to put what is odd.

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id``; the class
        names, sorted; and further metadata, of which there is none.

    Raises:
        InputError: a file is missing or malformed.
    """
    findings = Findings() if findings is None else findings
    check_folder(folder, "a folder of labelme's JSON files")
    folders = [ImageFolder(x) for x in image_folders(folder, images)]
    records = []
    described = Described()
    for file in files_below(folder, ".json"):
        content = _read(file)
        if content is None:
            findings.add("JSON file that is not labelme's, left out", file)
            continue
        named = base_name(content.get("imagePath") or "")
        inside = file.parent.relative_to(folder)
        image = find_image(folders, file, inside, named, findings)
        if image is None:
            places = " or ".join(str(x.folder) for x in folders)
            raise InputError(
                f"{file} is for the image {named or file.stem}, which is not in {places}: expected "
                "it there (or '?images=<folder>')"
            )
        described.add(image, str(file))
        find_other_name("JSON file", image, file, inside, named, folders, findings)
        try:
            is_left_out = marks(_flags(content).items()).get("ignore")
        except ValueError as e:
            raise InputError(f"{file}: the image has the flag {e}") from None
        if is_left_out:
            findings.add("image with the flag 'ignore', left out", file)
            continue
        records.append(_load_image(content, file, image, (inside / file.stem).as_posix(), findings))
    if not records and any(x in described for y in folders for x in y.images):
        raise InputError(f"{folder}: all images have the flag 'ignore', expected some without it")
    if not records:
        raise InputError(f"{folder} has no JSON file of labelme's, expected one for each image")
    for each in folders:
        if any(x in described for x in each.images):
            for image in (x for x in each.images if x not in described):
                findings.add("image without a JSON file, left out", image)
    return records, sorted({a["category_id"] for r in records for a in r["annotations"]}), {}


def _read(file: Path) -> dict | None:
    """The content of a file, or None if it is not labelme's."""
    content = read_json(file)
    if not isinstance(content, dict) or "shapes" not in content:
        return None
    if not isinstance(content["shapes"], list):
        raise InputError(f"{file}: shapes is {content['shapes']!r}, expected a list")
    if not isinstance(content.get("imagePath") or "", str):
        raise InputError(f"{file}: imagePath is {content['imagePath']!r}, expected a text")
    return content


def _load_image(content: dict, file: Path, image: Path, image_id: str, findings: Findings) -> dict:
    groups: dict[tuple, dict] = {}
    for position, shape in enumerate(content["shapes"]):
        try:
            annotation = _load_shape(shape, findings, file, position)
        except ValueError as e:
            raise InputError(f"{file}: shapes[{position}] {e}") from None
        if annotation is None:
            continue
        # labelme's way to say that several polygons are one object
        group = shape.get("group_id") if "segmentation" in annotation else None
        key = (position,) if group is None else (annotation["category_id"], str(group))
        if key in groups:
            one = groups[key]
            (x0, y0, x1, y1), (u0, v0, u1, v1) = one["bbox"], annotation["bbox"]
            one["bbox"] = [min(x0, u0), min(y0, v0), max(x1, u1), max(y1, v1)]
            one["segmentation"] += annotation["segmentation"]
        else:
            groups[key] = annotation
    return {
        "file_name": str(image),
        "image_id": image_id,
        "height": content.get("imageHeight"),  # which old files lack
        "width": content.get("imageWidth"),
        "annotations": list(groups.values()),
    }


def _load_shape(shape: object, findings: Findings, file: Path, position: int) -> dict | None:
    if not isinstance(shape, dict):
        raise ValueError(f"is {shape!r}, expected an object")
    label = shape.get("label")
    if not isinstance(label, str) or not (label := normalise(label)):
        raise ValueError(f"has the label {shape.get('label')!r}, expected a class's name")
    kind = shape.get("shape_type") or "polygon"  # which the first versions do not write
    place = f"shapes[{position}], {label!r}"
    if kind in _WITHOUT_BOX:
        findings.add(f"{kind}, which has no box, left out", file, place)
        return None
    least = {"polygon": 3, "rotation": 3, "rectangle": 2, "circle": 2, "mask": 2}
    if kind not in least:
        raise ValueError(f"({label!r}) is a {kind!r}, expected one of {', '.join(least)}")
    points = shape.get("points")
    if (
        not isinstance(points, list)
        or len(points) < least[kind]
        or not all(isinstance(p, list) and len(p) == 2 for p in points)
        or not all(type(v) in (int, float) and math.isfinite(v) for p in points for v in p)
    ):
        raise ValueError(f"({label!r}) has the points {points!r}, expected {least[kind]} [x, y]")
    xs, ys = zip(*points)
    if kind == "circle":  # its centre and a point on it
        radius = math.dist(*points[:2])
        xs, ys = (xs[0] - radius, xs[0] + radius), (ys[0] - radius, ys[0] + radius)
    annotation = {
        "category_id": label,
        "bbox": [min(xs), min(ys), max(xs), max(ys)],
        "bbox_mode": BoxMode.XYXY_ABS,
    }
    if kind == "polygon":
        annotation["segmentation"] = [[v for point in points for v in point]]
    elif kind == "rotation":
        findings.add("rotated shape, taken as the upright box around it", file, place)
    elif kind == "mask":
        findings.add("mask, of which the box is taken", file, place)
    try:
        annotation |= marks(_flags(shape).items())
        # Where X-AnyLabeling has it
        annotation |= marks([("difficult", shape.get("difficult"))])
    except ValueError as e:
        raise ValueError(f"({label!r}) has the flag {e}") from None
    return annotation


def _flags(of: dict) -> dict:
    """The flags of an image or of a shape."""
    flags = of.get("flags")
    return flags if isinstance(flags, dict) else {}
