"""
Files of JSON, of YAML and of lines. A key that stands twice in one object, as after a merge by
hand, is an error: the parsers would keep the last one without a word.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from .other_files import what_it_is


def read_json(file: Path) -> Any:
    """
    Read a JSON file in UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
        InputError: it cannot be read, is no JSON, or has a key twice.
    """
    content = _read(file)

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            _refuse_twice(file, pairs, found)
        return found

    try:
        return json.loads(content.decode(json.detect_encoding(content)), object_pairs_hook=as_dict)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{file} is no JSON of annotations: it is nested too deeply") from None
    except ValueError as e:  # no JSON, or no text
        if other := what_it_is(content):
            raise InputError(f"{file} is {other}, expected JSON") from None
        raise InputError(f"{file} is no JSON: {e}") from None


def _refuse_twice(file: Path, pairs: list[tuple[str, Any]], found: dict[str, Any]) -> None:
    for key, value in pairs:
        if value != found[key]:  # the same value twice is read right
            where = f" of id {found['id']!r}" if "id" in found and key != "id" else ""
            raise InputError(
                f"{file}: the key {key!r} stands twice in one object{where}, with other content: "
                "expected it once"
            )


def read_yaml(file: Path) -> tuple[Any, Any]:
    """
    Read a YAML file.

    Returns:
        what is in it, and the same with nothing but texts: to YAML, yes, no, on and 007 are none.

    Raises:
        InputError: it cannot be read, is no YAML, or has a key twice.
    """
    content = _read(file)
    if other := what_it_is(content):
        raise InputError(f"{file} is {other}, expected YAML")
    try:
        text = content.decode("utf-8-sig")
        node = yaml.compose(text, yaml.SafeLoader)
        _check_keys(file, node, set())
        return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
    # ValueError: no text, or a date that there is not.
    except (yaml.YAMLError, ValueError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{file} is no YAML: {e}") from None


def _check_keys(file: Path, node: yaml.Node | None, seen: set[int]) -> None:
    """The same for YAML, whose parser does not tell either."""
    if node is None or id(node) in seen:  # which an alias leads to again
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(file, each, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[tuple[str, str], yaml.Node] = {}
    for key, value in node.value:
        _check_keys(file, value, seen)
        if not isinstance(key, yaml.ScalarNode):
            continue
        if words := another_number(key):
            line = key.start_mark.line + 1
            raise InputError(f"{file}, line {line}: the key is {key.value}, {words}")
        other = first.setdefault((key.tag, key.value), value)
        if _plain(other) != _plain(value):
            raise InputError(
                f"{file}, line {key.start_mark.line + 1}: the key {key.value!r} stands twice, with "
                "other content: expected it once"
            )


def another_number(node: yaml.Node) -> str | None:
    """What is wrong with a number that YAML reads as another than it looks like, or None."""
    text = node.value.replace("_", "")
    digits, sign = text.lstrip("+-"), "-" if text.startswith("-") else ""
    if node.tag.endswith(":int") and re.fullmatch("0[0-7]{1,300}", digits):
        number: float = int(digits, 8)
        base, expected = 8, "without a 0 in front"
        if number == int(digits):
            return None
    elif node.tag.endswith((":int", ":float")) and re.fullmatch(r"\d+(:\d+)+(\.\d*)?", digits):
        number = 0
        for part in digits.split(":"):
            number = 60 * number + float(part)
        base, expected = 60, "without a colon"
    else:
        return None
    return (
        f"which YAML reads as {sign}{number:.12g}, with base {base}: expected it {expected}, or a "
        "text in quotes"
    )


def _plain(node: yaml.Node) -> Any:
    """The content of a node, whatever way it is written in."""
    if isinstance(node, yaml.MappingNode):
        return [(_plain(key), _plain(value)) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each) for each in node.value]
    return node.tag, node.value


def read_lines(file: Path) -> list[str]:
    """
    Read the lines of a text in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it cannot be read, is not in UTF-8, or is a file of another kind.
    """
    content = _read(file)
    if content.strip() and (other := what_it_is(content)):
        raise InputError(f"{file} is {other}, expected lines of text")
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise InputError(f"{file} is no text in UTF-8: {e}") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as e:
        raise InputError(f"{file} cannot be read ({e.strerror})") from None
