"""Fewer candidates in docs/cost.md, from what step_cost.py and accuracy.py stored."""

from collections.abc import Callable
from statistics import mean, stdev

from figures.cost import AND_RPN, C4, COSTS, FPN, QUICK_START, step_costs
from figures.markdown import is_met, table
from figures.study import DEFAULT, last_aps, with_each

FOLDER = "accuracy/candidates"
DATA = {"few_look_alikes": "look-alikes", "bccd": "blood cells"}
WAYS = {
    "half_candidates": "half",
    "quarter_candidates": "a quarter",
    "eighth_candidates": "an eighth",
    "half_by_objectness": "half, by objectness",
    "quarter_by_objectness": "a quarter, by objectness",
}
# Of the time of a step, with the same pooling.
GOALS = {FPN: 1.08, C4: 1.35, QUICK_START: 1.10}


def costs() -> str:
    """
    What mining among fewer candidates costs, next to what was aimed at. Where a step trains on
    fewer RoIs than without mining, because no background is left, no goal is met.
    """
    rows = []
    for title, goal in GOALS.items():
        by_head = step_costs(title)
        budget = next(iter(by_head.values())).rois.partition(" ")[0]
        for head, found in by_head.items():
            if not head.startswith("OHEM") or AND_RPN in head:
                continue
            _, _, limit = head.partition(" of ")
            is_full = found.rois.partition(" ")[0] == budget
            verdict = is_met(float(found.same_pooling) <= goal) if is_full else "fewer RoIs"
            rows.append(
                [
                    COSTS[title],
                    limit.removesuffix(" candidates") or "all",
                    f"**{found.same_pooling}**",
                    found.ratio,
                    found.memory,
                    found.rois,
                    f"{goal:.2f}",
                    verdict,
                ]
            )
    titles = ["time, same pooling", "time, Detectron2's own pooling (lowest to highest)"]
    titles += ["peak memory", "RoIs trained on (foreground)", "goal, same pooling", ""]
    return table(["model", "candidates", *titles], rows)


def aps() -> str:
    """AP with the default, and how much more it is among fewer candidates."""
    last, rows = last_aps(FOLDER), []
    for data, words in DATA.items():
        of_all = last[data, DEFAULT]
        cells = [f"{mean(of_all.values()):.1f} ± {stdev(of_all.values()):.1f}"]
        for way in WAYS:
            fewer = last.get((data, way), {})
            more = [fewer[s] - of_all[s] for s in sorted(fewer.keys() & of_all.keys())]
            cells.append(with_each(more))
        rows.append([f"[{words}]({FOLDER}/accuracy.md#{data})", *cells])
    return table(["data", "AP among all proposals", *WAYS.values()], rows)


BLOCKS: dict[str, Callable[[], str]] = {"cost-candidates": costs, "candidates": aps}
