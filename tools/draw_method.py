#!/usr/bin/env python
"""
Draw how mining goes, step by step, for one image and a trained model: the picture in README.md.

    python tools/draw_method.py --weights output/quick_start/model_final.pth --image 5 \\
        --budget 20 --output docs/method.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetMapper, get_detection_dataset_dicts
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage

from ohem_d2.data import register_datasets
from ohem_d2.mining.error_types import ERROR_TYPES
from ohem_d2.mining.select import select_hard_examples
from ohem_d2.modeling.metrics import error_types_of
from ohem_d2.training.config_file import load_config
from ohem_d2.visualization import ERROR_COLORS

QUICK_START = Path(__file__).parent.parent / "configs" / "quick_start.yaml"


def main() -> None:
    """Read the command line, mine one image, and draw each step."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--config-file", default=str(QUICK_START))
    parser.add_argument("--weights", required=True, help="a checkpoint")
    parser.add_argument("--image", type=int, default=0, help="its number in the training set")
    parser.add_argument("--budget", type=int, default=16, help="RoIs to select")
    parser.add_argument("--output", required=True, help="the picture to write")
    args = parser.parse_args()
    cfg = load_config(args.config_file, ["MODEL.WEIGHTS", args.weights])
    register_datasets(cfg)
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)

    record = get_detection_dataset_dicts(cfg.DATASETS.TRAIN)[args.image]
    x = DatasetMapper(cfg, is_train=True, augmentations=[])(record)
    image = convert_image_to_rgb(x["image"].permute(1, 2, 0), cfg.INPUT.FORMAT)
    rois, losses = read(model, x)
    steps = mine(model.roi_heads, rois, losses, args.budget)

    figure, axes = plt.subplots(1, len(steps), figsize=(4 * len(steps), 4.6))
    brightest = float(losses.max())
    for axis, (title, chosen, by_kind) in zip(axes, steps):
        shown = image if by_kind else image // 2  # dimmed, for the boxes to stand out
        axis.imshow(shown, extent=(0, image.shape[1], image.shape[0], 0))
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
        for i in reversed(chosen.tolist()):
            share = float(losses[i]) / brightest
            color: tuple[Sequence[float], float] = plt.cm.plasma(share), 0.15 + 0.85 * share
            if by_kind:
                color = ERROR_COLORS[error_type_of(model.roi_heads, rois, i)], 1.0
            draw_box(axis, rois.proposal_boxes.tensor[i], color)
    present = sorted({error_type_of(model.roi_heads, rois, i) for i in steps[-1][1].tolist()})
    handles = [
        plt.Line2D([], [], color=ERROR_COLORS[k], lw=3, label=ERROR_TYPES[k]) for k in present
    ]
    axes[-1].legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=2, frameon=False
    )
    figure.tight_layout()
    figure.savefig(args.output, dpi=110)


@torch.no_grad()
def read(model, x: dict) -> tuple[Instances, torch.Tensor]:
    """All labelled RoIs of an image, and what each costs."""
    model.train()
    for module in model.modules():  # batch statistics of a single image say little
        if isinstance(module, torch.nn.modules.batchnorm._NormBase):
            module.eval()
    with EventStorage():
        images = model.preprocess_image([x])
        targets = [x["instances"].to(model.device)]
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features, targets)
        labelled, rois = model.roi_heads.label_and_read_proposals(features, proposals, targets)
    return labelled[0].to("cpu"), (rois.loss_cls + rois.loss_box_reg).cpu()


def mine(heads, rois, losses, budget: int) -> list[tuple[str, torch.Tensor, bool]]:
    """Each step: its title, the RoIs that are left, costliest first, and whether to name errors."""
    settings = {
        "losses": losses,
        "boxes": rois.proposal_boxes.tensor,
        "labels": rois.gt_classes,
        "image_ids": torch.zeros_like(rois.gt_classes),
        "num_classes": heads.num_classes,
    }
    everything = select_hard_examples(**settings, num_samples=len(rois), nms_thresh=1)
    settings["nms_thresh"] = heads.ohem.nms_thresh
    survivors = select_hard_examples(**settings, num_samples=len(rois))
    hardest = select_hard_examples(**settings, num_samples=budget)
    return [
        (f"1. all {len(rois)} RoIs, read once\n(bright: high loss)", everything, False),
        (f"2. without duplicates: {len(survivors)}\n", survivors, False),
        (
            f"3. the {budget} with the highest loss:\nthe hard examples",
            hardest,
            True,
        ),
    ]


def error_type_of(heads, rois, i: int) -> int:
    """The error type of one RoI, as a position in ERROR_TYPES."""
    return int(error_types_of(rois[[i]], heads.num_classes))


def draw_box(axis, box, color) -> None:
    """One box, in a colour and its opacity."""
    x0, y0, x1, y1 = np.asarray(box)
    axis.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=1.5))


if __name__ == "__main__":
    main()
