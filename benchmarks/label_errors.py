#!/usr/bin/env python
"""
How well are wrong labels found, by what they cost the model and by cleanlab's scores?

    python benchmarks/label_errors.py --output docs/label_errors/measured.md

Corrupts labels of the data set of a config deliberately (some left out, given another class, moved,
or added where nothing is), trains on them, with several seeds, and ranks what may be wrong: in the
images that the model was trained on, and in others. Precision and recall are of these rankings.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from detectron2.utils.env import seed_all_rng
from environment import describe
from spoilt_labels import ERRORS, spoil_labels
from study_trainer import StudyTrainer
from tqdm import tqdm

from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.report.hard_examples import Findings, HardExample, build_mapper, look_at
from ohem_d2.report.label_errors import by_cleanlab, by_loss
from ohem_d2.training.config_file import load_config
from ohem_d2.training.data_checks import check_datasets

RANKINGS = {
    "by loss": by_loss,
    "cleanlab": by_cleanlab,
    "cleanlab, confidence >= 0.5": lambda findings: by_cleanlab(findings, 0.5),
    "cleanlab, confidence >= 0.3": lambda findings: by_cleanlab(findings, 0.3),
}
TYPE_OF = {
    "removed": "missing label",
    "swapped": "wrong class",
    "moved": "badly placed label",
    "added": "spurious label",
}
ANY = "any of them"
ABOUT = """# How well wrong labels are found

Labels were corrupted deliberately, a share of them (`--share`) in each of four ways: left out
(*removed*), given another class (*swapped*), *moved*, and *added* where nothing is. With each seed,
a model was trained on them and then ranked the suspected errors.

A suspect counts as right if it points at a corrupted label: if it lies where a removed one was, or
is the label itself. Each error counts once, at its first suspect; further suspects of it are left
out. In the rows for one kind of error, only suspects of that kind count; *any of them* takes all
suspects, whatever they say is wrong. R-precision is the precision among as many suspects as there
are errors. cleanlab has no score for added labels, and its scores for different kinds are not
comparable, so for *any of them* the worst of each kind are interleaved; what scores 0.8 or more is
left out."""
TITLES = (
    "errors",
    "number",
    "ranking",
    "average precision",
    "R-precision",
    "recall",
)


def train_and_look(cfg, num_images: int | None) -> dict[str, tuple[list[dict], list[Findings]]]:
    """Train on corrupted labels, and look at those of the training set and of the test set."""
    trainer = StudyTrainer(cfg)
    trainer.train()
    mapper = build_mapper(cfg)
    looked = {}
    for what, (name,) in (("trained on", cfg.DATASETS.TRAIN), ("others", cfg.DATASETS.TEST)):
        records = DatasetCatalog.get(name)[:num_images]
        progress = tqdm(records, desc=what, unit="image", leave=False)
        looked[what] = records, [look_at(trainer.model, mapper(x)) for x in progress]
    return looked


def hits(
    record: dict, suspects: Sequence[tuple[int, HardExample]], error: str
) -> list[tuple[int, bool]]:
    """
    Which suspects of an image are right: each error counts once, where it comes first.

    Args:
        record: an image, as `spoil_labels` returns it.
        suspects: each with its place in the ranking.
        error: which errors count, and which suspects: one of `ERRORS`, or `ANY`, where it is
            enough to point at the wrong label, whatever is said to be wrong.

    Returns:
        of each suspect that counts its place, and whether it is an error.
    """
    errors = [x for x in [*record["annotations"], *record["removed"]] if x["error"]]
    errors = [x for x in errors if error in (ANY, x["error"])]
    found, result = set(), []
    for place, suspect in suspects:
        if error == ANY or suspect.error_type == TYPE_OF[error]:
            pointed_at = [i for i, x in enumerate(errors) if _points_at(suspect, x)]
            new = [i for i in pointed_at if i not in found]
            found |= set(new[:1])
            if new or not pointed_at:
                result.append((place, bool(new)))
    return result


def _points_at(suspect: HardExample, error: dict) -> bool:
    """Whether it is that label, or lies where the object is that has none, or has it elsewhere."""
    if suspect.true_class is None or suspect.true_box is None:
        if error["error"] not in ("removed", "moved"):
            return False
        return _iou(suspect.box, error["true_bbox"]) >= 0.5
    if error["error"] == "removed" or suspect.true_class != error["category_id"]:
        return False
    labelled = BoxMode.convert(error["bbox"], error["bbox_mode"], BoxMode.XYXY_ABS)
    return _iou(suspect.true_box, labelled) > 0.99


def _iou(box: Sequence[float], other: Sequence[float]) -> float:
    return float(pairwise_iou(Boxes([box]), Boxes([other])))


def score(ranked: list[tuple[int, bool]], number: int) -> list[float]:
    """
    Args:
        ranked: places in a ranking, and whether it is right there.
        number: how many errors there are.

    Returns:
        in percent: average precision; precision, which is recall too, among as many of the first
        as there are errors; and recall of all.
    """
    right = np.array([is_right for _, is_right in sorted(ranked)], dtype=float)
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    parts = (precision * right).sum(), right[:number].sum(), right.sum()
    return [100 * x / number for x in parts]


def table(results: list[dict]) -> str:
    """What came out, over seeds."""
    lines = []
    for what in dict.fromkeys(x["images"] for x in results):
        lines += [
            f"## Images: {what}",
            "",
            f"| {' | '.join(TITLES)} |",
            "| --- " * len(TITLES) + "|",
        ]
        for error in (*ERRORS, ANY):
            for ranking in RANKINGS:
                runs = [
                    x
                    for x in results
                    if (x["images"], x["error"], x["ranking"]) == (what, error, ranking)
                ]
                cells = [_mean_and_spread(values) for values in zip(*(x["scores"] for x in runs))]
                start = [error, str(runs[0]["number"]), ranking]
                lines.append(f"| {' | '.join([*start, *cells])} |")
        lines.append("")
    return "\n".join(lines)


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.0f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.0f}{spread}"


def measure(args: argparse.Namespace) -> Iterator[list[dict]]:
    """Train with each seed, and score the rankings: what came out so far, after each seed."""
    results = []
    for seed in tqdm(args.seeds, desc="seeds", unit="run"):
        cfg = load_config(args.config_file, [*args.opts, "SEED", str(seed)])
        register_datasets(cfg)
        check_datasets(*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
        for split in ("TRAIN", "TEST"):
            cfg.DATASETS[split] = (_spoilt(cfg.DATASETS[split][0], args.share),)
        with tempfile.TemporaryDirectory() as cfg.OUTPUT_DIR:
            cfg.freeze()
            seed_all_rng(seed)
            looked = train_and_look(cfg, args.max_images)
        for what, (records, findings) in looked.items():
            for ranking, rank in RANKINGS.items():
                of_images: list[list[tuple[int, HardExample]]] = [[] for _ in records]
                for place, (image, example) in enumerate(rank(findings)):
                    of_images[image].append((place, example))
                for error in (*ERRORS, ANY):
                    ranked = [x for r, of in zip(records, of_images) for x in hits(r, of, error)]
                    number = sum(
                        error in (ANY, x["error"]) and x["error"] is not None
                        for r in records
                        for x in [*r["annotations"], *r["removed"]]
                    )
                    scores = score(ranked, number)
                    results.append(
                        {
                            "images": what,
                            "ranking": ranking,
                            "error": error,
                            "number": number,
                            "scores": scores,
                        }
                    )
        yield results


def _spoilt(name: str, share: float) -> str:
    again = f"{name} {share} spoilt"
    if again not in DatasetCatalog:
        classes = MetadataCatalog.get(name).thing_classes
        records = spoil_labels(
            DatasetCatalog.get(name), len(classes), **dict.fromkeys(ERRORS, share)
        )
        DatasetCatalog.register(again, lambda: records)
        MetadataCatalog.get(again).set(thing_classes=classes)
    return again


def main() -> None:
    """Read the command line, measure, write the page."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/quick_start.yaml")
    parser.add_argument("--share", type=float, default=0.05, help="of labels, for each error")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-images", type=int, help="look at the first ones of each set only")
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    parser.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs")
    args = parser.parse_args()
    logging.disable(logging.INFO)  # Detectron2 says a lot of each run
    try:
        for number, results in enumerate(measure(args), 1):
            write(args.output, args.seeds[:number], results)
    except InputError as e:
        sys.exit(f"error: {e}")
    finally:
        logging.disable(logging.NOTSET)
    print(args.output.read_text())


def write(file: Path, seeds: list[int], results: list[dict]) -> None:
    """Write the page on the seeds that are done."""
    command = f"python benchmarks/label_errors.py {' '.join(sys.argv[1:])}"
    page = [ABOUT, f"    {command}", f"{describe()}; seeds {seeds}", table(results)]
    file.write_text("\n\n".join(page))


if __name__ == "__main__":
    main()
