"""Output and logs that cannot be written any more, as on a full disk: a run goes on without."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

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
    handle_error = logging.Handler.handleError
    for name, stream in streams.items():
        setattr(sys, name, stream)
    logging.Handler.handleError = _tell_once(handle_error)  # type: ignore[method-assign]
    try:
        yield
        for stream in streams.values():
            stream.flush()
    finally:
        logging.Handler.handleError = handle_error  # type: ignore[method-assign]
        for name in streams:
            setattr(sys, name, before[name])
    error = streams["stdout"].error if "stdout" in streams else None
    if is_result and error is not None:
        is_told = isinstance(error, BrokenPipeError)
        raise SystemExit(_CLOSED_PIPE if is_told else f"error: {_cannot(_NAMES['stdout'], error)}")


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
        with suppress(OSError):  # of a stream that is no file
            # What is left in its buffer would fail again, at the end of the process, too.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)
        _tell(f"{_cannot(self._name, error)}: going on without it")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _tell_once(handle_error: Any) -> Any:
    """What a handler of logs does with an error of its own, where logging shows each of them."""
    told: set[logging.Handler] = set()

    def handle(handler: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            handle_error(handler, record)
        elif handler not in told:
            told.add(handler)
            name = getattr(getattr(handler, "stream", None), "name", "a log")
            _tell(f"{_cannot(name, error)}: it lacks what is logged from here on")

    return handle


def _cannot(name: str, error: OSError) -> str:
    return f"{name} cannot be written ({error.strerror or error})"


def _tell(words: str) -> None:
    logger.warning(words)
    if sys.stderr is not None:
        print(f"warning: {words}", file=sys.stderr)
