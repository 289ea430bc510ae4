"""Blocks of docs/results.md, from docs/results/, where figures of single trainings are kept."""

from collections.abc import Callable, Sequence

from figures import stored
from figures.markdown import table

METRICS = ("AP", "AP50", "AP75")


def _training(name: str) -> dict:
    return stored.content("results/single_runs.json")["trainings"][name]


def _aps(name: str, metric: str) -> list[str]:
    """A training's AP, AP50 and AP75, as far as they were written down."""
    return _cells(_training(name)[metric])


def _cells(row: dict[str, float]) -> list[str]:
    return [f"{row[x]:.1f}" if x in row else "" for x in METRICS]


def _time(name: str) -> str:
    """How long a training took."""
    run = _training(name)
    of_iteration = run.get("seconds_per_iteration")
    text = f"{run['minutes']:g} minutes"
    return text if of_iteration is None else f"{text} ({of_iteration:g} s per iteration)"


def trained() -> str:
    """All trainings of the page."""
    voted = next(
        x
        for x in stored.content("results/box_voting.json")["rows"]
        if (x["data"], x["rounds"], x["nms"]) == ("ohem_shapes_test", 2, 0.3)
    )
    minutes = [_training(x)["minutes"] for x in ("blood cells, earlier", "blood cells")]
    cells = (
        f"[blood cells](#blood-cells), the paper's rule, {minutes[0]:g} to {minutes[1]:g} minutes"
    )
    fast = "[blood cells, Fast R-CNN](#fast-r-cnn-on-selective-search-proposals)"
    quick_start = (
        f"[quick start](#the-quick-start), {_training('quick start')['minutes']:g} minutes"
    )
    return table(
        ["", "trained on", *METRICS],
        [
            [quick_start, "1200 drawn images", *_aps("quick start", "coco")],
            ["[the same model with box voting](#box-voting)", "", *_cells(voted)],
            [cells, "292 photographs", *_aps("blood cells", "voc")],
            [
                f"{fast} on selective search, 1:3 sampling",
                "the same",
                *_aps("Fast R-CNN, 1:3 sampling", "voc"),
            ],
            [
                "blood cells, Fast R-CNN on selective search, the paper's rule",
                "the same",
                *_aps("Fast R-CNN, OHEM", "voc"),
            ],
        ],
    )


def quick_start() -> str:
    """The quick start, with two metrics and two parts of hard examples."""
    default, whole = "quick start", "quick start, whole budget"
    on_epyc = f"{_time(default)} on {_training(default)['machine']}"
    return table(
        ["hard examples", "metric", *METRICS, "training"],
        [
            ["half (default)", "COCO's", *_aps(default, "coco"), on_epyc],
            ["half (default)", "PASCAL VOC's (2012)", *_aps(default, "voc"), ""],
            ["all (`HARD_FRACTION: 1.0`)", "COCO's", *_aps(whole, "coco"), _time(whole)],
        ],
    )


def box_voting() -> str:
    """What benchmarks/box_voting.py stored."""
    rows = stored.content("results/box_voting.json")["rows"]
    return table(
        ["data set", "rounds", "NMS", *METRICS],
        [[x["data"], str(x["rounds"]), f"{x['nms']:g}", *_cells(x)] for x in rows],
    )


def blood_cells() -> str:
    """The training, and an earlier one."""
    earlier = "blood cells, earlier"
    return table(
        ["training", *METRICS, "time"],
        [
            ["this one", *_aps("blood cells", "voc"), _time("blood cells")],
            ["an earlier one", *_aps(earlier, "voc"), _time(earlier)],
            [
                "the earlier one, box voting with 2 rounds",
                *_aps(f"{earlier}, box voting", "voc"),
                "",
            ],
        ],
    )


def fast_rcnn() -> str:
    """Fast R-CNN with and without mining."""
    rows = {
        "1:3 at random (`StandardROIHeads`)": "Fast R-CNN, 1:3 sampling",
        "OHEM (`OHEMROIHeads`), the paper's rule": "Fast R-CNN, OHEM",
    }
    return table(
        ["sampling, 64 RoIs per image", *METRICS, "training"],
        [[words, *_aps(name, "voc"), _time(name)] for words, name in rows.items()],
    )


def _reports(what: str, title: str) -> str:
    reports = stored.content("results/single_runs.json")["reports"]
    kinds: Sequence[str] = list(next(iter(reports.values()))[what])
    rows = []
    for model, report in reports.items():
        counts = [report[what][x] for x in kinds]
        aps = _training(f"{model}, reported on")
        ap = next(aps[x]["AP"] for x in ("coco", "voc") if x in aps)
        numbers = (report["images"], sum(counts), *counts)
        rows.append([f"{model}, test", f"{ap:.1f}", *map(str, numbers)])
    return table(["", "AP", "images", title, *kinds], rows)


def first_suspects() -> str:
    """What comes first among the suspected label errors of blood cells."""
    first = stored.content("results/single_runs.json")["reports"]["blood cells"][
        "first_label_errors"
    ]
    counts = ", ".join(f"{number} {kind}" for kind, number in first["missing"].items())
    return f"Of the first {first['of']} suspected label errors, these have no label: {counts}."


BLOCKS: dict[str, Callable[[], str]] = {
    "trained": trained,
    "quick-start": quick_start,
    "box-voting": box_voting,
    "blood-cells": blood_cells,
    "fast-rcnn": fast_rcnn,
    "hard-examples": lambda: _reports("hard_examples", "hard examples"),
    "suspects": lambda: _reports("label_errors", "suspected label errors"),
    "first-suspects": first_suspects,
}
