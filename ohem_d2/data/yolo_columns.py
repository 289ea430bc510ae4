"""
Rows of labels that have as many columns as a polygon and are none: boxes with keypoints, or with
the confidence and the number of a track. One row does not tell, all together do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .findings import Findings

_SHARE = 0.9  # of the rows have to fit
_ODD, _SURELY_ODD = 0.25, 0.5  # of those that fit have to be odd as polygons
_SPREAD = 0.3  # of the image, over which they lie: small polygons in its middle may all fit
_EDGE = 0.02  # by which boxes lie beyond their image, and keypoints beyond their box and ...
_BEYOND = 0.1  # ... this part of its side
_FAR = 1.5  # times the extent of all other corners
_LOOKED_AT = 20  # rows of which the outline is followed: it takes long

_Points = list[tuple[float, float]]

# Enough rows: of a triangle, a few numbers have to fit by chance only.
_FEW_POINTS, _MANY_POINTS, _TRACK = 5, 4, 2

_NO_IDS = "labels that were saved without them"
_SAY_SO = "or, if they are corners, 'kpt_shape: []' in the data.yaml"


@dataclass
class _Rows:
    """Rows of one number of columns, read in another way."""

    words: str
    instead: str
    enough: int
    total: int = 0
    odd: int = 0  # as polygons, of those looked at
    looked_at: int = 0
    fitting: list[str] = field(default_factory=list)  # where they are
    middles: _Points = field(default_factory=list)

    def is_likely(self) -> bool:
        return len(self.fitting) >= _SHARE * self.total and self.odd >= _ODD * self.looked_at

    def is_sure(self) -> bool:
        spread = max(max(v) - min(v) for v in zip(*self.middles))
        is_odd = self.odd >= _SURELY_ODD * self.looked_at
        return len(self.fitting) >= self.enough and is_odd and spread >= _SPREAD


class Columns:
    """What the rows of a data set that are read as polygons may be instead."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str], _Rows] = {}

    def add(self, values: Sequence[float], place: str) -> None:
        """
        Note a row.

        Args:
            values: its columns without the class, all of them between 0 and 1.
            place: its file and line.
        """
        box, rest = values[:4], values[4:]
        # Of the track of a polygon, the corners do not tell: its last column has to.
        if len(values) == 6:
            self._note(values, place, "track", _is_box(box) and _is_whole(values[-1]))
        else:
            ends_so = _is_whole(values[-1]) and not any(map(_is_whole, values[1:-2:2]))
            self._note(values, place, "track of a polygon", ends_so)
        self._note(values, place, 2, _is_box(box) and _are_keypoints(rest, 2, box))
        if len(rest) % 3 == 0:
            self._note(values, place, 3, _is_box(box) and _are_keypoints(rest, 3, box))

    def _note(self, values: Sequence[float], place: str, what: str | int, fits: bool) -> None:
        points = [p for p in zip(values[0::2], values[1::2]) if p != (0, 0)]
        key = (0 if what == "track of a polygon" else len(values), str(what))
        rows = self._rows.get(key)
        if rows is None:
            rows = self._rows[key] = _Rows(*_words(what, len(values) - 4))
        rows.total += 1
        if not fits:
            return
        rows.fitting.append(place)
        rows.middles.append(points[0])
        # The other readings tell by whole numbers.
        if what == 2 and rows.looked_at < _LOOKED_AT:
            rows.looked_at += 1
            rows.odd += _is_odd(points)

    def check(self, findings: Findings) -> None:
        """
        Look at all rows together.

        Args:
            findings: where to put rows that may be something else.

        Raises:
            InputError: they are.
        """
        likely = [x for x in self._rows.values() if x.fitting and x.is_likely()]
        likely.sort(key=lambda rows: rows.instead == _NO_IDS)  # whole numbers may be visibilities
        for rows in likely:
            if rows.is_sure():
                raise InputError(
                    f"{rows.fitting[0]}: these columns may be the corners of a polygon, but seem "
                    f"to be {rows.words}, as in {len(rows.fitting)} of {rows.total} rows of their "
                    f"number: expected {rows.instead}, {_SAY_SO}"
                )
        for rows in likely:
            for place in rows.fitting:
                findings.add(
                    f"row taken as the corners of a polygon, which may be {rows.words} (if so, "
                    f"{rows.instead} will do)",
                    place,
                )


def _words(what: str | int, rest: int) -> tuple[str, str, int]:
    """What rows may be, what is expected in their place, and how many tell."""
    if what == "track":
        return "a box, its confidence and the id of a track", _NO_IDS, _TRACK
    if what == "track of a polygon":
        return "corners, a confidence and the id of a track", _NO_IDS, _FEW_POINTS
    number = rest // int(what)
    return (
        f"a box and keypoints ({number} of {what} numbers)",
        f"'kpt_shape: [{number}, {what}]' in the data.yaml",
        _MANY_POINTS if number > 1 else _FEW_POINTS,
    )


def _is_whole(value: float) -> bool:
    return value in (0, 1)


def _is_box(box: Sequence[float]) -> bool:
    """Whether four numbers are the middle and the size of a box in the image."""
    return all(
        size > 0 and size / 2 - _EDGE <= middle <= 1 - size / 2 + _EDGE
        for middle, size in zip(box[:2], box[2:])
    )


def _are_keypoints(rest: Sequence[float], numbers: int, box: Sequence[float]) -> bool:
    """Whether the rest of a row are keypoints in its box; those that are not labelled are at 0."""
    points = list(zip(rest[0::numbers], rest[1::numbers]))
    if numbers == 3:
        if not all(map(_is_whole, rest[2::3])):
            return False
        points = [p for p, visibility in zip(points, rest[2::3]) if visibility]
    points = [p for p in points if p != (0, 0)]
    return all(
        abs(v - middle) <= size / 2 + _BEYOND * size + _EDGE
        for p in points
        for v, middle, size in zip(p, box[:2], box[2:])
    )


def _is_odd(points: _Points) -> bool:
    """Whether an outline crosses itself, or its second corner, which may be width and height, lies
    far from all the others."""
    others = [points[0], *points[2:]]
    for i in (0, 1):
        low, high = min(p[i] for p in others), max(p[i] for p in others)
        if max(low - points[1][i], points[1][i] - high) > _FAR * (high - low) + _EDGE:
            return True
    sides = list(zip(points, [*points[1:], points[0]]))
    return any(
        _cross(a, b) for i, a in enumerate(sides) for b in sides[i + 2 : len(sides) - (i == 0)]
    )


_Side = tuple[tuple[float, float], tuple[float, float]]


def _cross(a: _Side, b: _Side) -> bool:
    return all(_turn(*s, t[0]) * _turn(*s, t[1]) < 0 for s, t in ((a, b), (b, a)))


def _turn(p: tuple[float, float], q: tuple[float, float], r: tuple[float, float]) -> float:
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
