"""Files that are written whole or not at all, and locks that end with their process."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_held: set[IO[str]] = set()


def write_whole(file: Path, content: str | bytes) -> None:
    """
    Write a file whole or not at all. Until all of it is written, what was there before stays.

    Args:
        file: in a folder that is there. A string is written in UTF-8, with codes for what is no
            text, as in names of files of another encoding.
        content: all of it.

    Raises:
        OSError: it cannot be written, for want of space for example.
    """
    with whole_file(file, "wb") as f:
        f.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


@contextmanager
def whole_file(file: Path, mode: str, unfinished: Path | None = None) -> Iterator[IO[Any]]:
    """
    Open a file to write that takes its place when it is complete. Until then, and if this process
    ends before, what was there before stays.

    Args:
        file: in a folder that is there.
        mode: "wb", or "w" for UTF-8.
        unfinished: what it is called until then, in the same folder. One process at a time may
            write it. None: the name with ``.tmp``.

    Raises:
        OSError: it cannot be written, for want of space for example.
    """
    # The same for the next attempt, so that no more than one is left by a process that is killed.
    unfinished = unfinished or file.with_name(f"{file.name}.tmp")
    try:
        with unfinished.open(mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
        unfinished.replace(file)
    except BaseException as e:
        unfinished.unlink(missing_ok=True)
        if isinstance(e, OSError) and e.filename is None:  # as of a full disk
            e.filename = str(file)
        raise


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """
    Hold a lock on a file, which says who holds it: process, host and since when.

    The lock is the operating system's (flock). It ends with the process, however that ends; the
    file stays and locks nothing by itself. Where there are no such locks, nothing is locked.

    Args:
        file: in a folder that is there. It is made if need be.
        wait: whether to wait for another process that holds it.

    Raises:
        BlockingIOError: another process holds it. The message says who.
        OSError: the file cannot be written.
    """
    if fcntl is None:
        yield
        return
    with open(file, "a+", encoding="utf-8") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            raise BlockingIOError(f.read().strip() or "another process") from None
        except OSError as e:  # some network file systems have none
            logger.warning(f"{file} cannot be locked ({e.strerror}): keep other processes away")
        f.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        f.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
        f.flush()
        _held.add(f)
        try:
            yield
        finally:
            _held.discard(f)


def _leave_locks_to_the_parent() -> None:
    """Else the workers of a data loader would hold the lock of a training that was killed."""
    for f in _held:
        f.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks_to_the_parent)
