#!/usr/bin/env python
"""
Train or evaluate a detector with online hard example mining.

    python train_net.py                                     # the quick start: no data, no GPU
    python train_net.py --config-file configs/faster_rcnn_ohem.yaml --num-gpus 8
    python train_net.py --config-file COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml \
        MODEL.ROI_HEADS.NAME OHEMROIHeads
    python train_net.py --config-file configs/mask_rcnn_R_50_FPN_1x_ohem.py train.max_iter=1000
"""

import sys
from pathlib import Path

from detectron2.engine import default_argument_parser, launch
from torch.multiprocessing import ProcessRaisedException

from ohem_d2.errors import InputError
from ohem_d2.training.trainer import run


def main() -> None:
    """Read the command line and run it, on as many processes as it asks for."""
    parser = default_argument_parser(epilog=__doc__)
    parser.set_defaults(config_file=str(Path(__file__).parent / "configs" / "quick_start.yaml"))
    args = parser.parse_args()
    try:
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except InputError as e:
        sys.exit(f"error: {e}")
    except ProcessRaisedException as e:  # which holds the traceback of another process as text
        _, is_input_error, message = str(e).rpartition(f"{InputError.__module__}.InputError: ")
        if not is_input_error:
            raise
        sys.exit(f"error: {message.strip()}")


if __name__ == "__main__":
    main()
