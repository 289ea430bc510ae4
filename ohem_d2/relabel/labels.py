"""Labels as they stand in files of annotations, what is to become of them, and their images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ..data.addresses import Loaded
from ..data.checks import TURNED
from ..data.image_reading import plain_path, read_header
from ..data.orientation import turn_points
from .decisions import Box

SAME = 0.01  # pixel, by which the corners of one box may differ
_BACK = {6: 8, 8: 6}  # the orientations that undo others; the rest undo themselves


@dataclass(frozen=True)
class Image:
    """
    An image of a data set.

    Args:
        file: its path.
        id: that in the data set.
        width: in pixels, as it is shown.
        height: the same.
        orientation: EXIF's, if it was annotated before EXIF turns it; else 1.
    """

    file: str
    id: int | str
    width: int
    height: int
    orientation: int = 1

    def as_shown(self, box: Box) -> Box:
        """Turn a box of the file of annotations to the image as it is shown."""
        if self.orientation == 1:
            return box
        sideways = self.orientation >= 5
        size = (self.height, self.width) if sideways else (self.width, self.height)
        return _turned(box, self.orientation, *size)

    def as_stored(self, box: Box) -> Box:
        """Turn a box of the image as it is shown to that of the file of annotations."""
        back = _BACK.get(self.orientation, self.orientation)
        return box if back == 1 else _turned(box, back, self.width, self.height)

    def cut(self, box: Box) -> Box:
        """Cut a box off at the edges of the image."""
        x0, x1 = (min(max(x, 0.0), float(self.width)) for x in (box.x0, box.x1))
        y0, y1 = (min(max(y, 0.0), float(self.height)) for y in (box.y0, box.y1))
        return Box(x0, y0, x1, y1)

    def is_same(self, a: Box, b: Box) -> bool:
        """Whether two boxes are one, as far as they lie in the image."""
        return all(abs(x - y) <= SAME for x, y in zip(self.cut(a), self.cut(b)))


def _turned(box: Box, orientation: int, width: int, height: int) -> Box:
    points = turn_points(np.array(box).reshape(2, 2), orientation, width, height)
    return Box(*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def sorted_box(corners: Sequence[float]) -> Box:
    """Return a box whose second corner is the lower right one."""
    x0, y0, x1, y1 = map(float, corners)
    return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def images_of(data: Loaded) -> list[Image]:
    """Return the images of a data set."""
    turned = {x.file for x in data.findings if x.name == TURNED}
    images = []
    for record in data.records:
        file = plain_path(record["file_name"])
        how = read_header(file).orientation if file in turned else 1
        images.append(Image(file, record["image_id"], record["width"], record["height"], how))
    return images


@dataclass(frozen=True)
class Label:
    """
    An annotation in a file.

    Args:
        at: its position there.
        category: the class's name.
        box: that of the image as it is shown.
        is_region: whether it is a region to ignore.
        id: that of the annotation, if it has one.
    """

    at: int
    category: str
    box: Box
    is_region: bool = False
    id: int | str | None = None


@dataclass(frozen=True)
class Edit:
    """
    What is to become of a label.

    Args:
        at: its position in the file; None: it is new.
        remove: whether it goes.
        category: its new class; None: as it is.
        box: its new box in the image as it is shown; None: as it is.
        is_region: whether it becomes a region to ignore.
    """

    at: int | None
    remove: bool = False
    category: str | None = None
    box: Box | None = None
    is_region: bool = False


class Output(NamedTuple):
    """What the corrected data set consists of, by paths relative to its folder."""

    written: dict[Path, bytes]
    copied: dict[Path, Path]
    links: dict[Path, Path]  # to images, where the format has them beside the labels


class Annotations(Protocol):
    """The files of annotations of a data set in one format. Edits change what `output` returns."""

    has_regions: bool  # whether the format has a place for regions to ignore

    def labels(self, image: Image) -> list[Label]:
        """Return what the files say of an image, edits left aside."""
        ...

    def held(self, image: Image, box: Box) -> Box:
        """Return what is read again of a box that is written, as it is shown."""
        ...

    def knows(self, category: str) -> bool:
        """Whether a class can be written that no label has."""
        ...

    def file_of(self, image: Image) -> Path:
        """Return the file of an image's labels, relative to the folder that is written."""
        ...

    def edit(self, image: Image, edits: Sequence[Edit]) -> list[str]:
        """Change an image's labels, once, and return the kinds of what else had to change."""
        ...

    def inputs(self) -> list[Path]:
        """Return the folders that are read, with all in them, and single files."""
        ...

    def output(self) -> Output:
        """Return what is to be written."""
        ...

    def address(self, folder: Path) -> tuple[Path, dict[str, str]]:
        """Return path and options of the address of what is written to a folder."""
        ...
