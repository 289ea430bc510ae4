"""A file of YOLO's labels: a box, or the corners of a polygon, in each line."""

from pathlib import Path

from detectron2.structures import BoxMode

from ..errors import InputError
from .findings import Findings
from .text_files import read_lines
from .yolo_columns import Columns

_ROUNDING = 1e-5  # of the image's side, since files have five decimals or more
_BEYOND = 0.01  # of it, by which Ultralytics takes coordinates that are outside


def read_labels(
    file: Path,
    names: dict[int, str],
    width: int,
    height: int,
    keypoints: int | None,
    columns: Columns,
    findings: Findings,
) -> list[dict]:
    """
    Read the labels of an image.

    Args:
        file: the text file.
        names: of the classes, by number.
        width: of the image.
        height: of the image.
        keypoints: how many columns they have, which are behind the box. None if nobody says.
        columns: where to note the rows that are read as polygons.
        findings: where to put what is odd.

    Returns:
        Detectron2's annotations, with the class's name in place of ``category_id``.

    Raises:
        InputError: a line is malformed.
    """
    annotations = []
    for number, line in enumerate(read_lines(file), 1):
        words = line.split()
        if not words:
            continue
        place = f"{file}, line {number}"
        try:
            if keypoints and len(words) > 5:
                if len(words) != 5 + keypoints:
                    raise ValueError(
                        f"{len(words)} columns, expected 5 or {5 + keypoints}, as kpt_shape says"
                    )
                findings.add("keypoints, which are not read", place)
                words = words[:5]
            annotation, values, is_beyond = read_line(words, names, width, height)
        except ValueError as e:
            raise InputError(f"{place}: {e}") from None
        if is_beyond:
            findings.add("coordinate a little less than 0 or more than 1, cut off", place)
        annotations.append(annotation)
        if len(values) > 4 and keypoints is None:
            columns.add(values, place)
    return annotations


def read_line(
    words: list[str], names: dict[int, str], width: int, height: int
) -> tuple[dict, list[float], bool]:
    """
    Read the columns of a label, without keypoints.

    Args:
        words: the columns.
        names: of the classes, by number.
        width: of the image.
        height: of the image.

    Returns:
        Detectron2's annotation, with the class's name in place of ``category_id``; the columns
        behind the class, cut off at 0 and 1; and whether some were by more than a rounding.

    Raises:
        ValueError: says what is wrong.
    """
    is_polygon = len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and not is_polygon:
        raise ValueError(
            f"{len(words)} columns, expected 5 (class, x, y, width, height) or a class and the "
            f"corners of a polygon{_instead(words)}"
        )
    try:
        values = [float(x) for x in words]
    except ValueError:
        raise ValueError(f"{' '.join(words)!r}, expected numbers") from None
    if values[0] not in names:
        raise ValueError(f"the class is {words[0]}, expected one of {_in_words(names)}")
    outside = [i for i, value in enumerate(values) if i and not -_BEYOND <= value <= 1 + _BEYOND]
    if outside:
        instead = _instead(words) if outside[0] > 4 else ""
        raise ValueError(
            f"{words[outside[0]]} is no normalised coordinate, expected 0 to 1{instead}"
        )
    given, values = values, [values[0], *(min(max(x, 0.0), 1.0) for x in values[1:])]
    is_beyond = any(abs(x - y) > _ROUNDING for x, y in zip(given, values))
    annotation: dict = {"category_id": names[int(values[0])], "bbox_mode": BoxMode.XYXY_ABS}
    if is_polygon:
        xs, ys = ([size * v for v in values[i::2]] for i, size in ((1, width), (2, height)))
        annotation["bbox"] = [min(xs), min(ys), max(xs), max(ys)]
        annotation["segmentation"] = [[v for xy in zip(xs, ys) for v in xy]]
    else:
        x, y, w, h = values[1:]
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        sizes = [width, height, width, height]
        annotation["bbox"] = [_unrounded(v * size, size) for v, size in zip(box, sizes)]
    return annotation, values[1:], is_beyond


def _instead(words: list[str]) -> str:
    """What columns behind those of a box may be, and what to do."""
    if len(words) <= 5:
        return ""
    keypoints = ", or kpt_shape in the data.yaml for keypoints" if len(words) > 6 else ""
    return f"; or labels saved without confidence and track id{keypoints}"


def _in_words(names: dict[int, str]) -> str:
    """The numbers of classes, which may have gaps."""
    numbers = sorted(names)
    if numbers == list(range(len(numbers))):
        return f"0 to {numbers[-1]}"
    gap = next(i for i, number in enumerate(numbers) if i != number)
    if len(numbers) > 10:
        return f"those in names, from {numbers[0]} to {numbers[-1]}, which has no {gap}"
    return f"{', '.join(map(str, numbers))}, since names has no {gap}"


def _unrounded(value: float, size: int) -> float:
    """An edge at that of the image, where it lies outside by a rounding only."""
    edge = min(max(value, 0.0), float(size))
    return edge if abs(value - edge) <= _ROUNDING * size else value
