"""Names of classes: what is written in two ways is one class."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200e\u200f"))


def normalise(name: str) -> str:
    """
    Write a class's name in one way: without white space around it, a single space for each run of
    it inside, without invisible characters, and accents as Unicode composes them.

    Example:
        >>> normalise(" traffic\\n light ")
        'traffic light'
    """
    return unicodedata.normalize("NFC", " ".join(name.translate(_INVISIBLE).split()))


def differ_in_case(counts: Mapping[str, int]) -> list[str]:
    """
    Find names that differ in upper and lower case only.

    Args:
        counts: how many objects each class has.

    Returns:
        words for each group of such names, with the counts.
    """
    groups = defaultdict(list)
    for name, count in counts.items():
        groups[name.casefold()].append(f"{name!r} ({count})")
    return [" and ".join(names) for names in groups.values() if len(names) > 1]


def differ_in_separators(names: Iterable[str]) -> list[str]:
    """
    Find names that differ in spaces, hyphens and underscores only.

    Args:
        names: each once, normalised.

    Returns:
        words for each group of such names.
    """
    groups = defaultdict(list)
    for name in names:
        groups[re.sub(r"[\s_-]+", "", name).casefold()].append(name)
    # Those that differ in case alone are named by `differ_in_case`.
    return [
        " and ".join(map(repr, group))
        for group in groups.values()
        if len({name.casefold() for name in group}) > 1
    ]


def of_one_name(names: Mapping[Any, str]) -> list[str]:
    """
    Find classes with several ids.

    Args:
        names: the name of each id.

    Returns:
        words for each such class.
    """
    groups = defaultdict(list)
    for i, name in names.items():
        groups[normalise(name)].append(repr(i))
    return [f"{name!r}: {' and '.join(ids)}" for name, ids in groups.items() if len(ids) > 1]


def merged(names: Iterable[str]) -> list[str]:
    """
    Find names that are one class once they are normalised.

    Args:
        names: as they are written.

    Returns:
        words for each group of such names.
    """
    groups = defaultdict(list)
    for name in Counter(names):
        groups[normalise(name)].append(repr(name))
    return [" and ".join(names) for names in groups.values() if len(names) > 1]
