#!/usr/bin/env python
"""
What becomes of trainings that are killed at random moments and resumed: do they end with the
weights of the training that was not interrupted, bit by bit?

    python benchmarks/survival.py
    python tools/update_docs.py  # into docs/what_it_survives.md

A small Faster R-CNN learns from a few images for some steps on the CPU, with random flips and sizes
and a checkpoint now and then. Each training is a process of its own, or two. Some time after its
first checkpoint it is killed (SIGKILL) together with its workers, as by a machine that goes down.
It is then resumed, with another random state to begin with. Detectron2's `DefaultTrainer` gets the
same treatment; it cannot train on several processes without GPUs.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from environment import describe
from tqdm import tqdm

from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.trainer import Trainer

STEPS, PERIOD = 12, 2
_DATASET = "survival_images"
_NUM_IMAGES = 14
_MOST_SECONDS = 300  # of a training
HEADS = {"mining": "OHEMROIHeads", "1:3 sampling": "StandardROIHeads"}
_SMALL = {
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_HEADS.NUM_CLASSES": 2,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 40,
    "INPUT.MIN_SIZE_TRAIN": (48, 56, 64),
    "DATASETS.TRAIN": (_DATASET,),
    "DATASETS.TEST": "()",
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.MAX_ITER": STEPS,
    "SOLVER.CHECKPOINT_PERIOD": PERIOD,
}


@dataclass(frozen=True)
class Setting:
    """What is trained, and how."""

    trainer: str
    sampling: str
    workers: int
    processes: int


TRAINERS: dict[str, type[DefaultTrainer]] = {"ohem_d2": Trainer, "Detectron2": DefaultTrainer}
SETTINGS = [
    *(Setting("ohem_d2", s, w, p) for s in HEADS for w in (0, 2) for p in (1, 2)),
    *(Setting("Detectron2", "1:3 sampling", w, 1) for w in (0, 2)),
]


def write_images(folder: Path) -> list[dict]:
    """Noise with a few bright boxes, a third of the images upright; and Detectron2's records."""
    generator = np.random.default_rng(0)
    records = []
    for i in range(_NUM_IMAGES):
        height, width = (80, 60) if i % 3 == 0 else (60, 80)
        image = generator.integers(0, 128, (height, width, 3), dtype=np.uint8)
        annotations = []
        for category in range(2):
            x, y = generator.integers(0, 30, 2).tolist()
            image[y : y + 25, x : x + 20, category] += 127
            box = {"bbox": [x, y, 20, 25], "bbox_mode": BoxMode.XYWH_ABS, "category_id": category}
            annotations.append(box)
        file = folder / f"{i}.png"
        cv2.imwrite(str(file), image)
        record = {"file_name": str(file), "image_id": i, "height": height, "width": width}
        records.append({**record, "annotations": annotations})
    return records


def make_config(setting: Setting, folder: Path) -> CfgNode:
    """The quick start's, made smaller."""
    settings = {
        **_SMALL,
        "MODEL.ROI_HEADS.NAME": HEADS[setting.sampling],
        "DATALOADER.NUM_WORKERS": setting.workers,
        "OUTPUT_DIR": str(folder),
    }
    opts: list = [x for pair in settings.items() for x in pair]
    return load_config(str(CONFIGS / "quick_start.yaml"), opts)


def train(setting: Setting, folder: Path, seed: int, resume: bool) -> None:
    """Train in this process, which is one of those of the setting."""
    cfg = make_config(setting, folder)
    seed_all_rng(seed + comm.get_rank())
    trainer = TRAINERS[setting.trainer](cfg)
    trainer.resume_or_load(resume)
    trainer.train()


@contextmanager
def started(setting: Setting, folder: Path, seed: int, resume: bool):
    """
    Start a training in processes of its own, and kill what is left of it at the end.

    Yields:
        a function that tells its exit status, or None while it runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Path(tempfile.mkstemp(dir=folder.parent)[1])
    store.unlink()
    pid = os.fork()
    if pid == 0:
        os.setsid()  # one group, to be killed at once with the workers
        _become(setting, folder, seed, resume, store)
    ended: list[int] = []

    def status() -> int | None:
        if not ended:
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                ended.append(code)
        return ended[0] if ended else None

    try:
        yield status
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        while status() is None:
            time.sleep(0.01)


def _become(setting: Setting, folder: Path, seed: int, resume: bool, store: Path) -> None:
    """Train, as one process or two, and end."""
    code = 1
    try:
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        torch.set_num_threads(1)
        rank, other = 0, None
        if setting.processes == 2:
            other = os.fork()
            rank = int(other == 0)
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{store}", rank=rank, world_size=2
            )
            comm.create_local_process_group(2)
        setup_logger(distributed_rank=rank)
        train(setting, folder, seed, resume)
        code = os.waitpid(other, 0)[1] if other else 0
    finally:
        sys.stdout.flush()
        os._exit(bool(code))


def wait(status: Callable[[], int | None], seconds: float) -> bool:
    """Wait until a training ends, and tell whether it did in this time."""
    end = time.monotonic() + seconds
    while status() is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def complete(setting: Setting, folder: Path, seed: int, resume: bool) -> float:
    """Train to the end, and tell how many seconds passed since the first checkpoint."""
    with started(setting, folder, seed, resume) as status:
        wait(lambda: _is_under_way(folder) or status(), _MOST_SECONDS)
        start = time.monotonic()
        wait(status, _MOST_SECONDS)
        return time.monotonic() - start


def kill(setting: Setting, folder: Path, seed: int, seconds: float) -> bool:
    """Kill a training some time after its first checkpoint, and tell whether it still ran."""
    with started(setting, folder, seed, resume=False) as status:
        wait(lambda: _is_under_way(folder) or status(), _MOST_SECONDS)
        return not wait(status, seconds)


def _is_under_way(folder: Path) -> int | None:
    return 1 if (folder / "last_checkpoint").exists() else None


def weights(folder: Path) -> dict[str, torch.Tensor] | None:
    """Those that a training ended with, if it ended."""
    try:
        return torch.load(folder / "model_final.pth", map_location="cpu")["model"]
    except Exception:  # it is missing, or only half of it is there
        return None


def difference(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The largest of a weight; 0 if all are the same bit by bit."""
    if all(x.equal(others[name]) for name, x in some.items()):
        return 0.0
    return max((x.double() - others[name].double()).abs().max().item() for name, x in some.items())


def is_whole(file: Path) -> bool:
    """Whether a checkpoint can be loaded."""
    try:
        torch.load(file, map_location="cpu")
    except Exception:
        return False
    return True


def measure(setting: Setting, kills: int, folder: Path, progress: tqdm) -> dict:
    """Kill and resume trainings of a setting."""
    seconds = complete(setting, folder / "whole", seed=1, resume=False)
    complete(setting, folder / "again", seed=1, resume=False)
    expected, again = weights(folder / "whole"), weights(folder / "again")
    if expected is None or again is None:
        sys.exit(f"error: {setting} does not train: see {folder}/whole/output.txt")
    generator = random.Random(str(setting))
    results: list[dict] = []
    while len(results) < kills:
        out = folder / f"killed_{len(results)}_{generator.random()}"
        moment = generator.uniform(0, seconds)
        if not kill(setting, out, 1, moment):
            continue  # it ended before: another moment
        half = sum(not is_whole(x) for x in out.glob("*.pth"))
        saved = (out / "last_checkpoint").read_text()
        complete(setting, out, seed=2, resume=True)
        found = weights(out)
        results.append(
            {
                "seconds": round(moment, 3),
                "checkpoint": saved,
                "half_files": half,
                "difference": None if found is None else difference(found, expected),
            }
        )
        progress.update()
    return {**asdict(setting), "control": difference(again, expected), "kills": results}


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/survival/kills.json"))
    parser.add_argument("--kills", type=int, default=3, help="of each setting")
    args = parser.parse_args()
    torch.set_num_threads(1)  # before the first fork
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        records = write_images(Path(folder))
        DatasetCatalog.register(_DATASET, lambda: records)
        MetadataCatalog.get(_DATASET).set(thing_classes=["green", "blue"])
        runs = []
        with tqdm(total=args.kills * len(SETTINGS), unit="kill") as progress:
            for i, setting in enumerate(SETTINGS):
                runs.append(measure(setting, args.kills, Path(folder) / str(i), progress))
    content = {
        "environment": describe("cpu"),
        "steps": STEPS,
        "checkpoint_period": PERIOD,
        "images": _NUM_IMAGES,
        "runs": runs,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=1) + "\n")
    for run in runs:
        same = sum(x["difference"] == 0 for x in run["kills"])
        words = f"{run['trainer']}, {run['sampling']}, {run['workers']} workers"
        print(f"{words}, {run['processes']} processes: {same} of {len(run['kills'])} the same")


if __name__ == "__main__":
    main()
