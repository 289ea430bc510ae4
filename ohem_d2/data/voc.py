"""Folders of XML files in PASCAL VOC's form, with classes of their own."""

# Own code: supervision's reader takes whole numbers only, knows neither lists nor `difficult`, and
# its errors name no file.

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from detectron2.structures import BoxMode

from ..errors import InputError
from .class_names import normalise
from .fields import flag
from .file_names import as_on_disk, in_other_capitals, note_capitals
from .findings import Findings
from .image_files import (
    Described,
    ImageFolder,
    base_name,
    files_below,
    find_image,
    find_other_name,
    image_folders,
    is_image,
)
from .other_files import check_folder
from .text_files import read_lines
from .xml_files import read_xml
from .xml_strays import is_named_so, strays

# What folders of XML files are called, in any case.
_FOLDERS = ("annotations", "annots", "annotation", "annot", "xmls", "xml")

# What tools write where nobody said whether an object is difficult.
_UNKNOWN = ("unspecified", "unknown", "undefined", "n/a")


def load_voc(
    folder: Path,
    split: str | None = None,
    images: str | None = None,
    first_pixel: int = 1,
    findings: Findings | None = None,
) -> tuple[list[dict], list[str], dict]:
    """
    Read a folder in PASCAL VOC's layout or near it. XML files lie in ``Annotations/``,
    ``annotations/``, ``annots/`` or in the folder itself; images in ``JPEGImages/``, ``Images/``,
    ``images/``, beside the XML files, or in such a folder beside that of the XML files.

    Args:
        folder: the folder that holds these, or the XML files.
        split: which list of ``ImageSets/Main`` to read, such as "trainval". By default, all
            images that have an XML file.
        images: the folder of the images, where it is another one.
        first_pixel: the number of the first pixel of a row. It is 1 in VOC, which includes the last
            pixel of a box; 0 for files whose numbers are the edges of the box.
        findings: where to put what is odd.

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id`` and VOC's
        ``difficult`` beside it; the class names, sorted; and further metadata, which VOC has none.

    Raises:
        InputError: a file is missing or malformed.
    """
    findings = Findings() if findings is None else findings
    check_folder(folder, "the PASCAL VOC layout")
    annotations = find_annotations(folder)
    folders = [ImageFolder(x) for x in image_folders(folder, images)]
    if split is None:
        files = files_below(annotations, ".xml")
        if annotations == folder:
            files = [x for x in files if x.parent == folder]
    else:
        files = _listed(folder, split, annotations, folders, findings)

    records = []
    described = Described()
    for file in files:
        root = read_xml(file)
        if root.tag != "annotation":
            raise InputError(f"{file} begins with <{root.tag}>, expected <annotation>")
        inside = file.parent.relative_to(annotations)
        named = base_name(root.findtext("filename") or "")
        image = find_image(folders, file, inside, named, findings)
        if image is None:
            raise InputError(f"{file} exists, but there is no image for it in {_in_words(folders)}")
        described.add(image, str(file))
        find_other_name("XML", image, file, inside, named, folders, findings)
        image_id = (inside / file.stem).as_posix()
        records.append(_load_image(root, file, image, image_id, first_pixel, findings))
    if split is None:
        _find_unused(folder, annotations, folders, described, findings)
    names = {a["category_id"] for record in records for a in record["annotations"]}
    return records, sorted(names), {}


def find_annotations(folder: Path) -> Path:
    """
    Return the folder of the XML files of a data set.

    Raises:
        InputError: there are none.
    """
    inside = sorted(x for x in folder.iterdir() if x.is_dir() and x.name.lower() in _FOLDERS)
    for candidate in sorted(inside, key=lambda x: _FOLDERS.index(x.name.lower())):
        if files_below(candidate, ".xml"):
            return candidate
    found = files_below(folder, ".xml")
    if any(x.parent == folder for x in found):
        return folder
    with_xml = sorted({x.parent.name for x in found if x.parent.parent == folder})
    hint = f". There are some in {', '.join(with_xml)}: add one of these names" if with_xml else ""
    raise InputError(
        f"there are no XML files in {folder} or in {folder / 'Annotations'}, expected the PASCAL "
        f"VOC layout{hint}"
    )


def _listed(
    folder: Path,
    split: str,
    annotations: Path,
    folders: Sequence[ImageFolder],
    findings: Findings,
) -> list[Path]:
    """The XML files of the images in a list, each once."""
    lists = folder / "ImageSets" / "Main"
    split_file = lists / f"{split}.txt"
    if not split_file.is_file():
        there = ", ".join(sorted(x.stem for x in lists.glob("*.txt")))
        advice = f"a list that is there ({there})" if there else "no '?split=', or '?part='"
        raise InputError(f"{split_file} does not exist, expected {advice}")
    names = [line.strip() for line in read_lines(split_file) if line.strip()]
    # A list of one class has a number behind each name: whether the image has an object of it (1),
    # none (-1) or difficult ones only (0). All of them belong to the set. The numbers are two
    # characters wide, so that "a 1" may be a name, unless all lines look so.
    loose = all(re.fullmatch(r".+\s(-1|0|1)", name) for name in names)
    number = r"\s+(-1|0|1)$" if loose else r"\s+-1$|\s{2,}[01]$"
    names = [re.sub(number, "", name) for name in names]
    if not names:
        raise InputError(f"{split_file} names no image")
    files = {}
    for name in names:
        if name in files:
            findings.add("image listed more than once, taken once", split_file, repr(name))
            continue
        files[name] = _xml_of(name, split_file, annotations, folders, findings)
    return list(files.values())


def _xml_of(
    name: str,
    split_file: Path,
    annotations: Path,
    folders: Sequence[ImageFolder],
    findings: Findings,
) -> Path:
    """The XML file of an image that a list names, with or without the suffix of the image."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{split_file} names {name!r}, expected images inside of the folder")
    stems = dict.fromkeys((name, str(Path(name).with_suffix("")) if is_image(Path(name)) else name))
    for look in (as_on_disk, in_other_capitals):
        for stem in stems:
            file = look(str(annotations / f"{stem}.xml"))
            if file is not None and os.path.isfile(file):
                if look is in_other_capitals:
                    note_capitals(file, f"{stem}.xml", findings)
                return Path(file)
    for folder in folders:
        for image in folder.by_stem(Path(f"{name}.xml").stem, Path(name).parent):
            raise InputError(f"{annotations / name}.xml does not exist, but {image} does")
    raise InputError(
        f"{split_file} names {name!r}, but there is no such image in {_in_words(folders)}"
    )


def _in_words(folders: Sequence[ImageFolder]) -> str:
    return " or ".join(str(x.folder) for x in folders)


def _find_unused(
    folder: Path,
    annotations: Path,
    folders: Sequence[ImageFolder],
    described: Described,
    findings: Findings,
) -> None:
    """What lies there and belongs to no record."""
    for images in (x.images for x in folders if any(y in described for y in x.images)):
        for image in (x for x in images if x not in described):
            findings.add("image without an XML file, left out", image)
    if annotations == folder:
        for file in (x for x in files_below(folder, ".xml") if x.parent != folder):
            findings.add("XML file in a folder further inside, left out", file)


def _load_image(
    root: ET.Element,
    file: Path,
    image: Path,
    image_id: str,
    first_pixel: int,
    findings: Findings,
) -> dict:
    try:
        width, height = (int(float(root.findtext(f"size/{x}") or 0)) for x in ("width", "height"))
    except (ValueError, OverflowError):
        raise InputError(
            f"{file}: its <size> has {_size_text(root)}, expected two numbers"
        ) from None
    objects = [*root.findall("object"), *root.findall("objects/object")]
    for stray in strays(root, objects):
        if not is_named_so(stray):  # it may be anything, such as where an image was cut out
            findings.add(f"<{stray.tag}> with corners, which is no <object>, not read", file)
            continue
        raise InputError(
            f"{file}: <{stray.tag}> lies where it is not read, expected an <object> with a "
            "<bndbox> in the <annotation>"
        )
    annotations = []
    for number, obj in enumerate(objects, 1):
        if (obj.findtext("deleted") or "").strip() == "1":  # which LabelMe keeps in the file
            findings.add("<object> that is marked as deleted, left out", file, f"object {number}")
            continue
        try:
            annotation = load_object(obj, first_pixel, file, findings)
        except ValueError as e:
            raise InputError(f"{file}: object {number} {e}") from None
        annotations.append(annotation)
        if first_pixel == 1 and min(annotation["bbox"]) < 0:
            findings.add(
                "box that begins at pixel 0, where VOC counts from 1 (if all of your files count "
                "from 0, add first_pixel=0 to the address)",
                file,
                f"object {number}, {annotation['category_id']!r}",
            )
    return {
        "file_name": str(image),
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def _size_text(root: ET.Element) -> list[str | None]:
    return [root.findtext(f"size/{x}") for x in ("width", "height")]


def load_object(obj: ET.Element, first_pixel: int, file: Path, findings: Findings) -> dict:
    """
    Read an <object>; see `load_voc`.

    Args:
        obj: it, as `read_xml` has it.
        first_pixel: the number of the first pixel of a row.
        file: where it is, for findings.
        findings: where to put what is odd.

    Returns:
        Detectron2's annotation, with the class's name in place of ``category_id``.

    Raises:
        ValueError: says what is wrong with it.
    """
    name = normalise(obj.findtext("name") or "")
    if not name:
        raise ValueError("has no <name>")
    number = len(obj.findall("bndbox"))
    if not number and obj.find("robndbox") is not None:
        raise ValueError(f"({name!r}) has a rotated box (<robndbox>), expected a <bndbox>")
    if number != 1:
        others = ", ".join(f"<{x.tag}>" for x in strays(obj, skipped=("part",)))
        instead = f" but {others}" if others and not number else ""
        raise ValueError(f"({name!r}) has {number or 'no'} <bndbox>{instead}, expected one")
    # A <part> has a name and a box of its own.
    inner = [x for x in strays(obj, skipped=("bndbox", "part")) if x.tag in ("object", "obj")]
    if inner:
        raise ValueError(f"({name!r}) has an <{inner[0].tag}> inside of it, expected it beside it")
    corners = [obj.findtext(f"bndbox/{x}") for x in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = numbers = [float(x or "") for x in corners]
        if not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError:
        raise ValueError(f"({name!r}) has the <bndbox> {corners}, expected four numbers") from None
    marks = {}
    for mark in ("difficult", "ignore"):  # the second is an addition of this project
        text = obj.findtext(mark)
        if (text or "").strip().lower() in _UNKNOWN:
            findings.add(f"<{mark}> that says nothing, taken as 0", file, f"{name!r}: {text!r}")
            text = None
        try:
            marks[mark] = flag(text)
        except ValueError:
            raise ValueError(f"({name!r}) has {text!r} as <{mark}>, expected 0 or 1") from None
    # Taken at VOC's word, a box that ends where it begins has a pixel; but what a slip of the mouse
    # left behind is not meant to have one.
    if not (-first_pixel <= x1 - x0 <= 0 or -first_pixel <= y1 - y0 <= 0):
        x0, x1 = (x0 - first_pixel, x1) if x0 < x1 else (x0, x1 - first_pixel)
        y0, y1 = (y0 - first_pixel, y1) if y0 < y1 else (y0, y1 - first_pixel)
    return {
        "category_id": name,
        "bbox": [x0, y0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        "difficult": marks.pop("difficult"),
        **{mark: 1 for mark, value in marks.items() if value},
    }
