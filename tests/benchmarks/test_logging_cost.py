import sys

import logging_cost


def test_the_table(tmp_path, monkeypatch):
    file = tmp_path / "cost.md"
    monkeypatch.setattr(logging_cost, "NUMBERS_OF_CLASSES", (3, 150))
    monkeypatch.setattr(sys, "argv", ["logging_cost.py", "--output", str(file)])
    logging_cost.main()
    rows = [line.split("|")[1:-1] for line in file.read_text().splitlines() if line[:2] == "| "]
    assert [row[0].strip() for row in rows[2:]] == ["3", "150"]
    for row in rows[2:]:
        count, keep, values = float(row[1]), float(row[2]), float(row[5])
        # What is added is a difference, which may be below 0 if something else runs.
        assert min(count, keep) > 0
        # 11 in each step, and 7 of each class in one of 100 steps, or of 150; first after one step.
        assert 11 < values < 11 + 2 * 7
