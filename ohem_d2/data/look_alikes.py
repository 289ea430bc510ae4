"""Names of classes that look the same on a screen: letters of another script, and other dashes."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

# ruff: noqa: RUF001 (the linter's rule against letters like these)
# Cyrillic and Greek letters, and what they are drawn as; no Greek ones that only come near, such as
# a small alpha, which has a meaning of its own in names.
_CYRILLIC = dict(zip("асеорхуіјѕһԁԛԝАВЕКМНОРСТХУІЈЅԌ", "aceopxyijshdqwABEKMHOPCTXYIJSG"))
_GREEK = dict(zip("οΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "oABEZHIKMNOPTYX"))
_LETTERS = {**_CYRILLIC, **_GREEK}
_DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
_QUOTES = dict.fromkeys("\u2018\u2019\u02bc", "'")
_DRAWN_AS = str.maketrans(_LETTERS | _DASHES | _QUOTES)


def drawn_as(name: str) -> str:
    """
    Return what a name looks like, in Latin letters as far as that goes.

    Example:
        >>> drawn_as("\\u0441at")  # which begins with a Cyrillic letter
        'cat'
    """
    return unicodedata.normalize("NFKC", name).translate(_DRAWN_AS)


def look_alikes(counts: Mapping[str, int]) -> list[str]:
    """
    Find names that look the same.

    Args:
        counts: how many objects each class has, by its normalised name.

    Returns:
        words for each group of such names, with the counts.
    """
    groups = defaultdict(list)
    for name in counts:
        # Those that differ in case alone are named by `differ_in_case`.
        groups[drawn_as(name).casefold()].append(name)
    return [
        " and ".join(f"{_escaped(name)} ({counts[name]})" for name in names)
        for names in groups.values()
        if len({name.casefold() for name in names}) > 1
    ]


def of_two_scripts(counts: Mapping[str, int]) -> list[str]:
    """
    Find names in which a word has Latin letters, and others that look like such.

    Args:
        counts: see `look_alikes`.

    Returns:
        words for each of them that looks like no other name.
    """
    looks = [drawn_as(name).casefold() for name in counts]
    return [
        f"{_escaped(name)} ({counts[name]})"
        for name, look in zip(counts, looks)
        if looks.count(look) == 1 and any(map(_is_mixed, re.findall(r"[^\W\d_]+", name)))
    ]


def _is_mixed(word: str) -> bool:
    """Whether it is Latin but for letters that look so; a word of another script is none."""
    others = [x for x in word if not unicodedata.name(x, "").startswith("LATIN")]
    return 0 < len(others) < len(word) and all(x in _LETTERS for x in others)


def _escaped(name: str) -> str:
    """A name, and its letters by number where they are no plain ones."""
    return repr(name) if name.isascii() else f"{name!r}, {name!a}"
