"""What is wrong with a path, in words that go on where it was named: "x.pth", "is a folder"."""

import errno
import os
import re
import stat
import unicodedata
from pathlib import Path

# Categories of characters that cannot be seen, of which a folder's name never means any: controls,
# halves of others, separators of lines, and what controls the direction of text.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # which some scripts need
# What the names of files end with that this project, Detectron2 and their users write.
_OF_FILES = {
    ".html", ".json", ".pkl", ".pth", ".yaml", ".yml", ".py", ".txt", ".jpg", ".png", ".zip", ".xml"
}  # fmt: skip
_NOTHING = "does not exist"
# As scp has it: of a user there, of an absolute path there, or by a full name or number. A path of
# this machine may have a colon, too: "run:2024-01-01 12:30".
_ON_ANOTHER_MACHINE = re.compile(
    r"""
    [^/:@\s]+ @ [^/@\s]+ : | [\w.+-]{2,} : (\.{0,2}/ | ~)
    | ( ([\w-]+\.){2,} [A-Za-z]{2,} | (\d+\.){3} \d+ | localhost ) :
    """,
    re.VERBOSE,
)
_BETWEEN_PATHS = f"[{re.escape(os.pathsep)},;]"
_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def wrong_name(path: object) -> str | None:
    """
    Tell why something cannot be meant as a path on this machine. What is there makes no difference,
    unless a sign that names may have is all that tells.

    Nothing expands ``~``, ``$NAME`` and ``*`` in a config, so a folder of that name would be made.

    Returns:
        what is wrong, or None.
    """
    if not isinstance(path, (str, os.PathLike)):
        return "is no path"
    text = os.fspath(path)
    if not isinstance(text, str) or not text.strip():
        return "is blank"
    if text != text.strip():
        return "begins or ends with white space"
    if any(unicodedata.category(x) in _UNSEEN and x not in _JOINERS for x in text):
        escaped = any(x in "\a\b\t\n\v\f\r" for x in text)
        in_quotes = ", as \\n and \\t are read in double quotes" if escaped else ""
        codes = [x for x in text if unicodedata.category(x) == "Cs"]
        what = "bytes that are no UTF-8" if codes else "characters that cannot be seen"
        return f"has {what}{in_quotes}"
    if text[0] in "'\"" and text[-1] == text[0]:
        return "is in quotes"
    if re.match(r"[A-Za-z][\w+.-]+://", text):
        return "is an address"
    is_there = os.path.lexists(text)
    if not is_there and _is_list(text):
        return "is a list of paths"
    if not is_there and _ON_ANOTHER_MACHINE.match(text):
        # Of an address, too, pathlib leaves one slash.
        return "is an address, or a place on another machine"
    if os.name == "posix" and ("\\" in text or re.match("[A-Za-z]:", text)):
        return "is a path of Windows"
    if re.search(r"\{\{|\{%", text):
        return "has a part that a template replaces"
    if text.startswith("~") or re.search(r"\$\w|\$\{|\$\(", text):
        return "has a part that only a shell replaces"
    if not is_there and re.search(r"[*?]|\{.*\}", text):
        return "has a part that only a shell replaces"
    if not is_there and re.search(r"<\w[^<>]*>", text):
        return "has a placeholder in place of a name"
    return None


def wrong_file_name(path: str) -> str | None:
    """
    Tell why something cannot be meant as a path of a file to write on this machine.

    Returns:
        what is wrong, or None.
    """
    if reason := wrong_name(path):
        return reason
    is_of_folder = path.endswith(("/", os.sep)) or os.path.basename(path) in (".", "..")
    return "names a folder" if is_of_folder else None  # pathlib drops a slash at the end


def _is_list(text: str) -> bool:
    """Whether a text is several paths in one, as in PATH, rather than one that has such signs."""
    first = re.split(_BETWEEN_PATHS, text)[0]
    if first and "/" not in first and not os.path.isdir(first):
        return False
    begins_another = re.search(rf"{_BETWEEN_PATHS}(\.{{0,2}}/|~|$)", text)
    parts = text.split(os.pathsep)
    return bool(begins_another) or (len(parts) > 1 and all(map(os.path.isdir, parts)))


def wrong_folder_name(path: object) -> str | None:
    """
    Tell why something cannot be meant as a folder to write on this machine.

    Returns:
        what is wrong, or None.
    """
    if reason := wrong_name(path):
        return reason
    folder = Path(path)  # type: ignore[arg-type]
    return "names a file" if folder.suffix.lower() in _OF_FILES and not folder.is_dir() else None


def wrong_file(path: str | os.PathLike) -> str | None:
    """
    Tell why a file cannot be read, without opening it: pipes would wait, and devices never end.

    Returns:
        what is wrong, or None.
    """
    kind = _kind(path)
    if kind is not None:
        return kind
    return None if os.access(path, os.R_OK) else "may not be read"


def not_a_folder(path: str | os.PathLike) -> str | None:
    """
    Tell what is where a folder is to be read.

    Returns:
        what is wrong, or None, also if there is nothing.
    """
    kind = _kind(path) or "is a file"
    return None if kind in ("is a folder", _NOTHING) else kind


def wrong_output(path: Path, is_folder: bool, in_place: bool = True) -> str | None:
    """
    Tell why a file cannot be written, or a folder written to, where there is something already.

    Args:
        path: where to.
        is_folder: whether it is to be a folder.
        in_place: whether a file is opened, not replaced by another.

    Returns:
        what is wrong, or None, also if there is nothing.
    """
    kind = _kind(path) or "is a file"
    if kind == _NOTHING:
        return None
    if kind != ("is a folder" if is_folder else "is a file"):
        return kind
    needed = os.W_OK | os.X_OK if is_folder else os.W_OK if in_place else 0
    return None if os.access(path, needed) else "may not be written"


def wrong_folder(path: Path) -> str | None:
    """
    Tell why a folder cannot be made or written to, because of what is there in its place or above.

    Returns:
        what is wrong, or None.
    """
    for place in (path, *path.parents):
        if os.path.lexists(place):
            reason = wrong_output(place, is_folder=True)
            above = "" if place == path else f"is below {str(place)!r}, which "
            return reason and f"{above}{reason}"
    return None


def _kind(path: str | os.PathLike) -> str | None:
    """What there is if it is no file, or why there is nothing."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "is a link that leads nowhere" if os.path.islink(path) else _NOTHING
    except NotADirectoryError:
        return "is below a file"
    except (OSError, ValueError) as e:  # the second of a NUL
        if getattr(e, "errno", None) == errno.ELOOP:
            return "is a link that leads back to itself"
        return f"cannot be looked at ({getattr(e, 'strerror', None) or e})"
    return next((words for is_kind, words in _KINDS if is_kind(mode)), None)


def printable(text: str) -> str:
    """Return a text with codes for what is none, as in names of files of another encoding."""
    return text.encode(errors="backslashreplace").decode()
