"""The file of decisions on suspected label errors, as the page of a report saves it."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ..data.class_names import normalise
from ..data.fields import is_number, plain_id
from ..data.text_files import read_json
from ..errors import InputError, shown

SUSPECTS = ("missing label", "spurious label", "wrong class", "badly placed label")
ACTIONS = ("accept", "reject", "ignore")

_NEEDED = ("image", "suspect", "decision", "label", "proposal")
_KEYS = (*_NEEDED, "image_id", "suspected")
_LIKE = 0.85  # of 1, from which on a key of no meaning is one that is misspelt


class Box(NamedTuple):
    """Corners in pixels of the image as the data set is read."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Object:
    """What is labelled, or proposed as a label. ``id``: of the annotation, if it has one."""

    category: str
    box: Box
    id: int | str | None = None


@dataclass(frozen=True)
class Decision:
    """
    What was decided on one suspect.

    Args:
        place: where it stands, for messages.
        image: the path of the image.
        image_id: the image's id in the data set.
        suspect: one of `SUSPECTS`.
        action: one of `ACTIONS`.
        label: what was labelled; None: nothing.
        proposal: what is to be labelled; None: nothing.
        as_written: the entry of the file.
    """

    place: str
    image: str
    image_id: int | str | None
    suspect: str
    action: str
    label: Object | None
    proposal: Object | None
    as_written: dict = field(compare=False, repr=False)

    @property
    def words(self) -> str:
        """Name it in a message."""
        of = self.label or self.proposal
        where = f"{of.category!r} at {shown(as_xywh(of.box))}" if of else "no box"
        return f"{self.suspect}, {where}"


def as_xywh(box: Box) -> list[float]:
    """Return [x, y, width, height], to a millionth of a pixel."""
    values = (box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0)
    return [int(x) if (x := round(v, 6)).is_integer() else x for v in map(float, values)]


def read_decisions(file: Path) -> tuple[str | None, list[Decision]]:
    """
    Read a file of decisions.

    Returns:
        the data set that they are about, an address or a name, or None if the file does not say;
        and the decisions.

    Raises:
        InputError: it is missing or malformed.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("decisions"), list):
        other = ""
        if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
            other = ": it is a list of examples or labels, on which nobody decided"
        raise InputError(
            f"{file} has no list of 'decisions'{other}, expected what the page of a report saves"
        )
    info = content.get("info")
    dataset = info.get("dataset") if isinstance(info, dict) else None
    if dataset is not None and not isinstance(dataset, str):
        raise InputError(f"{file}: 'dataset' is {shown(dataset)}, expected a name or an address")
    decisions = []
    for number, entry in enumerate(content["decisions"]):
        place = f"{file}: decisions[{number}]"
        try:
            decisions.append(read_decision(entry, place))
        except ValueError as e:
            raise InputError(f"{place} {e}") from None
    return dataset, decisions


def read_decision(entry: Any, place: str) -> Decision:
    """
    Read one entry of a file of decisions.

    Raises:
        ValueError: it is malformed.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"is {shown(entry)}, expected an object")
    _check_keys(entry)
    image, image_id = entry.get("image"), entry.get("image_id")
    if not isinstance(image, str) or not image:
        raise ValueError(f"has the image {shown(image)}, expected the path of a file")
    if isinstance(image_id, bool) or not isinstance(image_id, (int, str, type(None))):
        raise ValueError(f"has the image_id {shown(image_id)}, expected a number or a text")
    for key, known in (("suspect", SUSPECTS), ("decision", ACTIONS)):
        if entry.get(key) not in known:
            raise ValueError(f"has {shown(entry.get(key))} as {key!r}, expected {in_words(known)}")
    label, proposal = (_object(entry.get(key), key) for key in ("label", "proposal"))
    action = entry["decision"]
    if action != "reject" and label is None and proposal is None:
        raise ValueError(f"is to {action} neither a label nor a proposal, expected one of them")
    # A proposal may be null or not with any label: the page lets users choose what becomes of it.
    is_missing = entry["suspect"] == SUSPECTS[0]
    if action != "reject" and (label is None) != is_missing:
        found = "no label (null)" if label is None else f"a label, {label.category!r},"
        expected = "null" if is_missing else "what is labelled"
        raise ValueError(f"has {found} for the suspect {entry['suspect']!r}, expected {expected}")
    return Decision(place, image, image_id, entry["suspect"], action, label, proposal, entry)


def _check_keys(entry: dict) -> None:
    """What is not there must not count as null, which removes or adds a label."""
    for key in (x for x in entry if x not in _KEYS):
        if near := get_close_matches(key.lower(), _KEYS, n=1, cutoff=_LIKE):
            raise ValueError(f"has the key {shown(key)}, expected {near[0]!r}")
    for key in _NEEDED:
        if key not in entry:
            near = get_close_matches(key, [x for x in entry if x not in _KEYS], n=1)
            found = f", but {near[0]!r}" if near else ""
            null = ", which may be null" if key in ("label", "proposal") else ""
            raise ValueError(f"has no {key!r}{found}: expected this key{null}")


def _object(value: Any, key: str) -> Object | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"has {shown(value)} as {key!r}, expected an object or null")
    category, box, id_ = value.get("category"), value.get("bbox"), value.get("id")
    if not isinstance(category, str) or not normalise(category):
        raise ValueError(f"has a {key!r} of the category {shown(category)}, expected its name")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(
            f"has a {key!r} with the bbox {shown(box)}, expected [x, y, width, height] in pixels"
        )
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        raise ValueError(f"has a {key!r} with the bbox {shown(box)}, expected one with an area")
    try:
        id_ = None if id_ is None else plain_id(id_)
    except ValueError:
        raise ValueError(
            f"has a {key!r} with the id {shown(id_)}, expected a number or a text"
        ) from None
    return Object(normalise(category), Box(x, y, x + width, y + height), id_)


def in_words(names: tuple[str, ...]) -> str:
    """Return names as an error lists what was expected."""
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
