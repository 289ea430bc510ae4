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
# The same, and drawn images, where the model decides on the labels of a second training.
TWICE = "sampling_then_half"
TWICE_FOLDER = "accuracy/twice"
MISSING_RUNS = {
    **{(MISSING_FOLDER, data): words for data, words in MISSING_DATA.items()},
    (TWICE_FOLDER, f"few_look_alikes{MISSING}"): "drawn look-alikes",
}


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


def averaged_weights() -> str:
    """Whether the average of the last weights tells more than the last ones."""
    spreads, means = {}, {}
    for metric in ("AP", "AP averaged"):
        of_ways = [
            list(runs.values())
            for (data, way), runs in last_aps(FOLDER, metric).items()
            if data in DATA and way in (SAMPLING, *WAYS)
        ]
        spreads[metric] = mean(map(stdev, of_ways))
        means[metric] = mean(map(mean, of_ways))
    return wrapped(
        "The average of the last fifth of the weights came out as the last ones: "
        f"{means['AP averaged']:.1f} AP in place of {means['AP']:.1f} over all data and ways, with "
        f"a spread over the seeds of {spreads['AP averaged']:.2f} in place of {spreads['AP']:.2f}. "
        "The pages of the data sets have both."
    )


def missing_labels() -> str:
    """The same with labels removed on purpose, with a row for each way."""
    rows = []
    for (folder, data), words in MISSING_RUNS.items():
        link = f"[{words}]({folder}/accuracy.md#{data.replace('.', '')})"
        last = last_aps(folder)
        for way in (SAMPLING, DEFAULT, "half_then_half", TWICE):
            runs = last.get((data, way), {}).values()
            if not runs:
                continue
            gain = "" if way == SAMPLING else with_each(gains(folder, data, way))
            cells = [link, VARIANTS[way][0], str(len(runs)), f"{mean(runs):.1f}", gain]
            rows.append([*cells, _labels_added(folder, data, way)])
    titles = ["data", "RoIs", "seeds", "AP", "gain over 1:3 sampling"]
    return table([*titles, "labels added, of these removed ones, of all removed ones"], rows)


def _labels_added(folder: str, data: str, way: str) -> str:
    """On average over the seeds: what the first model found."""
    runs = stored.content(f"{folder}/results.json")["runs"]
    found = [x for x in runs if (x["data"], x["variant"]) == (data, way) and "taken" in x]
    if not found:
        return ""
    return ", ".join(f"{mean(x[k] for x in found):.0f}" for k in ("taken", "right", "removed"))


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
    for (folder, data), words in MISSING_RUNS.items():
        more = gains(folder, data, TWICE)
        goal = "2 AP above 1:3 sampling with a fifth of the labels missing, by one recipe"
        found = f"{mean(more):+.1f}, trained twice" if more else NOT_RUN
        rows.append([goal, words, found, is_met(mean(more) >= 2) if more else ""])
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
    "photographs-averaged": averaged_weights,
    "photographs-machines": on_one_machine,
    "photographs-missing": missing_labels,
    "readme-results": readme_results,
}
