"""Real photographs in docs/when_it_helps.md, from what benchmarks/accuracy.py stored."""

from collections.abc import Callable
from statistics import mean, median, stdev

from step_times import ratio
from study_page import ENOUGH_SEEDS, bootstrap_interval, share_to_reach
from variants import VARIANTS

from figures import stored
from figures.markdown import is_met, table, wrapped
from figures.study import (
    DEFAULT,
    LABELS_MISSING,
    LOOK_ALIKES,
    MISSING,
    NOT_RUN,
    PAPER,
    SAMPLING,
    SCRATCH_LOOK_ALIKES,
    ahead,
    gains,
    last_aps,
    points_of,
    values,
    with_each,
    within_time,
)

FOLDER = "accuracy/photographs"
DATA = {
    "bccd": "blood cells",
    "aerialmaritime": "harbours from the air",
    "deeppcb": "circuit boards",
    "pear": "pears on trees",
}
WAYS = {DEFAULT: "**default**", PAPER: "the paper's rule"}
NOT_MEASURED = "not yet measured"
# With a fifth of the labels removed, in less time.
MISSING_FOLDER = "accuracy/photographs_removed"
MISSING_DATA = {f"bccd{MISSING}": "blood cells"}
MISSING_WAYS = (DEFAULT,)


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


def mean_gains() -> str:
    """The gain of each way on the mean of the data sets, in a sentence."""
    found = [mean(mean(gains(FOLDER, data, way)) for data in DATA) for way in WAYS]
    default, paper = (f"{x:+.1f}" for x in found)
    return f"On the mean of the four, the default gains {default} AP, and the paper's rule {paper}."


def on_one_machine() -> str:
    """The mean gains of the pairs of runs that were both trained on a GPU, or both on a CPU."""
    runs = stored.content(f"{FOLDER}/results.json")["runs"]
    is_cpu = {(x["data"], x["variant"], x["seed"]): "no GPU" in x["machine"] for x in runs}
    last, found, number = last_aps(FOLDER), [], 0
    for way in WAYS:
        of_data = []
        for data in DATA:
            of_way, baseline = last[data, way], last[data, SAMPLING]
            seeds = of_way.keys() & baseline.keys()
            alike = [s for s in seeds if is_cpu[data, way, s] == is_cpu[data, SAMPLING, s]]
            number += len(seeds) - len(alike)
            of_data.append(mean(of_way[s] - baseline[s] for s in alike))
        found.append(f"{mean(of_data):+.1f}")
    default, paper = found
    return wrapped(
        f"In {number} of the pairs, one run was trained on a GPU and the other on a CPU. Without "
        f"them, the gains on the mean of the four are {default} and {paper} AP."
    )


def missing_labels() -> str:
    """The same with labels removed on purpose, with a row for each way."""
    last, rows = last_aps(MISSING_FOLDER), []
    for data, words in MISSING_DATA.items():
        link = f"[{words}]({MISSING_FOLDER}/accuracy.md#{data.replace('.', '')})"
        for way in (SAMPLING, *MISSING_WAYS):
            runs = last.get((data, way), {}).values()
            found = f"{mean(runs):.1f}" if runs else NOT_RUN
            gain = "" if way == SAMPLING else with_each(gains(MISSING_FOLDER, data, way))
            rows.append([link, VARIANTS[way][0], str(len(runs)), found, gain])
    return table(["data", "RoIs", "seeds", "AP", "gain over 1:3 sampling"], rows)


def goals() -> str:
    """What the study of photographs was held to."""
    last = last_aps(FOLDER)
    rows = []
    for data, words in DATA.items():
        gain, spread = mean(gains(FOLDER, data, DEFAULT)), stdev(last[data, SAMPLING].values())
        found = f"{gain:+.1f}, the spread of 1:3 is {spread:.1f}"
        rows.append(
            [
                "not below 1:3 sampling by more than its spread",
                words,
                found,
                is_met(gain >= -spread),
            ]
        )
    of_missing = last_aps(MISSING_FOLDER)
    for data, words in MISSING_DATA.items():
        gain = mean(gains(MISSING_FOLDER, data, DEFAULT))
        spread = stdev(of_missing[data, SAMPLING].values())
        rows.append(
            [
                "the same with a fifth of the labels missing",
                words,
                f"{gain:+.1f}, the spread of 1:3 is {spread:.1f}",
                is_met(gain >= -spread),
            ]
        )
    of_all = mean(mean(gains(FOLDER, data, DEFAULT)) for data in DATA)
    rows.append(
        ["1.5 AP above 1:3 sampling", "mean of the four", f"{of_all:+.1f}", is_met(of_all >= 1.5)]
    )
    for data, words in DATA.items():
        baseline, runs = (points_of(FOLDER, data, x) for x in (SAMPLING, DEFAULT))
        seeds = sorted(baseline.keys() & runs.keys())
        share = share_to_reach([baseline[x] for x in seeds], [runs[x] for x in seeds])
        seconds = stored.content(f"{FOLDER}/results.json")["steps"][data]["seconds"]
        step = ratio(seconds[DEFAULT], seconds[SAMPLING])
        rows.append(
            ["1:3 sampling's last AP in at most 0.75 of its time", words, *within_time(share, step)]
        )
    curves = list(points_of(FOLDER, "bccd", DEFAULT).values())
    steps = share_to_reach([[{"AP": 57.0, "iteration": 1}]], curves)
    seconds = stored.content(f"{FOLDER}/results.json")["steps"]["bccd"]["seconds"][DEFAULT]
    minutes = None if steps is None else steps * median(seconds) / 60
    found = "never" if minutes is None else f"{minutes:.0f} minutes of one core ({steps:.0f} steps)"
    # With both cores it may be: it was not tried.
    met = is_met(True) if minutes is not None and minutes <= 15 else "missed with one core"
    rows.append(["57 AP in 15 minutes of two cores", DATA["bccd"], found, met])
    return table(["goal of the default", "data", "found", ""], rows)


def readme_results() -> str:
    """All photographs and a few settings of drawn images, in lines short enough for README.md."""
    photographs = {words: (FOLDER, data) for data, words in DATA.items()}
    for data, words in MISSING_DATA.items():
        photographs[f"{words}, a fifth of the labels missing"] = (MISSING_FOLDER, data)
    rows = [
        [
            words,
            f"{mean(last_aps(folder)[data, SAMPLING].values()):.1f}",
            with_each(gains(folder, data, DEFAULT), bold=True),
            with_each(gains(folder, data, PAPER)),
        ]
        for words, (folder, data) in photographs.items()
    ]
    for words, setting in {
        "drawn look-alikes, from scratch": SCRATCH_LOOK_ALIKES,
        "drawn look-alikes": LOOK_ALIKES,
        "the same, a fifth of labels missing": LABELS_MISSING,
    }.items():
        rows.append(
            [
                words,
                f"{mean(values(setting, SAMPLING)):.1f}",
                with_each(ahead(setting, DEFAULT), bold=True),
                with_each(ahead(setting, PAPER)),
            ]
        )
    return table(["data", "1:3", "**default**", "the paper's rule"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "photographs": photographs,
    "photographs-mean": mean_gains,
    "photographs-goals": goals,
    "photographs-machines": on_one_machine,
    "photographs-missing": missing_labels,
    "readme-results": readme_results,
}
