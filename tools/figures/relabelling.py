"""Blocks of docs/relabel.md, from what benchmarks/relabel.py stored."""

from collections.abc import Callable

import relabel_page
from relabel_page import NONE, RANDOM, SUSPECTS

from figures import stored
from figures.markdown import table, wrapped

IMAGES = {"few_look_alikes": "150", "some_look_alikes": "600"}
DECISIONS = (50, 100, 400)
_TITLES = [f"{n} {words}" for n in DECISIONS for words in ("suspects", "at random")]


def runs() -> relabel_page.Runs:
    """All that are there."""
    return relabel_page.by_name(stored.content("relabel/results.json"))


def relabelling() -> str:
    """AP without decisions, with them, and with all labels right, of each kind of wrong labels."""
    there, rows = runs(), []
    for name in relabel_page.spoilt_data(there):
        data = name.split()[0]
        base, clean = there.get((name, NONE), {}), there.get((data, NONE), {})
        cells = [str(len(base)), relabel_page.gain(base, {})]
        cells += [relabel_page.gain(x, base) for x in (*_with_decisions(there, name), clean)]
        rows.append([*_words(name), *cells])
    titles = ["images", "labels", "seeds", "no decisions", *_TITLES, "all labels right"]
    return f"{table(titles, rows)}\n\n{wrapped(relabel_page.how_much_there_is(there))}"


def changed() -> str:
    """In how many of the decisions a label was changed, of how many that were wrong."""
    there, rows = runs(), []
    for name in relabel_page.spoilt_data(there):
        of = _with_decisions(there, name)
        wrong = {str(x["wrong"]) for by_seed in of for x in by_seed.values()}
        rows.append([*_words(name), ", ".join(wrong), *map(relabel_page.changed, of)])
    return table(["images", "labels", "wrong or missing", *_TITLES], rows)


def _with_decisions(there: relabel_page.Runs, name: str) -> list[dict[int, dict]]:
    return [
        there.get((name, relabel_page.variant_name(way, n)), {})
        for n in DECISIONS
        for way in (SUSPECTS, RANDOM)
    ]


def _words(name: str) -> list[str]:
    data, kind, share = name.split()
    return [IMAGES[data], f"{float(share):.0%} {kind}"]


BLOCKS: dict[str, Callable[[], str]] = {"relabelling": relabelling, "relabelling-changed": changed}
