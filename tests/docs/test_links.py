"""Links of the README and of the pages lead somewhere, and the README stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
OURS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = sorted(DOCS.rglob("*.md"))


def path_of(page):
    return str(page.relative_to(ROOT))


def links_of(page):
    """Pairs of a file and an anchor, which may be empty, of all links that are no web addresses."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            target, _, anchor = link.partition("#")
            yield (page.parent / target).resolve() if target else page, anchor


def anchors_of(page):
    """What its headings are linked by, on GitHub as in the site."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", h).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", [*OURS, *PAGES], ids=path_of)
def test_every_link_leads_to_a_file_and_a_heading(page):
    dead = [
        f"{target}#{anchor}"
        for target, anchor in links_of(page)
        if not target.exists() or (anchor and anchor not in anchors_of(target))
    ]
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_pages_link_to_what_the_site_holds(page):
    assert [str(x) for x, _ in links_of(page) if not x.is_relative_to(DOCS)] == []


@pytest.mark.parametrize("page", [*OURS[:2], *DOCS.glob("*.md")], ids=path_of)
def test_every_file_that_is_named_exists(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:configs|docs|tools|benchmarks|tests|ohem_d2)/[\w/]+\.\w+\b", text)
    assert [x for x in named if not (ROOT / x).exists()] == []


def test_the_readme_is_read_in_one_sitting():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 180
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=path_of)
def test_the_first_page_leads_to_every_page(page):
    index = DOCS / "index.md"
    assert page == index or page in [target for target, _ in links_of(index)]
