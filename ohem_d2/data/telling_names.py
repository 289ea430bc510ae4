"""Classes whose names say that they are none: regions to ignore, and the background."""

import re
from collections.abc import Mapping

_IGNORED = re.compile(
    r"(to)?(ignored?|dontcare|donotcare|void|unlabell?ed|excluded?)(area|region|zone|class)?s?"
)
_BACKGROUND = re.compile(r"(the)?(background|bg)s?")


def named_to_ignore(counts: Mapping[str, int]) -> list[str]:
    """
    Find names of regions to ignore, such as KITTI's "DontCare".

    Args:
        counts: how many objects each class has.

    Returns:
        words for each, with the count.
    """
    return _those(_IGNORED, counts)


def named_background(counts: Mapping[str, int]) -> list[str]:
    """Find names of the background, which a detector has without a class; as `named_to_ignore`."""
    return _those(_BACKGROUND, counts)


def _those(names: re.Pattern, counts: Mapping[str, int]) -> list[str]:
    return [
        f"{name!r} ({count})"
        for name, count in counts.items()
        if names.fullmatch(re.sub(r"[\W_]+", "", name).casefold())
    ]
