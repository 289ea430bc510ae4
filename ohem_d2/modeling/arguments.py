"""Which arguments a class or a function takes."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, get_args

from torch import nn

_WORDS = {bool: "True or False", int: "an integer", float: "a number"}


def arguments_of(target: Any, passes_on: Callable[[str], bool]) -> tuple[list[str], bool]:
    """
    Tell which arguments can be passed by name.

    Args:
        target: a class or a function.
        passes_on: tells of a module, by name, whether its classes pass arguments that they do not
            name to the class above and do nothing else with them.

    Returns:
        their names, and whether others may be taken, too.
    """
    found: list[str] = []
    for function in _called_by(target):
        try:
            parameters = [*inspect.signature(function).parameters.values()]
        except (TypeError, ValueError):  # of what is not written in Python
            return found, True
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found += [x.name for x in parameters if x.kind in by_name and x.name not in found]
        if all(x.kind != x.VAR_KEYWORD for x in parameters):
            return found, False
        if function is target or not passes_on(function.__module__):
            return found, True
    return found, False


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters that can be told of what takes the arguments of a class or a function."""
    found: dict[str, inspect.Parameter] = {}
    for function in _called_by(target):
        with suppress(TypeError, ValueError):  # it is not written in Python
            found = {**inspect.signature(function).parameters, **found}
    return found


def wrong_kind(parameter: inspect.Parameter, value: object) -> str | None:
    """
    Tell what was expected in place of a value that is plainly of another kind, such as the text
    "false", which counts as true; None if it may be meant.

    Args:
        parameter: that takes it. Its annotation says the kind; of True and False, its default does,
            too.
        value: not None, which many parameters take that do not say so.
    """
    kinds = get_args(parameter.annotation) or (parameter.annotation,)
    if parameter.annotation is parameter.empty:
        kinds = (bool,) if isinstance(parameter.default, bool) else ()
    kinds = tuple(x for x in kinds if x is not type(None))
    if not kinds or not all(map(inspect.isclass, kinds)):
        return None
    if inspect.isclass(value):
        if any(issubclass(type(value), x) for x in kinds):
            return None
        return call_of(value)
    if isinstance(value, str) and set(kinds) <= _WORDS.keys():
        return " or ".join(_WORDS[x] for x in kinds)
    return None


def call_of(kind: type) -> str:
    """How a Python config makes an object of a class, for a sentence on what is expected."""
    return f"what makes an object of it: L({kind.__qualname__})(...), with its arguments"


def _called_by(target: Any) -> list[Any]:
    """What takes the arguments: the constructors of a class, or what is called itself."""
    is_plain = inspect.isclass(target) and (
        type(target).__call__ is type.__call__ and target.__new__ is object.__new__
    )
    if not is_plain:
        return [target]
    classes = [x for x in target.__mro__ if "__init__" in vars(x)]
    return [x.__init__ for x in classes if x not in (nn.Module, object)]  # which take none


def unknown_argument(name: str, target: Any, known: Iterable[str]) -> str:
    """Say that an argument is unknown, and which are not, as the end of a sentence."""
    known = [x for x in known if x != "self"]
    nearest = "".join(f", the nearest is {x}" for x in get_close_matches(name, known, 1))
    expected = f"one of {', '.join(known)}" if known else "none"
    called = getattr(target, "__qualname__", str(target))
    return f"{called} has no argument {name}: expected {expected}{nearest}"
