"""
A part of a data set that has no split: ``part=train:0.8`` and ``part=test:0.2`` of an address.

Every photograph has a fixed place between 0 and 1, which follows from its file's name alone.
``train:F`` takes those below F, ``val:F`` and ``test:F`` those from 1 - F on; ``val:0.7-0.8``,
with any of the three words, takes those from 0.7 to below 0.8. Images with the same bytes have the
same place, so that a photograph is never on both sides.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ..errors import InputError
from .file_names import composed
from .findings import Findings

_PART = re.compile(r"(train|val|test):(\d*\.?\d+)(?:-(\d*\.?\d+))?")

Part = tuple[Fraction, Fraction]


def parse_part(text: str) -> Part:
    """
    Return where a part begins and ends.

    Raises:
        InputError: it is malformed, or of no size.

    Example:
        >>> parse_part("test:0.2")
        (Fraction(4, 5), Fraction(1, 1))
    """
    match = _PART.fullmatch(text)
    if match:
        first, second = Fraction(match[2]), match[3]
        if second is not None:
            part = first, Fraction(second)
        else:
            part = (Fraction(0), first) if match[1] == "train" else (1 - first, Fraction(1))
        if 0 <= part[0] < part[1] <= 1:
            return part
    raise InputError(
        f"part={text} is not understood, expected a name and a share, such as train:0.8 and "
        "test:0.2, or a range, such as val:0.7-0.8"
    )


def overlap(a: Part, b: Part) -> bool:
    """Whether two parts of a data set may have images in common."""
    return max(a[0], b[0]) < min(a[1], b[1])


def take_part(records: Sequence[dict], part: Part, findings: Findings | None = None) -> list[dict]:
    """
    Take the records of a part.

    Args:
        records: those of the whole data set.
        part: see `parse_part`.
        findings: where to name images with the same bytes.

    Returns:
        those of the part, in their order.
    """
    files = list(dict.fromkeys(record["file_name"] for record in records))
    root = os.path.commonpath([os.path.dirname(os.path.abspath(x)) for x in files])
    places = {}
    for same in _same_bytes(files):
        # Of images in several folders, the name with the folders that differ.
        names = sorted(Path(os.path.relpath(x, root)).as_posix() for x in same)
        digest = hashlib.sha256(composed(names[0]).encode("utf-8", "surrogateescape")).digest()
        place = Fraction(int.from_bytes(digest[:8], "big"), 2**64)
        places.update(dict.fromkeys(same, place))
        if len(same) > 1 and findings is not None:
            findings.add("images with the same bytes, kept in the same part", same[0], names[-1])
    return [r for r in records if part[0] <= places[r["file_name"]] < part[1]]


def _same_bytes(files: Sequence[str]) -> list[list[str]]:
    """The files in groups of the same content."""
    by_size = defaultdict(list)
    for file in files:
        try:
            by_size[os.path.getsize(file)].append(file)
        except OSError as e:
            raise InputError(f"{file} cannot be read ({e.strerror})") from None
    groups = []
    for of_size in by_size.values():
        if len(of_size) == 1:
            groups.append(of_size)
            continue
        by_content = defaultdict(list)
        for file in of_size:
            by_content[hashlib.sha256(Path(file).read_bytes()).digest()].append(file)
        groups += by_content.values()
    return groups
