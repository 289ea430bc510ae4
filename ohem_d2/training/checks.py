"""What a run checks before it starts, whatever the form of its config."""

import logging
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..paths import wrong_file, wrong_folder, wrong_folder_name, wrong_name
from .checkpoint import has_checkpoints
from .key_rules import LARGEST_SEED

logger = logging.getLogger(__name__)

_KEYPOINTS_OF_COCO = 17


def check_weights(key: str, weights: str, output_dir: str, resume: bool, training: bool) -> None:
    """
    Make sure that there are weights to start from, or to evaluate.

    Args:
        key: where the config names the weights.
        weights: a path or address, or "".
        output_dir: where ``resume`` finds a checkpoint, if there is one.
        resume: as on the command line.
        training: whether the weights are to be trained.

    Raises:
        InputError: there are none.
    """
    if resume and has_checkpoints(output_dir):
        return
    if not weights:
        if training:
            return
        to_resume = ""
        if resume:
            to_resume = f"--resume: there is no checkpoint in {output_dir!r}, and "
        raise InputError(
            f"{to_resume}{key} is empty, expected a trained checkpoint, such as "
            f"{os.path.join(output_dir, 'model_final.pth')} after a training"
        )
    # Detectron2 takes settings from behind a question mark.
    reason = missing_file(urlparse(weights)._replace(query="").geturl())
    if reason:
        advice = (
            " To train without one, leave it empty; 'ohem-d2 train' alone shows a small model that "
            "learns from scratch"
        )
        raise InputError(
            f"{key}, {weights!r}, cannot be loaded: it {reason}. Set it to a checkpoint that is "
            f"here.{advice if training else ''}"
        )


def warn_of_unused_weights(key: str, weights: str, output_dir: str) -> None:
    """
    Say so if an evaluation that is resumed takes other weights than those of the command line.

    Args:
        key: that which the command line sets.
        weights: a path or address.
        output_dir: where the checkpoint is that is evaluated.
    """
    last = Path(output_dir) / "last_checkpoint"
    if not weights or not has_checkpoints(output_dir):
        return
    if last.is_file() and os.path.realpath(weights) == os.path.realpath(
        last.with_name(last.read_text(encoding="utf-8", errors="replace").strip())
    ):
        return
    logger.warning(
        f"{key} is {weights!r}, but --resume evaluates the last checkpoint in {output_dir!r}: "
        f"expected one of both, so leave out --resume to evaluate {key}"
    )


def check_batch_size(key: str, batch_size: int) -> None:
    """
    Make sure that each process gets the same number of images.

    Args:
        key: where the config says how many images there are in a step.
        batch_size: their number.

    Raises:
        InputError: they cannot be divided evenly.
    """
    processes = comm.get_world_size()
    if batch_size < 1 or batch_size % processes:
        raise InputError(
            f"{key} is {batch_size}, expected a multiple of {processes}, the number of processes"
        )


def check_seed(key: str, seed: int) -> None:
    """
    Make sure that each process gets a seed: Detectron2 adds the number of the process.

    Args:
        key: where the config says it.
        seed: it keeps the rule of its key; a negative one stands for any.

    Raises:
        InputError: that of the last process would be larger than numpy's can be.
    """
    most = LARGEST_SEED - (comm.get_world_size() - 1)
    if seed > most:
        raise InputError(
            f"{key} is {seed}, expected {most} at most: each of {comm.get_world_size()} processes "
            f"adds its number, and numpy takes seeds up to {LARGEST_SEED}"
        )


def missing_file(path: str) -> str | None:
    """Tell what is wrong with a file, here or at the address; None if it is there."""
    scheme = re.match(r"\w+://", path)
    known = tuple(getattr(PathManager, "_path_handlers", ()))
    if scheme and known and not path.startswith(known):
        # Detectron2 takes it for a path.
        names = ", ".join(x for x in known if x.endswith("://"))
        return f"is an address of {scheme[0]}, expected a path, or one of {names}"
    try:
        return wrong_file(PathManager.get_local_path(path))
    except InputError as e:
        return f"cannot be fetched: {e}"
    except KeyError as e:  # of Detectron2's catalog
        return f"names {e}, which is not known there"
    except Exception as e:  # whatever a download can die of
        cause = f"({type(e).__name__}: {e})"
        cache = os.environ.get("FVCORE_CACHE", "")
        if os.path.isfile(cache):  # in the place of a folder that cannot be written, iopath has one
            cause += f": FVCORE_CACHE is {cache!r}, which is a file, expected a folder"
        return f"cannot be fetched {cause}"


def check_output_dir(key: str, path: object) -> None:
    """
    Make sure that files can be written to a folder, which is made if it is not there.

    Args:
        key: where the user names it.
        path: the folder.

    Raises:
        InputError: they cannot.
    """
    expected = "expected a folder on this machine that can be written"
    path = os.fspath(path) if isinstance(path, os.PathLike) else path
    if reason := (
        wrong_name(path) or wrong_folder(Path(path)) or wrong_folder_name(path)  # type: ignore[arg-type]
    ):
        raise InputError(f"{key} is {path!r}, which {reason}, {expected}")
    try:
        os.makedirs(path, exist_ok=True)  # type: ignore[arg-type]
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise InputError(
            f"{key} is {path!r}, which cannot be written ({reason}), {expected}"
        ) from e


def check_keypoint_sigmas(
    key: str, sigmas: Sequence[float], number: int, names: Sequence[str]
) -> None:
    """
    Make sure that COCO's metric of keypoints has a sigma for each.

    Args:
        key: where the config says them.
        sigmas: those of the config. None: COCO's own, which are for the keypoints of people.
        number: how many keypoints the model has.
        names: registered data sets to evaluate with. Those of other metrics are not looked at.

    Raises:
        InputError: there are more or fewer.
    """
    by_coco = [n for n in names if MetadataCatalog.get(n).get("evaluator_type") == "coco"]
    if by_coco and len(sigmas or range(_KEYPOINTS_OF_COCO)) != number:
        raise InputError(
            f"{key} is {tuple(sigmas)}, expected {number} numbers, one for each keypoint of the "
            f"data set {by_coco[0]!r}: how far off it may be, by the square root of the object's "
            "area, such as 0.05 (COCO's own, the default, are for its "
            f"{_KEYPOINTS_OF_COCO} keypoints)"
        )
