"""Imports between the rooms of the package run down only, and in no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ohem_d2"
# From the ground up. What stands on one floor does not import from its neighbours.
FLOORS = [
    {"arguments", "errors", "files", "libraries", "paths"},
    {"standard_output"},
    {"config", "data", "mining"},
    {"modeling"},
    {"visualization"},
    {"evaluation"},
    {"training"},
    {"relabel", "report"},
    {"cli"},
    {"__main__", "__init__"},  # the last is the package itself, with its public names
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules():
    """Each module of the package by its dotted name; the package itself is "__init__"."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(x for x in parts if x != "__init__") or "__init__", file


def imported(name, source, package, known):
    """
    The modules of the package that a file imports, wherever in it.

    Args:
        name: that of the module.
        source: its text.
        package: the folders that it is in, below that of the package.
        known: the names of all modules.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1]]
            base += node.module.split(".") if node.module else []
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "ohem_d2":
            base = node.module.split(".")[1:]
        elif isinstance(node, ast.Import):
            names = [x.name.partition(".") for x in node.names]
            found |= {below or "__init__" for top, _, below in names if top == "ohem_d2"}
            continue
        else:
            continue
        for alias in node.names:
            target = ".".join([*base, alias.name])
            if (name, target) != ("cli", "__version__"):  # which is there before a command runs
                found.add(target if target in known else ".".join(base) or "__init__")
    return found


def upward(name, found):
    """The rooms among what a module imports that are not below its own."""
    room = name.split(".")[0]
    return {x for y in found if (x := y.split(".")[0]) != room and FLOOR[x] >= FLOOR[room]}


MODULES = dict(modules())
IMPORTS = {
    name: imported(
        name, file.read_text(encoding="utf-8"), file.relative_to(PACKAGE).parts[:-1], MODULES
    )
    for name, file in MODULES.items()
}


def test_there_is_a_floor_for_each_room():
    assert {name.split(".")[0] for name in MODULES} == FLOOR.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_down(name):
    assert upward(name, IMPORTS[name]) == set()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import ohem_d2", "__init__"),
        ("from ohem_d2 import OHEMOptions", "__init__"),
        ("from .. import OHEMOptions", "__init__"),
        ("from .. import __version__", "__init__"),
        ("import ohem_d2.training", "training"),
        ("from ..training import checks", "training"),
    ],
)
def test_an_import_that_runs_up_is_found(statement, found):
    name = "mining.select"
    assert upward(name, imported(name, statement, ("mining",), MODULES)) == {found}


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
