"""Trainings of a second, that a test can interrupt where it wants to."""

import itertools
from contextlib import suppress

import cv2
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from small_data import HEIGHT, WIDTH, write_image
from small_models import SHRINK_OPTS

from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.trainer import Trainer

STEPS, PERIOD = 7, 2
SAMPLING = ("MODEL.ROI_HEADS.NAME", "StandardROIHeads")
WORKERS = ("DATALOADER.NUM_WORKERS", 2)
_names = itertools.count()


class Killed(BaseException):
    """As by the system: nothing is done about it."""


class Kill(HookBase):
    """Ends a training at the beginning of a step."""

    def __init__(self, step):
        self._step = step

    def before_step(self):
        if self.trainer.iter == self._step:
            raise Killed


def register_images(folder, number=9):
    """Images of both shapes, some of which wait for others of theirs."""
    records = []
    for i in range(number):
        file = folder / "images" / f"{i}.png"
        write_image(file, seed=i)
        width, height = WIDTH, HEIGHT
        if i % 3 == 0:
            cv2.imwrite(str(file), cv2.rotate(cv2.imread(str(file)), cv2.ROTATE_90_CLOCKWISE))
            width, height = height, width
        objects = [([5 + i, 5, 30, 35], i % 2), ([20, 15 + i, 25, 20], 1)]
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": c} for box, c in objects
        ]
        records.append(
            {
                "file_name": str(file),
                "image_id": i,
                "height": height,
                "width": width,
                "annotations": annotations,
            }
        )
    name = f"small_training_{next(_names)}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=["dog", "cat"], evaluator_type="none")
    return name


def config(folder, dataset, *opts):
    """Of a small model that is trained from scratch, with random sizes and flips."""
    settings = {
        "MODEL.ROI_HEADS.NUM_CLASSES": 2,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.FPN.NORM": "",
        "SOLVER.BASE_LR": 0.002,
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.MAX_ITER": STEPS,
        "SOLVER.CHECKPOINT_PERIOD": PERIOD,
        "INPUT.MIN_SIZE_TRAIN": (48, 56, 64),
        "DATASETS.TRAIN": dataset,
        "DATASETS.TEST": "()",
        "OUTPUT_DIR": str(folder),
    }
    opts = [*SHRINK_OPTS, *(x for pair in settings.items() for x in pair), *opts]
    return load_config(str(CONFIGS / "quick_start.yaml"), opts)


def train(cfg, kill_at=None, resume=False, hooks=()):
    """As from the command line. What is drawn before the checkpoint is loaded does not matter."""
    seed_all_rng((5 if resume else 1) + comm.get_rank())
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    if kill_at is not None:
        trainer.register_hooks([Kill(kill_at)])
    trainer.register_hooks(hooks)
    with suppress(Killed):
        trainer.train()
    return trainer


def weights(folder):
    """Those that a training ended with."""
    return torch.load(folder / "model_final.pth")["model"]


def assert_same(weights, others):
    """Bitwise."""
    assert weights.keys() == others.keys()
    different = [name for name, x in weights.items() if not x.equal(others[name])]
    assert different == []
