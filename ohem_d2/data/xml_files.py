"""XML files, in any encoding that Python knows."""

import codecs
import re
from pathlib import Path
from xml.etree import ElementTree as ET

from ..errors import InputError
from .other_files import what_it_is

_DECLARATION = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([^"']+)["'][^>]*\?>""")
# What the parser reads by itself. Of others it takes those of one byte for a character alone, and
# not by all of their names.
_OF_THE_PARSER = ("utf-8", "utf-16", "iso-8859-1", "us-ascii")
# What tools write under a name is often in the larger encoding that has the same beginnings.
_LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}


def read_xml(file: Path) -> ET.Element:
    """
    Read an XML file. The names of its elements and attributes are made small and lose their
    namespaces: tools of one format differ in them.

    Returns:
        its root.

    Raises:
        InputError: it is missing, no XML, or in an encoding that is not known or not the one that
            its first line says.
    """
    root = _parsed(file)
    for element in root.iter():
        element.tag = _plain(element.tag)
        if any(_plain(x) != x for x in element.attrib):
            element.attrib = {_plain(name): value for name, value in element.attrib.items()}
    return root


def encoding_of(content: bytes) -> str:
    """
    Return the encoding of an XML file that `read_xml` reads, behind the mark of its byte order.

    Args:
        content: the whole file.
    """
    if content.startswith(codecs.BOM_UTF8):  # which is what it is, whatever it says
        return "utf-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    declared = _DECLARATION.match(content)
    known = codecs.lookup(declared[1].decode("ascii", "replace")).name if declared else "utf-8"
    return _LARGER.get(known, known)


def _plain(name: str) -> str:
    return name.rpartition("}")[2].lower()


def _parsed(file: Path) -> ET.Element:
    try:
        content = file.read_bytes()
    except OSError as e:
        raise InputError(f"{file} cannot be read ({e.strerror})") from None
    declared = _DECLARATION.match(content.removeprefix(codecs.BOM_UTF8))
    encoding = declared[1].decode("ascii", "replace") if declared else None
    if declared and encoding and encoding.lower() not in _OF_THE_PARSER:
        if content.startswith(codecs.BOM_UTF8):  # which is what it is, whatever it says
            return _decoded(file, content[len(codecs.BOM_UTF8) + declared.end() :], "utf-8")
        return _decoded(file, content[declared.end() :], encoding)
    try:
        # A blank line in front, which the parser refuses before a declaration
        return ET.fromstring(content.lstrip())
    except ET.ParseError as e:
        if (
            encoding is None
            and not what_it_is(content)
            and not _is_utf8(content)
            and not content.startswith((b"\xff", b"\xfe"))
        ):
            raise InputError(
                f"{file} is no text in UTF-8 and names no other encoding: expected one in its "
                'first line, such as <?xml version="1.0" encoding="GBK"?>'
            ) from None
        if other := what_it_is(content):
            raise InputError(f"{file} is {other}, expected XML") from None
        raise InputError(f"{file} is no valid XML: {e}") from None


def _decoded(file: Path, body: bytes, encoding: str) -> ET.Element:
    try:
        known = codecs.lookup(encoding).name
        return ET.fromstring(body.decode(_LARGER.get(known, known)))
    except LookupError:
        raise InputError(
            f"{file} is in the encoding {encoding!r}, which is not known: expected UTF-8, or "
            "another one that Python knows"
        ) from None
    except UnicodeError as e:
        raise InputError(f"{file} says that it is in {encoding}, and is not: {e}") from None
    except ET.ParseError as e:
        raise InputError(f"{file} is no valid XML: {e}") from None


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
