"""
Names of files as annotations have them. Accents have two forms in Unicode, composed (NFC) and not
(NFD, which older Macs write), and a copy from one system to another may change that of the files.
Windows and Macs take small letters and capitals for the same.
"""

import os
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from .findings import Findings


def composed(name: str) -> str:
    """Return a name in the form in which it is compared with others."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def as_on_disk(path: str) -> str | None:
    """Return the path of what is there under a name, in whichever form, or None."""
    if os.path.exists(path):
        return path
    if path.isascii():
        return None
    here = ""
    for part in Path(path).parts:
        forms = (part, composed(part), unicodedata.normalize("NFD", part))
        there = (x for x in (os.path.join(here, form) for form in forms) if os.path.exists(x))
        here = next(there, "")
        if not here:
            return None
    return here


def in_other_capitals(path: str) -> str | None:
    """
    Return the path of what is there under a name, but for capitals and small letters, or None if
    there is nothing, or more than one. Whoever takes it calls `note_capitals`.
    """
    here = ""
    for part in Path(path).parts:
        there = as_on_disk(os.path.join(here, part))
        if there is None:
            names = _names_in(here or ".", _changed(here or ".")).get(folded(part), ())
            if len(names) != 1:
                return None
            there = os.path.join(here, names[0])
        here = there
    return here


def note_capitals(file: object, name: object, findings: Findings) -> None:
    """Put a file into the findings that is taken for a name with other capitals than its own."""
    findings.add("file whose name or folder has other capitals than expected", file, f"for {name}")


def folded(name: str) -> str:
    """Return a name in the form in which it is compared, where capitals do not matter."""
    return composed(name).casefold()


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=256)
def _names_in(folder: str, changed: int) -> dict[str, list[str]]:
    """What is in a folder, since it was changed last, by the names as `folded` has them."""
    names: dict[str, list[str]] = {}
    try:
        for name in sorted(os.listdir(folder)):
            names.setdefault(folded(name), []).append(name)
    except OSError:
        pass
    return names


def is_of_windows(path: str) -> bool:
    """Whether a path begins at a drive or a server, as on a machine with Windows."""
    return re.match(r"[A-Za-z]:[\\/]|\\\\", path) is not None
