"""What the system refuses a run on its way: space on a disk, memory, the life of a worker."""

import errno
import re
import signal
import tempfile
import traceback
from multiprocessing.queues import Queue
from typing import Any

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
_BY_TORCHS_NAME = {signal.strsignal(x): x.name for x in signal.Signals}
_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)")
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
            cause = LIKELY_CAUSES.get(name, "")
            return (
                f"a worker that reads images (process {killed[1]}) was killed by {name}{cause}: "
                f"expected more memory, or fewer workers ({_KEY})"
            )
        if isinstance(e, RuntimeError) and (shared := _SHARED.search(text)):
            return (
                f"workers cannot hand their images over ({shared[0]}): expected more shared memory "
                f"(/dev/shm, of which docker run --shm-size gives more), or fewer workers ({_KEY})"
            )
        is_memory = isinstance(e, (MemoryError, torch.cuda.OutOfMemoryError))
        if is_memory or _ALLOCATOR in text or getattr(e, "errno", None) == errno.ENOMEM:
            return (
                f"memory does not suffice ({_place(e)}{' '.join(text.split())[:_SHOWN]}): expected "
                "more of it, or smaller images, or fewer at a time"
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
            if e.errno in _GONE:
                return f"{name} cannot be read or written ({e.strerror})"
            return cannot_be_written(name, e)
    return None


def _place(error: BaseException) -> str:
    """Where it arose, before what it says."""
    places = [(frame.f_globals, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return "".join(f"{names.get('__name__')}, line {line}: " for names, line in places[-1:])


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
