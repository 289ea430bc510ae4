import numpy as np
import pytest
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from spoilt_labels import spoil_labels

SHARES = {"removed": 0.2, "swapped": 0.1, "moved": 0.15, "added": 0.25}


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    size = {"width": 200, "height": 100}
    made = []
    for i in range(500):
        corners = rng.uniform(0, 60, size=(4, 2))
        boxes = [[x, y, 20, 30] for x, y in corners.tolist()]
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": k % 3}
            for k, box in enumerate(boxes)
        ]
        made.append({"image_id": i, **size, "annotations": annotations})
    return made


def in_xyxy(x):
    return BoxMode.convert(list(x["bbox"]), x["bbox_mode"], BoxMode.XYXY_ABS)


def iou(box, others):
    return pairwise_iou(Boxes([box]), Boxes(others)).max().item()


def test_each_error_is_what_it_says(records):
    numbers = dict.fromkeys(SHARES, 0)
    for spoilt, record in zip(spoil_labels(records, 3, **SHARES), records):
        before = {tuple(in_xyxy(x)): x["category_id"] for x in record["annotations"]}
        for x in [*spoilt["annotations"], *spoilt["removed"]]:
            box, error = in_xyxy(x), x["error"]
            if error == "added":
                assert x["true_bbox"] is None
                assert iou(box, list(before)) < 0.1
            else:
                was = before.pop(tuple(x["true_bbox"]))
                assert (x["category_id"] != was) == (error == "swapped")
                assert (box != x["true_bbox"]) == (error == "moved")
                if error == "moved":
                    assert 0.2 < iou(box, [x["true_bbox"]]) < 0.85
            if error:
                numbers[error] += 1
            assert min(box) >= 0
            assert box[2] <= 200
            assert box[3] <= 100
            before |= {tuple(x["true_bbox"]): None} if error != "added" else {}
        assert all(x["error"] == "removed" for x in spoilt["removed"])
        assert not any(x["error"] == "removed" for x in spoilt["annotations"])
    for error, share in SHARES.items():
        assert numbers[error] / 2000 == pytest.approx(share, abs=0.03)


def test_the_same_every_time_and_nothing_unasked(records):
    assert spoil_labels(records, 3, **SHARES) == spoil_labels(records, 3, **SHARES)
    assert "error" not in records[0]["annotations"][0]
    (unspoilt, *_) = spoil_labels(records, 3)
    assert unspoilt["removed"] == []
    assert [in_xyxy(x) for x in unspoilt["annotations"]] == [
        in_xyxy(x) for x in records[0]["annotations"]
    ]


def test_what_cannot_be_is_not_called_an_error(records):
    one = [
        {**r, "annotations": [{**a, "category_id": 0} for a in r["annotations"]]} for r in records
    ]
    labels = [x for r in spoil_labels(one, 1, **SHARES) for x in r["annotations"]]
    assert {x["error"] for x in labels} == {None, "moved", "added"}
    assert {x["category_id"] for x in labels} == {0}
    # Where there is no place left, nothing is added or moved.
    full = {"bbox": [0, 0, 200, 100], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    (packed,) = spoil_labels([{**records[0], "annotations": [full] * 9}], 3, moved=0.5, added=0.5)
    assert "added" not in {x["error"] for x in packed["annotations"]}
