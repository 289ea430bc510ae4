#!/usr/bin/env python
"""
Write the figures that README.md and the pages in docs/ quote, from what the benchmarks stored.

    python tools/update_docs.py            # write them
    python tools/update_docs.py --check    # exit with 1 and name the blocks that are out of date

A block is all that stands between two marks:

    <!-- figures: settings -->
    <!-- end -->
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

_HERE = Path(__file__).parent
sys.path += [str(_HERE), str(_HERE.parent / "benchmarks")]

from figures import (  # noqa: E402
    candidates,
    cost,
    ignore_regions,
    label_errors,
    masks,
    page_opening,
    photographs,
    relabelling,
    single_runs,
    stored,
    study,
    survival,
)

BLOCKS: dict[str, Callable[[], str]] = {
    **study.BLOCKS,
    **cost.BLOCKS,
    **candidates.BLOCKS,
    **survival.BLOCKS,
    **label_errors.BLOCKS,
    **ignore_regions.BLOCKS,
    **masks.BLOCKS,
    **page_opening.BLOCKS,
    **photographs.BLOCKS,
    **relabelling.BLOCKS,
    **single_runs.BLOCKS,
}
_BLOCK = re.compile(r"<!-- figures: (\S+) -->\n.*?<!-- end -->", re.DOTALL)
_MARK = re.compile(r"<!-- figures:|<!-- end -->")


def pages() -> list[Path]:
    """The files that may have blocks."""
    return [stored.ROOT / "README.md", *sorted((stored.ROOT / "docs").glob("*.md"))]


def names_of_blocks(text: str) -> list[str]:
    """
    The names of the blocks of a page, in its order.

    Raises:
        ValueError: a mark without its other half, or a name that no function goes with.
    """
    names = _BLOCK.findall(text)
    if len(_MARK.findall(text)) != 2 * len(names):
        raise ValueError(
            "found a mark without its other half, expected '<!-- figures: NAME -->' and "
            "'<!-- end -->', each on a line of its own"
        )
    for name in names:
        if name not in BLOCKS:
            raise ValueError(f"found a block {name!r}, expected one of {', '.join(BLOCKS)}")
    return names


def update(text: str) -> str:
    """A page with its blocks written again."""
    return _BLOCK.sub(lambda found: _block(found[1]), text)


def out_of_date(text: str) -> list[str]:
    """The names of the blocks that `update` would change."""
    return [found[1] for found in _BLOCK.finditer(text) if found[0] != _block(found[1])]


def _block(name: str) -> str:
    return f"<!-- figures: {name} -->\n{BLOCKS[name]()}\n<!-- end -->"


def main() -> None:
    """Read the command line; check or write."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        try:
            names_of_blocks(text)
        except ValueError as e:
            sys.exit(f"error: {page}: {e}")
        old = out_of_date(text)
        found += [f"{page.relative_to(stored.ROOT)}: {name}" for name in old]
        if old and not args.check:
            page.write_text(update(text), encoding="utf-8")
    for x in found:
        print(f"{'out of date' if args.check else 'written'}: {x}")
    if found and args.check:
        sys.exit("error: run python tools/update_docs.py")


if __name__ == "__main__":
    main()
