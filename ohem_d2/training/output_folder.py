"""One training in a folder at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from detectron2.utils import comm

from ..errors import InputError
from ..files import locked


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
