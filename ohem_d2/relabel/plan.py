"""What becomes of each decision: a change, or the reason why there is none."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..data.boxes import iou
from ..errors import InputError, shown
from .decisions import Box, Decision, Object, as_xywh
from .labels import Annotations, Edit, Image, Label
from .output import UNDONE, key_of

CHANGED, ALREADY, REJECTED, LEFT_OUT = "changed", "already there", "rejected", "left out"
NO_IMAGE = "its image is not in the data set, which --dataset may name"
SEVERAL_IMAGES = "several images are links to the file of its image"

_BEYOND = 1  # pixel, by which a box may reach out of its image: it is cut off
_MOST_LINKS = 40  # one after the other, as Linux has it
_NEAR = 0.5  # IoU, from which on another label may be what became of one
_DOUBLE = 0.7  # IoU, from which on a new label may be of an object that has one of its class
_TOO_SMALL = 1  # pixel, by which what is read again may differ: more is another box


@dataclass
class Outcome:
    """
    What becomes of a decision.

    Args:
        decision: the decision.
        status: `CHANGED`, `ALREADY`, `REJECTED` or `LEFT_OUT`.
        reason: why it is left out.
        image: that of the data set; None if it is not there.
        before: what was labelled.
        after: what is labelled then.
        edits: what that takes.
        touched: positions of the labels that are decided on.
        is_past: whether it was carried out in these files before, and its label is another one now.
    """

    decision: Decision
    status: str
    reason: str = ""
    image: Image | None = None
    before: Object | None = None
    after: Object | None = None
    edits: list[Edit] = field(default_factory=list)
    touched: list[int] = field(default_factory=list)
    is_past: bool = False

    def leave_out(self, reason: str) -> None:
        """Let it change nothing."""
        self.status, self.reason, self.edits = LEFT_OUT, reason, []


def plan(
    decisions: Sequence[Decision],
    images: Sequence[Image],
    annotations: Annotations,
    classes: Sequence[str],
    done: Collection[str] = (),
    is_moved: bool = False,
) -> list[Outcome]:
    """
    Compare decisions with what is labelled now.

    A label is found by the id of its annotation, or else by its class and box, if no annotation of
    the image has that id; labels of the same class and box then count as one. Nothing depends on
    the order of labels or of decisions.

    Args:
        decisions: those to take.
        images: all of the data set.
        annotations: its files. They stay as they are.
        classes: the names of its classes.
        done: those that were carried out in these files before, as `key_of` has them. A label that
            one of them removed is not taken for another of its class and box.
        is_moved: whether an image may be known by id and name though there is a file at its path.

    Returns:
        the outcome of each decision.

    Raises:
        InputError: a proposal has a box outside of its image.
    """
    by_path = _by_path(images)
    by_id = {(str(x.id), os.path.basename(x.file)): x for x in images}
    labels: dict[Image, list[Label]] = {}
    outcomes = []
    for decision in decisions:
        name = os.path.basename(decision.image)
        places = os.path.abspath(decision.image), os.path.realpath(decision.image)
        there = next((by_path[x] for x in places if x in by_path), [])
        image = there[0] if len(there) == 1 else None
        if len(there) > 1:
            outcomes.append(Outcome(decision, LEFT_OUT, SEVERAL_IMAGES))
            continue
        # What still is at its path is an image of another data set, even if it looks the same.
        if image is None and (is_moved or not os.path.exists(decision.image)):
            image = by_id.get((str(decision.image_id), name))
        if image is None:
            outcomes.append(Outcome(decision, LEFT_OUT, NO_IMAGE))
            continue
        if image not in labels:
            labels[image] = annotations.labels(image)
        is_done = key_of(decision.as_written) in done
        outcomes.append(_decide(decision, image, labels[image], annotations, classes, is_done))
    groups = _groups(outcomes)
    _refuse_contradictions(outcomes, groups)
    _refuse_doubles(outcomes, labels)
    for group in groups:  # the same was decided twice
        for x in [x for x in group if x.status == CHANGED][1:]:
            x.edits = []
            x.status = ALREADY
    return outcomes


def _by_path(images: Sequence[Image]) -> dict[str, list[Image]]:
    """
    Images by the paths that lead to them: each path by itself, as a link, or through more links. Of
    a path that leads to several, those that it leads to most directly.
    """
    found: dict[str, list[Image]] = {}
    steps: dict[str, int] = {}
    for x in images:
        path = os.path.abspath(x.file)
        for step in range(_MOST_LINKS):
            if step < steps.setdefault(path, step):
                steps[path], found[path] = step, []
            if step == steps[path]:
                found.setdefault(path, []).append(x)
            if not os.path.islink(path):
                break
            path = os.path.abspath(os.path.join(os.path.dirname(path), os.readlink(path)))
        target = os.path.realpath(x.file)  # of folders that are links, too
        of_target = found.setdefault(target, [])
        if x not in of_target and steps.setdefault(target, _MOST_LINKS) == _MOST_LINKS:
            of_target.append(x)
    return found


def _decide(
    decision: Decision,
    image: Image,
    labels: Sequence[Label],
    annotations: Annotations,
    classes: Sequence[str],
    is_done: bool,
) -> Outcome:
    label, proposal = decision.label, decision.proposal
    outcome = Outcome(decision, REJECTED, image=image, before=label)
    of_id = [] if label is None else _of_id(label, labels)
    found = [] if label is None else _found(label, image, of_id or labels)
    if decision.action == "reject":
        outcome.after, outcome.touched = label, [x.at for x in found]
        return outcome
    if decision.action == "ignore":
        if not annotations.has_regions:
            outcome.leave_out("the format has no place for regions to ignore")
            return outcome
        wanted = label or proposal
    else:
        wanted = proposal
    if is_done and wanted is None and label is not None and label.id is not None and not of_id:
        found = []  # what is left is another label of the same class and box
    outcome.touched = [x.at for x in found]
    as_region = decision.action == "ignore"
    box = held = None
    if wanted is not None:
        stays = label is not None and image.is_same(wanted.box, label.box)
        if not stays:
            _check_box(decision, image, wanted.box)
            box = image.cut(wanted.box)
            held = annotations.held(image, box)
            if any(abs(x - y) > _TOO_SMALL for x, y in zip(held, box)):
                outcome.leave_out("its box is too small to be written in this format")
                return outcome
            stays = label is not None and image.is_same(held, label.box)
        after = wanted.box if stays or held is None else held
        is_of_class = label is not None and wanted.category == label.category
        if not (is_of_class or wanted.category in classes or annotations.knows(wanted.category)):
            outcome.leave_out(f"the data set has no class {wanted.category!r}")
            return outcome
        outcome.after = Object(wanted.category, after, None if label is None else label.id)
        is_there = any(
            _is_object(outcome.after, x, image) and x.is_region == as_region
            for x in of_id or labels
        )
    else:
        is_there = not of_id and (is_done or not _near(decision, image, labels))
    if label is not None and not found:
        if is_there:
            outcome.status, outcome.is_past = ALREADY, is_done
        else:
            outcome.leave_out("its label is gone or has changed since")
        return outcome
    outcome.status = CHANGED
    if label is None:
        if is_there:
            outcome.status, outcome.is_past = ALREADY, is_done
        elif is_done:
            outcome.leave_out(UNDONE)
        else:
            outcome.edits = [Edit(None, False, wanted.category, box, as_region)]  # type: ignore[union-attr]
    elif wanted is None:
        outcome.edits = [Edit(x.at, remove=True) for x in found]
    elif as_region:
        outcome.edits = [Edit(x.at, is_region=True) for x in found]
    else:
        category = None if wanted.category == label.category else wanted.category
        box = None if stays else box
        if category is None and box is None:
            outcome.status = ALREADY
        else:
            outcome.edits = [Edit(x.at, False, category, box) for x in found]
    return outcome


def _is_object(wanted: Object, label: Label, image: Image) -> bool:
    return label.category == wanted.category and image.is_same(label.box, wanted.box)


def _of_id(label: Object, labels: Sequence[Label]) -> list[Label]:
    """Those with the id of a label. Tools write ids as numbers and as texts."""
    ids = [x for x in labels if x.id is not None and label.id is not None]
    return [x for x in ids if str(x.id).strip() == str(label.id).strip()]


def _found(label: Object, image: Image, labels: Sequence[Label]) -> list[Label]:
    return [x for x in labels if _is_object(label, x, image) and not x.is_region]


def _near(decision: Decision, image: Image, labels: Sequence[Label]) -> bool:
    """Whether a label that is not found any more may have become another one."""
    label = decision.label
    assert label is not None
    return any(
        iou(x.box, label.box) >= _NEAR
        and (x.category == label.category or image.is_same(x.box, label.box))
        for x in labels
    )


def reaches_out(box: Box, size: tuple[int, int], label: Object | None) -> bool:
    """
    Whether a box reaches out of its image, so that it may be meant for another one.

    Args:
        box: the box.
        size: width and height of the image.
        label: what is labelled in its place: by as much as that does, the box may reach out.
    """

    def beyond(x: Box) -> tuple[float, ...]:
        return -x.x0, -x.y0, x.x1 - size[0], x.y1 - size[1]

    of_label = (0.0,) * 4 if label is None else beyond(label.box)
    return any(x > max(y, 0) + _BEYOND for x, y in zip(beyond(box), of_label))


def _check_box(decision: Decision, image: Image, box: Box) -> None:
    cut = image.cut(box)
    is_out = reaches_out(box, (image.width, image.height), decision.label)
    if is_out or cut.x1 <= cut.x0 or cut.y1 <= cut.y0:
        raise InputError(
            f"{decision.place} has the bbox {shown(as_xywh(box))}, expected one inside of the "
            f"image {image.file}, of {image.width} x {image.height} pixels"
        )


def _groups(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Decisions on one label or on one place."""
    groups: dict[tuple, list[Outcome]] = defaultdict(list)
    for x in outcomes:
        if x.image is None or x.status == LEFT_OUT or x.is_past:
            continue
        for at in x.touched:
            groups[x.image, at].append(x)
        if x.decision.label is None and x.after is not None:
            groups[(x.image, *(round(v, 1) for v in x.after.box))].append(x)
    return list(groups.values())


def _of_images(outcomes: Sequence[Outcome]) -> dict[Image, list[Outcome]]:
    found: dict[Image, list[Outcome]] = defaultdict(list)
    for x in outcomes:
        if x.image is not None:
            found[x.image].append(x)
    return found


def _refuse_contradictions(outcomes: Sequence[Outcome], groups: Sequence[list[Outcome]]) -> None:
    """
    Leave out decisions of which the second one would undo or repeat the first: different ones on
    one label or on one place, and those that make what another one changes or rejects. What an
    earlier run made may be changed: that was decided later.
    """
    bad: dict[int, Outcome] = {}
    for group in groups:
        if any(_effect(x) != _effect(group[0]) for x in group):
            bad.update((id(x), x) for x in group)
    for image, of_image in _of_images(outcomes).items():
        for x in (x for x in of_image if x.status not in (LEFT_OUT, REJECTED) and not x.is_past):
            for y in of_image:
                if x is not y and _undoes(x, y, image):
                    bad |= {id(x): x, id(y): y}
    for x in bad.values():
        x.leave_out("it contradicts another decision")


def _refuse_doubles(outcomes: Sequence[Outcome], labels: Mapping[Image, Sequence[Label]]) -> None:
    """
    Leave out new labels of what is labelled already when all is changed. The report suspects none
    where a label is, so that such a label came or was moved since.
    """
    for image, of_image in _of_images(outcomes).items():
        edits = {edit.at: edit for x in of_image for edit in x.edits}
        objects = []
        for label in labels[image]:
            edit = edits.get(label.at, Edit(label.at))
            if not (edit.remove or label.is_region or edit.is_region):
                objects.append((edit.category or label.category, edit.box or label.box))
        for x in of_image:
            if any(
                edit.at is None
                and edit.box is not None
                and any(c == edit.category and iou(b, edit.box) >= _DOUBLE for c, b in objects)
                for edit in x.edits
            ):
                x.leave_out("a label of its class overlaps it, and may be of the same object")


def _undoes(x: Outcome, y: Outcome, image: Image) -> bool:
    """Whether one makes what another one changes, also if its label has gone, or rejects."""
    if x.after is None:
        return False
    own, label, proposal = x.decision.label, y.decision.label, y.decision.proposal
    if y.status == REJECTED:
        is_of_none = own is None and label is None
        return is_of_none and proposal is not None and _are_one(x.after, proposal, image)
    if label is None or _effect(x) == _effect(y) or not _are_one(x.after, label, image):
        return False
    return own is None or not _are_one(own, label, image)


def _are_one(a: Object, b: Object, image: Image) -> bool:
    return a.category == b.category and image.is_same(a.box, b.box)


def _effect(x: Outcome) -> tuple:
    after = None if x.after is None else (x.after.category, *(round(v, 1) for v in x.after.box))
    return x.decision.action == "ignore", after
