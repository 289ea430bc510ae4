import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.findings import Findings
from ohem_d2.data.shared_boxes import find_shared_boxes


def annotation(name, box, **fields):
    return {"category_id": name, "bbox": box, "bbox_mode": BoxMode.XYWH_ABS, **fields}


@pytest.mark.parametrize(
    ("others", "number"),
    [
        ([annotation("dog", [10, 10, 20, 20])], 1),
        ([annotation("dog", [10.2, 9.9, 20.1, 20])], 1),  # rounded otherwise
        ([annotation(x, [10, 10, 20, 20]) for x in ("dog", "bird", "dog")], 1),
        ([annotation("cat", [10, 10, 20, 20])], 0),
        ([annotation("dog", [10, 10, 20, 22])], 0),
        ([annotation("dog", [10, 10, 20, 20], iscrowd=1)], 0),
        ([annotation("dog", [10, 10, 20, 20], ignore=1)], 0),
    ],
)
def test_several_classes(others, number):
    records = [
        {"file_name": "a.jpg", "annotations": [annotation("cat", [10, 10, 20, 20]), *others]}
    ]
    found = Findings()
    find_shared_boxes(records, found)
    assert len(found) == number
    for line in found.summary():
        assert line.startswith("box that objects of several classes share: 1 (a.jpg: 'cat', 'dog'")
