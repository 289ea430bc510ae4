"""
What is tried before a run, rather than found out in it: augmentations, on an image that is made up;
before an evaluation the model, too; and before a training the losses, on its first images.

Losses are not tried on made-up images: they have to be refused whenever the first step would, and
only then, and batch normalization alone needs several images of a real size. What only the first
step itself can fail of, it says itself. Nothing has been trained then.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from ..errors import InputError, shown
from .data_loader import ResumableLoader
from .named_settings import is_known
from .no_learning import warn_of_no_anchors, warn_of_unlearned_weights
from .random_state import keep_random_state
from .system_errors import of_system

_SIZE = (128, 192)
_IMAGE_SIZE = (480, 640)
# Of a model that was trained: what its layers make comes to thousands at most.
_LARGEST = 1e8


def try_augmentations(augmentations: Sequence[T.Augmentation | T.Transform], keys: str) -> None:
    """
    Augment an image, of one color and the size of COCO's.

    Args:
        augmentations: in turn. Those that are not Detectron2's own end the trial.
        keys: what the config calls their settings.

    Raises:
        InputError: one of them fails, or nothing is left of the image.
    """
    image = np.zeros((*_IMAGE_SIZE, 3), dtype=np.uint8)
    with keep_random_state():
        for augmentation in augmentations:
            module = type(augmentation).__module__
            is_one = isinstance(augmentation, (T.Augmentation, T.Transform))
            # A text and the like are none of the user's own, and a config's own augmentation is.
            if not is_known(module) and (is_one or module != "builtins"):
                return
            if not is_one:
                raise InputError(
                    f"{keys} has {shown(augmentation)}, expected one of Detectron2's augmentations "
                    "that is called, such as RandomFlip()"
                )
            try:
                augmented = T.AugInput(image)
                T.AugmentationList([augmentation])(augmented)
                image = augmented.image
            except Exception as e:
                reason = f"{type(e).__name__}: {e}"
                raise _not_applicable(keys, augmentation, reason) from e
            if not image.size:
                raise _not_applicable(keys, augmentation, "nothing is left of it")


def _not_applicable(keys: str, augmentation: object, reason: str) -> InputError:
    height, width = _IMAGE_SIZE
    return InputError(
        f"{keys} cannot be applied to an image of {width} x {height} pixels: {augmentation!r} "
        f"fails ({reason})"
    )


def try_model(model: nn.Module, naming: AbstractContextManager[None], weights: str = "") -> None:
    """
    Detect objects in a small black image, which leaves the model and the random state as they are.
    A model that is not wholly Detectron2's may expect other input, and is left alone.

    Args:
        model: the model, with weights that were trained: numbers may overflow in others.
        naming: says which settings are to blame for an error.
        weights: what the config calls its weights, and which they are.

    Raises:
        InputError: with these weights numbers overflow, and Detectron2 would detect nothing.
    """
    means = getattr(model, "pixel_mean", None)
    if not isinstance(means, torch.Tensor) or not _is_detectron2s(model):
        return
    image = torch.zeros(len(means), *_SIZE)
    proposals = Instances(_SIZE)
    proposals.proposal_boxes = Boxes(torch.tensor([[10.0, 10.0, 100.0, 90.0]]))
    proposals.objectness_logits = torch.ones(1)
    image_of_batch = {"image": image, "height": _SIZE[0], "width": _SIZE[1], "proposals": proposals}
    learning = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with naming, torch.no_grad(), keep_random_state(), _finite_outputs(model, weights):
            model([image_of_batch])
    finally:
        for m in learning:
            m.training = True


@contextmanager
def _finite_outputs(model: nn.Module, weights: str) -> Iterator[None]:
    """Name the first part of a model whose output is not finite, or as good as that."""
    names = {m: name for name, m in model.named_modules()}

    def look(module: nn.Module, inputs: Any, given: Any) -> None:
        if module not in names or not isinstance(given, torch.Tensor) or not given.numel():
            return
        if not given.isfinite().all():
            found = "that are NaN or infinite"
        elif (largest := given.abs().max().item()) > _LARGEST:
            found = f"as large as {largest:.0e}"
        else:
            return
        raise InputError(
            f"{weights}: of a black image, {names[module]} makes numbers {found}, expected weights "
            "of a training that did not diverge"
        )

    handle = register_module_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _is_detectron2s(model: nn.Module) -> bool:
    return all(is_known(type(m).__module__) for m in model.modules())


def try_losses(
    trainer: TrainerBase, naming: AbstractContextManager[None], weights: str = ""
) -> None:
    """
    Compute the losses of the first images of a training, in a copy of the model: neither the model
    nor the stream of images nor the random state knows of it. It takes less memory than a step
    later on, which has gradients and the optimizer's state in the place of the copy.

    What is not wholly Detectron2's may keep something between steps, and is left alone.

    Args:
        trainer: one of Detectron2's, which has not begun.
        naming: says which settings are to blame for an error.
        weights: what the config calls those that it starts with, and which they are; or "".

    Raises:
        InputError: numbers overflow with these weights.
    """
    steps = getattr(trainer, "_trainer", trainer)
    model, loader = getattr(steps.model, "module", steps.model), steps.data_loader
    if not isinstance(loader, ResumableLoader) or not _is_detectron2s(model):
        return
    try:
        model = deepcopy(model)
    except Exception:  # of tensors that are computed from parameters
        return
    with naming:
        batch = loader.a_batch()
        if not batch:
            return
        precision = getattr(steps, "precision", None)  # of AMPTrainer
        mixed = nullcontext() if precision is None else torch.autocast("cuda", precision)
        # With gradients, since a pass without any mines nothing.
        with keep_random_state(), EventStorage(), _quiet(), mixed:
            losses = model(batch)
            if isinstance(losses, dict):
                try:
                    SimpleTrainer.write_metrics(losses, 0.0, 0)
                except FloatingPointError:
                    if weights:  # which may be to blame
                        try_model(model, nullcontext(), weights)
                    raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave warnings to the first step, which gives the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def name_first_step(trainer: TrainerBase, naming: AbstractContextManager[None]) -> None:
    """
    Let the first step of a training say which settings it fails of, and what it does not reach.

    Args:
        trainer: it is as before from the second step on.
        naming: says which settings are to blame for an error.
    """
    # Detectron2 logs what ends a training, with a traceback.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_needs_traceback)
    run_step: Callable[[], None] = trainer.run_step

    def run_first_step() -> None:
        trainer.run_step = run_step
        try:
            with naming:
                run_step()
            model = getattr(trainer, "_trainer", trainer).model
            warn_of_unlearned_weights(model)
            warn_of_no_anchors(model, trainer.storage)
        except InputError:
            # Of a single step, hooks would evaluate what was not trained, and fail of the same.
            trainer.max_iter = trainer.iter + 2
            raise

    trainer.run_step = run_first_step


def _needs_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not (isinstance(error, InputError) or of_system(error))
