"""The one kind of error that users can mend themselves."""

import re

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
