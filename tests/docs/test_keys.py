"""What docs/keys.md and the README say of keys is what the config has."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from detectron2.config import get_cfg

from ohem_d2 import (
    BoxVotingOptions,
    IgnoreRegionsOptions,
    OHEMDenseOptions,
    OHEMOptions,
    OHEMRPNOptions,
    add_ohem_config,
)

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OHEM, _, REST = (ROOT / "docs/keys.md").read_text("utf-8").partition("\n## Box voting\n")
OHEM, _, ANCHORS = OHEM.partition("\n## Anchors of the RPN\n")
ANCHORS, _, DENSE = ANCHORS.partition("\n## Anchors of one-stage detectors\n")
BOX_VOTING, _, REST = REST.partition("\n## Regions to ignore\n")
REGIONS, _, REST = REST.partition("\n## Valid ranges\n")
RANGES, _, REST = REST.partition("\n## Data sets\n")
DATA, _, TIMM = REST.partition("\n## A backbone of timm\n")
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def defaults_in(text):
    """The keys in the tables of a page, and what the second column says."""
    return dict(re.findall(r"^\| `(\w+)` \| `?(.+?)`? \|", text, re.MULTILINE))


def defaults_of(options):
    """The same of a class of options, written as in YAML."""
    values = {f.name.upper(): f.default for f in fields(options)}
    return {k: f'"{v}"' if isinstance(v, str) else str(v) for k, v in values.items()}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (OHEM, OHEMOptions),
        (ANCHORS, OHEMRPNOptions),
        (DENSE, OHEMDenseOptions),
        (BOX_VOTING, BoxVotingOptions),
        (REGIONS, IgnoreRegionsOptions),
    ],
    ids=["ohem", "rpn", "dense", "vote", "ignore"],
)
def test_the_tables_have_every_key_with_its_default(text, options):
    assert defaults_in(text) == defaults_of(options)


def test_the_keys_of_data_sets_of_sizes_and_of_timm():
    cfg = get_cfg()
    before = set(cfg.DATASETS)
    assert "VALID_RANGES" not in cfg.INPUT
    add_ohem_config(cfg)
    added = {key: f'"{cfg.DATASETS[key]}"' for key in set(cfg.DATASETS) - before}
    assert defaults_in(DATA) == added
    assert defaults_in(RANGES) == {"VALID_RANGES": str(cfg.INPUT.VALID_RANGES)}
    assert defaults_in(TIMM) == {key: f'"{value}"' for key, value in cfg.MODEL.TIMM.items()}


def test_the_readme_has_five_keys_with_their_defaults():
    shown = defaults_in(README)
    assert len(shown) == 5
    assert shown.items() <= defaults_of(OHEMOptions).items()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_key_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<!\bRETINANET\.)\bOHEM\.([A-Z_]+)", text))
    named |= {x.upper() for x in re.findall(r"\broi_heads\.ohem\.([a-z_]+)", text)}
    assert named <= defaults_of(OHEMOptions).keys()
    named = {*re.findall(r"\bRPN\.OHEM\.([A-Z_]+)", text)}
    assert named <= defaults_of(OHEMRPNOptions).keys()
    named = {*re.findall(r"\bRETINANET\.OHEM\.([A-Z_]+)", text)}
    assert named <= defaults_of(OHEMDenseOptions).keys()
    assert {*re.findall(r"\bBOX_VOTING\.([A-Z_]+)", text)} <= defaults_of(BoxVotingOptions).keys()
    named = {*re.findall(r"\bIGNORE_REGIONS\.([A-Z_]+)", text)}
    assert named <= defaults_of(IgnoreRegionsOptions).keys()
