"""The benchmark of opening the page, with few suspects."""

import shutil
import sys

import pytest

pytest.importorskip("selenium")
import page_opening


@pytest.mark.slow
def test_it_writes_its_table(tmp_path, monkeypatch):
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver")
    file = tmp_path / "page" / "measured.md"
    monkeypatch.setattr(page_opening, "NUMBERS", (100, 200))
    monkeypatch.setattr(page_opening, "_TIMES", 1)
    monkeypatch.setattr(sys, "argv", ["page_opening.py", "--output", str(file)])
    page_opening.main()
    rows = [line.split(" | ") for line in file.read_text().splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == ["| 100", "| 200"]
    assert all(float(row[2].split()[0]) > 0 for row in rows[2:])
