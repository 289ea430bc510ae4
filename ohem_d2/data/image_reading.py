"""
Image files: what their headers say, whether they can be read to their end, and pixels of more than
8 bits.

Detectron2 clips grey pixels of 16 bits and floats to white or black, and of colours of 16 bits it
takes the upper 8, which are dark where a camera uses 12 of them. Such an image gets `EIGHT_BIT` in
front of its path, and whatever opens it through Detectron2 gets it in 8 bits: its darkest pixel is
0, its brightest 255. So does a TIFF of any pixels that is to be turned, since Pillow turns it, and
Detectron2 turns it once more.
"""

import functools
import hashlib
import io
import json
import logging
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from detectron2.data import detection_utils
from detectron2.utils import comm
from detectron2.utils.file_io import PathHandler, PathManager
from PIL import Image
from tqdm import tqdm

from ..files import write_whole
from .orientation import turn_array
from .other_files import what_file_is

logger = logging.getLogger(__name__)

EIGHT_BIT = "8bit://"
_WIDE = ("I", "F")  # how Pillow names them, or begins to
_COLOURS_OF_16_BITS = ";16"  # of which Pillow would keep the upper 8
_ORIENTATION = 0x0112  # in EXIF
_SIDES_IN_TIFF = (256, 257)
_MOST_THREADS = 8
_VERSION = 4  # of the cache
# Whose further frames are pages, or parts of a film. A JPEG has smaller copies of itself in them.
_OF_PAGES = ("TIFF", "GIF", "WEBP", "PNG")


class ImageFile(NamedTuple):
    """What is known of an image file."""

    width: int  # as stored, before EXIF turns it
    height: int
    orientation: int  # EXIF's, from 1 to 8
    mode: str  # Pillow's
    problem: str = ""  # why it cannot be read; the rest is 0 if not even its header can
    digest: str = ""  # of all its bytes, if it was read to its end
    format: str | None = ""  # Pillow's
    frames: int = 1  # or pages

    @property
    def is_wide(self) -> bool:
        """Whether its pixels have more than 8 bits, which Detectron2 would clip or darken."""
        return self.mode.startswith(_WIDE) or self.mode.endswith(_COLOURS_OF_16_BITS)

    @property
    def is_turned_twice(self) -> bool:
        """Whether Detectron2 turns an image that Pillow has turned before."""
        return self.format == "TIFF" and self.orientation != 1


def plain_path(file_name: str) -> str:
    """Return the path of an image, without what says that it is read in 8 bits."""
    return file_name.removeprefix(EIGHT_BIT)


def read_image(file_name: str, format: str) -> np.ndarray:
    """
    Read an image as the model sees it; see Detectron2's function of that name.

    Args:
        file_name: of the image, with `EIGHT_BIT` in front of it or without.
        format: "BGR", "RGB", or another of Detectron2's.
    """
    path = plain_path(file_name)
    header = read_header(path)
    if header.is_wide or header.is_turned_twice:
        file_name = EIGHT_BIT + path
    return detection_utils.read_image(file_name, format)


class _EightBitHandler(PathHandler):
    """Opens an image of 16-bit or float pixels as one of 8 bits, and each as it is shown."""

    def _get_supported_prefixes(self) -> list[str]:
        return [EIGHT_BIT]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return plain_path(path)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return os.path.isfile(plain_path(path))

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return os.path.exists(plain_path(path))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> io.BytesIO:
        path = plain_path(path)
        # Not by its path: Pillow would map a plain TIFF into memory, and turn it wrongly.
        with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
            mode = _mode(image)
            # Pillow and OpenCV turn a TIFF, whatever they are told.
            orientation = 1 if image.format == "TIFF" else _orientation(image, path)
            if mode.endswith(_COLOURS_OF_16_BITS) and not mode.startswith(_WIDE):
                pixels = _in_eight_bits(_read_colours(path))
            else:
                image.load()
                is_wide = mode.startswith(_WIDE)
                pixels = np.asarray(image if is_wide else image.convert("RGB"))
                pixels = _in_eight_bits(pixels) if is_wide else pixels
        pixels = turn_array(pixels, orientation)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "bmp")
        file.seek(0)
        return file


PathManager.register_handler(_EightBitHandler(), allow_override=True)


def _mode(image: Image.Image) -> str:
    """Pillow's mode of an image that is not loaded yet, with an ending for colours of 16 bits."""
    raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
    wide = not image.mode.startswith(_WIDE) and any(_COLOURS_OF_16_BITS in x for x in raw)
    return image.mode + _COLOURS_OF_16_BITS if wide else image.mode


def _read_colours(path: str) -> np.ndarray:
    """(H, W, 3), RGB. Transparency is left out."""
    content = np.fromfile(path, np.uint8)
    how = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(content, how)
    if pixels is None:
        raise OSError(f"{path}: OpenCV cannot read its pixels of 16 bits")
    return pixels[:, :, ::-1]


def _in_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """From its darkest to its brightest pixel, as 0 to 255. What is no number is 0."""
    values = pixels.astype(np.float64)
    finite = np.isfinite(values)
    values[~finite] = low = values[finite].min() if finite.any() else 0.0
    high = values.max(initial=low)
    if high == low:
        return np.zeros(pixels.shape, np.uint8)
    return np.round((values - low) * (255 / (high - low))).astype(np.uint8)


def _orientation(image: Image.Image, path: str) -> int:
    try:
        if image.format == "PNG" and not _has_exif_at_its_end(path):
            # Pillow would read all of it, since EXIF data may come behind the pixels.
            value = Image.Image.getexif(image).get(_ORIENTATION, 1)
        else:
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # of EXIF data that are damaged, which Detectron2 passes over too
        return 1
    return value if value in range(1, 9) else 1


def _has_exif_at_its_end(png: str) -> bool:
    is_behind = False
    with open(png, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            is_behind |= head[4:] == b"IDAT"
            if is_behind and head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    if isinstance(error, Image.UnidentifiedImageError):
        other = what_file_is(Path(path))
        return f"it is {other}" if other else "no image that Pillow knows"
    return text or type(error).__name__


def read_header(path: str) -> ImageFile:
    """Read what the header of an image says; see `ImageFile`."""
    try:
        if os.path.getsize(path) == 0:
            return ImageFile(0, 0, 1, "", "it is empty")
        with Image.open(path) as image:
            mode = _mode(image)
            width, height = image.size
            if image.format == "TIFF":  # which newer versions of Pillow turn when they load it
                width, height = (image.tag_v2[tag] for tag in _SIDES_IN_TIFF)  # type: ignore[attr-defined]
            frames = getattr(image, "n_frames", 1) if image.format in _OF_PAGES else 1
            turn = _orientation(image, path)
            return ImageFile(width, height, turn, mode, "", "", image.format, frames)
    except Exception as e:  # there is no end to what damaged files raise
        return ImageFile(0, 0, 1, "", _reason(e, path))


def read_whole(path: str) -> ImageFile:
    """Read an image to its end, to see whether that works; see `ImageFile`."""
    header = read_header(path)
    if header.problem:
        return header
    try:
        content = Path(path).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            # All of a JPEG is read, but most of the arithmetic is left out.
            image.draft("L", (image.width // 8 or 1, image.height // 8 or 1))
            image.load()
    except Exception as e:
        return header._replace(problem=_reason(e, path))
    return header._replace(digest=hashlib.blake2b(content, digest_size=16).hexdigest())


class ImageCache:
    """
    What is known of the images of a data set, kept in the user's cache folder for the next time. An
    image is looked at again when its size or the time of its last change is another.
    """

    def __init__(self, dataset: str) -> None:
        """
        Args:
            dataset: its name or address.
        """
        folder = os.getenv("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        name = f"{zlib.crc32(os.fsencode(os.path.abspath(dataset))):08x}.json"
        self._file = Path(folder) / "ohem_d2" / "images" / name
        self._known: dict[str, list] = {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["version"] == _VERSION:
                self._known = content["images"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # it is not there, or an old or damaged one

    def headers(self, paths: Sequence[str]) -> dict[str, ImageFile]:
        """Return what the headers of images say."""
        return self._look(paths, read_header, "", lambda known: True)

    def whole(self, paths: Sequence[str]) -> dict[str, ImageFile]:
        """Read images to their ends, with a progress bar, and return what is known of them."""
        return self._look(paths, read_whole, "reading images", lambda known: bool(known.digest))

    def keep(self, files: Mapping[str, ImageFile]) -> None:
        """Keep what is known of images for the next time, if this is the main process."""
        news = False
        for path, file in files.items():
            entry, path = [_stamp(path), list(file)], os.path.abspath(path)
            # What could not be read may be read the next time.
            if not file.problem and self._known.get(path) != entry:
                self._known[path], news = entry, True
        if not news or not comm.is_main_process():
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            content = {"version": _VERSION, "images": self._known}
            write_whole(self._file, json.dumps(content))
        except OSError as e:
            _tell_once(str(self._file.parents[2]), e.strerror)

    def _look(
        self,
        paths: Sequence[str],
        read: Callable[[str], ImageFile],
        words: str,
        is_enough: Callable[[ImageFile], bool],
    ) -> dict[str, ImageFile]:
        found: dict[str, ImageFile] = {}
        missing = []
        for path in dict.fromkeys(paths):
            stamp, known = self._known.get(os.path.abspath(path), (None, None))
            if known is not None and stamp == _stamp(path) and is_enough(ImageFile(*known)):
                found[path] = ImageFile(*known)
            else:
                missing.append(path)
        if not missing:
            return found
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which reading an image for training will repeat
            results: Iterable[ImageFile] = pool.map(read, missing)
            if words and comm.is_main_process():
                results = tqdm(results, desc=words, unit="image", total=len(missing))
            found.update(zip(missing, results))
        return found


@functools.cache
def _tell_once(folder: str, reason: str) -> None:
    is_named = bool(os.getenv("XDG_CACHE_HOME"))
    words = ", which XDG_CACHE_HOME names: expected a folder that can be written" * is_named
    logger.log(  # in containers, homes often cannot be written
        logging.WARNING if is_named else logging.INFO,
        f"Images are read anew each time, since what is known of them cannot be kept below "
        f"{folder!r} ({reason}){words}",
    )


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
