"""The file of an accuracy study, which holds each run and what a step takes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ohem_d2.errors import InputError
from ohem_d2.files import locked, write_whole


def read(file: Path) -> dict:
    """
    All runs, and of each data set what a step of each variant takes.

    Raises:
        InputError: the file is not one that `changes` has written.
    """
    if not file.exists():
        return {"runs": [], "steps": {}}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{file} cannot be read ({e}), expected whole JSON, or no file") from e
    if not isinstance(content, dict) or not {"runs", "steps"} <= content.keys():
        raise InputError(f"{file} has no 'runs' and 'steps', expected those, or no file")
    return content


@contextmanager
def changes(file: Path) -> Iterator[dict]:
    """What is there, to be changed. Other studies that write to the same file wait."""
    with locked(file.with_name(".lock")):
        content = read(file)
        yield content
        write_whole(file, json.dumps(content, indent=0))


def known_runs(content: dict) -> dict[tuple[str, str, int], dict]:
    """The runs by data set, variant and seed."""
    return {(r["data"], r["variant"], r["seed"]): r for r in content["runs"]}
