"""What README.md and docs/accuracy.md say of the study is what its runs say."""

import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import accuracy
import pytest

DOCS = Path(__file__).parent.parent / "docs"
FEW, REMOVED, SWAPPED = (
    f"few_look_alikes{x}" for x in ("", "_removed_0.2_swapped_0.0", "_removed_0.0_swapped_0.2")
)
HALF = "half_random"


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def words(name):
    return " ".join(page(name).split())


@cache
def runs_of(folder, data):
    """The learning curve of each run of the study: {variant: {seed: points}}."""
    found = defaultdict(dict)
    for r in json.loads(page(f"accuracy/{folder}/results.json"))["runs"]:
        if r["data"] == data:
            found[r["variant"]][r["seed"]] = r["points"]
    return found


def values(folder, data, variant, metric="AP", at=-1):
    runs = runs_of(folder, data)[variant]
    assert sorted(runs) == [0, 1, 2]
    return [points[at][metric] for _, points in sorted(runs.items())]


def average(*args, **kwargs):
    return mean(values(*args, **kwargs))


def ahead(folder, data, variant, **kwargs):
    """How much more than 1:3 sampling, by seed."""
    pairs = (values(folder, data, v, **kwargs) for v in (variant, "sampling"))
    return [a - b for a, b in zip(*pairs)]


def gain(*args, **kwargs):
    """How much more than 1:3 sampling, on the mean, as the pages say it."""
    return f"{mean(ahead(*args, **kwargs)):.1f}"


def loss(*args, **kwargs):
    return f"{-mean(ahead(*args, **kwargs)):.1f}"


def cell(folder, data, variant):
    if len(runs_of(folder, data)[variant]) < 3:
        return "not run"
    more = ahead(folder, data, variant)
    return f"{mean(more):+.1f}: {' '.join(f'{x:+.1f}' for x in more)}"


def costs(folder, data, variant):
    """Iterations, time of a step and time to 1:3 sampling's AP, from the page of the script."""
    section = page(f"accuracy/{folder}/accuracy.md").split(f"## {data}\n")[1]
    (row,) = re.findall(
        rf"^\| {re.escape(accuracy.VARIANTS[variant][0])} \| 3 \| .* \| (.*) \| (.*) \| (.*) \|$",
        section.split("\n\n## ")[0],
        re.MULTILINE,
    )
    return row


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("../README.md", [HALF, "ohem"]),
        ("accuracy.md", ["quarter_hard", HALF, "ohem"]),
    ],
)
def test_the_table_of_settings(name, variants):
    text = page(name)
    rows = re.findall(
        r"^\| \[.*\]\((?:docs/)?accuracy/(.*)/accuracy\.md\).* \| `(.*?)` \| (.*) \|$",
        text,
        re.MULTILINE,
    )
    assert len(rows) == len(re.findall(r"^\| \[.*accuracy\.md\)", text, re.MULTILINE)) > 2
    for folder, data, said in rows:
        cells = [x.strip("*") for x in said.split(" | ")]
        expected = [cell(folder, data, v) for v in variants]
        assert cells == [f"{average(folder, data, 'sampling'):.1f}", *expected], (folder, data)


def test_the_table_of_the_way_there():
    rows = re.findall(
        r"^\| (trained backbone|from scratch), `(.*)` \| (half hard|all hard) \| (.*) \|$",
        page("accuracy.md"),
        re.MULTILINE,
    )
    assert len(rows) > 5
    for model, data, way, said in rows:
        folder = {"trained backbone": "pretrained_long", "from scratch": "scratch_few"}[model]
        variant = {"half hard": HALF, "all hard": "ohem"}[way]
        expected = [f"{mean(ahead(folder, data, variant, at=i)):+.1f}" for i in range(5)]
        assert said.split(" | ") == expected, (model, data, way)


def test_the_tables_of_what_else_was_tried():
    titles = {title: variant for variant, (title, _) in accuracy.VARIANTS.items()}
    text = page("accuracy.md")
    one = re.findall(r"^\| ([^|]*) \| ([+-]\d[^|]*) \|$", text, re.MULTILINE)
    assert len(one) > 10
    for title, said in one:
        assert said == cell("pretrained", FEW, titles[title]), title
    of_three = r"^\| ([^|]*) \| ((?:[+-]\d|not run)[^|]*) \| ([^|]*) \| ([^|]*) \|$"
    three = re.findall(of_three, text, re.MULTILINE)
    assert len(three) > 3
    for title, *said in three:
        expected = [cell("pretrained_long", x, titles[title]) for x in (FEW, REMOVED, "bccd")]
        assert said == expected, title


def test_when_to_use_it():
    text = words("../README.md").split("## When to use it")[1]
    long, short = "pretrained_long", "pretrained"
    of_scratch, of_long, of_plain = (
        gain(*x, HALF) for x in (("scratch_few", FEW), (long, FEW), (short, "few_plain"))
    )
    assert f"it ended {of_scratch} AP ahead from scratch" in text
    assert f"and {of_long} ahead with a trained backbone; " in text
    assert f"without look-alikes {of_plain} as well" in text
    iterations = [costs(f, FEW, HALF)[0] for f in ("scratch_few", long)]
    assert "after {} and {} of the iterations".format(*iterations) in text
    worst = max(-mean(ahead(long, "bccd", HALF, at=i)) for i in range(5))
    assert (
        f"it ended even ({loss(long, REMOVED, HALF)} behind), as on blood cells "
        f"({loss(long, 'bccd', HALF)} behind, and up to {worst:.1f} on the way)" in text
    )
    of_many = [gain("scratch", "look_alikes", v) for v in ("ohem", HALF)]
    assert "({} against {}), but".format(*of_many) in text
    assert f"but {loss(long, REMOVED, 'ohem')} behind 1:3 sampling with labels missing" in text
    assert f"and {loss(long, 'bccd', 'ohem')} behind on blood cells" in text
    assert (
        f"it was ahead by {gain(long, SWAPPED, HALF)}, "
        f"behind by {-min(ahead(long, SWAPPED, HALF)):.1f} on one seed" in text
    )
    budgets = [loss(short, FEW, v) for v in ("half", "sampling_half", "quarter")]
    assert (
        "it was {} behind 1:3 sampling with all of it, which lost {} by that; "
        "with a quarter, {}.".format(*budgets)
        in text
    )
    shorter = [gain(long, FEW, v) for v in ("short_half", "shorter_half")]
    assert (
        "0.65 of the iterations it still ended {} ahead, with 0.6 even ({}).".format(*shorter)
        in text
    )
    assert f"behind 1:3 sampling by {loss(short, FEW, 'ratio')};" in text
    ranked = [gain(short, FEW, v) for v in ("cls", "ohem", "half_cls", HALF)]
    assert "gained no more, {} against {}, and {} against {} with".format(*ranked) in text


def test_what_was_found():
    text = words("accuracy.md")
    few, long = "scratch_few", "pretrained_long"
    assert (
        f"it ended {gain(few, FEW, HALF)} AP and {gain(few, FEW, HALF, metric='AP50')} AP50 ahead, "
        f"on each seed by {min(ahead(few, FEW, HALF)):.1f} AP or more" in text
    )
    assert (
        f"it was {gain(long, FEW, HALF)} AP ahead, on each seed by "
        f"{min(ahead(long, FEW, HALF)):.1f} or more; "
        f"AP50 gained {gain(long, FEW, HALF, metric='AP50')}," in text
    )
    assert f"it gained as much, {gain('pretrained', 'few_plain', HALF)} (" in text
    assert f"the paper's way ended {loss(long, REMOVED, 'ohem')} AP behind" in text
    lost = [loss(long, "bccd", "ohem", metric=m) for m in ("AP", "AP50")]
    assert "ended {} AP and {} AP50 behind".format(*lost) in text
    platelets = [average(long, "bccd", v, "AP-Platelets") for v in ("sampling", "ohem")]
    assert "({:.1f} to {:.1f} AP)".format(*platelets) in text
    red = loss(long, "bccd", HALF, metric="AP-RBC")
    assert f"red cells were still {red} behind" in text
    swapped = [gain(long, SWAPPED, v) for v in (HALF, "ohem")]
    assert "ahead by {} and the paper's way by {}".format(*swapped) in text


def test_what_else_was_tried():
    text = words("accuracy.md")
    of_few = ("pretrained", FEW)
    first = average(*of_few, "sampled_first_half") - average(*of_few, HALF)
    assert f"then the default, by {first:.1f}, which" in text
    budgets = [loss(*of_few, v) for v in ("half", "sampling_half", "quarter", "sampling_quarter")]
    assert (
        "the default lost {}, where 1:3 sampling lost {}; with a quarter both lost about as much, "
        "{} and {}.".format(*budgets)
        in text
    )
    assert f"ended at {average(*of_few, 'retinanet'):.1f} AP" in text
    shorter = [gain("pretrained_long", FEW, v) for v in ("short_half", "shorter_half")]
    assert (
        "by {}, and even with it ({}), where the paper's way of 1000 steps ended {} behind".format(
            *shorter, loss(*of_few, "short")
        )
        in (text)
    )


def test_whether_the_baseline_is_flat():
    text = words("accuracy.md")

    def more(folder, data, since=-2):
        return [
            a - b
            for a, b in zip(
                values(folder, data, "sampling"), values(folder, data, "sampling", at=since)
            )
        ]

    last_two, last = (mean(more("scratch_few", FEW, at)) for at in (-3, -2))
    assert f"brought 1:3 sampling {last_two:.1f} AP, the last {last:.1f}." in text
    ends = [average(x, FEW, "sampling") for x in ("pretrained", "pretrained_long")]
    assert "from {:.1f} to {:.1f} AP".format(*ends) in text
    each = [
        ", ".join(f"{x:.1f}" for x in more(*of))
        for of in (
            ("pretrained_long", FEW),
            ("pretrained_long", "bccd"),
            ("scratch", "look_alikes"),
        )
    ]
    assert "the last fifth {}; on blood cells {}. With many images from scratch, no: {}.".format(
        *each
    ) in (text)


def test_the_goals():
    text = words("accuracy.md").split("## The goals")[1]
    long, spread = "pretrained_long", {}
    for data in (REMOVED, "bccd"):
        spread[data] = (
            f"-{loss(long, data, HALF)} (spread {stdev(values(long, data, 'sampling')):.1f})"
        )
    assert f"with labels missing, {spread[REMOVED]}, and on blood cells, {spread['bccd']}." in text
    assert (
        f"met from scratch: {gain('scratch_few', FEW, HALF)}. "
        f"Missed with a trained backbone: {gain(long, FEW, HALF)} |" in text
    )
    iterations, step, time = costs("scratch_few", FEW, HALF)
    assert (
        f"met from scratch: {time} ({iterations} of the iterations, and each takes {step}" in text
    )
    iterations, step, time = costs(long, FEW, HALF)
    assert f"missed by the same schedule, {time} ({iterations} and {step})," in text
    assert f"A step of the small model takes {step} times" in text
    step_of_shorter = costs(long, FEW, "shorter_half")[1]
    said = f"even: 0.6 x {step_of_shorter} = {0.6 * float(step_of_shorter):.2f} |"
    assert said in text
    assert mean(ahead(long, FEW, "shorter_half")) >= 0
    lost = [average(long, FEW, v) - average(long, REMOVED, v) for v in (HALF, "sampling")]
    assert "backbone: {:.1f}, where 1:3 sampling loses {:.1f}.".format(*lost) in text
