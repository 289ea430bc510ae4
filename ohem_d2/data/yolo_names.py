"""Lists of class names beside YOLO's labels: a name in each line."""

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from .class_names import normalise, of_one_name
from .findings import Findings
from .text_files import read_lines

NAMES = ("classes.txt", "obj.names", "predefined_classes.txt")
# Those that say what the numbers in labels are; LabelImg's predefined ones do not.
_OF_LABELS = ("classes.txt", "obj.names", "labels.txt")


def read_names(file: Path, findings: Findings) -> dict[int, str]:
    """
    Read a list of class names.

    Returns:
        the names, by their number.

    Raises:
        InputError: it cannot be read, or has an empty line between others.
    """
    lines = _stripped(file)
    if not lines or not all(lines):
        raise InputError(f"{file} has an empty line or none, expected a class name in each line")
    names = dict(enumerate(lines))
    for words in of_one_name(names):
        findings.add("numbers of classes that have the same name, taken as one", file, words)
    return names


def _stripped(file: Path) -> list[str]:
    lines = [normalise(line) for line in read_lines(file)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def compare_lists(
    names: dict[int, str], source: Path, folders: Iterable[Path], findings: Findings
) -> None:
    """
    Look for lists that name a class otherwise: tools leave the list of their own beside the labels.

    Args:
        names: those that are used, by their number.
        source: the file that they are from.
        folders: where lists may be.
        findings: where to put those that differ.
    """
    for file in dict.fromkeys(x / name for x in folders for name in _OF_LABELS):
        if not file.is_file() or file.samefile(source):
            continue
        try:
            lines = _stripped(file)
        except InputError:  # it is not needed
            continue
        differing = (
            f"class {number} is {name!r}, and {names[number]!r} in {source}"
            for number, name in enumerate(lines)
            if number in names and name.casefold() != names[number].casefold()
        )
        if words := next(differing, None):
            findings.add("list of class names that differs from the one that is used", file, words)
