"""The one kind of error that users can mend themselves."""


class InputError(ValueError):
    """
    Something the user gave is wrong: a config key, a data set, a file.

    The message says what was found, where, and what was expected; the command line prints it alone.
    """
