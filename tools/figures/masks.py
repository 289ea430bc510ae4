"""Masks in docs/when_it_helps.md, from what benchmarks/accuracy.py stored."""

from collections.abc import Callable
from statistics import mean

from variants import VARIANTS

from figures.markdown import table
from figures.study import SAMPLING, last_aps, with_each

FOLDER, DATA = "accuracy/masks", "shapes"
WAYS = (SAMPLING, "half_random", "all_masks")


def masks() -> str:
    """AP of boxes and of masks in each way, and how much more it is than with 1:3 sampling."""
    rows = []
    for way in WAYS:
        cells = [VARIANTS[way][0]]
        for metric in ("AP", "mask AP"):
            last = last_aps(FOLDER, metric)
            runs, baseline = last[DATA, way], last[DATA, SAMPLING]
            more = [runs[s] - baseline[s] for s in sorted(runs.keys() & baseline.keys())]
            found = f"{mean(runs.values()):.1f}"
            cells.append(found if way == SAMPLING else f"{found}, {with_each(more)}")
        rows.append(cells)
    return table(["RoIs", "AP of boxes", "AP of masks"], rows)


BLOCKS: dict[str, Callable[[], str]] = {"masks": masks}
