"""What README.md says of keys and files is what there is."""

import re
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
    named += [p for p in re.findall(r"\]\(([^)]+)\)", README) if not p.startswith("http")]
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


def test_when_to_use_it_is_what_the_tables_say():
    text = " ".join(README[README.index("## When to use it") :].split())

    def cells(page, data, way):
        """Of a data set: AP, and by how much it differs, on the mean and each."""
        table = page.split(f"\n## {data}\n")[1].split("\n\n")[1]
        row = re.search(rf"^\| {way} \| \d+ \| (.*?) (?:± .*?)?(?:\((.*?)\) )?\|", table, re.M)
        return row[1], re.findall(r"[-+][\d.]+", row[2] or "")

    ways = "1:3 sampling [(]Detectron2[)]", "OHEM as in the paper"
    page = (ROOT / "docs/accuracy/accuracy.md").read_text(encoding="utf-8")
    long = (ROOT / "docs/accuracy/long/accuracy.md").read_text(encoding="utf-8")
    (before, _), (after, (_, *each)) = (cells(f"\n{page}", "look_alikes", w) for w in ways)
    assert f"from {before} to {after} AP (by {each[0]}, {each[1]} and {each[2]})" in text
    (before, _), (after, _) = (cells(page, "plain", w) for w in ways)
    assert f"without look-alikes from {before} to {after}." in text
    (without, _), (with_it, _) = (cells(f"\n{long}", "look_alikes", w) for w in ways)
    assert f"two seeds came to {with_it} AP, and to {without} without it" in text
    few = (ROOT / "docs/accuracy/few/accuracy.md").read_text(encoding="utf-8")
    (without, _), (with_it, (_, *each)) = (cells(f"\n{few}", "few_look_alikes", w) for w in ways)
    assert f"levels off at {without}, OHEM levels off at {with_it} and" in text
    assert f"(two seeds, by {each[0]} and {each[1]})" in text
    row = next(x for x in few.splitlines() if x.startswith("| OHEM as in the paper |"))
    assert f"in {row.split('|')[-2].strip()} of the time" in text
    half, quarter = (cells(f"\n{page}", "look_alikes", f"1/{n} of the budget")[1] for n in (2, 4))
    assert f"AP fell by {half[0][1:]}, with a quarter by {quarter[0][1:]}" in text
    removed = "look_alikes_removed_0.2_swapped_0.0"
    (without, _), (with_it, _) = (cells(page, removed, w) for w in ways)
    assert f"{with_it} to {without} AP, but" in text
    (of_ratio,) = cells(f"\n{page}", "look_alikes", "at most 1:3 foreground")[1]
    assert f"ahead of 1:3 sampling by {of_ratio[1:]} (one seed)" in text


def test_how_well_label_errors_are_found_is_what_the_table_says():
    page = (ROOT / "docs/label_errors.md").read_text(encoding="utf-8").split("## ")[1]
    rows = re.findall(r"^\| any of them \| \d+ \| (.*?) \| (\d+) ", page, re.MULTILINE)
    by_loss, *of_cleanlab = (int(value) for _, value in rows)
    said = re.search(r"average precision of (\d+) % and the second, at best, of (\d+) %", README)
    assert [int(x) for x in said.groups()] == [by_loss, max(of_cleanlab)]
