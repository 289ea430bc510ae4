import numpy as np
import pycocotools.mask as mask_util
import pytest

from ohem_d2.data.fields import (
    flag,
    marks,
    number,
    plain_id,
    read_keypoints,
    read_outline,
    runs_fault,
)

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


@pytest.mark.parametrize("value", [None, "", "0", 0, 0.0, False, "false", " 0 ", "0.0"])
def test_what_is_no_flag(value):
    assert flag(value) == 0


@pytest.mark.parametrize("value", [1, "1", 1.0, True, "true"])
def test_what_is_a_flag(value):
    assert flag(value) == 1


@pytest.mark.parametrize("value", [2, "x", [], {}, -1, 0.5])
def test_what_is_neither(value):
    with pytest.raises(ValueError, match="expected 0 or 1"):
        flag(value)


def test_marks_in_any_case():
    assert marks([("Ignore ", "yes"), ("difficult", True), ("colour", "red")]) == {
        "ignore": 1, "difficult": 1
    }  # fmt: skip
    assert marks([("ignore", "no"), ("Difficult", "medium")]) == {}
    with pytest.raises(ValueError, match=r"'Ignore' '\?', expected 0 or 1"):
        marks([("Ignore", "?")])


def test_numbers_and_ids():
    assert [number(x) for x in (3, 2.5, "7", " 7.5 ", None, "x", True, float("nan"), [])] == [
        3, 2.5, 7, 7.5, None, None, None, None, None
    ]  # fmt: skip
    assert [plain_id(x) for x in (3, 3.0, "a")] == [3, 3, "a"]
    for value in (None, True, 1.5, []):
        with pytest.raises(ValueError, match="expected an id"):
            plain_id(value)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([[1, 1, 5, 5]], "a polygon of 2 points"),
        ([[]], "a polygon of 0 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([1, 1, 5, 5, 1, 5], "neither a list of polygons nor an RLE"),
        ([[[1, 1], [5, 5], [1, 5]]], "its polygons are not lists of numbers"),
        ([["1", "2", "3", "4", "5", "6"]], "its polygons are not lists of numbers"),
        ("outline", "neither a list of polygons nor an RLE"),
        ({"counts": "x"}, "an RLE of the size None"),
        ({"size": [0, 5], "counts": "x"}, r"an RLE of the size [0, 5]"),
        ({"size": [4, 5], "counts": None}, "an RLE without counts"),
        ({"size": [4, 5], "counts": [3, 4]}, "an RLE whose runs are not those of 4 x 5 pixels"),
    ],
)
def test_bad_outlines(value, fault):
    assert read_outline(value) == (None, fault)


@pytest.mark.parametrize("value", [None, [], {}, ""])
def test_no_outline(value):
    assert read_outline(value) == (None, "")


def test_good_outlines():
    assert read_outline([SQUARE, [1, 2]]) == ([SQUARE], "")
    mask = np.zeros((7, 9), np.uint8)
    mask[2:5, 3:6] = 1
    runs = mask_util.encode(np.asfortranarray(mask))
    counts = runs["counts"].decode()
    assert read_outline({"size": [7, 9], "counts": counts}) == (
        {"size": [7, 9], "counts": counts}, ""
    )  # fmt: skip
    raw, _ = read_outline({"size": [7, 9], "counts": [23, 3, 4, 3, 4, 3, 23]})
    assert raw["counts"] == runs["counts"]


@pytest.mark.parametrize("seed", range(5))
def test_runs_that_fill_their_image(seed):
    mask = np.random.default_rng(seed).random((41, 370)) > 0.97
    runs = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert runs_fault(runs, 41, 370) == ""
    assert runs_fault(runs, 370, 41) == "an RLE of 370 x 41 pixels, in an image of 41 x 370"
    for counts in (runs["counts"][:-3], runs["counts"] + b"1", b"\xff", b"P"):
        fault = runs_fault({"size": [41, 370], "counts": counts}, 41, 370)
        assert fault == "an RLE whose runs do not fill its image"


def test_keypoints():
    assert read_keypoints([1, 2, 2, 0, 0, 0]) == ([1.5, 2.5, 2, 0.5, 0.5, 0], "")
    assert read_keypoints(None) == read_keypoints([]) == (None, "")
    for value in ([1, 2], [1, 2, None], "x", [[1, 2, 2]]):
        assert read_keypoints(value)[1] == "not a list of x, y and visibility for each keypoint"
