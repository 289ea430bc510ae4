"""Settings that the command line has more than once, of which the last one counts."""

import logging
from collections.abc import Sequence

from ..errors import shown

logger = logging.getLogger(__name__)


def warn_of_repeated_settings(opts: Sequence[str], is_yaml: bool = True) -> None:
    """
    Warn of keys that are given several values.

    Args:
        opts: the settings, which were taken: keys and values in turn, or each ``key=value``.
        is_yaml: whether they are the former, for a YAML config.
    """
    pairs = zip(opts[::2], opts[1::2]) if is_yaml else (x.split("=", 1) for x in opts if "=" in x)
    given: dict[str, list[str]] = {}
    for key, value in pairs:
        given.setdefault(key.lstrip("+"), []).append(value.strip())
    for key, values in given.items():
        if len(set(values)) > 1:
            logger.warning(
                f"{key} is given {len(values)} times, as {' and as '.join(map(shown, values))}, "
                "expected once: the last one counts"
            )
