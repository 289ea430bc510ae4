"""RoI heads small enough to run by the hundred, with features, proposals and targets for them."""

import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes
from detectron2.utils.events import EventStorage
from torch import nn

from ohem_d2 import add_ohem_config

SIZE = 64
NUM_CLASSES = 3
SHAPES = {"p2": ShapeSpec(channels=4, stride=4), "p3": ShapeSpec(channels=4, stride=8)}


# For each mining head: the head that it extends, and what sets its config apart.
FAMILIES = {
    "OHEMROIHeads": ("StandardROIHeads", {}),
    "OHEMCascadeROIHeads": ("CascadeROIHeads", {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}),
    "OHEMRes5ROIHeads": (
        "Res5ROIHeads",
        {
            "MODEL.ROI_HEADS.IN_FEATURES": ["p3"],
            "MODEL.RESNETS.RES2_OUT_CHANNELS": 1,  # res5 takes 4 channels and makes 8 of them
            "MODEL.RESNETS.WIDTH_PER_GROUP": 1,
            "MODEL.ROI_BOX_HEAD.NAME": "",
            "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
        },
    ),
    "OHEMRROIHeads": (
        "RROIHeads",
        {
            "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
            "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0, 1.0),
        },
    ),
}


def make_cfg(*opts, name="OHEMROIHeads", masks=False, keypoints=False):
    """A config of a mining head (that draws nothing at random), or of the head that it extends."""
    cfg = get_cfg()
    add_ohem_config(cfg)
    plain = dict(FAMILIES.values())
    settings = {
        "MODEL.ROI_HEADS.NAME": name,
        "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3"],
        "MODEL.ROI_HEADS.NUM_CLASSES": NUM_CLASSES,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
        "MODEL.ROI_HEADS.OHEM.HARD_FRACTION": 1.0,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 4,
        "MODEL.MASK_ON": masks,
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 4,
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 4,
        "MODEL.KEYPOINT_ON": keypoints,
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [4],
        "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 2,
        "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 4,
    }
    settings.update(FAMILIES[name][1] if name in FAMILIES else plain.get(name, {}))
    cfg.merge_from_list([x for pair in settings.items() for x in pair])
    cfg.merge_from_list(list(opts))
    return cfg


def make_heads(*opts, seed=0, **kwargs):
    torch.manual_seed(seed)
    heads = build_roi_heads(make_cfg(*opts, **kwargs), SHAPES)
    # As initialized, all RoIs cost nearly the same; a trained head tells them apart.
    predictors = heads.box_predictor
    with torch.no_grad():
        for predictor in predictors if isinstance(predictors, nn.ModuleList) else [predictors]:
            predictor.cls_score.weight.normal_(std=1.0)
            predictor.bbox_pred.weight.normal_(std=0.3)
    return heads


def make_features(generator, num_images):
    return {
        name: torch.randn(
            num_images, s.channels, SIZE // s.stride, SIZE // s.stride, generator=generator
        )
        for name, s in SHAPES.items()
    }


def random_boxes(generator, number):
    corners = torch.rand(number, 2, generator=generator) * (SIZE - 20)
    return torch.cat([corners, corners + 4 + torch.rand(number, 2, generator=generator) * 16], 1)


def make_targets(generator, num_objects, masks=False, keypoints=False):
    targets = Instances((SIZE, SIZE))
    boxes = random_boxes(generator, num_objects)
    targets.gt_boxes = Boxes(boxes)
    targets.gt_classes = torch.randint(0, NUM_CLASSES, (num_objects,), generator=generator)
    if masks:
        targets.gt_masks = PolygonMasks(
            [[torch.stack([x0, y0, x1, y0, x1, y1]).double().numpy()] for x0, y0, x1, y1 in boxes]
        )
    if keypoints:
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        visible = torch.full((num_objects, 1), 2.0)
        points = torch.stack([torch.cat([p, visible], 1) for p in (middle, middle - 1)], dim=1)
        targets.gt_keypoints = Keypoints(points)
    return targets


def make_proposals(generator, targets, number):
    """Some near the objects, some anywhere."""
    proposals = Instances((SIZE, SIZE))
    boxes = random_boxes(generator, number)
    if len(targets) and number:
        near = torch.randint(0, len(targets), (number,), generator=generator)
        moved = targets.gt_boxes.tensor[near] + torch.randn(number, 4, generator=generator) * 2
        moved = torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], dim=1)
        boxes = torch.where(torch.rand(number, 1, generator=generator) < 0.6, moved, boxes)
    proposals.proposal_boxes = Boxes(boxes)
    proposals.objectness_logits = torch.zeros(number)
    return proposals


def make_batch(seed, sizes, masks=False, keypoints=False):
    """`sizes`: (number of objects, number of proposals) of each image."""
    generator = torch.Generator().manual_seed(seed)
    targets = [make_targets(generator, n, masks, keypoints) for n, _ in sizes]
    proposals = [make_proposals(generator, t, n) for t, (_, n) in zip(targets, sizes)]
    return make_features(generator, len(sizes)), proposals, targets


def rotated(batch, seed):
    """The same batch with rotated boxes."""
    generator = torch.Generator().manual_seed(seed)

    def turn(x, name):
        x0, y0, x1, y1 = x.get(name).tensor.unbind(1)
        angles = torch.rand(len(x), generator=generator) * 180 - 90
        boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, angles], dim=1)
        x.remove(name)
        x.set(name, RotatedBoxes(boxes))

    features, proposals, targets = batch
    for p in proposals:
        turn(p, "proposal_boxes")
    for t in targets:
        turn(t, "gt_boxes")
    return features, proposals, targets


def train_step(heads, features, proposals, targets, iteration=0):
    """One forward pass in training: the RoIs trained on, the losses, what was logged."""
    heads.train()
    with EventStorage(iteration) as storage:
        mined, losses = heads(None, features, proposals, targets)
    return mined, losses, {name: value for name, (value, _) in storage.latest().items()}
