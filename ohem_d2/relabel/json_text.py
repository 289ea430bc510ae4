"""Where the parts of a JSON text stand, so that all but one keep each byte."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Span(NamedTuple):
    """Where a value stands in a text."""

    start: int
    end: int


def members(text: str, at: int) -> dict[str, Span]:
    """
    Return where the values of an object stand. Of a key that stands twice, the last one.

    Args:
        text: valid JSON.
        at: where its object begins.
    """
    found = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)  # behind the colon
        found[key] = Span(start, _DECODER.raw_decode(text, start)[1])
        at = _next(text, found[key].end)
    return found


def elements(text: str, at: int) -> list[Span]:
    """
    Return where the elements of an array stand.

    Args:
        text: valid JSON.
        at: where its array begins.
    """
    found = []
    at = _skip(text, at + 1)
    while text[at] != "]":
        found.append(Span(at, _DECODER.raw_decode(text, at)[1]))
        at = _next(text, found[-1].end)
    return found


def _next(text: str, end: int) -> int:
    """Where the next part begins, or the bracket stands that closes them all."""
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def replaced(text: str, changes: Sequence[tuple[Span, str]]) -> str:
    """
    Return a text with parts of it replaced.

    Args:
        text: any text.
        changes: where, and by what. They do not overlap.
    """
    pieces, at = [], 0
    for (start, end), new in sorted(changes):
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at:]])
