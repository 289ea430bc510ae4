"""What README.md says of keys and files is what there is."""

import json
import re
import statistics
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import accuracy
import pytest

from ohem_d2 import BoxVotingOptions, OHEMOptions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "option", [*fields(OHEMOptions), *fields(BoxVotingOptions)], ids=lambda f: f.name
)
def test_every_key_is_in_a_table_with_its_default(option):
    default = f'"{option.default}"' if isinstance(option.default, str) else str(option.default)
    assert default in re.findall(
        rf"^\| `{option.name.upper()}` \| `?(.+?)`? \|", README, re.MULTILINE
    )


def test_every_file_that_is_named_exists():
    named = re.findall(r"configs/[\w/]+\.(?:yaml|py)\b|docs/[\w/]+\.\w+", README)
    named += [p for p in re.findall(r"\]\(([^)]+)\)", README) if not p.startswith(("http", "#"))]
    assert len(named) > 4
    assert [p for p in named if not (ROOT / p).exists()] == []


def test_what_it_costs_is_what_the_table_says():
    text = README[README.index("**What it costs**") :]
    table = (
        (ROOT / "docs/cost.md").read_text(encoding="utf-8").split("\n## Faster R-CNN, R50-FPN\n")[1]
    )
    mining, one_pass = (
        re.search(rf"^\| {head} \| .* \| (.*) \((.*)\) \| (.*) \| \d+ MiB", table, re.MULTILINE)
        for head in ("OHEMROIHeads", "OnePassROIHeads")
    )
    said = re.search(
        r"takes (.*?) times as\s+long as plain Detectron2's \((.*?)\).*?it is (.*?) times as long,"
        r".*?takes (.*?) times as long",
        text,
        re.DOTALL,
    )
    assert said.groups() == (*mining.groups(), one_pass[3])


def test_what_logging_takes_is_what_the_table_says():
    page = (ROOT / "docs/cost.md").read_text(encoding="utf-8").split("## What logging takes")[1]
    added = re.findall(r"^\| (\d+) \|.*\| (.*?) \| [\d.]+ \|$", page, re.MULTILINE)
    said = re.search(r"takes (.*?) ms of a step, (.*?) ms with (\d+) classes", README).groups()
    few, _, many = ((number, f"{float(ms):.1f}") for number, ms in added)
    assert said == (few[1], many[1], many[0])


def runs_of(folder, data):
    """The last AP of each run of the study: {variant: {seed: AP}}."""
    found = defaultdict(dict)
    for r in json.loads((ROOT / folder / "results.json").read_text(encoding="utf-8")):
        if r["data"] == data:
            found[r["variant"]][r["seed"]] = r["points"][-1]["AP"]
    return found


def ahead(runs, variant, of_sampling=None):
    """How much more than 1:3 sampling, on the mean and by seed, as the pages say it."""
    of_sampling = of_sampling or runs["sampling"]
    if len(runs[variant]) < 3:
        return "not run"
    more = [ap - of_sampling[seed] for seed, ap in sorted(runs[variant].items())]
    return f"{statistics.mean(more):+.1f}: {' '.join(f'{x:+.1f}' for x in more)}"


@pytest.mark.parametrize(
    ("page", "variants"),
    [
        ("README.md", ["half_random", "ohem"]),
        ("docs/accuracy.md", ["quarter_hard", "half_random", "ohem"]),
    ],
)
def test_what_the_study_found_is_what_its_runs_say(page, variants):
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[.*\]\((.*)/accuracy\.md\) \| `(.*?)` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| \[.*accuracy\.md\)", text, re.MULTILINE)) > 2
    for folder, data, said in rows:
        runs = runs_of((ROOT / page).parent / folder, data)
        assert len(runs["sampling"]) == 3
        mean = f"{statistics.mean(runs['sampling'].values()):.1f}"
        cells = [x.strip("*") for x in said.split(" | ")]
        assert cells == [mean, *(ahead(runs, v) for v in variants)], (folder, data)


def test_what_else_was_tried_is_what_the_runs_say():
    page = (ROOT / "docs/accuracy.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]*) \| ([+-]\d[^|]*) \|$", page, re.MULTILINE))
    assert len(rows) > 5
    runs = runs_of("docs/accuracy/pretrained", "few_look_alikes")
    titles = {title: variant for variant, (title, _) in accuracy.VARIANTS.items()}
    for title, said in rows.items():
        assert said == ahead(runs, titles[title]), title


def test_when_to_use_it_is_what_the_runs_say():
    text = " ".join(README[README.index("## When to use it") :].split())
    long, short = (f"docs/accuracy/{x}" for x in ("pretrained_long", "pretrained"))
    few, removed = "few_look_alikes", "few_look_alikes_removed_0.2_swapped_0.0"

    def of(folder, data, variant):
        return float(ahead(runs_of(folder, data), variant).split(":")[0])

    half, paper = (
        {d: of(long, d, v) for d in (few, removed, "bccd")} for v in ("half_random", "ohem")
    )
    assert f"It was ahead by {half[few]:.1f} AP," in text
    assert (
        f"it ended even ({-half[removed]:.1f} behind), as on blood cells "
        f"({-half['bccd']:.1f} behind)" in text
    )
    scratch = [of("docs/accuracy/scratch", "look_alikes", v) for v in ("ohem", "half_random")]
    assert "ahead from scratch ({:.1f} against {:.1f})".format(*scratch) in text
    assert f"but {-paper[removed]:.1f} behind 1:3 sampling with labels missing" in text
    assert f"and {-paper['bccd']:.1f} behind on blood cells" in text
    swapped = of(long, "few_look_alikes_removed_0.0_swapped_0.2", "half_random")
    assert f"with a fifth of them it was ahead by {swapped:.1f}" in text
    budgets = [-of(short, few, v) for v in ("half", "quarter", "short")]
    assert (
        "it was {:.1f} behind 1:3 sampling with all of it, with a quarter {:.1f}; the paper's way "
        "with 0.65 of the iterations ended {:.1f} behind".format(*budgets)
    ) in text
    of_ratio, of_cls, of_half_cls, paper, half = (
        of(short, few, v) for v in ("ratio", "cls", "half_cls", "ohem", "half_random")
    )
    assert f"was behind 1:3 sampling by {-of_ratio:.1f};" in text
    assert (
        f"gained less, {of_cls:.1f} against {paper:.1f}, and {of_half_cls:.1f} against {half:.1f} "
        in text
    )


def test_what_the_page_of_the_study_says_in_words_is_what_its_runs_say():
    text = " ".join((ROOT / "docs/accuracy.md").read_text(encoding="utf-8").split())

    def mean(data, variant, metric="AP", folder="pretrained_long", at=-1):
        file = ROOT / "docs/accuracy" / folder / "results.json"
        runs = json.loads(file.read_text(encoding="utf-8"))
        values = [
            r["points"][at][metric] for r in runs if (r["data"], r["variant"]) == (data, variant)
        ]
        assert len(values) == 3
        return statistics.mean(values)

    cells = [mean("bccd", v, m) for m in ("AP", "AP50") for v in ("sampling", "ohem")]
    assert f"ended {cells[0] - cells[1]:.1f} AP and {cells[2] - cells[3]:.1f} AP50 behind" in text
    platelets = [mean("bccd", v, "AP-Platelets") for v in ("sampling", "ohem")]
    assert "({:.1f} to {:.1f} AP)".format(*platelets) in text
    few, removed = "few_look_alikes", "few_look_alikes_removed_0.2_swapped_0.0"
    lost = [mean(few, v) - mean(removed, v) for v in ("half_random", "sampling")]
    assert "missed: {:.1f}, where 1:3 sampling loses {:.1f}".format(*lost) in text
    plain = mean("few_plain", "sampling", "AP50", "pretrained")
    assert f"finds all there is (AP50 {plain:.1f})" in text
    assert f"({mean(few, 'retinanet', folder='pretrained'):.1f} AP)" in text
    short, long = mean(few, "sampling", folder="pretrained"), mean(few, "sampling")
    assert f"from {short:.1f} to {long:.1f} AP" in text


def test_how_well_label_errors_are_found_is_what_the_table_says():
    page = (ROOT / "docs/label_errors.md").read_text(encoding="utf-8").split("## ")[1]
    rows = re.findall(r"^\| any of them \| \d+ \| (.*?) \| (\d+) ", page, re.MULTILINE)
    by_loss, *of_cleanlab = (int(value) for _, value in rows)
    said = re.search(r"average precision of (\d+) % and the second, at best, of (\d+) %", README)
    assert [int(x) for x in said.groups()] == [by_loss, max(of_cleanlab)]
