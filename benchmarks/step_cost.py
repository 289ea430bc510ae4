#!/usr/bin/env python
"""
What mining costs a training step, in time and memory, compared with plain Detectron2.

    python benchmarks/step_cost.py --sweep proposals images classes
    python benchmarks/step_cost.py --config-file COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml

In one process and in turn, round after round, it runs real training steps (forward, backward,
optimizer) of

- plain: the config's own head,
- on the CPU, the same with RoIs pooled by all cores, as the heads of this project do it,
- mining: the head of this project that extends it, and with --candidates the same that chooses
  among fewer RoIs,
- with --rpn, plain and mining with an RPN that mines among its anchors, too,
- one pass: gradients over all RoIs, and the loss of the easy ones dropped, as in R-FCN's code (for
  StandardROIHeads without masks),

on the same images with the same proposals. It adds a section to a page in Markdown, with plots.
"""

import argparse
import copy
import statistics
import sys
import textwrap
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
import torch
from counting import peak_memory, synchronizations
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from environment import describe
from torch import Tensor, nn

from ohem_d2 import OHEMROIHeads, losses_per_roi, select_hard_examples
from ohem_d2.errors import InputError
from ohem_d2.modeling import mixin, pooling, pooling_once
from ohem_d2.modeling.lazy import COUNTERPARTS
from ohem_d2.training.config_file import load_config

POOLED = " pooled by all cores"
CANDIDATES = " of {} candidates"
AND_RPN = " and OHEMRPN"
MINING = {base.__name__: head.__name__ for base, head in COUNTERPARTS.items()}
SWEEPS = {
    "proposals": [500, 1000, 2000, 4000, 8000],
    "images": [1, 2, 4, 8],
    "classes": [20, 80, 1203],
}


@ROI_HEADS_REGISTRY.register()
class OnePassROIHeads(OHEMROIHeads):
    """The simple way: gradients over all RoIs, of which the easy ones do not count."""

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """All RoIs."""
        return self.label_proposals(proposals, targets)

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances]):
        if not self.training:
            return super()._forward_box(features, proposals)
        predictor, predictions = self.read_boxes(features, proposals)
        losses = losses_per_roi(predictor, predictions, proposals)
        image_ids = [torch.full_like(x.gt_classes, i) for i, x in enumerate(proposals)]
        hard = select_hard_examples(
            (losses["loss_cls"] + losses["loss_box_reg"]).detach(),
            torch.cat([x.proposal_boxes.tensor for x in proposals]),
            torch.cat([x.gt_classes for x in proposals]),
            torch.cat(image_ids),
            num_samples=self.batch_size_per_image,
            num_classes=self.num_classes,
        )
        return {name: loss[hard].mean() for name, loss in losses.items()}


class FixedProposals(nn.Module):
    """The model's own RPN works and learns, but the RoI heads get proposals that never change."""

    def __init__(self, rpn: nn.Module, proposals: list[Instances]) -> None:
        super().__init__()
        self.rpn, self.proposals = rpn, proposals

    def forward(self, *args) -> tuple[list[Instances], dict[str, Tensor]]:
        """See Detectron2's `RPN.forward`."""
        _, losses = self.rpn(*args)
        return [copy.copy(x) for x in self.proposals], losses


class Contender:
    """A model in training, on inputs that never change."""

    def __init__(
        self, cfg, head: str, budget: int | None, inputs: list[dict], proposals: list[Instances]
    ) -> None:
        cfg = cfg.clone()
        name, _, limit = head.removesuffix(AND_RPN).removesuffix(POOLED).partition(" of ")
        cfg.MODEL.ROI_HEADS.NAME = name
        if head.endswith(AND_RPN):
            cfg.MODEL.PROPOSAL_GENERATOR.NAME = "OHEMRPN"
        if limit:
            cfg.MODEL.ROI_HEADS.OHEM.MAX_CANDIDATES = int(limit.split()[0])
        if budget is not None:
            cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = budget
        torch.manual_seed(0)
        self.model = build_model(cfg).train()
        for name, buffer in self.model.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(4.0)  # untrained, deep networks overflow in half precision otherwise
        self.optimizer = build_optimizer(cfg, self.model)
        proposals = [x.to(cfg.MODEL.DEVICE) for x in proposals]
        self.model.proposal_generator = FixedProposals(self.model.proposal_generator, proposals)
        self.inputs, self.amp = inputs, cfg.SOLVER.AMP.ENABLED
        self.device = torch.device(cfg.MODEL.DEVICE)
        if head.endswith(POOLED):
            pooling.pool_on_all_cores(self.model.roi_heads)

    def step(self) -> float:
        """Train once, and return the seconds that it took."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        self.optimizer.zero_grad()
        self._synchronize()
        start = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, dtype, enabled=self.amp))
            stack.enter_context(EventStorage())
            losses = self.model(self.inputs)
        if not all(x.isfinite() for x in losses.values()):
            raise FloatingPointError(f"expected finite losses, found {losses}")
        # Steps of no size: an untrained model on the same few images would soon diverge, and the
        # time does not depend on the values.
        (sum(losses.values()) * 0.0).backward()
        self.optimizer.step()
        self._synchronize()
        return time.perf_counter() - start

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int:
        """Bytes: the most that a step takes at a time, the weights and their momentum included."""
        held = sum(
            (1 + p.requires_grad) * p.numel() * p.element_size() for p in self.model.parameters()
        )
        self.optimizer.zero_grad()
        # What threads allocate is not seen.
        with mock.patch.object(pooling, "_by_all_cores", lambda f, items: list(map(f, items))):
            self.step()  # what is prepared once for a model does not count
            self.optimizer.zero_grad()
            return peak_memory(self.step, self.device) + held

    def synchronizations(self) -> int:
        """How often a step waits for the GPU, or would if there was one."""
        with ExitStack() as stack:  # as on a GPU
            for pooler in (pooling.AllCoresROIPooler, pooling_once.OnceROIPooler):
                stack.enter_context(mock.patch.object(pooler, "forward", ROIPooler.forward))
            return synchronizations(self.step, self.device)

    def look(self) -> tuple[str, dict[str, float]]:
        """How many RoIs a step trains on, and its seconds by part of the mining, if it mines."""
        heads, numbers, undo = self.model.roi_heads, [], ExitStack()
        seconds: dict[str, float] = defaultdict(float)

        @contextmanager
        def timed(name: str):
            self._synchronize()
            start = time.perf_counter()
            yield
            self._synchronize()
            seconds[name] += time.perf_counter() - start

        def wrap(owner: object, attribute: str, name: str, with_gradients: bool = True) -> None:
            function = getattr(owner, attribute)

            def wrapped(*args, **kwargs):
                if torch.is_grad_enabled() and not with_gradients:
                    return function(*args, **kwargs)
                with timed(name):
                    return function(*args, **kwargs)

            undo.enter_context(mock.patch.object(owner, attribute, wrapped))

        choose = heads.label_and_sample_proposals

        def count(*args) -> list[Instances]:
            chosen = choose(*args)
            foreground = sum(int((x.gt_classes < heads.num_classes).sum()) for x in chosen)
            numbers.append(f"{sum(map(len, chosen))} ({foreground})")
            return chosen

        heads.label_and_sample_proposals = count
        if type(heads).__name__ in MINING.values():
            wrap(heads, "label_proposals", "labelling")
            wrap(heads, "_read", "loss")
            wrap(heads, "_sample", "selection")
            wrap(mixin, "add_up", "logging")
            wrap(mixin.MiningMetrics, "add", "logging")
            parts = {"box_pooler": "pooling", "pooler": "pooling"}
            parts |= dict.fromkeys(("box_head", "res5", "box_predictor"), "head")
            for attribute, name in parts.items():
                module = getattr(heads, attribute, None)
                for m in module if isinstance(module, nn.ModuleList) else [module]:
                    if m is not None:
                        wrap(m, "forward", name, with_gradients=False)
        with undo:
            self.step()
        if "loss" in seconds:  # which was measured with all that it needs, as was selection
            seconds["loss"] -= seconds["pooling"] + seconds["head"]
            seconds["selection"] -= seconds["logging"]
        return numbers[0], dict(seconds)


def make_inputs(cfg, images: int, proposals: int, size: tuple[int, int]):
    """Images of noise with twenty objects each, and proposals, half of them near the objects."""
    generator = torch.Generator().manual_seed(0)
    height, width = size

    def boxes(number: int) -> Tensor:
        corners = torch.rand(number, 2, generator=generator) * torch.tensor([width, height]) * 0.8
        sides = torch.exp(torch.rand(number, 2, generator=generator) * 3 + 2.5)
        far = torch.minimum(corners + sides, torch.tensor([width, height], dtype=torch.float))
        return torch.cat([corners, far], dim=1)

    inputs, all_proposals = [], []
    for _ in range(images):
        objects = boxes(20)
        near = objects[torch.randint(0, 20, (proposals // 2,), generator=generator)]
        near = near + torch.randn(near.shape, generator=generator) * 8
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 4)
        found = Instances(
            size, proposal_boxes=Boxes(torch.cat([near, boxes(proposals - len(near))]))
        )
        found.proposal_boxes.clip(size)
        found.objectness_logits = torch.zeros(proposals)
        all_proposals.append(found)
        instances = Instances(size, gt_boxes=Boxes(objects))
        classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        instances.gt_classes = torch.randint(0, classes, (20,), generator=generator)
        if cfg.MODEL.MASK_ON:
            instances.gt_masks = BitMasks(torch.zeros(20, height, width, dtype=torch.bool))
        pixels = torch.rand(3, height, width, generator=generator) * 255
        inputs.append({"image": pixels.byte(), "instances": instances})
    return inputs, all_proposals


def measure(
    cfg, args: argparse.Namespace, images: int, proposals: int, counts_all: bool = True
) -> dict:
    """
    Run the contenders in turn, and return what was measured of each, plain Detectron2 first.

    What is counted takes as long as what is timed: without `counts_all`, of plain and mining alone.
    """
    cfg = cfg.clone()
    if cfg.MODEL.MASK_ON:
        cfg.INPUT.MASK_FORMAT = "bitmask"
    plain = cfg.MODEL.ROI_HEADS.NAME
    heads = [plain, MINING[plain]]
    pools = cfg.MODEL.DEVICE == "cpu" and torch.get_num_threads() > 1
    if pools:
        heads.insert(1, plain + POOLED)
    if plain == StandardROIHeads.__name__ and not cfg.MODEL.MASK_ON:
        heads.append(OnePassROIHeads.__name__)
    heads += [MINING[plain] + CANDIDATES.format(number) for number in args.candidates]
    if args.rpn:
        heads += [plain + AND_RPN, MINING[plain] + AND_RPN]
    data = make_inputs(cfg, images, proposals, tuple(args.size))
    contenders = {
        head: Contender(
            cfg,
            head,
            None if head in (plain, plain + POOLED, plain + AND_RPN) else args.budget,
            *data,
        )
        for head in heads
    }
    seconds: dict[str, list[float]] = {head: [] for head in heads}
    for number in range(args.rounds + 1):
        first = number % len(heads)
        for head in heads[first:] + heads[:first]:
            time_of_step = contenders[head].step()
            if number > 0:  # the first is for warming up
                seconds[head].append(time_of_step)
        _report(f"round {number} of {args.rounds}")
    results: dict[str, dict[str, Any]] = {}
    for head, contender in contenders.items():
        ratios = [a / b for a, b in zip(seconds[head], seconds[plain])]
        same_pooling = [a / b for a, b in zip(seconds[head], seconds[heads[1]])]
        results[head] = {
            "seconds": statistics.median(seconds[head]),
            "same_pooling": f"{statistics.median(same_pooling):.2f}" if pools else "",
            "ratio": statistics.median(ratios),
            "low": min(ratios),
            "high": max(ratios),
        }
        if counts_all or head in (plain, MINING[plain]):
            memory = contender.peak_memory()
            results[head]["mebibytes"] = memory / 2**20
            results[head]["memory"] = memory / 2**20 / results[plain]["mebibytes"]
            results[head]["synchronizations"] = contender.synchronizations()
            results[head]["rois"], results[head]["parts"] = contender.look()
    return results


def _report(text: str) -> None:
    print(f"\r{text}   ", end="", file=sys.stderr, flush=True)


def table(results: dict) -> str:
    """What `measure` returned, in Markdown."""
    lines = [
        "| head | s per step | time ratio (lowest to highest) | vs. plain, same pooling "
        "| peak memory | ratio | synchronizations | RoIs trained on (foreground) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for head, r in results.items():
        lines.append(
            f"| {head} | {r['seconds']:.3f} | {r['ratio']:.2f} ({r['low']:.2f} to "
            f"{r['high']:.2f}) | {r['same_pooling']} "
            f"| {r['mebibytes']:.0f} MiB | {r['memory']:.3f} "
            f"| {r['synchronizations']} | {r['rois']} |"
        )
    for head, r in results.items():
        if r["parts"]:
            parts = ", ".join(f"{k} {1000 * v:.1f} ms" for k, v in r["parts"].items())
            lines += ["", textwrap.fill(f"Of a step of {head}, the mining takes: {parts}.", 100)]
    return "\n".join(lines)


def sweep(name: str, cfg, args: argparse.Namespace, plot: Path) -> str:
    """Measure at each value, one thing changed at a time; a table and a plot."""
    values, rows = SWEEPS[name], []
    for value in values:
        c = cfg.clone()
        if name == "classes":
            c.MODEL.ROI_HEADS.NUM_CLASSES = value
        images = value if name == "images" else args.images
        proposals = value if name == "proposals" else args.proposals
        _report(f"{value} {name}: ")
        rows.append(measure(c, args, images, proposals, counts_all=False))
    plain, *heads = rows[0]
    figure, axes = plt.subplots(figsize=(5, 3.2))
    for head in heads:
        axes.plot(values, [r[head]["ratio"] for r in rows], marker="o", label=head)
    axes.set(xlabel=name, ylabel="time of a step, plain = 1", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(plot, dpi=110)
    plt.close(figure)
    lines = [
        f"| {name} | {plain}, s per step | {' | '.join(f'{h}, time ratio' for h in heads)} "
        "| peak memory ratio of mining | synchronizations: plain, mining "
        "| labelling and selection of mining |",
        "| --- |" + " --- |" * (len(heads) + 4),
    ]
    for value, r in zip(values, rows):
        mining = r[MINING[plain]]
        ratios = " | ".join(f"{r[h]['ratio']:.2f}" for h in heads)
        waits = f"{r[plain]['synchronizations']}, {mining['synchronizations']}"
        chosen = 1000 * (mining["parts"]["labelling"] + mining["parts"]["selection"])
        lines.append(
            f"| {value} | {r[plain]['seconds']:.2f} | {ratios} | {mining['memory']:.3f} | {waits} "
            f"| {chosen:.0f} ms |"
        )
    return "\n".join(lines) + f"\n\n![Time ratio by {name}]({plot.name})"


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 800), metavar=("H", "W"))
    parser.add_argument("--proposals", type=int, default=2000, help="of each image")
    parser.add_argument(
        "--budget", type=int, help="RoIs of each image to train on with mining; default: plain's"
    )
    parser.add_argument(
        "--candidates",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="also mine among at most so many RoIs of each image",
    )
    parser.add_argument("--rpn", action="store_true", help="also mine among the RPN's anchors")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--sweep", nargs="*", choices=SWEEPS, default=[], help="what to vary too")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--title", default="Cost of a step", help="of the section")
    parser.add_argument("--output", type=Path, default=Path("output/step_cost.md"))
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs for the config")
    args = parser.parse_args()
    try:
        cfg = load_config(args.config_file, ["MODEL.WEIGHTS", "", *args.opts])
    except InputError as e:
        sys.exit(f"error: {e}")
    cfg.SOLVER.AMP.ENABLED = args.amp  # which train_net.py turns off on the CPU
    cfg.MODEL.ROI_HEADS.NAME = {m: p for p, m in MINING.items()}.get(
        cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NAME
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    budget = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    if args.budget is not None:
        budget = f"{budget} (plain) or {args.budget} (the others)"
    precision = "mixed precision" if cfg.SOLVER.AMP.ENABLED else "float32"
    setting = (
        f"{args.images} image(s) of {args.size[0]} x {args.size[1]}, {args.proposals} proposals "
        f"each, {budget} RoIs to train on, {precision}, median of {args.rounds} rounds; "
        f"{describe()}"
    )
    page = [
        f"## {args.title}",
        f"`{args.config_file}` {' '.join(args.opts)}".strip(),
        textwrap.fill(setting, 100),
        table(measure(cfg, args, args.images, args.proposals)),
    ]
    for name in args.sweep:
        plot = args.output.with_name(f"{args.output.stem}_{name}.png")
        page.append(sweep(name, cfg, args, plot))
    section = "\n\n".join(page)
    with args.output.open("a") as file:
        file.write(f"\n{section}\n")
    print(f"\n{section}")


if __name__ == "__main__":
    main()
