"""
Boxes of another form, or for images of another size, than their format says. All of a data set
together show it: as an error where that is sure, and else as a finding.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..errors import InputError
from .boxes import corners
from .findings import Findings

# What the numbers of a box may be.
CORNERS = "corners, [x0, y0, x1, y1]"
SIZES = "[x, y, width, height]"
MIDDLES = "[x, y, width, height] with x and y of the middle"
_HEIGHT_FIRST = "[x, y, height, width]"

Numbers = Sequence[float]
_READINGS: dict[str, Callable[[Numbers], Numbers]] = {  # as corners
    CORNERS: lambda b: b,
    SIZES: lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]),
    MIDDLES: lambda b: (
        b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2
    ),
}  # fmt: skip

# By this part of a side, a box may lie beyond its image before that is a finding.
_BEYOND = 0.05
# How many boxes have to be wrong as they are read, and right, read in another way.
_CORNERS, _MOST = 0.3, 0.95
_FEW = 3  # of them tell nothing
_HINT = 2  # that are wrong, if all are right in the other way

# Where so many boxes end within so many pixels, they are taken for percents.
_MANY, _PERCENT = 20, 100
_MANY_IMAGES = 20
# Fewer boxes tell it where there are so many, in so many images, of which one ends near the last.
_SOME, _SOME_IMAGES, _NEAR = 5, 3, 0.8
# Where the boxes of enlarged images end, as parts of the sides; and sides that tools give images.
_PARTS = {"two thirds": 2 / 3, "half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4}
_SIDES = (224, 256, 300, 320, 416, 448, 512, 600, 640, 768, 800, 1000, 1024, 1280)
_LARGER = 1.5  # than these have to be all images
_SHORT, _OVER = 0.97, 1.003  # of it, that the last box may end


def is_beyond(box: Numbers, width: int, height: int) -> bool:
    """Whether corners lie outside of an image, by more than a little."""
    x0, y0, x1, y1 = box
    by_x, by_y = _BEYOND * width, _BEYOND * height
    return x0 < -by_x or y0 < -by_y or x1 > width + by_x or y1 > height + by_y


def _is_inside(box: Numbers, record: dict) -> bool:
    """Whether corners are those of a box, and in the image but for a little."""
    is_box = box[2] > box[0] and box[3] > box[1]
    return is_box and not is_beyond(box, record["width"], record["height"])


def check_form(name: str, records: Sequence[dict], numbers: str, findings: Findings) -> None:
    """
    Recognise boxes of another form.

    Args:
        name: of the data set.
        records: those of it.
        numbers: what the numbers of a box are in the files, or "" if they are corners that may be
            any two.
        findings: where to put what only seems so.

    Raises:
        InputError: they are parts of the image, or corners in the place of sizes, or the like.
    """
    pairs = [(r, a) for r in records for a in r["annotations"]]
    # With VOC's first pixel, which is 1, taken off by the reader.
    if pairs and all(
        max(corners(a)) <= 1.001 and min(r["width"], r["height"]) > 2 for r, a in pairs
    ):
        raise InputError(
            f"the boxes of the data set {name!r} all lie in the first pixel of their images, "
            f"such as {pairs[0][1]['bbox']} in {pairs[0][0]['file_name']}, as if they were "
            "parts of width and height: expected pixels"
        )
    known = numbers or CORNERS
    boxes = [(r, _in_form(a, known)) for r, a in pairs]
    bad = [(r, b) for r, b in boxes if not _is_inside(_READINGS[known](b), r)]
    if not bad:
        return
    record, box = bad[0]
    such_as = (
        f"such as {[round(x, 2) for x in box]} in {record['file_name']}, of {record['width']} x "
        f"{record['height']} pixels"
    )
    for words, reading in _other_readings(numbers):
        inside = sum(_is_inside(reading(b), r) for r, b in boxes)
        # Among a few bad boxes, one is soon right by chance.
        is_sure = len(bad) >= _FEW or words == CORNERS
        is_most = len(bad) >= _CORNERS * len(boxes)
        if is_sure and is_most and inside >= _MOST * len(boxes):
            raise InputError(
                f"the boxes of the data set {name!r} seem to be {words}: read as {known}, "
                f"{len(bad)} of {len(boxes)} lie beyond their image or have no area, {such_as}: "
                f"expected {known}"
            )
        hint = {
            _exchanged(known): "with x and y exchanged",
            _HEIGHT_FIRST: "as [x, y, height, width]",
        }.get(words)
        if hint and len(bad) >= _HINT and inside == len(boxes):
            findings.add(
                f"boxes that lie beyond their images, where all would fit {hint}",
                name,
                f"{len(bad)} of {len(boxes)}, {such_as}",
            )


def _in_form(annotation: dict, numbers: str) -> list[float]:
    """The numbers that a file had, in pixels."""
    box = list(annotation["bbox"])
    if numbers != MIDDLES:
        return box
    x0, y0, x1, y1 = box
    return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]


def _other_readings(numbers: str) -> Iterator[tuple[str, Callable[[Numbers], Numbers]]]:
    """Words for what a box may be in the place of ``numbers``, and how that becomes corners."""
    if numbers:
        yield from ((words, read) for words, read in _READINGS.items() if words != numbers)
    if numbers == SIZES:
        yield _HEIGHT_FIRST, lambda b: (b[0], b[1], b[0] + b[3], b[1] + b[2])
    if numbers == MIDDLES:  # which are parts of the sides, that fit in either order
        return
    for words in (numbers, CORNERS) if numbers == SIZES else (CORNERS,):
        yield _exchanged(words), partial(_read_exchanged, _READINGS[words])


def _read_exchanged(read: Callable[[Numbers], Numbers], box: Numbers) -> Numbers:
    return read((box[1], box[0], box[3], box[2]))


def _exchanged(words: str) -> str:
    return f"{words} with x and y exchanged, as in [y, x, ...]"


def check_scale(name: str, records: Sequence[dict], findings: Findings) -> None:
    """
    Name boxes that all lie in the top left of their images, as percents do, and those of images
    that were enlarged afterwards.

    Args:
        name: of the data set.
        records: those of it, without boxes outside of their images.
        findings: where to put it.
    """
    with_boxes = [r for r in records if r["annotations"]]
    boxes = [(r, corners(a)) for r in with_boxes for a in r["annotations"]]
    if not boxes:
        return
    most = max(max(box) for _, box in boxes)
    smallest = min(min(r["width"], r["height"]) for r in with_boxes)
    are_many = len(boxes) >= _MANY
    are_some = len(boxes) >= _SOME and len(with_boxes) >= _SOME_IMAGES and most >= _NEAR * _PERCENT
    if most <= _PERCENT and smallest >= 2 * _PERCENT and (are_many or are_some):
        findings.add(
            f"all boxes end within the first {_PERCENT} pixels of larger images, as if they were "
            "percents of width and height",
            name,
            "" if are_many else f"{len(boxes)} boxes",
        )
    elif len(with_boxes) >= _MANY_IMAGES:
        right, bottom = max(b[2] for _, b in boxes), max(b[3] for _, b in boxes)
        parts = [
            [b[i] / r[side] for r, b in boxes]
            for i, side in enumerate(("width", "height", "width", "height"))
        ]
        for words, part in _PARTS.items():
            begin = max(min(parts[0]), min(parts[1])) <= (1 - _SHORT) * part
            if begin and all(_ends_at(max(x), part) for x in parts[2:]):
                findings.add(
                    f"all boxes end within {words} of the width and of the height, as if the "
                    "images had been enlarged without them",
                    name,
                )
                return
        for side in _SIDES:
            if smallest >= _LARGER * side and _ends_at(right, side) and _ends_at(bottom, side):
                findings.add(
                    f"all boxes end within the first {side} pixels of larger images, as if they "
                    f"were those of images of {side} x {side} pixels",
                    name,
                )
                return


def _ends_at(last: float, end: float) -> bool:
    return _SHORT * end <= last <= _OVER * end
