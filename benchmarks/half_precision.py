#!/usr/bin/env python
"""
Would it pay to rank RoIs in half precision, and would others be selected?

    python benchmarks/half_precision.py --config-file output/quick_start/config.yaml \\
        MODEL.WEIGHTS output/quick_start/model_final.pth

mines the training images of a trained model twice, in turn: with the box branch read in float32,
and in bfloat16 (--dtype float16: in that). It adds a section to a page in Markdown.
"""

import statistics
import sys
import textwrap
import time
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import build_detection_train_loader
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from environment import describe
from torch.nn.modules.batchnorm import _NormBase

from ohem_d2 import OHEMSampler
from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.training.checks import check_weights
from ohem_d2.training.config_file import load_config
from ohem_d2.training.data_checks import check_datasets


def measure(config_file: str, opts: list[str], dtype: torch.dtype, batches: int) -> str:
    """Mine so many batches in both ways, and return the table."""
    cfg = load_config(config_file, [*opts, "SEED", "0"])
    register_datasets(cfg)
    check_datasets(*cfg.DATASETS.TRAIN)
    weights = ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    check_weights(*weights, resume=False, training=False)
    model = build_model(cfg).train()
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.eval()

    torch.manual_seed(0)
    loader = iter(build_detection_train_loader(cfg, num_workers=0))
    ratios, changed = [], []
    for number in range(batches + 1):
        order = (torch.float32, dtype) if number % 2 else (dtype, torch.float32)
        with torch.no_grad(), EventStorage():
            rois = find_rois(model, next(loader))
            mined = {x: mine(model, *rois, x) for x in order}
        if number > 0:  # the first is for warming up
            (seconds, selected), (seconds_half, selected_half) = mined[torch.float32], mined[dtype]
            ratios.append(seconds_half / seconds)
            changed.append(len(selected - selected_half) / len(selected))
    values = [
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{100 * statistics.mean(changed):.1f} % (at most {100 * max(changed):.1f} %)",
    ]
    return "\n".join(
        [
            f"| {batches} batches ranked in | time (float32: 1) | other RoIs selected |",
            "| --- | --- | --- |",
            f"| {str(dtype).removeprefix('torch.')} | {' | '.join(values)} |",
        ]
    )


def find_rois(model, batch: list[dict]) -> tuple[dict, list[Instances], list[Instances]]:
    """What a model's RoI heads are given: features, proposals, ground truth."""
    images = model.preprocess_image(batch)
    targets = [x["instances"].to(model.device) for x in batch]
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features, targets)
    return features, proposals, targets


def mine(
    model, features: dict, proposals: list[Instances], targets: list[Instances], dtype: torch.dtype
) -> tuple[float, set[int]]:
    """The seconds that ranking takes, and which RoIs are hard examples, of the whole budget."""
    heads, device = model.roi_heads, model.device.type
    _wait_for(features)
    start = time.perf_counter()
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    with autocast:
        _, candidates = heads.label_and_read_proposals(features, proposals, targets)
    _wait_for({"loss": candidates.loss_cls})
    seconds = time.perf_counter() - start
    selected = OHEMSampler()(candidates, heads.batch_size_per_image).indices
    return seconds, set(selected.tolist())


def _wait_for(tensors: dict[str, torch.Tensor]) -> None:
    for x in tensors.values():
        x.sum().item()


def main() -> None:
    """Read the command line, measure, write."""
    parser = default_argument_parser(epilog=__doc__)
    parser.add_argument("--dtype", choices=["bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--title", default="Ranking in half precision", help="of the section")
    parser.add_argument("--output", type=Path, default=Path("output/half_precision.md"))
    args = parser.parse_args()
    try:
        table = measure(args.config_file, args.opts, getattr(torch, args.dtype), args.batches)
    except InputError as e:
        sys.exit(f"error: {e}")
    section = f"## {args.title}\n\n{textwrap.fill(describe(), 100)}\n\n{table}"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("a") as file:
        file.write(f"\n{section}\n")
    print(f"\n{section}")


if __name__ == "__main__":
    main()
