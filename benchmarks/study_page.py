"""The page of an accuracy study: tables and learning curves of all its runs."""

import statistics
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from step_times import ratio
from study_file import read
from variants import SAMPLING, VARIANTS

from ohem_d2.files import locked, write_whole

# From this many on, the mean of differences has an interval beside it.
ENOUGH_SEEDS = 5


def report(output: Path) -> str:
    """Write and return a page on all runs that are there, with curves beside it."""
    with locked(output / ".lock"):
        return _report(output)


def _report(output: Path) -> str:
    content = read(output / "results.json")
    results, steps = content["runs"], content["steps"]
    page = []
    for data in dict.fromkeys(r["data"] for r in results):
        runs = {}
        for variant in VARIANTS:
            these = [r for r in results if (r["data"], r["variant"]) == (data, variant)]
            if these:
                # In one order, so that columns of single seeds can be compared.
                runs[variant] = dict(sorted((r["seed"], r["points"]) for r in these))
        seconds = steps.get(data, {"seconds": {}})["seconds"]
        plot = output / f"{data}.png"
        draw_curves(runs, seconds, plot)
        machines = dict.fromkeys(r["machine"] for r in results if r["data"] == data)
        tables = table(runs, seconds)
        page += [f"## {data}", ";\n".join(machines), tables, f"![Learning curves]({plot.name})"]
    text = "\n\n".join(page)
    write_whole(output / "accuracy.md", f"{text}\n")
    return text


def table(runs: dict[str, dict[int, list[dict]]], seconds: dict[str, list[float]]) -> str:
    """
    The last point of each run, over seeds, and in brackets how much more it is than that of 1:3
    sampling with the same seed, on the mean (with `bootstrap_interval`, from five seeds on) and
    each: first of all classes together, then of each.

    Args:
        runs: of each variant and seed, the points of the learning curve.
        seconds: what `time_steps` returned of the variants.
    """
    last = [points[-1] for by_seed in runs.values() for points in by_seed.values()]
    by_class = list(dict.fromkeys(x for point in last for x in point if x.startswith("AP-")))
    more = [x for x in ["AP averaged", "mask AP"] if any(x in point for point in last)]
    costs = _rows(runs, ["AP", *more, "AP50", "AP75"], seconds)
    return "\n".join(costs + (["", *_rows(runs, by_class, None)] if by_class else []))


def _rows(
    runs: dict[str, dict[int, list[dict]]],
    metrics: list[str],
    seconds: dict[str, list[float]] | None,
) -> list[str]:
    """A table with a row for each variant, and a column for each metric; and what it costs."""
    titles = ["RoIs", "seeds", *metrics]
    if seconds is not None:
        titles += ["iterations to 1:3's AP (1:3: 1)", "time of a step (1:3: 1)", "time to 1:3's AP"]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    baseline = runs.get(SAMPLING, {})
    for variant, by_seed in runs.items():
        seeds = [s for s in by_seed if s in baseline and variant != SAMPLING]
        cells = [VARIANTS[variant][0], str(len(by_seed))]
        for metric in metrics:
            # A model that finds nothing has no AP of classes.
            value = {seed: points[-1].get(metric, 0.0) for seed, points in by_seed.items()}
            more = [value[s] - baseline[s][-1].get(metric, 0.0) for s in seeds]
            cells.append(_mean_and_spread(list(value.values())) + _differences(more))
        if seconds is not None:
            cells += _costs(
                [baseline[s] for s in seeds],
                [by_seed[s] for s in seeds],
                seconds.get(SAMPLING),
                seconds.get(variant),
            )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _costs(
    baseline: list[list[dict]],
    runs: list[list[dict]],
    seconds_of_baseline: list[float] | None,
    seconds: list[float] | None,
) -> list[str]:
    """The last three cells of a row."""
    if not runs:
        return [""] * 3
    share = share_to_reach(baseline, runs)
    iterations = "never" if share is None else f"{share:.2f}"
    if not seconds or not seconds_of_baseline:
        return [iterations, "", ""]
    of_step = ratio(seconds, seconds_of_baseline)
    return [iterations, f"{of_step:.2f}", "never" if share is None else f"{share * of_step:.2f}"]


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _differences(values: list[float]) -> str:
    """Their mean, its interval if there are enough of them, and each."""
    if not values:
        return ""
    each = " ".join(f"{x:+.1f}" for x in values)
    if len(values) == 1:
        return f" ({each})"
    mean = f"{statistics.mean(values):+.1f}"
    if len(values) >= ENOUGH_SEEDS:
        low, high = bootstrap_interval(values)
        mean += f" [{low:+.1f} {high:+.1f}]"
    return f" ({mean}: {each})"


def bootstrap_interval(values: list[float]) -> tuple[float, float]:
    """
    The interval that holds 95 % of the means of as many values, drawn from these with replacement.
    With few values it is too narrow.
    """
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def share_to_reach(baseline: list[list[dict]], runs: list[list[dict]]) -> float | None:
    """
    When the mean curve, a line from 0 and from point to point, comes to the baseline's last AP.

    Args:
        baseline: points of each run.
        runs: the same, of the same seeds.

    Returns:
        iterations, as a share of the baseline's; None: never.
    """
    goal, whole = (statistics.mean(run[-1][x] for run in baseline) for x in ("AP", "iteration"))
    before = {"AP": 0.0, "iteration": 0.0}
    for at_a_time in zip(*runs):
        now = {x: statistics.mean(p[x] for p in at_a_time) for x in before}
        if now["AP"] >= goal:
            share = (goal - before["AP"]) / max(now["AP"] - before["AP"], 1e-9)
            there = before["iteration"] + share * (now["iteration"] - before["iteration"])
            return there / whole
        before = now
    return None


def draw_curves(
    runs: dict[str, dict[int, list[dict]]], seconds: dict[str, list[float]], file: Path
) -> None:
    """AP by iterations and by the time of training: the mean of the seeds, and each of them."""
    figure, axes = plt.subplots(1, 2, figsize=(15, 4.5), sharey=True, layout="constrained")
    of_baseline = seconds.get(SAMPLING)
    for number, (variant, by_seed) in enumerate(runs.items()):
        scales = [1.0]
        if of_baseline and variant in seconds:
            of_step = ratio(seconds[variant], of_baseline)
            scales.append(of_step * statistics.median(of_baseline))
        style = {"color": plt.cm.tab20(number)}
        for axis, scale in zip(axes, scales):
            for points in by_seed.values():
                x = [scale * p["iteration"] for p in points]
                axis.plot(x, [p["AP"] for p in points], lw=0.4, **style)
            mean = [statistics.mean(p["AP"] for p in at) for at in zip(*by_seed.values())]
            axis.plot(x, mean, label=VARIANTS[variant][0], **style)
    axes[0].set_xlabel("iterations")
    axes[1].set_xlabel("seconds of training, at the speed of steps measured in turn")
    axes[0].set_ylabel("AP")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)
