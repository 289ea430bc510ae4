#!/usr/bin/env python
"""
Write down what a trained model finds hard in a data set.

    python tools/hard_examples.py --config-file output/config.yaml --dataset ohem_shapes_test \\
        --output report MODEL.WEIGHTS output/model_final.pth

RoIs are mined by the code that training mines with; each object and each look-alike that the model
gets wrong is one example. report/index.html shows them, hardest first; hard_examples.json beside it
has them in COCO's format.
"""

import argparse
import logging
import sys
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger
from torch import nn
from tqdm import tqdm

from ohem_d2.checks import check_datasets, check_weights, named_weights
from ohem_d2.config_file import load_config
from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.hard_examples import as_coco, build_mapper, check_model, find_hard_examples
from ohem_d2.lazy import COUNTERPARTS
from ohem_d2.report import Report

logger = logging.getLogger("ohem_d2")


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
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs, MODEL.WEIGHTS above all")
    args = parser.parse_intermixed_args()
    setup_logger(name="fvcore")
    setup_logger(name="ohem_d2")
    try:
        write_report(args)
    except InputError as e:
        sys.exit(f"error: {e}")


def write_report(args: argparse.Namespace) -> None:
    """
    Look at the images, and write what was found; also if that is interrupted.

    Raises:
        InputError: the config, the data set or the weights are wrong or missing.
    """
    if args.max_images is not None and args.max_images < 1:
        raise InputError(f"--max-images is {args.max_images}, expected 1 or more")
    cfg = load_config(args.config_file, args.opts)
    model = load_model(cfg, args.dataset)
    mapper = build_mapper(cfg)
    records = get_detection_dataset_dicts(
        args.dataset,
        filter_empty=False,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TEST if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    report = Report(args.output)
    found, crops = [], []
    try:
        for record in tqdm(records[: args.max_images], desc="mining", unit="image"):
            try:
                x = mapper(record)
            except Exception as e:  # what reads images raises anything
                logger.warning(f"{record['file_name']} is left out: {e}")
                continue
            examples = find_hard_examples(model, x)
            crops.append(report.add_crops(record["file_name"], examples))
            found.append((record, examples))
    except KeyboardInterrupt:
        logger.warning(f"Interrupted after {len(found)} images, which are kept")
    coco = as_coco(found, crops, args.dataset)
    report.write(coco)
    number, file = len(coco["annotations"]), args.output / "index.html"
    logger.info(f"Wrote {number} hard examples of {len(found)} images: open {file}")


def load_model(cfg: CfgNode, dataset: str) -> nn.Module:
    """Build the model of a config, which gets mining heads if it has none, and load its weights."""
    cfg.DATASETS.TEST = (dataset,)
    register_datasets(cfg)
    check_datasets(dataset)
    weights = ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    check_weights(*weights, resume=False, training=False)
    for plain, mining in COUNTERPARTS.items():
        if plain.__name__ == cfg.MODEL.ROI_HEADS.NAME:
            cfg.MODEL.ROI_HEADS.NAME = mining.__name__
    model = build_model(cfg)
    check_model(model)
    with named_weights(*weights):
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


if __name__ == "__main__":
    main()
