import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.box_order import SORTED, sort_corners
from ohem_d2.data.findings import Findings

CORNERS, SIZES = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS


@pytest.mark.parametrize(
    ("box", "mode", "expected"),
    [
        ([9, 8, 1, 2], CORNERS, [1, 2, 9, 8]),
        ([9, 2, 1, 8], CORNERS, [1, 2, 9, 8]),
        ([9, 8, -5, 1], SIZES, [4, 8, 5, 1]),
        ([1, 2, 9, 8], CORNERS, None),
        ([1, 2, 9, 2], CORNERS, None),
        ([9, 2, 1, 2], CORNERS, None),  # of no area, whichever way
        ([1, 2, 9, 0], SIZES, None),
        ([9, 2, 8, 9], CORNERS, None),  # by a pixel that is counted or not
    ],
)
def test_corners_are_sorted(box, mode, expected):
    records = [
        {
            "file_name": "a.jpg",
            "annotations": [{"category_id": "dog", "bbox": box, "bbox_mode": mode}],
        }
    ]
    found = Findings()
    sort_corners(records, found)
    assert list(records[0]["annotations"][0]["bbox"]) == (expected or box)
    assert [x.name for x in found] == ([SORTED] if expected else [])
