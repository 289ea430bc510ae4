"""Suspects to a labelling tool and back, as ``ohem-d2 suspects`` has them."""

import json
import shlex
from collections import Counter
from pathlib import Path

from ..errors import InputError
from ..files import write_whole
from ..paths import printable, wrong_file
from .cvat import read_cvat, setup_of_cvat, write_cvat
from .label_studio import read_label_studio, setup_of_label_studio, write_label_studio
from .returned import Returned
from .suspects import read_suspects

TOOLS = {
    "label-studio": (write_label_studio, setup_of_label_studio),
    "cvat": (write_cvat, setup_of_cvat),
}

_VERDICTS = {"accept": "accepted", "reject": "rejected"}


def export_suspects(report: Path, tool: str, output: Path) -> None:
    """
    Write the suspects of a report as pre-annotations, and print what to set up.

    Args:
        report: the folder of the report.
        tool: one of `TOOLS`.
        output: the file to write, which is new.

    Raises:
        InputError: there are no suspects, or the file cannot be written.
    """
    _, classes, suspects = read_suspects(report)
    write, setup = TOOLS[tool]
    _write_new(output, write(suspects))
    print("\n".join([f"Wrote {len(suspects)} suspects to {output}", *setup(suspects, classes)]))


def import_decisions(report: Path, file: Path, output: Path) -> None:
    """
    Turn what a tool exports into decisions.

    Args:
        report: the folder of the report that the suspects are from.
        file: the export: Label Studio's JSON, or XML of CVAT's.
        output: the file to write, which is new.

    Raises:
        InputError: something cannot be read, or the file cannot be written.
    """
    dataset, classes, suspects = read_suspects(report)
    if reason := wrong_file(file):
        raise InputError(f"{file} {reason}, expected what a labelling tool exports")
    read = read_label_studio if file.suffix.lower() == ".json" else read_cvat
    returned = Returned(suspects, classes)
    read(file, suspects, returned)
    content = returned.decisions(dataset)
    if not content["decisions"]:
        why = f" ({'; '.join(found)})" if (found := returned.findings.summary()) else ""
        raise InputError(
            f"{file} decides on no suspect of {report}{why}, expected its images, and its suspects "
            "in them"
        )
    _write_new(output, json.dumps(content, indent=1))
    counts = Counter(x["decision"] for x in content["decisions"])
    words = ", ".join(f"{counts[x]} {y}" for x, y in _VERDICTS.items())
    print(f"Wrote {len(content['decisions'])} decisions to {output}: {words}")
    for line in returned.findings.summary():
        print(f"- {line}")
    print(printable(f"ohem-d2 relabel {shlex.quote(str(output))} --output FOLDER"))


def _write_new(file: Path, content: str) -> None:
    if file.exists():
        raise InputError(f"--output is {str(file)!r}, which exists already: expected a new file")
    try:
        write_whole(file, content)
    except OSError as e:
        raise InputError(f"--output {file} cannot be written ({e.strerror})") from None
