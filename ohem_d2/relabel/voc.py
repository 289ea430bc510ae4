"""Corrections in files of PASCAL VOC's form: of all that no decision is on, each byte stays."""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from ..data.class_names import normalise
from ..data.findings import Findings
from ..data.image_files import files_below, image_folders
from ..data.voc import find_annotations, load_object
from ..data.xml_files import read_xml
from .decisions import Box
from .labels import Edit, Image, Label, Output, sorted_box
from .xml_text import Element, XmlText

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECIMALS = 3


class VocAnnotations:
    """
    The files behind ``voc://``.

    A region to ignore gets ``<ignore>1</ignore>``. Boxes of a file of whole numbers are rounded to
    such. Where a box moves, a ``<polygon>`` of its object goes; all else of the object stays.
    """

    has_regions = True

    def __init__(self, path: Path, options: dict[str, str], images: Sequence[Image]) -> None:
        """
        Args:
            path: the folder.
            options: those of the address.
            images: those of the data set.
        """
        self._folder = path
        self._first = int(options.get("first_pixel", "1"))
        self._annotations = find_annotations(path)
        self._files = files_below(self._annotations, ".xml")
        if self._annotations == path:
            self._files = [x for x in self._files if x.parent == path]
        self._by_id = {self._id_of(x): x for x in self._files}
        self._images = self._common_folder(options.get("images"), images)
        self._texts: dict[Path, XmlText] = {}
        self._known: dict[Path, list[tuple[int, dict]]] = {}
        self._written: dict[Path, bytes] = {}

    def _id_of(self, file: Path) -> str:
        return (file.parent.relative_to(self._annotations) / file.stem).as_posix()

    def _common_folder(self, given: str | None, images: Sequence[Image]) -> Path:
        """The folder that all images are found in."""
        for folder in image_folders(self._folder, given):
            inside = os.path.join(os.path.abspath(folder), "")
            if all(os.path.abspath(x.file).startswith(inside) for x in images):
                return folder
        return Path(os.path.commonpath([os.path.dirname(os.path.abspath(x.file)) for x in images]))

    def _text(self, file: Path) -> XmlText:
        if file not in self._texts:
            self._texts[file] = XmlText(file)
        return self._texts[file]

    def _objects(self, file: Path) -> list[Element]:
        """Those that the reader reads, in the order of the file."""
        root = self._text(file).root
        return [y for x in root.children for y in (x.children if x.tag == "objects" else [x])
                if y.tag == "object"]  # fmt: skip

    def labels(self, image: Image) -> list[Label]:
        """See `Annotations`."""
        return [
            Label(
                at,
                read["category_id"],
                image.as_shown(sorted_box(read["bbox"])),
                bool(read.get("ignore")),
            )
            for at, read in self._read(self._by_id[str(image.id)])
        ]

    def _read(self, file: Path) -> list[tuple[int, dict]]:
        """The objects as the reader has them, and their positions among all."""
        if file not in self._known:
            root = read_xml(file)
            objects = [y for x in root for y in (x if x.tag == "objects" else [x])]
            objects = [x for x in objects if x.tag == "object"]
            self._known[file] = [
                (at, load_object(each, self._first, file, Findings()))
                for at, each in enumerate(objects)
                if (each.findtext("deleted") or "").strip() != "1"
            ]
        return self._known[file]

    def held(self, image: Image, box: Box) -> Box:
        """See `Annotations`."""
        texts = self._corners(image, box)
        bndbox = "".join(f"<{x}>{text}</{x}>" for x, text in zip(_CORNERS, texts))
        each = ET.fromstring(f"<object><name>x</name><bndbox>{bndbox}</bndbox></object>")
        read = load_object(each, self._first, self._folder, Findings())
        x0, y0, x1, y1 = read["bbox"]
        if x1 <= x0 or y1 <= y0:  # which the reader takes for a slip of the mouse
            return Box(0, 0, 0, 0)
        return image.as_shown(Box(x0, y0, x1, y1))

    def _corners(self, image: Image, box: Box) -> list[str]:
        """The numbers of a box as they are written."""
        stored = image.as_stored(box)
        whole = self._is_whole(self._by_id[str(image.id)])
        values = [round(x) if whole else round(x, _DECIMALS) for x in stored]
        values = [x + self._first * (i < 2) for i, x in enumerate(values)]
        return [f"{round(x, _DECIMALS):.15g}" for x in values]

    def _is_whole(self, file: Path) -> bool:
        """Whether all numbers of the boxes in a file are whole."""
        return all(float(x).is_integer() for _, read in self._read(file) for x in read["bbox"])

    def knows(self, category: str) -> bool:
        """See `Annotations`. A list may name images without any object of a class."""
        return category in self._categories

    @cached_property
    def _categories(self) -> set[str]:
        """Of all files."""
        return {
            normalise(each.findtext("name") or "")
            for file in self._files
            for each in read_xml(file).iter("object")
        }

    def file_of(self, image: Image) -> Path:
        """See `Annotations`."""
        return self._relative(self._by_id[str(image.id)])

    def _relative(self, file: Path) -> Path:
        inside = file.relative_to(self._annotations)
        return inside if self._annotations == self._folder else self._annotations.name / inside

    def edit(self, image: Image, edits: Sequence[Edit]) -> list[str]:
        """See `Annotations`."""
        file = self._by_id[str(image.id)]
        xml = self._text(file)
        objects = self._objects(file)
        changes: list[tuple[int, int, bytes]] = []
        notes = []
        new = []
        for edit in edits:
            if edit.at is None:
                new.append(edit)
                continue
            each = objects[edit.at]
            if edit.remove:
                changes.append((_with_space(xml.text, each.start), each.end, b""))
                continue
            if edit.category is not None:
                changes.append(_content(xml.text, each.child("name"), escape(edit.category)))
            if edit.box is not None:
                for corner, text in zip(_CORNERS, self._corners(image, edit.box)):
                    changes.append(_content(xml.text, each.child("bndbox", corner), text))
                for outline in (x for x in each.children if x.tag == "polygon"):
                    changes.append((_with_space(xml.text, outline.start), outline.end, b""))
                    notes.append("outline (<polygon>) left out, which no longer fits its box")
            if edit.is_region:
                changes.append(_marked(xml.text, each))
        if new:
            changes.append(self._added(image, xml, objects, new))
        content = xml.text
        for start, end, put in sorted(changes, key=lambda x: x[:2], reverse=True):
            content = content[:start] + put + content[end:]
        self._written[self.file_of(image)] = xml.as_bytes(content)
        return notes

    def _added(
        self, image: Image, xml: XmlText, objects: Sequence[Element], new: Sequence[Edit]
    ) -> tuple[int, int, bytes]:
        """New objects behind the last one, or at the end, in lines as those of the file."""
        root = xml.root
        if objects:
            at = objects[-1].end
            lead = xml.text[_with_space(xml.text, objects[-1].start) : objects[-1].start]
        else:
            before = root.children[-1] if root.children else None
            at = before.end if before else root.inside
            lead = xml.text[_with_space(xml.text, before.start) : before.start] if before else b""
        lead = lead if b"\n" in lead else b""
        unit = lead.rpartition(b"\n")[2] or b"\t"
        inner, innermost = (lead + unit * n if lead else b"" for n in (1, 2))
        pieces = []
        for edit in new:
            assert edit.category is not None
            assert edit.box is not None
            pieces += [lead, b"<object>", inner, f"<name>{escape(edit.category)}</name>".encode()]
            marks = {"pose": "Unspecified", "truncated": 0, "difficult": 0}
            marks |= {"ignore": 1} if edit.is_region else {}
            for tag, value in marks.items():
                pieces += [inner, f"<{tag}>{value}</{tag}>".encode()]
            pieces += [inner, b"<bndbox>"]
            for tag, text in zip(_CORNERS, self._corners(image, edit.box)):
                pieces += [innermost, f"<{tag}>{text}</{tag}>".encode()]
            pieces += [inner, b"</bndbox>", lead, b"</object>"]
        put = b"".join(pieces)
        if xml.text[root.inside - 2 : root.inside] == b"/>":  # an <annotation/> of nothing
            name = re.match(rb"<([^\s/>]+)", xml.text[root.start :])
            assert name is not None
            opened = xml.text[root.start : root.inside - 2].rstrip()
            return root.start, root.end, opened + b">" + put + b"</" + name[1] + b">"
        return at, at, put

    def inputs(self) -> list[Path]:
        """See `Annotations`."""
        return [self._annotations, self._images, self._folder / "ImageSets"]

    def output(self) -> Output:
        """See `Annotations`."""
        copied = {self._relative(x): x for x in self._files}
        lists = self._folder / "ImageSets"
        copied |= {x.relative_to(self._folder): x for x in sorted(lists.rglob("*")) if x.is_file()}
        return Output(
            self._written, {x: y for x, y in copied.items() if x not in self._written}, {}
        )

    def address(self, folder: Path) -> tuple[Path, dict[str, str]]:
        """See `Annotations`."""
        return folder, {"images": str(self._images)}


def _with_space(text: bytes, start: int) -> int:
    """Where the white space in front of an element begins."""
    return len(text[:start].rstrip())


def _content(text: bytes, element: Element | None, new: str) -> tuple[int, int, bytes]:
    """Put a text into an element, between the white space that is there."""
    assert element is not None
    old = text[element.inside : element.close]
    start = element.inside + len(old) - len(old.lstrip())
    return start, max(start, element.inside + len(old.rstrip())), new.encode()


def _marked(text: bytes, each: Element) -> tuple[int, int, bytes]:
    """Mark an object as a region to ignore, in front of its box."""
    if (mark := each.child("ignore")) is not None and not _is_empty(mark):
        return _content(text, mark, "1")
    box = each.child("bndbox")
    assert box is not None
    start = mark.start if mark is not None else box.start
    end = mark.end if mark is not None else box.start
    space = b"" if mark is not None else text[_with_space(text, box.start) : box.start]
    return start, end, b"<ignore>1</ignore>" + space


def _is_empty(element: Element) -> bool:
    """Whether it has no content, as in <ignore/>."""
    return element.inside == element.close == element.end
