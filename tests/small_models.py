"""Models of Detectron2's model zoo, small enough to run by the hundred."""

import copy
from pathlib import Path

import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.export import scripting_with_instances
from detectron2.modeling import build_model
from detectron2.modeling.backbone import RegNet, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from ohem_d2 import add_ohem_config
from ohem_d2.modeling.lazy import COUNTERPARTS, with_ohem
from ohem_d2.training.config_file import load_config

ZOO = Path(model_zoo.__file__).parent / "configs"
NAMES = {base.__name__: head.__name__ for base, head in COUNTERPARTS.items()}
SIZE, BUDGET, DETECTIONS = 64, 12, 20

SHRINK = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    # Detectron2 has deformable convolutions on the GPU only.
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False] * 4,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (32,) * 8,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 40,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": -1.0,  # an untrained model is sure of anything
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": BUDGET,
    "TEST.DETECTIONS_PER_IMAGE": DETECTIONS,
}
SHRINK_OPTS = [str(x) for pair in SHRINK.items() for x in pair]
# The same of what a command line can say of the Python config of an FPN with boxes alone.
NARROW_OPTS = {
    "model.backbone.out_channels": 32,
    "model.proposal_generator.head.in_channels": 32,
    "model.roi_heads.box_head.input_shape.channels": 32,
    "model.roi_heads.box_head.fc_dims": "[16,16]",
    "model.roi_heads.box_predictor.input_shape.channels": 16,
}


def build(path, mining, everything=False, opts=()):
    """The model of a config, shrunk; `everything`: it trains on all RoIs; `opts`: for YAML."""
    if path.suffix == ".py":
        return tamed(build_lazy(path, mining, everything))
    return build_from(load_config(str(path), [*SHRINK_OPTS, *opts]), mining, everything)


def tamed(model):
    """The activations of a deep network that is not trained overflow, if they are not damped."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(4.0)
    return model


def build_lazy(path, mining, everything):
    model = LazyConfig.load(str(path)).model
    shrink(model)
    model.proposal_generator.post_nms_topk = (40, 10)
    if mining:
        nms_thresh = 1.0 if everything else 0.7
        model.roi_heads = with_ohem(model.roi_heads, nms_thresh=nms_thresh)
    heads = model.roi_heads
    heads.batch_size_per_image = 10000 if everything else BUDGET
    heads.positive_fraction = 1.0
    predictors = heads.box_predictor if "box_predictors" not in heads else heads.box_predictors
    for p in predictors if OmegaConf.is_list(predictors) else [predictors]:
        p.test_score_thresh = -1.0
        p.test_topk_per_image = DETECTIONS
    return instantiate(model)


def shrink(node):
    """Narrow the layers of a Python config, whose widths are written down in many places."""
    for key in node if OmegaConf.is_dict(node) else range(len(node)):
        if OmegaConf.is_interpolation(node, key):
            continue
        if key in WIDTHS:
            value = node[key]
            node[key] = narrow(value) if isinstance(value, int) else [*map(narrow, value)]
        elif OmegaConf.is_config(node[key]):
            shrink(node[key])
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    if target is RegNet:
        node.update(w_0=node.w_0 // 4, w_a=node.w_a / 4, group_width=8)
    elif target is ResNet.make_default_stages:
        node["_target_"] = narrow_stages


WIDTHS = ("in_channels", "out_channels", "channels", "bottleneck_channels", "conv_dims", "fc_dims")


def narrow(width):
    return min(width, max(32, width // 8))  # as many as there are groups, where layers have any


def narrow_stages(depth, **kwargs):
    """ResNet.make_default_stages, of narrow ones."""
    stages, channels = [], 64
    for i, blocks in enumerate({50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]):
        out = 256 * 2**i
        stages.append(
            ResNet.make_stage(
                BottleneckBlock,
                blocks,
                stride_per_block=[2 if i else 1] + [1] * (blocks - 1),
                in_channels=narrow(channels),
                out_channels=narrow(out),
                bottleneck_channels=narrow(out // 4),
                **kwargs,
            )
        )
        channels = out
    return stages


def build_from(cfg, mining, everything=False):
    """The model of a config that is no file."""
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 10000 if everything else BUDGET
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 1.0
    if cfg.MODEL.RESNETS.NORM not in ("FrozenBN", "BN", "SyncBN"):
        cfg.MODEL.RESNETS.NORM = "BN"  # 32 groups need more channels
    if mining:
        add_ohem_config(cfg)
        cfg.MODEL.ROI_HEADS.NAME = NAMES[cfg.MODEL.ROI_HEADS.NAME]
        if everything:
            cfg.MODEL.ROI_HEADS.OHEM.NMS_THRESH = 1.0
    return tamed(build_model(cfg))


def make_inputs(model, generator):
    inputs = []
    num_classes = model.roi_heads.num_classes
    for _ in range(2):
        corners = torch.rand(3, 2, generator=generator) * 30
        boxes = torch.cat([corners, corners + 12 + torch.rand(3, 2, generator=generator) * 20], 1)
        x = Instances((SIZE, SIZE), gt_boxes=Boxes(boxes))
        x.gt_classes = torch.randint(0, num_classes, (3,), generator=generator)
        polygons = [[torch.stack([a, b, c, b, c, d]).double().numpy()] for a, b, c, d in boxes]
        x.gt_masks = PolygonMasks(polygons)
        middle = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, torch.full((3, 1), 2.0)], dim=1)
        x.gt_keypoints = Keypoints(middle[:, None].expand(3, 17, 3).clone())
        near = boxes.repeat(10, 1) + torch.randn(30, 4, generator=generator) * 3
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 2)
        proposals = Instances((SIZE, SIZE), proposal_boxes=Boxes(near))
        proposals.objectness_logits = torch.randn(30, generator=generator)
        inputs.append(
            {
                "image": (torch.rand(3, SIZE, SIZE, generator=generator) * 255).byte(),
                "instances": x,
                "proposals": proposals,  # for the models that have no RPN
                "sem_seg": torch.randint(0, 54, (SIZE, SIZE), generator=generator),
                "height": SIZE,
                "width": SIZE,
            }
        )
    return inputs


def step(model, inputs):
    model.train()
    torch.manual_seed(0)  # the RPN samples its anchors at random
    with EventStorage():
        losses = model(copy.deepcopy(inputs))
    return losses


def assert_same_inference(model, plain, inputs):
    """Bitwise."""
    results = []
    for m in (model, plain):
        m.eval()
        with torch.no_grad():
            results.append(m(copy.deepcopy(inputs)))
    for a, b in zip(*results):
        assert a.keys() == b.keys()
        if "sem_seg" in a:
            assert a["sem_seg"].equal(b["sem_seg"])
        a, b = a["instances"].get_fields(), b["instances"].get_fields()
        assert len(a["scores"]) > 0
        assert a.keys() == b.keys()
        for name, value in a.items():
            mine, theirs = (v.tensor if isinstance(v, Boxes) else v for v in (value, b[name]))
            assert mine.equal(theirs), name


def assert_same_step(model, plain, inputs):
    """To float tolerance: the same losses, and the same gradients."""
    losses, plain_losses = (step(m, inputs) for m in (model, plain))
    assert losses.keys() == plain_losses.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, plain_losses[name], rtol=1e-4, atol=1e-5)
    sum(losses.values()).backward()
    sum(plain_losses.values()).backward()
    for (name, p), (_, q) in zip(model.named_parameters(), plain.named_parameters()):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            scale = max(q.grad.abs().max().item(), 1e-3)
            assert (p.grad - q.grad).abs().max() <= 1e-3 * scale, name


def assert_is_scripted_alike(model):
    """A model of a box head detects the same when it is scripted (TorchScript)."""
    model.eval()
    fields = {"proposal_boxes": Boxes, "objectness_logits": torch.Tensor, "pred_boxes": Boxes,
              "scores": torch.Tensor, "pred_classes": torch.Tensor}  # fmt: skip
    scripted = scripting_with_instances(model, fields)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        (x,), (y,) = (
            m.inference([{"image": image}], do_postprocess=False) for m in (model, scripted)
        )
    assert len(x) > 0
    assert x.pred_boxes.tensor.equal(y.pred_boxes.tensor)
