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
HALF, OTHERS = "half_random", "other_seeds"


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
    assert len(runs) == 3
    assert runs.keys() == runs_of(folder, data)["sampling"].keys()
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


def test_the_table_of_a_start_with_sampling():
    rows = re.findall(
        r"^\| `(.*)` \| ([+-]\d[^|]*) \| ([+-]\d[^|]*) \|$", page("accuracy.md"), re.MULTILINE
    )
    assert [data for data, *_ in rows] == [FEW, REMOVED, "bccd"]
    for data, *said in rows:
        expected = [cell(OTHERS, data, v) for v in (HALF, "sampled_first_half")]
        assert said == expected, data


def test_when_to_use_it():
    text = words("../README.md").split("## When to use it")[1]
    long, short = "pretrained_long", "pretrained"
    iterations = [costs(f, FEW, HALF)[0] for f in ("scratch_few", long)]
    assert "after {} of the iterations from scratch, {} with".format(*iterations) in text
    first = "sampled_first_half"
    missing = [loss(OTHERS, REMOVED, v) for v in (first, HALF)]
    assert "that ended {} behind 1:3 sampling, the default {} behind;".format(*missing) in text
    cells = [f"{mean(ahead(OTHERS, 'bccd', v)):+.1f}" for v in (first, HALF)]
    worst = max(-mean(ahead(OTHERS, "bccd", HALF, at=i)) for i in range(5))
    assert "{}, the default {} (and up to {:.1f} behind".format(*cells, worst) in text
    of_many = [gain("scratch", "look_alikes", v) for v in ("ohem", HALF)]
    assert "({} against {}).".format(*of_many) in text
    for data in (REMOVED, "bccd"):
        assert mean(ahead(long, data, "ohem")) < -1  # "It loses where labels are missing"
    shorter = [gain(long, FEW, v) for v in ("short_half", "shorter_half")]
    budgets = [loss(short, FEW, v) for v in ("half", "quarter")]
    assert (
        "0.65 of the iterations it still ended {} ahead, with 0.6 even ({}). With half of "
        "`BATCH_SIZE_PER_IMAGE` it was {} behind 1:3 sampling with all of it, with a quarter "
        "{}.".format(*shorter, *budgets)
        in text
    )
    assert f"behind 1:3 sampling by {loss(short, FEW, 'ratio')};" in text
    ranked = [gain(short, FEW, v) for v in ("cls", "ohem")]
    assert "alone gained {} instead of {}.".format(*ranked) in text


def test_what_was_found():
    text = words("accuracy.md")
    few, long = "scratch_few", "pretrained_long"
    assert (
        f"it ended {gain(few, FEW, HALF)} AP and {gain(few, FEW, HALF, metric='AP50')} AP50 ahead, "
        f"on each seed by {min(ahead(few, FEW, HALF)):.1f} AP or more" in text
    )
    assert (
        f"it was {gain(long, FEW, HALF)} AP ahead, on each seed by "
        f"{min(ahead(long, FEW, HALF)):.1f} or more, and {gain(OTHERS, FEW, HALF)} with three "
        f"other seeds, on another machine; AP50 gained {gain(long, FEW, HALF, metric='AP50')} and "
        f"{gain(OTHERS, FEW, HALF, metric='AP50')}," in text
    )
    many = [gain("scratch", x, HALF) for x in ("plain", "look_alikes")]
    least = min(ahead("scratch", "plain", HALF))
    assert (
        "it was {0} ahead without look-alikes, on each seed by {2:.1f} or more, and {1} with "
        "them,".format(*many, least)
        in text
    )
    missing = [gain("scratch", f"look_alikes{REMOVED[len(FEW) :]}", v) for v in (HALF, "ohem")]
    assert "the default was {} ahead and the paper's way {}.)".format(*missing) in text
    assert f"it gained as much, {gain('pretrained', 'few_plain', HALF)} (" in text
    spread = stdev(values(OTHERS, REMOVED, "sampling"))
    assert (
        f"the paper's way ended {loss(long, REMOVED, 'ohem')} AP behind, and the default "
        f"{loss(long, REMOVED, HALF)}, within the spread of the seeds; with three other seeds "
        f"{loss(OTHERS, REMOVED, HALF)}, which is more than their spread ({spread:.1f})." in text
    )
    lost = [loss(long, "bccd", "ohem", metric=m) for m in ("AP", "AP50")]
    assert "ended {} AP and {} AP50 behind".format(*lost) in text
    platelets = [average(long, "bccd", v, "AP-Platelets") for v in ("sampling", "ohem")]
    assert "({:.1f} to {:.1f} AP)".format(*platelets) in text
    red = loss(long, "bccd", HALF, metric="AP-RBC")
    others = mean(ahead(OTHERS, "bccd", HALF))
    assert (
        f"red cells were still {red} behind; with three other seeds it was {others:+.1f}." in text
    )
    swapped = [gain(long, SWAPPED, v) for v in (HALF, "ohem")]
    assert "ahead by {} and the paper's way by {}".format(*swapped) in text


def test_what_else_was_tried():
    text = words("accuracy.md")
    of_few = ("pretrained", FEW)
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


def test_a_start_with_sampling():
    text, first = words("accuracy.md"), "sampled_first_half"
    more = average("pretrained", FEW, first) - average("pretrained", FEW, HALF)
    assert f"the best of all that was tried with 1000 steps: {more:.1f} AP ahead of the" in text
    runs = [v for v, by_seed in runs_of("pretrained", FEW).items() if by_seed]
    assert max(runs, key=lambda v: average("pretrained", FEW, v)) == first

    def more_than_the_default(data):
        return [a - b for a, b in zip(*(values(OTHERS, data, v) for v in (first, HALF)))]

    missing = more_than_the_default(REMOVED) + more_than_the_default("bccd")
    assert f"with each seed, by {min(missing):.1f} to {max(missing):.1f} AP" in text
    assert f"right labels {-mean(more_than_the_default(FEW)):.1f} behind on the mean" in text
    assert min(mean(ahead(OTHERS, "bccd", first, at=i)) for i in range(5)) >= 0
    lost = -mean(ahead(OTHERS, "bccd", HALF, at=0))
    assert f"the default had lost {lost:.1f} AP after a fifth" in text
    won = [
        average(OTHERS, REMOVED, first, m) - average(OTHERS, REMOVED, HALF, m)
        for m in ("AP", "AP50", "AP75")
    ]
    assert "it won {:.1f} AP and {:.1f} AP50 next".format(*won) in text
    assert f"and lost {-won[2]:.1f} AP75." in text
    lost = -mean(more_than_the_default(FEW))
    assert f"gained {more:.1f} in 1000 steps and lost {lost:.1f} in 2000" in text
    of_paper = [gain("scratch", "look_alikes", v) for v in ("sampled_first", "ohem")]
    assert "with it ended {} ahead, without it {} (".format(*of_paper) in text


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
    assert "the last fifth {} (each seed); on blood cells {}. With labels".format(*each) in text
    of_mean = [
        mean(more(*of))
        for of in (
            ("pretrained_long", REMOVED),
            ("pretrained_long", SWAPPED),
            ("pretrained", FEW),
            ("pretrained", "few_plain"),
        )
    ]
    assert (
        "yes, {:+.1f} and {:+.1f} on the mean. With 1000 steps, no: {:.1f} and {:.1f} without "
        "look-alikes; with many images from scratch {}.".format(*of_mean, each[2])
        in text
    )


def test_the_goals():
    text = words("accuracy.md").split("## The goals")[1]
    long = "pretrained_long"
    swapped = mean(ahead(long, SWAPPED, HALF))
    first = "sampled_first_half"
    mended = mean(ahead(OTHERS, REMOVED, first)), stdev(values(OTHERS, REMOVED, "sampling"))
    found = {
        (folder, data): (mean(ahead(folder, data, HALF)), stdev(values(folder, data, "sampling")))
        for folder in (long, OTHERS)
        for data in ("bccd", REMOVED)
    }
    of = [x for data in ("bccd", REMOVED) for f in (long, OTHERS) for x in found[f, data]]
    assert (
        "with swapped ones ({:+.1f}), and on blood cells: {:+.1f} (spread {:.1f}), and {:+.1f} "
        "with three other seeds ({:.1f}). With labels missing met with the first seeds, {:+.1f} "
        "({:.1f}), and missed with the others, {:+.1f} ({:.1f}); with `WARMUP_ITERS` "
        "just missed there too, {:.2f} ({:.2f}) |".format(swapped, *of, *mended)
        in text
    )
    is_met = [more >= -spread for more, spread in found.values()]
    assert is_met == [True, True, True, False]
    assert mended[0] < -mended[1]
    assert (
        f"met from scratch: {gain('scratch_few', FEW, HALF)}. "
        f"Missed with a trained backbone: {gain(long, FEW, HALF)}, and {gain(OTHERS, FEW, HALF)} "
        "with three other seeds |" in text
    )
    iterations, step, time = costs("scratch_few", FEW, HALF)
    assert (
        f"met from scratch: {time} ({iterations} of the iterations, and each takes {step}" in text
    )
    iterations, step, time = costs(long, FEW, HALF)
    of_others = costs(OTHERS, FEW, HALF)[2]
    assert (
        f"missed by the same schedule, {time} ({iterations} and {step}; with three other seeds "
        f"{of_others})," in text
    )
    assert f"A step of the small model takes {step} times" in text
    shorter = costs(long, FEW, "short_half")
    said = "after {2} of the time ({0} and {1}) and ends {3} ahead;"
    assert said.format(*shorter, gain(long, FEW, "short_half")) in text
    step_of_shorter = costs(long, FEW, "shorter_half")[1]
    said = f"even: 0.6 x {step_of_shorter} = {0.6 * float(step_of_shorter):.2f} |"
    assert said in text
    assert mean(ahead(long, FEW, "shorter_half")) >= 0

    def lost(folder, data=FEW, variants=(HALF, "sampling")):
        missing = f"{data}{REMOVED[len(FEW) :]}"
        return [average(folder, data, v) - average(folder, missing, v) for v in variants]

    assert (
        "backbone: {:.1f}, where 1:3 sampling loses {:.1f}. With three other seeds {:.1f} and "
        "{:.1f}, and {:.1f} with `WARMUP_ITERS`:".format(
            *lost(long), *lost(OTHERS), *lost(OTHERS, variants=[first])
        )
        in text
    )
    of_scratch = lost("scratch", "look_alikes")
    assert "met: {:.1f}, where 1:3 sampling loses {:.1f} |".format(*of_scratch) in text
