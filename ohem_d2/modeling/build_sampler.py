"""Builds the sampler that a config names."""

import ast
import importlib
import inspect
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from detectron2.config import instantiate

from ..config import SAMPLER_OPTIONS, MiningOptions, check_range, config_key
from ..errors import InputError, shown
from ..mining.samplers import SAMPLERS, Sampler
from .arguments import arguments_of, unknown_argument
from .sampler_check import untrained_parameters

logger = logging.getLogger(__name__)


def build_sampler(options: MiningOptions, positive_fraction: float) -> Sampler:
    """
    Build the sampler that ``options.sampler`` names:

    - a name from `SAMPLERS`, or ``"my_module.MySampler"``, a class that can be imported, optionally
      with arguments of its constructor, as in ``"my_module.MySampler(num_bins=3)"``
    - such a class, or a node ``L(MySampler)(num_bins=3)`` of a Python config
    - a sampler itself, which is any function of candidates and a budget; one that is named by a
      text has to call them ``candidates`` and ``num_samples``

    A parameter of the constructor that is named like an option of samplers gets its value, and
    ``positive_fraction`` gets Detectron2's.

    Args:
        options: those of mining.
        positive_fraction: ``MODEL.ROI_HEADS.POSITIVE_FRACTION``, or for anchors that of the RPN.

    Raises:
        InputError: there is no such sampler, it cannot be built, or an option that the sampler does
            not have differs from its default.
    """
    key = config_key("sampler", options.NODE)
    found, arguments = _find(options.sampler, key)
    is_class = inspect.isclass(found)
    is_registered = any(found is x for _, x in SAMPLERS)
    is_named = isinstance(options.sampler, (str, Mapping)) and not is_registered
    if (arguments and not is_class) or not _is_sampler(found, is_named):
        raise InputError(
            f"{key} is {_written(options.sampler)}, which is not a sampler: expected a class with "
            "a method __call__(candidates, num_samples), or a function of candidates and "
            "num_samples"
        )
    known = (_parameters(found) if is_class else None) or {}
    name = getattr(found, "__name__", type(found).__name__)
    defaults = {f.name: f.default for f in fields(options)}
    settings: dict[str, Any] = {}
    for option in (x for x in SAMPLER_OPTIONS if x in defaults):
        value = getattr(options, option)
        if option in known and option not in arguments:
            settings[option] = value
        elif value != defaults[option]:
            reason, expected = f"{name} has no such setting", f"{defaults[option]!r}, the default"
            if option in arguments:
                reason = f"{key} says {option}={arguments[option]!r}"
                expected = "one of both"
            raise InputError(
                f"{config_key(option, options.NODE)} is {value!r}, but {reason}: expected "
                f"{expected}"
            )
    if "positive_fraction" in known and "positive_fraction" not in arguments:
        settings["positive_fraction"] = positive_fraction
    if is_class:
        _check_arguments(found, arguments, options.sampler, key)
    for option in arguments.keys() & SAMPLER_OPTIONS if is_registered else ():
        words = f"{key} is {_written(options.sampler)}, and its {option} is"
        check_range(option, arguments[option], words)
    sampler = found
    if is_class:
        sampler = _build(found, {**settings, **arguments}, options.sampler, key)
    if parameters := untrained_parameters(sampler):
        logger.warning(
            f"{key} is {_written(options.sampler)}, which has parameters "
            f"({', '.join(parameters)}) that are not learned: what a sampler returns carries no "
            "gradients. If it does not train them itself, set their requires_grad to False"
        )
    return sampler


def _check_arguments(found: Any, arguments: Mapping[str, Any], sampler: object, key: str) -> None:
    taken, takes_others = arguments_of(found, passes_on=lambda _: False)
    for name in () if takes_others else arguments:
        if name not in taken:
            raise InputError(
                f"{key} is {_written(sampler)}, but {unknown_argument(name, found, taken)}"
            )


def _written(sampler: object) -> str:
    """As a user writes it."""
    if not isinstance(sampler, Mapping):
        return shown(sampler)
    target = sampler["_target_"]
    name = getattr(target, "__qualname__", target)
    arguments = ", ".join(f"{k}={shown(v)}" for k, v in sampler.items() if k != "_target_")
    return f"L({name})({arguments})"


def _build(found: Any, arguments: Mapping[str, Any], sampler: object, key: str) -> Sampler:
    try:
        return found(**arguments)
    except (Exception, SystemExit) as e:  # it may raise anything, and even end the program
        reason = str(e) if isinstance(e, (TypeError, ValueError)) else f"{type(e).__name__}: {e}"
        raise InputError(f"{key} is {_written(sampler)}, which cannot be built: {reason}") from e


def _is_sampler(found: Any, is_named: bool) -> bool:
    """
    Whether something can be called with candidates and a budget, or builds what can. It is not
    called to find out: a config may name any function that Python can import.
    """
    if inspect.isclass(found):
        call = next((vars(c)["__call__"] for c in found.__mro__ if "__call__" in vars(c)), None)
        return _parameters(found) is not None and _takes(call, None, None, None)
    if not _takes(found, None, None):
        return False
    first = list(_parameters(found) or ())[:2]
    return not is_named or first == ["candidates", "num_samples"]


def _parameters(function: Any) -> Mapping[str, inspect.Parameter] | None:
    """None if it is not callable, or built into Python, which does not tell its parameters."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None


def _takes(function: Any, *arguments: None) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def _find(sampler: object, key: str) -> tuple[Any, dict[str, Any]]:
    """A class, or a sampler, and the arguments for the class."""
    if isinstance(sampler, Mapping):  # a node of a Python config
        target, arguments = sampler["_target_"], {k: v for k, v in sampler.items() if k[0] != "_"}
        return (
            _find_by_name(target, key) if isinstance(target, str) else target,
            {k: instantiate(v) for k, v in arguments.items()},
        )
    if not isinstance(sampler, str):
        return sampler, {}
    try:
        call = ast.parse(sampler.strip(), mode="eval").body
        arguments = {}
        if isinstance(call, ast.Call):
            if call.args or not all(k.arg for k in call.keywords):
                raise ValueError("pass arguments by keyword, as in HardPool(pool_size=3)")
            arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
            call = call.func
        if not isinstance(call, (ast.Name, ast.Attribute)):
            raise ValueError("it is not a name")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        reason = f" ({e})" if type(e) is ValueError else ""
        raise InputError(
            f"{key} is {shown(sampler)}, expected a name such as OHEMSampler or "
            "my_module.MySampler (with a point), optionally with arguments, as in "
            f"MySampler(num_bins=3){reason}"
        ) from None
    return _find_by_name(ast.unparse(call), key), arguments


def _find_by_name(name: str, key: str) -> Callable[..., Any]:
    if name in SAMPLERS:
        return SAMPLERS.get(name)
    module, _, attribute = name.rpartition(".")
    registered = ", ".join(x for x, _ in SAMPLERS)
    expected = f"expected one of {registered}, or a class such as my_module.MySampler"
    if not module:
        raise InputError(f"{key} is {shown(name)}, {expected}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as e:  # a module may raise anything, and even end the program
        is_plain = isinstance(e, (ImportError, AttributeError, SyntaxError, ValueError))
        reason = str(e) if is_plain else f"{type(e).__name__}: {e}"
        raise InputError(
            f"{key} is {shown(name)}, which cannot be imported ({reason}){_place(e)}: {expected}"
        ) from e


def _place(error: BaseException) -> str:
    """The line of the user's own that fails while it is imported."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [x for x in frames if "importlib" not in x.filename]
    return f" in {own[-1].filename}, line {own[-1].lineno}" if own else ""
