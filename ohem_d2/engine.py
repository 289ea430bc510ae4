"""The trainer, and what a run checks before it starts."""

import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer, HookBase, default_setup
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from .config_file import find_config, load_config
from .data import register_datasets, unknown_dataset
from .errors import InputError
from .evaluation import build_evaluator, check_evaluator_type
from .pictures import MinedPictures

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Detectron2's `DefaultTrainer` with evaluators, and with pictures of the mined RoIs."""

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See `ohem_d2.evaluation.build_evaluator`."""
        return build_evaluator(cfg, dataset_name)

    def build_hooks(self) -> list[HookBase]:
        """Add the picture of what was mined to Detectron2's hooks."""
        hooks = super().build_hooks()
        if comm.is_main_process():
            file = Path(self.cfg.OUTPUT_DIR) / "pictures" / "mined.jpg"
            metadata = MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0])
            hooks.insert(0, MinedPictures(file, metadata, self.cfg.INPUT.FORMAT))
        return hooks


def run(args) -> dict | None:
    """
    Train or evaluate, as the command line says.

    Args:
        args: what Detectron2's `default_argument_parser` returns.

    Returns:
        the results of the evaluation, on the main process.

    Raises:
        InputError: the config, a data set or the weights are wrong or missing.
    """
    args.config_file = find_config(args.config_file)
    cfg = load_config(args.config_file, args.opts)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="ohem_d2")
    register_datasets(cfg)
    _check_datasets(cfg, training=not args.eval_only)
    _check_weights(cfg, resume=args.resume, training=not args.eval_only)
    cfg.freeze()
    default_setup(cfg, args)

    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        with _named_weights(cfg):
            checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = Trainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)
        return results

    trainer = Trainer(cfg)
    with _named_weights(cfg):
        trainer.resume_or_load(resume=args.resume)
    results = trainer.train()
    logger.info(f"Done: weights, logs and pictures are in {cfg.OUTPUT_DIR}")
    return results


def _check_datasets(cfg: CfgNode, training: bool) -> None:
    needed = ("TRAIN", "TEST") if training else ("TEST",)
    if not cfg.DATASETS[needed[0]]:
        raise InputError(f"DATASETS.{needed[0]} is empty, expected at least one data set")
    for name in (name for key in needed for name in cfg.DATASETS[key]):
        if name not in DatasetCatalog:
            raise unknown_dataset(name)
        if name in cfg.DATASETS.TEST:
            check_evaluator_type(name)
        metadata = MetadataCatalog.get(name).as_dict()
        for key in ("json_file", "image_root", "dirname", "image_dir", "gt_dir"):
            path = metadata.get(key)
            if path is not None and not PathManager.exists(path):
                raise InputError(
                    f"the data set {name!r} is not here: {path} does not exist. Put it there, or "
                    "set DETECTRON2_DATASETS to the folder that holds it (Detectron2's "
                    "datasets/README.md shows the layout). To train on data of your own, set "
                    "DATASETS.TRAIN and DATASETS.TEST; to see a first training without any, run "
                    "'python train_net.py'"
                )


def _check_weights(cfg: CfgNode, resume: bool, training: bool) -> None:
    weights = cfg.MODEL.WEIGHTS
    if resume and os.path.isfile(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint")):
        return
    if not weights:
        if training:
            return
        raise InputError(
            "there is nothing to evaluate: set MODEL.WEIGHTS to a checkpoint, such as "
            f"{os.path.join(cfg.OUTPUT_DIR, 'model_final.pth')} after a training"
        )
    try:
        found = os.path.isfile(PathManager.get_local_path(weights))
        reason = "no such file"
    except Exception as e:  # whatever a download can die of
        found, reason = False, e
    if not found:
        raise InputError(
            f"MODEL.WEIGHTS, {weights!r}, cannot be loaded ({reason}). Set it to a checkpoint "
            "that is here. To train without one, start from configs/quick_start.yaml, whose small "
            "model learns from scratch; 'python train_net.py' alone shows that"
        )


@contextmanager
def _named_weights(cfg: CfgNode) -> Iterator[None]:
    """Say which file it was that could not be read."""
    try:
        yield
    except (EOFError, pickle.UnpicklingError, RuntimeError) as e:
        raise InputError(
            f"MODEL.WEIGHTS, {cfg.MODEL.WEIGHTS!r}, or the checkpoint in {cfg.OUTPUT_DIR!r} that "
            f"--resume takes, is no checkpoint of this model: {e}"
        ) from e
