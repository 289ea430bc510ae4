"""A folder in the PASCAL VOC layout, with classes of its own."""

import xml.etree.ElementTree as ET
from pathlib import Path

from detectron2.structures import BoxMode
from PIL import Image, ImageOps

from ..errors import InputError


def load_voc(devkit: Path, split: str) -> tuple[list[dict], list[str], dict]:
    """
    Read ``Annotations/``, ``ImageSets/Main/<split>.txt`` and ``JPEGImages/`` of a VOC folder.

    Args:
        devkit: the folder that holds those three.
        split: which list of images to read, such as "trainval".

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id`` and VOC's
        ``difficult`` beside it; the class names, sorted; and further metadata, which VOC has none.

    Raises:
        InputError: a file is missing or malformed.
    """
    split_file = devkit / "ImageSets" / "Main" / f"{split}.txt"
    for path in (split_file, devkit / "Annotations", devkit / "JPEGImages"):
        if not path.exists():
            raise InputError(f"{path} does not exist, expected the PASCAL VOC layout in {devkit}")
    is_image = Image.registered_extensions()
    images = {
        path.stem: path
        for path in sorted((devkit / "JPEGImages").iterdir())
        if path.suffix.lower() in is_image
    }
    try:
        lines = split_file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as e:
        raise InputError(f"{split_file} is no text in UTF-8: {e}") from None

    records = []
    for stem in dict.fromkeys(line.strip() for line in lines if line.strip()):
        if stem not in images:  # the split files of one class have a -1, 0 or 1 behind the name
            stem = stem.split()[0]
        if stem not in images:
            raise InputError(
                f"{split_file} names {stem!r}, but there is no such image in "
                f"{devkit / 'JPEGImages'}"
            )
        records.append(_load_image(images[stem], devkit / "Annotations" / f"{stem}.xml"))
    if not records:
        raise InputError(f"{split_file} names no image")
    names = {a["category_id"] for record in records for a in record["annotations"]}
    return records, sorted(names), {}


def _load_image(image: Path, annotation_file: Path) -> dict:
    try:
        root = ET.parse(annotation_file).getroot()
    except FileNotFoundError:
        raise InputError(f"{annotation_file} does not exist, but {image} does") from None
    except ET.ParseError as e:
        raise InputError(f"{annotation_file} is no valid XML: {e}") from None
    try:
        width, height = (int(root.findtext(f"size/{x}") or 0) for x in ("width", "height"))
        if width <= 0 or height <= 0:  # some tools leave it out
            with Image.open(image) as opened:
                width, height = ImageOps.exif_transpose(opened).size
        annotations = [_load_object(obj) for obj in root.findall("object")]
    except (ValueError, OSError) as e:
        raise InputError(f"{annotation_file}: {e}") from None
    return {
        "file_name": str(image),
        "image_id": image.stem,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def _load_object(obj: ET.Element) -> dict:
    name = obj.findtext("name")
    if not name:
        raise ValueError("an object has no <name>")
    corners = [obj.findtext(f"bndbox/{x}") for x in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (float(x or "") for x in corners)
    except ValueError:
        raise ValueError(
            f"the <bndbox> of an object {name!r} is {corners}, expected four numbers"
        ) from None
    # VOC counts pixels from 1 and includes the last one. Taken at its word, a box that ends where
    # it begins has a pixel; but what a slip of the mouse left behind is not meant to have one.
    is_empty = x1 <= x0 or y1 <= y0
    annotation = {
        "category_id": name,
        "bbox": [x1, y1, x1, y1] if is_empty else [x0 - 1, y0 - 1, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        "difficult": int(obj.findtext("difficult") or 0),
    }
    if int(obj.findtext("ignore") or 0):  # ours
        annotation["ignore"] = 1
    return annotation
