"""The block of docs/ignore_regions.md, from what benchmarks/accuracy.py stored."""

from collections.abc import Callable
from statistics import mean

from variants import VARIANTS

from figures.markdown import table
from figures.study import NOT_RUN, SAMPLING, last_aps, with_each

FOLDER = "accuracy/regions"
DATA = {
    "few_crowds": "crowds",
    "few_look_alikes_ignored_0.2": "look-alikes, a fifth ignored",
    "bccd_ignored_0.2": "blood cells, a fifth ignored",
}
WAYS = (SAMPLING, "sampling_ignoring", "half_unaware", "half_random")


def ignore_regions() -> str:
    """AP of each way on each data set, and how much more it is than that of 1:3 sampling."""
    last = last_aps(FOLDER)
    rows = []
    for data, words in DATA.items():
        baseline = last.get((data, SAMPLING), {})
        link = f"[{words}]({FOLDER}/accuracy.md#{data.replace('.', '')})" if baseline else words
        cells = [link, f"{mean(baseline.values()):.1f}" if baseline else NOT_RUN]
        for way in WAYS[1:]:
            runs = last.get((data, way), {})
            seeds = sorted(runs.keys() & baseline.keys())
            cells.append(with_each([runs[s] - baseline[s] for s in seeds]))
        rows.append(cells)
    return table(
        ["data", f"AP of {VARIANTS[SAMPLING][0]}", *(VARIANTS[x][0] for x in WAYS[1:])], rows
    )


BLOCKS: dict[str, Callable[[], str]] = {"ignore-regions": ignore_regions}
