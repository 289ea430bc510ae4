"""
Suspected label errors of a report, on their way to a labelling tool and back.

The tool shows what would be labelled if all were accepted, and for a spurious label, the label.
What comes back (`returned`) says what is to be labelled: a box that stayed, moved, or is gone.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data.class_names import normalise
from ..data.fields import is_number
from ..data.text_files import read_json
from ..errors import InputError
from .decisions import SUSPECTS, Box, Object


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
        score: how sure the model is of what it sees there. Tools do not get it.
    """

    number: int
    image: str
    image_id: int | str
    size: tuple[int, int]
    name: str
    label: Object | None
    proposal: Object | None
    score: float = field(repr=False)  # `digest_of` goes by the rest

    @property
    def shown(self) -> Object:
        """What a tool shows."""
        shown = self.proposal or self.label
        assert shown is not None
        return shown


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
        names = {x["id"]: normalise(x["name"]) for x in content["categories"]}
        images = {x["id"]: x for x in content["images"]}
        found = [_suspect(x, images[x["image_id"]], names) for x in content["annotations"]]
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(f"{file} is no list of a report's ({e!r}), expected that of one") from None
    if not found:
        raise InputError(f"{file} has no suspects, expected one or more")
    return dataset, list(names.values()), found


def _suspect(entry: dict, image: dict, names: dict) -> Suspect:
    name, label, proposal = entry["error_type"], None, None
    if name not in SUSPECTS:
        raise KeyError(name)
    if not is_number(entry["score"]):
        raise ValueError(f"a score is {entry['score']!r}")
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
    return Suspect(entry["id"], *of_image, name, label, proposal, entry["score"])


def _box(xywh: Sequence[float]) -> Box:
    x, y, width, height = xywh
    return Box(x, y, x + width, y + height)


def of_images(suspects: Sequence[Suspect]) -> dict[str, list[Suspect]]:
    """Return the suspects of each image, in the order of the first ones."""
    found: dict[str, list[Suspect]] = {}
    for x in suspects:
        found.setdefault(x.image, []).append(x)
    return found


def digest_of(suspects: Sequence[Suspect]) -> str:
    """Return a short text by which what a tool exports is known as of these suspects."""
    content = "\n".join(map(repr, suspects))
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def names_of_images(suspects: Sequence[Suspect]) -> tuple[str, dict[str, str]]:
    """Return the folder that all images lie in, and the path of each relative to it."""
    images = list(of_images(suspects))
    folder = os.path.commonpath([os.path.dirname(x) for x in images])
    return folder, {x: Path(os.path.relpath(x, folder)).as_posix() for x in images}
