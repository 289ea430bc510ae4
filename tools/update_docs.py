#!/usr/bin/env python
"""
Write the figures that README.md and the pages in docs/ quote, from what the benchmarks stored.

    python tools/update_docs.py            # write them
    python tools/update_docs.py --check    # exit with 1 and name the blocks that are out of date

A block is all that stands between two marks:

    <!-- figures: settings -->
    <!-- end -->
"""

import argparse
import json
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

from accuracy import VARIANTS, share_to_reach  # noqa: E402
from step_times import ratio  # noqa: E402

# Names of variants.
SAMPLING, DEFAULT, PAPER, LATE = "sampling", "half_random", "ohem", "sampled_first_half"
NOT_RUN = "not run"
SHARES = [f"{x} %" for x in (20, 40, 60, 80, 100)]  # of a training: the points of the curves
_BLOCK = re.compile(r"<!-- figures: (\S+) -->\n.*?<!-- end -->", re.DOTALL)
_MARK = re.compile(r"<!-- figures:|<!-- end -->")

# ------------------------------------------------------------------------------------- the study


class Setting(NamedTuple):
    """Runs that can be compared: a folder of the study, a data set in it, and words for both."""

    folder: str
    data: str
    start: str
    words: str

    @property
    def link(self) -> str:
        """The words, with a link to the section of the page that the study wrote."""
        anchor = self.data.replace(".", "")
        return f"[{self.words}](accuracy/{self.folder}/accuracy.md#{anchor})"


FEW = "few_look_alikes"
MISSING = "_removed_0.2_swapped_0.0"
SWAPPED = "_removed_0.0_swapped_0.2"
TRAINED = "trained backbone"
OTHERS = f"{TRAINED}, seeds 3 to 5"
SHORT = f"{TRAINED}, 1000 steps"
SCRATCH = "from scratch"
MANY = f"{SCRATCH}, 1000 steps, 1200 images"
A_FIFTH_MISSING = "look-alikes, a fifth of the labels missing"

LOOK_ALIKES = Setting("pretrained_long", FEW, TRAINED, "look-alikes")
LABELS_MISSING = Setting("pretrained_long", FEW + MISSING, TRAINED, A_FIFTH_MISSING)
LABELS_SWAPPED = Setting(
    "pretrained_long", FEW + SWAPPED, TRAINED, "look-alikes, a fifth of the labels swapped"
)
CELLS = Setting("pretrained_long", "bccd", TRAINED, "blood cells")
OTHER_LOOK_ALIKES = Setting("other_seeds", FEW, OTHERS, "look-alikes")
OTHER_MISSING = Setting("other_seeds", FEW + MISSING, OTHERS, A_FIFTH_MISSING)
OTHER_CELLS = Setting("other_seeds", "bccd", OTHERS, "blood cells")
SHORT_LOOK_ALIKES = Setting("pretrained", FEW, SHORT, "look-alikes")
SHORT_PLAIN = Setting("pretrained", "few_plain", SHORT, "no look-alikes")
SCRATCH_LOOK_ALIKES = Setting("scratch_few", FEW, SCRATCH, "look-alikes")
MANY_LOOK_ALIKES = Setting("scratch", "look_alikes", MANY, "look-alikes")
MANY_PLAIN = Setting("scratch", "plain", MANY, "no look-alikes")
MANY_MISSING = Setting("scratch", f"look_alikes{MISSING}", MANY, A_FIFTH_MISSING)
SETTINGS = (
    LOOK_ALIKES,
    LABELS_MISSING,
    LABELS_SWAPPED,
    CELLS,
    OTHER_LOOK_ALIKES,
    OTHER_MISSING,
    OTHER_CELLS,
    SHORT_LOOK_ALIKES,
    SHORT_PLAIN,
    SCRATCH_LOOK_ALIKES,
    MANY_LOOK_ALIKES,
    MANY_PLAIN,
    MANY_MISSING,
)


@cache
def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def _study(setting: Setting) -> dict:
    return _read(ROOT / "docs" / "accuracy" / setting.folder / "results.json")


def curves(setting: Setting, variant: str) -> dict[int, list[dict]]:
    """The points of each run, by seed; none if the variant was not run with three seeds."""
    runs = [
        x for x in _study(setting)["runs"] if (x["data"], x["variant"]) == (setting.data, variant)
    ]
    by_seed = {x["seed"]: x["points"] for x in sorted(runs, key=lambda x: x["seed"])}
    return by_seed if len(by_seed) == 3 else {}


def values(setting: Setting, variant: str, metric: str = "AP", at: int = -1) -> list[float]:
    """The metric of each seed, at the last point of the curves or at another one."""
    return [points[at][metric] for points in curves(setting, variant).values()]


def ahead(
    setting: Setting, variant: str, metric: str = "AP", at: int = -1, of: str = SAMPLING
) -> list[float]:
    """How much more than another variant with the same seed, of each seed."""
    if curves(setting, variant).keys() != curves(setting, of).keys():
        return []
    pairs = (values(setting, x, metric, at) for x in (variant, of))
    return [a - b for a, b in zip(*pairs)]


def costs(setting: Setting, variant: str) -> tuple[float | None, float]:
    """
    Returns:
        after what share of the baseline's iterations a variant reaches its last AP (None: never),
        and how many times as long as the baseline's a step takes.
    """
    runs = (list(curves(setting, x).values()) for x in (SAMPLING, variant))
    seconds = _study(setting)["steps"][setting.data]["seconds"]
    return share_to_reach(*runs), ratio(seconds[variant], seconds[SAMPLING])


# -------------------------------------------------------------------------------- words and cells


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_each(differences: Sequence[float], bold: bool = False) -> str:
    """Their mean, and each of them in brackets."""
    if not differences:
        return NOT_RUN
    average = f"{mean(differences):+.1f}"
    each = " ".join(f"{x:+.1f}" for x in differences)
    return f"{f'**{average}**' if bold else average} ({each})"


def mean_of(differences: Sequence[float]) -> str:
    """Their mean alone."""
    return f"{mean(differences):+.1f}" if differences else NOT_RUN


def _title(variant: str) -> str:
    return VARIANTS[variant][0]


def _is_met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


# ---------------------------------------------------------------------------- blocks of the study


def readme_results() -> str:
    """A few settings, in lines short enough for README.md."""
    rows = {
        "look-alikes, from scratch": SCRATCH_LOOK_ALIKES,
        "look-alikes": LOOK_ALIKES,
        "no look-alikes, 1000 steps": SHORT_PLAIN,
        "a fifth of the labels swapped": LABELS_SWAPPED,
        "a fifth of the labels missing": LABELS_MISSING,
        "blood cells, many unlabelled": CELLS,
    }
    return table(
        ["data", "1:3", "**default**", "the paper's rule"],
        [
            [
                words,
                f"{mean(values(setting, SAMPLING)):.1f}",
                with_each(ahead(setting, DEFAULT), bold=True),
                with_each(ahead(setting, PAPER)),
            ]
            for words, setting in rows.items()
        ],
    )


def settings() -> str:
    """All settings, and how much more than 1:3 sampling each part of hard examples is."""
    return table(
        ["start", "data", "1:3", "a quarter hard", "**half hard (default)**", "all hard (paper)"],
        [
            [
                setting.start,
                setting.link,
                f"{mean(values(setting, SAMPLING)):.1f}",
                with_each(ahead(setting, "quarter_hard")),
                with_each(ahead(setting, DEFAULT), bold=True),
                with_each(ahead(setting, PAPER)),
            ]
            for setting in SETTINGS
        ],
    )


def metrics() -> str:
    """AP50 and AP75 beside AP."""
    names = ("AP", "AP50", "AP75")
    return table(
        ["start", "data", *(f"default, {x}" for x in names), *(f"paper, {x}" for x in names)],
        [
            [
                setting.start,
                setting.words,
                *(mean_of(ahead(setting, v, x)) for v in (DEFAULT, PAPER) for x in names),
            ]
            for setting in SETTINGS
        ],
    )


def classes_of_cells() -> str:
    """AP of each class of the blood cells."""
    names = {"RBC": "red cells", "WBC": "white cells", "Platelets": "platelets"}
    rows = []
    for setting in (CELLS, OTHER_CELLS):
        for variant in (SAMPLING, DEFAULT, PAPER):
            if curves(setting, variant):
                aps = [f"{mean(values(setting, variant, f'AP-{x}')):.1f}" for x in names]
                rows.append([setting.start, _title(variant), *aps])
    return table(["start", "sampling", *names.values()], rows)


def way() -> str:
    """The mean curves, next to that of 1:3 sampling."""
    rows = []
    for setting in (SCRATCH_LOOK_ALIKES, LOOK_ALIKES, LABELS_MISSING, CELLS, OTHER_CELLS):
        for variant, words in ((DEFAULT, "half hard"), (LATE, "late start"), (PAPER, "all hard")):
            if curves(setting, variant):
                gains = [mean_of(ahead(setting, variant, at=i)) for i in range(5)]
                rows.append([setting.start, setting.words, words, *gains])
    return table(["start", "data", "sampling", *SHARES], rows)


def tried(*tried_on: Setting) -> str:
    """Every variant that was run in one of these settings."""
    variants = [v for v in VARIANTS if v != SAMPLING and any(curves(s, v) for s in tried_on)]
    rows = [[_title(v), *(with_each(ahead(s, v)) for s in tried_on)] for v in variants]
    baseline = [f"{mean(values(s, SAMPLING)):.1f} AP" for s in tried_on]
    titles = [setting.link for setting in tried_on]
    return table(["sampling", *titles], [[_title(SAMPLING), *baseline], *rows])


def late_start() -> str:
    """Mining from the first step on, and after a quarter of them."""
    rows = []
    for setting in (OTHER_LOOK_ALIKES, OTHER_MISSING, OTHER_CELLS):
        more = [ahead(setting, LATE, x, of=DEFAULT) for x in ("AP", "AP50", "AP75")]
        both = [with_each(ahead(setting, v)) for v in (DEFAULT, LATE)]
        rows.append([setting.link, *both, with_each(more[0]), *map(mean_of, more[1:])])
    next_to_default = ["late start next to default", "the same, AP50", "the same, AP75"]
    return table(["data", "default", "late start", *next_to_default], rows)


def flat() -> str:
    """The curve of 1:3 sampling itself."""
    rows = []
    for setting in SETTINGS:
        points = [mean(values(setting, SAMPLING, at=i)) for i in range(5)]
        last_two = (values(setting, SAMPLING, at=i) for i in (-1, -2))
        last = [a - b for a, b in zip(*last_two)]
        rows.append([setting.start, setting.words, *(f"{x:.1f}" for x in points), with_each(last)])
    return table(["start", "data", *SHARES, "gained in the last fifth"], rows)


def goal_no_harm() -> str:
    """Whether the default is as good as 1:3 sampling, but for the spread of its seeds."""
    rows = []
    for variant, words in ((DEFAULT, "default"), (LATE, "late start")):
        for setting in SETTINGS:
            gain = ahead(setting, variant)
            if gain and (variant == DEFAULT or setting.start == OTHERS):
                spread = stdev(values(setting, SAMPLING))
                found = [f"{mean(gain):+.2f}", f"{spread:.2f}"]
                where = [setting.start, setting.words]
                rows.append([words, *where, *found, _is_met(mean(gain) >= -spread)])
    return table(["sampling", "start", "data", "next to 1:3", "spread of 1:3", "goal"], rows)


def goals() -> str:
    """The other goals that the study was held to."""
    rows = []
    for setting in (SCRATCH_LOOK_ALIKES, LOOK_ALIKES, OTHER_LOOK_ALIKES):
        gain = mean(ahead(setting, DEFAULT))
        rows.append(["3 AP above 1:3 sampling", setting.start, f"{gain:+.1f}", _is_met(gain >= 3)])
    for setting, variant, words in (
        (SCRATCH_LOOK_ALIKES, DEFAULT, ""),
        (LOOK_ALIKES, DEFAULT, ""),
        (OTHER_LOOK_ALIKES, DEFAULT, ""),
        (LOOK_ALIKES, "short_half", ", a schedule of 0.65 of the steps"),
        (LOOK_ALIKES, "shorter_half", ", a schedule of 0.6 of the steps"),
    ):
        share, step = costs(setting, variant)
        end = f", ends {mean_of(ahead(setting, variant))}" if words else ""
        found = "never"
        if share is not None:
            found = (
                f"{share * step:.2f} ({share:.2f} of the iterations, each {step:.2f} times as long)"
            )
        rows.append(
            [
                "1:3 sampling's final AP in 0.75 of its time",
                f"{setting.start}{words}",
                f"{found}{end}",
                _is_met(share is not None and share * step <= 0.75),
            ]
        )
    for full, missing, variant in (
        (LOOK_ALIKES, LABELS_MISSING, DEFAULT),
        (OTHER_LOOK_ALIKES, OTHER_MISSING, DEFAULT),
        (OTHER_LOOK_ALIKES, OTHER_MISSING, LATE),
        (MANY_LOOK_ALIKES, MANY_MISSING, DEFAULT),
    ):
        lost, by_sampling = (
            mean(values(full, v)) - mean(values(missing, v)) for v in (variant, SAMPLING)
        )
        rows.append(
            [
                "a fifth of the labels missing costs no more AP than with 1:3 sampling",
                f"{full.start}{', late start' if variant == LATE else ''}",
                f"costs {lost:.1f}, with 1:3 sampling {by_sampling:.1f}",
                _is_met(lost <= by_sampling),
            ]
        )
    return table(["goal", "start", "found with the default", ""], rows)


# ------------------------------------------------------------------- what the other scripts wrote


class StepCost(NamedTuple):
    """A row of a table of benchmarks/step_cost.py, as it stands there."""

    seconds: str
    ratio: str  # to plain Detectron2, with the lowest and the highest in brackets
    same_pooling: str  # to plain Detectron2 with the same pooling
    mebibytes: str
    memory: str  # to plain Detectron2
    synchronizations: str
    rois: str  # with the foreground in brackets


def _section(page: str, title: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def step_costs(title: str) -> dict[str, StepCost]:
    """The first table of a section of docs/cost.md, by head."""
    rows = re.findall(r"^\| (\w+Heads[\w ]*) \| (.*) \|$", _section("cost.md", title), re.MULTILINE)
    return {head: StepCost(*cells.split(" | ")) for head, cells in rows}


def _of_mining(title: str) -> tuple[StepCost, StepCost]:
    """Plain Detectron2's row, and that of the head that mines."""
    by_head = step_costs(title)
    plain = next(iter(by_head))
    return by_head[plain], next(x for head, x in by_head.items() if head.startswith("OHEM"))


FPN = "Faster R-CNN, R50-FPN"
QUARTER = "Mining with a quarter of the budget"
QUICK_START = "The quick start's small model"
MASKS = "Mask R-CNN, R50-FPN"
COSTS = {
    FPN: "Faster R-CNN R50-FPN",
    QUARTER: "the same, the paper's rule, a quarter of the budget",
    QUICK_START: "the quick start's small model",
    MASKS: "Mask R-CNN R50-FPN, untrained",
    f"{MASKS}, the paper's way": "the same, the paper's rule",
    f"{MASKS}, at most a fourth of it foreground": "the same, at most a fourth of it foreground",
    "R50-C4": "Faster R-CNN R50-C4, the paper's rule",
    "Mixed precision (bfloat16)": "Faster R-CNN R50-FPN, bfloat16, the paper's rule",
}


def readme_cost() -> str:
    """One sentence."""
    _, mining = _of_mining(FPN)
    ratio_to_plain, low_to_high = mining.ratio.split(" ", 1)
    memory = float(mining.memory)
    text = (
        "On 2 CPU cores, with 2,000 proposals, a training step of R50-FPN takes "
        f"**{mining.same_pooling} times as long** as plain Detectron2's with the same RoI pooling. "
        f"Detectron2's own pooling uses one core only; next to that it takes {ratio_to_plain} "
        f"times as long {low_to_high}. Peak memory is "
        + ("the same." if memory == 1 else f"{memory:.2f} times as high.")
    )
    return textwrap.fill(text, 100)


def cost() -> str:
    """What mining costs each of the models."""
    rows = []
    for title, words in COSTS.items():
        plain, mining = _of_mining(title)
        one_pass = step_costs(title).get("OnePassROIHeads")
        foreground = (re.findall(r"\((\d+)\)", x.rois)[0] for x in (plain, mining))
        rows.append(
            [
                words,
                f"**{mining.same_pooling}**",
                mining.ratio,
                mining.memory,
                ", ".join(foreground),
                f"{one_pass.same_pooling}, {one_pass.memory}" if one_pass else "not measured",
            ]
        )
    titles = (
        "time, same pooling",
        "time, Detectron2's own pooling (lowest to highest)",
        "peak memory",
        "foreground: plain, mining",
        "one pass: time, memory",
    )
    return table(["model", *titles], rows)


def cost_goals() -> str:
    """What was aimed at, and what was found."""
    rows = []
    for title, time, memory in ((FPN, 1.15, 1.02), (QUARTER, 0.95, 1.0), (QUICK_START, 1.15, None)):
        _, mining = _of_mining(title)
        is_met = float(mining.ratio.split(" ")[0]) <= time
        is_met &= memory is None or float(mining.memory) <= memory
        goal = f"{time:.2f}" + (f", {memory:.2f}" if memory else "")
        rows.append(
            [
                f"{COSTS[title]}, CPU",
                goal,
                f"{mining.ratio}, {mining.memory}",
                _is_met(is_met),
                mining.same_pooling,
            ]
        )
    for words, goal in (
        ("Faster R-CNN R50-FPN, GPU", "1.03, 1.01"),
        ("Mask R-CNN R50-FPN, GPU", "1.03, 1.01"),
        ("Faster R-CNN R50-C4, GPU, mixed precision", "1.35, 1.05"),
    ):
        rows.append([words, goal, "not yet measured", "", ""])
    titles = ["goal: time, memory", "found (lowest to highest)", "", "time, same pooling"]
    return table(["model", *titles], rows)


def logging_cost() -> str:
    """One sentence."""
    section = _section("cost.md", "What logging takes")
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \| .* \|$", section, re.MULTILINE)
    (few, of_few), *_, (many, of_many) = rows
    return (
        f"All that is logged of the mining takes {float(of_few):.1f} ms of a step with {few} "
        f"classes, and {float(of_many):.1f} ms with {many}."
    )


def label_errors() -> str:
    """How well each ranking finds labels that are wrong in any way."""
    found: dict[str, list[str]] = defaultdict(list)
    for images in ("trained on", "others"):
        section = _section("label_errors.md", f"Images: {images}")
        for ranking, cells in re.findall(
            r"^\| any of them \| \d+ \| (.*?) \| (.*) \|$", section, re.MULTILINE
        ):
            average_precision, _, recall = cells.split(" | ")
            found[ranking] += [average_precision, recall]
    trained_on = ("images trained on: average precision", "recall")
    others = ("other images: average precision", "recall")
    return table(
        ["ranking", *trained_on, *others], [[ranking, *cells] for ranking, cells in found.items()]
    )


def kills() -> str:
    """How many killed trainings ended with the weights of those that were left alone."""
    content = _read(ROOT / "docs" / "survival" / "kills.json")
    rows = []
    for run in content["runs"]:
        found = [x["difference"] for x in run["kills"]]
        same = f"{found.count(0)} of {len(found)}"
        differences = [x for x in found if x]
        rows.append(
            [
                run["trainer"],
                run["sampling"],
                str(run["workers"]),
                str(run["processes"]),
                f"**{same}**" if run["trainer"] == "ohem_d2" else same,
                f"{max(differences):.1g}" if differences else "0",
                str(sum(x["half_files"] for x in run["kills"])),
            ]
        )
    titles = ["trainer", "sampling", "workers", "processes"]
    titles += ["killed and the same", "largest difference", "half checkpoints left"]
    control = max(run["control"] for run in content["runs"])
    text = (
        f"Of {content['steps']} steps, with a checkpoint every {content['checkpoint_period']}. Two "
        f"trainings that were left alone differ by {control:g}. Detectron2's trainer needs GPUs "
        f"for several processes. Measured on {content['environment']}."
    )
    return f"{table(titles, rows)}\n\n{textwrap.fill(text, 100)}"


# What a wrong input is answered with, in the order of the table, and in words.
ANSWERS = {
    "one line": "one line that names it",
    "traceback": "a traceback",
    "too late": "an error, too late",
    "accepted": "taken",
    "no end": "no end",
}


def bad_inputs() -> str:
    """How many wrong inputs of each kind are answered how."""
    inputs = _read(ROOT / "docs" / "survival" / "inputs.json")["inputs"]
    kinds = list(dict.fromkeys(x["kind"] for x in inputs))
    rows = []
    for kind in [*kinds, "all"]:
        these = [x for x in inputs if kind in (x["kind"], "all")]
        for who, words in (("ohem_d2", "ohem-d2"), ("detectron2", "Detectron2")):
            answers = [x[who] for x in these if who in x]
            counts = [answers.count(answer) for answer in ANSWERS]
            rows.append([kind, words, f"{len(answers)}", *map(str, counts)])
    return table(["wrong", "given to", "inputs", *ANSWERS.values()], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "readme-results": readme_results,
    "readme-cost": readme_cost,
    "settings": settings,
    "metrics": metrics,
    "classes-of-cells": classes_of_cells,
    "way": way,
    "tried-1000": lambda: tried(SHORT_LOOK_ALIKES),
    "tried-2000": lambda: tried(LOOK_ALIKES, LABELS_MISSING, CELLS),
    "late-start": late_start,
    "flat": flat,
    "goal-no-harm": goal_no_harm,
    "goals": goals,
    "cost": cost,
    "cost-goals": cost_goals,
    "logging-cost": logging_cost,
    "label-errors": label_errors,
    "kills": kills,
    "bad-inputs": bad_inputs,
}

# -------------------------------------------------------------------------------------- the pages


def pages() -> list[Path]:
    """The files that may have blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def names_of_blocks(text: str) -> list[str]:
    """
    The names of the blocks of a page, in its order.

    Raises:
        ValueError: a mark without its other half, or a name that no function goes with.
    """
    names = _BLOCK.findall(text)
    if len(_MARK.findall(text)) != 2 * len(names):
        raise ValueError(
            "found a mark without its other half, expected '<!-- figures: NAME -->' and "
            "'<!-- end -->', each on a line of its own"
        )
    for name in names:
        if name not in BLOCKS:
            raise ValueError(f"found a block {name!r}, expected one of {', '.join(BLOCKS)}")
    return names


def update(text: str) -> str:
    """A page with its blocks written again."""
    return _BLOCK.sub(lambda found: _block(found[1]), text)


def out_of_date(text: str) -> list[str]:
    """The names of the blocks that `update` would change."""
    return [found[1] for found in _BLOCK.finditer(text) if found[0] != _block(found[1])]


def _block(name: str) -> str:
    return f"<!-- figures: {name} -->\n{BLOCKS[name]()}\n<!-- end -->"


def main() -> None:
    """Read the command line; check or write."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        try:
            names_of_blocks(text)
        except ValueError as e:
            sys.exit(f"error: {page}: {e}")
        old = out_of_date(text)
        found += [f"{page.relative_to(ROOT)}: {name}" for name in old]
        if old and not args.check:
            page.write_text(update(text), encoding="utf-8")
    for x in found:
        print(f"{'out of date' if args.check else 'written'}: {x}")
    if found and args.check:
        sys.exit("error: run python tools/update_docs.py")


if __name__ == "__main__":
    main()
