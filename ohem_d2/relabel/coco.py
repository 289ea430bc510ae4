"""Corrections in a file of COCO's format: of all that no decision is on, each byte stays."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.class_names import normalise
from ..data.coco import ROBOFLOW, check_content, find_image
from ..data.fields import flag
from ..data.text_files import read_json
from ..errors import InputError
from .decisions import Box, as_xywh
from .json_text import Span, elements, members, replaced
from .labels import Edit, Image, Label, Output, sorted_box


class CocoAnnotations:
    """
    The file behind ``coco://``.

    A region to ignore gets ``"iscrowd": 1``, which every reader of the format knows. Where a box
    moves, ``area`` becomes that of the box, and ``segmentation`` the box's corners: the outline was
    that of the object as it was labelled. Keypoints, which have places of their own, stay. Where
    objects have outlines or keypoints, a new label has the corners, and keypoints none of which is
    labelled: models of these need both in each object.
    """

    has_regions = True

    def __init__(self, path: Path, options: dict[str, str]) -> None:
        """
        Args:
            path: the file, or a folder as Roboflow writes it.
            options: those of the address.
        """
        self._file = path / ROBOFLOW if path.is_dir() else path
        folder = Path(options["images"]).expanduser() if "images" in options else path
        self._images = folder
        content = read_json(self._file)
        raw = self._file.read_bytes()
        self._encoding = json.detect_encoding(raw)
        self._text = raw.decode(self._encoding)
        if self._text.encode(self._encoding) != raw:
            raise InputError(f"{self._file} is not plain {self._encoding}, expected UTF-8")
        self._category_ids: dict[str, Any] = {}
        raw_ids = [(x["id"], x["name"]) for x in content["categories"]]
        raw_images = [x["id"] for x in content["images"]]
        names = check_content(content)
        # Of a class that stands there twice, the id that the reader takes: the smallest.
        order = sorted(range(len(raw_ids)), key=lambda i: content["categories"][i]["id"])
        points: dict[str, object] = {}  # of each class, the names of its keypoints
        for i in order:
            self._category_ids.setdefault(normalise(raw_ids[i][1]), raw_ids[i][0])
            points.setdefault(normalise(raw_ids[i][1]), content["categories"][i].get("keypoints"))
        self._image_ids = {x["id"]: raw for x, raw in zip(content["images"], raw_images)}
        self._ids_of: dict[str, list] = defaultdict(list)
        for x in content["images"]:
            file = find_image(self._file, folder, x["file_name"], None)
            self._ids_of[os.path.normpath(file)].append(x["id"])
        self._entries = content["annotations"]
        self._has_outlines = any(x.get("segmentation") for x in self._entries)
        ids = [x["id"] for x in self._entries]
        self._ids_are_numbers = all(isinstance(x, int) for x in ids)
        numbers = [int(x) for x in ids if isinstance(x, int) or x.strip().isdecimal()]
        self._last_id = max(numbers, default=0)
        self._of_images: dict[Any, list[int]] = defaultdict(list)
        for at, entry in enumerate(self._entries):
            entry["category"] = normalise(names[entry["category_id"]])
            self._of_images[entry["image_id"]].append(at)
        with_points = (x for x in self._entries if isinstance(x.get("keypoints"), list))
        first = next((x for x in with_points if x["keypoints"]), None)
        self._zeros: dict[str, list[int]] = {}  # of the classes that have the same keypoints
        if first is not None:
            of = points[first["category"]]
            zeros = [0] * len(first["keypoints"])
            self._zeros = {k: zeros for k, v in points.items() if (v or []) == (of or [])}
        self._changes: dict[int, str | None] = {}  # the text of a label, or None: it goes
        self._new: list[str] = []
        start = self._text.index("{")
        self._array = members(self._text, start)["annotations"]
        self._spans = elements(self._text, self._array.start)

    def labels(self, image: Image) -> list[Label]:
        """See `Annotations`."""
        found = []
        for i in self._ids_of[os.path.normpath(image.file)]:
            for at in self._of_images[i]:
                entry = self._entries[at]
                x, y, width, height = entry["bbox"]
                box = image.as_shown(sorted_box([x, y, x + width, y + height]))
                region = bool(flag(entry.get("iscrowd")) or flag(entry.get("ignore")))
                found.append(Label(at, entry["category"], box, region, entry["id"]))
        return found

    def held(self, image: Image, box: Box) -> Box:
        """See `Annotations`."""
        x, y, width, height = as_xywh(image.as_stored(box))
        return image.as_shown(Box(x, y, x + width, y + height))

    def knows(self, category: str) -> bool:
        """See `Annotations`."""
        return False

    def file_of(self, image: Image) -> Path:
        """See `Annotations`."""
        return Path(self._file.name)

    def edit(self, image: Image, edits: Sequence[Edit]) -> list[str]:
        """See `Annotations`."""
        notes = []
        for edit in edits:
            if edit.at is None:
                self._new.append(self._added(image, edit))
            elif edit.remove:
                self._changes[edit.at] = None
            else:
                self._changes[edit.at], more = self._changed(image, edit, edit.at)
                notes += more
        return notes

    def _changed(self, image: Image, edit: Edit, at: int) -> tuple[str, list[str]]:
        text = self._text[slice(*self._spans[at])]
        spans = members(text, 0)
        changes: list[tuple[Span, str]] = []
        more: dict[str, Any] = {}
        notes = []

        def put(key: str, value: Any) -> None:
            if key in spans:
                changes.append((spans[key], json.dumps(value)))
            else:
                more[key] = value

        if edit.category is not None:
            put("category_id", self._category_ids[edit.category])
        if edit.box is not None:
            box = as_xywh(image.as_stored(edit.box))
            numbers = elements(text, spans["bbox"].start)
            changes += [(span, json.dumps(x)) for span, x in zip(numbers, box)]
            if "area" in spans:
                put("area", _plain(box[2] * box[3]))
            if self._entries[at].get("segmentation"):
                put("segmentation", _outline(box))
                notes.append("outline ('segmentation') replaced by the corners of its box")
        if edit.is_region:
            put("iscrowd", 1)
        text = replaced(text, changes)
        if more:
            end = text.rindex("}")
            inside = text[:end].rstrip()
            added = json.dumps(more, separators=self._separators(text))[1:-1]
            comma = self._separators(text)[0]
            text = f"{inside}{comma}{added}{text[len(inside) :]}"
        return text, notes

    def _added(self, image: Image, edit: Edit) -> str:
        assert edit.category is not None
        assert edit.box is not None
        box = as_xywh(image.as_stored(edit.box))
        new = self._last_id + 1 + len(self._new)
        entry = {
            "id": new if self._ids_are_numbers else str(new),
            "image_id": self._image_ids[image.id],
            "category_id": self._category_ids[edit.category],
            "bbox": box,
            "area": _plain(box[2] * box[3]),
            "segmentation": _outline(box) if self._has_outlines else [],
            "iscrowd": int(edit.is_region),
        }
        if zeros := self._zeros.get(edit.category):
            entry |= {"keypoints": zeros, "num_keypoints": 0}
        sample = self._text[slice(*self._spans[0])] if self._spans else ": "
        return json.dumps(entry, separators=self._separators(sample))

    @staticmethod
    def _separators(text: str) -> tuple[str, str]:
        return (", ", ": ") if '": ' in text or text == ": " else (",", ":")

    def inputs(self) -> list[Path]:
        """See `Annotations`."""
        return [self._file]

    def output(self) -> Output:
        """See `Annotations`."""
        name = Path(self._file.name)
        if not self._changes and not self._new:
            return Output({}, {name: self._file}, {})
        text = self._text
        begin = self._array.start + 1
        ends = [begin, *(span.end for span in self._spans)]
        gaps = [text[end : span.start] for end, span in zip(ends, self._spans)]
        pieces: list[str] = []
        for at, span in enumerate(self._spans):
            new = self._changes.get(at, text[slice(*span)])
            if new is not None:
                pieces += [gaps[at] if pieces else gaps[0], new]
        lead = gaps[0] if gaps else ""
        between = gaps[-1] if len(gaps) > 1 else f",{lead or ' '}"
        for new in self._new:
            pieces += [between if pieces else lead, new]
        text = "".join([text[:begin], *pieces, text[ends[-1] :]])
        return Output({name: text.encode(self._encoding)}, {}, {})

    def address(self, folder: Path) -> tuple[Path, dict[str, str]]:
        """See `Annotations`."""
        return folder / self._file.name, {"images": str(self._images)}


def _outline(xywh: Sequence[float]) -> list[list[float]]:
    """The corners of a box as a polygon."""
    x, y, width, height = xywh
    x1, y1 = _plain(x + width), _plain(y + height)
    return [[x, y, x1, y, x1, y1, x, y1]]


def _plain(value: float) -> float:
    value = round(value, 6)
    return int(value) if float(value).is_integer() else value
