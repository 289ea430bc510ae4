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

Variants that are trained twice are in `second_training.py`. What they need of the first training is
in datasets/accuracy.

With --pretrain, all runs of a seed start from a backbone that was trained by 1:3 sampling on the
drawn data set `plain`, so that plain and few_plain are then data that it knows. Without, they start
from MODEL.WEIGHTS, or from scratch.
"""

import argparse
import itertools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from crowds import write_crowds
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from environment import describe
from second_training import WAYS, second_labels
from spoilt_labels import spoil_labels
from step_times import time_steps
from study_file import changes, check_same_settings, known_runs, read, settings_of
from study_page import report
from study_trainer import build_trainer, train
from tqdm import tqdm
from variants import PAPERS_HARD_FRACTION, SAMPLING, VARIANTS

from ohem_d2.data import register_datasets
from ohem_d2.data.shapes import write_shapes
from ohem_d2.errors import InputError
from ohem_d2.files import locked
from ohem_d2.training.checks import check_output_dir
from ohem_d2.training.config_file import load_config
from ohem_d2.training.data_checks import check_datasets

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
    # More of these, and what the oracle of `relabel.py` corrects.
    "some_look_alikes": {
        "max_objects": 3,
        "max_look_alikes": 8,
        "sizes": {"train": 600, "test": 200},
    },
    # With a clump of shapes in each image, which has one label, of a crowd; see `crowds`.
    "few_crowds": {"crowds": True, "max_objects": 3, "sizes": {"train": 150, "test": 200}},
}
DRAWN_FOLDER = Path("datasets/accuracy")
# How long a backbone is trained first, on drawn shapes without look-alikes.
PRETRAINING = ["SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "1000"]


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
    cfg.MODEL.ROI_HEADS.OHEM.HARD_FRACTION = PAPERS_HARD_FRACTION
    VARIANTS[variant][1](cfg)
    return cfg


Data = dict[str, tuple[str, list[str]]]
Key = tuple[str, str, int]


def spoilt_name(name: str, args: argparse.Namespace) -> str:
    """What the runs of a data set are called, whose labels may be spoilt."""
    if args.remove or args.swap:
        name += f"_removed_{args.remove}_swapped_{args.swap}"
    return f"{name}_ignored_{args.ignore}" if args.ignore else name


def config_of(args: argparse.Namespace, data: Data, name: str, variant: str, seed: int) -> CfgNode:
    """
    The config of a run.

    Args:
        args: the command line.
        data: the config file and the settings of each data set.
        name: that of the data set.
        variant: one of `VARIANTS`.
        seed: of the run.
    """
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


def run(args: argparse.Namespace, data: Data) -> None:
    """
    Do all runs that are not there yet, and write what is there after each; or repeat old ones.

    Raises:
        InputError: a run that is repeated comes out otherwise, or settings are wrong.
    """
    file = args.output / "results.json"
    known = known_runs(read(file))
    to_do = []
    # Seed by seed, so that a study that is not finished can be read.
    for seed, name, variant in itertools.product(args.seeds, data, args.variants):
        key, cfg = (
            (spoilt_name(name, args), variant, seed),
            config_of(args, data, name, variant, seed),
        )
        if key in known:
            check_same_settings(known[key], cfg, file)
        if (key in known) == args.repeat:
            to_do.append((name, variant, seed))
    if not to_do:
        return
    for seed in args.seeds if args.pretrain else []:
        for config_file in dict.fromkeys(config_file for config_file, _ in data.values()):
            train_backbone(config_file, seed)
    if not args.repeat:
        for name in data:
            spoilt = spoilt_name(name, args)
            variants = dict.fromkeys([*(v for n, v, _ in known if n == spoilt), *args.variants])
            cfgs = {v: config_of(args, data, name, v, args.seeds[0]) for v in variants}
            measure_steps(spoilt, cfgs, file)
    for result in tqdm(run_all(args, data, to_do), desc="runs", unit="run", total=len(to_do)):
        if result is None:
            continue  # another study with this --output has done it
        key = (result["data"], result["variant"], result["seed"])
        if args.repeat:
            check_same_points(known[key], result["points"], result["machine"], file)
            continue
        with changes(file) as content:
            if key not in known_runs(content):
                content["runs"].append(result)
        report(args.output)


def run_all(args: argparse.Namespace, data: Data, to_do: list[Key]) -> Iterator[dict | None]:
    """
    Train each, ``args.jobs`` at a time, and yield the results as they come: see `run_one`.

    Two at a time have one thread each: the threads of torch wait by spinning, so that two processes
    of two threads on two cores are much slower than one.
    """
    if args.jobs == 1:
        yield from (run_one(args, data, *key) for key in to_do)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_one, args, data, *key) for key in to_do]):
            yield done.result()


def run_one(
    args: argparse.Namespace, data: Data, name: str, variant: str, seed: int
) -> dict | None:
    """
    Train once.

    Returns:
        what results.json has of a run; None if there is one already, and it is not to be repeated.
    """
    logging.disable(logging.INFO)  # Detectron2 says a lot of each run
    key = (spoilt_name(name, args), variant, seed)
    if not args.repeat and key in known_runs(read(args.output / "results.json")):
        return None
    tqdm.write(f"{time.strftime('%H:%M')} {key[0]}, {variant}, seed {seed}")
    cfg = config_of(args, data, name, variant, seed)
    settings = settings_of(cfg)
    found: dict[str, int] = {}
    if way := WAYS.get(variant):
        first = config_of(args, data, name, way.first, seed)
        folder = DRAWN_FOLDER / "second_training" / f"{key[0]}_{way.first}_{seed}"
        labels, found = second_labels(first, way, folder)
        cfg.DATASETS.TRAIN = (labels,)
    points = train(cfg, args.points, args.average)
    result = dict(zip(("data", "variant", "seed"), key), **found, points=points)
    return result | {"machine": describe(cfg.MODEL.DEVICE), "settings": settings}


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
    content = read(file)
    if set(cfgs) <= set(content["steps"].get(data, {}).get("seconds", ())):
        return
    with tempfile.TemporaryDirectory() as folder:
        trainers = {variant: build_trainer(cfg, folder) for variant, cfg in cfgs.items()}
        seconds = time_steps(trainers)
    machine = describe(next(iter(cfgs.values())).MODEL.DEVICE)
    with changes(file) as content:
        content["steps"][data] = {"machine": machine, "seconds": seconds}


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
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many runs at a time, of one thread each if several"
    )
    parser.add_argument(
        "--average",
        action="store_true",
        help="evaluate the average of the last fifth of the weights, too",
    )
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
    logging.disable(logging.INFO)
    data: Data = {name: (args.config_file, drawn_data(name)) for name in args.data}
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
