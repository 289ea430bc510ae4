import pytest

from ohem_d2.data.findings import Findings
from ohem_d2.data.yolo_columns import Columns
from ohem_d2.errors import InputError

# x, y, width and height of boxes all over an image
BOXES = [(x / 10, y / 10, 0.1, 0.15) for x, y in ((1, 2), (5, 8), (8, 3), (2, 7), (6, 4), (9, 9))]


def look(rows):
    """What is found, or the error."""
    columns, findings = Columns(), Findings()
    for number, row in enumerate(rows, 1):
        columns.add(row, f"a.txt, line {number}")
    columns.check(findings)
    return [(x.name, x.file) for x in findings]


def with_points(box, *shifts, visible=()):
    x, y, *_ = box
    points = [(x + u, y + v, *visible) for u, v in shifts]
    return [*box, *(value for point in points for value in point)]


def track(number):
    return lambda box: [*box, 0.9, number]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (track(1), r"a box, its confidence and the id of a track, as in 6 of 6 rows"),
        (
            lambda box: with_points(box, (0.02, 0.03)),
            r"a box and keypoints \(1 of 2 numbers\), .*: expected 'kpt_shape: \[1, 2\]'",
        ),
        (
            lambda box: with_points(box, (0.02, 0.03), (-0.04, 0.01)),
            r"a box and keypoints \(2 of 2 numbers\)",
        ),
        (
            lambda box: [*with_points(box, (0.02, 0.03), (-0.04, 0.01), visible=(1,))],
            r"a box and keypoints \(2 of 3 numbers\), .*: expected 'kpt_shape: \[2, 3\]'",
        ),
        (
            lambda box: [*with_points(box, (0.02, 0.03), (-0.04, 0.01)), 0, 0],  # one is not seen
            r"a box and keypoints \(3 of 2 numbers\)",
        ),
        (
            lambda box: [*with_points(box[:2], (0.05, 0), (0.05, 0.05), (0, 0.05)), 0.9, 1],
            r"corners, a confidence and the id of a track",
        ),
    ],
)
def test_rows_that_are_no_polygons(row, message):
    with pytest.raises(InputError, match=rf"a.txt, line 1: these columns may .*{message}"):
        look([row(box) for box in BOXES])


@pytest.mark.parametrize("row", [track(1), lambda box: with_points(box, (0.02, 0.03))])
def test_a_row_alone_is_named(row):
    ((name, file),) = look([row(BOXES[1])])
    assert name.startswith("row taken as the corners of a polygon, which may be a box")
    assert file == "a.txt, line 1"


@pytest.mark.parametrize(
    "row",
    [
        lambda x, y, w, h: (x, y, x + w, y, x, y + h),
        lambda x, y, w, h: (x, y, x + w / 2, y + h / 2, x - w / 2, y + h / 2),
        lambda x, y, w, h: (x, y, x + w, y, x + w, y + h, x, y + h),
        lambda x, y, w, h: (x, y - h / 2, x + w / 2, y, x, y + h / 2, x - w / 2, y),
        lambda x, y, w, h: (x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h),
        lambda x, y, w, h: (0.4 * x, 1, x, y, x + 0.5 * w, 1),  # up from the lower edge
    ],
)
def test_polygons(row):
    assert look([[min(v, 1) for v in row(*box)] for box in BOXES]) == []
    # Small ones in the middle may do as something else, but not for sure.
    look([[v / 8 + 0.45 for v in row(*box)] for box in BOXES])


def test_polygons_among_which_a_few_would_do_as_boxes():
    triangles = [(x, y, x + w, y, x, y + h) for x, y, w, h in BOXES]
    assert look([*triangles, track(1)(BOXES[0])]) == []
