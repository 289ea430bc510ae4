"""Fields of annotations as tools write them: numbers in texts, null for 0, outlines of no area."""

import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

_MOST_CHARACTERS = 8  # of a run, which pycocotools takes for 32 bits


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # of a whole number beyond all floats
        return False


def number(value: object) -> float | None:
    """Return a number, or the one that a text holds; None if there is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if is_number(value) else None  # type: ignore[return-value]


def flag(value: object) -> int:
    """
    Return 0 or 1, as which tools also write null, "", "0", false, 0.0 and so on.

    Raises:
        ValueError: it is neither.
    """
    text = str(value).strip().lower()
    if value is None or text in ("", "0", "false", "0.0", "no", "none", "null"):
        return 0
    if text in ("1", "true", "1.0", "yes"):
        return 1
    raise ValueError(f"{value!r}, expected 0 or 1")


def marks(pairs: Iterable[tuple[object, object]]) -> dict[str, int]:
    """
    Return the marks of an object that say how it counts, ``ignore`` and ``difficult``, in any case.

    Args:
        pairs: names and values, of these and of others.

    Raises:
        ValueError: the value of ``ignore`` is neither 0 nor 1, or the like. That of ``difficult``
            may be one of a scale: then it says nothing here.
    """
    found = {}
    for key, value in pairs:
        name = str(key).strip().lower()
        try:
            if name in ("ignore", "difficult") and flag(value):
                found[name] = 1
        except ValueError as e:
            if name == "ignore":
                raise ValueError(f"{key!r} {e}") from None
    return found


def plain_id(value: object) -> int | str:
    """
    Return an id as a whole number or a text.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value
    raise ValueError(f"{value!r}, expected an id")


def counterpart(value: int | str) -> int | str | None:
    """Return the text of a number, or the number in a text, if there is one."""
    if isinstance(value, int):
        return str(value)
    return int(value) if re.fullmatch(r"-?\d{1,18}", value.strip()) else None


def read_outline(value: Any) -> tuple[list | dict | None, str]:
    """
    Read a ``segmentation``.

    Returns:
        polygons or a run-length encoding as Detectron2 takes them, or None; and why not. None
        without a reason: there is none.
    """
    if not value:
        return None, ""
    if isinstance(value, dict):
        return _read_runs(value)
    if not isinstance(value, list) or not all(isinstance(x, list) for x in value):
        return None, "neither a list of polygons nor an RLE"
    if not all(is_number(x) for polygon in value for x in polygon):
        return None, "its polygons are not lists of numbers"
    good = [x for x in value if len(x) >= 6 and len(x) % 2 == 0]
    if not good:
        longest = max(value, key=len)
        if len(longest) % 2:
            return None, f"a polygon of {len(longest)} numbers"
        return None, f"a polygon of {len(longest) // 2} points"
    return good, ""


def _read_runs(value: dict) -> tuple[dict | None, str]:
    size, counts = value.get("size"), value.get("counts")
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(x) is int and x > 0 for x in size)
    ):
        return None, f"an RLE of the size {size!r}"
    if isinstance(counts, list):
        if not all(type(x) is int and x >= 0 for x in counts) or sum(counts) != size[0] * size[1]:
            return None, f"an RLE whose runs are not those of {size[0]} x {size[1]} pixels"
        return mask_util.frPyObjects(value, *size), ""
    if not isinstance(counts, str) or not counts:
        return None, "an RLE without counts"
    return {"size": size, "counts": counts}, ""


def runs_fault(runs: dict, height: int, width: int) -> str:
    """
    Tell why a run-length encoding is none of an image. pycocotools would write past its memory.

    Args:
        runs: as `read_outline` returns it.
        height: of the image.
        width: of the image.
    """
    if list(runs["size"]) != [height, width]:
        return "an RLE of {} x {} pixels, in an image of {} x {}".format(
            runs["size"][1], runs["size"][0], width, height
        )
    lengths = run_lengths(runs["counts"])
    fits = lengths is not None and lengths.min(initial=0) >= 0 and lengths.sum() == height * width
    return "" if fits else "an RLE whose runs do not fill its image"


def run_lengths(counts: str | bytes) -> np.ndarray | None:
    """
    Return the lengths in COCO's compressed form: five bits a character, the third run on as a
    difference from the last but one. None if it is none.
    """
    try:
        codes = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, "u1")
    except UnicodeEncodeError:
        return None
    codes = codes.astype(np.int64) - 48
    if not len(codes):
        return codes
    last = (codes & 32) == 0
    ends = np.flatnonzero(last)
    if codes.min() < 0 or codes.max() >= 64 or not last[-1]:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MOST_CHARACTERS:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, sizes))
    lengths = np.add.reduceat((codes & 31) << shifts, starts)
    lengths -= np.where(codes[ends] & 16, 1 << (5 * sizes), 0)
    # Each but the first three is added to the last but one, which was itself a difference.
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths


def read_keypoints(value: Any) -> tuple[list[float] | None, str]:
    """
    Read ``keypoints``.

    Returns:
        x, y and visibility of each, in pixels as Detectron2 counts them (from the corner of the
        first one, not from its middle), or None; and why not. None without a reason: there are
        none.
    """
    if not value:
        return None, ""
    if not isinstance(value, list) or len(value) % 3 or not all(map(is_number, value)):
        return None, "not a list of x, y and visibility for each keypoint"
    return [x if i % 3 == 2 else x + 0.5 for i, x in enumerate(value)], ""
