"""
Names of files as annotations have them. Accents have two forms in Unicode, composed (NFC) and not
(NFD, which older Macs write), and a copy from one system to another may change that of the files.
"""

import os
import re
import unicodedata
from pathlib import Path


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


def is_of_windows(path: str) -> bool:
    """Whether a path begins at a drive or a server, as on a machine with Windows."""
    return re.match(r"[A-Za-z]:[\\/]|\\\\", path) is not None
