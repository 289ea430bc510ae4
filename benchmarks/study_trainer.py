"""Trains one run of an accuracy study, and looks at its images with the model that comes out."""

import json
import math
import tempfile
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.utils.env import seed_all_rng
from study_file import settings_of
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ohem_d2.files import write_whole
from ohem_d2.report.hard_examples import build_mapper, look_at
from ohem_d2.report.label_errors import by_loss
from ohem_d2.report.model_errors import ModelErrors
from ohem_d2.report.run import load_records, write_lists
from ohem_d2.training.checks import check_weights
from ohem_d2.training.trainer import Trainer
from ohem_d2.visualization import MinedPictures

# The part of a training whose weights are averaged.
AVERAGED_FROM = 0.8


def evaluate(trainer: Trainer, model: torch.nn.Module) -> dict:
    """The results of a model, with test-time augmentation if its config says so."""
    test = trainer.test_with_tta if trainer.cfg.TEST.AUG.ENABLED else trainer.test
    return {name.removesuffix("_TTA"): x for name, x in test(trainer.cfg, model).items()}


class Curve(HookBase):
    """Evaluates now and then."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.points: list[dict] = []

    def before_train(self) -> None:
        """Show how far it is."""
        self.bar = tqdm(total=self.trainer.max_iter, desc="iterations", leave=False)

    def after_train(self) -> None:
        """Stop showing it."""
        self.bar.close()

    def after_step(self) -> None:
        """Evaluate if it is time to."""
        self.bar.update()
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            of_tasks = evaluate(self.trainer, self.trainer.model)
            results = dict(of_tasks["bbox"])
            if "segm" in of_tasks:
                results["mask AP"] = of_tasks["segm"]["AP"]
            # Of a model that finds nothing, Detectron2's evaluator says that AP is not a number.
            results = {k: 0.0 if math.isnan(v) else v for k, v in results.items()}
            self.points.append({"iteration": done, **results})


class LastWeights(HookBase):
    """Averages the weights of the last steps."""

    def after_step(self) -> None:
        """Add the weights to the average, if the end is near."""
        first = math.floor(AVERAGED_FROM * self.trainer.max_iter)
        if self.trainer.iter < first:
            return
        if self.trainer.iter == first:
            self.average = AveragedModel(self.trainer.model)
        self.average.update_parameters(self.trainer.model)


class StudyTrainer(Trainer):
    """Trains without checkpoints and pictures."""

    def build_hooks(self) -> list[HookBase]:
        """See `DefaultTrainer.build_hooks`."""
        left_out = (hooks.EvalHook, hooks.PeriodicCheckpointer, MinedPictures)
        return [h for h in super().build_hooks() if not isinstance(h, left_out)]


def build_trainer(cfg: CfgNode, folder: str) -> StudyTrainer:
    """
    Build what trains a config from its seed and its weights, and writes its log to a folder.

    Raises:
        InputError: there are no such weights.
    """
    check_weights("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, folder, resume=False, training=True)
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = folder
    cfg.freeze()
    seed_all_rng(cfg.SEED)
    trainer = StudyTrainer(cfg)
    trainer.resume_or_load(resume=False)
    return trainer


def train(
    cfg: CfgNode,
    points: int,
    average: bool = False,
    suspects: Path | None = None,
    looked_at: str | None = None,
) -> list[dict]:
    """
    Train once, and return the points of its learning curve, evenly spaced.

    Args:
        cfg: the config.
        points: their number.
        average: whether the last one is to have "AP averaged" too, that of the average of the last
            weights.
        suspects: the folder to which the lists of a report are to go, if they are wanted. Beside
            them, ``settings.json`` says what the model was trained with.
        looked_at: the registered data set of that report; None: the training set.
    """
    with tempfile.TemporaryDirectory() as folder:
        curve, last = Curve(max(1, cfg.SOLVER.MAX_ITER // points)), LastWeights()
        trainer = build_trainer(cfg, folder)
        trainer.register_hooks([curve, *([last] if average else [])])
        trainer.train()
        if average:
            results = evaluate(trainer, last.average.module)["bbox"]
            curve.points[-1]["AP averaged"] = results["AP"]
    if suspects:
        look(cfg, trainer.model, looked_at or cfg.DATASETS.TRAIN[0], suspects)
        write_whole(suspects / "settings.json", json.dumps(settings_of(cfg)))
    return curve.points


def look(cfg: CfgNode, model: torch.nn.Module, name: str, folder: Path) -> None:
    """Write the lists of a report on a data set, without its page."""
    mapper = build_mapper(cfg)
    records = tqdm(load_records(name, None), desc="looking", unit="image", leave=False)
    seen = [(x, look_at(model, mapper(x))) for x in records]
    write_lists(folder, name, seen, ModelErrors(name), by_loss)


def has_suspects(cfg: CfgNode, folder: Path) -> bool:
    """Whether a model that was trained as this config says has written its suspects there."""
    file = folder / "settings.json"
    return file.exists() and json.loads(file.read_text()) == settings_of(cfg)
