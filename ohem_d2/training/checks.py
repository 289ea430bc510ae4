"""What a run checks before it starts, whatever the form of its config."""

import os
import re
import tempfile
from collections.abc import Sequence
from urllib.parse import urlparse

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..data import ADDRESSES, unknown_dataset
from ..data.pickles import read_pickle
from ..errors import InputError
from .checkpoint import has_checkpoints

_KEYPOINTS_OF_COCO = 17
# What Detectron2 reads from a file of proposals; the first may have an older name.
_OF_PROPOSALS = ({"ids", "indexes"}, {"boxes"}, {"objectness_logits", "scores"})


def check_datasets(*names: str) -> None:
    """
    Make sure that data sets are known, and that their files are here.

    Raises:
        InputError: one of them is not.
    """
    for name in dict.fromkeys(names):
        if name not in DatasetCatalog:
            raise unknown_dataset(name)
        metadata = MetadataCatalog.get(name).as_dict()
        keys = ("json_file", "image_root", "dirname", "image_dir", "gt_dir")
        paths = [metadata.get(key) for key in keys]
        if "dirname" in metadata and "split" in metadata:  # in the layout of PASCAL VOC
            paths.append(f"{metadata['dirname']}/ImageSets/Main/{metadata['split']}.txt")
        for path in paths:
            if path is not None and not PathManager.exists(path):
                raise InputError(
                    f"the data set {name!r} is not here: {path} does not exist. Put it there, or "
                    "set DETECTRON2_DATASETS to the folder that holds it (the page 'Use Builtin "
                    "Datasets' of Detectron2's documentation shows the layout). To train on data "
                    f"of your own, give the addresses of both data sets ({ADDRESSES}); to see a "
                    "first training without any, run 'ohem-d2 train'"
                )


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
        raise InputError(
            f"there is nothing to evaluate: set {key} to a checkpoint, such as "
            f"{os.path.join(output_dir, 'model_final.pth')} after a training"
        )
    # Detectron2 takes settings from behind a question mark.
    reason = _missing(urlparse(weights)._replace(query="").geturl())
    if reason:
        advice = (
            " To train without one, leave it empty; 'ohem-d2 train' alone shows a small model that "
            "learns from scratch"
        )
        raise InputError(
            f"{key}, {weights!r}, cannot be loaded ({reason}). Set it to a checkpoint that is here."
            f"{advice if training else ''}"
        )


def check_proposal_files(key: str, files: Sequence[str], names: Sequence[str]) -> None:
    """
    Make sure that each data set has its file of precomputed proposals.

    Args:
        key: where the config names the files.
        files: their paths or addresses.
        names: the data sets.

    Raises:
        InputError: there are more or fewer files than data sets, or one of them is not here, has
            no proposals, or could run code.
    """
    if len(files) != len(names):
        raise InputError(
            f"{key} has {len(files)} files, expected {len(names)}: with MODEL.LOAD_PROPOSALS, one "
            f"for each of {', '.join(names)}"
        )
    for file in files:
        reason = _missing(file)
        if reason:
            raise InputError(f"{key}: {file!r} cannot be loaded ({reason})")
        # Detectron2 will run what it says.
        content = read_pickle(key, PathManager.get_local_path(file))
        if not isinstance(content, dict) or not all(x & content.keys() for x in _OF_PROPOSALS):
            raise InputError(
                f"{key}: {file!r} has no proposals, expected a pickle of ids, boxes, "
                "objectness_logits and bbox_mode"
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


def _missing(path: str) -> str | None:
    """Why there is no such file, here or at the address; None if there is."""
    try:
        return None if os.path.isfile(PathManager.get_local_path(path)) else "no such file"
    except Exception as e:  # whatever a download can die of
        return str(e)


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
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).strip():
        raise InputError(f"{key} is {path!r}, {expected}")
    path = os.fspath(path)
    if re.match(r"\w+:/|~", path):  # pathlib leaves one slash of an address
        raise InputError(f"{key} is {path!r}, which is no path, {expected}")
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise InputError(
            f"{key} is {path!r}, which cannot be written ({reason}), {expected}"
        ) from e


def check_num_classes(key: str, number: int, names: Sequence[str]) -> None:
    """
    Make sure that a model has as many classes as data sets.

    Args:
        key: where the config says how many the model has.
        number: how many these are.
        names: registered data sets. Those that do not say what classes they have are not looked at.

    Raises:
        InputError: it has not.
    """
    for name in names:
        if MetadataCatalog.get(name).get("thing_classes") is None:
            DatasetCatalog.get(name)  # some say what classes they have only when they are loaded
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes and len(classes) != number:
            more = ", ..." if len(classes) > 5 else ""
            raise InputError(
                f"{key} is {number}, expected {len(classes)}, as the data set {name!r} has: "
                f"{', '.join(classes[:5])}{more}"
            )


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
