"""Suspects in CVAT's XML ("CVAT for images 1.1"), and what it exports in the same form."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from ..data.fields import number
from ..data.xml_files import read_xml
from ..errors import InputError, shown
from .decisions import SUSPECTS
from .returned import NOT_OF_THE_REPORT, Drawn, Returned, checked_box
from .suspects import Suspect, digest_of, names_of_images, of_images

# Of a box: number and name of its suspect, and the digest of its report. CVAT keeps nothing else.
_ATTRIBUTE = "suspect"
_KNOWN = re.compile(rf"(\d+)(?: ({'|'.join(SUSPECTS)})(?: (\w+))?)?")
_NO_FRAME = 10**9
_CORNERS = ("xtl", "ytl", "xbr", "ybr")


def write_cvat(suspects: Sequence[Suspect]) -> str:
    """Return annotations to upload to a task that has the images."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    _, names = names_of_images(suspects)
    digest = digest_of(suspects)
    for i, (image, of_image) in enumerate(of_images(suspects).items()):
        width, height = of_image[0].size
        # No number of a frame, where CVAT would put boxes whose image it does not know by name.
        attributes = {"id": _NO_FRAME + i, "name": names[image], "width": width, "height": height}
        element = ET.SubElement(root, "image", {k: str(v) for k, v in attributes.items()})
        for x in of_image:
            corners = zip(_CORNERS, x.shown.box)
            box = {"label": x.shown.category, "source": "auto", "occluded": "0"}
            box |= {k: f"{v:.2f}" for k, v in corners} | {"z_order": "0"}
            of_box = ET.SubElement(element, "box", box)
            of_suspect = ET.SubElement(of_box, "attribute", name=_ATTRIBUTE)
            of_suspect.text = f"{x.number} {x.name} {digest}"
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, "unicode")}\n'


def setup_of_cvat(suspects: Sequence[Suspect], classes: Sequence[str]) -> list[str]:
    """Return what to set up, a line for each."""
    attribute = {"name": _ATTRIBUTE, "mutable": False, "input_type": "text", "values": [""]}
    labels = [{"name": x, "type": "any", "attributes": [attribute]} for x in classes]
    return [
        f"Labels of the task (under Raw): {json.dumps(labels)}",
        f"Images of the task: those of {names_of_images(suspects)[0]}",
    ]


def read_cvat(file: Path, suspects: Sequence[Suspect], returned: Returned) -> None:
    """
    Read an export in the format "CVAT for images 1.1". All images in it count as looked at.

    Args:
        file: the export.
        suspects: those of the report.
        returned: what the content is added to.

    Raises:
        InputError: it is another one.
    """
    root = read_xml(file)
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        raise InputError(f"{file} has no <image>, expected an export as 'CVAT for images 1.1'")
    _, names = names_of_images(suspects)
    by_name = {name: image for image, name in names.items()}
    given = [x.get("name", "") for x in images]
    for i, element in enumerate(images):
        name = element.get("name", "")
        image = by_name.get(name) or _by_end_of_path(name, by_name, given)
        if image is None:
            returned.findings.add(NOT_OF_THE_REPORT, name or file)
            continue
        where = f"{file}: the image {name!r} (number {i + 1})"
        returned.check_size(image, [element.get(x) for x in ("width", "height")], where)
        returned.add(image, [_drawn(x, where, returned) for x in element], where)


def _by_end_of_path(name: str, by_name: Mapping[str, str], given: Sequence[str]) -> str | None:
    """
    Of a task whose images lie in another folder: that of which one path ends with the other, if no
    other of ``given`` is its name, or ends so.
    """
    found = [x for x in by_name if _ends_alike(x, name)]
    if not name or len(found) != 1 or sum(_ends_alike(found[0], x) for x in given) > 1:
        return None
    return by_name[found[0]]


def _ends_alike(a: str, b: str) -> bool:
    return f"/{a}".endswith(f"/{b}") or f"/{b}".endswith(f"/{a}")


def _drawn(element: ET.Element, where: str, returned: Returned) -> Drawn:
    texts = [x.text or "" for x in element.findall("attribute") if x.get("name") == _ATTRIBUTE]
    text = "".join(texts[:1]).strip()
    of, name = text or None, None
    if known := _KNOWN.match(text):
        of, name, digest = known.groups()
        returned.check_report(digest, f"{where}, suspect {of},")
    if element.tag != "box":
        return Drawn(of, None, f"{where}, <{element.tag}>", name)
    if number(element.get("rotation")):
        raise InputError(f"{where} has a turned box, expected upright ones")
    corners = []
    for key in _CORNERS:
        corner = element.get(key)
        value = number(corner)
        if value is None:
            found = "missing" if corner is None else shown(corner)
            raise InputError(f"{where} has a <box> whose {key} is {found}, expected a number")
        corners.append(value)
    return Drawn(of, checked_box(element.get("label"), corners, where), where, name)
