"""Elements of an XML file that look like objects or boxes and lie where no reader looks."""

import re
from collections.abc import Collection, Iterator
from xml.etree import ElementTree as ET

# The names of an object or a box, as tools write them, and of the corners of one.
_OBJECT = re.compile(r"obj|object|track|rect|rectangle|polygon|.*box")
_CORNERS = {"xmin", "ymin", "xmax", "ymax", "x_min", "y_min", "x_max", "y_max",
            "xtl", "ytl", "xbr", "ybr", "x1", "y1", "x2", "y2"}  # fmt: skip


def strays(
    root: ET.Element, read: Collection[ET.Element] = (), skipped: Collection[str] = ()
) -> Iterator[ET.Element]:
    """
    Yield what looks like an object or a box and is not read: with not a word about it, its image
    would be background.

    Args:
        root: of the file.
        read: the elements that are read, with all that is in them.
        skipped: names of elements that have no objects in them, such as lists of labels.
    """
    known = set(map(id, read))
    left = list(root)
    while left:
        element = left.pop()
        if id(element) in known or element.tag in skipped:
            continue
        corners = _CORNERS & {*element.attrib, *(x.tag for x in element)}
        if is_named_so(element) or len(corners) > 1:
            yield element
        else:
            left += element


def is_named_so(element: ET.Element) -> bool:
    """Whether an element has the name of an object or a box, and is no mere number or text."""
    return bool(len(element) or element.attrib) and _OBJECT.fullmatch(element.tag) is not None
