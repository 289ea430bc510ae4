"""
What is looked at in the records of every data set that is given by address: image files, sizes,
boxes, and images that are there twice. What can be told is mended; what cannot is one error, or a
line among the findings. Of registered data sets, image files and sizes are looked at, too.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from detectron2.utils import comm

from ..errors import InputError
from ..paths import printable
from .agreement import check_agreement
from .areas import check_areas
from .box_forms import check_form, check_scale, is_beyond
from .box_order import sort_corners
from .boxes import corners, words_of
from .fields import runs_fault
from .findings import Findings
from .image_reading import EIGHT_BIT, ImageCache, ImageFile, plain_path
from .orientation import SIDEWAYS, turn_annotation
from .same_boxes import find_same_boxes
from .shared_boxes import find_shared_boxes

UNREADABLE = ("error", "skip", "keep")
TURNED = "image annotated before EXIF turns it, boxes turned"


def look_over(
    name: str, records: list[dict], findings: Findings, unreadable: str, numbers: str = ""
) -> list[dict]:
    """
    Check and mend the records of a data set.

    Args:
        name: of the data set, for messages.
        records: in Detectron2's form, as a reader of this package returns them. They are changed.
        findings: where to put what is odd.
        unreadable: one of `UNREADABLE`: "skip" leaves out images whose header cannot be read, and
            "keep" leaves them to the caller.
        numbers: what the four numbers of a box are in the files, one of the forms in `box_forms`,
            or "" if they cannot be told from each other.

    Returns:
        those to use.

    Raises:
        InputError: images cannot be read, or have other sizes than annotations say, or boxes are in
            another form, or ids of images are not their own.
    """
    cache = ImageCache(name)
    files = cache.headers([record["file_name"] for record in records])
    cache.keep(files)
    if unreadable != "keep":
        records = without_unreadable(name, records, files, findings, unreadable)
    _fit_to_files(name, records, files, findings)
    records = _merge_twins(records, findings)
    _check_ids(name, records)
    check_form(name, records, numbers, findings)
    sort_corners(records, findings)
    check_agreement(name, records, findings)
    check_areas(name, records, findings)
    _leave_out_bad_boxes(records, findings)
    _find_odd_boxes(records, findings)
    find_shared_boxes(records, findings)
    find_same_boxes(name, records, findings)
    check_scale(name, records, findings)
    for record in records:
        file = files[record["file_name"]]
        if file.is_wide:
            findings.add(
                "image of 16-bit or float pixels, scaled to 8 bits from its darkest to its "
                "brightest",
                record["file_name"],
            )
        if file.is_wide or file.is_turned_twice:
            record["file_name"] = EIGHT_BIT + record["file_name"]
    return records


def read_to_end(
    name: str, records: list[dict], findings: Findings, unreadable: str
) -> tuple[list[dict], dict[str, ImageFile]]:
    """
    Read each image to its end, with a progress bar, unless that was done before and the file is the
    same. Several processes share the work.

    Args:
        name: of the data set.
        records: those that `look_over` returned.
        findings: where to put what is odd.
        unreadable: "error", or "skip" to leave out images that cannot be read.

    Returns:
        the records to use, and what is known of each file, by its path.

    Raises:
        InputError: images cannot be read.
    """
    cache = ImageCache(name)
    paths = [plain_path(record["file_name"]) for record in records]
    files: dict[str, ImageFile] = {}
    for part in comm.all_gather(cache.whole(paths[comm.get_rank() :: comm.get_world_size()])):
        files |= part
    cache.keep(files)
    records = without_unreadable(name, records, files, findings, unreadable)
    first: dict[str, str] = {}
    # As texts: records of the user's own may hold anything.
    objects = {
        plain_path(r["file_name"]): {
            (str(a.get("category_id")), str(a.get("bbox"))) for a in r.get("annotations", ())
        }
        for r in records
    }
    for path, file in files.items():
        if file.digest and (other := first.setdefault(file.digest, path)) != path:
            is_same = objects[path] == objects[other]
            what = "and the same objects as another" if is_same else "as another, but other objects"
            findings.add(f"image with the same bytes {what}", path, other)
        if file.frames > 1:
            findings.add(
                "image of several pages or frames, of which the first is read",
                path,
                f"{file.frames} of them",
            )
    return records, files


def without_unreadable(
    name: str,
    records: list[dict],
    files: dict[str, ImageFile],
    findings: Findings,
    unreadable: str,
) -> list[dict]:
    """
    Return the records without those whose image cannot be read; see `look_over`.

    Raises:
        InputError: there are some, and they are an error; or nothing is left.
    """
    bad = {path: file.problem for path, file in files.items() if file.problem}
    if not bad:
        return records
    if unreadable == "error":
        raise InputError(
            f"{len(bad)} of {len(files)} images of the data set {name!r} cannot be read "
            f"({first_few([f'{path}: {problem}' for path, problem in bad.items()])}): expected "
            "whole images, or DATASETS.UNREADABLE_IMAGES 'skip' to leave them out (in a Python "
            "config +dataloader.unreadable_images=skip)"
        )
    for path, problem in bad.items():
        findings.add("image that cannot be read, left out", path, problem)
    left = [r for r in records if plain_path(r["file_name"]) not in bad]
    if not left:
        raise InputError(f"no image of the data set {name!r} can be read: expected some that can")
    return left


def first_few(words: Sequence[str], shown: int = 3) -> str:
    """Return the first of many in one line, and how many more there are."""
    more = f"; and {len(words) - shown} more" if len(words) > shown else ""
    return printable("; ".join(words[:shown]) + more)


# ---------------------------------------------------------------------------------- sizes of images


class _Size(NamedTuple):
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


def _shown(file: ImageFile) -> _Size:
    """The size of an image as viewers show it."""
    width, height = file.width, file.height
    return _Size(height, width) if file.orientation in SIDEWAYS else _Size(width, height)


def check_sizes(name: str, records: Sequence[dict], files: dict[str, ImageFile]) -> None:
    """
    Make sure that images are of the size that their records say, if they do: others Detectron2
    refuses when it reads them.

    Args:
        name: of the data set.
        records: in Detectron2's form.
        files: what is known of each file, by its path.

    Raises:
        InputError: some are not.
    """
    wrong = []
    for record in records:
        shown = _shown(files[plain_path(record["file_name"])])
        if "width" in record and "height" in record:
            given = record["width"], record["height"]
            if given != shown:
                wrong.append(f"{record['file_name']}: {shown}, annotated {given[0]} x {given[1]}")
    _refuse_sizes(name, wrong)


def _refuse_sizes(name: str, wrong: Sequence[str], otherwise: str = "") -> None:
    if wrong:
        raise InputError(
            f"{len(wrong)} images of the data set {name!r} have another size than their "
            f"annotations say ({first_few(wrong)}): expected the images that were annotated"
            f"{otherwise}"
        )


def _fit_to_files(
    name: str, records: list[dict], files: dict[str, ImageFile], findings: Findings
) -> None:
    """Give each image the size of its file, and turn what was annotated before EXIF turns it."""
    wrong = []
    # How the images that EXIF turns are annotated, as far as their sizes tell.
    as_stored: list[dict] = []
    as_shown: list[dict] = []
    undecided: list[dict] = []
    for record in records:
        file = files[record["file_name"]]
        # YOLO's form has no sizes, so that none is missing.
        has_size = "width" in record
        given = _Size(*(_side(record.get(x)) for x in ("width", "height")))
        if file.problem:
            record["width"], record["height"] = given
            continue
        stored, shown = _Size(file.width, file.height), _shown(file)
        record["width"], record["height"] = shown
        if min(given) <= 0:
            if has_size:
                findings.add("size of an image missing, taken from its file", record["file_name"])
        elif given not in (stored, shown):
            if given != _Size(*reversed(shown)):
                wrong.append(f"{record['file_name']}: {shown}, annotated {given}")
                continue
            findings.add(
                "width and height of an image exchanged, taken from its file", record["file_name"]
            )
        if file.orientation == 1:
            continue
        if min(given) <= 0 and has_size:
            given = _fitting(record, stored, shown)
        if stored == shown or min(given) <= 0:
            undecided.append(record)
        else:
            (as_shown if given == shown else as_stored).append(record)
    _refuse_sizes(name, wrong, ", or width and height 0 to take those of the files")
    if as_stored and not as_shown:
        as_stored += undecided
    elif as_stored or not as_shown:  # the others disagree, or nothing tells
        for record in undecided:
            findings.add(
                "image that its EXIF data turn: boxes are taken to be those of the image as it is "
                "shown; if the tool that drew them does not turn images, remove the EXIF data",
                record["file_name"],
            )
    for record in as_stored:
        file = files[record["file_name"]]
        findings.add(TURNED, record["file_name"])
        for annotation in record["annotations"]:
            _drop_bad_runs(annotation, file.height, file.width)
            turn_annotation(annotation, file.orientation, file.width, file.height)


def _fitting(record: dict, stored: _Size, shown: _Size) -> _Size:
    """The one of two sizes in which all boxes of an image lie, if some do not in the other."""
    fits = [
        all(not is_beyond(corners(a), size.width, size.height) for a in record["annotations"])
        for size in (stored, shown)
    ]
    return _Size(0, 0) if fits[0] == fits[1] else stored if fits[0] else shown


def _side(value: Any) -> int:
    try:
        return round(float(value or 0))
    except (TypeError, ValueError, OverflowError):
        return 0


def _drop_bad_runs(annotation: dict, height: int, width: int) -> None:
    runs = annotation.get("segmentation")
    if isinstance(runs, dict) and (fault := runs_fault(runs, height, width)):
        del annotation["segmentation"]
        annotation.setdefault("unusable", {})["segmentation"] = fault


# ----------------------------------------------------------------------------- identity of an image


def _merge_twins(records: list[dict], findings: Findings) -> list[dict]:
    """Of each file one record, with the objects of all."""
    merged: dict[str, dict] = {}
    for record in records:
        path = os.path.normpath(record["file_name"])
        first = merged.setdefault(path, record)
        if first is record:
            continue
        known = {_of_object(a) for a in first["annotations"]}
        new = [a for a in record["annotations"] if _of_object(a) not in known]
        first["annotations"] = [*first["annotations"], *new]
        findings.add("image listed more than once, its objects put together", record["file_name"])
    return list(merged.values())


def _of_object(annotation: dict) -> tuple:
    return (annotation["category_id"], tuple(annotation["bbox"]))


def _check_ids(name: str, records: list[dict]) -> None:
    files: dict[Any, str] = {}
    for record in records:
        other = files.setdefault(record["image_id"], record["file_name"])
        if other != record["file_name"]:
            raise InputError(
                f"two images of the data set {name!r} have the id {record['image_id']!r}: "
                f"{other} and {record['file_name']}, expected one of its own for each"
            )


# -------------------------------------------------------------------------------------------- boxes


def _find_odd_boxes(records: list[dict], findings: Findings) -> None:
    """Boxes that are likely to be a slip, which are kept: nobody can tell."""
    pairs = [(r, a, corners(a)) for r in records for a in r["annotations"]]
    for record in records:
        seen: set[tuple] = set()
        for annotation in record["annotations"]:
            if (what := _of_object(annotation)) in seen:
                findings.add(
                    "object annotated more than once, with the same class and box",
                    record["file_name"],
                    words_of(annotation),
                )
            seen.add(what)
    for record, annotation, (x0, y0, x1, y1) in pairs:
        if x1 - x0 < 1 and y1 - y0 < 1:
            findings.add("box smaller than a pixel", record["file_name"], words_of(annotation))


def _leave_out_bad_boxes(records: list[dict], findings: Findings) -> None:
    """Zero-area boxes and those outside their image go."""
    for record in records:
        kept = []
        for annotation in record["annotations"]:
            x0, y0, x1, y1 = box = corners(annotation)
            words = words_of(annotation)
            if not (x1 > x0 and y1 > y0):
                findings.add("box of zero area, left out", record["file_name"], words)
                continue
            if x1 <= 0 or y1 <= 0 or x0 >= record["width"] or y0 >= record["height"]:
                findings.add("box outside its image, left out", record["file_name"], words)
                continue
            if is_beyond(box, record["width"], record["height"]):
                findings.add(
                    "box that reaches far beyond its image, cut off", record["file_name"], words
                )
            kept.append(annotation)
        record["annotations"] = kept


def most_objects(records: Sequence[dict], field: str = "bbox") -> int:
    """
    Return the largest number of objects in an image.

    Args:
        records: in Detectron2's form.
        field: only objects that have it.
    """
    return max(
        (sum(field in a and not a.get("iscrowd") for a in r["annotations"]) for r in records),
        default=0,
    )
