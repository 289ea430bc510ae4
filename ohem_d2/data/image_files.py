"""Image files: which there are in a folder, which one an annotation means, and how large it is."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL import Image

from ..errors import InputError
from .file_names import composed, folded, note_capitals
from .findings import Findings
from .image_reading import read_header
from .orientation import SIDEWAYS

# What folders of images are called, in any case.
# What Pillow knows without reading it, or writes only: videos, and what others read for it.
_ONLY_KNOWN = ("MPEG", "PDF", "BUFR", "GRIB", "HDF5")

_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "jpegs")


def is_image(file: Path) -> bool:
    """Whether a file has the suffix of an image that Pillow reads."""
    kind = Image.registered_extensions().get(file.suffix.lower())
    return kind in Image.OPEN and kind not in _ONLY_KNOWN


def images_below(folder: Path) -> Iterator[Path]:
    """The images in a folder and in those inside of it, sorted by path; no hidden ones."""
    yield from filter(is_image, _all_below(folder))


def files_below(folder: Path, suffix: str) -> list[Path]:
    """
    The files of a suffix, in any case, in a folder and in those inside of it, sorted by path. No
    hidden ones, such as ``._a.xml``, which systems leave behind.
    """
    return sorted(x for x in _all_below(folder) if x.suffix.lower() == suffix)


def _all_below(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = sorted(x for x in folders if not x.startswith(".") and not _is_loop(root, x))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(root, name)


def _refuse(error: OSError) -> None:
    """Of a folder that may not be read, nothing is known: its files are not missing."""
    if isinstance(error, PermissionError):
        raise InputError(
            f"the folder {error.filename} may not be read, expected one that may"
        ) from error


def _is_loop(root: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in, as of a second call of ``ln -s``."""
    path = os.path.join(root, name)
    if not os.path.islink(path):
        return False
    inside = os.path.join(os.path.realpath(root), "")
    return inside.startswith(os.path.join(os.path.realpath(path), ""))


def image_size(file: Path) -> tuple[int, int]:
    """
    Return width and height of an image as viewers show it, turned as its EXIF data says. Only the
    head of the file is read. 0 and 0 of a file that cannot be read, which the checks will name.
    """
    header = read_header(str(file))
    if header.orientation in SIDEWAYS:
        return header.height, header.width
    return header.width, header.height


def base_name(path: str) -> str:
    """The last part of a path, as any system writes it."""
    return PurePosixPath(path.strip().replace("\\", "/")).name


def image_folders(folder: Path, given: str | None = None) -> list[Path]:
    """
    Where the images of annotations are.

    Args:
        folder: of the annotations, or with folders of annotations and of images in it.
        given: the folder that the user names, if any.

    Returns:
        that; or folders of images in ``folder``; or, where there are none, ``folder`` itself, and
        then the folders of images beside it.

    Raises:
        InputError: ``given`` does not exist.
    """
    if given is not None:
        if not Path(given).expanduser().is_dir():
            raise InputError(f"the folder of images {given} does not exist")
        return [Path(given).expanduser()]
    return _named_so(folder) or [folder, *_named_so(folder.resolve().parent)]


def _named_so(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [x for x in sorted(folder.iterdir()) if x.name.lower() in _FOLDERS and x.is_dir()]
    return sorted(found, key=lambda x: _FOLDERS.index(x.name.lower()))


class ImageFolder:
    """The images of a folder, to be looked up by name."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: which may have folders inside.
        """
        self.folder = folder

    @cached_property
    def images(self) -> list[Path]:
        """All of them, sorted by path."""
        return list(images_below(self.folder))

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for file in self.images:
            found[composed(file.stem)].append(file)
        return found

    @cached_property
    def _by_folded(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for file in self.images:
            for name in {folded(file.stem), folded(file.name)}:
                found[name].append(file)
        return found

    def in_other_capitals(self, name: str, inside: Path) -> list[Path]:
        """All images of a stem or a name, but for its capitals; see `by_stem`."""
        return _prefer(self._by_folded.get(folded(name), []), self.folder / inside)

    def by_stem(self, stem: str, inside: Path) -> list[Path]:
        """All images of this stem; of those in several folders, the ones ``inside`` that one."""
        found = self._by_stem.get(composed(stem), [])
        return _prefer([x for x in found if x.stem == stem] or found, self.folder / inside)

    def by_name(self, name: str, inside: Path) -> list[Path]:
        """All images of this name; of those in several folders, the ones ``inside`` that one."""
        found = self._by_stem.get(composed(Path(name).stem), [])
        found = [x for x in found if composed(x.name) == composed(name)]
        return _prefer([x for x in found if x.name == name] or found, self.folder / inside)


def _prefer(files: list[Path], folder: Path) -> list[Path]:
    return [x for x in files if x.parent == folder] or files


def find_image(
    folders: Sequence[ImageFolder],
    annotations: Path,
    inside: Path,
    named: str,
    findings: Findings,
) -> Path | None:
    """
    Find the image that a file of annotations is for: that of its stem. Where there are several of
    that stem, or none, the annotations say which by the name in them.

    Args:
        folders: where to look, in this order.
        annotations: the file.
        inside: its folder, relative to that of all annotations.
        named: the name of the image in it, or "".
        findings: where to put an image whose name has other capitals.

    Returns:
        the image, or None if there is none.

    Raises:
        InputError: there are several.
    """
    for folder in folders:
        found = folder.by_stem(annotations.stem, inside)
        if len(found) > 1:
            found = [x for x in found if composed(x.name) == composed(named)] or found
        found = found or folder.by_name(named, inside)
        if len(found) > 1:
            names = " and ".join(str(x) for x in found[:3])
            raise InputError(
                f"{annotations} may be for {names}, and names {named or 'none'}: expected the "
                "name of one of them in it"
            )
        if found:
            return found[0]
    for folder in folders:
        for name in filter(None, (annotations.stem, named)):
            found = folder.in_other_capitals(name, inside)
            if len(found) == 1:
                note_capitals(found[0], name, findings)
                return found[0]
    return None


def find_other_name(
    kind: str,
    image: Path,
    annotations: Path,
    inside: Path,
    named: str,
    folders: Sequence[ImageFolder],
    findings: Findings,
) -> None:
    """
    Name a file of annotations in which the name of another image stands, if that is there, too.

    Args:
        kind: what the file is.
        image: what `find_image` returned.
        annotations: as for `find_image`.
        inside: the same.
        named: the same.
        folders: the same.
        findings: where to put it.
    """
    if composed(image.name) != composed(named) and any(x.by_name(named, inside) for x in folders):
        findings.add(
            f"{kind} that names another image than that of its own name, which is taken",
            annotations,
            f"{named!r} instead of {image.name!r}",
        )


class Described:
    """The images that have annotations already: none may have them twice."""

    def __init__(self) -> None:
        self._by: dict[Path, str] = {}

    def add(self, image: Path, where: str) -> None:
        """
        Note the place of an image's annotations.

        Raises:
            InputError: it has some elsewhere.
        """
        first = self._by.setdefault(image, where)
        if first != where:
            raise InputError(f"{first} and {where} are both for the image {image}, expected one")

    def __len__(self) -> int:
        return len(self._by)

    def __contains__(self, image: Path) -> bool:
        return image in self._by
