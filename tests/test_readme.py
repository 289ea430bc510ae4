"""What README.md says of keys and files is what there is."""

import json
import re
import statistics
from dataclasses import fields
from pathlib import Path

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


@pytest.mark.parametrize("page", ["README.md", "docs/accuracy.md"])
def test_what_the_study_found_is_what_its_runs_say(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[.*\]\((.*)/accuracy\.md\) \| `(.*)` \| (\d+) \| (.*) \| (.*) \| (.*) \|$",
        text,
        re.MULTILINE,
    )
    assert len(rows) == len(re.findall(r"^\| \[.*accuracy\.md\)", text, re.MULTILINE)) > 2
    for folder, data, *said in rows:
        file = (ROOT / page).parent / folder / "results.json"
        runs = {
            (r["variant"], r["seed"]): r["points"][-1]["AP"]
            for r in json.loads(file.read_text(encoding="utf-8"))
            if r["data"] == data
        }
        seeds = sorted(seed for variant, seed in runs if variant == "ohem")
        means = [statistics.mean(runs[v, s] for s in seeds) for v in ("sampling", "ohem")]
        more = " ".join(f"{runs['ohem', s] - runs['sampling', s]:+.1f}" for s in seeds)
        assert said == [str(len(seeds)), *(f"{x:.1f}" for x in means), more], (folder, data)


def test_when_to_use_it_is_what_the_runs_say():
    text = " ".join(README[README.index("## When to use it") :].split())

    def ahead(folder, variant, data="few_look_alikes"):
        """Of 1:3 sampling, on the mean of three seeds."""
        file = ROOT / "docs/accuracy" / folder / "results.json"
        runs = json.loads(file.read_text(encoding="utf-8"))
        means = []
        for v in (variant, "sampling"):
            last = [r["points"][-1]["AP"] for r in runs if (r["data"], r["variant"]) == (data, v)]
            assert len(last) == 3
            means.append(statistics.mean(last))
        return means[0] - means[1]

    long, short = "pretrained_long", "pretrained"
    half, paper = ahead(long, "half_random"), ahead(long, "ohem")
    assert f"it was ahead by {half:.1f} AP where the paper's way was by {paper:.1f}," in text
    removed = "few_look_alikes_removed_0.2_swapped_0.0"
    half, paper = ahead(long, "half_random", removed), ahead(long, "ohem", removed)
    assert f"it ended {-paper:.1f} AP behind 1:3 sampling" in text
    assert f"about even ({-half:.1f} behind)" in text
    of_ratio, of_cls, paper = (ahead(short, v) for v in ("ratio", "cls", "ohem"))
    assert f"was behind 1:3 sampling by {-of_ratio:.1f};" in text
    assert f"ahead of it by {of_cls:.1f}, the paper's way by {paper:.1f} " in text


def test_how_well_label_errors_are_found_is_what_the_table_says():
    page = (ROOT / "docs/label_errors.md").read_text(encoding="utf-8").split("## ")[1]
    rows = re.findall(r"^\| any of them \| \d+ \| (.*?) \| (\d+) ", page, re.MULTILINE)
    by_loss, *of_cleanlab = (int(value) for _, value in rows)
    said = re.search(r"average precision of (\d+) % and the second, at best, of (\d+) %", README)
    assert [int(x) for x in said.groups()] == [by_loss, max(of_cleanlab)]
