"""Examples as rows of a page."""

from hypothesis import given
from hypothesis import strategies as st
from page_data import unpacked

from ohem_d2.report.list_rows import BOXES, FIELDS, as_rows

BOX = st.lists(st.sampled_from([0.0, 1.25, 7.123456]), min_size=4, max_size=4)
NUMBER = st.floats(0, 1)


@st.composite
def examples(draw):
    x = {name: draw(NUMBER) for name in ("loss", "score", "iou")}
    x |= {"id": 3, "error_type": "look-alike", "label_id": draw(st.sampled_from([None, "x", 4]))}
    boxes = {name: draw(st.none() | BOX) for name in BOXES}
    return {**dict.fromkeys(FIELDS), **x, **boxes, "not shown": 1}


@given(examples())
def test_nothing_that_is_decided_upon_is_lost(x):
    (row,) = as_rows([x])
    found = unpacked(row, FIELDS, BOXES)
    exact = set(FIELDS) - {"score", "iou"} | {"label_bbox", "predicted_bbox"}
    assert {name: found[name] for name in exact} == {name: x[name] for name in exact}
    for name in ("score", "iou"):
        assert abs(found[name] - x[name]) <= 0.00005 + 1e-9
    for name in ("true_bbox", "bbox"):
        assert (found[name] is None) == (x[name] is None)
        for a, b in zip(found[name] or [], x[name] or []):
            assert abs(a - b) <= 0.05 + 1e-9


def test_by_hand():
    a, b = [1.0, 2.0, 3.0, 4.44], [5.0, 6.0, 7.0, 8.88]
    boxes = {"label_bbox": None, "predicted_bbox": a, "true_bbox": b, "bbox": a}
    (row,) = as_rows([{**dict.fromkeys(FIELDS), **boxes}])
    assert row[len(FIELDS) :] == [None, a, [5.0, 6.0, 7.0, 8.9], 1]
