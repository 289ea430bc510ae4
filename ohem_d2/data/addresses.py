"""
Data sets by address: an entry of ``DATASETS.TRAIN`` or ``DATASETS.TEST`` may be

- ``coco://<annotations.json>?images=<folder>``, or ``coco://<folder>`` as Roboflow writes it
- ``voc://<folder>``, with ``?split=<name of a list in ImageSets/Main>`` if it has such lists
- ``yolo://<data.yaml>?split=train``, or an ``obj.data``, or a folder with ``classes.txt``
- ``cvat://<annotations.xml>``
- ``labelme://<folder>``

Options are joined by ``&``. All formats know ``images``, the folder of the images, where it is
another one than usual, and ``part`` (see `parts`), which splits what has no split.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .box_forms import CORNERS, MIDDLES, SIZES
from .checks import look_over
from .class_names import differ_in_case, differ_in_separators, merged, normalise
from .coco import ROBOFLOW, load_coco
from .cvat import load_cvat
from .findings import Findings
from .labelme import load_labelme
from .look_alikes import look_alikes, of_two_scripts
from .overview import is_region
from .parts import Part, parse_part, take_part
from .telling_names import named_background, named_to_ignore
from .voc import load_voc
from .yolo import load_yolo

# How the addresses look, for error messages.
ADDRESSES = (
    "coco://<annotations.json>?images=<folder>, voc://<folder>, yolo://<data.yaml>?split=<split>, "
    "cvat://<annotations.xml> or labelme://<folder>"
)


@dataclass
class Loaded:
    """
    What is behind an address.

    Args:
        records: Detectron2's data set dicts, with the class's name in place of ``category_id``.
        classes: the names of the classes.
        metadata: what else Detectron2's catalog should know.
        findings: what is odd.
    """

    records: list[dict]
    classes: list[str]
    metadata: dict
    findings: Findings = field(default_factory=Findings)


Options = dict[str, str]
Read = tuple[list[dict], list[str], dict]


def _coco(path: Path, options: Options, findings: Findings) -> Read:
    images = options.get("images")
    if path.is_dir() and (path / ROBOFLOW).is_file():
        folder = path if images is None else Path(images).expanduser()
        return load_coco(path / ROBOFLOW, folder, findings)
    if path.is_dir():
        raise InputError(
            f"{path} is a folder without {ROBOFLOW}, expected that file in it, or "
            "coco://<annotations.json>?images=<folder>"
        )
    if images is None:
        raise InputError(
            f"coco://{path} does not say where the images are, expected "
            "coco://<annotations.json>?images=<folder>"
        )
    return load_coco(path, Path(images).expanduser(), findings)


def _voc(path: Path, options: Options, findings: Findings) -> Read:
    first = options.pop("first_pixel", "1")
    if first not in ("0", "1"):
        raise InputError(f"first_pixel={first} of voc://{path}: expected 0 or 1")
    return load_voc(path, **options, first_pixel=int(first), findings=findings)


class _Format(NamedTuple):
    options: tuple[str, ...]
    read: Callable[[Path, Options, Findings], Read]
    evaluator_type: str = "coco"  # Detectron2's
    numbers: str = ""  # of a box; see `look_over`


_FORMATS = {
    "coco": _Format(("images",), _coco, numbers=SIZES),
    "voc": _Format(("split", "images", "first_pixel"), _voc, "pascal_voc", CORNERS),
    "yolo": _Format(
        ("split", "images"), lambda p, o, f: load_yolo(p, **o, findings=f), numbers=MIDDLES
    ),
    "cvat": _Format(("images", "split"), lambda p, o, f: load_cvat(p, **o, findings=f)),
    "labelme": _Format(("images",), lambda p, o, f: load_labelme(p, **o, findings=f)),
}
_ALL_OPTIONS = sorted({x for each in _FORMATS.values() for x in each.options} | {"part"})
_OPTION = re.compile(rf"[?&]({'|'.join(_ALL_OPTIONS)})=")
_LIKE_AN_OPTION = re.compile(r"[?&](\w+)=")


def _not_understood(name: str, reason: str) -> InputError:
    return InputError(f"the data set {name!r} is not understood: {reason}; expected {ADDRESSES}")


def _parse(name: str) -> tuple[_Format, str, Options]:
    """The format, the path and the options of an address."""
    scheme, _, rest = name.partition("://")
    path, *pairs = _OPTION.split(rest)  # the path, then names and values in turns
    options = dict(zip(pairs[::2], pairs[1::2]))
    known = _FORMATS.get(scheme)
    if known is None:
        raise _not_understood(name, f"{scheme!r} is no format")
    if not path:
        raise _not_understood(name, "it has no path")
    if empty := [x for x, value in options.items() if not value]:
        raise _not_understood(name, f"its option {empty[0]!r} is empty")
    if len(options) < len(pairs) // 2:
        raise InputError(f"the data set {name!r} has an option twice, expected each once")
    odd = [x for x in options if x not in (*known.options, "part")]
    for value in (path, *options.values()):
        if not Path(value).expanduser().exists():  # whose name may have what looks like an option
            odd += _LIKE_AN_OPTION.findall(value)
    if odd:
        options_of = ", ".join((*known.options, "part"))
        raise _not_understood(
            name, f"{odd[0]!r} is no option of {scheme}://, which has {options_of}"
        )
    return known, path, options


def split_address(name: str) -> tuple[str, Path, Options]:
    """
    Return the format of an address, its path and its options.

    Raises:
        InputError: it is not understood.
    """
    _, path, options = _parse(name)
    return name.partition("://")[0], Path(path).expanduser(), options


def join_address(scheme: str, path: Path, options: Options) -> str:
    """Return the address of these; see `split_address`."""
    joined = "&".join(f"{key}={value}" for key, value in options.items())
    return f"{scheme}://{path}?{joined}" if joined else f"{scheme}://{path}"


def evaluator_type(name: str) -> str:
    """Return Detectron2's ``evaluator_type`` for an address."""
    return _parse(name)[0].evaluator_type


def part_of(name: str) -> tuple[tuple, Part | None]:
    """Return what says which data set an address is a part of, and which part, if any."""
    _, path, options = _parse(name)
    part = options.pop("part", None)
    whole = name.partition("://")[0], str(Path(path).expanduser().resolve()), *options.items()
    return whole, None if part is None else parse_part(part)


def load_address(name: str, unreadable: str = "error") -> Loaded:
    """
    Read a data set.

    Args:
        name: its address.
        unreadable: what becomes of images that cannot be read; see `look_over`.

    Returns:
        what is behind it. The classes are those of the whole data set, also of a part.

    Raises:
        InputError: the address or a file behind it is wrong.
    """
    known, path, options = _parse(name)
    part = options.pop("part", None)
    share = None if part is None else parse_part(part)
    findings = Findings()
    try:
        records, names, metadata = known.read(Path(path).expanduser(), options, findings)
    except ValueError as e:
        if isinstance(e, InputError):
            raise
        raise _not_understood(name, str(e)) from None
    names, metadata = _normalise(name, records, names, metadata, findings)
    if share is not None:
        number = len(records)
        records = take_part(records, share, findings)
        if not records:
            raise InputError(
                f"the data set {name!r} is empty: none of its {number} images falls into this "
                "part, expected a larger one, or more images"
            )
    records = look_over(name, records, findings, unreadable, known.numbers)
    for annotation in (a for record in records for a in record["annotations"]):
        if annotation.get("ignore"):  # a crowd is what Detectron2 keeps apart from objects
            annotation["iscrowd"] = 1
    annotations = [a for record in records for a in record["annotations"]]
    if annotations and all(map(is_region, annotations)):
        findings.add("no object, but only regions to ignore", name, f"{len(annotations)} of them")
    if not annotations:
        left_out = [x for x in findings.summary() if "left out" in x]
        raise InputError("; ".join([f"there is no object in the data set {name!r}", *left_out]))
    return Loaded(records, names, metadata, findings)


def _normalise(
    name: str, records: list[dict], names: list[str], metadata: dict, findings: Findings
) -> tuple[list[str], dict]:
    """Write each class in one way, and note what is written in several."""
    counts = Counter(dict.fromkeys(map(normalise, names), 0))
    for record in records:
        for annotation in record["annotations"]:
            annotation["category_id"] = normalise(annotation["category_id"])
            counts[annotation["category_id"]] += 1
    if "" in counts:
        raise InputError(f"the data set {name!r} has a class without a name, expected a text")
    for words in merged(names):
        findings.add("class names that differ in white space only, taken as one", name, words)
    for words in differ_in_case(counts):
        findings.add("class names that differ in upper and lower case only", name, words)
    for words in differ_in_separators(counts):
        findings.add("class names that differ in spaces, hyphens and underscores only", name, words)
    for words in look_alikes(counts):
        findings.add("class names that look the same", name, words)
    for words in of_two_scripts(counts):
        findings.add("class name of Latin letters and of others that look so", name, words)
    for words in named_to_ignore(counts):
        findings.add("class that is named as what is to be ignored, taken as a class", name, words)
    for words in named_background(counts):
        findings.add("class that is named as the background, taken as a class", name, words)
    if "category_ids" in metadata:
        ids: dict = {}
        for each, number in metadata["category_ids"].items():
            ids.setdefault(normalise(each), number)
        metadata = metadata | {"category_ids": ids}
    return list(dict.fromkeys(map(normalise, names))), metadata
