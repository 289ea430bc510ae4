#!/usr/bin/env python
"""
What wrong inputs are answered with: by the commands of this project, and by Detectron2 itself.

    python benchmarks/bad_inputs.py                # all of them, into docs/survival/inputs.json
    python benchmarks/bad_inputs.py weights keys   # those of some kinds, which are printed only

Each input runs in a process of its own: `ohem_d2.cli.main`, and beside it what Detectron2's
tools/train_net.py does (``DefaultTrainer``), where the input means something to it. The outcome is

- one line: the run ended with one line that names the key or the file, before training began
- traceback: it ended before training began, but with a traceback, or without such a line
- too late: it ended after the first step, or the first image of an evaluation
- accepted: it ended as if nothing were wrong
- no end: it was stopped after two minutes
"""

import argparse
import base64
import json
import math
import multiprocessing
import os
import pickle
import resource
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.engine import DefaultTrainer, TrainerBase, default_argument_parser, default_setup
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from environment import describe
from PIL import Image

from ohem_d2 import add_ohem_config, cli
from ohem_d2.data import register_datasets
from ohem_d2.data.shapes import write_shapes
from ohem_d2.training.config_file import load_config

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "survival" / "inputs.json"
OUTCOMES = ("one line", "traceback", "too late", "accepted", "no end")
SECONDS = 120
# A training of seconds, on a few drawn images.
TINY: dict[str, Any] = {
    "MODEL.WEIGHTS": "",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
    "DATASETS.TRAIN": "('coco://shapes/train.json?images=shapes/JPEGImages',)",
    "DATASETS.TEST": "('coco://shapes/test.json?images=shapes/JPEGImages',)",
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 2,
    "SOLVER.WARMUP_ITERS": 1,
    "OUTPUT_DIR": "out",
}
# Of Detectron2 this runs the same model, with its own head.
PLAIN = {"MODEL.ROI_HEADS.NAME": "StandardROIHeads"}
LAZY = "mask.py"


@dataclass
class Bad:
    """A wrong input."""

    kind: str
    name: str
    # One of these has to be in the line.
    names: tuple[str, ...]
    settings: dict[str, object] = field(default_factory=dict)
    # What is wrong in the folder of the run, which is the current one.
    prepare: Callable[[], object] = lambda: None
    arguments: tuple[str, ...] = ()
    config: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    command: str = "train"
    # Whether Detectron2's own run can be given it.
    plain: bool = True


def key(name: str, value: object, *arguments: str, **others: object) -> Bad:
    """A key that has a wrong value."""
    settings = {name: value, **{k.replace("__", "."): v for k, v in others.items()}}
    plain = ".OHEM." not in name and "BOX_VOTING" not in name
    return Bad("keys", f"{name} {value}", (name,), settings, arguments=arguments, plain=plain)


def unbuilt(name: str, value: object) -> Bad:
    """A value that only building the model finds to be wrong, where the file is named."""
    return Bad("keys", f"{name} {value}", (name, "quick_start.yaml"), {name: value})


def lazy(setting: str) -> Bad:
    """The same, in a Python config."""
    name, _, value = setting.partition("=")
    names = (name.lstrip("+"),)
    return Bad("keys", f"{name}={value}", names, {name: value}, config=LAZY, plain=False)


def mapper(name: str, change: str, **others: object) -> Bad:
    """A mapper of the user's own, which gives what Detectron2's models cannot learn from."""
    lines = [
        "from detectron2.data import DatasetMapper",
        "class Mine(DatasetMapper):",
        "    def __call__(self, record):",
        "        made = super().__call__(record)",
        f"        {change}",
        "        return made",
    ]
    return Bad(
        "keys", f"a mapper that gives {name}", ("dataloader.train.mapper",),
        {"dataloader.train.mapper._target_": "mine.Mine",
         **{f"dataloader.train.{k}": v for k, v in others.items()}},
        lambda: Path("mine.py").write_text("\n".join(lines)), config=LAZY, plain=False,
    )  # fmt: skip


def sampler(name: str, step: str = "pass", weights: str = "None", start: str = "") -> Bad:
    """A sampler of the user's own that is none; ``start``: what its module does."""
    lines = [
        "import torch",
        "from ohem_d2 import Selection",
        start,
        "def choose(candidates, num_samples):",
        f"    {step}",
        f"    return Selection(torch.arange(4), {weights})",
    ]
    return Bad(
        "keys", f"a sampler that {name}", (f"{HEADS}.OHEM.SAMPLER",),
        {f"{HEADS}.OHEM.SAMPLER": "mine.choose"},
        lambda: Path("mine.py").write_text("\n".join(lines)), plain=False,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- keys

HEADS, RPN = "MODEL.ROI_HEADS", "MODEL.RPN"
KEYS = [
    *(key(f"{HEADS}.BATCH_SIZE_PER_IMAGE", v) for v in (None, 0, -1, 10**30)),
    *(key("SOLVER.MAX_ITER", v) for v in (0, -1, None, "1,000")),
    *(key("SOLVER.BASE_LR", v) for v in (0, -0.1, "1e308", "float('nan')")),
    *(key("SOLVER.CHECKPOINT_PERIOD", v) for v in (0, -5)),
    *(key("SOLVER.IMS_PER_BATCH", v) for v in (0, -2, None)),
    *(key("SOLVER.MOMENTUM", v) for v in (-1.0, 1.5)),
    key("SOLVER.WEIGHT_DECAY", -0.1),
    key("SOLVER.GAMMA", 0.0),
    *(key("SOLVER.STEPS", v) for v in ("(2, 1)", "('a',)", "(-1,)")),
    key("SOLVER.WARMUP_METHOD", "exponential"),
    key("SOLVER.WARMUP_FACTOR", -1.0),
    key("SOLVER.WARMUP_ITERS", -5),
    key("SOLVER.LR_SCHEDULER_NAME", "X"),
    key("SOLVER.REFERENCE_WORLD_SIZE", -1),
    key("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "size", SOLVER__CLIP_GRADIENTS__ENABLED=True),
    key("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", -1.0, SOLVER__CLIP_GRADIENTS__ENABLED=True),
    key("DATALOADER.NUM_WORKERS", -1),
    key("DATALOADER.SAMPLER_TRAIN", "MySampler"),
    *(key("DATASETS.TRAIN", v) for v in ("(1, 2)", "('',)", None)),
    *(key("INPUT.MIN_SIZE_TRAIN", v) for v in ("()", "(-5,)", "('a',)")),
    key("INPUT.MIN_SIZE_TRAIN_SAMPLING", "random"),
    key("INPUT.MIN_SIZE_TRAIN", "(1, 2, 3)", INPUT__MIN_SIZE_TRAIN_SAMPLING="range"),
    key("INPUT.MAX_SIZE_TRAIN", 0),
    key("INPUT.MIN_SIZE_TEST", -1),
    key("INPUT.FORMAT", "XYZ"),
    key("INPUT.RANDOM_FLIP", "both"),
    key("INPUT.CROP.SIZE", "[2.0, 2.0]", INPUT__CROP__ENABLED=True),
    key("INPUT.CROP.TYPE", "middle", INPUT__CROP__ENABLED=True),
    key("INPUT.MASK_FORMAT", "circle"),
    *(key("MODEL.DEVICE", v) for v in ("tpu", "meta", "gpu", "cuda:99", None)),
    *(key("MODEL.PIXEL_STD", v) for v in ("[0.0, 1.0, 1.0]", "[1.0]", None)),
    key("MODEL.PIXEL_MEAN", "[1.0, 2.0]"),
    key("MODEL.META_ARCHITECTURE", "FasterRCNN"),
    key("MODEL.BACKBONE.NAME", "resnet50"),
    key("MODEL.RESNETS.DEPTH", 77),
    key("MODEL.RESNETS.NORM", "InstanceNorm"),
    key("MODEL.RESNETS.RES2_OUT_CHANNELS", 100),
    key("MODEL.RESNETS.OUT_FEATURES", "['res9']"),
    key("MODEL.FPN.OUT_CHANNELS", 0),
    key("MODEL.FPN.IN_FEATURES", "['res3', 'res7']"),
    key("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32]]"),
    key("MODEL.ANCHOR_GENERATOR.SIZES", "[[-16]]"),
    key("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0.0]]"),
    key("MODEL.PROPOSAL_GENERATOR.NAME", "None"),
    key(f"{RPN}.HEAD_NAME", "RPNHead"),
    key(f"{RPN}.IN_FEATURES", "['p2', 'p9']"),
    key(f"{RPN}.IOU_THRESHOLDS", "[0.7, 0.3]"),
    key(f"{RPN}.POST_NMS_TOPK_TRAIN", 0),
    key(f"{RPN}.BBOX_REG_LOSS_TYPE", "l3"),
    key(f"{RPN}.BBOX_REG_WEIGHTS", "(0.0, 1.0, 1.0, 1.0)"),
    key(f"{HEADS}.NUM_CLASSES", 0),
    key(f"{HEADS}.IN_FEATURES", "['p7']"),
    key(f"{HEADS}.IOU_LABELS", "[0, 1, 1]"),
    key(f"{HEADS}.POSITIVE_FRACTION", 2.0),
    key(f"{HEADS}.NMS_THRESH_TEST", -0.5),
    key(f"{HEADS}.SCORE_THRESH_TEST", 5.0),
    key("MODEL.ROI_BOX_HEAD.NAME", "BoxHead"),
    key("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "Pool"),
    key("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 0),
    key("MODEL.ROI_BOX_HEAD.FC_DIM", -4),
    key("TEST.DETECTIONS_PER_IMAGE", 0),
    key("TEST.EVAL_PERIOD", -1),
    key("TEST.EXPECTED_RESULTS", "['bbox', 'AP', 5]"),
    key("TEST.AUG.MIN_SIZES", "()", TEST__AUG__ENABLED=True),
    key("SEED", 2**40),
    key("FLOAT32_PRECISION", "low"),
    *(key("SOLVER.WARMUP_ITERS", v, SOLVER__RESCALE_INTERVAL=True) for v in (2, 1000)),
    key("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 38.5, -1]]"),
    key("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 385, 2]]"),
    key("VIS_PERIOD", -1),
    key(f"{HEADS}.OHEM.LOSS_WEIGHT_CLS", "1e308"),
    key(f"{HEADS}.OHEM.NMS_THRESH", -1.0),
    key(f"{HEADS}.OHEM.HARD_FRACTION", "float('inf')"),
    key("TEST.BOX_VOTING.ROUNDS", 1000000),
    key("MODEL.OHEM.HARD_FRACTION", 0.3),
    key("SEED", "20261126235959"),
    *(Bad("keys", f"{name} {value}, of a data set that lacks it", (name,),
          {"DATASETS.TRAIN": "('ohem_shapes_train',)", "DATASETS.TEST": "()",
           f"{HEADS}.NUM_CLASSES": 3, f"{HEADS}.NAME": "StandardROIHeads", name: value},
          plain=False)  # which does not know this data set
      for name, value in (
          ("MODEL.KEYPOINT_ON", True),
          ("MODEL.META_ARCHITECTURE", "PanopticFPN"),
          ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True),
      )),
    Bad("keys", "a node without keys", ("MODEL.RPN",), prepare=lambda: child("MODEL:\n  RPN:\n"),
        config="child.yaml"),
    Bad("keys", "NUM_CLASSES of other data", (f"{HEADS}.NUM_CLASSES",),
        {"DATASETS.TRAIN": "('ohem_shapes_train',)", "DATASETS.TEST": "('ohem_shapes_test',)",
         f"{HEADS}.NUM_CLASSES": 2}, plain=False),
    key(f"{HEADS}.NAME", "RROIHeads"),
    key("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
    key("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    key(f"{RPN}.BBOX_REG_WEIGHTS", "(1.0, 1.0, 1.0, 1.0, 1.0)"),
    key(f"{HEADS}.IOU_LABELS", "[1, 0]"),
    key("INPUT.MIN_SIZE_TRAIN", "(128, 96)", INPUT__MIN_SIZE_TRAIN_SAMPLING="range"),
    key("INPUT.CROP.SIZE", "[0.0001, 0.5]", INPUT__CROP__ENABLED=True),
    key("INPUT.CROP.SIZE", "[300, 200]", INPUT__CROP__ENABLED=True,
        INPUT__CROP__TYPE="absolute_range"),
    key("INPUT.MAX_SIZE_TEST", 1),
    key("MODEL.BACKBONE.FREEZE_AT", 6),
    key("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
    key("MODEL.ROI_BOX_HEAD.NUM_FC", 0),
    key(f"{HEADS}.NAME", "Res5ROIHeads"),
    key(f"{HEADS}.NAME", "OHEMCascadeROIHeads"),
    key(f"{HEADS}.OHEM.CASCADE_STAGES", "(0, 0)"),
    key(f"{HEADS}.OHEM.CASCADE_STAGES", "(1,)"),
    key(f"{HEADS}.OHEM.SAMPLER", "os.mkdir"),
    key(f"{HEADS}.OHEM.SAMPLER", "subprocess.Popen(args=['mkdir', 'ran'])"),
    key("DATALOADER.SAMPLER_TRAIN", "WeightedTrainingSampler"),
    key("TEST.EXPECTED_RESULTS", "[['box', 'AP', 38.5, 0.2]]"),
    key("MODEL.PIXEL_MEAN", "[0.485, 0.456, inf]"),
    unbuilt("MODEL.FPN.OUT_CHANNELS", 50),
    unbuilt("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0.5, 1.0], [1.0], [1.0], [1.0], [1.0]]"),
    unbuilt(f"{HEADS}.IN_FEATURES", "['p2', 'p4']"),
    unbuilt("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True),
    unbuilt("MODEL.RESNETS.STEM_OUT_CHANNELS", 7),
    unbuilt("MODEL.FPN.IN_FEATURES", "['res2', 'res5']"),
    unbuilt("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"),
    lazy("train=5"),
    lazy("optimizer.lr=0,02"),
    lazy("model.roi_heads.ohem.sampler=mixed"),
    lazy("train.device=5"),
    lazy("train.ddp=5"),
    lazy("model=x"),
    lazy("optimizer=3"),
    lazy("lr_multiplier=5"),
    lazy("dataloader.evaluator=5"),
    lazy("dataloader.train.dataset.names=5"),
    lazy("optimizer._target_=nothing.Here"),
    lazy("train.max_iter=0"),
    lazy("train.max_iter=many"),
    lazy("train.checkpointer.period=0"),
    lazy("train.checkpointer.max_to_keep=-1"),
    lazy("train.log_period=0"),
    lazy("train.eval_period=-3"),
    lazy("train.device=tpu"),
    lazy("dataloader.train.total_batch_size=0"),
    lazy("dataloader.train.num_workers=-1"),
    lazy("optimizer.lr=0"),
    lazy("optimizer.lr=-1"),
    lazy("optimizer.weight_decay=-1"),
    lazy("lr_multiplier.warmup_length=-1"),
    Bad("keys", "lr_multiplier.warmup_length=1.0, rescaled", ("lr_multiplier.warmup_length",),
        {"lr_multiplier.warmup_length": 1.0, "+lr_multiplier.rescale_interval": True}, config=LAZY,
        plain=False),
    lazy("model.pixel_std=[0,1,1]"),
    lazy("model.roi_heads.batch_size_per_image=null"),
    lazy("model.proposal_generator.nms_thresh=-1"),
    lazy("model.roi_heads.ohem.loss_weight_cls=1e308"),
    key("DATASETS.UNREADABLE_IMAGES", "Skip"),
    key("SOLVER.NUM_DECAYS", 0, SOLVER__LR_SCHEDULER_NAME="WarmupStepWithFixedGammaLR"),
    key("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 10000),
    key(f"{RPN}.LOSS_WEIGHT", -1.0),
    key(f"{RPN}.BATCH_SIZE_PER_IMAGE", 0),
    key("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", -0.5),
    key("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNHead", MODEL__MASK_ON=True),
    key("SOLVER.BIAS_LR_FACTOR", -2.0),
    key("MODEL.DEVICE", "mps"),
    key("MODEL.META_ARCHITECTURE", "PanopticFPN"),
    key("DATASETS.TRAIN", "('coco://shapes/train.json?images=shapes/JPEGImages&part=train:80',)"),
    key("DATASETS.TRAIN", "('coco://shapes/train.json?images=shapes',)"),
    key("TEST.EXPECTED_RESULTS", "[['bbox', 'mAP', 38.5, 0.2]]"),
    key("INPUT.IGNORE_REGIONS.ENABLED", "crowd"),
    key(f"{HEADS}.OHEM.BG_IOU_LO", "(0.1, 0.5)"),
    key(f"{HEADS}.OHEM.CASCADE_STAGES", "all", MODEL__ROI_HEADS__NAME="OHEMCascadeROIHeads",
        MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG=True),
    lazy("model.roi_heads.box_predictor.test_score_thresh=5"),
    lazy("lr_multiplier.scheduler.values=[1.0,0.1]"),
    lazy("train.output_dir=null"),
    lazy("optimizer._target_=builtins.dict"),
    lazy("model._target_=builtins.dict"),
    lazy("lr_multiplier._target_=builtins.dict"),
    lazy("dataloader.train.mapper.augmentations=[RandomFlip]"),
    lazy("dataloader.train.mapper.augmentations.9.prob=1"),
    key("MODEL.PIXEL_MEAN", "[0.485, 0.456, 0.406]"),
    key("MODEL.PIXEL_STD", "[0.229, 0.224, 0.225]"),
    key("MODEL.ANCHOR_GENERATOR.SIZES", "[[0.05], [0.1], [0.2], [0.4], [0.8]]"),
    key("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 256),
    key("MODEL.LOAD_PROPOSALS", True),
    lazy("model.pixel_mean=[0.485,0.456,0.406]"),
    lazy("model.pixel_std=[0.229,0.224,0.225]"),
    lazy("model.proposal_generator.anchor_generator.sizes=[[0.05],[0.1],[0.2],[0.4],[0.8]]"),
    Bad("keys", "files of proposals for a model that makes its own", ("proposal_files",),
        {"+dataloader.train.dataset.proposal_files": "[p.pkl]"}, config=LAZY, plain=False),
    sampler("changes its candidates", "candidates.loss_cls.mul_(0)"),
    sampler("ends the program", "raise SystemExit(0)"),
    sampler("returns weights that overflow", weights="torch.full((4,), 1e38)"),
    sampler("cannot be imported", start="raise SystemExit(0)"),
    lazy("dataloader.test.mapper.image_format=RGB"),
    lazy("+model.roi_heads.num_class=3"),
    lazy("+model.backbone.bottom_up.freeze=2"),
    lazy("+dataloader.train.aspect_ratio_groupng=false"),
    lazy("+optimizer.learning_rate=0.1"),
    lazy("+train.maxiter=5"),
    lazy("lr_multiplier.scheduler.milestones=[60000,30000,90000]"),
    lazy("dataloader.train.mapper=${dataloader.nothing}"),
    key("TEST.EXPECTED_RESULTS", "[['bbox', 'AP59', 38.5, 0.2]]"),
    mapper("None for each image", "made = None"),
    lazy("dataloader.train.mapper.is_train=False"),
    lazy("dataloader.test.dataset.filter_empty=maybe"),
    lazy("model.proposal_generator.anchor_generator.strides=[8,16,32,64,128]"),
    lazy("model.proposal_generator.anchor_matcher.labels=[0,1]"),
    lazy("model.proposal_generator.box2box_transform.weights=[0,0,1,1]"),
    lazy("model.proposal_generator.head.num_anchors=9"),
    lazy("model.backbone.in_features=[res2,res3,res4]"),
    lazy("model.roi_heads.box_in_features=[p2,p3,p4,p5,p6]"),
    lazy("model.roi_heads.box_pooler.output_size=14"),
    lazy("model.roi_heads.box_pooler.scales=[0.125,0.0625,0.03125,0.015625]"),
    lazy("model.roi_heads.box_pooler.scales=[0.25,0.125,0.0625]"),
    lazy("model.roi_heads.box_predictor.box2box_transform.weights=[10,10,5]"),
    lazy("model.roi_heads.box_predictor.input_shape.channels=512"),
    lazy("model.roi_heads.proposal_matcher.thresholds=[0.5,0.4]"),
    lazy("train.checkpointer.max_to_keep=some"),
    mapper("no instances", "del made['instances']"),
    mapper("arrays", "made['image'] = made['image'].permute(1, 2, 0).numpy()"),
    mapper("images of four channels", "made['image'] = made['image'][[0, 1, 2, 0]]"),
    # Of all images, since one may lack the last class.
    mapper("classes from 1 on", "made['instances'].gt_classes += 1", total_batch_size=4),
    mapper("boxes of width and height",
           "b = made['instances'].gt_boxes.tensor; b[:, 2:] -= b[:, :2]; b[0, 2] = 0"),
    mapper("boxes that are nan", "made['instances'].gt_boxes.tensor[0] = float('nan')"),
    mapper("tuples", "made = made['image'], made['instances']"),
]  # fmt: skip

# ---------------------------------------------------------------------------------------- weights


def weights(
    name: str, write: Callable[[Path], object], file: str = "bad.pth", *, how: str = ""
) -> Bad:
    """A file that is no checkpoint of the model; ``how``: "train", or it is evaluated."""
    return Bad(
        "weights", name, (file,), {"MODEL.WEIGHTS": file}, lambda: write(Path(file)),
        () if how == "train" else ("--eval-only",),
    )  # fmt: skip


def proposals(
    name: str, change: Callable[[np.ndarray], np.ndarray], scores: int = 3, **parts: object
) -> Bad:
    """A file of three proposals for each image, which are none."""

    def write() -> None:
        boxes = np.array([[1, 1, 50, 50], [10, 10, 80, 80], [2, 2, 30, 90]], np.float32)
        ids = {x["id"] for part in ("train", "test")
               for x in json.loads(Path(f"shapes/{part}.json").read_text())["images"]}  # fmt: skip
        content = {
            "ids": [*ids],
            "boxes": [change(boxes)] * len(ids),
            "objectness_logits": [np.ones(scores, np.float32)] * len(ids),
            **parts,
        }
        Path("p.pkl").write_bytes(pickle.dumps(content))

    settings = {
        "MODEL.LOAD_PROPOSALS": True,
        "MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals",
        "DATASETS.PROPOSAL_FILES_TRAIN": "('p.pkl',)",
        "DATASETS.PROPOSAL_FILES_TEST": "('p.pkl',)",
    }
    return Bad("weights", f"proposals, {name}", ("PROPOSAL_FILES_TRAIN",), settings, write)


class Opens:
    """Pickled, it creates a file when it is loaded."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


def good() -> dict[str, torch.Tensor]:
    """The weights of the model that is trained here."""
    return torch.load("good.pth", weights_only=True)["model"]


def without(prefix: str, file: Path) -> None:
    """Save them, but for some."""
    torch.save({"model": {k: v for k, v in good().items() if not k.startswith(prefix)}}, file)


def with_value(value: float, file: Path) -> None:
    """Save them, with a number of one layer exchanged."""
    content = good()
    content["roi_heads.box_predictor.cls_score.bias"][0] = value
    torch.save({"model": content}, file)


def all_zero(file: Path) -> None:
    """Save a 0 for each of their numbers."""
    torch.save({"model": {k: torch.zeros_like(x) for k, x in good().items()}}, file)


def other_classes(file: Path) -> None:
    """Save them with a head for one class more."""
    content = good()
    for name in ("cls_score.weight", "cls_score.bias"):
        x = content[f"roi_heads.box_predictor.{name}"]
        content[f"roi_heads.box_predictor.{name}"] = torch.cat([x, x[:1]])
    torch.save({"model": content}, file)


def resume(name: str, write: Callable[[Path], object]) -> Bad:
    """A checkpoint that ``--resume`` takes."""

    def prepare() -> None:
        Path("out").mkdir()
        write(Path("out/model_0000001.pth"))
        Path("out/last_checkpoint").write_text("model_0000001.pth")

    return Bad("weights", f"--resume, {name}", ("model_0000001.pth",), {"SOLVER.MAX_ITER": 4},
               prepare, ("--resume",))  # fmt: skip


def resume_otherwise(key: str, value: object) -> Bad:
    """A key that has changed since the training that is resumed."""

    def prepare() -> None:
        Path("out").mkdir()
        cfg = load_config("quick_start.yaml", [str(x) for pair in TINY.items() for x in pair])
        Path("out/config.yaml").write_text(cfg.dump())
        shutil.copy("good.pth", "out/model_0000001.pth")
        Path("out/last_checkpoint").write_text("model_0000001.pth")

    return Bad("weights", f"--resume, {key} {value}", (key,), {"SOLVER.MAX_ITER": 4, key: value},
               prepare, ("--resume",))  # fmt: skip


def lose_end(file: Path) -> None:
    """Save half of the file."""
    whole = Path("good.pth").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def with_dtype(dtype: torch.dtype, file: Path) -> None:
    """Save them, with one layer of another type."""
    content = good()
    name = "roi_heads.box_predictor.cls_score.weight"
    content[name] = (content[name] * 1000).to(dtype)
    torch.save({"model": content}, file)


def flip_bit(file: Path) -> None:
    """Save them, with one bit of a weight turned over."""
    content = bytearray(Path("good.pth").read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def from_state(name: str, change: Callable[[dict[str, Any]], object]) -> Bad:
    """A checkpoint to resume from, of which the training's state is wrong."""

    def write(file: Path) -> None:
        cfg = load_config("quick_start.yaml", [str(x) for pair in TINY.items() for x in pair])
        model = build_model(cfg)
        optimizer = build_optimizer(cfg, model)
        scheduler = build_lr_scheduler(cfg, optimizer)
        for x in model.parameters():
            x.grad = torch.zeros_like(x)
        optimizer.step()
        scheduler.step()
        trainer = {
            "iteration": 0,
            "hooks": {"LRScheduler": scheduler.state_dict()},
            "_trainer": {"iteration": 0, "optimizer": optimizer.state_dict()},
        }
        content = {"model": good(), "trainer": trainer, "iteration": 0}
        change(content)
        torch.save(content, file)

    return resume(name, write)


def optimizer_of(content: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's state in a checkpoint."""
    return content["trainer"]["_trainer"]["optimizer"]


def scheduler_of(content: dict[str, Any]) -> dict[str, Any]:
    """The scheduler's."""
    return content["trainer"]["hooks"]["LRScheduler"]


def iteration(value: object) -> Callable[[dict[str, Any]], object]:
    """Another iteration in a checkpoint."""
    return lambda c: (c.update(iteration=value), c["trainer"].update(iteration=value))


def buffer(value: object) -> Callable[[dict[str, Any]], object]:
    """Another momentum of a parameter."""
    return lambda c: optimizer_of(c)["state"][0].update(momentum_buffer=value)


PREDICTOR = "roi_heads.box_predictor"
STATES = [
    from_state("iteration a text", iteration("1")),
    from_state("iteration -5", iteration(-5)),
    from_state("iteration NaN", iteration(math.nan)),
    from_state("iteration 1.5", iteration(1.5)),
    from_state("iteration 1000000", iteration(1000000)),
    from_state("without a head", lambda c: c["model"].pop(f"{PREDICTOR}.cls_score.bias")),
    from_state("of other classes", lambda c: c["model"].update({
        f"{PREDICTOR}.cls_score.bias": torch.zeros(5)})),
    from_state("NaN", lambda c: c["model"][f"{PREDICTOR}.cls_score.bias"].fill_(math.nan)),
    from_state("weights alone", lambda c: c.pop("trainer")),
    from_state("the trainer a list", lambda c: c.update(trainer=[1])),
    from_state("no optimizer", lambda c: c["trainer"]["_trainer"].pop("optimizer")),
    from_state("fewer groups", lambda c: optimizer_of(c)["param_groups"].pop()),
    from_state("no momentum", lambda c: optimizer_of(c).update(state={})),
    from_state("momentum of another shape", buffer(torch.zeros(3))),
    from_state("momentum NaN", lambda c: buffer(
        optimizer_of(c)["state"][0]["momentum_buffer"] * math.nan)(c)),
    from_state("Adam's state", lambda c: optimizer_of(c).update(
        state={k: {"exp_avg": torch.zeros(1)} for k in optimizer_of(c)["state"]})),
    from_state("lr NaN", lambda c: optimizer_of(c)["param_groups"][0].update(lr=math.nan)),
    from_state("no scheduler", lambda c: c["trainer"]["hooks"].pop("LRScheduler")),
    from_state("the scheduler a list", lambda c: c["trainer"]["hooks"].update(LRScheduler=[1])),
    from_state("last_epoch NaN", lambda c: scheduler_of(c).update(last_epoch=math.nan)),
    from_state("one of base_lrs", lambda c: scheduler_of(c).update(base_lrs=[0.1])),
    from_state("groups in another order", lambda c: optimizer_of(c)["param_groups"].reverse()),
    from_state("a group without momentum", lambda c: optimizer_of(c)["param_groups"][0].pop(
        "momentum")),
    from_state("fewer parameters", lambda c: optimizer_of(c)["param_groups"][0]["params"].pop()),
    from_state("random states of text", lambda c: c["trainer"]["hooks"].update(
        ResumeHook={"processes": "x"})),
]  # fmt: skip

WEIGHTS = [
    *STATES,
    weights("integers", lambda f: with_dtype(torch.int64, f)),
    weights("bools", lambda f: with_dtype(torch.bool, f)),
    weights("tensors without numbers", lambda f: torch.save({"model": {
        k: x.to("meta") for k, x in good().items()}}, f)),
    weights("a flipped bit", flip_bit),
    *(weights(f"nothing but zeros, {how or 'evaluated'}", all_zero, how=how)
      for how in ("", "train")),
    weights("a flipped bit, to train", flip_bit, how="train"),
    resume("a flipped bit", flip_bit),
    weights("a pipe", lambda f: os.mkfifo(f)),
    weights("a device", lambda f: f.symlink_to("/dev/zero")),
    weights("a link in a circle", lambda f: f.symlink_to(f.name)),
    *(Bad("weights", x, ("MODEL.WEIGHTS",), {"MODEL.WEIGHTS": x})
      for x in ("s3://bucket/x.pth", "file:///x.pth", "hf://x/y", "catalog://x/y")),
    weights("text", lambda f: f.write_text("no weights\n")),
    weights("text, to train", lambda f: f.write_text("no weights\n"), how="train"),
    weights("HTML", lambda f: f.write_text("<!DOCTYPE html><html>404</html>")),
    weights("HTML as .pkl", lambda f: f.write_text("<!DOCTYPE html><html>404</html>"), "bad.pkl"),
    weights("empty", lambda f: f.write_text("")),
    weights("empty .pkl", lambda f: f.write_text(""), "bad.pkl"),
    weights("a picture", lambda f: f.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))),
    weights("a ZIP file", lambda f: zipfile.ZipFile(f, "w").writestr("a", "b")),
    weights("a ZIP file, to train", lambda f: zipfile.ZipFile(f, "w").writestr("a", "b"),
            how="train"),
    weights("TorchScript", lambda f: torch.jit.script(torch.nn.Linear(2, 2)).save(str(f))),
    weights("a ZIP file of a checkpoint", lambda f: zipfile.ZipFile(f, "w").write("good.pth")),
    weights("complex numbers", lambda f: torch.save({"model": {
        k: x.to(torch.complex64) for k, x in good().items()}}, f)),
    Bad("weights", "an unknown question", ("good.pth",),
        {"MODEL.WEIGHTS": "good.pth?heuristics=yes"}, arguments=("--eval-only",)),
    Bad("weights", "an address that does not answer", ("MODEL.WEIGHTS",),
        {"MODEL.WEIGHTS": "http://127.0.0.1:9/x.pth"}, arguments=("--eval-only",)),
    weights("a folder", lambda f: f.mkdir()),
    weights("not there", lambda f: None),
    weights("truncated", lose_end),
    weights("truncated, to train", lose_end, how="train"),
    weights("a list", lambda f: torch.save([1, 2], f)),
    weights("a list as .pkl", lambda f: f.write_bytes(pickle.dumps([1, 2])), "bad.pkl"),
    weights("a number", lambda f: torch.save(5, f)),
    weights("a tensor", lambda f: torch.save(torch.zeros(3), f)),
    weights("model None", lambda f: torch.save({"model": None}, f)),
    weights("model None, to train", lambda f: torch.save({"model": None}, f), how="train"),
    weights("model a list", lambda f: torch.save({"model": [torch.zeros(2)]}, f)),
    weights("no weights in it", lambda f: torch.save({"model": {}}, f)),
    weights("texts for weights", lambda f: torch.save({"model": {"a": "b"}}, f)),
    weights("state_dict of another project",
            lambda f: torch.save({"state_dict": good(), "epoch": 3}, f)),
    weights("a whole model", lambda f: torch.save(torch.nn.Linear(2, 2), f)),
    weights("code as .pth", lambda f: torch.save({"model": Opens()}, f)),
    weights("code as .pkl", lambda f: f.write_bytes(pickle.dumps({"model": Opens()})), "bad.pkl"),
    weights("code as .pkl, to train", lambda f: f.write_bytes(pickle.dumps(Opens())), "bad.pkl",
            how="train"),
    weights("code as .pyth", lambda f: torch.save({"model_state": Opens()}, f), "bad.pyth"),
    weights("numpy objects as .pkl", lambda f: f.write_bytes(pickle.dumps(
        {"model": {"a": np.array([None])}, "__author__": "me"})), "bad.pkl"),
    weights("of another model", lambda f: torch.save({"model": {"a.weight": torch.zeros(3)}}, f)),
    weights("of another model, to train",
            lambda f: torch.save({"model": {"a.weight": torch.zeros(3)}}, f), how="train"),
    weights("under torch.compile", lambda f: torch.save({"model": {
        f"_orig_mod.{k}": x for k, x in good().items()}}, f)),
    weights("under torch.compile, to train", lambda f: torch.save({"model": {
        k.replace("backbone.", "backbone._orig_mod."): x for k, x in good().items()}}, f),
        how="train"),
    weights("of a box head for all classes together", lambda f: torch.save({"model": {
        k: x[:4].clone() if "bbox_pred" in k else x for k, x in good().items()}}, f)),
    weights("of batch normalization", lambda f: torch.save({"model": {**good(), **{
        k.replace("norm.weight", "norm.running_var"): x for k, x in good().items()
        if k.endswith("norm.weight")}}}, f)),
    weights("behind the headers of HTTP", lambda f: f.write_bytes(
        b"HTTP/1.1 200 OK\r\n\r\n" + Path("good.pth").read_bytes())),
    weights("in base64", lambda f: f.write_bytes(
        base64.encodebytes(Path("good.pth").read_bytes()[:9999]))),
    weights("of Keras", lambda f: f.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(999)), "bad.h5"),
    weights("safetensors, cut off", lambda f: f.write_bytes(
        b"\x40" + bytes(7) + b'{"a":{"dtype":"F32","shape":[3,3],"data_offsets":[0,36]}}'),
        "bad.safetensors"),
    weights("the name of the last checkpoint", lambda f: f.write_text("model_final.pth")),
    *(Bad("weights", x, ("MODEL.WEIGHTS",), {"MODEL.WEIGHTS": x}) for x in (
        "good.pth,good.pth", "model_*.pth", "$CKPT_DIR/good.pth",
        "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml")),
    Bad("weights", "nothing to evaluate", ("MODEL.WEIGHTS",), arguments=("--eval-only",)),
    Bad("weights", "of another architecture than a Python config", ("good.pth",),
        {"train.init_checkpoint": "good.pth"}, arguments=("--eval-only",), config=LAZY,
        plain=False),
    weights("without a head", lambda f: without("roi_heads.box_predictor", f)),
    weights("without a layer", lambda f: without("backbone.bottom_up.stem", f)),
    weights("without the RPN", lambda f: without("proposal_generator", f)),
    weights("of other classes", other_classes),
    weights("NaN", lambda f: with_value(math.nan, f)),
    weights("NaN, to train", lambda f: with_value(math.nan, f), how="train"),
    weights("infinite", lambda f: with_value(math.inf, f)),
    weights("with which numbers overflow", lambda f: torch.save({"model": {
        k: 1e30 * x if k == "roi_heads.box_head.fc1.weight" else x
        for k, x in good().items()}}, f)),
    weights("of one more block of a stage", lambda f: torch.save({"model": {
        **good(), "backbone.bottom_up.res4.7.conv1.weight": torch.ones(3, 3)}}, f)),
    resume("truncated", lose_end),
    resume_otherwise("INPUT.FORMAT", "RGB"),
    resume_otherwise("MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64], [96], [128], [192]]"),
    resume_otherwise("MODEL.FPN.FUSE_TYPE", "avg"),
    resume_otherwise("SOLVER.BIAS_LR_FACTOR", 2.0),
    resume("text", lambda f: f.write_text("no weights\n")),
    Bad("weights", "the report, without a head", ("bad.pth",), {"MODEL.WEIGHTS": "bad.pth"},
        lambda: without("roi_heads.box_predictor", Path("bad.pth")), command="report", plain=False),
    Bad("weights", "the report, text", ("bad.pth",), {"MODEL.WEIGHTS": "bad.pth"},
        lambda: Path("bad.pth").write_text("no"), command="report", plain=False),
    Bad("weights", "code as a file of proposals", ("PROPOSAL_FILES_TRAIN",),
        {"MODEL.LOAD_PROPOSALS": True, "MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals",
         "DATASETS.PROPOSAL_FILES_TRAIN": "('p.pkl',)",
         "DATASETS.PROPOSAL_FILES_TEST": "('p.pkl',)"},
        lambda: Path("p.pkl").write_bytes(pickle.dumps(Opens()))),
    weights("as state_dict, beside an epoch", lambda f: torch.save(
        {"epoch": 3, "state_dict": good()}, f)),
    weights("a sparse tensor", lambda f: torch.save(
        {"model": {k: x.to_sparse() if x.ndim == 2 else x for k, x in good().items()}}, f)),
    proposals("a score too few", lambda boxes: boxes, scores=2),
    proposals("the second corner first", lambda boxes: boxes[:, [2, 3, 0, 1]]),
    proposals("NaN", lambda boxes: boxes * math.nan),
    proposals("five columns", lambda boxes: np.hstack([boxes, boxes[:, :1]])),
    proposals("parts of the image", lambda boxes: boxes / 100),
    proposals("a text as their mode", lambda boxes: boxes, bbox_mode="XYWH"),
]  # fmt: skip

# ---------------------------------------------------------------------------------------- folders


def out_folder(name: str, path: str, prepare: Callable[[], object] = lambda: None) -> Bad:
    """An output folder that cannot be one."""
    return Bad("folders", f"OUTPUT_DIR, {name}", ("OUTPUT_DIR",), {"OUTPUT_DIR": path}, prepare)


def in_the_way(name: str, make: Callable[[Path], object], what: str) -> Bad:
    """Something in the output folder that a run cannot write."""

    def prepare() -> None:
        file = Path("out") / name
        file.parent.mkdir(parents=True)
        make(file)

    return Bad("folders", f"{name} in OUTPUT_DIR, {what}", ("OUTPUT_DIR",), {"OUTPUT_DIR": "out"},
               prepare)  # fmt: skip


def data_folder(name: str, path: str) -> Bad:
    """A folder for data sets that cannot be one."""
    return Bad(
        "folders", f"DETECTRON2_DATASETS, {name}", ("DETECTRON2_DATASETS",),
        {"DATASETS.TRAIN": "('ohem_shapes_train',)", "DATASETS.TEST": "('ohem_shapes_test',)"},
        lambda: Path("file").write_text("x"), environment={"DETECTRON2_DATASETS": path},
        plain=False,
    )  # fmt: skip


def annotations(name: str, make: Callable[[Path], object]) -> Bad:
    """COCO's annotations, which are none."""

    def prepare() -> None:
        for folder in ("train2017", "annotations"):
            Path("datasets/coco", folder).mkdir(parents=True)
        make(Path("datasets/coco/annotations/instances_train2017.json"))

    return Bad(
        "folders", f"annotations, {name}", ("instances_train2017.json",),
        {"DATASETS.TRAIN": "('coco_2017_train',)", "DATASETS.TEST": "()"}, prepare,
    )  # fmt: skip


def images(name: str, spoil: Callable[[Path], object], *names: str) -> Bad:
    """Images of COCO in Detectron2's layout, and what is wrong with their folder."""

    def prepare() -> None:
        folder = Path("datasets/coco/train2017")
        shutil.copytree("shapes/JPEGImages", folder)
        content = json.loads(Path("shapes/train.json").read_text())
        classes = [{"id": x["id"], "name": x["name"]} for x in COCO_CATEGORIES if x["isthing"]]
        file = Path("datasets/coco/annotations/instances_train2017.json")
        file.parent.mkdir()
        file.write_text(json.dumps({**content, "categories": classes}))
        spoil(folder)

    return Bad(
        "folders", f"images of COCO, {name}", names or ("train2017",),
        {"DATASETS.TRAIN": "('coco_2017_train',)", "DATASETS.TEST": "()",
         f"{HEADS}.NUM_CLASSES": 80}, prepare,
    )  # fmt: skip


def into_itself(folder: Path) -> None:
    """Unpack a folder into a folder of its name."""
    folder.rename("unpacked")
    folder.mkdir()
    Path("unpacked").rename(folder / folder.name)


def gone(folder: Path) -> None:
    """Leave a link to a place that is gone."""
    shutil.rmtree(folder)
    folder.symlink_to("/nothing/here")


def voc(name: str, text: str, *names: str) -> Bad:
    """A list of images in PASCAL VOC's layout."""

    def prepare() -> None:
        folder = Path("datasets/VOC2007")
        for part in ("Annotations", "JPEGImages"):
            shutil.copytree(f"shapes/{part}", folder / part)
        (folder / "ImageSets/Main").mkdir(parents=True)
        (folder / "ImageSets/Main/trainval.txt").write_text(text)

    return Bad(
        "folders", f"the list of VOC, {name}", names or ("trainval.txt",),
        {"DATASETS.TRAIN": "('voc_2007_trainval',)", "DATASETS.TEST": "()",
         f"{HEADS}.NUM_CLASSES": 20}, prepare,
    )  # fmt: skip


def limit_files(kilobytes: int) -> None:
    """Let this process write small files only."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 * kilobytes, most))


def long_temporary_folder() -> None:
    """Put what is temporary into a folder of a long name."""
    folder = Path("of a user with a long name " * 4).absolute()
    folder.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


FOLDERS = [
    images("one is empty", lambda f: (f / "train_00002.jpg").write_bytes(b""), "train_00002.jpg"),
    images("one is missing", lambda f: (f / "train_00002.jpg").unlink(), "train_00002.jpg"),
    images("one is no image", lambda f: (f / "train_00002.jpg").write_text("<html>404</html>"),
           "train_00002.jpg"),
    images("one is cut off", lambda f: os.truncate(f / "train_00002.jpg", 2000), "train_00002.jpg"),
    images("one is of another size", lambda f: Image.new("RGB", (9, 9)).save(f / "train_00002.jpg"),
           "train_00002.jpg"),
    images("in a folder too many", into_itself),
    images("behind a link to nothing", gone),
    voc("with suffixes", "train_00000.jpg\ntrain_00001.jpg\n"),
    voc("of other images", "000001\n000002\n"),
    Bad("folders", "no data of Cityscapes", ("cityscapes",),
        {"DATASETS.TRAIN": "('cityscapes_fine_instance_seg_train',)", "DATASETS.TEST": "()"}),
    out_folder("a file", "file", lambda: Path("file").write_text("x")),
    out_folder("below a file", "file/out", lambda: Path("file").write_text("x")),
    out_folder("empty", "''"),
    out_folder("a space", "' '"),
    out_folder("300 characters", "a" * 300),
    out_folder("not to be written", "/proc/out"),
    out_folder("an address", "s3://bucket/out"),
    out_folder("the home of nobody", "~/out"),
    out_folder("None", "None"),
    out_folder("a variable", "$HOME/out"),
    out_folder("a new line", "out\nput"),
    Bad("folders", "a limit of 200 kB on files", ("OUTPUT_DIR",), prepare=lambda: limit_files(200)),
    Bad("folders", "FVCORE_CACHE, a file", ("FVCORE_CACHE",),
        {"MODEL.WEIGHTS": "http://127.0.0.1:9/x.pth"}, lambda: Path("file").write_text("x"),
        environment={"FVCORE_CACHE": "file"}, plain=False),
    Bad("folders", "a TMPDIR too long for sockets of workers", ("TMPDIR",),
        {"DATALOADER.NUM_WORKERS": 2}, prepare=long_temporary_folder, plain=False),
    out_folder("what a shell did not replace", "runs/*"),
    out_folder("a placeholder", "runs/<name>"),
    in_the_way("config.yaml", lambda f: f.write_text("_BASE_: mine.yaml\n"), "written by hand"),
    out_folder("a space at its end", "out "),
    out_folder("of Windows", "C:\\Users\\me\\runs"),
    out_folder("a link to a place that is gone", "out", lambda: Path("out").symlink_to("/gone/x")),
    out_folder("a code for terminals", "out\x1b[31m"),
    *(out_folder("on another machine", x) for x in ("me@cluster:/scratch/out", "node7:/out")),
    Bad("folders", "train.output_dir, on another machine", ("train.output_dir",),
        {"train.output_dir": "me@cluster:/scratch/out"}, config=LAZY, plain=False),
    Bad("folders", "--output of the report, on another machine", ("--output",),
        arguments=("--output", "me@cluster:out"), command="report", plain=False),
    *(in_the_way(x, Path.mkdir, "a folder") for x in (
        "config.yaml", "log.txt", "metrics.json", "last_checkpoint", "model_final.pth",
        "inference/coco_instances_results.json")),
    *(in_the_way(x, Path.touch, "a file") for x in ("inference", "pictures")),
    in_the_way("metrics.json", lambda f: os.mkfifo(f), "a pipe"),
    in_the_way(".lock", lambda f: os.mkfifo(f), "a pipe"),
    in_the_way("pictures/mined.jpg", Path.mkdir, "a folder"),
    *(in_the_way(x, lambda f: f.symlink_to("/nothing/here"), "a link to nothing") for x in (
        "log.txt", "model_final.pth")),
    in_the_way("metrics.json", lambda f: f.symlink_to("/dev/full"), "a device"),
    data_folder("a file", "file"),
    data_folder("below a file", "file/data"),
    data_folder("an address", "s3://bucket"),
    data_folder("not to be written", "/proc/data"),
    data_folder("300 characters", "a" * 300),
    data_folder("empty", ""),
    data_folder("a space", " "),
    data_folder("the home of nobody", "~nosuchuser/data"),
    data_folder("a variable", "$HOME/data"),
    data_folder("a list", "/data/a:/data/b"),
    annotations("HTML", lambda f: f.write_text("<html>404</html>")),
    annotations("cut off", lambda f: f.write_text('{"images": [')),
    annotations("a folder", Path.mkdir),
    annotations("captions", lambda f: f.write_text(json.dumps({"images": [], "annotations": []}))),
    Bad("folders", "--output of the report, empty", ("--output",), arguments=("--output", ""),
        command="report", plain=False),
    Bad("folders", "--output of the report, a folder in it", ("hard_examples.json",),
        prepare=lambda: Path("report/hard_examples.json").mkdir(parents=True), command="report",
        plain=False),
    Bad("folders", "--output of the report, a file", ("--output",),
        prepare=lambda: Path("report").write_text("x"), command="report", plain=False),
    Bad("folders", "train.output_dir, a file", ("train.output_dir",),
        {"train.output_dir": "file"}, lambda: Path("file").write_text("x"), config=LAZY,
        plain=False),
]  # fmt: skip

# ---------------------------------------------------------------------------------------- configs


def child(text: str) -> None:
    """Write a config that is based on the one that works."""
    Path("child.yaml").write_text(f"_BASE_: quick_start.yaml\n{text}")


def base(name: str, text: str, prepare: Callable[[], object] = lambda: None) -> Bad:
    """A config with a wrong base, or that is none."""

    def write() -> None:
        prepare()
        Path("bad.yaml").write_text(text)

    return Bad("configs", name, ("bad.yaml",), prepare=write, config="bad.yaml")


def python(name: str, text: str) -> Bad:
    """A Python config that is none."""
    return Bad("configs", f"a Python config {name}", ("bad.py",),
               prepare=lambda: Path("bad.py").write_text(text), config="bad.py",
               plain=False)  # fmt: skip


# A config that begins as the one that works.
AS_LAZY = (
    f"from detectron2.config import LazyConfig\nfor x, y in LazyConfig.load({LAZY!r}).items():\n"
    "    globals()[x] = y\n"
)
SECRET = "root:secret*:19000: [0:99999\n"


def hide() -> None:
    """A file of another kind, with the name of a config."""
    Path("hidden").write_text(SECRET)
    Path("link.yaml").symlink_to("hidden")


CONFIGS = [
    base("a system's file as base", "_BASE_: /etc/passwd\n"),
    base("a file elsewhere as base", "_BASE_: ../elsewhere\n",
         lambda: Path("../elsewhere").write_text(SECRET)),
    base("a link to a file elsewhere as base", "_BASE_: link.yaml\n",
         hide),
    base("an address as base", "_BASE_: http://127.0.0.1:9/a.yaml\n"),
    base("an address of s3 as base", "_BASE_: s3://bucket/a.yaml\n"),
    base("a base that is not there", "_BASE_: nothing.yaml\n"),
    base("a base that is empty", "_BASE_: ''\n"),
    base("a number as base", "_BASE_: {a: 1}\n"),
    base("a config whose base has it as base", "_BASE_: child.yaml\n",
         lambda: Path("child.yaml").write_text("_BASE_: bad.yaml\n")),
    base("itself as base", "_BASE_: bad.yaml\n"),
    base("a tag that runs code", "OUTPUT_DIR: !!python/object/apply:os.mkdir [ran]\n"),
    base("a date as OUTPUT_DIR", "_BASE_: quick_start.yaml\nOUTPUT_DIR: 2026-11-27\n"),
    base("a list", "- a\n- b\n"),
    base("an empty file", ""),
    base("no YAML", "MODEL: [\n"),
    base("a tab", "MODEL:\n\tDEVICE: cpu\n"),
    base("an unknown key", "MODEL: {ROI_HEAD: {NAME: StandardROIHeads}}\n"),
    base("a text for a node", "MODEL: fast\n"),
    base("a later version", "VERSION: 7\n"),
    base("a key twice", "SEED: 1\nSEED: 2\n"),
    base("a node twice", "SOLVER: {GAMMA: 0.1}\nMODEL: {}\nSOLVER: {BASE_LR: 0.1}\n"),
    base("a number as key", "5: x\n"),
    base("two documents", "SEED: 1\n---\nSEED: 2\n"),
    base("aliases that grow without end", "".join(
        f"x{i + 1}: &x{i + 1} [{', '.join([f'*x{i}' if i else 'a'] * 9)}]\n" for i in range(12))),
    base("an alias of what it is in", "MODEL: &m {ROI_HEADS: *m}\n"),
    base("10000 brackets", f"SEED: {'[' * 10000}\n"),
    base("a chain of bases", "_BASE_: c0.yaml\n", lambda: [
        Path(f"c{i}.yaml").write_text(f"_BASE_: c{i + 1}.yaml\n") for i in range(1500)]),
    base("a key with points", "MODEL.ROI_HEADS.NAME: StandardROIHeads\n"),
    base("a conflict of git", "<<<<<<< HEAD\nSEED: 1\n=======\nSEED: 2\n>>>>>>> feature\n"),
    base("a no-break space", "SOLVER:\n\u00a0 GAMMA: 0.2\n"),
    base("keys of version 2, said to be of 1", "MODEL: {WEIGHTS: x.pth}\nVERSION: 1\n"),
    base("a version in quotes", "VERSION: '2'\n"),
    base("a template", "OUTPUT_DIR: {{ output_dir }}\n"),
    base("a web page", "\n\n\n<!DOCTYPE html>\n<html><body>a: b: c</body></html>\n"),
    base("one name without a comma", '_BASE_: quick_start.yaml\nDATASETS: {TEST: ("a")}\n'),
    base("a decimal comma", "SOLVER: {BASE_LR: '0,002'}\n"),
    base("a number of 5000 digits", f"SEED: {'9' * 5000}\n"),
    base("a data.yaml of Ultralytics", "path: coco8\ntrain: images/train\nnames: {0: person}\n"),
    base("a config of Mask2Former", "MODEL: {MASK_FORMER: {HIDDEN_DIM: 256}}\n"),
    *(base(f"the number {x}", f"_BASE_: quick_start.yaml\nSOLVER:\n  MAX_ITER: {x}\n")
      for x in ("010", "1:30")),
    base("a path of Windows as base", '_BASE_: "C:\\configs\\quick_start.yaml"\n'),
    base("curly quotes", "DATASETS: {TRAIN: (\u201ccoco_2017_train\u201d,)}\n"),
    base("a Python config that was saved", "train: {}\nmodel: {_target_: a.b}\n"),
    Bad("configs", "a wrong value in the base", ("child.yaml",), config="bad.yaml",
        prepare=lambda: [Path(f"{x}.yaml").write_text(text) for x, text in (
            ("child", "SOLVER: {GAMMA: [0.1]}\n"), ("bad", "_BASE_: child.yaml\n"))]),
    Bad("configs", "a notebook", ("bad.ipynb",), config="bad.ipynb",
        prepare=lambda: Path("bad.ipynb").write_text('{"cells": [], "nbformat": 4}')),
    Bad("configs", "a long dash", ("\u2013eval-only",), arguments=("\u2013eval-only",)),
    Bad("configs", "an unknown argument", ("--opts",), arguments=("--opts",)),
    Bad("configs", "--config-file twice", ("--config-file",),
        arguments=("--config-file", "quick_start.yaml")),
    Bad("configs", "--num-gpus two", ("--num-gpus",), arguments=("--num-gpus", "two")),
    Bad("configs", "--machine-rank 1", ("--machine-rank",), arguments=("--machine-rank", "1"),
        plain=False),
    Bad("configs", "--num-machines 0", ("--num-machines",), arguments=("--num-machines", "0"),
        plain=False),
    Bad("configs", "--dist-url without tcp://", ("--dist-url",), plain=False,
        arguments=("--num-machines", "2", "--dist-url", "127.0.0.1:29511")),
    *(Bad("configs", f"--num-machines 2 {' '.join(x)}".rstrip(), ("--num-machines", "--dist-url"),
          arguments=("--num-machines", "2", *x), plain=False)
      for x in ((), ("--dist-url", "auto"), ("--dist-url", "tcp://10.0.0.1"),
                ("--dist-url", "tcp://10.0.0.1:0"), ("--dist-url", "tcp://fe80::1:29511"))),
    base("_base_ for _BASE_", "_base_: quick_start.yaml\n"),
    Bad("configs", "--resume True", ("'True'",), arguments=("--resume", "True"), plain=False),
    Bad("configs", "a key without a value", ("SEED",),
        arguments=("SEED", "SOLVER.GAMMA", "0.1", "VIS_PERIOD")),
    Bad("configs", "KEY = VALUE", ("SOLVER.MAX_ITER",), arguments=("SOLVER.MAX_ITER", "=", "5")),
    Bad("configs", "a setting below a value", ("SEED.X",), {"SEED.X": 5}),
    *(python(name, text) for name, text in (
        ("that ends the program", "import sys\nsys.exit(0)\n"),
        ("without a model", "train = dict(output_dir='out')\n"),
        ("with a model that is none", "model = 'mask_rcnn'\ntrain = dict(output_dir='out')\n"),
        ("that is empty", ""),
        ("that is a web page", "\n\n<!DOCTYPE html>\n<html><body>404</body></html>\n"),
        ("that is no Python", "train = dict(\n  a=1\n  b=2)\n"),
        ("of MMDetection", "model = dict(type='FasterRCNN')\noptim_wrapper = dict(lr=0.02)\n"),
        ("that trains by itself", "from detectron2.config import get_cfg\ncfg = get_cfg()\n"),
        ("that needs a variable", f"{AS_LAZY}train.max_iter = '${{oc.env:NOT_SET}}'\n"),
        ("that refers to itself", f"{AS_LAZY}train.max_iter = '${{train.max_iter}}'\n"),
        ("with a class where a call is meant",
         f"{AS_LAZY}from detectron2.modeling.roi_heads import FastRCNNConvFCHead as Head\n"
         "model.roi_heads.box_head = Head\n"),
        ("that refers to nothing",
         f"{AS_LAZY}train.max_iter = '${{nothing.here}}'\n"))),
    Bad("configs", "Python configs that import each other", ("bad.py",), prepare=lambda: [
        Path(f"{x}.py").write_text(f"from .{y} import train\n") for x, y in (
            ("bad", "other"), ("other", "bad"))], config="bad.py", plain=False),
    Bad("configs", "a Python setting without a key", (LAZY, "in the settings"), {"": 5},
        config=LAZY, plain=False),
    Bad("configs", "a binary file", ("bad.yaml",),
        prepare=lambda: Path("bad.yaml").write_bytes(bytes(range(256))), config="bad.yaml"),
    Bad("configs", "a config that is not there", ("none.yaml",), config="none.yaml"),
    Bad("configs", "a folder as config", ("folder.yaml",),
        prepare=lambda: Path("folder.yaml").mkdir(), config="folder.yaml"),
    Bad("configs", "a Python config that does not run", ("broken.py",),
        prepare=lambda: Path("broken.py").write_text("import nothing_of_this_name\n"),
        config="broken.py", plain=False),
    Bad("configs", "an unknown setting", ("MODEL.ROI_HEAD.NAME",), {"MODEL.ROI_HEAD.NAME": "A"}),
    *(Bad("configs", f"--num-gpus {x}", ("--num-gpus",), arguments=("--num-gpus", str(x)),
          plain=False) for x in (-1, 100000)),
    Bad("configs", "an unknown data set", ("DATASETS.TRAIN",), {"DATASETS.TRAIN": "('coco_17',)"}),
    Bad("configs", "a data set that is not there", ("DATASETS.TEST",),
        {"DATASETS.TEST": "('coco://none.json?images=shapes/JPEGImages',)"}, plain=False),
]  # fmt: skip

# What is right, and has to be taken.
GOOD = [
    Bad("good", "train", ()),
    Bad("good", "train a Python config", (), config=LAZY, plain=False),
    Bad("good", "train from weights", (), {"MODEL.WEIGHTS": "good.pth"}),
    Bad("good", "evaluate", (), {"MODEL.WEIGHTS": "good.pth"}, arguments=("--eval-only",)),
    Bad("good", "report", (), command="report", plain=False),
]

ALL = [*KEYS, *WEIGHTS, *FOLDERS, *CONFIGS]

# ----------------------------------------------------------------------------------------- running


def run_ours(bad: Bad) -> None:
    """What ``ohem-d2`` makes of it."""
    config = bad.config or "quick_start.yaml"
    settings = dict(bad.settings)
    if config.endswith(".py"):
        settings = {"train.output_dir": "out", **settings}
        opts = [f"{k}={v}" for k, v in settings.items()]
    else:
        opts = [str(x) for pair in {**TINY, **settings}.items() for x in pair]
    if bad.command == "report":
        data = str(TINY["DATASETS.TEST"])[2:-3]
        if "MODEL.WEIGHTS" not in settings:
            opts += ["MODEL.WEIGHTS", "good.pth"]
        output = () if "--output" in bad.arguments else ("--output", "report")
        cli.main(
            [
                "report",
                "--config-file",
                config,
                "--dataset",
                data,
                *output,
                *bad.arguments,
                *opts,
            ]
        )
    else:
        cli.main(["train", "--config-file", config, *bad.arguments, *opts])


def run_plain(bad: Bad) -> None:
    """What Detectron2's tools/train_net.py makes of it, with our data sets registered."""
    opts = [str(x) for pair in {**TINY, **PLAIN, **bad.settings}.items() for x in pair]
    config = bad.config or "quick_start.yaml"
    args = default_argument_parser().parse_args(["--config-file", config, *bad.arguments, *opts])
    cfg = get_cfg()
    add_ohem_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if isinstance(cfg.DATASETS.TRAIN, tuple) and all("://" in str(x) for x in cfg.DATASETS.TRAIN):
        register_datasets(cfg)
    if not torch.cuda.is_available() and cfg.MODEL.DEVICE == "cuda":
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    default_setup(cfg, args)
    if args.eval_only:
        model = PlainTrainer.build_model(cfg)
        DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        PlainTrainer.test(cfg, model)
        return
    trainer = PlainTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


class PlainTrainer(DefaultTrainer):
    """Detectron2's, with its evaluator of COCO."""

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR)


def note_the_beginning() -> None:
    """
    Leave a file behind when a training has made its first step, or the look at images begins.

    Nothing may stand around the step itself: an error that comes through code of a user's own, as
    this would be, is not ours to answer.
    """
    after_step = TrainerBase.after_step

    def note(self) -> None:
        Path(os.environ["BEGUN"]).touch()
        after_step(self)

    TrainerBase.after_step = note

    def inference(*args: object, **kwargs: object) -> object:
        Path(os.environ["BEGUN"]).touch()
        return inference_on_dataset(*args, **kwargs)

    for module in ("detectron2.engine.defaults", "ohem_d2.training.lazy_trainer"):
        sys.modules[module].inference_on_dataset = inference  # type: ignore[attr-defined]


def work(run: Callable[[Bad], None], bad: Bad, folder: Path) -> None:
    """Be the process of a run: all it says goes to files in a folder beside its own."""
    os.chdir(folder)
    for name, file in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder.parent / file, os.O_WRONLY | os.O_CREAT), name)
    os.environ.update(bad.environment, BEGUN=str(folder.parent / "begun"))
    torch.set_num_threads(1)
    note_the_beginning()
    bad.prepare()
    try:
        run(bad)
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
        code = 1 if isinstance(e.code, str) else int(e.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def outcome(run: Callable[[Bad], None], bad: Bad, template: Path) -> tuple[str, str]:
    """
    Run it.

    Returns:
        one of `OUTCOMES`, and the last line that was written to stderr.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "folder"
        shutil.copytree(template, folder)
        process = multiprocessing.get_context("fork").Process(target=work, args=(run, bad, folder))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return "no end", ""
        text = (Path(name) / "stderr").read_text(errors="replace")
        lines = [x for x in text.splitlines() if x.strip() and "resource_tracker" not in x]
        last = lines[-1] if lines else ""
        for place in (name, str(ROOT), sys.prefix):
            last = last.replace(place, "...")
        begun = (Path(name) / "begun").exists()
        if (folder / "ran").exists():
            return "accepted", f"its code ran. {last}"
        if process.exitcode == 0:
            return "accepted", last
        if begun:
            return "too late", last
        is_line = last.startswith("error: ") and "Traceback (most" not in text
        tells = any(x in last for x in ("secret", "root:", "weights_only", "issue", "github.com"))
        if is_line and not tells and any(x in last for x in bad.names):
            return "one line", last
        return "traceback", last


def make_template(folder: Path) -> None:
    """What each run starts from: a config that works, its data, and good weights."""
    write_shapes(folder / "shapes", sizes={"train": 4, "test": 2})
    cfg = load_config(str(ROOT / "configs" / "quick_start.yaml"))
    (folder / "quick_start.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, folder / "good.pth")
    zoo = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
    assert model_zoo.get_config_file(zoo.replace(".py", ".yaml"))
    data = "dict(_target_='detectron2.data.get_detection_dataset_dicts', names={!r})"
    names = [TINY[f"DATASETS.{x}"][2:-3] for x in ("TRAIN", "TEST")]
    (folder / LAZY).write_text(
        "from detectron2 import model_zoo\n"
        "from ohem_d2 import with_ohem\n"
        f"plain = model_zoo.get_config({zoo!r})\n"
        "dataloader, lr_multiplier, model, optimizer, train = (plain[k] for k in (\n"
        "    'dataloader', 'lr_multiplier', 'model', 'optimizer', 'train'))\n"
        "model.roi_heads = with_ohem(model.roi_heads, loss_weight_cls=1.0)\n"
        "for x in ('mask_in_features', 'mask_pooler', 'mask_head'):\n"
        "    model.roi_heads[x] = None\n"
        "dataloader.train.mapper.use_instance_mask = False\n"
        "dataloader.train.mapper.recompute_boxes = False\n"
        f"dataloader.train.dataset = {data.format(names[0])}\n"
        f"dataloader.test.dataset = {data.format(names[1])}\n"
        "dataloader.train.total_batch_size = 1\n"
        "dataloader.train.num_workers = dataloader.test.num_workers = 0\n"
        "train.init_checkpoint = ''\n"
        "train.max_iter = 1\n"
        "train.device = 'cpu'\n"
        "train.amp.enabled = False\n"
    )


def main() -> None:
    """Read the command line, run, and store what came out."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = list(dict.fromkeys(bad.kind for bad in ALL))
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(kinds)}; default: all, stored")
    parser.add_argument("--only-ours", action="store_true", help="leave Detectron2 out")
    args = parser.parse_args()
    if unknown := set(args.kinds) - set(kinds):
        sys.exit(f"error: {', '.join(unknown)} is no kind, expected of {', '.join(kinds)}")
    results = []
    with tempfile.TemporaryDirectory() as name:
        make_template(Path(name) / "template")
        for good in GOOD:
            found, line = outcome(run_ours, good, Path(name) / "template")
            if found != "accepted":
                sys.exit(f"error: {good.name}: {found} ({line}), expected it to be accepted")
        for bad in ALL:
            if args.kinds and bad.kind not in args.kinds:
                continue
            result = {"kind": bad.kind, "name": bad.name}
            result["ohem_d2"], line = outcome(run_ours, bad, Path(name) / "template")
            if bad.plain and not args.only_ours:
                result["detectron2"], _ = outcome(run_plain, bad, Path(name) / "template")
            results.append(result | {"line": line})
            mark = " " if result["ohem_d2"] == "one line" else "!"
            print(f"{mark} {bad.kind}: {bad.name[:60]}: {result['ohem_d2']} "
                  f"({result.get('detectron2', '-')})\n      {line[:300]}", flush=True)  # fmt: skip
    for who in ("ohem_d2", "detectron2"):
        print(who, dict(Counter(r[who] for r in results if who in r)))
    if not args.kinds and not args.only_ours:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": describe("cpu"), "inputs": results}
        RESULTS.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
