#!/usr/bin/env python
"""
Does mining help? Trains ways of choosing RoIs on data sets, with several seeds, and compares them.

    python benchmarks/accuracy.py --data plain look_alikes --variants sampling ohem --seeds 0 1 2
    python benchmarks/accuracy.py --add bccd configs/quick_start.yaml \\
        DATASETS.TRAIN "voc://bccd?split=trainval" DATASETS.TEST "voc://bccd?split=test" \\
        INPUT.MIN_SIZE_TRAIN 240 INPUT.MIN_SIZE_TEST 240 SOLVER.MAX_ITER 1600

All runs of a data set and a seed have the same images in the same order, the same initial weights,
schedule and budget. A run that is finished is kept in results.json and not repeated, so that the
script may be stopped at any time and called again, with more of anything. After each it writes a
page in Markdown and learning curves of all that is there. AP is COCO's, of every data set.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase, hooks
from detectron2.utils.env import seed_all_rng
from environment import describe
from samplers import StudyROIHeads, add_study_config
from spoilt_labels import spoil_labels
from tqdm import tqdm

from ohem_d2 import add_ohem_config
from ohem_d2.checks import check_datasets
from ohem_d2.config_file import load_config
from ohem_d2.data import register_datasets
from ohem_d2.data.shapes import write_shapes
from ohem_d2.engine import Trainer
from ohem_d2.errors import InputError
from ohem_d2.pictures import MinedPictures

# How the shapes of the data sets that come with the study are drawn; see `draw_image`.
DRAWN = {
    "plain": {"max_look_alikes": 0},
    "look_alikes": {"max_objects": 3, "max_look_alikes": 8},
}
DRAWN_FOLDER = Path("datasets/accuracy")
SAMPLING = "sampling"
_NO_DEFAULT = object()


def _head(name: str, **study: object) -> Callable[[CfgNode], None]:
    def change(cfg: CfgNode) -> None:
        cfg.MODEL.ROI_HEADS.NAME = name
        for key, value in study.items():
            cfg.STUDY[key] = value

    return change


def _ohem(**keys: object) -> Callable[[CfgNode], None]:
    def change(cfg: CfgNode) -> None:
        cfg.MODEL.ROI_HEADS.NAME = "OHEMROIHeads"
        cfg.MODEL.ROI_HEADS.OHEM.merge_from_list([x for pair in keys.items() for x in pair])

    return change


def _budget(share: float) -> Callable[[CfgNode], None]:
    def change(cfg: CfgNode) -> None:
        cfg.MODEL.ROI_HEADS.NAME = "OHEMROIHeads"
        cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = round(
            share * cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
        )

    return change


def _no_man_s_land(name: str) -> Callable[[CfgNode], None]:
    def change(cfg: CfgNode) -> None:
        cfg.MODEL.ROI_HEADS.NAME = name
        cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS = [0.4, 0.5]
        cfg.MODEL.ROI_HEADS.IOU_LABELS = [0, -1, 1]

    return change


def _sampled_first(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NAME = StudyROIHeads.__name__
    cfg.STUDY.WARMUP_ITERS = cfg.SOLVER.MAX_ITER // 4


def _retinanet(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [
        [x * 2 ** (i / 3) for i in range(3)] for (x,) in cfg.MODEL.ANCHOR_GENERATOR.SIZES
    ]
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    cfg.SOLVER.BASE_LR /= 2  # Detectron2's configs do the same


VARIANTS: dict[str, tuple[str, Callable[[CfgNode], None]]] = {
    SAMPLING: ("1:3 sampling (Detectron2)", _head("StandardROIHeads")),
    "ohem": ("OHEM as in the paper", _ohem()),
    "cls": ("ranked by classification loss", _ohem(LOSS_WEIGHT_BOX_REG=0.0)),
    "ratio": ("at most 1:3 foreground", _ohem(POSITIVE_FRACTION=0.25)),
    "mmdet": (
        "as MMDetection: 1:3, classification loss, no suppression",
        _ohem(POSITIVE_FRACTION=0.25, LOSS_WEIGHT_BOX_REG=0.0, NMS_THRESH=1.0),
    ),
    "sampling_clear": (
        "1:3 sampling, without IoUs from 0.4 to 0.5",
        _no_man_s_land("StandardROIHeads"),
    ),
    "clear": ("OHEM, without IoUs from 0.4 to 0.5", _no_man_s_land("OHEMROIHeads")),
    "batch": ("budget of the whole batch", _ohem(SCOPE="batch")),
    "half": ("1/2 of the budget", _budget(1 / 2)),
    "quarter": ("1/4 of the budget", _budget(1 / 4)),
    "eighth": ("1/8 of the budget", _budget(1 / 8)),
    "sampled_first": ("1:3 sampling for the first quarter", _sampled_first),
    "half_random": ("half of the budget at random", _head("StudyROIHeads", HARD_FRACTION=0.5)),
    "staged": ("box loss weighs more and more (S-OHEM)", _head("StudyROIHeads", STAGED=True)),
    "capped": (
        "background with a classification loss above 3 ranks last",
        _head("StudyROIHeads", MAX_LOSS=3.0),
    ),
    "retinanet": ("RetinaNet (focal loss)", _retinanet),
}


class Curve(HookBase):
    """
    Evaluates now and then, and measures the time of training alone.

    Each step counts as the median of those since the last evaluation, so that a moment in which
    the machine did something else does not count.
    """

    def __init__(self, period: int) -> None:
        self.period, self.seconds, self.steps, self.points = period, 0.0, [], []

    def before_train(self) -> None:
        """Show how far it is."""
        self.bar = tqdm(total=self.trainer.max_iter, desc="iterations", leave=False)

    def after_train(self) -> None:
        """Stop showing it."""
        self.bar.close()

    def before_step(self) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Stop it, and evaluate."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.steps.append(time.perf_counter() - self._start)
        self.bar.update()
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            self.seconds += len(self.steps) * statistics.median(self.steps)
            self.steps = []
            results = self.trainer.test(self.trainer.cfg, self.trainer.model)["bbox"]
            self.points.append({"iteration": done, "seconds": self.seconds, **results})


class StudyTrainer(Trainer):
    """Trains without checkpoints and pictures."""

    def build_hooks(self) -> list[HookBase]:
        """See `DefaultTrainer.build_hooks`."""
        left_out = (hooks.EvalHook, hooks.PeriodicCheckpointer, MinedPictures)
        return [h for h in super().build_hooks() if not isinstance(h, left_out)]


def train(cfg: CfgNode, points: int) -> list[dict]:
    """Train once, and return the points of its learning curve, evenly spaced."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = cfg.clone()
        cfg.OUTPUT_DIR = folder
        cfg.freeze()
        seed_all_rng(cfg.SEED)
        curve = Curve(max(1, cfg.SOLVER.MAX_ITER // points))
        trainer = StudyTrainer(cfg)
        trainer.register_hooks([curve])
        trainer.train()
    return curve.points


def spoil(names: tuple[str, ...], removed: float, swapped: float) -> tuple[str, ...]:
    """
    Register data sets with wrong labels.

    Args:
        names: registered data sets.
        removed: the share of objects whose annotation is left out.
        swapped: the share of objects that get another class.

    Returns:
        their names: always the same objects of a data set are spoilt.
    """
    spoilt = []
    for name in names:
        classes = len(MetadataCatalog.get(name).thing_classes)
        records = spoil_labels(DatasetCatalog.get(name), classes, removed, swapped)
        spoilt.append(_register_again(name, f"removed {removed} swapped {swapped}", records))
    return tuple(spoilt)


def _register_again(name: str, what: str, records: list[dict]) -> str:
    """Register what has been made of a data set, to be evaluated by COCO's metric."""
    again = f"{name} {what}"
    if again not in DatasetCatalog:
        DatasetCatalog.register(again, lambda: records)
        classes = MetadataCatalog.get(name).thing_classes
        MetadataCatalog.get(again).set(thing_classes=classes, evaluator_type="coco")
    return again


def drawn_data(name: str) -> tuple[str, list[str]]:
    """The config and the settings of a data set that comes with the study, drawn if need be."""
    folder = DRAWN_FOLDER / name
    if not folder.exists():
        write_shapes(folder, **DRAWN[name])
    addresses = [f"coco://{folder}/{x}.json?images={folder}/JPEGImages" for x in ("train", "test")]
    opts = ["DATASETS.TRAIN", f"('{addresses[0]}',)", "DATASETS.TEST", f"('{addresses[1]}',)"]
    return "configs/quick_start.yaml", opts


def configure(config_file: str, opts: list[str], variant: str, seed: int) -> CfgNode:
    """The config of one run, its data sets registered."""
    cfg = load_config(config_file, [*opts, "SEED", str(seed)])
    add_study_config(cfg)
    register_datasets(cfg)
    check_datasets(*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    test = cfg.DATASETS.TEST[0]
    if MetadataCatalog.get(test).evaluator_type != "coco":  # only COCO's has figures of a class
        test = _register_again(test, "by COCO's metric", DatasetCatalog.get(test))
    cfg.DATASETS.TEST = (test,)
    VARIANTS[variant][1](cfg)
    return cfg


def run(args: argparse.Namespace, data: dict[str, tuple[str, list[str]]]) -> None:
    """Do all runs that are not there yet, and write what is there after each."""
    file = args.output / "results.json"
    runs = [(d, s, v) for d in data for s in args.seeds for v in args.variants]
    spoilt = f"_removed_{args.remove}_swapped_{args.swap}" if args.remove or args.swap else ""
    for name, seed, variant in tqdm(runs, desc="runs", unit="run"):
        config_file, opts = data[name]
        cfg = configure(config_file, [*opts, *args.opts], variant, seed)
        if spoilt:
            cfg.DATASETS.TRAIN = spoil(cfg.DATASETS.TRAIN, args.remove, args.swap)
        key = (f"{name}{spoilt}", variant, seed)
        known = [r for r in _read(file) if (r["data"], r["variant"], r["seed"]) == key]
        if known:
            check_same_settings(known[0], cfg, file)
            continue
        tqdm.write(f"{time.strftime('%H:%M')} {key[0]}, {variant}, seed {seed}")
        points = train(cfg, args.points)
        result = dict(zip(("data", "variant", "seed"), key), machine=describe(), points=points)
        results = [*_read(file), {**result, "settings": settings_of(cfg)}]
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(results, indent=0))
        unfinished.rename(file)
        report(results, args.output)


def _read(file: Path) -> list[dict]:
    return json.loads(file.read_text()) if file.exists() else []


def settings_of(cfg: CfgNode) -> dict[str, object]:
    """Every key whose value is not Detectron2's default, as JSON has it."""
    default = _flat(get_cfg())
    return {k: v for k, v in _flat(cfg).items() if v != default.get(k, _NO_DEFAULT)}


def check_same_settings(result: dict, cfg: CfgNode, file: Path) -> None:
    """
    Make sure that a run was one of this config. A key of this project that was not there at the
    time counts as its default.

    Raises:
        InputError: it was not.
    """
    default = get_cfg()
    add_ohem_config(default)
    add_study_config(default)
    now = settings_of(cfg)
    for key, value in _flat(default).items():
        found, expected = result["settings"].get(key, value), now.get(key, value)
        if found != expected:
            raise InputError(
                f"{file}: {result['data']}, {result['variant']}, seed {result['seed']} is there "
                f"with {key} {found!r}, expected {expected!r}, or another --output"
            )


def _flat(node: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))  # which has no tuples
    return flat


def report(results: list[dict], output: Path) -> str:
    """Write and return a page on all runs that are there, with curves beside it."""
    page = []
    for data in dict.fromkeys(r["data"] for r in results):
        runs = {}
        for variant in VARIANTS:
            these = [r for r in results if (r["data"], r["variant"]) == (data, variant)]
            if these:
                runs[variant] = {r["seed"]: r["points"] for r in these}
        plot = output / f"{data}.png"
        draw_curves(runs, plot)
        machines = dict.fromkeys(r["machine"] for r in results if r["data"] == data)
        page += [f"## {data}", "; ".join(machines), table(runs), f"![Learning curves]({plot.name})"]
    text = "\n\n".join(page)
    (output / "accuracy.md").write_text(f"{text}\n")
    return text


def table(runs: dict[str, dict[int, list[dict]]]) -> str:
    """
    The last point of each run, over seeds, next to 1:3 sampling with the same seed: first of all
    classes together, then of each.
    """
    metrics = next(iter(next(iter(runs.values())).values()))[-1]
    by_class = [x for x in metrics if x.startswith("AP-")]
    overall = _rows(runs, ["AP", "AP50", "AP75"], with_costs=True)
    return "\n".join(overall + (["", *_rows(runs, by_class, with_costs=False)] if by_class else []))


def _rows(
    runs: dict[str, dict[int, list[dict]]], metrics: list[str], with_costs: bool
) -> list[str]:
    """A table with a row for each variant, and a column for each metric."""
    titles = ["RoIs", "seeds", *metrics]
    if with_costs:
        titles += ["iterations to 1:3's AP (1:3: 1)", "time to it"]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    baseline = runs.get(SAMPLING, {})
    for variant, by_seed in runs.items():
        seeds = [s for s in by_seed if s in baseline and variant != SAMPLING]
        cells = [VARIANTS[variant][0], str(len(by_seed))]
        for metric in metrics:
            value = {seed: points[-1][metric] for seed, points in by_seed.items()}
            less = [f"{value[s] - baseline[s][-1][metric]:+.1f}" for s in seeds]
            differences = f" ({' '.join(less)})" if less else ""
            cells.append(_mean_and_spread(list(value.values())) + differences)
        if with_costs:
            compared = [baseline[s] for s in seeds], [by_seed[s] for s in seeds]
            cells += [_cost_to_reach(what, *compared) for what in ("iteration", "seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _cost_to_reach(what: str, baseline: list[list[dict]], runs: list[list[dict]]) -> str:
    """
    When the mean curve, a line from 0 and from point to point, comes to the baseline's last AP: as
    a share of what the baseline took.

    Args:
        what: "seconds" or "iteration".
        baseline: points of each run.
        runs: the same, of the same seeds.
    """
    if not runs:
        return ""
    goal, whole = (statistics.mean(run[-1][x] for run in baseline) for x in ("AP", what))
    before = {"AP": 0.0, what: 0.0}
    for at_a_time in zip(*runs):
        now = {x: statistics.mean(p[x] for p in at_a_time) for x in ("AP", what)}
        if now["AP"] >= goal:
            share = (goal - before["AP"]) / max(now["AP"] - before["AP"], 1e-9)
            return f"{(before[what] + share * (now[what] - before[what])) / whole:.2f}"
        before = now
    return "never"


def draw_curves(runs: dict[str, dict[int, list[dict]]], file: Path) -> None:
    """AP by iterations and by the time of training: the mean of the seeds, and each of them."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axis, x in zip(axes, ("iteration", "seconds")):
        for number, (variant, by_seed) in enumerate(runs.items()):
            style = {"color": plt.cm.tab20(number)}
            for points in by_seed.values():
                axis.plot([p[x] for p in points], [p["AP"] for p in points], lw=0.4, **style)
            together = list(zip(*by_seed.values()))
            axis.plot(
                [statistics.mean(p[x] for p in at) for at in together],
                [statistics.mean(p["AP"] for p in at) for at in together],
                label=variant,
                **style,
            )
        axis.set_xlabel({"iteration": "iterations", "seconds": "seconds of training"}[x])
    axes[0].set_ylabel("AP")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read the command line, train what is missing, write the page."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", choices=DRAWN, default=[], help="drawn data sets")
    parser.add_argument(
        "--add",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME CONFIG", "KEY VALUE"),
        help="another data set, with its config and settings",
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--points", type=int, default=10, help="of each learning curve")
    parser.add_argument("--remove", type=float, default=0.0, help="share of labels to leave out")
    parser.add_argument("--swap", type=float, default=0.0, help="share of labels to exchange")
    parser.add_argument("--output", type=Path, default=Path("output/accuracy"))
    parser.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs for all runs")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.INFO)  # Detectron2 says a lot of each run
    data = {name: drawn_data(name) for name in args.data}
    data |= {name: (config, opts) for name, config, *opts in args.add}
    try:
        run(args, data)
    except InputError as e:
        sys.exit(f"error: {e}")
    finally:
        logging.disable(logging.NOTSET)
    print(f"\n{report(_read(args.output / 'results.json'), args.output)}")


if __name__ == "__main__":
    main()
