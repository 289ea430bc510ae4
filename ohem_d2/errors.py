"""The one kind of error that users can mend themselves."""

import re


class InputError(ValueError):
    """
    Something the user gave is wrong: a config key, a data set, a file.

    The message says what was found, where, and what was expected; the command line prints it alone.
    It is one line, even where it quotes an error of several.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"\s*\n\s*", " ", message.strip()))
