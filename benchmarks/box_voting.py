#!/usr/bin/env python
"""
What iterative box regression and box voting (+B) do to the accuracy of a trained model.

    python benchmarks/box_voting.py --config-file output/quick_start/config.yaml \\
        MODEL.WEIGHTS output/quick_start/model_final.pth

evaluates it with each number of rounds, in one process, and stores what came out (--output). The
model's head is a mining head, or BoxVotingROIHeads.
"""

import json
import sys
import tempfile
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_argument_parser
from environment import describe

from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.training.checks import check_weights
from ohem_d2.training.config_file import load_config
from ohem_d2.training.data_checks import check_datasets
from ohem_d2.training.trainer import Trainer

SETTINGS = [(0, None), (1, 0.5), (1, 0.3), (2, 0.5), (2, 0.3), (3, 0.3)]


def measure(config_file: str, opts: list[str]) -> list[dict]:
    """Evaluate with each of the settings, and return a row for each and each data set."""
    rows = []
    for rounds, nms_thresh in SETTINGS:
        cfg = load_config(config_file, opts)
        cfg.TEST.BOX_VOTING.ROUNDS = rounds
        if rounds:
            cfg.TEST.BOX_VOTING.NMS_THRESH = nms_thresh
        register_datasets(cfg)
        check_datasets(*cfg.DATASETS.TEST)
        weights = ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
        check_weights(*weights, resume=False, training=False)
        names = cfg.DATASETS.TEST
        for name in names:
            with tempfile.TemporaryDirectory() as cfg.OUTPUT_DIR:
                cfg.DATASETS.TEST = (name,)
                model = Trainer.build_model(cfg)
                DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
                results = Trainer.test(cfg, model)["bbox"]
            nms = nms_thresh if rounds else cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST
            values = {x: round(results[x], 1) for x in ("AP", "AP50", "AP75")}
            rows.append({"data": name, "rounds": rounds, "nms": nms, **values})
    return rows


def main() -> None:
    """Read the command line, measure, write."""
    parser = default_argument_parser(epilog=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/box_voting.json"))
    args = parser.parse_args()
    try:
        rows = measure(args.config_file, args.opts)
    except InputError as e:
        sys.exit(f"error: {e}")
    command = f"python benchmarks/box_voting.py {' '.join(sys.argv[1:])}"
    content = {"command": command, "environment": describe(), "rows": rows}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=1) + "\n")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
