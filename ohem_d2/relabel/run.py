"""Corrected annotations from a file of decisions, as ``ohem-d2 relabel`` writes them."""

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.addresses import join_address, load_address, split_address
from ..data.builtin import register_builtin
from ..data.findings import Findings
from ..data.overview import is_region
from ..errors import InputError, shown
from ..paths import printable
from ..training.checks import check_output_dir
from .by_score import MISSING, decide_by_score, without_decided
from .coco import CocoAnnotations
from .decisions import Object, as_xywh, read_decisions
from .labels import Annotations, Edit, Image, images_of
from .output import (
    LOG,
    carried_out,
    check_apart,
    decided,
    earlier_runs,
    former_files,
    key_of,
    write_output,
)
from .plan import ALREADY, CHANGED, LEFT_OUT, NO_IMAGE, REJECTED, Outcome, plan
from .voc import VocAnnotations
from .yolo import YoloAnnotations

_FORMATS = ("coco", "voc", "yolo")
_NAMED = 3  # decisions in an error
_MOST = 0.9  # of the decisions: if so many are on other images, the data set is another one


def relabel(
    file: Path,
    output: Path,
    dataset: str | None = None,
    by_score: tuple[str, float] | None = None,
) -> str:
    """
    Write the corrected annotations of a data set, in its format, and a log of each change.

    Args:
        file: the decisions; or the folder of a report.
        output: the folder to write.
        dataset: an address, or a name that is registered with Detectron2, in place of the one in
            the file.
        by_score: "accept" or "ignore", and the score from which on suspected missing labels of the
            report are: see `decide_by_score`. None: there are decisions.

    Returns:
        the address of the corrected data set.

    Raises:
        InputError: the decisions or the data set cannot be read, or the folder cannot be written.
    """
    named: str | None
    if by_score:
        if not file.is_dir():
            raise InputError(f"{file} is no folder, expected that of a report")
        named, decisions, left = decide_by_score(file, *by_score)
        taken = f"{file} --{' '.join(map(str, by_score))}"
    else:
        if file.is_dir():
            raise InputError(
                f"{file} is a folder, expected a file of decisions; or of the folder of a report, "
                "--accept or --ignore"
            )
        (named, decisions), left = read_decisions(file), []
        taken = str(file)
    name = dataset or named
    if not name:
        raise InputError(f"{file} names no data set, expected --dataset with its address")
    address = _address_of(name)
    scheme, path, options = split_address(address)
    if scheme not in _FORMATS:
        raise InputError(
            f"the data set {name!r} is in the format {scheme}://, which cannot be relabelled: "
            f"expected one of {', '.join(f'{x}://' for x in _FORMATS)}"
        )
    part = options.pop("part", None)
    images, annotations, classes, before = _load(join_address(scheme, path, options))
    earlier = earlier_runs(path)
    done = carried_out(earlier)
    if by_score:
        decisions, number = without_decided(decisions, decided(earlier))
        left += [f"{MISSING}, decided otherwise in an earlier run: {number}"] if number else []
    outcomes = plan(decisions, images, annotations, classes, done, dataset is not None)
    _check_images(outcomes, images, file, named, name)
    after = _labelled_then(outcomes, before)
    if not any(after.values()):
        removing = [x.decision.place for x in outcomes if any(y.remove for y in x.edits)]
        more = ", ..." if len(removing) > _NAMED else ""
        raise InputError(
            f"{', '.join(removing[:_NAMED])}{more}: then no label is left in {shown(name)}, "
            "expected one that stays"
        )
    check_apart(output, annotations.inputs())
    former = former_files(output)
    check_output_dir("--output", output)
    notes = _apply(outcomes, annotations)
    log: dict[str, Any] = {
        "info": {"dataset": name, "decisions": taken},
        **{status.replace(" ", "_"): [] for status in (CHANGED, ALREADY, REJECTED, LEFT_OUT)},
        "earlier": earlier,
    }
    for x in outcomes:
        log[x.status.replace(" ", "_")].append(_logged(x, annotations))
    write_output(output, annotations.output(), log, former)

    where, others = annotations.address(output)
    kept = {key: value for key, value in options.items() if key != "images"}
    _check(join_address(scheme, where, kept | others), images, outcomes, dataset is not None)
    if part is not None:
        others |= {"part": part}
    corrected = join_address(scheme, where, kept | others)
    emptied = [x for x in classes if before[x] and not after[x]]
    _say(outcomes, notes, emptied, left, output, corrected)
    return corrected


def _load(address: str) -> tuple[list[Image], Annotations, list[str], Counter[str | None]]:
    """Images, annotations, classes, and the number of objects of each; of regions, as None."""
    data = load_address(address, unreadable="skip")
    scheme, path, options = split_address(address)
    images = images_of(data)
    labels = [y for x in data.records for y in x["annotations"]]
    numbers = Counter(None if is_region(x) else x["category_id"] for x in labels)
    if scheme == "coco":
        return images, CocoAnnotations(path, options), data.classes, numbers
    of_format = VocAnnotations if scheme == "voc" else YoloAnnotations
    return images, of_format(path, options, images), data.classes, numbers


def _labelled_then(
    outcomes: Sequence[Outcome], before: Mapping[str | None, int]
) -> Counter[str | None]:
    """Numbers as `_load` returns them, when all is changed."""
    after = Counter(before)
    for x in outcomes:
        label, proposal = x.decision.label, x.decision.proposal
        of = label or proposal
        for edit in x.edits:
            if label is not None:
                after[label.category] -= 1
            if not edit.remove and of is not None:
                after[None if edit.is_region else edit.category or of.category] += 1
    return after


def _address_of(name: str) -> str:
    """The address of a data set that is registered with Detectron2, by what its metadata name."""
    if "://" in name:
        return name
    register_builtin([name])
    metadata = MetadataCatalog.get(name) if name in DatasetCatalog else None
    file, images = (metadata.get(x) if metadata else None for x in ("json_file", "image_root"))
    if file and images:
        return join_address("coco", Path(file), {"images": str(images)})
    folder, split = (metadata.get(x) if metadata else None for x in ("dirname", "split"))
    if folder and split:
        return join_address("voc", Path(folder), {"split": str(split)})
    found = "has no files of annotations that Detectron2 knows of" if metadata else "is not known"
    raise InputError(
        f"the data set {name!r} {found}: expected --dataset with an address, "
        f"{', '.join(f'{x}://' for x in _FORMATS)}"
    )


def _apply(outcomes: Sequence[Outcome], annotations: Annotations) -> Counter[str]:
    edits: dict[Image, list[Edit]] = defaultdict(list)
    for x in outcomes:
        if x.edits and x.image is not None:
            edits[x.image] += x.edits
    notes: Counter[str] = Counter()
    for image, of_image in edits.items():
        notes.update(annotations.edit(image, of_image))
    return notes


def _logged(x: Outcome, annotations: Annotations) -> dict[str, Any]:
    as_region = x.decision.action == "ignore"
    entry = {
        "image": x.decision.image if x.image is None else x.image.file,
        "file": None if x.image is None else annotations.file_of(x.image).as_posix(),
        "before": _described(x.before),
        "after": _described(x.after, as_region) if x.status in (CHANGED, ALREADY) else None,
        "decision": x.decision.as_written,
    }
    return entry | ({"reason": x.reason} if x.reason else {})


def _described(what: Object | None, as_region: bool = False) -> dict[str, Any] | None:
    if what is None:
        return None
    described = {"category": what.category, "bbox": as_xywh(what.box)}
    return described | ({"ignore": 1} if as_region else {})


def _check_images(
    outcomes: Sequence[Outcome], images: Sequence[Image], file: Path, named: str | None, name: str
) -> None:
    missing = [x.decision.image for x in outcomes if x.reason == NO_IMAGE]
    if missing and len(missing) >= _MOST * len(outcomes):
        of = "no data set" if named is None else shown(named)
        raise InputError(
            f"{file}, which is of {of}, has {len(outcomes)} decisions, {len(missing)} of them on "
            f"images that are not in {shown(name)}, such as {missing[0]}; there is "
            f"{images[0].file}: expected --dataset with the address of these images"
        )


def _check(
    address: str, images: Sequence[Image], outcomes: Sequence[Outcome], is_moved: bool
) -> None:
    """
    Read what was written: it has the same images, and what was changed is there.

    Raises:
        InputError: it has not, as in a layout that only leads to the old files.
    """
    try:
        again, annotations, classes, _ = _load(address)
    except InputError as e:
        raise InputError(f"the corrected annotations are written, but cannot be read: {e}") from e
    if {os.path.realpath(x.file) for x in again} != {os.path.realpath(x.file) for x in images}:
        raise InputError(f"{address} was written, but leads to other images than before")
    by_file = {os.path.realpath(x.file): x for x in again}
    changed = [x for x in outcomes if x.status == CHANGED and x.image is not None]
    decisions = [x.decision for x in changed]
    done = {key_of(x.as_written) for x in decisions}
    for x, y in zip(changed, plan(decisions, again, annotations, classes, done, is_moved)):
        if y.status != ALREADY:
            assert x.image is not None
            image = by_file[os.path.realpath(x.image.file)].file
            raise InputError(f"{address} was written, but what was changed is not read in {image}")


def _say(
    outcomes: Sequence[Outcome],
    notes: Counter[str],
    emptied: Sequence[str],
    left: Sequence[str],
    output: Path,
    corrected: str,
) -> None:
    counts = Counter(x.status for x in outcomes)
    statuses = ", ".join(f"{counts[x]} {x}" for x in (CHANGED, ALREADY, REJECTED, LEFT_OUT))
    print(f"{len(outcomes)} decisions: {statuses}")
    findings = Findings()
    for x in outcomes:
        if x.status == LEFT_OUT:
            findings.add(f"left out, since {x.reason}", x.decision.image, x.decision.words)
    for category in emptied:
        findings.add("class without any object now", repr(category))
    for line in [*findings.summary(), *left]:
        print(f"- {line}")
    for note, number in notes.items():
        print(f"- {note}: {number}")
    print(f"Wrote the corrected annotations, and {LOG} beside them, to {output}. Have a look:")
    print(printable(f"ohem-d2 data {shlex.quote(corrected)}"))
