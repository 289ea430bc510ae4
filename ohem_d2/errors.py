"""The one kind of error that users can mend themselves."""

import errno
import re
import tempfile

# Windows lacks some of them.
_FULL = {getattr(errno, x, 0) for x in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS")} - {0}
_GONE = {getattr(errno, x, 0) for x in ("EIO", "ESTALE")} - {0}
_SHOWN = 100  # characters of a value
_LONG_WORD = re.compile(r"(\S{300})\S{100,}")


class InputError(ValueError):
    """
    Something the user gave is wrong: a config key, a data set, a file.

    The message says what was found, where, and what was expected; the command line prints it alone.
    It is one line, even where it quotes an error of several, and a word of thousands of characters
    is cut.
    """

    def __init__(self, message: str) -> None:
        message = re.sub(r"\s*\n\s*", " ", message.strip())
        super().__init__(_LONG_WORD.sub(r"\1...", message))


def shown(value: object) -> str:
    """A value as messages quote it: a long one is cut."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def cannot_be_written(name: str, error: OSError) -> str:
    """What is told of a file, or of something else, that the system lets nobody write."""
    return f"{name} cannot be written ({error.strerror or error})"


def of_disk(error: BaseException) -> str | None:
    """
    What to tell of an error that comes of a disk that is full, or that is not there any more.

    Args:
        error: that, or one that was raised in place of it.

    Returns:
        one line, or None of another error.
    """
    for e in (error, error.__cause__, error.__context__):
        if isinstance(e, OSError) and e.errno in _FULL | _GONE:
            # Files of this project have their names in such an error.
            name = e.filename or f"a file (temporary ones are in {tempfile.gettempdir()}, TMPDIR)"
            if e.errno in _GONE:
                return f"{name} cannot be read or written ({e.strerror})"
            return cannot_be_written(name, e)
    return None
