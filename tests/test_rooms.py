"""Imports between the rooms of the package run down only, and in no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ohem_d2"
# From the ground up. What stands on one floor does not import from its neighbours.
FLOORS = [
    {"errors", "files"},
    {"config", "data", "mining"},
    {"modeling"},
    {"visualization"},
    {"evaluation"},
    {"training"},
    {"report"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules():
    """Each module of the package by its dotted name, without those that only hold public names."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield ".".join(x for x in parts if x != "__init__"), file


def imported(name, file, known):
    """The modules of the package that a file imports, wherever in it."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ohem_d2"):
            base = node.module.split(".")[1:]
        elif isinstance(node, ast.Import):
            found |= {x.name[8:] for x in node.names if x.name.startswith("ohem_d2.")}
            continue
        else:
            continue
        for alias in node.names:
            target = ".".join([*base, alias.name])
            found.add(target if target in known else ".".join(base))
    return found - {""}  # the names of the package itself


MODULES = dict(modules())
IMPORTS = {name: imported(name, file, MODULES) for name, file in MODULES.items()}


def test_there_is_a_floor_for_each_room():
    assert {name.split(".")[0] for name in MODULES} == FLOOR.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_down(name):
    room = name.split(".")[0]
    others = {x.split(".")[0] for x in IMPORTS[name]} - {room}
    assert [x for x in others if FLOOR[x] >= FLOOR[room]] == []


def test_no_import_runs_in_a_circle():
    assert sum(map(len, IMPORTS.values())) > 60
    assert all(x in MODULES for found in IMPORTS.values() for x in found)
    tuple(TopologicalSorter(IMPORTS).static_order())  # raises CycleError


@pytest.mark.parametrize("folder", ["tools", "benchmarks"])
def test_the_package_does_not_import_its_tools(folder):
    names = {file.stem for file in (ROOT / folder).glob("*.py")}
    for file in MODULES.values():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {x.name for x in node.names} & names
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module not in names
