"""Which key was meant by one that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from fvcore.common.config import BASE_KEY

# How alike keys have to be (1: the same) that end with the same name, and others.
_SAME_NAME, _OTHERS = 0.4, 0.65
_NAMES = 0.55  # and how alike the names that others end with


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """
    Tell which key is the most like another, or None if none is.

    Args:
        key: it may be that of another node, or misspelt, or in other letters.
        known: all keys, of nodes as well.
    """
    by_letters = {x.casefold(): x for x in known}
    key = key.casefold()
    if "rpn" not in key:  # heads mine by keys of the same names, and are meant first
        by_letters = {x: y for x, y in by_letters.items() if "rpn.ohem" not in x}
    name = key.rpartition(".")[2]
    same = [x for x in by_letters if x.rpartition(".")[2] == name]
    found = get_close_matches(key, same, 1, _SAME_NAME)
    alike = [x for x in by_letters if get_close_matches(name, [x.rpartition(".")[2]], 1, _NAMES)]
    found = found or same[:1] * (len(same) == 1) or get_close_matches(key, alike, 1, _OTHERS)
    return by_letters[found[0]] if found else None


def hint(key: str, known: Iterable[str]) -> str:
    """Say which key is the nearest, as the end of a sentence that says that one does not exist."""
    if key.rpartition(".")[2] == BASE_KEY:
        return f", expected {BASE_KEY} at the top of a file, not below another key"
    nearest = nearest_key(key, known)
    return f", the nearest is {nearest}" if nearest else ""
