"""The page of what relabelling is worth: tables and curves of all runs of `relabel.py`."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from study_file import read

from ohem_d2.files import locked, write_whole

CLEAN = "clean"
NONE, SUSPECTS, RANDOM = "none", "suspects", "random images"
# What the whole study consists of.
PLAN: dict[str, list[Any]] = {
    "data": ["few_look_alikes"],
    "kinds": ["removed", "swapped", "moved"],
    "shares": [0.1, 0.2, 0.3],
    "decisions": [50, 100, 200, 400],
    "seeds": [0, 1, 2],
}
NOT_RUN = "not run"
_ABOUT = """*Changed*: in how many of the decisions a label was added or became right; all others
were looks at what was right already, or at what an earlier decision had changed. In parentheses,
the gain over no decisions with the same seed; with several seeds, on average and with each."""

Runs = dict[tuple[str, str], dict[int, dict]]


def data_name(data: str, kind: str, share: float) -> str:
    """What the runs are called whose labels are wrong in a way."""
    return data if kind == CLEAN else f"{data} {kind} {share}"


def variant_name(way: str, number: int) -> str:
    """What a run is called, by what was decided on, and how often."""
    return NONE if way == NONE else f"{number} {way}"


def by_name(content: dict) -> Runs:
    """The runs of a results.json by data set and variant, and by seed."""
    runs: Runs = {}
    for x in content["runs"]:
        runs.setdefault((x["data"], x["variant"]), {})[x["seed"]] = x
    return runs


def last_ap(runs: dict[int, dict]) -> dict[int, float]:
    """The last AP of each seed."""
    return {seed: x["points"][-1]["AP"] for seed, x in runs.items()}


def gain(runs: dict[int, dict], baseline: dict[int, dict]) -> str:
    """AP, and in brackets how much more it is than that of the baseline's runs of the same seed."""
    ap, before = last_ap(runs), last_ap(baseline)
    if not ap:
        return NOT_RUN
    more = [ap[s] - before[s] for s in sorted(ap.keys() & before.keys())]
    each = " ".join(f"{x:+.1f}" for x in more)
    if len(more) > 1:
        each = f"{statistics.mean(more):+.1f}: {each}"
    return f"{statistics.mean(ap.values()):.1f}" + (f" ({each})" if more else "")


def changed(runs: dict[int, dict]) -> str:
    """How many of the decisions of each seed changed a label."""
    if not runs:
        return NOT_RUN
    counts = [f"{x['changed']} of {x['decisions']}" for _, x in sorted(runs.items())]
    return ", ".join(dict.fromkeys(counts))


def numbers(runs: Runs) -> list[int]:
    """The numbers of decisions that there are runs of, and those of the plan."""
    found = {int(v.split()[0]) for _, v in runs if v != NONE}
    return sorted({*found, *PLAN["decisions"]})


def table(runs: Runs, spoilt: str) -> str:
    """
    AP by the number of decisions.

    Args:
        runs: all of them.
        spoilt: the data set whose labels are wrong.
    """
    titles = ["decisions", *(f"{x}: {y}" for x in (SUSPECTS, RANDOM) for y in ("AP", "changed"))]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    base, clean = runs.get((spoilt, NONE), {}), runs.get((spoilt.split()[0], NONE), {})
    lines.append(f"| none | {gain(base, {})} |  | {gain(base, {})} |  |")
    for number in numbers(runs):
        cells = [str(number)]
        for way in (SUSPECTS, RANDOM):
            these = runs.get((spoilt, variant_name(way, number)), {})
            cells += [gain(these, base), changed(these)]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| all labels right | {gain(clean, base)} |  | {gain(clean, base)} |  |")
    return "\n".join(lines)


def planned() -> list[tuple[str, str]]:
    """The data sets and variants of the plan, in its order."""
    ways = [(NONE, 0), *itertools.product((SUSPECTS, RANDOM), PLAN["decisions"])]
    found = []
    for data in PLAN["data"]:
        found.append((data, NONE))
        for kind, share in itertools.product(PLAN["kinds"], PLAN["shares"]):
            found += [(data_name(data, kind, share), variant_name(*x)) for x in ways]
    return found


def how_much_there_is(runs: Runs) -> str:
    """How much of the plan is there, in one sentence."""
    there = sum(seed in runs.get(x, {}) for x in planned() for seed in PLAN["seeds"])
    return f"{there} of the {len(planned()) * len(PLAN['seeds'])} runs that were planned are there."


def spoilt_data(runs: Runs) -> list[str]:
    """The data sets whose labels are wrong, in the order of the plan, and others behind them."""
    found = dict.fromkeys(x for x, _ in runs if " " in x)
    return [x for x in dict.fromkeys([*(x for x, _ in planned()), *found]) if x in found]


def report(output: Path) -> str:
    """Write and return a page on all runs that are there, with a picture of their curves."""
    with locked(output / ".lock"):
        content = read(output / "results.json")
        runs = by_name(content)
        page = ["# AP by the number of decisions", how_much_there_is(runs)]
        page.append(";\n".join(dict.fromkeys(x["machine"] for x in content["runs"])))
        spoilt = spoilt_data(runs)
        if spoilt:
            draw(runs, spoilt, output / "worth.png")
            page += ["![AP by the number of decisions](worth.png)", _ABOUT]
        for name in spoilt:
            seeds = sorted({seed for (d, _), of in runs.items() if d == name for seed in of})
            words = f"Seeds: {', '.join(map(str, seeds))}."
            wrong = {x["wrong"] for x in content["runs"] if x["data"] == name and "wrong" in x}
            words += "".join(f" {x} labels were wrong or missing at first." for x in wrong)
            page += [f"## {name}", words, table(runs, name)]
        text = "\n\n".join(page)
        write_whole(output / "worth.md", f"{text}\n")
    return text


def draw(runs: Runs, spoilt: Sequence[str], file: Path) -> None:
    """AP by the number of decisions: the mean of the seeds, and each of them."""
    figure, axes = plt.subplots(
        1, len(spoilt), figsize=(4.5 * len(spoilt), 4), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], spoilt):
        base = last_ap(runs.get((name, NONE), {}))
        for color, way in (("tab:blue", SUSPECTS), ("tab:orange", RANDOM)):
            curve = {0: base} | {
                n: last_ap(runs.get((name, variant_name(way, n)), {})) for n in numbers(runs)
            }
            curve = {n: of for n, of in curve.items() if of}
            for n, of in curve.items():
                axis.plot([n] * len(of), list(of.values()), ".", color=color, alpha=0.4)
            means = [statistics.mean(of.values()) for of in curve.values()]
            axis.plot(list(curve), means, color=color, label=way)
        clean = last_ap(runs.get((name.split()[0], NONE), {}))
        if clean:
            axis.axhline(statistics.mean(clean.values()), ls=":", color="gray", label="all right")
        axis.set_title(name)
        axis.set_xlabel("decisions")
    axes[0][0].set_ylabel("AP")
    axes[0][0].legend(loc="lower right")
    figure.savefig(file, dpi=110)
    plt.close(figure)
