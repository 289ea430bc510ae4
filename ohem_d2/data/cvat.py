"""An XML file in the form that CVAT calls "CVAT for images 1.1"."""

# Own code: supervision does not read it; Datumaro does, but takes a rotated box for an upright one.

import math
import os
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

from detectron2.structures import BoxMode

from ..errors import InputError
from .box_order import SORTED
from .class_names import normalise
from .fields import marks
from .file_names import as_on_disk, in_other_capitals, note_capitals
from .findings import Findings
from .image_files import Described, image_folders
from .xml_files import read_xml
from .xml_strays import strays

# Types of labels whose shapes have no box.
_WITHOUT_BOX = ("tag", "points", "polyline", "skeleton", "cuboid")


def load_cvat(
    file: Path,
    images: str | None = None,
    split: str | None = None,
    findings: Findings | None = None,
) -> tuple[list[dict], list[str], dict]:
    """
    Read CVAT's annotations of images. Boxes and ellipses become boxes, polygons become boxes with a
    segmentation, and a mask the box around it. Of what is rotated, the upright box around it is
    taken. Points, lines, cuboids, skeletons and tags are left out and counted, and so are images
    with the tag ``ignore``.

    Args:
        file: the XML file, or the folder of an ``annotations.xml``.
        images: the folder of the images; by default, ``images`` beside the file.
        split: the subset of the images, in the export of a project. By default, all.
        findings: where to put what is odd.

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id``; the class
        names, in the file's order; and further metadata, of which there is none.

    Raises:
        InputError: a file is missing or malformed.
    """
    findings = Findings() if findings is None else findings
    file = file / "annotations.xml" if file.is_dir() else file
    if not file.is_file():
        raise InputError(f"{file} does not exist, expected annotations of CVAT for images")
    root = read_xml(file)
    if root.tag != "annotations":
        raise InputError(f"{file} begins with <{root.tag}>, expected CVAT's <annotations>")
    if root.find("track") is not None:
        raise InputError(f"{file} has tracks, as CVAT for video has: expected CVAT for images 1.1")
    entries = [*root.findall("image"), *root.findall("images/image")]
    for stray in strays(root, entries, skipped=("meta",)):
        raise InputError(
            f"{file}: <{stray.tag}> lies where it is not read, expected it in an <image>"
        )
    subsets = list(dict.fromkeys(x.get("subset", "") for x in entries))
    if split is not None and split not in subsets:
        names = ", ".join(filter(None, subsets)) or "none"
        raise InputError(f"{file} has no subset {split!r}, expected one of {names}")
    folders = image_folders(file.parent, images)

    records = []
    described = Described()
    for position, entry in enumerate(entries):
        if split is not None and entry.get("subset") != split:
            continue
        name = entry.get("name", "")
        where = f"{file}: image {name!r}" if name else f"{file}: image number {position + 1}"
        image = _find_image(name, folders, where, findings)
        described.add(image, where)
        try:
            is_left_out = _is_tagged(entry)
        except ValueError as e:
            raise InputError(f"{where}: a <tag> has the attribute {e}") from None
        if is_left_out:
            findings.add("image with the tag 'ignore', left out", where)
            continue
        records.append(_load_image(entry, name, image, where, findings))
    if not records and described:
        raise InputError(f"{file}: all images have the tag 'ignore', expected some without it")
    if not records:
        raise InputError(f"{file} has no images")
    labels = [
        normalise(x.findtext("name") or "")
        for x in root.findall("meta//labels/label")
        if x.find("parent") is None and (x.findtext("type") or "").strip() not in _WITHOUT_BOX
    ]
    used = [a["category_id"] for record in records for a in record["annotations"]]
    labels = [x for x in labels if not _is_mark(x)]  # of tags, unless a shape has it
    return records, [x for x in dict.fromkeys((*labels, *used)) if x], {}


def _is_mark(label: str) -> bool:
    return label.lower() == "ignore"


def _is_tagged(entry: ET.Element) -> bool:
    """Whether a tag of an image says that it is to be ignored, by its label or an attribute."""
    tags = entry.findall("tag")
    return any(_is_mark(normalise(x.get("label") or "")) for x in tags) or any(
        marks((x.get("name"), x.text) for x in tag.findall("attribute")).get("ignore")
        for tag in tags
    )


def _find_image(name: str, folders: list[Path], where: str, findings: Findings) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts:
        raise InputError(f"{where} has no name, expected that of its file")
    if ".." in parts or parts[0] == "/":
        raise InputError(f"{where} lies outside of the folder of images, expected a path inside")
    # The folders of CVAT's server may not be here.
    places = [str(x.joinpath(*parts[k:])) for x in folders for k in range(len(parts))]
    for look in (as_on_disk, in_other_capitals):
        for place in places:
            image = look(place)
            if image is not None and os.path.isfile(image):
                if look is in_other_capitals:
                    note_capitals(image, place, findings)
                return Path(image)
    known = " or ".join(map(str, folders))
    raise InputError(f"{where} is not in {known}, expected it there (or '?images=<folder>')")


def _load_image(entry: ET.Element, name: str, image: Path, where: str, findings: Findings) -> dict:
    try:
        width, height = (int(float(entry.get(x) or 0)) for x in ("width", "height"))
    except (ValueError, OverflowError):
        size = [entry.get("width"), entry.get("height")]
        raise InputError(f"{where} has the size {size}, expected two numbers") from None
    known = [x for x in entry if x.tag in _SHAPES or x.tag in _WITHOUT_BOX]
    for stray in strays(entry, known):
        raise InputError(
            f"{where}: <{stray.tag}> is not read, expected <{'>, <'.join(_SHAPES)}> in the "
            "<image> itself"
        )
    annotations = []
    for number, shape in enumerate(entry, 1):
        label = normalise(shape.get("label") or "")
        place = f"shape {number}, {label!r}"
        read = _SHAPES.get(shape.tag)
        if read is None:
            findings.add(f"<{shape.tag}>, which has no box, left out", where, place)
            continue
        if not label:
            raise InputError(f"{where}: its shape {number} has no label")
        try:
            corners = read(shape)
            angle = _number(shape, "rotation", "0")
        except ValueError as e:
            raise InputError(f"{where}: its <{shape.tag}> {number} has {e}") from None
        (x0, y0), (x1, y1) = corners[0], corners[2]
        if shape.tag == "box" and (x0 > x1 or y0 > y1):
            findings.add(SORTED, where, place)
        if angle % 360:
            corners = _rotated(corners, angle)
            findings.add("rotated shape, taken as the upright box around it", where, place)
        xs, ys = zip(*corners)
        annotation = {
            "category_id": label,
            "bbox": [min(xs), min(ys), max(xs), max(ys)],
            "bbox_mode": BoxMode.XYXY_ABS,
        }
        if shape.tag == "polygon":
            annotation["segmentation"] = [[v for xy in corners for v in xy]]
        elif shape.tag == "mask":
            findings.add("mask, of which the box is taken", where, place)
        try:
            annotation |= marks((x.get("name"), x.text) for x in shape.findall("attribute"))
        except ValueError as e:
            raise InputError(f"{where}: {place} has the attribute {e}") from None
        annotations.append(annotation)
    return {
        "file_name": str(image),
        "image_id": name,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


Corners = list[tuple[float, float]]


def _number(shape: ET.Element, name: str, default: str = "") -> float:
    text = shape.get(name, default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} {text!r}, expected a number")
    return value


def _box(shape: ET.Element) -> Corners:
    x0, y0, x1, y1 = (_number(shape, x) for x in ("xtl", "ytl", "xbr", "ybr"))
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _polygon(shape: ET.Element) -> Corners:
    text = shape.get("points", "")
    try:
        points = [(float(x), float(y)) for x, y in (p.split(",") for p in text.split(";"))]
    except ValueError:
        points = []
    if len(points) < 3 or not all(math.isfinite(v) for xy in points for v in xy):
        raise ValueError(f"points {text!r}, expected x,y;x,y;x,y of three points or more")
    return points


def _ellipse(shape: ET.Element) -> Corners:
    x, y, rx, ry = (_number(shape, k) for k in ("cx", "cy", "rx", "ry"))
    # Of a fine polygon, so that a rotated one has the box of its outline.
    angles = [math.tau * k / 360 for k in range(360)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _mask(shape: ET.Element) -> Corners:
    x, y, width, height = (_number(shape, k) for k in ("left", "top", "width", "height"))
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


# What has a box, and how its corners are read.
_SHAPES = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}


def _rotated(corners: Corners, degrees: float) -> Corners:
    """Corners turned about the middle of their box, clockwise as seen."""
    xs, ys = zip(*corners)
    x0, y0 = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [
        (x0 + cos * (x - x0) - sin * (y - y0), y0 + sin * (x - x0) + cos * (y - y0))
        for x, y in corners
    ]
