"""Parts of a model that are the user's own and give what Detectron2 cannot take."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_model
from detectron2.modeling.backbone import FPN
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from small_models import SHRINK_OPTS
from torch.nn.modules import module as torchs

from ohem_d2 import OHEMROIHeads
from ohem_d2.errors import InputError
from ohem_d2.training.config_file import load_config
from ohem_d2.training.part_outputs import KEYS, LAZY_KEYS, check_outputs_once

FASTER_RCNN = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"


def with_change(kind, change):
    class Own(kind):
        def forward(self, *args, **kwargs):
            return change(super().forward(*args, **kwargs))

    return Own


def model_with(name, kind, change):
    cfg = load_config(FASTER_RCNN, [*SHRINK_OPTS, "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    model = build_model(cfg)
    part = getattr(model, name)
    if kind is OHEMROIHeads:
        part = OHEMROIHeads(cfg, model.backbone.output_shape())
        model.roi_heads = part
    part.__class__ = with_change(kind, change)
    return model


def run(model):
    instances = Instances(
        (64, 64), gt_boxes=Boxes([[8.0, 8, 40, 40]]), gt_classes=torch.zeros(1).long()
    )
    image = {"image": torch.zeros(3, 64, 64), "instances": instances, "height": 64, "width": 64}
    with EventStorage():
        return model([image])


def swapped(given):
    return given[::-1]


@pytest.mark.parametrize("keys", [KEYS, LAZY_KEYS])
@pytest.mark.parametrize(
    ("name", "kind", "change", "training", "words"),
    [
        ("roi_heads", StandardROIHeads, swapped, True, "a tuple of dict, list"),
        ("roi_heads", OHEMROIHeads, swapped, True, "a tuple of dict, list"),
        ("roi_heads", OHEMROIHeads, lambda x: x[1], True, "a dict of 'loss_cls': "),
        ("roi_heads", StandardROIHeads, lambda x: None, True, "None"),
        ("roi_heads", StandardROIHeads, swapped, False, "a tuple of dict, list"),
        ("roi_heads", StandardROIHeads, lambda x: x[0], False, "a list of Instances"),
        ("proposal_generator", RPN, swapped, True, "a tuple of dict, list"),
        ("proposal_generator", RPN, lambda x: x[0], False, "a list of Instances"),
        (
            "backbone",
            FPN,
            lambda x: [*x.values()],
            True,
            "a list of Tensor, Tensor",
        ),
        ("backbone", FPN, lambda x: None, False, "None"),
    ],
)
def test_what_is_not_what_detectron2_takes(name, kind, change, training, words, keys):
    model = model_with(name, kind, change).train(training)
    check_outputs_once(model, keys)
    message = rf"^{keys[name]} \(test_part_outputs\.with_change.*Own\) gives {words}.*, expected a "
    with pytest.raises(InputError, match=message):
        run(model)
    assert not torchs._global_forward_hooks


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("roi_heads", OHEMROIHeads), ("proposal_generator", RPN), ("backbone", FPN)],
)
def test_what_is_as_it_should_be(name, kind, training):
    model = model_with(name, kind, lambda x: x).train(training)
    check_outputs_once(model, KEYS)
    assert len(torchs._global_forward_hooks) == 1
    run(model)
    assert not torchs._global_forward_hooks
    if training and name == "roi_heads":  # nothing reads what stands beside the losses
        model = model_with(name, kind, lambda x: (None, x[1]))
        check_outputs_once(model, KEYS)
        run(model)


class _Backbone(Backbone):
    """Says of its maps what it is told to."""

    def __init__(self, strides, shown, padding):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.Conv2d(3, 64, 3, stride, padding) for stride in strides.values()
        )
        self.strides, self.shown = strides, shown

    def forward(self, x):
        return {name: layer(x) for name, layer in zip(self.strides, self.layers)}

    def output_shape(self):
        return {name: ShapeSpec(channels=64, stride=x) for name, x in self.shown.items()}


STRIDES = {"p2": 4, "p3": 8}


@pytest.mark.parametrize("padding", [0, 1])
def test_strides_that_are_as_it_says(padding):
    backbone = _Backbone(STRIDES, STRIDES, padding)
    model = model_with("roi_heads", StandardROIHeads, lambda x: x)
    model.backbone = backbone
    check_outputs_once(model, KEYS)
    assert [*backbone(torch.zeros(2, 3, 100, 132))] == ["p2", "p3"]
    assert len(torchs._global_forward_hooks) == 1  # of the heads, which were not called yet
    torchs._global_forward_hooks.clear()


@pytest.mark.parametrize("in_fpn", [False, True])
@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({"p2": 2, "p3": 4}, "'p2' of 32 x 48 .* 128 x 192 .* stride is 2, expected about 4"),
        ({"p2": 4, "p3": 4}, "'p3' of 16 x 24 cells .* the stride is 4, expected about 8"),
        ({"p2": 4, "p3": 16}, "'p3' of 16 x 24 cells .* the stride is 16, expected about 8"),
    ],
)
def test_strides_that_are_others(shown, words, in_fpn):
    backbone = _Backbone(STRIDES, shown, 1)
    model = model_with("roi_heads", StandardROIHeads, lambda x: x)
    if in_fpn:
        model.backbone.bottom_up = backbone
    else:
        model.backbone = backbone
    check_outputs_once(model, KEYS)
    message = rf"^MODEL.BACKBONE.NAME \(test_part_outputs._Backbone\) gives {words}"
    with pytest.raises(InputError, match=message):
        backbone(torch.zeros(2, 3, 128, 192))


def test_a_stride_that_is_another_is_seen_in_small_images():
    backbone = _Backbone({"out": 16}, {"out": 8}, 1)
    model = model_with("roi_heads", StandardROIHeads, lambda x: x)
    model.backbone = backbone
    check_outputs_once(model, KEYS)
    with pytest.raises(InputError, match="the stride is 8, expected about 16"):
        backbone(torch.zeros(1, 3, 96, 96))


def test_a_loss_that_is_no_tensor():
    model = model_with("roi_heads", OHEMROIHeads, lambda x: (x[0], {**x[1], "loss_mine": 0.0}))
    check_outputs_once(model.train(), KEYS)
    with pytest.raises(InputError, match=r"gives 0.0 as 'loss_mine', expected .* tensors of one"):
        run(model)


def in_parts_of_the_sides(proposals):
    for x in proposals[0]:
        x.proposal_boxes.tensor = x.proposal_boxes.tensor / 64
    return proposals


def without_scores(proposals):
    for x in proposals[0]:
        x.remove("objectness_logits")
    return proposals


def with_tensors(proposals):
    for x in proposals[0]:
        x.proposal_boxes = x.proposal_boxes.tensor
    return proposals


def counted_from_1(detections):
    for x in detections[0]:
        x.pred_classes = x.pred_classes * 0 + 80
    return detections


def with_nan(maps):
    return {
        name: x * (x.new_tensor(float("nan")) if name == "p3" else 1) for name, x in maps.items()
    }


@pytest.mark.parametrize(
    ("name", "kind", "change", "words"),
    [
        ("backbone", FPN, with_nan, "NaN or infinite numbers in 'p3', expected finite ones"),
        ("proposal_generator", RPN, in_parts_of_the_sides, "proposal_boxes of which no coordinate"),
        ("proposal_generator", RPN, without_scores, "Instances with .* expected objectness_logits"),
        (
            "proposal_generator",
            RPN,
            with_tensors,
            "proposal_boxes that are a Tensor, expected Boxe",
        ),
        ("roi_heads", OHEMROIHeads, counted_from_1, "pred_classes of 80, expected 0 to 79, of 80"),
    ],
)
def test_values_that_would_be_misread(name, kind, change, words):
    model = model_with(name, kind, change).eval()
    if name == "roi_heads":
        for predictor in model.roi_heads._predictors():
            predictor.test_score_thresh = 0.0
    check_outputs_once(model, KEYS)
    with pytest.raises(InputError, match=rf"^{KEYS[name]} \(.*Own\) gives {words}"):
        run(model)


def test_models_of_detectron2s_alone_are_not_looked_at():
    model = model_with("roi_heads", StandardROIHeads, lambda x: x)
    model.roi_heads.__class__ = StandardROIHeads
    check_outputs_once(model, KEYS)
    assert not torchs._global_forward_hooks
