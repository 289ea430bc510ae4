#!/usr/bin/env python
"""
What is relabelling worth? Trains on wrong labels, corrects some of them, and trains again.

    python benchmarks/relabel.py --kinds removed --shares 0.2 --seeds 0 --decisions 100 400

Labels of a drawn data set are removed, swapped or moved on purpose. A model is trained on them and
reports what it suspects in its own training images, as users do it. One who knows the truth
decides on the first suspects; for comparison, on as many objects in images drawn at random.
`oracle.py` says what counts as a decision. The decisions go through `ohem-d2 relabel`, and a new
model is trained on the corrected labels. AP is COCO's, of test images whose labels are right.

Runs of one seed start from the same weights, of a backbone that was trained on other drawn shapes
(`accuracy.py --pretrain`). A run that is in results.json is not repeated, so that the script may be
stopped at any time and called again, with more of anything. Spoilt and corrected labels and the
suspects are in datasets/accuracy/relabelled.
"""

import argparse
import io
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path

import accuracy
import study_trainer
from detectron2.config import CfgNode
from detectron2.structures import BoxMode
from environment import describe
from oracle import on_random_images, on_suspects, read_objects
from relabel_page import CLEAN, NONE, PLAN, RANDOM, SUSPECTS, data_name, report, variant_name
from spoilt_labels import spoil_labels
from study_file import changes, check_same_settings, known_runs, read, settings_of
from study_trainer import has_suspects
from tqdm import tqdm

from ohem_d2.errors import InputError
from ohem_d2.files import write_whole
from ohem_d2.relabel.output import LOG
from ohem_d2.relabel.run import relabel
from ohem_d2.relabel.suspects import read_suspects
from ohem_d2.training.checks import check_output_dir

DATA = ["few_look_alikes", "some_look_alikes"]
CONFIG, VARIANT = "benchmarks/accuracy.yaml", "half_random"
STEPS = ["SOLVER.MAX_ITER", "2000"]

# A data set, a kind of error, the share of labels that have it, and a seed; or no error.
Cell = tuple[str, str, float, int]


def config_of(opts: list[str], cell: Cell, train: str | None = None) -> CfgNode:
    """
    The config of a run.

    Args:
        opts: KEY VALUE pairs.
        cell: that of the run.
        train: the address of the training set; None: the one whose labels are right.
    """
    data, *_, seed = cell
    opts = [*accuracy.drawn_data(data), *STEPS, *opts]
    opts += ["MODEL.WEIGHTS", str(accuracy.backbone_file(CONFIG, seed))]
    opts += ["DATASETS.TRAIN", f"('{train}',)"] if train else []
    return accuracy.configure(CONFIG, opts, VARIANT, seed)


def folder_of(cell: Cell, variant: str = "") -> Path:
    """Where the files of a cell are, or those of one of its runs."""
    name = "_".join(map(str, cell))
    return accuracy.DRAWN_FOLDER / "relabelled" / name / variant.replace(" ", "_")


def address_of(cell: Cell, variant: str) -> str:
    """That of the training set of a run."""
    drawn = accuracy.DRAWN_FOLDER / cell[0]
    folder = drawn if cell[1] == CLEAN else folder_of(cell, variant)
    return f"coco://{folder}/train.json?images={drawn}/JPEGImages"


def write_spoilt(file: Path, clean: Path, kind: str, share: float) -> None:
    """
    Write a file in COCO's format in which some labels are wrong. Those that are left have the ids
    that they had.

    Args:
        file: to write.
        clean: the one whose labels are right.
        kind: one of `spoilt_labels.ERRORS`.
        share: of labels.
    """
    content = json.loads(clean.read_text(encoding="utf-8"))
    ids = [x["id"] for x in content["categories"]]
    of_images: dict[int, list[dict]] = {x["id"]: [] for x in content["images"]}
    for x in content["annotations"]:
        label = {"category_id": ids.index(x["category_id"]), "bbox_mode": BoxMode.XYWH_ABS}
        of_images[x["image_id"]].append({**x, **label})
    records = [{**x, "annotations": of_images[x["id"]]} for x in content["images"]]
    spoilt = []
    for record in spoil_labels(records, len(ids), **{kind: share}):
        for x in record["annotations"]:
            box = [round(float(v), 3) for v in x["bbox"]]
            box = BoxMode.convert(box, x["bbox_mode"], BoxMode.XYWH_ABS)
            spoilt.append(
                {
                    "id": x["id"],
                    "image_id": record["id"],
                    "category_id": ids[x["category_id"]],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps({**content, "annotations": spoilt}))


def train(cfg: CfgNode, suspects: Path | None = None) -> list[dict]:
    """Train once, and return the last point: see `study_trainer.train`."""
    return study_trainer.train(cfg, points=1, suspects=suspects)


def correct(cell: Cell, way: str, number: int) -> dict:
    """
    Decide, and write the corrected labels to the folder of the run.

    Returns:
        what there is to say of it: how many decisions there were, how many labels they changed, and
        how many were wrong.

    Raises:
        InputError: not all decisions could be carried out.
    """
    folder = folder_of(cell, variant_name(way, number))
    drawn = accuracy.DRAWN_FOLDER / cell[0]
    spoilt = folder_of(cell, NONE) / "train.json"
    files, truth = read_objects(drawn / "train.json")
    _, labels = read_objects(spoilt)
    if way == SUSPECTS:
        *_, suspects = read_suspects(folder_of(cell, NONE))
        decisions = on_suspects(suspects, labels, truth, number)
    else:
        paths = {i: str((drawn / "JPEGImages" / x).resolve()) for i, x in files.items()}
        decisions = on_random_images(paths, labels, truth, number, seed=cell[3])
    address = address_of(cell, NONE)
    file = folder.with_suffix(".json")
    write_whole(file, json.dumps({"info": {"dataset": address}, "decisions": decisions}))
    with redirect_stdout(io.StringIO()):
        relabel(file, folder)
    log = json.loads((folder / LOG).read_text(encoding="utf-8"))
    if log["left_out"]:
        raise InputError(
            f"{folder / LOG}: {len(log['left_out'])} decisions were left out, expected none"
        )
    wrong = sum(labels[i].get(k) != x for i, of in truth.items() for k, x in of.items())
    return {"decisions": len(decisions), "changed": len(log["changed"]), "wrong": wrong}


def runs_of(args: argparse.Namespace, cell: Cell) -> list[tuple[str, int]]:
    """The ways of a cell to come to labels, and the numbers of decisions, in the order to go."""
    if cell[1] == CLEAN:
        return [(NONE, 0)]
    return [(NONE, 0), *itertools.product((SUSPECTS, RANDOM), sorted(args.decisions))]


def run_cell(args: argparse.Namespace, cell: Cell) -> None:
    """Do all runs of a cell that are not there yet, and write what is there after each."""
    logging.disable(logging.INFO)  # Detectron2 says a lot of each run
    file, (data, kind, share, seed) = args.output / "results.json", cell
    folder = folder_of(cell, NONE)
    for way, number in runs_of(args, cell):
        key = (data_name(data, kind, share), variant_name(way, number), seed)
        if key in known_runs(read(file)):
            continue
        tqdm.write(f"{time.strftime('%H:%M')} {key[0]}, {key[1]}, seed {seed}")
        about = {}
        if kind != CLEAN:
            clean = accuracy.DRAWN_FOLDER / data / "train.json"
            write_spoilt(folder / "train.json", clean, kind, share)
            base = config_of(args.opts, cell, address_of(cell, NONE))
            if way == SUSPECTS and not has_suspects(base, folder):
                train(base, folder)
            if way != NONE:
                about = correct(cell, way, number)
        cfg = config_of(args.opts, cell, address_of(cell, key[1]))
        points = train(cfg, folder if way == NONE and kind != CLEAN else None)
        result = dict(zip(("data", "variant", "seed"), key), **about, points=points)
        result |= {"machine": describe(cfg.MODEL.DEVICE), "settings": settings_of(cfg)}
        with changes(file) as content:
            if key not in known_runs(content):
                content["runs"].append(result)
        report(args.output)


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """Seed by seed, so that a study that is not finished can be read."""
    cells: list[Cell] = []
    for seed, data in itertools.product(args.seeds, args.data):
        cells.append((data, CLEAN, 0.0, seed))
        cells += itertools.product([data], args.kinds, args.shares, [seed])
    return cells


def run(args: argparse.Namespace) -> None:
    """
    Do all runs that are not there yet.

    Raises:
        InputError: settings are wrong, or a run is there with others.
    """
    file = args.output / "results.json"
    known = known_runs(read(file))
    cells = cells_of(args)
    for cell in cells:
        cfg = config_of(args.opts, cell)
        for way, number in runs_of(args, cell):
            variant = variant_name(way, number)
            cfg.DATASETS.TRAIN = (address_of(cell, variant),)
            result = known.get((data_name(*cell[:3]), variant, cell[3]))
            if result:
                check_same_settings(result, cfg, file)
    for seed in args.seeds:
        accuracy.train_backbone(CONFIG, seed)
    for _ in tqdm(_run_all(args, cells), desc="cells", total=len(cells)):
        pass


def _run_all(args: argparse.Namespace, cells: list[Cell]) -> Iterator[None]:
    """``args.jobs`` cells at a time; several have one thread each, see `accuracy.run_all`."""
    if args.jobs == 1:
        for cell in cells:
            run_cell(args, cell)
            yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_cell, args, cell) for cell in cells]):
            done.result()
            yield


def main() -> None:
    """Read the command line, train what is missing, write the page."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA[:1], help="drawn data sets")
    parser.add_argument("--kinds", nargs="+", choices=PLAN["kinds"], default=PLAN["kinds"])
    parser.add_argument("--shares", nargs="+", type=float, default=PLAN["shares"])
    parser.add_argument("--decisions", nargs="+", type=int, default=PLAN["decisions"])
    parser.add_argument("--seeds", nargs="+", type=int, default=PLAN["seeds"])
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="how many cells at a time, of one thread each if several",
    )
    parser.add_argument("--output", type=Path, default=Path("output/relabel"))
    parser.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs for all runs")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    try:
        check_output_dir("--output", args.output)
        accuracy.check_leaves_backbone(args.opts, CONFIG)
        run(args)
        page = report(args.output)
    except InputError as e:
        sys.exit(f"error: {e}")
    finally:
        logging.disable(logging.NOTSET)
    print(f"\n{page}")


if __name__ == "__main__":
    main()
