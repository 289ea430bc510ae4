"""Blocks of docs/relabel.md, from what benchmarks/relabel.py stored."""

from collections.abc import Callable

import relabel_page
from relabel_page import NONE, RANDOM, SUSPECTS

from figures import stored
from figures.markdown import table, wrapped

IMAGES = {"few_look_alikes": "150", "some_look_alikes": "600"}
DECISIONS = (50, 100, 400)


def runs() -> relabel_page.Runs:
    """All that are there."""
    return relabel_page.by_name(stored.content("relabel/results.json"))


def relabelling() -> str:
    """AP without decisions, with them, and with all labels right, of each kind of wrong labels."""
    there, rows = runs(), []
    for name in relabel_page.spoilt_data(there):
        data, kind, share = name.split()
        base, clean = there.get((name, NONE), {}), there.get((data, NONE), {})
        of = [
            there.get((name, relabel_page.variant_name(way, n)), {})
            for n in DECISIONS
            for way in (SUSPECTS, RANDOM)
        ]
        cells = [relabel_page.gain(base, {})]
        cells += [relabel_page.gain(x, base) for x in (*of, clean)]
        rows.append([IMAGES[data], f"{float(share):.0%} {kind}", str(len(base)), *cells])
    titles = [f"{n} {words}" for n in DECISIONS for words in ("suspects", "at random")]
    titles = ["images", "labels", "seeds", "no decisions", *titles, "all labels right"]
    return f"{table(titles, rows)}\n\n{wrapped(relabel_page.how_much_there_is(there))}"


BLOCKS: dict[str, Callable[[], str]] = {"relabelling": relabelling}
