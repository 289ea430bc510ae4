"""The folder that a run writes: what is in its way there, and one training at a time."""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml
from detectron2.utils import comm
from fvcore.common.config import BASE_KEY
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ..errors import InputError
from ..files import locked, write_whole
from ..paths import wrong_output
from .checkpoint import has_checkpoints

try:
    import resource
except ImportError:  # only Unix has it
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_CONFIG = "config.yaml"
# What Detectron2 has saved of each model since its first version, whatever its architecture.
_OF_EVERY_MODEL = {"BACKBONE", "FPN", "RPN", "ROI_HEADS", "RETINANET", "PANOPTIC_FPN"}
_QUOTED = 100  # characters of a name
# Names, and patterns of them, of the files that each run writes, and those that a training does.
_OF_ALL = (_CONFIG, "config.yaml.pkl", "log.txt", "log.txt.rank*")
_OF_TRAINING = ("metrics.json", ".lock")
# Files that take the place of others.
_REPLACED = ("last_checkpoint", "last_checkpoint.tmp", "model_*.pth", "model_*.pth.tmp")
_FOLDERS = ("inference", "pictures", "TTA", "TTA/inference", "TTA/pictures")
_IN_FOLDERS = ("*.json", "*.jpg", "*.pth", "*.pkl", "*.txt", "*.tmp")


def check_output_files(key: str, folder: str, training: bool) -> None:
    """
    Make sure that nothing in its folder keeps a run from writing there, from its first line of the
    log to its last picture.

    Args:
        key: what names the folder.
        folder: it may be missing.
        training: whether it is a training, or an evaluation.

    Raises:
        InputError: something does.
    """
    files = [*_OF_ALL, *(_OF_TRAINING if training else ())]
    replaced = [f"{name}/{x}" for name in _FOLDERS for x in _IN_FOLDERS]
    replaced += _REPLACED if training else ()
    check_not_in_the_way(key, folder, _FOLDERS, replaced, files)
    if training and _is_written_by_hand(Path(folder) / _CONFIG):
        raise InputError(
            f"{key} is {folder!r}, where {_CONFIG} is written by hand: the training would write "
            f"its own over it, expected another {key}, or another name for the file"
        )


def _is_written_by_hand(file: Path) -> bool:
    """Whether a config has what those that a run saves never have, or lacks what all of them do."""
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False  # there is none, or what a run has saved is damaged, or of a Python config
    if not isinstance(content, dict) or not content:
        return False
    model = content.get("MODEL")
    has_all = {"model", "train"} <= content.keys() or (
        isinstance(model, dict) and model.keys() >= _OF_EVERY_MODEL
    )
    has_comments = any(x.lstrip().startswith("#") for x in text.splitlines())
    return BASE_KEY in content or has_comments or not has_all


def tell_of_earlier_training(key: str, folder: str, resume: bool) -> None:
    """
    Warn if the folder of a training has another one's checkpoints, or none to go on from.

    Args:
        key: what names the folder.
        folder: it may be missing.
        resume: whether the training is to go on from its last checkpoint.
    """
    if resume and not has_checkpoints(folder):
        logger.warning(
            f"--resume: {key} is {folder!r}, where there is no checkpoint: the training starts at "
            "the first iteration, expected the folder of one that was interrupted"
        )
    elif not resume and (last := Path(folder) / "last_checkpoint").is_file():
        name = last.read_bytes()[:_QUOTED].decode(errors="replace").strip()
        logger.warning(
            f"{key} is {folder!r}, which has the checkpoints of an earlier training ({name} is its "
            "last): files of the same name are replaced, and its logs go on. Expected --resume to "
            f"go on with it, or another {key} to keep it"
        )


def check_not_in_the_way(
    key: str,
    folder: str | Path,
    folders: Sequence[str],
    replaced: Sequence[str],
    opened: Sequence[str] = (),
) -> None:
    """
    Make sure that what a run will write is not there as something else.

    Args:
        key: what names the folder.
        folder: it may be missing.
        folders: names of folders in it.
        replaced: names of files in it, or patterns of them, which are written beside their place.
        opened: those that are written where they are.

    Raises:
        InputError: something is.
    """
    here = Path(folder)
    for name in folders:
        if reason := wrong_output(here / name, is_folder=True):
            raise InputError(
                f"{key} is {str(folder)!r}, where {name} {reason}, expected a folder that can be "
                "written, or nothing"
            )
    for pattern in (*replaced, *opened):
        for file in sorted(here.glob(pattern)) if "*" in pattern else [here / pattern]:
            if reason := wrong_output(file, is_folder=False, in_place=pattern in opened):
                raise InputError(
                    f"{key} is {str(folder)!r}, where {file.relative_to(here)} {reason}, expected "
                    "a file that can be written, or nothing"
                )


def check_space(
    key: str, folder: str | Path, model: nn.Module, optimizer: Optimizer | None = None
) -> None:
    """
    Make sure that a checkpoint of a model fits into a folder and into a file, as far as its system
    tells. Call this in all processes.

    Args:
        key: what names the folder.
        folder: it is there, at least on the main process.
        model: its weights are what a checkpoint has at least.
        optimizer: where it has a momentum, or averages as Adam has them, a checkpoint has as many
            numbers again, or twice as many, for all weights that are trained.

    Raises:
        InputError: it does not.
    """
    needed, of_what = _bytes_of(model.state_dict().values()), "weights"
    if optimizer is not None and (times := _numbers_of_a_weight(optimizer)):
        parameters = (x for group in optimizer.param_groups for x in group["params"])
        needed += times * _bytes_of(x for x in parameters if x.requires_grad)
        of_what += f" and the {'momentum' if times == 1 else 'averages'}"
    free = shutil.disk_usage(folder).free if comm.is_main_process() else needed
    free, most = comm.all_gather((free, _largest_file()))[0]  # of the main process, which writes it
    expected = f"{needed / 1e6:.1f} MB or more: the {of_what} of a checkpoint"
    if free < needed:
        raise InputError(
            f"{key} is {str(folder)!r}, where {free / 1e6:.1f} MB are free, expected {expected}"
        )
    if most is not None and most < needed:
        raise InputError(
            f"{key} is {str(folder)!r}, where this process may write files of {most / 1e6:.1f} MB "
            f"at most (ulimit -f), expected {expected}"
        )


def _numbers_of_a_weight(optimizer: Optimizer) -> int:
    """How many numbers an optimizer keeps of each weight; 0 if it is not known."""
    # Detectron2 derives those that clip gradients. Others than torch's own may keep fewer bytes.
    if isinstance(optimizer, SGD):
        return int(bool(optimizer.defaults.get("momentum")))
    return 2 if isinstance(optimizer, (Adam, AdamW)) else 0


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _largest_file() -> int | None:
    """The size of the largest file that this process may write, in bytes; None: any."""
    if resource is None:
        return None
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if most == resource.RLIM_INFINITY else most


def mend_metrics(folder: str | Path) -> None:
    """
    Leave out half a line at the end of the metrics of an earlier training, as a kill or a full disk
    leaves it: Detectron2 would write on in it.

    Args:
        folder: it may be missing.
    """
    file = Path(folder) / "metrics.json"
    if not comm.is_main_process() or not file.is_file():
        return
    content = file.read_bytes()
    rest = content.rpartition(b"\n")[2]
    if not rest:
        return
    try:
        json.loads(rest)
    except ValueError:
        logger.warning(
            f"{file} ends in half a line ({len(rest)} bytes), expected a whole one: it is left out"
        )
        write_whole(file, content[: len(content) - len(rest)])
    else:
        write_whole(file, content + b"\n")


@contextmanager
def config_kept(folder: str | Path, training: bool) -> Iterator[Callable[[], None]]:
    """
    Keep the config that a folder has from one that no training begins with: Detectron2 writes it
    before it is known whether one can, and for evaluations too. The last training in the folder is
    resumed by it. Where there was none, that of a training that is refused is removed.

    Args:
        folder: it may be missing.
        training: whether this is one, which is alone in its folder: an evaluation may run beside a
            training that has just written its config.

    Yields:
        what to call once a training begins, which the config is then of.
    """
    files = [Path(folder) / name for name in ("config.yaml", "config.yaml.pkl")]
    before = {x: x.read_bytes() if x.is_file() else None for x in files if comm.is_main_process()}
    is_refused = training
    try:
        yield before.clear
        is_refused = False
    finally:
        for file, content in before.items():
            with suppress(OSError):  # what went wrong before is what is told
                if content is not None:
                    write_whole(file, content)
                elif is_refused:
                    file.unlink(missing_ok=True)


@contextmanager
def alone_in(key: str, folder: str | Path) -> Iterator[None]:
    """
    Keep a folder from others that would write the same files, such as a second training. The main
    process holds a lock, which ends with it; call this in all processes.

    An evaluation takes no lock (``--eval-only``): it may run beside the training whose checkpoints
    it reads. Its metrics do not pass through files.

    Args:
        key: what names the folder.
        folder: it is made if need be.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    with ExitStack() as stack:
        error = None
        if comm.is_main_process():
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(Path(folder) / ".lock", wait=False))
            except BlockingIOError as e:
                error = (
                    f"{key} is {folder}, where {e} is at work: expected a folder of its own, or "
                    "that this process is ended first"
                )
            except OSError as e:
                error = f"{key} is {folder}, which cannot be written: {e.strerror}"
        error = comm.all_gather(error)[0]  # of the main process
        if error is not None:
            raise InputError(error)
        yield
