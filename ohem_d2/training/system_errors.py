"""What the system refuses a run on its way: space on a disk, memory, the life of a worker."""

import errno
import os
import re
import signal
import tempfile
import traceback
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import detectron2
import iopath
import PIL
import torch
from torch._utils import ExceptionWrapper

from ..errors import cannot_be_written

# Of what a process dies without an exception of its own.
LIKELY_CAUSES = {
    "SIGKILL": ", as systems do when memory runs out",
    "SIGBUS": ", as systems do when shared memory (/dev/shm) runs out",
    "SIGSEGV": " (a crash in compiled code: a driver, torch or an extension)",
    "SIGABRT": " (a check failed in compiled code, whose message is above)",
}
# Disks that are full, or another's, or that are not there any more. Windows lacks some of them.
_FULL = {getattr(errno, x, 0) for x in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS")} - {0}
_GONE = {getattr(errno, x, 0) for x in ("EIO", "ESTALE")} - {0}
_READERS = [x.__path__[0] for x in (detectron2, iopath, PIL)]
_READERS.append(str(Path(__file__).parents[1]))  # this project
_BY_TORCHS_NAME = {signal.strsignal(x): x.name for x in signal.Signals}
_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)")
_LOST = re.compile("gloo/transport|Connection (?:reset|closed) by peer")
_ALLOCATOR = "DefaultCPUAllocator: "
_SHARED = re.compile(r"unable to \w+ .*(?:shared memory|/torch_).*")
_SHOWN = 200  # characters
_KEY = "DATALOADER.NUM_WORKERS, or num_workers in a Python config"


def of_system(error: BaseException) -> str | None:
    """
    What to tell of an error that the system is to blame for.

    Args:
        error: that, or one that was raised in place of it.

    Returns:
        one line, or None of another error.
    """
    for e in filter(None, (error, error.__cause__, error.__context__)):
        text = str(e)
        if killed := _KILLED.search(text):
            name = _BY_TORCHS_NAME.get(killed[2], killed[2])
            words = f"a worker that reads images (process {killed[1]}) was killed by {name}"
            if name in ("SIGKILL", "SIGBUS"):
                less = f": expected more of it, or fewer workers ({_KEY})"
                return f"{words}{LIKELY_CAUSES[name]}{less}"
            return words + LIKELY_CAUSES.get(name, "")
        if isinstance(e, RuntimeError) and _LOST.search(text):
            return f"the connection to another process is lost ({_in_short(text)})"
        if isinstance(e, RuntimeError) and (shared := _SHARED.search(text)):
            return (
                f"workers cannot hand their images over ({shared[0]}): expected more shared memory "
                f"(/dev/shm, of which docker run --shm-size gives more), or fewer workers ({_KEY})"
            )
        is_memory = isinstance(e, (MemoryError, torch.cuda.OutOfMemoryError))
        if is_memory or _ALLOCATOR in text or getattr(e, "errno", None) == errno.ENOMEM:
            what = "".join(_places(e)[-1:]) + _in_short(text)
            return (
                f"memory does not suffice ({what}): expected more of it, or smaller images, or "
                "fewer at a time"
            )
        is_many = isinstance(e, OSError) and e.errno in (errno.EMFILE, errno.ENFILE)
        if is_many or text.startswith("Too many open files"):
            return (
                "the system lets this process open no more files: expected a higher limit "
                f"(ulimit -n), or fewer workers ({_KEY})"
            )
        if isinstance(e, OSError) and e.errno in _FULL | _GONE:
            # Files of this project have their names in such an error.
            name = e.filename or f"a file (temporary ones are in {tempfile.gettempdir()}, TMPDIR)"
            if not e.filename and "multiprocessing." in "".join(_places(e)):  # for its locks
                name = f"shared memory (/dev/shm, of which fewer workers need less: {_KEY})"
            if e.errno in _GONE:
                return f"{name} cannot be read or written ({e.strerror})"
            return cannot_be_written(name, e)
    return of_file(error)


def of_file(error: BaseException) -> str | None:
    """
    What to tell of a file that Detectron2, or what it reads files with, did not find or may not
    use: of the images, say, if their folder goes during a training.

    Args:
        error: perhaps one that torch has passed on from a worker.

    Returns:
        one line, or None of another error.
    """
    if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        return None
    text = str(error)
    if "in DataLoader worker process" in text:  # with the traceback there
        files = re.findall(r'^  File "(.*)", line', text, re.MULTILINE)
        *_, reason = text.strip().splitlines()
    else:
        files = [x.f_code.co_filename for x, _ in traceback.walk_tb(error.__traceback__)]
        reason = f"{type(error).__name__}: {error}"
    if not files or not files[-1].startswith(tuple(f"{x}{os.sep}" for x in _READERS)):
        return None
    return f"the system refuses a file: {reason}"


def _in_short(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]


def _places(error: BaseException) -> list[str]:
    """Where it went through, the last of which is where it arose."""
    places = [(frame.f_globals, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return [f"{names.get('__name__')}, line {line}: " for names, line in places]


def pass_on_lost_images() -> None:
    """
    Let the reader of a data loader know of what one of its workers, which is to call this, cannot
    send. Python tells standard error alone, and the reader would wait for ever.
    """
    tell = Queue._on_queue_feeder_error  # type: ignore[attr-defined]

    def on_error(queue: Queue, error: Exception, sent: Any) -> None:
        if not (isinstance(sent, tuple) and len(sent) == 2 and isinstance(sent[0], int)):
            return tell(error, sent)  # no batch, which torch sends with its number
        # Of a type that can be sent, whatever the error is.
        queue.put((sent[0], ExceptionWrapper((RuntimeError, error, error.__traceback__))))

    Queue._on_queue_feeder_error = on_error  # type: ignore[attr-defined]
