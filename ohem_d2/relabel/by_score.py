"""Decisions on suspected missing labels by how sure the model is of them, without a person."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.boxes import iou
from ..errors import InputError
from .decisions import SUSPECTS, Box, Decision, read_decision
from .output import key_of
from .returned import decision_entry
from .suspects import read_suspects

MISSING = SUSPECTS[0]


# A suspect is where something was decided, if their boxes overlap by this IoU.
_AT_IT = 0.5


def decide_by_score(
    report: Path, action: str, lowest: float
) -> tuple[str, list[Decision], list[str]]:
    """
    Decide on the suspected missing labels of a report. All other suspects stay undecided.

    Args:
        report: its folder.
        action: "accept" or "ignore".
        lowest: the score from which on this is decided, above 0 and up to 1.

    Returns:
        the data set; the decisions; and what is left undecided, in words.

    Raises:
        InputError: there is no such suspect.
    """
    if not 0 < lowest <= 1:
        raise InputError(f"--{action} is {lowest}, expected a score above 0 and up to 1")
    dataset, _, suspects = read_suspects(report)
    scores = [x.score for x in suspects if x.name == MISSING]
    decisions, left = [], Counter[str]()
    for x in suspects:
        if x.name != MISSING or x.score < lowest:
            left[x.name] += 1
            continue
        of_suspect = (x.image, x.image_id, x.name, action, x.label, x.proposal)
        decisions.append(
            Decision(f"{report}: suspect {x.number}", *of_suspect, decision_entry(*of_suspect))
        )
    if not decisions:
        found = f"the highest is {max(scores):.3g}" if scores else "it has none"
        raise InputError(
            f"{report} has no suspected missing label with a score of {lowest} or more ({found}), "
            f"expected one: --{action} with a lower score"
        )
    return dataset, decisions, [f"{x}, left undecided: {n}" for x, n in left.items()]


def without_decided(
    decisions: Sequence[Decision], entries: Sequence[Any]
) -> tuple[list[Decision], int]:
    """
    Leave out what was decided otherwise before.

    Args:
        decisions: on missing labels.
        entries: of files of decisions, those of earlier runs.

    Returns:
        the others, and the number of those that are left out.
    """
    before: dict[str, list[tuple[str, Box]]] = {}
    for entry in entries:
        try:
            x = read_decision(entry, "")
        except ValueError:
            continue
        # What was proposed where no label was, and labels that were removed.
        of = x.proposal if x.label is None else x.label
        if of is not None and (x.label is None or x.proposal is None) and not _stays(x):
            before.setdefault(os.path.realpath(x.image), []).append((key_of(entry), of.box))
    kept = [
        x
        for x in decisions
        if x.proposal is None
        or all(
            key == key_of(x.as_written) or iou(box, x.proposal.box) < _AT_IT
            for key, box in before.get(os.path.realpath(x.image), ())
        )
    ]
    return kept, len(decisions) - len(kept)


def _stays(x: Decision) -> bool:
    """Whether a label is where it was."""
    return x.label is not None and x.action == "reject"
