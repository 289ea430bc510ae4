from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.events import EventStorage
from mined_rois import set_options
from small_data import write_voc
from small_models import SHRINK_OPTS

from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.mining.error_types import ERROR_TYPES
from ohem_d2.report.hard_examples import (
    _one_of_each,
    build_mapper,
    check_model,
    look_at,
    with_background,
)
from ohem_d2.training.config_file import load_config

FPN, C4, CASCADE, FAST = (
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml",
)
MINING = {C4: "OHEMRes5ROIHeads", CASCADE: "OHEMCascadeROIHeads"}
OBJECTS = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_voc(tmp_path / "voc", {"one": OBJECTS, "none": []})
    return "voc://voc?split=trainval"


def model_and_image(name, data, image=0, **settings):
    opts = {"MODEL.ROI_HEADS.NAME": MINING.get(name, "OHEMROIHeads"), "DATASETS.TEST": data}
    opts = {**opts, "INPUT.MIN_SIZE_TEST": 64, "MODEL.LOAD_PROPOSALS": False, **settings}
    cfg = load_config(name, [*SHRINK_OPTS, *(str(x) for pair in opts.items() for x in pair)])
    register_datasets(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    record = DatasetCatalog.get(data)[image]
    return model, record, build_mapper(cfg)(record)


@pytest.mark.parametrize("name", [FPN, C4, CASCADE])
def test_examples_are_what_training_mines(name, data):
    model, record, x = model_and_image(name, data)
    model.backbone.eval()
    before = [m.training for m in model.modules()]
    findings = look_at(model, x)
    examples = findings.hard_examples
    assert examples
    assert [m.training for m in model.modules()] == before

    # The same by hand: all that training would mine of the whole budget, as the heads see it in the
    # small image.
    set_options(model.roi_heads, hard_fraction=1.0)
    model.eval()
    model.proposal_generator.train()
    with EventStorage(), torch.no_grad():
        images, targets = model.preprocess_image([x]), [x["instances"]]
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features, targets)

        def forward(self, features):  # as Detectron2's forward calls it
            return self.label_and_sample_proposals(proposals, targets)

        model.roi_heads.mines_without_gradients = True
        (mined,) = forward(model.roi_heads, features)
    losses = {round(v, 4) for v in (mined.ohem_loss_cls + mined.ohem_loss_box_reg).tolist()}
    assert {round(e.loss, 4) for e in examples} <= losses
    assert [e.loss for e in examples] == sorted((e.loss for e in examples), reverse=True)
    scale = record["width"] / x["instances"].image_size[1]
    assert scale != 1
    boxes = (mined.proposal_boxes.tensor * scale).tolist()
    for e in examples:
        nearest = min(max(abs(a - b) for a, b in zip(e.box, box)) for box in boxes)
        assert nearest < 1  # the height is scaled by a little less, rounded to pixels
        assert e.error_type in ERROR_TYPES[:-1]
        assert 0 <= e.score <= 1
        assert (e.true_class is None) == (e.error_type == "look-alike")
        assert (e.predicted_class is None) == (e.error_type == "missed object")
        assert (e.predicted_box is None) == (e.predicted_class is None)
    check_labels_and_detections(findings, record)


def check_labels_and_detections(findings, record):
    """In pixels of the file; as the model is not trained, nothing is known of the detections."""
    boxes = [
        BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in record["annotations"]
    ]
    np.testing.assert_allclose(findings.label_boxes, boxes, atol=0.01)
    assert findings.label_classes.tolist() == [a["category_id"] for a in record["annotations"]]
    assert findings.label_probs.shape == findings.seen_probs.shape == (len(boxes),)
    assert (findings.label_probs <= findings.seen_probs).all()
    is_right = findings.seen_classes == findings.label_classes
    assert (findings.label_probs == findings.seen_probs).tolist() == is_right.tolist()
    assert findings.num_classes >= findings.seen_classes.max()
    number = len(findings.scores)
    assert findings.boxes.shape == (number, 4)
    assert findings.classes.shape == (number,)
    assert (np.diff(findings.scores) <= 0).all()


def test_sigmoid_losses(data):
    model, _, x = model_and_image(FPN, data, **{"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True})
    findings = look_at(model, x)
    assert findings.hard_examples
    background = findings.seen_classes == findings.num_classes
    assert (findings.seen_probs[~background] >= 0.5).all()


def test_crowds_are_no_objects(data):
    model, record, _ = model_and_image(FPN, data)
    crowd = {"bbox": [5, 6, 10, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1}
    cfg = load_config(FPN, [*SHRINK_OPTS, "INPUT.MIN_SIZE_TEST", "64"])
    annotations = [*record["annotations"], crowd]
    x = build_mapper(cfg)({**record, "annotations": annotations})
    assert x["regions"].tolist() == [[5, 6, 15, 26]]
    assert x["region_positions"].tolist() == [len(OBJECTS)]
    findings = look_at(model, x)
    assert findings.regions.tolist() == [[5, 6, 15, 26]]
    assert len(findings.label_classes) == len(OBJECTS)


def test_labels_are_known_by_their_positions_among_all_annotations(data):
    model, record, _ = model_and_image(FPN, data)
    box = {"bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    crowd = {"bbox": [5, 6, 10, 20], "iscrowd": 1, **box}
    outside = {"bbox": [900, 900, 10, 10], **box}  # of which nothing is left
    first, second = record["annotations"]
    cfg = load_config(FPN, [*SHRINK_OPTS, "INPUT.MIN_SIZE_TEST", "64"])
    x = build_mapper(cfg)({**record, "annotations": [crowd, first, outside, second]})
    findings = look_at(model, x)
    assert findings.label_positions.tolist() == [1, 3]
    assert findings.label_classes.tolist() == [first["category_id"], second["category_id"]]
    of_classes = {a["category_id"]: i for i, a in ((1, first), (3, second))}
    assert len(of_classes) == 2
    of_labels = [e for e in findings.hard_examples if e.true_class is not None]
    assert of_labels
    for e in findings.hard_examples:
        assert e.label == (None if e.true_class is None else of_classes[e.true_class])


@pytest.mark.parametrize("mark", ["iscrowd", "ignore", "difficult"])
def test_no_hard_example_lies_in_a_region_to_ignore(data, mark):
    region = {"bbox": [0, 0, 40, 60], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, mark: 1}
    model, record, x = model_and_image(
        FPN, data, image=1, **{"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 100}
    )
    cfg = load_config(FPN, [*SHRINK_OPTS, "INPUT.MIN_SIZE_TEST", "64"])
    cfg.INPUT.IGNORE_REGIONS.DIFFICULT = True
    crowded = build_mapper(cfg)({**record, "annotations": [region]})

    def inside(x):
        torch.manual_seed(0)  # the RPN draws anchors
        centers = [(e.box[0] + e.box[2]) / 2 for e in look_at(model, x).hard_examples]
        return sum(center < 39 for center in centers), len(centers)

    before, after = inside(x), inside(crowded)
    assert before[0] > 0
    assert after[0] == 0
    assert after[1] > 0


def test_precomputed_proposals_are_as_many_as_in_training_and_at_test_time(data):
    boxes = np.array([[5.0, 5, 25, 30], [35, 10, 60, 45], [0, 30, 30, 60]])
    cfg = load_config(FAST, [*SHRINK_OPTS, "INPUT.MIN_SIZE_TEST", "64"])
    register_datasets(load_config(FPN, ["DATASETS.TEST", data]))
    record = {
        **DatasetCatalog.get(data)[0],
        "proposal_boxes": boxes,
        "proposal_objectness_logits": np.array([3.0, 2, 1]),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }
    for numbers in ((1, 2), (2, 1)):
        for split, number in zip(("TRAIN", "TEST"), numbers):
            setattr(cfg.DATASETS, f"PRECOMPUTED_PROPOSAL_TOPK_{split}", number)
        x = build_mapper(cfg)(record)
        assert (len(x["proposals"]), len(x["test_proposals"])) == numbers


def test_boxes_that_are_not_numbers(data):
    model, _, x = model_and_image(FPN, data, image=1)
    with torch.no_grad():
        model.roi_heads.box_predictor.bbox_pred.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="Inf/NaN"):
        look_at(model, x)


def test_an_image_without_objects(data):
    model, _, x = model_and_image(FPN, data, image=1)
    findings = look_at(model, x)
    assert findings.label_boxes.shape == (0, 4)
    assert findings.hard_examples
    assert {(e.error_type, e.iou, e.true_box) for e in findings.hard_examples} == {
        ("look-alike", 0.0, None)
    }


def test_precomputed_proposals(data):
    model, _, x = model_and_image(FAST, data, **{"MODEL.LOAD_PROPOSALS": True})
    boxes = Boxes(torch.tensor([[5.0, 5, 25, 30], [35, 10, 60, 45], [0, 30, 30, 60]]))
    x["proposals"] = Instances(x["instances"].image_size, proposal_boxes=boxes)
    x["proposals"].objectness_logits = torch.zeros(3)
    x["test_proposals"] = x["proposals"][:2]
    assert 0 < len(look_at(model, x).hard_examples) <= 5  # with the ground truth


@pytest.mark.parametrize("agnostic", [False, True])
def test_detections_are_those_of_inference(data, agnostic):
    """With every score counting: what Detectron2 finds in the image, at its size."""
    settings = {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": agnostic}
    settings |= {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 50, "MODEL.RPN.POST_NMS_TOPK_TEST": 50}
    settings |= {"MODEL.RPN.PRE_NMS_TOPK_TRAIN": 50, "MODEL.RPN.PRE_NMS_TOPK_TEST": 50}
    settings |= {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01}
    model, record, x = model_and_image(FPN, data, **settings)
    with mock.patch("ohem_d2.report.hard_examples.SEEN", 0.01):
        findings = look_at(model, x)
    with torch.no_grad():
        found = model.eval().inference([x])[0]["instances"]
    assert len(found) > 5
    np.testing.assert_allclose(findings.scores, found.scores, atol=1e-5)
    inside = findings.boxes.clip(0, [record["width"], record["height"]] * 2)
    np.testing.assert_allclose(inside, found.pred_boxes.tensor, atol=1e-2)


@pytest.mark.parametrize("name", [FPN, C4, CASCADE])
def test_what_inference_detects(name, data):
    model, record, x = model_and_image(name, data)
    found = look_at(model, x).detections
    with torch.no_grad():
        size = {"height": record["height"], "width": record["width"]}
        expected = model.eval().inference([{"image": x["image"], **size}])[0]["instances"]
    assert len(expected) > 5
    corners = BoxMode.convert(torch.tensor(found.boxes), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    np.testing.assert_allclose(corners, expected.pred_boxes.tensor.double(), rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(found.classes, expected.pred_classes)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_background_by_hand():
    probs = torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.8, 0.1]])
    np.testing.assert_allclose(with_background(probs, by_sigmoid=False), probs, rtol=1e-5)
    expected = [[0.2, 0.3, 0.7], [0.9, 0.8, 0.1]]
    np.testing.assert_allclose(with_background(probs.clone(), by_sigmoid=True), expected, rtol=1e-5)


def test_one_of_each_object_and_place():
    error_types = [0, 3, 4, 1, 1, 1, 2]  # by falling loss
    mined = Instances((100, 100))
    mined.gt_classes = torch.tensor([0, 0, 1, 2, 2, 2, 1])
    mined.gt_index = torch.tensor([0, 0, 1, 0, 0, 0, 1])
    same, elsewhere = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    mined.proposal_boxes = Boxes(torch.tensor([same, same, same, same, same, elsewhere, same]))
    ious = torch.tensor([[1.0, 0.0]]).repeat(7, 1) * (mined.gt_classes < 2)[:, None]
    error_types = torch.tensor(error_types)
    chosen = _one_of_each(mined, error_types, ious, num_classes=2)
    # The missed object, not its badly placed box too; of the look-alikes at a place the first, and
    # the one elsewhere; of the second object the confused class, since "right class" is none.
    assert chosen.tolist() == [0, 3, 5, 6]

    # The first RoI hardly lies on its object, so the next one of it counts; one of background
    # nearly lies on another.
    ious[0, 0], ious[5, 1] = 0.6, 0.4
    assert _one_of_each(mined, error_types, ious, num_classes=2).tolist() == [1, 3, 6]
    assert _one_of_each(mined[3:6], error_types[3:6], ious[3:6, :0], num_classes=2).tolist() == [
        0,
        2,
    ]


def test_models_that_do_not_mine(data):
    settings = {"MODEL.ROI_HEADS.NAME": "StandardROIHeads"}
    model, *_ = model_and_image(FPN, data, **settings)
    with pytest.raises(InputError, match="StandardROIHeads, expected heads that mine"):
        check_model(model)
