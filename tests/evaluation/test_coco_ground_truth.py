"""What is evaluated by is the user's own file, and perfect detections score 100."""

import contextlib
import io
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_data import HEIGHT, WIDTH, write_coco, write_image, write_voc

from ohem_d2.data import register_by_name
from ohem_d2.evaluation.evaluators import build_evaluator

BOXES = [("dog", [5, 5, 20, 30]), ("cat", [40, 10, 30.123456, 40]), ("dog", [30, 30, 12, 9])]
SIGMAS = [0.08, 0.1]


def coco(folder, images=None, change=lambda content: None, **fields):
    write_coco(folder, images or {"a.jpg": BOXES, "b.jpg": BOXES[:1]}, {3: "dog", 7: "cat"})
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation.update(fields)
    change(content)
    file.write_text(json.dumps(content))
    return f"coco://{file}?images={folder}/images"


def perfect(record, by=(0.0, 0.0, 0.0, 0.0), scores=None):
    """Detections of all objects, moved a bit."""
    annotations = [a for a in record["annotations"] if not a.get("iscrowd")]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    found = Instances((record["height"], record["width"]))
    found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4) + torch.tensor(by))
    found.pred_classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.long)
    found.scores = torch.linspace(1, 0.5, len(boxes)) if scores is None else scores[: len(boxes)]
    if annotations and all("keypoints" in a for a in annotations):
        points = torch.tensor([a["keypoints"] for a in annotations]).reshape(len(boxes), -1, 3)
        points[:, :, 0] += by[0]
        points[:, :, 2] = 1.0
        found.pred_keypoints = points
    return found


def evaluate(name, folder, **how):
    evaluator = build_evaluator(name, folder / "out", SIGMAS)
    evaluator.reset()
    detections = []
    for record in DatasetCatalog.get(name):
        found = perfect(record, **how)
        detections.append((record["image_id"], found))
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate(), detections


def by_pycocotools(file, detections, kind, ids):
    results = []
    for image_id, found in detections:
        for k in range(len(found)):
            x0, y0, x1, y1 = found.pred_boxes.tensor[k].tolist()
            result = {
                "image_id": image_id,
                "category_id": ids[found.pred_classes[k]],
                "score": float(found.scores[k]),
            }
            if kind == "keypoints":
                points = found.pred_keypoints[k] - torch.tensor([0.5, 0.5, 0.0])
                result["keypoints"] = points.flatten().tolist()
            else:
                result["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats * 100


@pytest.mark.parametrize("by", [(0.0,) * 4, (2.0, 1.0, -1.0, 3.0), (1.5, 0.0, 1.5, 0.0)])
def test_pycocotools_say_the_same_of_the_users_file(tmp_path, by):
    def change(content):
        for i, annotation in enumerate(content["annotations"]):
            x, y, w, h = annotation["bbox"]
            annotation["area"] = w * h * (5 if i % 2 else 0.3)  # as of an outline, and of nothing
            annotation["id"] = 100 + 7 * i
            annotation["keypoints"] = [x + 2, y + 2, 2, x + w - 3, y + h - 3, 1]
            annotation["num_keypoints"] = 2
        content["annotations"][2].update(iscrowd=1, area=9)
        content["categories"][0]["keypoints"] = ["left", "right"]
        content["categories"][1]["keypoints"] = ["left", "right"]

    address = coco(tmp_path, change=change)
    register_by_name([address], [])
    for _ in range(2):  # and nothing moves from one evaluation to the next
        found, detections = evaluate(address, tmp_path, by=by)
        file = str(tmp_path / "annotations.json")
        expected = by_pycocotools(file, detections, "bbox", [3, 7])
        names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
        for name, value in zip(names, expected):
            assert found["bbox"][name] == pytest.approx(
                value if value >= 0 else np.nan, nan_ok=True
            )
        expected = by_pycocotools(file, detections, "keypoints", [3, 7])
        for name, value in zip(["AP", "AP50", "AP75"], expected):
            assert found["keypoints"][name] == pytest.approx(value)
    assert by != (0.0,) * 4 or found["bbox"]["AP"] == pytest.approx(100)


def test_the_file_that_is_evaluated_by_differs_in_what_was_repaired_alone(tmp_path):
    def change(content):
        content["annotations"][0].update(iscrowd="0", area=5)
        content["annotations"][1].update(iscrowd=None, area=None)
        content["images"][1].update(width=0, height=None)

    address = coco(tmp_path, change=change)
    register_by_name([address], [])
    evaluate(address, tmp_path)
    (file,) = (tmp_path / "out" / "inference").glob("*_annotations.json")
    written = json.loads(file.read_text())
    own = json.loads((tmp_path / "annotations.json").read_text())
    for ours, theirs in zip(written["annotations"], own["annotations"]):
        assert ours["bbox"] == theirs["bbox"]
        assert ours["id"] == theirs["id"]
        assert ours["iscrowd"] == 0
    assert written["annotations"][0]["area"] == 5
    assert written["annotations"][1]["area"] == pytest.approx(30.123456 * 40)
    assert [(x["width"], x["height"]) for x in written["images"]] == [(WIDTH, HEIGHT)] * 2


def test_detections_are_left_as_they_are(tmp_path):
    def change(content):
        content["categories"][0]["keypoints"] = content["categories"][1]["keypoints"] = ["a", "b"]

    address = coco(tmp_path, change=change, keypoints=[9, 9, 2, 12, 9, 2], num_keypoints=2)
    register_by_name([address], [])
    _, detections = evaluate(address, tmp_path)
    assert detections[0][1].pred_keypoints[0, 0, :2].tolist() == [9.5, 9.5]


# -------------------------------------------------------------- perfect detections, in all formats


def many_objects(tmp_path):
    boxes = [("dog", [5 * (k % 15), 5 * (k // 15), 4, 4]) for k in range(130)]
    return coco(tmp_path, {"a.jpg": boxes, "b.jpg": BOXES})


def runs(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[10:30, 10:30] = 1
    rle = mask_util.encode(mask)
    outline = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
    return coco(tmp_path, segmentation=outline)


def as_stored(tmp_path):
    address = coco(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(tmp_path / "images" / name) as image:
            image.load()
        image.save(tmp_path / "images" / name, exif=exif)
    return address


def an_entry_for_each_box(tmp_path):
    def change(content):
        content["images"] = [
            {"id": a["id"], "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
            for a in content["annotations"]
        ]
        for annotation in content["annotations"]:
            annotation["image_id"] = annotation["id"]

    return coco(tmp_path, change=change)


def bad_boxes(tmp_path):
    return coco(tmp_path, {"a.jpg": [*BOXES, ("dog", [5, 5, 0, 9]), ("cat", [500, 5, 9, 9])]})


def ids_from_0(tmp_path):
    def change(content):
        for annotation in content["annotations"]:
            annotation["id"] -= 1

    return coco(tmp_path, change=change)


def ids_in_texts(tmp_path):
    def change(content):
        for annotation in content["annotations"]:
            annotation.update(id=f"object {annotation['id']}", image_id=str(annotation["image_id"]))

    return coco(tmp_path, change=change)


def crowds(tmp_path):
    return coco(tmp_path, change=lambda c: c["annotations"][1].update(iscrowd=1))


def voc(tmp_path):
    objects = [("dog", (6, 6, 25, 35), ""), ("cat", (41, 11, 70, 50), "")]
    write_voc(tmp_path, {"a": objects, "b": objects[:1], "c": []})
    return f"voc://{tmp_path}?split=trainval"


def voc_in_parts_of_pixels(tmp_path):
    objects = [("dog", (6.4, 6.6, 9.5, 10.5), ""), ("cat", (41.3, 11.7, 45.6, 14.2), "")]
    write_voc(tmp_path, {"a": objects, "b": objects[:1]})
    return f"voc://{tmp_path}?split=trainval"


def yolo(tmp_path):
    for i in range(3):
        write_image(tmp_path / "images" / "train" / f"{i}.jpg", seed=i)
        (tmp_path / "labels" / "train").mkdir(parents=True, exist_ok=True)
        label = "0 0.5 0.5 0.25 0.4\n1 0.2 0.3 0.1 0.2\n" * (i > 0)
        (tmp_path / "labels" / "train" / f"{i}.txt").write_text(label)
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [dog, cat]\n")
    return f"yolo://{tmp_path}/data.yaml?split=train"


def cvat(tmp_path):
    write_image(tmp_path / "images" / "a.jpg")
    box = '<box label="dog" xtl="5" ytl="6" xbr="30" ybr="40" occluded="0"/>'
    (tmp_path / "annotations.xml").write_text(
        f'<annotations><image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">{box}'
        "</image></annotations>"
    )
    return f"cvat://{tmp_path}/annotations.xml"


def labelme(tmp_path):
    write_image(tmp_path / "a.jpg")
    shape = {"label": "dog", "shape_type": "rectangle", "points": [[5, 6], [30, 40]]}
    content = {"imagePath": "a.jpg", "imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": [shape]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    return f"labelme://{tmp_path}"


@pytest.mark.parametrize(
    "write",
    [coco, many_objects, runs, as_stored, an_entry_for_each_box, bad_boxes, ids_from_0,
     ids_in_texts, crowds, voc, voc_in_parts_of_pixels,
     yolo, cvat, labelme],
)  # fmt: skip
def test_perfect_detections_score_100(tmp_path, write):
    address = write(tmp_path)
    register_by_name([], [address])
    results, _ = evaluate(address, tmp_path)
    assert results["bbox"]["AP"] == pytest.approx(100)


def test_more_objects_than_cocos_metric_takes_are_said(tmp_path, caplog):
    address = many_objects(tmp_path)
    register_by_name([], [address])
    evaluate(address, tmp_path)
    words = "has 130 objects: as many detections of an image are evaluated, where COCO's metric"
    assert any(words in r.message for r in caplog.records)
