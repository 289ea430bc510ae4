#!/usr/bin/env python
"""
Write down what a trained model finds hard in a data set.

    python tools/hard_examples.py --config-file output/config.yaml --dataset ohem_shapes_test \\
        --output report MODEL.WEIGHTS output/model_final.pth

RoIs are mined by the code that training mines with; each object and each look-alike that the model
gets wrong is one example. Where model and labels disagree, the label may be wrong as well: these
are ranked by what the label costs the model. report/index.html shows both, the worst first;
hard_examples.json and label_errors.json beside it have them in COCO's format.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_model
from detectron2.utils.logger import setup_logger
from torch import nn
from tqdm import tqdm

from ohem_d2.checks import check_datasets, check_proposal_files, check_weights, named_weights
from ohem_d2.config_file import load_config
from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.hard_examples import Findings, build_mapper, check_model, look_at
from ohem_d2.label_errors import by_cleanlab, by_loss
from ohem_d2.lazy import COUNTERPARTS
from ohem_d2.report import as_coco, write_report

logger = logging.getLogger("ohem_d2")

RANKINGS = {"loss": by_loss, "cleanlab": by_cleanlab}


def main() -> None:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="that of the training")
    parser.add_argument(
        "--dataset",
        required=True,
        help="a registered name, coco://<annotations.json>?images=<folder>, or "
        "voc://<devkit folder>?split=<split>",
    )
    parser.add_argument("--output", required=True, type=Path, help="the folder to write")
    parser.add_argument("--max-images", type=int, help="look at the first ones only")
    parser.add_argument(
        "--label-errors",
        choices=RANKINGS,
        default="loss",
        help="how label errors are found: by what labels cost the model, or by cleanlab's scores",
    )
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs, MODEL.WEIGHTS above all")
    args = parser.parse_intermixed_args()
    setup_logger(name="fvcore")
    setup_logger(name="ohem_d2")
    try:
        report(args)
    except InputError as e:
        sys.exit(f"error: {e}")


def report(args: argparse.Namespace) -> None:
    """
    Look at the images, and write what was found; also if that is interrupted, or fails.

    Raises:
        InputError: the config, the data set or the weights are wrong or missing.
    """
    if args.max_images is not None and args.max_images < 1:
        raise InputError(f"--max-images is {args.max_images}, expected 1 or more")
    rank = RANKINGS[args.label_errors]
    rank([])  # if it is not installed, it says so now
    cfg = load_config(args.config_file, args.opts)
    proposal_files = find_proposals(cfg, args.dataset)
    model = load_model(cfg, args.dataset)
    records = load_records(args.dataset, proposal_files)[: args.max_images]
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"--output {args.output} cannot be a folder ({e.strerror})") from e
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    seen = []
    try:
        mapper = build_mapper(cfg)
        for record in tqdm(records, desc="mining", unit="image"):
            try:
                x = mapper(record)
            except Exception as e:  # what reads images raises anything
                logger.warning(f"{record['file_name']} is left out: {e}")
                continue
            seen.append((record, look_at(model, x)))
    except KeyboardInterrupt:
        logger.warning(f"Interrupted after {len(seen)} images, which are kept")
    finally:
        if seen:
            write(args, *zip(*seen), rank)
    if not seen:
        raise InputError(f"no image of {args.dataset} was looked at, expected one or more")


def write(
    args: argparse.Namespace, records: Sequence[dict], findings: Sequence[Findings], rank: Callable
) -> None:
    """Rank what was found in the images, and write it."""
    hard = [(i, example) for i, f in enumerate(findings) for example in f.hard_examples]
    hard.sort(key=lambda x: -x[1].loss)
    suspects = rank(findings)
    write_report(
        args.output,
        args.dataset,
        as_coco(records, hard, args.dataset, "hard_examples"),
        as_coco(records, suspects, args.dataset, "label_errors"),
    )
    logger.info(
        f"Wrote {len(hard)} hard examples and {len(suspects)} suspected label errors of "
        f"{len(records)} images: open {args.output / 'index.html'}"
    )


def find_proposals(cfg: CfgNode, dataset: str) -> list[str] | None:
    """
    The file of precomputed proposals of a data set, if the model needs one.

    Raises:
        InputError: the config does not name it, or it is not there.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return None
    for split in ("TEST", "TRAIN"):
        names, files = cfg.DATASETS[split], cfg.DATASETS[f"PROPOSAL_FILES_{split}"]
        if dataset in names:
            check_proposal_files(f"DATASETS.PROPOSAL_FILES_{split}", files, names)
            return [files[names.index(dataset)]]
    raise InputError(
        f"--dataset is {dataset}, expected one of DATASETS.TEST or DATASETS.TRAIN, which have a "
        "file of proposals, since MODEL.LOAD_PROPOSALS is True"
    )


def load_records(dataset: str, proposal_files: list[str] | None) -> list[dict]:
    """
    The images of a data set, with their proposals.

    Raises:
        InputError: there are no annotations, or no proposals for an image.
    """
    try:
        records = get_detection_dataset_dicts(
            dataset, filter_empty=False, proposal_files=proposal_files
        )
    except KeyError as e:
        raise InputError(f"{proposal_files} has no proposals of the image {e}") from e
    if "annotations" not in records[0]:
        raise InputError(f"--dataset {dataset} has no annotations, expected some")
    return records


def load_model(cfg: CfgNode, dataset: str) -> nn.Module:
    """
    Build the model of a config, which gets mining heads if it has none, and load its weights.

    Raises:
        InputError: it is no two-stage model, or not for this data set, or has no weights.
    """
    cfg.DATASETS.TEST = (dataset,)
    register_datasets(cfg)
    check_datasets(dataset)
    names, number = MetadataCatalog.get(dataset).thing_classes, cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if len(names) != number:
        raise InputError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {number}, expected {len(names)}, as --dataset "
            f"{dataset} has: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        )
    weights = ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    check_weights(*weights, resume=False, training=False)
    for plain, mining in COUNTERPARTS.items():
        if plain.__name__ == cfg.MODEL.ROI_HEADS.NAME:
            cfg.MODEL.ROI_HEADS.NAME = mining.__name__
    if not issubclass(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE), GeneralizedRCNN):
        raise InputError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, expected GeneralizedRCNN: "
            "hard examples are mined among the RoIs of a two-stage model"
        )
    model = build_model(cfg)
    check_model(model)
    with named_weights(*weights):
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


if __name__ == "__main__":
    main()
