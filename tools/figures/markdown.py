"""Figures as pages show them."""

import textwrap
from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def is_met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def wrapped(text: str) -> str:
    """Prose in lines of at most 100 characters."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
