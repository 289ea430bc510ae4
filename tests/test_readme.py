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


def test_how_well_label_errors_are_found_is_what_the_table_says():
    page = (ROOT / "docs/label_errors.md").read_text(encoding="utf-8").split("## ")[1]
    rows = re.findall(r"^\| any of them \| \d+ \| (.*?) \| (\d+) ", page, re.MULTILINE)
    by_loss, *of_cleanlab = (int(value) for _, value in rows)
    said = re.search(r"average precision of (\d+) % and the second, at best, of (\d+) %", README)
    assert [int(x) for x in said.groups()] == [by_loss, max(of_cleanlab)]
