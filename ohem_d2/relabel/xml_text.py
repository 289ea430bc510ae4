"""Where the elements of an XML file stand, so that all but one keep each byte."""

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from ..data.xml_files import encoding_of
from ..errors import InputError

# A start tag, in whose values a ">" may stand.
_TAG = re.compile(rb"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")


@dataclass
class Element:
    """
    An element, in the bytes of a text in UTF-8.

    Args:
        tag: its name, in small letters and without a namespace, as `read_xml` has it.
        start: where its start tag begins.
        inside: where its content begins.
        close: where its content ends.
        end: where it ends.
        children: the elements in it.
    """

    tag: str
    start: int
    inside: int
    close: int = 0
    end: int = 0
    children: list["Element"] = field(default_factory=list)

    def child(self, *tags: str) -> "Element | None":
        """Return the first child of a name, or of a name inside of that, and so on."""
        found: Element | None = self
        for tag in tags:
            found = next((x for x in found.children if x.tag == tag), None) if found else None
        return found


class XmlText:
    """The text of a file, in UTF-8 whatever its encoding is, and its elements."""

    def __init__(self, file: Path) -> None:
        """
        Args:
            file: one that `read_xml` reads.

        Raises:
            InputError: its encoding cannot be written as it was.
        """
        content = file.read_bytes()
        body = content.removeprefix(codecs.BOM_UTF8)
        self._encoding = encoding_of(content)
        self._before = content[: len(content) - len(body)]
        text = body.decode(self._encoding)
        if self._before + text.encode(self._encoding) != content:
            raise InputError(f"{file} is not plain {self._encoding}, expected a file in UTF-8")
        stripped = text.lstrip()
        self._space = text[: len(text) - len(stripped)]
        self.text = stripped.encode()
        self.root = _parsed(self.text)

    def as_bytes(self, text: bytes) -> bytes:
        """Return the content of the file with another text."""
        new = self._space + text.decode()
        # As numbers, what its encoding has no letters for: it may be in a new class.
        return self._before + new.encode(self._encoding, "xmlcharrefreplace")


def _parsed(text: bytes) -> Element:
    parser = expat.ParserCreate("utf-8")  # whatever its first line says
    top = Element("", 0, 0)
    stack = [top]

    def start(name: str, _: dict) -> None:
        at = parser.CurrentByteIndex
        tag = _TAG.match(text, at)
        assert tag is not None
        element = Element(name.rpartition(":")[2].lower(), at, tag.end())
        stack[-1].children.append(element)
        stack.append(element)

    def end(_: str) -> None:
        element = stack.pop()
        at = parser.CurrentByteIndex
        if text[element.inside - 2 : element.inside] == b"/>":  # which has no content
            element.close = element.end = element.inside
        else:
            element.close, element.end = at, text.index(b">", at) + 1

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(text, True)
    return top.children[0]
