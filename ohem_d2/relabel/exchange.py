"""Suspects to a labelling tool and back, or decided by score: ``ohem-d2 suspects``."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_whole
from ..paths import printable, wrong_file
from .cvat import read_cvat, setup_of_cvat, write_cvat
from .decisions import SUSPECTS
from .label_studio import read_label_studio, setup_of_label_studio, write_label_studio
from .returned import Returned, decision_entry
from .suspects import read_suspects

TOOLS = {
    "label-studio": (write_label_studio, setup_of_label_studio),
    "cvat": (write_cvat, setup_of_cvat),
}

_VERDICTS = {"accept": "accepted", "reject": "rejected", "ignore": "regions to ignore"}


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
    _write_decisions(output, content, returned.findings.summary())


def decide_by_score(report: Path, action: str, lowest: float, output: Path) -> None:
    """
    Decide on suspected missing labels as the model is sure of them, without a person. All other
    suspects stay undecided.

    Args:
        report: the folder of the report.
        action: "accept" or "ignore".
        lowest: the score from which on this is decided, above 0 and up to 1.
        output: the file to write, which is new.

    Raises:
        InputError: there is no such suspect, or the file cannot be written.
    """
    if not 0 < lowest <= 1:
        raise InputError(f"--{action} is {lowest}, expected a score above 0 and up to 1")
    dataset, _, suspects = read_suspects(report)
    missing = [x for x in suspects if x.name == SUSPECTS[0]]
    sure = [x for x in missing if x.score >= lowest]
    if not sure:
        found = (
            f"the highest is {max(x.score for x in missing):.3g}" if missing else "there is none"
        )
        raise InputError(
            f"{report} has no suspected missing label with a score of {lowest} or more ({found}), "
            f"expected one: --{action} with a lower score"
        )
    entries = [
        decision_entry(x.image, x.image_id, x.name, action, x.label, x.proposal) for x in sure
    ]
    others = Counter(x.name for x in suspects if x.score < lowest or x not in missing)
    left = [f"{name}, left undecided: {number}" for name, number in others.items()]
    _write_decisions(output, {"info": {"dataset": dataset}, "decisions": entries}, left)


def _write_decisions(output: Path, content: dict[str, Any], remarks: Sequence[str]) -> None:
    _write_new(output, json.dumps(content, indent=1))
    counts = Counter(x["decision"] for x in content["decisions"])
    words = ", ".join(f"{counts[x]} {y}" for x, y in _VERDICTS.items() if counts[x])
    print(f"Wrote {len(content['decisions'])} decisions to {output}: {words}")
    for line in remarks:
        print(f"- {line}")
    print(printable(f"ohem-d2 relabel {shlex.quote(str(output))} --output FOLDER"))


def _write_new(file: Path, content: str) -> None:
    if file.exists():
        raise InputError(f"--output is {str(file)!r}, which exists already: expected a new file")
    try:
        write_whole(file, content)
    except OSError as e:
        raise InputError(f"--output {file} cannot be written ({e.strerror})") from None
