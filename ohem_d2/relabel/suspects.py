"""
Suspected label errors of a report, on their way to a labelling tool and back.

The tool shows what would be labelled if all were accepted, and for a spurious label, the label.
What comes back says what is to be labelled: a box that stayed, moved, or is gone.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.fields import is_number
from ..data.text_files import read_json
from ..errors import InputError
from .decisions import SUSPECTS, Box, Object, as_xywh

_SAME = 0.1  # pixel, by which tools round


@dataclass(frozen=True)
class Suspect:
    """
    A suspected label error.

    Args:
        number: its id in the report.
        image: the path of the image.
        image_id: the image's id in the data set.
        size: width and height of the image.
        name: one of `SUSPECTS`.
        label: what is labelled; None: nothing.
        proposal: what may be right; None: nothing.
    """

    number: int
    image: str
    image_id: int | str
    size: tuple[int, int]
    name: str
    label: Object | None
    proposal: Object | None

    @property
    def shown(self) -> Object:
        """What a tool shows."""
        shown = self.proposal or self.label
        assert shown is not None
        return shown


@dataclass
class Returned:
    """
    What came back from a tool.

    Args:
        images: those that were looked at, by their paths.
        shapes: what is drawn for each suspect that is still there, by its number.
        new: what else is drawn, with the path of its image.
    """

    images: set[str] = field(default_factory=set)
    shapes: dict[int, Object] = field(default_factory=dict)
    new: list[tuple[str, Object]] = field(default_factory=list)

    def add(self, image: str, number: int | None, shape: Object) -> None:
        """Add a shape. One with the number of another is a copy of it, and new."""
        if number is None or number in self.shapes:
            self.new.append((image, shape))
        else:
            self.shapes[number] = shape


def read_suspects(report: Path) -> tuple[str, list[str], list[Suspect]]:
    """
    Read the suspects of a report.

    Args:
        report: its folder.

    Returns:
        the data set, the names of its classes, and the suspects.

    Raises:
        InputError: there are none, or the file is none of a report's.
    """
    file = report / "label_errors.json"
    content = read_json(file)
    try:
        dataset = content["info"]["description"].partition(" of ")[2]
        names = {x["id"]: x["name"] for x in content["categories"]}
        images = {x["id"]: x for x in content["images"]}
        found = [_suspect(x, images[x["image_id"]], names) for x in content["annotations"]]
    except (AttributeError, KeyError, TypeError) as e:
        raise InputError(f"{file} is no list of a report's ({e!r}), expected that of one") from None
    if not found:
        raise InputError(f"{file} has no suspects, expected one or more")
    return dataset, list(names.values()), found


def _suspect(entry: dict, image: dict, names: dict) -> Suspect:
    name, label, proposal = entry["error_type"], None, None
    if name not in SUSPECTS:
        raise KeyError(name)
    if entry["is_labelled"]:
        # As the data set has it, where the report says so; the model sees it cut off.
        at = entry.get("label_bbox") or entry["true_bbox"]
        label = Object(names[entry["category_id"]], _box(at), entry.get("label_id"))
    predicted = entry["predicted_category_id"]
    if predicted is not None and name != "spurious label":
        # A label of the wrong class stays where it is.
        stays = label is not None and name == "wrong class"
        proposal = Object(names[predicted], _box(at if stays else entry["predicted_bbox"]))
    size = image["width"], image["height"]
    of_image = image["file_name"], image["original_id"], size
    return Suspect(entry["id"], *of_image, name, label, proposal)


def _box(xywh: Sequence[float]) -> Box:
    x, y, width, height = xywh
    return Box(x, y, x + width, y + height)


def of_images(suspects: Sequence[Suspect]) -> dict[str, list[Suspect]]:
    """Return the suspects of each image, in the order of the first ones."""
    found: dict[str, list[Suspect]] = {}
    for x in suspects:
        found.setdefault(x.image, []).append(x)
    return found


def names_of_images(suspects: Sequence[Suspect]) -> tuple[str, dict[str, str]]:
    """Return the folder that all images lie in, and the path of each relative to it."""
    images = list(of_images(suspects))
    folder = os.path.commonpath([os.path.dirname(x) for x in images])
    return folder, {x: Path(os.path.relpath(x, folder)).as_posix() for x in images}


def as_decisions(dataset: str, suspects: Sequence[Suspect], returned: Returned) -> dict[str, Any]:
    """
    Return what came back as decisions.

    Args:
        dataset: that of the report.
        suspects: those of the report.
        returned: what is drawn now. Suspects in images that were not looked at stay undecided.
    """
    entries = []
    ids = {x.image: x.image_id for x in suspects}
    for x in suspects:
        if x.image not in returned.images:
            continue
        shape = returned.shapes.get(x.number)
        if shape is None:
            action, proposal = ("reject" if x.label is None else "accept"), None
        elif x.label is not None and _is_same(shape, x.label):
            action, proposal = "reject", x.proposal
        else:
            is_as_proposed = x.proposal is not None and _is_same(shape, x.proposal)
            action, proposal = "accept", x.proposal if is_as_proposed else shape
        if action == "reject":
            proposal = x.proposal
        entries.append(_entry(x.image, x.image_id, x.name, action, x.label, proposal))
    for image, shape in returned.new:
        entries.append(_entry(image, ids[image], SUSPECTS[0], "accept", None, shape))
    return {"info": {"dataset": dataset}, "decisions": entries}


def _is_same(a: Object, b: Object) -> bool:
    return a.category == b.category and all(abs(x - y) <= _SAME for x, y in zip(a.box, b.box))


def _entry(
    image: str,
    image_id: int | str,
    name: str,
    action: str,
    label: Object | None,
    proposal: Object | None,
) -> dict[str, Any]:
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


def checked_shape(category: object, corners: Sequence[object], where: str) -> Object:
    """
    Return what a tool drew.

    Raises:
        InputError: it is no box of a class.
    """
    if not isinstance(category, str) or not all(map(is_number, corners)):
        raise InputError(f"{where} has {category!r} at {corners}, expected a box of a class")
    box = Box(*map(float, corners))  # type: ignore[arg-type]
    if box.x1 <= box.x0 or box.y1 <= box.y0:
        raise InputError(f"{where} has {category!r} at {corners}, expected a box with an area")
    return Object(category, box)
