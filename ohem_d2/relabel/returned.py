"""What comes back from a labelling tool, as decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.fields import is_number, number
from ..data.findings import Findings
from ..errors import InputError, shown
from .decisions import SUSPECTS, Box, Object, as_xywh
from .plan import reaches_out
from .suspects import Suspect, digest_of

_SAME = 0.1  # pixel, by which tools round

NOT_OF_THE_REPORT = "image without suspects, passed over"
NO_BOX = "shape that is no box, passed over"
NO_SUSPECT = "box with the number of no suspect in its image, taken for a new one"
TWICE = "drawn alike twice, counted once"
NO_NUMBER = "image in which no suspect came back, left undecided"


@dataclass(frozen=True)
class Drawn:
    """
    A shape.

    Args:
        number: that of its suspect, as the tool has it; None: it is new.
        box: the box with its class; None: the shape is no box.
        where: where it stands, for messages.
        name: what was suspected, as the tool has it; None: it does not say.
    """

    number: str | None
    box: Object | None
    where: str
    name: str | None = None


class Returned:
    """What is drawn in each image that was looked at, and what of it is passed over."""

    def __init__(self, suspects: Sequence[Suspect], classes: Sequence[str]) -> None:
        """
        Args:
            suspects: those of the report.
            classes: the names of its classes.
        """
        self._suspects = suspects
        self._classes = classes
        self._ids = {x.image: x.image_id for x in suspects}
        self._sizes = {x.image: x.size for x in suspects}
        self._digest = digest_of(suspects)
        self._drawn: dict[str, tuple[list[Drawn], str]] = {}
        self.findings = Findings()

    def add(self, image: str, drawn: Sequence[Drawn], where: str) -> None:
        """
        Add all that is drawn in an image.

        Raises:
            InputError: it was added before, and is another one.
        """
        if image in self._drawn:
            before, there = self._drawn[image]
            if _contents(before) != _contents(drawn):
                raise InputError(
                    f"{where} and {there} are of one image, {image}, but differ: expected one of "
                    "them, or both alike"
                )
            self.findings.add(TWICE, where, f"as {there}")
            return
        for x in drawn:
            if x.box is None:
                self.findings.add(NO_BOX, x.where)
        self._drawn[image] = list(drawn), where

    def check_report(self, digest: object, where: str) -> None:
        """
        Make sure that numbers of suspects mean what they mean in this report.

        Args:
            digest: that of the suspects that were given to the tool; None: it does not say.
            where: where it stands, for messages.

        Raises:
            InputError: they are those of another report.
        """
        if digest != self._digest:
            found = "names no report" if digest is None else f"is of another report, {digest}"
            raise InputError(
                f"{where} {found}, expected {self._digest}, that of its suspects now: give the "
                "tool what '--to' writes of this report"
            )

    def check_size(self, image: str, size: Sequence[object], where: str) -> None:
        """
        Raises:
            InputError: what is drawn is of another size of the image: ``size``, width and height.
        """
        expected = self._sizes[image]
        if any(x is not None and number(x) != y for x, y in zip(size, expected)):
            found = " x ".join(shown(x) if number(x) is None else str(x) for x in size)
            raise InputError(
                f"{where} is of an image of {found} pixels, expected that of the report, "
                f"{expected[0]} x {expected[1]}"
            )

    def decisions(self, dataset: str) -> dict[str, Any]:
        """
        Return the content of a file of decisions.

        Suspects in images that were not looked at stay undecided, those whose box became another
        shape, and those in images in which no suspect is known again: that may be because the tool
        lost their numbers, and then nobody has said that their labels are to go.

        Args:
            dataset: that of the report.

        Raises:
            InputError: a box has a class that the report does not know, leaves its image, or has
                the number of a suspect of another name.
        """
        entries = []
        kept: dict[str, dict[str, Drawn]] = {}
        new: list[tuple[str, Drawn]] = []
        names = {(x.image, str(x.number)): x.name for x in self._suspects}
        for image, (drawn, where) in self._drawn.items():
            if not any((image, x.number) in names for x in drawn):
                self.findings.add(NO_NUMBER, where)
                continue
            kept[image] = {}
            # A box before what is none: a tool may describe one by more than one entry.
            for x in sorted(drawn, key=lambda x: x.box is None):
                of = x.number or ""
                is_of_suspect = (image, of) in names
                if is_of_suspect and x.name not in (None, names[image, of]):
                    raise InputError(
                        f"{x.where} has suspect {of} as {x.name!r}, expected {names[image, of]!r}"
                    )
                if is_of_suspect and of not in kept[image]:
                    kept[image][of] = x
                elif x.box is not None:  # also a copy
                    new.append((image, x))
                    if x.number is not None and not is_of_suspect:
                        self.findings.add(NO_SUSPECT, x.where)
        for suspect in self._suspects:
            if suspect.image in kept:
                there = kept[suspect.image].get(str(suspect.number))
                if there is None or there.box is not None:
                    entries.append(self._decided(suspect, there))
        for image, x in new:
            assert x.box is not None
            self._check(image, x, None)
            entries.append(
                decision_entry(image, self._ids[image], SUSPECTS[0], "accept", None, x.box)
            )
        return {"info": {"dataset": dataset}, "decisions": entries}

    def _decided(self, x: Suspect, there: Drawn | None) -> dict[str, Any]:
        box = None if there is None else there.box
        action, proposal = "accept", box
        if there is None or box is None:
            action = "reject" if x.label is None else "accept"
        elif x.label is not None and _is_same(box, x.label):
            action = "reject"
        elif x.proposal is not None and _is_same(box, x.proposal):
            proposal = x.proposal
        else:
            self._check(x.image, there, x.label)
        if action == "reject":
            proposal = x.proposal
        return decision_entry(x.image, x.image_id, x.name, action, x.label, proposal)

    def _check(self, image: str, drawn: Drawn, label: Object | None) -> None:
        assert drawn.box is not None
        category, box = drawn.box.category, drawn.box.box
        if category not in self._classes:
            raise InputError(
                f"{drawn.where} has the class {shown(category)}, expected one of the report: "
                f"{', '.join(self._classes)}"
            )
        width, height = self._sizes[image]
        if reaches_out(box, (width, height), label):
            raise InputError(
                f"{drawn.where} has {category!r} at {shown(as_xywh(box))}, expected a box inside "
                f"the image {image}, of {width} x {height} pixels"
            )


def _contents(drawn: Sequence[Drawn]) -> list:
    return sorted(repr((x.number, x.box and (x.box.category, as_xywh(x.box.box)))) for x in drawn)


def _is_same(a: Object, b: Object) -> bool:
    return a.category == b.category and all(abs(x - y) <= _SAME for x, y in zip(a.box, b.box))


def decision_entry(
    image: str,
    image_id: int | str,
    name: str,
    action: str,
    label: Object | None,
    proposal: Object | None,
) -> dict[str, Any]:
    """A decision as a file of them has it: see `ohem_d2.relabel.decisions.Decision`."""
    return {
        "image": image,
        "image_id": image_id,
        "suspect": name,
        "decision": action,
        "label": None if label is None else {"index": None, "id": label.id, **_described(label)},
        "proposal": None if proposal is None else _described(proposal),
    }


def _described(x: Object) -> dict[str, Any]:
    return {"category": x.category, "bbox": as_xywh(x.box)}


def checked_box(category: object, corners: Sequence[float], where: str) -> Object:
    """
    Return a box that a tool drew.

    Raises:
        InputError: it has no class or no area.
    """
    if not isinstance(category, str):
        raise InputError(f"{where} has the class {shown(category)}, expected its name")
    box = Box(*map(float, corners))
    if not all(map(is_number, box)) or box.x1 <= box.x0 or box.y1 <= box.y0:
        raise InputError(
            f"{where} has {category!r} at {shown([*box])}, expected a box with an area"
        )
    return Object(category, box)
