"""Boxes that are the same everywhere, and objects that are there twice."""

import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.findings import Findings
from ohem_d2.data.same_boxes import find_same_boxes

WHOLE = "boxes that are the whole of their images, as if these had a class and no objects"
COPIED = "images with the same objects at the same places, as if labels had been copied"
TWINS = "objects of one class with nearly the same box"


def record(i, *boxes, size=(100, 80), name="cat", **fields):
    annotations = [
        {"category_id": name, "bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, **fields}
        for box in boxes
    ]
    width, height = size
    return {"file_name": f"{i}.jpg", "width": width, "height": height, "annotations": annotations}


def found(records):
    findings = Findings()
    find_same_boxes("x", records, findings)
    return findings


def test_whole_images():
    sizes = [(100 + i, 80) for i in range(6)]
    records = [record(i, (0, 0, *size), size=size) for i, size in enumerate(sizes)]
    (line,) = found(records).summary()
    assert line == f"{WHOLE}: 1 (x: 6 of 6)"
    assert not found(records[:4])
    records[0] = record(0, (0, 0, 50, 80))
    assert not found(records)


def test_copied_labels():
    records = [record(i, (10 + i, 10, 50, 40)) for i in range(5)]
    assert not found(records)
    records += [record(i, (10, 10, 50, 40), (60, 5, 90, 20)) for i in range(5, 10)]
    (line,) = found(records).summary()
    assert line == f"{COPIED}: 1 (x: 5 of 10, such as 5.jpg and 6.jpg)"
    # In parts of the sides, as YOLO's
    records[6] = record(6, (20, 20, 100, 80), (120, 10, 180, 40), size=(200, 160))
    assert len(found(records)) == 1
    records[6] = record(6, (10, 10, 50, 40), (60, 5, 90, 20), name="dog")
    assert not found(records)


@pytest.mark.parametrize(
    ("others", "number"),
    [
        ([record(0, (10.3, 10, 50, 40.4))], 1),
        ([record(0, (10.3, 10, 50, 40.4), (9.6, 10, 50, 40))], 2),
        ([record(0, (10, 10, 50, 40))], 0),  # the same box
        ([record(0, (10, 10, 46, 40))], 0),
        ([record(0, (10.3, 10, 50, 40.4), name="dog")], 0),
        ([record(0, (10.3, 10, 50, 40.4), iscrowd=1)], 0),
    ],
)
def test_twins(others, number):
    one = record(0, (60, 60, 70, 70), (10, 10, 50, 40))
    one["annotations"] += [a for other in others for a in other["annotations"]]
    findings = found([one])
    assert [x.name for x in findings] == [TWINS] * number
    if number == 1:
        assert findings[0].words == "'cat' at [10, 10, 50, 40] and 'cat' at [10.3, 10, 50, 40.4]"
