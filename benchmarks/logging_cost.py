#!/usr/bin/env python
"""
What it costs to log the mining: to count it, to keep it, and to write it with Detectron2's writers.

    python benchmarks/logging_cost.py --output docs/cost/measured.md

Of each number of classes it logs as many steps as it takes to log every class twice, of RoIs drawn
at random, and appends a table. The writers (JSON and TensorBoard, every 20 steps) are timed with
the figures of the mining and, in turn, with those alone that Detectron2 logs itself.
"""

import argparse
import tempfile
import textwrap
import time
from pathlib import Path

import torch
from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter
from environment import describe
from tqdm import trange

from ohem_d2.mining.candidates import Candidates
from ohem_d2.modeling.metrics import PERIOD, MiningMetrics, add_up

NUMBERS_OF_CLASSES = (3, 80, 1203)  # the quick start's, COCO's, LVIS's
_NUM_ROIS, _BUDGET = 2000, 512
_WRITE_PERIOD = 20  # steps, as Detectron2's default trainer has it
# What Detectron2 logs of a step of Faster R-CNN.
_PLAIN = (
    *("total_loss", "loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc", "data_time"),
    *("time", "lr", "rank_data_time", "fast_rcnn/cls_accuracy", "fast_rcnn/fg_cls_accuracy"),
    *("fast_rcnn/false_negative", "rpn/num_pos_anchors", "rpn/num_neg_anchors"),
)


def make_candidates(num_classes: int, generator: torch.Generator) -> Candidates:
    """The RoIs of an image, with what the mining knows of them."""
    classes = torch.randint(0, num_classes + 1, (2, _NUM_ROIS), generator=generator)
    losses = torch.rand(2, _NUM_ROIS, generator=generator)
    return Candidates(
        boxes=torch.zeros(_NUM_ROIS, 4),
        labels=classes[0],
        image_ids=torch.zeros(_NUM_ROIS, dtype=torch.int64),
        loss_cls=losses[0],
        loss_box_reg=losses[1],
        num_classes=num_classes,
        pred_classes=classes[1],
    )


def measure(num_classes: int) -> dict[str, float]:
    """Milliseconds of a step, on the mean, and how many values are kept of it."""
    generator = torch.Generator().manual_seed(0)
    num_steps = 2 * max(PERIOD, num_classes)
    trained = torch.arange(_BUDGET)
    is_hard = trained < _BUDGET // 2
    seconds = dict.fromkeys(("count", "keep", "write", "write without mining"), 0.0)
    figures, names = MiningMetrics(), [f"class {i}" for i in range(num_classes)]
    storages = {name: EventStorage() for name in ("write", "write without mining")}
    with tempfile.TemporaryDirectory() as folder:
        writers = {
            name: (JSONWriter(f"{folder}/{name}.json"), TensorboardXWriter(f"{folder}/{name}"))
            for name in storages
        }
        for step in trange(num_steps, desc=f"{num_classes} classes", leave=False):
            candidates = make_candidates(num_classes, generator)
            for name, storage in storages.items():
                with storage:
                    for x in _PLAIN:
                        storage.put_scalar(x, 1.0)
                    start = time.perf_counter()
                    if name == "write":
                        sums = add_up(candidates, trained, is_hard).tolist()
                        counted = time.perf_counter()
                        figures.add(sums, names)
                        seconds["count"] += counted - start
                        start, before = time.perf_counter(), counted
                        seconds["keep"] += start - before
                    if step % _WRITE_PERIOD == _WRITE_PERIOD - 1:
                        for writer in writers[name]:
                            writer.write()
                    seconds[name] += time.perf_counter() - start
                    storage.step()
        for writer in (x for both in writers.values() for x in both):
            writer.close()
    numbers = [sum(len(h.values()) for h in s.histories().values()) for s in storages.values()]
    of_step = {name: 1000 * x / num_steps for name, x in seconds.items()}
    return of_step | {"values": (numbers[0] - numbers[1]) / num_steps}


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/logging_cost.md"))
    args = parser.parse_args()
    setting = f"Milliseconds of a step, on the mean, with {_NUM_ROIS} RoIs; {describe()}"
    lines = [
        "## What logging takes",
        "",
        textwrap.fill(setting, 100),
        "",
        "| classes | counting | keeping | writing (without the mining) | all that mining adds "
        "| values kept of a step |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for num_classes in NUMBERS_OF_CLASSES:
        r = measure(num_classes)
        added = r["count"] + r["keep"] + r["write"] - r["write without mining"]
        lines.append(
            f"| {num_classes} | {r['count']:.2f} | {r['keep']:.2f} | {r['write']:.2f} "
            f"({r['write without mining']:.2f}) | {added:.2f} | {r['values']:.1f} |"
        )
    section = "\n".join(lines)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("a") as file:
        file.write(f"\n{section}\n")
    print(section)


if __name__ == "__main__":
    main()
