"""Checkpoints that are whole, whatever happens while they are written."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from torch import nn

from ..data import ClassesOfWeights
from ..errors import InputError, cannot_be_written, shown
from ..files import whole_file
from .resume_checks import check_training_state
from .weights import SafeCheckpointer, class_names_in, load_torch_file

logger = logging.getLogger(__name__)

_LAST = "last_checkpoint"
_LONGEST_NAME = 255  # in bytes, of a file


class NotSavedError(InputError):
    """A checkpoint cannot be written."""


class WholeCheckpointer(SafeCheckpointer):
    """
    Writes each file whole or not at all, and resumes from the newest whole checkpoint if the last
    one is not whole or not known.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", **kwargs: Any) -> None:
        """See Detectron2's `DetectionCheckpointer`."""
        super().__init__(model, save_dir, **kwargs)
        self.path_manager: Any = _WholeFiles(PathManager)
        self._file: str | None = None  # what was saved or resumed from last

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """
        See fvcore's `Checkpointer.resume_or_load`. The main process chooses the checkpoint; all
        processes have to call this.

        Raises:
            InputError: there are checkpoints to resume from, but none of them is whole.
        """
        self._file = None
        if resume:
            found = self._find() if comm.is_main_process() else None
            self._file, error = comm.all_gather(found)[0]
            if error:
                raise InputError(error)
            if self._file:
                self.key = "OUTPUT_DIR"
        return super().resume_or_load(path, resume=resume)

    def save(self, name: str, **kwargs: Any) -> None:
        """
        See fvcore's `Checkpointer.save`.

        Raises:
            NotSavedError: there is no space, for example.
        """
        try:
            super().save(name, **kwargs)
        except Exception as e:
            # torch raises another error of its own when it cannot close the file.
            causes = (x for x in (e, e.__cause__, e.__context__) if isinstance(x, OSError))
            if (cause := next(causes, None)) is None:
                raise
            file = os.path.join(self.save_dir, f"{name}.pth")
            of_before = "There are no earlier checkpoints"
            if has_checkpoints(self.save_dir):
                of_before = "Earlier checkpoints are kept"
            raise NotSavedError(f"{cannot_be_written(file, cause)}. {of_before}") from e

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """
        Find the checkpoint to resume from.

        Returns:
            its path, or "" if there is none.

        Raises:
            InputError: there are some, but none of them is whole.
        """
        if self._file is None:
            self._file, error = self._find()
            if error:
                raise InputError(error)
            if self._file:
                self.key = "OUTPUT_DIR"
        return self._file

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """See fvcore's `Checkpointer.tag_last_checkpoint`."""
        super().tag_last_checkpoint(last_filename_basename)
        self._file = os.path.join(self.save_dir, last_filename_basename)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        # First the weights, which tell best that the model is another.
        incompatible = super()._load_model(checkpoint)
        if not self._starts_training:
            for key, x in self.checkpointables.items():
                if isinstance(x, TrainerBase):
                    check_training_state(self._path, checkpoint, x, key)
        return incompatible

    def _find(self) -> tuple[str, str]:
        """The path of the newest whole checkpoint, or ""; and what to tell the user if it fails."""
        if not has_checkpoints(self.save_dir):
            return "", ""
        tag = Path(self.save_dir) / _LAST
        last = _tagged(tag)
        if last is None:
            problem = f"{tag} {_names_none(tag) if tag.is_file() else 'is missing'}"
        elif not last.is_file():
            problem = f"{last}, the last checkpoint as {_LAST} has it, is not there"
        elif (content := self._read(last)) is None:
            problem = f"{last}, the last checkpoint, is not whole"
        elif isinstance(content, Mapping):
            return str(last), ""
        else:
            problem = f"{last}, the last checkpoint, is none: it holds a {type(content).__name__}"
        others = [x for x in _candidates(self.save_dir) if x != last]
        for file in sorted(others, key=lambda x: x.stat().st_mtime_ns, reverse=True):
            content = self._read(file)
            if isinstance(content, Mapping) and "iteration" in content:  # of a training
                logger.warning(f"{problem}: going on from {file}, the newest that is whole")
                return str(file), ""
        return "", (
            f"{problem}, and there is no other checkpoint in {self.save_dir!r} to resume from: "
            "expected a whole one; to train from the start, leave --resume out"
        )

    def _read(self, file: Path) -> Any:
        """All of a file, or None if it cannot be read."""
        try:
            return load_torch_file(str(file), str(file))
        except InputError as e:
            logger.debug(str(e))
            return None


def _tagged(tag: Path) -> Path | None:
    """The checkpoint beside it that a file names, or None if it names none."""
    name = tag.read_bytes().strip() if tag.is_file() else b""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    is_name = bool(text) and text.isprintable() and len(name) <= _LONGEST_NAME
    return tag.with_name(text) if is_name and os.path.basename(text) == text else None


def _names_none(tag: Path) -> str:
    """What a file has in place of the name of a checkpoint beside it, in words."""
    text = tag.read_bytes()[:_LONGEST_NAME].decode(errors="replace").strip()
    return f"names no checkpoint beside it ({shown(text)})" if text else "names no checkpoint"


def has_checkpoints(folder: str) -> bool:
    """
    Tell whether there is anything in a folder that a training could be resumed from, be it damaged.

    Args:
        folder: OUTPUT_DIR. It may be missing.
    """
    return (Path(folder) / _LAST).is_file() or bool(_candidates(folder))


def classes_of_weights(
    weights: str, output_dir: str, resume: bool, training: bool
) -> ClassesOfWeights | None:
    """
    Tell which classes the weights of a run were trained for.

    Args:
        weights: a path or address, or "".
        output_dir: where ``resume`` finds a checkpoint, if there is one.
        resume: as on the command line.
        training: whether the weights are to be trained.

    Returns:
        what their file says; None if it does not, or is not on this machine.
    """
    for file in files_of_weights(weights, output_dir, resume):
        if names := class_names_in(str(file)):
            is_start = training and not (resume and has_checkpoints(output_dir))
            return ClassesOfWeights(str(file), names, is_start)
    return None


def files_of_weights(weights: str, output_dir: str, resume: bool) -> list[Path]:
    """
    Find the files on this machine that a run may take its weights from, the likeliest first.

    Args:
        weights: a path or address, or "".
        output_dir: where ``resume`` finds a checkpoint, if there is one.
        resume: as on the command line.
    """
    if resume and has_checkpoints(output_dir):
        files = sorted(_candidates(output_dir), key=lambda x: -x.stat().st_mtime_ns)
        if (last := _tagged(Path(output_dir) / _LAST)) is not None:
            files = [last, *(x for x in files if x != last)]
    else:  # as Detectron2 reads it
        files = [Path(urlparse(weights or "")._replace(query="").geturl())]
    return [x for x in files if x.is_file()]


def _candidates(folder: str) -> list[Path]:
    return [x for x in Path(folder).glob("*.pth") if x.is_file()]


@contextmanager
def _safe_on_disk(file: Path, mode: str) -> Iterator[IO[Any]]:
    """A `whole_file` that is also there if the machine itself stops, at a loss of power say."""
    with whole_file(file, mode) as f:
        yield f
        f.flush()
        os.fsync(f.fileno())
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:  # which some network file systems have not
        pass
    finally:
        os.close(folder)


class _WholeFiles:
    """A path manager of iopath, which writes files of this machine whole or not at all."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        if mode in ("w", "wb") and "://" not in path:
            return _safe_on_disk(Path(path), mode)
        return self._manager.open(path, mode, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)
