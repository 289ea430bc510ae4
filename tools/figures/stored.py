"""What the benchmarks stored in docs/."""

import json
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def content(file: str) -> dict:
    """What a JSON file in docs/ holds."""
    return _read(ROOT / "docs" / file)


@cache
def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def section(page: str, title: str) -> str:
    """A section of a page in docs/ that a benchmark wrote."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]
