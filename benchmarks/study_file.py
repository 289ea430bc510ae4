"""The file of an accuracy study, which holds each run and what a step takes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from variants import PAPERS_HARD_FRACTION

from ohem_d2 import add_ohem_config
from ohem_d2.errors import InputError
from ohem_d2.files import locked, write_whole

_NO_DEFAULT = object()


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


def settings_of(cfg: CfgNode) -> dict[str, object]:
    """Every key whose value is not Detectron2's default, as JSON has it."""
    default = _flat(get_cfg())
    return {k: v for k, v in _flat(cfg).items() if v != default.get(k, _NO_DEFAULT)}


def check_same_settings(result: dict, cfg: CfgNode, file: Path) -> None:
    """
    Make sure that a run was one of this config, on any device. A key of this project that was not
    there at the time counts as its default, but for HARD_FRACTION: all of the budget went to hard
    examples.

    Raises:
        InputError: it was not.
    """
    default = get_cfg()
    add_ohem_config(default)
    default.MODEL.ROI_HEADS.OHEM.HARD_FRACTION = PAPERS_HARD_FRACTION
    now = settings_of(cfg)
    known = _flat(default)
    del known["MODEL.DEVICE"]  # "machine" has it
    for key, value in known.items():
        found, expected = result["settings"].get(key, value), now.get(key, value)
        if found != expected:
            raise InputError(
                f"{file}: {result['data']}, {result['variant']}, seed {result['seed']} is there "
                f"with {key} {found!r}, expected {expected!r}, or another --output"
            )


def _flat(node: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))  # which has no tuples
    return flat
