#!/usr/bin/env python
"""
What it saves not to pool again, for training, what was pooled to rank RoIs.

It times the pooling of a step of Faster R-CNN R50-FPN (all that is read, and the forward and the
backward pass of what is trained on) and whole steps, in CPU seconds, which other work changes less.
It compares the peak memory of whole steps, and adds a section to a page in Markdown.
"""

import argparse
import statistics
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from environment import describe
from step_cost import MINING, Contender, make_inputs

from ohem_d2.modeling.pooling import AllCoresROIPooler
from ohem_d2.modeling.pooling_once import OnceROIPooler
from ohem_d2.training.config_file import load_config

BUDGET = 512


def seconds(pooler: AllCoresROIPooler, features: list, boxes: list, chosen: list) -> dict:
    """CPU seconds of each part of the pooling of a step."""
    taken = {}

    def timed(name: str, function: Callable):
        start = time.process_time()
        result = function()
        taken[name] = time.process_time() - start
        return result

    @torch.no_grad()
    def read() -> None:
        for start in range(0, max(map(len, boxes)), BUDGET):
            pooler(features, [x[start : start + BUDGET] for x in boxes])

    def pool() -> torch.Tensor:
        timed("reading", read)
        return timed("training, forward", lambda: pooler(features, chosen))

    if isinstance(pooler, OnceROIPooler):
        with pooler.keeping():
            pooled = pool()
    else:
        pooled = pool()
    gradient = torch.ones_like(pooled)
    timed("training, backward", lambda: pooled.backward(gradient))
    for x in features:
        x.grad = None
    return taken | {"all": sum(taken.values())}


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 800), metavar=("H", "W"))
    parser.add_argument("--proposals", type=int, default=2000, help="of each image")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--title", default="Pooling once", help="of the section")
    parser.add_argument("--output", type=Path, default=Path("output/pooling_once.md"))
    args = parser.parse_args()
    height, width = args.size
    cfg = load_config(
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"]
    )
    data = make_inputs(cfg, args.images, args.proposals, (height, width))
    contenders = {
        name: Contender(cfg, MINING["StandardROIHeads"], None, *data) for name in ("again", "once")
    }
    heads = contenders["again"].model.roi_heads
    heads.box_pooler = AllCoresROIPooler(heads.box_pooler)
    features = [
        torch.randn(args.images, 256, -(-height // s), -(-width // s)).requires_grad_()
        for s in (4, 8, 16, 32)
    ]
    boxes = [x.proposal_boxes for x in data[1]]
    chosen = [x[torch.randperm(len(x))[:BUDGET]] for x in boxes]
    taken: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in contenders}
    for number in range(args.rounds + 1):
        for name in (*contenders,) if number % 2 else reversed([*contenders]):
            pooler = contenders[name].model.roi_heads.box_pooler
            for part, value in seconds(pooler, features, boxes, chosen).items():
                if number > 0:  # the first is for warming up
                    taken[name][part].append(value)
            start = time.process_time()
            contenders[name].step()
            if number > 0:
                taken[name]["a whole step"].append(time.process_time() - start)
    memory = {name: x.peak_memory() / 2**20 for name, x in contenders.items()}
    lines = ["| pooling, CPU ms (lowest) | again | once |", "| --- | --- | --- |"]
    for part in taken["again"]:
        cells = (
            f"{1000 * statistics.median(x[part]):.0f} ({1000 * min(x[part]):.0f})"
            for x in taken.values()
        )
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines.append(
        f"| peak memory of a step, MiB | {memory['again']:.0f} | {memory['once']:.0f} "
        f"({memory['once'] / memory['again']:.3f}) |"
    )
    setting = (
        f"{args.images} image(s) of {height} x {width}, {args.proposals} proposals each, {BUDGET} "
        f"RoIs to train on, median of {args.rounds} rounds; {describe()}"
    )
    section = "\n\n".join([f"## {args.title}", textwrap.fill(setting, 100), "\n".join(lines)])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("a") as file:
        file.write(f"\n{section}\n")
    print(section)


if __name__ == "__main__":
    main()
