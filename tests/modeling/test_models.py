"""Whole models, small ones, with the settings that their users combine with mining."""

import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, RotatedBoxes
from detectron2.utils.testing import assert_instances_allclose, reload_script_model
from small_models import (
    BUDGET,
    SHRINK_OPTS,
    SIZE,
    ZOO,
    assert_same_inference,
    assert_same_step,
    build,
    build_from,
    make_inputs,
    step,
)
from torch import Tensor

from ohem_d2.training.config_file import load_config

FASTER = ZOO / "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
MASK = ZOO / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
C4 = ZOO / "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
CASCADE = ZOO / "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
KEYPOINTS = ZOO / "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"

MetadataCatalog.get("test_of_the_federated_loss").set(
    class_image_count=[{"id": i + 1, "image_count": i + 1} for i in range(80)]
)
BOX_HEAD = "MODEL.ROI_BOX_HEAD"
SETTINGS = {
    "all of the backbone learns": ("MODEL.BACKBONE.FREEZE_AT", 0),
    "most of the backbone is frozen": ("MODEL.BACKBONE.FREEZE_AT", 5),
    "train on predicted boxes": (f"{BOX_HEAD}.TRAIN_ON_PRED_BOXES", True),
    "no ground truth among the RoIs": ("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", False),
    "class-agnostic boxes": (f"{BOX_HEAD}.CLS_AGNOSTIC_BBOX_REG", True),
    "sigmoid loss": (f"{BOX_HEAD}.USE_SIGMOID_CE", True),
    # Which classes count is drawn at random; here all of them do, the background being one, so
    # that steps can be compared.
    "federated loss": (
        *(f"{BOX_HEAD}.USE_SIGMOID_CE", True, f"{BOX_HEAD}.USE_FED_LOSS", True),
        *(f"{BOX_HEAD}.FED_LOSS_NUM_CLASSES", 81),
        *("DATASETS.TRAIN", ("test_of_the_federated_loss",)),
    ),
    "GIoU loss": (f"{BOX_HEAD}.BBOX_REG_LOSS_TYPE", "giou", f"{BOX_HEAD}.BBOX_REG_LOSS_WEIGHT", 2),
    "batch normalization": (
        *("MODEL.RESNETS.NORM", "BN", "MODEL.FPN.NORM", "BN"),
        *(f"{BOX_HEAD}.NAME", "FastRCNNConvFCHead", f"{BOX_HEAD}.NUM_CONV", 1),
        *(f"{BOX_HEAD}.NUM_FC", 1, f"{BOX_HEAD}.NORM", "SyncBN"),
    ),
}


def pair(path, *opts, everything=False):
    """A mining model, a plain one with the same weights, and inputs."""
    torch.manual_seed(0)
    opts = [str(x) for x in opts]
    model = build(path, mining=True, everything=everything, opts=opts)
    plain = build(path, mining=False, everything=everything, opts=opts)
    loaded = model.load_state_dict(plain.state_dict())
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys
    return model, plain, make_inputs(model, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("path", [MASK, CASCADE, C4], ids=lambda p: p.stem)
@pytest.mark.parametrize("name", SETTINGS)
def test_settings(path, name):
    if path == C4 and name == "batch normalization":
        pytest.skip("for batch normalization, C4 models have no box head apart from the backbone")
    if path == CASCADE and name == "class-agnostic boxes":
        pytest.skip("a cascade's boxes always are")
    model, plain, inputs = pair(path, *SETTINGS[name], everything=True)
    assert_same_step(model, plain, inputs)
    model, plain, inputs = pair(path, *SETTINGS[name])
    seen = []
    model.roi_heads.observers.append(seen.append)
    losses = step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    assert [len(x) for x in seen[0]] == [BUDGET // 2, BUDGET // 2]
    model.load_state_dict(plain.state_dict())
    assert_same_inference(model, plain, inputs)


def test_the_federated_loss_draws_classes():
    opts = *SETTINGS["federated loss"], f"{BOX_HEAD}.FED_LOSS_NUM_CLASSES", 20
    model, _, inputs = pair(MASK, *opts)
    assert all(loss.isfinite() for loss in step(model, inputs).values())


def test_frozen_layers_stay_as_they_are():
    model, plain, inputs = pair(MASK, "MODEL.BACKBONE.FREEZE_AT", 3)
    sum(step(model, inputs).values()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    changed = {
        n for (n, p), q in zip(model.named_parameters(), plain.parameters()) if (p != q).any()
    }
    assert not any("stem" in n or "res2" in n or "res3" in n for n in changed)
    assert any("res4" in n for n in changed)
    assert any("roi_heads.box_head" in n for n in changed)


def test_gradients_are_clipped():
    cfg = load_config(str(FASTER), SHRINK_OPTS)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1e-3
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY = 1.0, 0.0, 0.0
    model, plain, inputs = pair(FASTER)
    optimizer = build_optimizer(cfg, model)
    sum(step(model, inputs).values()).backward()
    optimizer.step()
    moved = [(p - q).norm().item() for p, q in zip(model.parameters(), plain.parameters())]
    assert 0.9e-3 < max(moved) <= 1.1e-3


def test_rotated_boxes():
    torch.manual_seed(0)
    cfg = load_config(
        str(FASTER),
        [
            *SHRINK_OPTS,
            *("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "MODEL.RPN.HEAD_NAME", "StandardRPNHead"),
            *("MODEL.RPN.BBOX_REG_WEIGHTS", "(1,1,1,1,1)"),
            *("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
            *("MODEL.ANCHOR_GENERATOR.ANGLES", "[[-45,0,45]]"),
            *("MODEL.ROI_HEADS.NAME", "RROIHeads"),
            *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
            *("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(10,10,5,5,1)"),
        ],
    )
    models = []
    for mining in (True, False):
        models.append(build_from(cfg.clone(), mining, everything=True))
    model, plain = models
    model.load_state_dict(plain.state_dict())
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    for x in inputs:
        x0, y0, x1, y1 = x["instances"].gt_boxes.tensor.unbind(1)
        boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, x0], dim=1)
        x["instances"].gt_boxes = RotatedBoxes(boxes)
        del x["proposals"]
    assert_same_step(model, plain, inputs)


def test_point_rend():
    """A project of Detectron2's, whose heads are parts of StandardROIHeads."""
    torch.manual_seed(0)
    cfg = get_cfg()
    add_pointrend_config(cfg)
    cfg.merge_from_file(str(MASK))
    cfg.merge_from_list(SHRINK_OPTS)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "PointRendMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""
    cfg.MODEL.ROI_MASK_HEAD.FC_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION = 7
    cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON = True
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.MODEL.POINT_HEAD.IN_FEATURES = ["p2"]
    model = build_from(cfg.clone(), mining=True)
    plain = build_from(cfg.clone(), mining=False)
    model.load_state_dict(plain.state_dict())
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    for x in inputs:
        polygons = x["instances"].gt_masks.polygons
        x["instances"].gt_masks = BitMasks.from_polygon_masks(polygons, SIZE, SIZE)
    losses = step(model, inputs)
    assert {"loss_mask", "loss_mask_point", "loss_cls"} <= losses.keys()
    assert all(loss.isfinite() for loss in losses.values())
    model.load_state_dict(plain.state_dict())
    torch.manual_seed(0)
    assert_same_inference(model, plain, inputs)


@pytest.mark.parametrize("path", [FASTER, MASK, C4, CASCADE], ids=lambda p: p.stem)
def test_test_time_augmentation(path):
    model, plain, inputs = pair(path)
    cfg = load_config(str(path), SHRINK_OPTS)
    cfg.TEST.AUG.MIN_SIZES = (48, 64)
    results = []
    for m in (model.eval(), plain.eval()):
        with torch.no_grad():
            results.append(GeneralizedRCNNWithTTA(cfg, m)(copy.deepcopy(inputs))[0]["instances"])
    assert len(results[0]) > 0
    assert_instances_allclose(results[0], results[1], rtol=0)


IMAGE = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize("path", [FASTER, MASK, C4], ids=lambda p: p.stem)
def test_scripting(path):
    """Detectron2 itself scripts these; its cascades and keypoints it cannot."""
    model, _, _ = pair(path)
    fields = {"proposal_boxes": Boxes, "objectness_logits": Tensor, "pred_boxes": Boxes,
              "scores": Tensor, "pred_classes": Tensor, "pred_masks": Tensor}  # fmt: skip
    scripted = reload_script_model(scripting_with_instances(model.eval(), fields))
    inputs = [{"image": IMAGE}, {"image": IMAGE[:, :64, :80]}]
    with torch.no_grad():
        for a, b in zip(*(m.inference(inputs, do_postprocess=False) for m in (model, scripted))):
            assert_instances_allclose(a, b)
    # The eager model still trains.
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    assert all(loss.isfinite() for loss in step(model, inputs).values())


@pytest.mark.parametrize("path", [FASTER, MASK, C4, CASCADE, KEYPOINTS], ids=lambda p: p.stem)
def test_tracing(path):
    model, _, _ = pair(path)

    def infer(m, image):
        return m.inference([{"image": image}], do_postprocess=False)[0]

    adapter = TracingAdapter(model, IMAGE, infer).eval()
    with torch.no_grad():
        traced = torch.jit.trace(adapter, (IMAGE[:, :80, :64],))
        found = adapter.outputs_schema(traced(IMAGE))
        assert_instances_allclose(infer(model, IMAGE), found, size_as_tensor=True)
