"""The block of docs/report.md that benchmarks/page_opening.py measured."""

from collections.abc import Callable

from figures import stored
from figures.markdown import table

PAGE = "report/measured.md"


def page_opening() -> str:
    """How long the page takes to open, by the number of suspects."""
    lines = (stored.ROOT / "docs" / PAGE).read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    titles = ["suspects", "the page, MB", "opens, s", "their list opens, s"]
    return table(titles, [[number, size, *times[:2]] for number, size, *times in rows])


BLOCKS: dict[str, Callable[[], str]] = {
    "page-opening": page_opening,
}
