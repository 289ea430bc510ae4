#!/usr/bin/env python
"""
Does mining help? Trains ways of choosing RoIs on data sets, with several seeds, and compares them.

    python benchmarks/accuracy.py --data plain look_alikes --variants sampling ohem --seeds 0 1 2
    python benchmarks/accuracy.py --add bccd configs/quick_start.yaml \\
        DATASETS.TRAIN "voc://bccd?split=trainval" DATASETS.TEST "voc://bccd?split=test" \\
        INPUT.MIN_SIZE_TRAIN 240 INPUT.MIN_SIZE_TEST 240 SOLVER.MAX_ITER 1600

All runs of a data set and a seed have the same images in the same order, the same initial weights,
schedule and budget. A run that is finished is kept in results.json and not repeated, so that the
script may be stopped at any time and called again, with more of anything. Several may write to the
same --output at a time, such as one for each seed. After each run it writes a page in Markdown and
learning curves of all that is there. AP is COCO's, of every data set. What a step takes is measured
before, of all variants in turn, so that other work does not count for one, and is in results.json
too.

With --pretrain, all runs of a seed start from a backbone that was trained by 1:3 sampling on the
drawn data set `plain`, so that plain and few_plain are then data that it knows. Without, they start
from MODEL.WEIGHTS, or from scratch.
"""

import argparse
import itertools
import json
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import samplers  # noqa: F401  (registers those of the study)
import torch
from crowds import write_crowds
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase, hooks
from detectron2.utils.env import seed_all_rng
from environment import describe
from spoilt_labels import spoil_labels
from step_times import ratio, time_steps
from tqdm import tqdm

from ohem_d2 import add_ohem_config
from ohem_d2.data import register_datasets
from ohem_d2.data.shapes import write_shapes
from ohem_d2.errors import InputError
from ohem_d2.files import locked, write_whole
from ohem_d2.training.checks import check_output_dir, check_weights
from ohem_d2.training.config_file import load_config
from ohem_d2.training.data_checks import check_datasets
from ohem_d2.training.trainer import Trainer
from ohem_d2.visualization import MinedPictures

# How the shapes of the data sets that come with the study are drawn; see `draw_image`.
DRAWN: dict[str, dict[str, Any]] = {
    "plain": {"max_look_alikes": 0},
    "look_alikes": {"max_objects": 3, "max_look_alikes": 8},
    # The first images of these, to train on; the same test images.
    "few_plain": {"max_look_alikes": 0, "sizes": {"train": 150, "test": 200}},
    "few_look_alikes": {
        "max_objects": 3,
        "max_look_alikes": 8,
        "sizes": {"train": 150, "test": 200},
    },
    # With a clump of shapes in each image, which has one label, of a crowd; see `crowds`.
    "few_crowds": {"crowds": True, "max_objects": 3, "sizes": {"train": 150, "test": 200}},
}
DRAWN_FOLDER = Path("datasets/accuracy")
# How long a backbone is trained first, on drawn shapes without look-alikes.
PRETRAINING = ["SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "1000"]
SAMPLING = "sampling"
_NO_DEFAULT = object()
_PAPERS_HARD_FRACTION = 1.0  # of all variants that have no other


def _sampling(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"


def _set(node: CfgNode, keys: dict[str, object]) -> None:
    node.merge_from_list([x for pair in keys.items() for x in pair])  # refuses what is not there


def _ohem(**keys: object) -> Callable[[CfgNode], None]:
    """The paper's way, but for these keys."""

    def change(cfg: CfgNode) -> None:
        cfg.MODEL.ROI_HEADS.NAME = "OHEMROIHeads"
        _set(cfg.MODEL.ROI_HEADS.OHEM, keys)

    return change


_HALF_RANDOM = _ohem(HARD_FRACTION=0.5)


def _regions_are_background(way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """As Detectron2 takes what lies in crowds, and in what else is to be ignored."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        cfg.INPUT.IGNORE_REGIONS.ENABLED = False

    return change


def _budget(share: float, way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """With this share of the RoIs."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        heads = cfg.MODEL.ROI_HEADS
        heads.BATCH_SIZE_PER_IMAGE = round(share * heads.BATCH_SIZE_PER_IMAGE)

    return change


def _short(share: float, way: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """With this share of the iterations."""

    def change(cfg: CfgNode) -> None:
        way(cfg)
        cfg.SOLVER.MAX_ITER = round(share * cfg.SOLVER.MAX_ITER)

    return change


def _sampled_first(hard_fraction: float) -> Callable[[CfgNode], None]:
    def change(cfg: CfgNode) -> None:
        _ohem(HARD_FRACTION=hard_fraction, START_ITER=cfg.SOLVER.MAX_ITER // 4)(cfg)

    return change


def _staged(cfg: CfgNode) -> None:
    _ohem(SAMPLER=f"Staged(max_iter={cfg.SOLVER.MAX_ITER})")(cfg)


def _half_even(cfg: CfgNode) -> None:
    _HALF_RANDOM(cfg)
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.5


def _retinanet(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [
        [x * 2 ** (i / 3) for x in of_level for i in range(3)]
        for of_level in cfg.MODEL.ANCHOR_GENERATOR.SIZES
    ]
    if cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone":
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    else:
        cfg.MODEL.RETINANET.IN_FEATURES = cfg.MODEL.RPN.IN_FEATURES
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    cfg.SOLVER.BASE_LR /= 2  # Detectron2's configs do the same


VARIANTS: dict[str, tuple[str, Callable[[CfgNode], None]]] = {
    SAMPLING: ("1:3 sampling (Detectron2)", _sampling),
    "ohem": ("OHEM as in the paper", _ohem()),
    "half_random": ("half of the budget at random (default)", _HALF_RANDOM),
    "quarter_hard": ("three quarters of the budget at random", _ohem(HARD_FRACTION=0.25)),
    "short": ("OHEM, with a schedule of 0.65 of the iterations", _short(0.65, _ohem())),
    "short_half": (
        "default, with a schedule of 0.65 of the iterations",
        _short(0.65, _HALF_RANDOM),
    ),
    "shorter_half": (
        "default, with a schedule of 0.6 of the iterations",
        _short(0.6, _HALF_RANDOM),
    ),
    "cls": ("ranked by classification loss", _ohem(LOSS_WEIGHT_BOX_REG=0.0)),
    "half_cls": (
        "default, ranked by classification loss",
        _ohem(HARD_FRACTION=0.5, LOSS_WEIGHT_BOX_REG=0.0),
    ),
    "ratio": ("at most 1:3 foreground", _ohem(MAX_FOREGROUND_FRACTION=0.25)),
    "mmdet": (
        "as MMDetection: 1:3, classification loss, no suppression",
        _ohem(MAX_FOREGROUND_FRACTION=0.25, LOSS_WEIGHT_BOX_REG=0.0, NMS_THRESH=1.0),
    ),
    "batch": ("budget of the whole batch", _ohem(SCOPE="batch")),
    "half": ("default, with 1/2 of the RoIs", _budget(1 / 2, _HALF_RANDOM)),
    "quarter": ("default, with 1/4 of the RoIs", _budget(1 / 4, _HALF_RANDOM)),
    "eighth": ("default, with 1/8 of the RoIs", _budget(1 / 8, _HALF_RANDOM)),
    "sampling_half": ("1:3 sampling, with 1/2 of the RoIs", _budget(1 / 2, _sampling)),
    "sampling_quarter": ("1:3 sampling, with 1/4 of the RoIs", _budget(1 / 4, _sampling)),
    "sampled_first": ("1:3 sampling for the first quarter", _sampled_first(1.0)),
    "sampled_first_half": (
        "1:3 sampling for the first quarter, then the default",
        _sampled_first(0.5),
    ),
    "staged": ("box loss weighs more and more (S-OHEM)", _staged),
    "capped": (
        "background with a classification loss above 3 ranks last",
        _ohem(SAMPLER="Capped(max_loss=3.0)"),
    ),
    "half_capped": (
        "default, background with a classification loss above 1 last",
        _ohem(SAMPLER="Capped(max_loss=1.0)", HARD_FRACTION=0.5),
    ),
    "balanced": (
        "default, with less foreground drawn where the hard half holds enough",
        _ohem(SAMPLER="Balanced", HARD_FRACTION=0.5),
    ),
    "half_even": ("default, with as much foreground drawn as background", _half_even),
    "sampling_ignoring": (
        "1:3 sampling, which leaves out what lies in regions to ignore",
        # The default of HARD_FRACTION, which it does not have.
        _ohem(SAMPLER="RandomSampler", HARD_FRACTION=0.5),
    ),
    "half_unaware": (
        "default, to which regions to ignore are background",
        _regions_are_background(_HALF_RANDOM),
    ),
    "retinanet": ("RetinaNet (focal loss)", _retinanet),
}


class Curve(HookBase):
    """Evaluates now and then."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.points: list[dict] = []

    def before_train(self) -> None:
        """Show how far it is."""
        self.bar = tqdm(total=self.trainer.max_iter, desc="iterations", leave=False)

    def after_train(self) -> None:
        """Stop showing it."""
        self.bar.close()

    def after_step(self) -> None:
        """Evaluate if it is time to."""
        self.bar.update()
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            results = self.trainer.test(self.trainer.cfg, self.trainer.model)["bbox"]
            # Of a model that finds nothing, Detectron2's evaluator says that AP is not a number.
            results = {k: 0.0 if math.isnan(v) else v for k, v in results.items()}
            self.points.append({"iteration": done, **results})


class StudyTrainer(Trainer):
    """Trains without checkpoints and pictures."""

    def build_hooks(self) -> list[HookBase]:
        """See `DefaultTrainer.build_hooks`."""
        left_out = (hooks.EvalHook, hooks.PeriodicCheckpointer, MinedPictures)
        return [h for h in super().build_hooks() if not isinstance(h, left_out)]


def build_trainer(cfg: CfgNode, folder: str) -> StudyTrainer:
    """
    Build what trains a config from its seed and its weights, and writes its log to a folder.

    Raises:
        InputError: there are no such weights.
    """
    check_weights("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, folder, resume=False, training=True)
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = folder
    cfg.freeze()
    seed_all_rng(cfg.SEED)
    trainer = StudyTrainer(cfg)
    trainer.resume_or_load(resume=False)
    return trainer


def train(cfg: CfgNode, points: int) -> list[dict]:
    """Train once, and return the points of its learning curve, evenly spaced."""
    with tempfile.TemporaryDirectory() as folder:
        curve = Curve(max(1, cfg.SOLVER.MAX_ITER // points))
        trainer = build_trainer(cfg, folder)
        trainer.register_hooks([curve])
        trainer.train()
    return curve.points


def ignore(names: tuple[str, ...], share: float) -> tuple[str, ...]:
    """
    Register data sets in which some objects are regions to ignore.

    Args:
        names: registered data sets.
        share: the share of these objects. They are those that `spoil` removes.

    Returns:
        their names.
    """
    ignored = []
    for name in names:
        classes = len(MetadataCatalog.get(name).thing_classes)
        records = spoil_labels(DatasetCatalog.get(name), classes, removed=share)
        for record in records:
            record["annotations"] += [{**x, "iscrowd": 1} for x in record["removed"]]
        ignored.append(_register_again(name, f"ignored {share}", records))
    return tuple(ignored)


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


def drawn_data(name: str) -> list[str]:
    """The settings for a data set that comes with the study, drawn if need be."""
    folder = DRAWN_FOLDER / name
    DRAWN_FOLDER.mkdir(parents=True, exist_ok=True)
    with locked(DRAWN_FOLDER / f".{name}.lock"):  # else another study would take half of it
        if not folder.exists():
            drawing = dict(DRAWN[name])
            (write_crowds if drawing.pop("crowds", False) else write_shapes)(folder, **drawing)
    addresses = [f"coco://{folder}/{x}.json?images={folder}/JPEGImages" for x in ("train", "test")]
    return ["DATASETS.TRAIN", f"('{addresses[0]}',)", "DATASETS.TEST", f"('{addresses[1]}',)"]


def backbone_file(config_file: str, seed: int) -> Path:
    """Where `train_backbone` is to put a backbone."""
    return DRAWN_FOLDER / f"backbone_of_{Path(config_file).stem}_seed_{seed}.pth"


def train_backbone(config_file: str, seed: int) -> None:
    """Train a backbone on drawn shapes without look-alikes, if it is not there yet."""
    file = backbone_file(config_file, seed)
    cfg = configure(config_file, [*drawn_data("plain"), *PRETRAINING], SAMPLING, seed)
    with locked(file.with_name(f".{file.name}.lock")), tempfile.TemporaryDirectory() as folder:
        if file.exists():
            return
        tqdm.write(f"{time.strftime('%H:%M')} training {file}")
        trainer = build_trainer(cfg, folder)
        trainer.train()
        weights = trainer.model.state_dict()
        unfinished = file.with_suffix(".tmp")
        torch.save(
            {"model": {k: v for k, v in weights.items() if k.startswith("backbone.")}}, unfinished
        )
        unfinished.rename(file)


def configure(config_file: str, opts: list[str], variant: str, seed: int) -> CfgNode:
    """The config of one run, its data sets registered."""
    cfg = load_config(config_file, [*opts, "SEED", str(seed)])
    register_datasets(cfg)
    check_datasets(*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    test = cfg.DATASETS.TEST[0]
    if MetadataCatalog.get(test).evaluator_type != "coco":  # only COCO's has figures of a class
        test = _register_again(test, "by COCO's metric", DatasetCatalog.get(test))
    cfg.DATASETS.TEST = (test,)
    cfg.MODEL.ROI_HEADS.OHEM.HARD_FRACTION = _PAPERS_HARD_FRACTION
    VARIANTS[variant][1](cfg)
    return cfg


def run(args: argparse.Namespace, data: dict[str, tuple[str, list[str]]]) -> None:
    """
    Do all runs that are not there yet, and write what is there after each; or repeat old ones.

    Raises:
        InputError: a run that is repeated comes out otherwise, or settings are wrong.
    """
    file = args.output / "results.json"
    spoilt = f"_removed_{args.remove}_swapped_{args.swap}" if args.remove or args.swap else ""
    if args.ignore:
        spoilt += f"_ignored_{args.ignore}"

    def config_of(name: str, variant: str, seed: int) -> CfgNode:
        config_file, opts = data[name]
        opts = [*opts, *args.opts]
        if args.pretrain:
            check_leaves_backbone(opts, config_file)
            opts += ["MODEL.WEIGHTS", str(backbone_file(config_file, seed))]
        cfg = configure(config_file, opts, variant, seed)
        if args.ignore:
            cfg.DATASETS.TRAIN = ignore(cfg.DATASETS.TRAIN, args.ignore)
        if args.remove or args.swap:
            cfg.DATASETS.TRAIN = spoil(cfg.DATASETS.TRAIN, args.remove, args.swap)
        return cfg

    known = _known(_read(file))
    to_do = []
    for name, seed, variant in itertools.product(data, args.seeds, args.variants):
        key, cfg = (f"{name}{spoilt}", variant, seed), config_of(name, variant, seed)
        if key in known:
            check_same_settings(known[key], cfg, file)
        if (key in known) == args.repeat:
            to_do.append((key, cfg))
    if not to_do:
        return
    for seed in args.seeds if args.pretrain else []:
        for config_file in dict.fromkeys(config_file for config_file, _ in data.values()):
            train_backbone(config_file, seed)
    if args.repeat:
        for key, cfg in tqdm(to_do, desc="runs", unit="run"):
            check_same_points(known[key], train(cfg, args.points), describe(cfg.MODEL.DEVICE), file)
        return
    for name in data:
        of_data = dict.fromkeys(v for n, v, _ in known if n == f"{name}{spoilt}")
        cfgs = {
            v: config_of(name, v, args.seeds[0]) for v in (of_data | dict.fromkeys(args.variants))
        }
        measure_steps(f"{name}{spoilt}", cfgs, file)
    for key, cfg in tqdm(to_do, desc="runs", unit="run"):
        if key in _known(_read(file)):
            continue  # another study with this --output has done it
        tqdm.write(f"{time.strftime('%H:%M')} {key[0]}, {key[1]}, seed {key[2]}")
        points = train(cfg, args.points)
        result = dict(zip(("data", "variant", "seed"), key), points=points)
        result |= {"machine": describe(cfg.MODEL.DEVICE), "settings": settings_of(cfg)}
        with _changes(file) as content:
            if key not in _known(content):
                content["runs"].append(result)
        report(args.output)


def check_leaves_backbone(opts: list[str], config_file: str) -> None:
    """
    Make sure that settings leave the backbone as the config has it, by which it is trained first.

    Raises:
        InputError: they do not.
    """
    for key in opts[::2]:
        if key.startswith(("MODEL.BACKBONE.", "MODEL.RESNETS.", "MODEL.FPN.", "MODEL.WEIGHTS")):
            raise InputError(
                f"{key} is set on the command line, expected it in {config_file}, whose backbone "
                "is trained first (--pretrain)"
            )


def measure_steps(data: str, cfgs: dict[str, CfgNode], file: Path) -> None:
    """Time the steps of all variants of a data set in turn, if those of one are not in the file."""
    content = _read(file)
    if set(cfgs) <= set(content["steps"].get(data, {}).get("seconds", ())):
        return
    with tempfile.TemporaryDirectory() as folder:
        trainers = {variant: build_trainer(cfg, folder) for variant, cfg in cfgs.items()}
        seconds = time_steps(trainers)
    machine = describe(next(iter(cfgs.values())).MODEL.DEVICE)
    with _changes(file) as content:
        content["steps"][data] = {"machine": machine, "seconds": seconds}


def _read(file: Path) -> dict:
    """
    All runs, and of each data set what a step of each variant takes.

    Raises:
        InputError: the file is not one that `_write` has written.
    """
    if not file.exists():
        return {"runs": [], "steps": {}}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{file} cannot be read ({e}), expected whole JSON, or no file") from e
    if not isinstance(content, dict) or not {"runs", "steps"} <= content.keys():
        raise InputError(f"{file} has no 'runs' and 'steps', expected those, or no file")
    return content


@contextmanager
def _changes(file: Path) -> Iterator[dict]:
    """What is there, to be changed. Other studies that write to the same file wait."""
    with locked(file.with_name(".lock")):
        content = _read(file)
        yield content
        write_whole(file, json.dumps(content, indent=0))


def _known(content: dict) -> dict[tuple[str, str, int], dict]:
    """The runs by data set, variant and seed."""
    return {(r["data"], r["variant"], r["seed"]): r for r in content["runs"]}


def settings_of(cfg: CfgNode) -> dict[str, object]:
    """Every key whose value is not Detectron2's default, as JSON has it."""
    default = _flat(get_cfg())
    return {k: v for k, v in _flat(cfg).items() if v != default.get(k, _NO_DEFAULT)}


def check_same_settings(result: dict, cfg: CfgNode, file: Path) -> None:
    """
    Make sure that a run was one of this config. A key of this project that was not there at the
    time counts as its default, but for HARD_FRACTION: all of the budget went to hard examples.

    Raises:
        InputError: it was not.
    """
    default = get_cfg()
    add_ohem_config(default)
    default.MODEL.ROI_HEADS.OHEM.HARD_FRACTION = _PAPERS_HARD_FRACTION
    now = settings_of(cfg)
    for key, value in _flat(default).items():
        found, expected = result["settings"].get(key, value), now.get(key, value)
        if found != expected:
            raise InputError(
                f"{file}: {result['data']}, {result['variant']}, seed {result['seed']} is there "
                f"with {key} {found!r}, expected {expected!r}, or another --output"
            )


def check_same_points(result: dict, points: list[dict], machine: str, file: Path) -> None:
    """
    Make sure that a run has come out as it did, to the last digit. On another processor, or with
    another number of threads, it need not.

    Raises:
        InputError: it has not.
    """
    run = f"{result['data']}, {result['variant']}, seed {result['seed']}"
    if points != result["points"]:
        raise InputError(
            f"{file}: {run} ended at {points[-1]['AP']} AP on {machine}, expected "
            f"{result['points'][-1]['AP']} and the same curve, as on {result['machine']}"
        )
    tqdm.write(f"{run}: the same curve, to the last digit ({points[-1]['AP']:.1f} AP)")


def _flat(node: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))  # which has no tuples
    return flat


def report(output: Path) -> str:
    """Write and return a page on all runs that are there, with curves beside it."""
    with locked(output / ".lock"):
        return _report(output)


def _report(output: Path) -> str:
    content = _read(output / "results.json")
    results, steps = content["runs"], content["steps"]
    page = []
    for data in dict.fromkeys(r["data"] for r in results):
        runs = {}
        for variant in VARIANTS:
            these = [r for r in results if (r["data"], r["variant"]) == (data, variant)]
            if these:
                runs[variant] = {r["seed"]: r["points"] for r in these}
        seconds = steps.get(data, {"seconds": {}})["seconds"]
        plot = output / f"{data}.png"
        draw_curves(runs, seconds, plot)
        machines = dict.fromkeys(r["machine"] for r in results if r["data"] == data)
        tables = table(runs, seconds)
        page += [f"## {data}", ";\n".join(machines), tables, f"![Learning curves]({plot.name})"]
    text = "\n\n".join(page)
    write_whole(output / "accuracy.md", f"{text}\n")
    return text


def table(runs: dict[str, dict[int, list[dict]]], seconds: dict[str, list[float]]) -> str:
    """
    The last point of each run, over seeds, and in brackets how much more it is than that of 1:3
    sampling with the same seed, on the mean and each: first of all classes together, then of each.

    Args:
        runs: of each variant and seed, the points of the learning curve.
        seconds: what `time_steps` returned of the variants.
    """
    last = [points[-1] for by_seed in runs.values() for points in by_seed.values()]
    by_class = list(dict.fromkeys(x for point in last for x in point if x.startswith("AP-")))
    costs = _rows(runs, ["AP", "AP50", "AP75"], seconds)
    return "\n".join(costs + (["", *_rows(runs, by_class, None)] if by_class else []))


def _rows(
    runs: dict[str, dict[int, list[dict]]],
    metrics: list[str],
    seconds: dict[str, list[float]] | None,
) -> list[str]:
    """A table with a row for each variant, and a column for each metric; and what it costs."""
    titles = ["RoIs", "seeds", *metrics]
    if seconds is not None:
        titles += ["iterations to 1:3's AP (1:3: 1)", "time of a step (1:3: 1)", "time to 1:3's AP"]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    baseline = runs.get(SAMPLING, {})
    for variant, by_seed in runs.items():
        seeds = [s for s in by_seed if s in baseline and variant != SAMPLING]
        cells = [VARIANTS[variant][0], str(len(by_seed))]
        for metric in metrics:
            # A model that finds nothing has no AP of classes.
            value = {seed: points[-1].get(metric, 0.0) for seed, points in by_seed.items()}
            more = [value[s] - baseline[s][-1].get(metric, 0.0) for s in seeds]
            cells.append(_mean_and_spread(list(value.values())) + _differences(more))
        if seconds is not None:
            cells += _costs(
                [baseline[s] for s in seeds],
                [by_seed[s] for s in seeds],
                seconds.get(SAMPLING),
                seconds.get(variant),
            )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _costs(
    baseline: list[list[dict]],
    runs: list[list[dict]],
    seconds_of_baseline: list[float] | None,
    seconds: list[float] | None,
) -> list[str]:
    """The last three cells of a row."""
    if not runs:
        return [""] * 3
    share = share_to_reach(baseline, runs)
    iterations = "never" if share is None else f"{share:.2f}"
    if not seconds or not seconds_of_baseline:
        return [iterations, "", ""]
    of_step = ratio(seconds, seconds_of_baseline)
    return [iterations, f"{of_step:.2f}", "never" if share is None else f"{share * of_step:.2f}"]


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _differences(values: list[float]) -> str:
    """Their mean, and each."""
    if not values:
        return ""
    each = " ".join(f"{x:+.1f}" for x in values)
    return f" ({statistics.mean(values):+.1f}: {each})" if len(values) > 1 else f" ({each})"


def share_to_reach(baseline: list[list[dict]], runs: list[list[dict]]) -> float | None:
    """
    When the mean curve, a line from 0 and from point to point, comes to the baseline's last AP.

    Args:
        baseline: points of each run.
        runs: the same, of the same seeds.

    Returns:
        iterations, as a share of the baseline's; None: never.
    """
    goal, whole = (statistics.mean(run[-1][x] for run in baseline) for x in ("AP", "iteration"))
    before = {"AP": 0.0, "iteration": 0.0}
    for at_a_time in zip(*runs):
        now = {x: statistics.mean(p[x] for p in at_a_time) for x in before}
        if now["AP"] >= goal:
            share = (goal - before["AP"]) / max(now["AP"] - before["AP"], 1e-9)
            there = before["iteration"] + share * (now["iteration"] - before["iteration"])
            return there / whole
        before = now
    return None


def draw_curves(
    runs: dict[str, dict[int, list[dict]]], seconds: dict[str, list[float]], file: Path
) -> None:
    """AP by iterations and by the time of training: the mean of the seeds, and each of them."""
    figure, axes = plt.subplots(1, 2, figsize=(15, 4.5), sharey=True, layout="constrained")
    of_baseline = seconds.get(SAMPLING)
    for number, (variant, by_seed) in enumerate(runs.items()):
        scales = [1.0]
        if of_baseline and variant in seconds:
            of_step = ratio(seconds[variant], of_baseline)
            scales.append(of_step * statistics.median(of_baseline))
        style = {"color": plt.cm.tab20(number)}
        for axis, scale in zip(axes, scales):
            for points in by_seed.values():
                x = [scale * p["iteration"] for p in points]
                axis.plot(x, [p["AP"] for p in points], lw=0.4, **style)
            mean = [statistics.mean(p["AP"] for p in at) for at in zip(*by_seed.values())]
            axis.plot(x, mean, label=VARIANTS[variant][0], **style)
    axes[0].set_xlabel("iterations")
    axes[1].set_xlabel("seconds of training, at the speed of steps measured in turn")
    axes[0].set_ylabel("AP")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read the command line, train what is missing, write the page."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", choices=DRAWN, default=[], help="drawn data sets")
    parser.add_argument("--config-file", default="benchmarks/accuracy.yaml", help="for drawn data")
    parser.add_argument(
        "--pretrain",
        action="store_true",
        help="first train a backbone on drawn shapes without look-alikes, with each seed",
    )
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
    parser.add_argument(
        "--ignore",
        type=float,
        default=0.0,
        help="share of labels to turn into regions to ignore: those that --remove leaves out",
    )
    parser.add_argument("--swap", type=float, default=0.0, help="share of labels to exchange")
    parser.add_argument(
        "--repeat",
        action="store_true",
        help="train runs that are there once more, and fail unless they come out the same",
    )
    parser.add_argument("--output", type=Path, default=Path("output/accuracy"))
    parser.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs for all runs")
    args = parser.parse_args()
    logging.disable(logging.INFO)  # Detectron2 says a lot of each run
    data = {name: (args.config_file, drawn_data(name)) for name in args.data}
    data |= {name: (config, opts) for name, config, *opts in args.add}
    try:
        check_output_dir("--output", args.output)
        run(args, data)
        page = report(args.output)
    except InputError as e:
        sys.exit(f"error: {e}")
    finally:
        logging.disable(logging.NOTSET)
    print(f"\n{page}")


if __name__ == "__main__":
    main()
