"""One-stage detectors small enough to run by the hundred, and images for them."""

import copy

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import FCOS
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.utils.events import EventStorage
from small_heads import NUM_CLASSES, SIZE, make_targets
from torch import nn

LEVELS = {"p3": 8, "p4": 16}


class Pyramid(Backbone):
    """Two feature maps of an image, from one convolution each."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict(
            {name: nn.Conv2d(3, 4, stride, stride) for name, stride in LEVELS.items()}
        )

    def forward(self, x):
        return {name: layer(x) for name, layer in self.layers.items()}

    def output_shape(self):
        return {name: ShapeSpec(channels=4, stride=stride) for name, stride in LEVELS.items()}


def make_detector(kind, **kwargs):
    """Small, and with logits and boxes that differ from anchor to anchor."""
    torch.manual_seed(0)
    shapes = {"input_shape": [ShapeSpec(channels=4)] * 2, "conv_dims": [4]}
    common = {
        "backbone": Pyramid(),
        "head_in_features": [*LEVELS],
        "num_classes": NUM_CLASSES,
        "pixel_mean": [0.0] * 3,
        "pixel_std": [60.0] * 3,
    }
    if issubclass(kind, FCOS):
        head = FCOSHead(num_classes=NUM_CLASSES, **shapes)
        detector = kind(head=head, test_score_thresh=0.0, **common, **kwargs)
    else:
        detector = kind(
            head=RetinaNetHead(num_classes=NUM_CLASSES, num_anchors=3, **shapes),
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[12], [24]], aspect_ratios=[0.5, 1.0, 2.0], strides=[8, 16]
            ),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
            test_score_thresh=0.0,
            **common,
            **kwargs,
        )
    with torch.no_grad():  # as initialized, all anchors cost nearly the same
        for layer in detector.head.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.normal_(std=0.4)
        detector.head.cls_score.bias.fill_(-1.0)
    return detector


def make_inputs(seed, numbers):
    """Images with as many objects each."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.rand(3, SIZE, SIZE, generator=generator) * 255,
            "instances": make_targets(generator, number),
            "height": SIZE,
            "width": SIZE,
        }
        for number in numbers
    ]


def step(detector, inputs, iteration=0):
    """The losses of a step, and what it logged."""
    detector.train()
    torch.manual_seed(1)
    with EventStorage(iteration) as storage:
        losses = detector(copy.deepcopy(inputs))
    return losses, {k: v[0] for k, v in storage.latest().items()}


def gradients(detector, losses):
    detector.zero_grad()
    sum(losses.values()).backward()
    return [p.grad.clone() for p in detector.parameters() if p.requires_grad]
