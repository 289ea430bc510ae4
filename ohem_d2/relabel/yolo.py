"""Corrections in YOLO's files of labels: of all that no decision is on, each byte stays."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..data.findings import Findings
from ..data.yolo import choose_split, describe, find_labels, label_files, list_images
from ..data.yolo_labels import read_line
from ..errors import InputError
from .decisions import Box
from .labels import Edit, Image, Label, Output, sorted_box
from .yolo_layout import Layout

_DECIMALS = 9  # of parts of a side: a millionth of a pixel


class YoloAnnotations:
    """
    The files behind ``yolo://``, which have no place for regions to ignore.

    Where the box of a polygon moves, the polygon becomes that of the box's corners; keypoints stay.
    The format finds labels by the paths of images, so that the output has links to these.
    """

    has_regions = False

    def __init__(self, path: Path, options: dict[str, str], images: Sequence[Image]) -> None:
        """
        Args:
            path: the file that describes the data set, or its folder.
            options: those of the address.
            images: those of the data set.
        """
        self._described = describe(path, Findings())
        source, self._names, splits, self._keypoints = self._described
        self._split, _ = choose_split(source, splits, options.get("split"))
        self._numbers: dict[str, int] = {}
        for number, name in sorted(self._names.items()):
            self._numbers.setdefault(name, number)
        labels: dict[Path, Path] = {}  # of the images of all splits, whether they have a file yet
        for split in splits:
            try:
                files = list_images(self._described, split, options.get("images"), Findings())
            except InputError:
                if split == self._split:
                    raise
                continue  # it is not on this machine
            found = find_labels(files, Findings())
            for image, listed in files:
                labels[image] = found.get(image) or label_files(image, Path(listed))[0]
        self._labels = {os.path.normpath(image): file for image, file in labels.items()}
        self._layout = Layout(self._described, options.get("images"), labels)
        self._lines: dict[Path, tuple[bytes, list[str]]] = {}
        self._has_polygons: bool | None = None  # not looked at
        self._written: dict[Path, bytes] = {}

    def _are_polygons(self) -> bool:
        """Whether labels are polygons, anywhere in the data set: rows of both kinds make trainers
        of polygons fail, or drop them."""
        if self._has_polygons is None:
            files = (x.read_bytes() for x in self._labels.values() if x.is_file())
            # Those of other splits may be broken: nobody has read them.
            lines = (y for x in files for y in x.decode(errors="replace").splitlines())
            self._has_polygons = any(self._is_polygon(x.split()) for x in lines)
        return self._has_polygons

    def _read(self, image: Image) -> tuple[bytes, list[str]]:
        """What is in front of the text, and its lines with their ends."""
        file = self._labels[os.path.normpath(image.file)]
        if file not in self._lines:
            content = file.read_bytes() if file.is_file() else b""
            text = content.decode("utf-8-sig")
            before = content[: len(content) - len(text.encode())]
            self._lines[file] = before, text.splitlines(keepends=True)
        return self._lines[file]

    def labels(self, image: Image) -> list[Label]:
        """See `Annotations`."""
        _, lines = self._read(image)
        found = []
        for at, line in enumerate(lines):
            words = line.split()
            if words:
                columns = words[:5] if self._has_keypoints(words) else words
                read, *_ = read_line(columns, self._names, image.width, image.height)
                found.append(Label(at, read["category_id"], sorted_box(read["bbox"])))
        return found

    def _has_keypoints(self, words: Sequence[str]) -> bool:
        return bool(self._keypoints) and len(words) > 5

    def _is_polygon(self, words: Sequence[str]) -> bool:
        return len(words) > 5 and not self._has_keypoints(words)

    def held(self, image: Image, box: Box) -> Box:
        """See `Annotations`."""
        words = ["0", *self._columns(image, box, self._are_polygons())]
        read, *_ = read_line(words, {0: "x"}, image.width, image.height)
        return sorted_box(read["bbox"])

    @staticmethod
    def _columns(image: Image, box: Box, as_polygon: bool) -> list[str]:
        x0, x1 = box.x0 / image.width, box.x1 / image.width
        y0, y1 = box.y0 / image.height, box.y1 / image.height
        if as_polygon:
            values = [x0, y0, x1, y0, x1, y1, x0, y1]
        else:
            values = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        return [f"{x:.{_DECIMALS}f}".rstrip("0").rstrip(".") for x in values]

    def knows(self, category: str) -> bool:
        """See `Annotations`."""
        return False

    def file_of(self, image: Image) -> Path:
        """See `Annotations`."""
        return self._layout.inside(self._labels[os.path.normpath(image.file)])

    def edit(self, image: Image, edits: Sequence[Edit]) -> list[str]:
        """See `Annotations`."""
        before, lines = self._read(image)
        new = list(lines)
        notes = []
        end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
        for edit in sorted(edits, key=lambda x: x.at is None):  # new ones come last
            if edit.at is None:
                assert edit.category is not None
                assert edit.box is not None
                words = [str(self._numbers[edit.category])]
                words += self._columns(image, edit.box, self._are_polygons())
                words += ["0"] * (self._keypoints or 0)  # none of which is labelled
                if new and not new[-1].endswith(("\n", "\r")):
                    new[-1] += end
                new.append(" ".join(words) + end)
            elif edit.remove:
                new[edit.at] = ""
            else:
                words = lines[edit.at].split()
                if edit.category is not None:
                    words[0] = str(self._numbers[edit.category])
                if edit.box is not None:
                    as_polygon = self._is_polygon(words)
                    columns = self._columns(image, edit.box, as_polygon)
                    words[1 : None if as_polygon else 5] = columns
                    notes += ["outline replaced by the corners of its box"] * as_polygon
                new[edit.at] = _with_words(lines[edit.at], words)
        self._written[self.file_of(image)] = before + "".join(new).encode()
        return notes

    def inputs(self) -> list[Path]:
        """See `Annotations`."""
        return self._layout.inputs()

    def output(self) -> Output:
        """See `Annotations`."""
        written, copied, links = self._layout.output()
        written |= self._written
        return Output(written, {x: y for x, y in copied.items() if x not in written}, links)

    def address(self, folder: Path) -> tuple[Path, dict[str, str]]:
        """See `Annotations`. The links lie where the files say that images are."""
        return folder / self._layout.source, {"split": self._split}


def _with_words(line: str, words: Sequence[str]) -> str:
    """A line with other words, and all else of it as it is, if their number is the same."""
    old = line.split()
    if len(old) != len(words):
        end = line[len(line.rstrip()) :]
        return " ".join(words) + end
    pieces, at = [], 0
    for before, new in zip(old, words):
        start = line.index(before, at)
        pieces += [line[at:start], new]
        at = start + len(before)
    return "".join([*pieces, line[at:]])
