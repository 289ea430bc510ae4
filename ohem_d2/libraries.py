"""
Detectron2 and what it is built on, imported before all else: what they choke on in the environment
is told in one line, where the first import would end in a traceback.
"""

import importlib
import os
import sys
import traceback

_OF_DETECTRON2 = "DETECTRON2_ENV_MODULE"
# With these comes nearly all that is needed of others.
_FIRST = ("detectron2.engine", "detectron2.utils.visualizer")
_QUOTED = 300  # characters of an error


def wrong_variable(error: Exception) -> str | None:
    """
    Tell which variable of the environment an import has failed by.

    Args:
        error: what it has raised.

    Returns:
        its name and value, and what is wrong with it, in one line; None if it was something else.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    text = " ".join(str(error).split())
    reason = f"({type(error).__name__}: {text[:_QUOTED]}{'...' if len(text) > _QUOTED else ''})"
    if any(frame.f_code.co_name == "setup_custom_environment" for frame in frames):
        return (
            f"{_OF_DETECTRON2} is {os.environ.get(_OF_DETECTRON2)!r}, which Detectron2 cannot set "
            f"up {reason}, expected nothing, or a module or .py file with a function "
            "setup_environment"
        )
    of_python = _of_python(error)
    for frame in reversed(frames):
        # What may be names: the texts in the code that has failed, and in its module.
        for name in (*of_python, *frame.f_code.co_consts, *frame.f_globals.values()):
            value = os.environ.get(name) if isinstance(name, str) else None
            if value and (name in of_python or value in text or name in text):
                library = frame.f_globals.get("__name__", "Python").partition(".")[0]
                return f"{name} is {value!r} in the environment, which {library} refuses {reason}"
    return None


def _of_python(error: Exception) -> list[str]:
    """The variables that make Python itself raise an error where it would not."""
    if isinstance(error, Warning):
        return ["PYTHONWARNINGS"]
    has_no_docstrings = sys.flags.optimize > 1  # to which Detectron2 adds some
    return ["PYTHONOPTIMIZE"] if has_no_docstrings and isinstance(error, TypeError) else []


def _import() -> None:
    try:
        os.getcwd()
    except OSError:  # of which torch dies
        raise SystemExit(
            "error: the current folder is not there any more, expected one that is: change to it"
        ) from None
    try:
        for name in _FIRST:
            importlib.import_module(name)
    except Exception as e:
        if (reason := wrong_variable(e)) is None:
            raise
        raise SystemExit(f"error: {reason}") from None


_import()
