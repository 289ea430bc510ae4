"""
Detectron2 and what it is built on, imported before all else: what they choke on in the environment
is told in one line, where the first import would end in a traceback.
"""

import importlib
import os
import re
import sys
import traceback
from types import FrameType

try:
    import resource
except ImportError:  # only Unix has it
    resource = None  # type: ignore[assignment]

_OF_DETECTRON2 = "DETECTRON2_ENV_MODULE"
# With these comes nearly all that is needed of others.
_FIRST = ("detectron2.engine", "detectron2.utils.visualizer")
_QUOTED = 300  # characters of an error
# What a loader of libraries says if there is no memory.
_OF_MEMORY = ("failed to map segment", "annot allocate memory", "annot map")


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
    named, valued = [], []
    of_python = _of_python(error)
    for frame in reversed(frames):
        # What may be names: the texts in the code that has failed, and in its module, of which
        # some other objects warn when they are asked for their class.
        texts = [*frame.f_code.co_consts, *frame.f_globals.values()]
        for name in (*of_python, *(x for x in texts if type(x) is str)):
            value = os.environ.get(name)
            if value and (name in of_python or _has_word(text, name)):
                named.append((name, _library(frame)))
            elif value and _has_word(text, value):
                valued.append((name, _library(frame)))
    # Code that is compiled shows no texts.
    in_text = (x for x in re.findall(r"\b[A-Z]+_[A-Z0-9_]+\b", text) if os.environ.get(x))
    of_text = [(x, _library(frames[-1])) for x in in_text]
    for name, library in (*named, *of_text, *valued):
        value = os.environ[name]
        return f"{name} is {value!r} in the environment, which {library} refuses {reason}"
    return None


def _library(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "Python").partition(".")[0]


def out_of_memory(error: Exception) -> str | None:
    """
    Tell whether an import has failed by a limit on the memory of this process.

    Args:
        error: what it has raised.

    Returns:
        the limit, in one line; None if there is none, or it was something else.
    """
    text = str(error)
    is_memory = isinstance(error, MemoryError) or any(x in text for x in _OF_MEMORY)
    if resource is None or not is_memory:
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return None
    return (
        f"this process may use {most / 1e9:.1f} GB of memory (ulimit -v), expected more: "
        f"{type(error).__name__}: {text[:_QUOTED]}"
    )


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


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
        if (reason := out_of_memory(e) or wrong_variable(e)) is None:
            raise
        raise SystemExit(f"error: {reason}") from None


_import()
