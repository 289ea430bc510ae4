"""Blocks of docs/label_errors.md, from the page that benchmarks/label_errors.py wrote."""

import re
from collections import defaultdict
from collections.abc import Callable

from figures import stored
from figures.markdown import table


def label_errors() -> str:
    """How well each ranking finds labels that are wrong in any way."""
    found: dict[str, list[str]] = defaultdict(list)
    for images in ("trained on", "others"):
        section = stored.section("label_errors/measured.md", f"Images: {images}")
        for ranking, cells in re.findall(
            r"^\| any of them \| \d+ \| (.*?) \| (.*) \|$", section, re.MULTILINE
        ):
            average_precision, _, recall = cells.split(" | ")
            found[ranking] += [average_precision, recall]
    trained_on = ("images trained on: average precision", "recall")
    others = ("other images: average precision", "recall")
    return table(
        ["ranking", *trained_on, *others], [[ranking, *cells] for ranking, cells in found.items()]
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "label-errors": label_errors,
}
