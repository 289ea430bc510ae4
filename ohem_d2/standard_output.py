"""Output and logs that cannot be written any more, as on a full disk: a run goes on without."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from .errors import cannot_be_written

logger = logging.getLogger(__name__)

_NAMES = {"stdout": "standard output", "stderr": "standard error"}
_CLOSED_PIPE = 141  # as a shell has it of a process whose reader has gone


@contextmanager
def unbroken_output(is_result: bool = False) -> Iterator[None]:
    """
    Let what is written to standard output, to standard error and to files of logs not end a
    command where it cannot be written: the disk that it is redirected to is full, or its reader has
    gone. The first failure of each is told in one line, where there is a place left for it.

    Args:
        is_result: whether standard output is all that the command makes, so that it has failed.

    Raises:
        SystemExit: it is, and has not been written.
    """
    before = {name: getattr(sys, name) for name in _NAMES}
    streams = {
        name: _Unbroken(stream, _NAMES[name])
        for name, stream in before.items()
        if stream is not None and not isinstance(stream, _Unbroken)
    }
    handle_error, show_error = logging.Handler.handleError, threading.excepthook
    for name, stream in streams.items():
        setattr(sys, name, stream)
    logging.Handler.handleError = _tell_once(handle_error)  # type: ignore[method-assign]
    threading.excepthook = _without_tensorboards(show_error)
    try:
        yield
        for stream in streams.values():
            stream.flush()
    finally:
        logging.Handler.handleError = handle_error  # type: ignore[method-assign]
        threading.excepthook = show_error
        for name in streams:
            setattr(sys, name, before[name])
    error = streams["stdout"].error if "stdout" in streams else None
    if is_result and error is not None:
        if isinstance(error, BrokenPipeError):  # which shells tell of, if anybody is to know
            raise SystemExit(_CLOSED_PIPE)
        raise SystemExit(f"error: {cannot_be_written(_NAMES['stdout'], error)}")


class _Unbroken:
    """A stream that drops what it cannot write."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream, self._name = stream, name
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as e:
            self._give_up(e)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as e:
            self._give_up(e)

    def _give_up(self, error: OSError) -> None:
        if self.error is not None:
            return
        self.error = error
        _write_to_nothing(self._stream)
        _tell(f"{cannot_be_written(self._name, error)}: going on without it")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _tell_once(handle_error: Any) -> Any:
    """What a handler of logs does with an error of its own, where logging shows each of them."""
    told: list[Any] = []  # of which several handlers may have one

    def handle(handler: logging.Handler, record: logging.LogRecord) -> None:
        error, stream = sys.exc_info()[1], getattr(handler, "stream", None)
        if not isinstance(error, OSError):
            handle_error(handler, record)
        elif not any(x is stream for x in told):
            told.append(stream)
            _write_to_nothing(stream)
            name = getattr(stream, "name", "a log")
            _tell(f"{cannot_be_written(name, error)}: it lacks what is logged from here on")

    return handle


def _without_tensorboards(show_error: Any) -> Any:
    """What shows errors of threads, but for those that TensorBoard's writer raises again later."""

    def show(args: Any) -> None:
        is_tensorboards = type(args.thread).__module__.partition(".")[0] == "tensorboard"
        if not (is_tensorboards and isinstance(args.exc_value, OSError)):
            show_error(args)

    return show


def _write_to_nothing(stream: Any) -> None:
    """What is left in its buffer would fail again, at the end of the process, too."""
    with suppress(OSError, AttributeError):  # of a stream that is no file
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def _tell(words: str) -> None:
    logger.warning(words)
    if sys.stderr is not None and not _is_seen():
        print(f"warning: {words}", file=sys.stderr)


def _is_seen() -> bool:
    """Whether what is logged here comes to a terminal, or wherever its output is sent to."""
    log: logging.Logger | None = logger
    while log is not None:
        streams = (getattr(handler, "stream", None) for handler in log.handlers)
        if any(isinstance(x, _Unbroken) and x.error is None for x in streams):
            return True
        log = log.parent if log.propagate else None
    return False
