"""Blocks of README.md and docs/when_it_helps.md, from what benchmarks/accuracy.py stored."""

from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from step_times import ratio
from study_page import share_to_reach
from variants import VARIANTS

from figures import stored
from figures.markdown import is_met, table

# Names of variants.
SAMPLING, DEFAULT, PAPER, LATE = "sampling", "half_random", "ohem", "sampled_first_half"
NOT_RUN = "not run"
SHARES = [f"{x} %" for x in (20, 40, 60, 80, 100)]  # of a training: the points of the curves


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


def _study(setting: Setting) -> dict:
    return stored.content(f"accuracy/{setting.folder}/results.json")


def curves(setting: Setting, variant: str) -> dict[int, list[dict]]:
    """The points of each run, by seed; none if the variant was not run with three seeds."""
    by_seed = points_of(f"accuracy/{setting.folder}", setting.data, variant)
    return dict(sorted(by_seed.items())) if len(by_seed) == 3 else {}


def last_aps(folder: str, metric: str = "AP") -> dict[tuple[str, str], dict[int, float]]:
    """The last AP of each run in a folder of the study, by data set and variant, and by seed."""
    last: dict[tuple[str, str], dict[int, float]] = {}
    for run in stored.content(f"{folder}/results.json")["runs"]:
        of_way = last.setdefault((run["data"], run["variant"]), {})
        of_way[run["seed"]] = run["points"][-1][metric]
    return last


def points_of(folder: str, data: str, variant: str) -> dict[int, list[dict]]:
    """The learning curve of each run, by seed."""
    runs = stored.content(f"{folder}/results.json")["runs"]
    return {x["seed"]: x["points"] for x in runs if (x["data"], x["variant"]) == (data, variant)}


def gains(folder: str, data: str, variant: str) -> list[float]:
    """How much more AP than 1:3 sampling a variant ends with, of each seed that both have."""
    runs, baseline = (last_aps(folder).get((data, x), {}) for x in (variant, SAMPLING))
    return [runs[s] - baseline[s] for s in sorted(runs.keys() & baseline.keys())]


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


def within_time(share: float | None, step: float, goal: float = 0.75) -> tuple[str, str]:
    """What `costs` returned, in words, and whether the time is within the goal."""
    if share is None:
        return "never", is_met(False)
    words = f"{share * step:.2f} ({share:.2f} of the iterations, each {step:.2f} times as long)"
    return words, is_met(share * step <= goal)


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
    """The mean curves, compared with that of 1:3 sampling."""
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
    vs_default = ["late start vs. default", "the same, AP50", "the same, AP75"]
    return table(["data", "default", "late start", *vs_default], rows)


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
                rows.append([words, *where, *found, is_met(mean(gain) >= -spread)])
    return table(["sampling", "start", "data", "vs. 1:3", "spread of 1:3", "goal"], rows)


def goals() -> str:
    """The other goals that the study was held to."""
    rows = []
    for setting in (SCRATCH_LOOK_ALIKES, LOOK_ALIKES, OTHER_LOOK_ALIKES):
        gain = mean(ahead(setting, DEFAULT))
        rows.append(["3 AP above 1:3 sampling", setting.start, f"{gain:+.1f}", is_met(gain >= 3)])
    for setting, variant, words in (
        (SCRATCH_LOOK_ALIKES, DEFAULT, ""),
        (LOOK_ALIKES, DEFAULT, ""),
        (OTHER_LOOK_ALIKES, DEFAULT, ""),
        (LOOK_ALIKES, "short_half", ", a schedule of 0.65 of the steps"),
        (LOOK_ALIKES, "shorter_half", ", a schedule of 0.6 of the steps"),
    ):
        found, verdict = within_time(*costs(setting, variant))
        end = f", ends {mean_of(ahead(setting, variant))}" if words else ""
        start = f"{setting.start}{words}"
        rows.append(
            ["1:3 sampling's final AP in 0.75 of its time", start, f"{found}{end}", verdict]
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
                is_met(lost <= by_sampling),
            ]
        )
    return table(["goal", "start", "found with the default", ""], rows)


BLOCKS: dict[str, Callable[[], str]] = {
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
}
