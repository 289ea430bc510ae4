"""What a file is that is not what was expected, in words for an error."""

import json
import re
from pathlib import Path
from typing import Any

from ..errors import InputError

_START = 1000  # bytes that tell what a file is
_STARTS = {
    b"version https://git-lfs": "a Git LFS pointer and not the file itself (run 'git lfs pull')",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "compressed by gzip",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"<<<<<<< ": "a file with the marks of a merge that is not done",
}
_WEB_PAGE = re.compile(
    rb"(<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
# As it begins: the length of its header, in 8 bytes, and then the header, an object of JSON.
_LONGEST_HEADER_OF_SAFETENSORS = 100_000_000
# By keys of the first object in a file of JSON, or of one of its annotations.
_OF_KEYS = {
    "shapes": "a file of labelme's",
    "_via_img_metadata": "a project of VIA's",
    "asset": "a file of VoTT's",
    "items": "a file of Datumaro's",
}
_OF_ANNOTATIONS = {
    "segments_info": "panoptic segmentation ('segments_info')",
    "caption": "captions",
    "answer": "answers to questions",
}


def what_it_is(content: bytes) -> str:
    """Return what a file is by its content, or "" if that does not tell."""
    if not content.strip():
        return "empty"
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _WEB_PAGE.match(text[:_START]):
        return "a web page, as of a download that failed"
    if content[8:9] == b"{":
        length = int.from_bytes(content[:8], "little")
        if 0 < length <= _LONGEST_HEADER_OF_SAFETENSORS:
            return "a safetensors file"
    start = text[:64].lower()
    for beginning, words in _STARTS.items():
        if start.startswith(beginning.lower()):
            return words
    if b"\n<<<<<<< " in content and b"\n>>>>>>> " in content:
        return _STARTS[b"<<<<<<< "]
    lines = content.strip().split(b"\n", 2)
    if len(lines) > 1 and all(map(_is_object, lines[:2])):
        return "JSON Lines, an object in each line"
    return ""


def check_folder(folder: Path, expected: str) -> None:
    """
    Make sure that a folder is there.

    Raises:
        InputError: it is not, or is a file.
    """
    if folder.is_dir():
        return
    if not folder.is_file():
        raise InputError(f"{folder} does not exist, expected {expected}")
    raise InputError(f"{folder} is {what_file_is(folder) or 'a file'}, expected {expected}")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def what_file_is(file: Path) -> str:
    """Return what a file is by its first bytes, or "" if they do not tell."""
    with file.open("rb") as opened:
        return what_it_is(opened.read(_START))


def not_of_coco(content: Any) -> str:
    """Return what JSON is that is no object detection in COCO's format, or "" if it may be."""
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if {"image_id", "category_id"} <= content[0].keys():
            return "a list of detections or annotations alone"
        if "data" in content[0]:
            return "an export of Label Studio's in its own form"
    if not isinstance(content, dict):
        return ""
    for key, words in _OF_KEYS.items():
        if key in content and "images" not in content:
            return words
    first = next(iter(content.values()), None)
    if isinstance(first, dict) and {"filename", "regions"} <= first.keys():
        return "a file of VIA's"
    annotations = content.get("annotations")
    if isinstance(annotations, list) and annotations and isinstance(annotations[0], dict):
        for key, words in _OF_ANNOTATIONS.items():
            if key in annotations[0] and "bbox" not in annotations[0]:
                return f"a file of {words}"
    return ""
