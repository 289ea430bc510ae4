"""Real photographs in docs/when_it_helps.md, from what benchmarks/accuracy.py stored."""

from collections.abc import Callable
from statistics import mean

from study_page import ENOUGH_SEEDS, bootstrap_interval

from figures.markdown import table
from figures.study import DEFAULT, NOT_RUN, PAPER, SAMPLING, gains, last_aps, with_each

FOLDER = "accuracy/photographs"
DATA = {
    "bccd": "blood cells",
    "aerialmaritime": "harbours from the air",
    "deeppcb": "circuit boards",
    "pear": "pears on trees",
}
WAYS = {DEFAULT: "**default**", PAPER: "the paper's rule"}
NOT_MEASURED = "not yet measured"


def photographs() -> str:
    """AP of 1:3 sampling on each data set, and how much more it is in the other ways."""
    last = last_aps(FOLDER)
    rows = []
    for data, words in DATA.items():
        baseline = last.get((data, SAMPLING), {})
        link = f"[{words}]({FOLDER}/accuracy.md#{data})" if baseline else words
        cells = ["Lite0, 256 pixels", link, str(len(baseline))]
        cells.append(f"{mean(baseline.values()):.1f}" if baseline else NOT_RUN)
        for way in WAYS:
            cells.append(_with_interval(gains(FOLDER, data, way)))
        rows.append(cells)
    for data in ("bccd", "aerialmaritime"):
        rows.append(["R50-FPN, on a GPU", DATA[data], "0", *[NOT_MEASURED] * (1 + len(WAYS))])
    return table(["model", "data", "seeds", "1:3", *WAYS.values()], rows)


def _with_interval(differences: list[float]) -> str:
    if len(differences) < ENOUGH_SEEDS:
        return with_each(differences)
    low, high = bootstrap_interval(differences)
    mean_of_all, _, each = with_each(differences).partition(" ")
    return f"{mean_of_all} [{low:+.1f} {high:+.1f}] {each}"


BLOCKS: dict[str, Callable[[], str]] = {"photographs": photographs}
