"""The drawing in CONTRIBUTING.md shows the floors, and what their rooms import."""

import re

from command_line import ROOT
from test_rooms import FLOOR, FLOORS, IMPORTS


def test_the_drawing_shows_the_imports():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawing = re.search(r"```text\n(.*?)```", text, re.DOTALL)[1]
    assert drawing == draw()


def draw():
    """A line for each floor, from the top; what it imports comes in the order of the floors too."""
    lines = []
    for rooms in reversed([{x for x in rooms if not x.startswith("__")} for rooms in FLOORS]):
        modules = [name for name in IMPORTS if name.split(".")[0] in rooms]
        below = {x.split(".")[0] for name in modules for x in IMPORTS[name]} - rooms
        imported = ", ".join(sorted(below, key=lambda room: (-FLOOR[room], room)))
        names = ", ".join(sorted(rooms))
        if rooms:
            lines.append(f"{names:<20} -> {imported}" if below else names)
    return "".join(f"{line}\n" for line in lines)
