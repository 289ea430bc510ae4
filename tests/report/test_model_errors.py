"""The errors of detections, written down."""

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_findings import findings

from ohem_d2.report.model_errors import ModelErrors, as_model_errors, for_page
from ohem_d2.report.tide import ERRORS

CAT, DOG = 0, 1
SIZE = {"height": 80, "width": 100}
PLACE, FAR = [10.0, 10, 20, 20], [60.0, 40, 20, 20]


def record(number, *annotations):
    """Of (box, class, whether it is a region)."""
    return {
        "file_name": f"{number}.jpg",
        "image_id": f"image {number}",
        "annotations": [
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": k,
                "iscrowd": int(crowd),
                "id": 70 + i,
            }
            for i, (box, k, crowd) in enumerate(annotations)
        ],
        **SIZE,
    }


@pytest.fixture
def dataset():
    name = "errors of detections"
    MetadataCatalog.get(name).set(
        thing_classes=["cat", "dog"], thing_dataset_id_to_contiguous_id={7: CAT, 3: DOG}
    )
    yield name
    MetadataCatalog.remove(name)


RECORDS = [
    record(0, ([0.0, 0, 30, 8], CAT, True), (PLACE, CAT, False), (FAR, DOG, False)),
    record(1, (PLACE, CAT, False)),
]
FOUND = [
    findings(RECORDS[0], [(FAR, CAT, 0.6), (PLACE, CAT, 0.9), ([0, 0, 20, 8], CAT, 0.5)]),
    findings(RECORDS[1], []),
]


def test_by_hand(dataset):
    result = as_model_errors(RECORDS, FOUND, dataset)
    right, confused, ignored = result["annotations"]
    assert right == {
        "id": 1, "image_id": 1, "category_id": 7, "bbox": PLACE, "area": 400.0, "iscrowd": 0,
        "score": 0.9, "error_type": None, "is_ignored": False, "iou": 1.0, "label": 2,
        "labels_of_other_classes": [],
    }  # fmt: skip
    assert (confused["error_type"], confused["label"]) == ("Cls", 3)
    assert confused["labels_of_other_classes"] == [3]
    assert (ignored["error_type"], ignored["is_ignored"], ignored["label"]) == ("Bkg", True, None)
    crowd, first, _, last = result["labels"]
    assert first == {
        "id": 2, "image_id": 1, "category_id": 7, "bbox": PLACE, "iscrowd": 0, "label_index": 1,
        "label_id": 71, "error_type": None,
    }  # fmt: skip
    assert (crowd["iscrowd"], crowd["error_type"]) == (1, None)
    assert (last["image_id"], last["label_index"], last["error_type"]) == (2, 0, "Miss")
    cat, dog = result["categories"]
    assert (cat["name"], cat["id"], cat["labels"]) == ("cat", 7, 2)
    assert cat["numbers"] == {"Cls": 1, "Loc": 0, "Both": 0, "Dupe": 0, "Bkg": 1, "Miss": 1}
    assert cat["ap50"] == pytest.approx(100 * 51 / 101)
    assert cat["costs"]["Miss"] == pytest.approx(100 - cat["ap50"])
    assert (dog["ap50"], dog["costs"]["Cls"]) == (0, 100)
    assert result["info"]["ap50"] == pytest.approx(cat["ap50"] / 2)
    assert list(result["info"]["costs"]) == list(ERRORS)
    assert result["info"]["costs"]["Cls"] == pytest.approx(50)


def test_ap_is_that_of_pycocotools(dataset):
    """Of random detections with scores of their own; in each class is a label."""
    random = np.random.default_rng(0)

    def boxes(number):
        corners = random.random((number, 2)) * 50
        return np.column_stack([corners, 10 + random.random((number, 2)) * 30]).tolist()

    records, found = [], []
    for i in range(20):
        truth = boxes(6)
        records.append(record(i, *((b, j % 2, j == 5) for j, b in enumerate(truth))))
        near = [(np.array(b) + random.normal(0, 2, 4)).tolist() for b in truth + truth]
        found.append(findings(records[-1], [(b, i % 2, random.random()) for b in near + boxes(3)]))
    result = as_model_errors(records, found, dataset)
    truth = COCO()
    truth.dataset = {**result, "annotations": [{**x, "area": 1.0} for x in result["labels"]]}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(result["annotations"]), "bbox")
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, -1].mean(axis=0) * 100
    in_file = {x["id"]: x["ap50"] for x in result["categories"]}
    assert [in_file[k] for k in evaluation.params.catIds] == pytest.approx(precision.tolist())
    assert 10 < result["info"]["ap50"] < 90


def test_the_page_has_the_surest(dataset):
    result = as_model_errors(RECORDS, FOUND, dataset)
    of_page = for_page(result, most=1)
    assert of_page["detections"] == [[1, 7, 0.9, PLACE, "", 0, []]]
    assert of_page["left_out"] == 1  # what lies in a crowd is none that counts
    assert of_page["labels"] == [[1, 7, PLACE, False], [1, 3, FAR, False], [2, 7, PLACE, True]]
    assert for_page(result, most=9)["detections"][1] == [1, 7, 0.6, FAR, "Cls", 1, [1]]


def test_nothing_found_and_nothing_labelled(dataset):
    empty = record(0)
    result = as_model_errors([empty], [findings(empty, [])], dataset)
    assert (result["annotations"], result["labels"]) == ([], [])
    assert result["info"]["ap50"] == 0


def test_image_by_image_is_all_at_once(dataset):
    """Also where a later image changes the ids: numbers count only if all are numbers."""
    records = [{**RECORDS[0], "image_id": 40}, {**RECORDS[1], "image_id": "b"}]
    errors = ModelErrors(dataset)
    for n in (1, 2):
        errors.add(records[n - 1], FOUND[n - 1])
        assert errors.result() == as_model_errors(records[:n], FOUND[:n], dataset)
        assert {x["image_id"] for x in errors.result()["labels"]} == ({40}, {1, 2})[n - 1]
