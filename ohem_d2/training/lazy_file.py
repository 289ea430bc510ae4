"""Running a Python config, and saying what is wrong with it or with those that it imports."""

import inspect
import os
import re
import sysconfig
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig

from ..errors import InputError
from .yaml_files import check_no_other_file

_LOADER = inspect.getfile(LazyConfig)  # in which one config is run for another
_OFTEN = 10  # times that a config is not loaded by others, unless they load each other


def run_file(config_file: str) -> DictConfig:
    """
    Run a Python config.

    Args:
        config_file: its path.

    Returns:
        what it defines, without what are no nodes.

    Raises:
        InputError: it does not run. The message names the line, and the file, which may be one that
            it imports.
    """
    try:
        return LazyConfig.load(config_file)
    except KeyboardInterrupt:  # which is Ctrl-C
        raise
    except BaseException as e:  # it may raise anything, and even end the program
        if isinstance(e, SyntaxError):
            raise _wrong_syntax(config_file, e) from e
        if isinstance(e, RecursionError) and (files := _in_a_circle(e)):
            each = f"configs import each other: {', '.join(files)}"
            raise InputError(f"{config_file} is no valid config: {each}") from e
        frames = traceback.extract_tb(e.__traceback__)
        in_configs = _in_configs(frames)
        file, line = in_configs[-1] if in_configs else (config_file, None)
        words = f"{file} is no valid config: {f'line {line}: ' if line else ''}{_reason(e)}"
        last = frames[-1]
        if last.filename != file and _is_own(last.filename):
            words += f", in {last.filename}, line {last.lineno}"
        raise InputError(words + _importing(file, config_file)) from e


def _in_configs(frames: Sequence[traceback.FrameSummary]) -> list[tuple[str, int | None]]:
    """The files of configs and the lines in them that an error went through."""
    run = [x for x, by in zip(frames[1:], frames) if by.filename == _LOADER]
    configs = {x.filename for x in run if x.name == "<module>"}
    return [(x.filename, x.lineno) for x in frames if x.filename in configs]


def _is_own(file: str) -> bool:
    """Tell whether a file with code is its user's own, which no package has."""
    installed = [os.path.dirname(_LOADER), *map(sysconfig.get_path, ("stdlib", "purelib"))]
    return os.path.isfile(file) and not file.startswith(tuple(installed))


def _reason(error: BaseException) -> str:
    """What is said of an error that a config raised."""
    if isinstance(error, InputError):
        return str(error)
    *_, (last, _line) = traceback.walk_tb(error.__traceback__)
    if isinstance(error, KeyError) and last.f_code.co_filename == _LOADER:
        imported = last.f_locals.get("module")
        if isinstance(imported, ModuleType):
            return _not_in_the_imported(error.args[0], imported)
    is_of_yaml = isinstance(error, AttributeError) and last.f_code.co_name == "__getattr__"
    if is_of_yaml and str(error).isidentifier():
        return _of_other_form(str(error))
    if isinstance(error, SystemExit):
        error = SystemExit(f"{error}, expected a config that does not end the program")
    return f"{type(error).__name__}: {error}"


def _not_in_the_imported(name: str, imported: ModuleType) -> str:
    """What is said of a name that an imported config lacks, where Detectron2 looks for it."""
    if name == "*":
        return f"it imports * from {imported.__file__}, expected the names, such as model"
    nodes = [key for key, x in vars(imported).items() if isinstance(x, DictConfig | dict)]
    names = [x for x in nodes if not x.startswith("_")]
    has = f", which has {', '.join(names)}" if names else ", which has no nodes"
    return f"there is no {name!r} in {imported.__file__}{has}"


def _in_a_circle(error: RecursionError) -> list[str]:
    """The configs that Detectron2 has loaded for each other without end, if it has."""
    files = [x.filename for x in traceback.extract_tb(error.__traceback__)]
    loaded = [file for file, by in zip(files[1:], files) if by == _LOADER != file]
    return [file for file, times in Counter(loaded).items() if times > _OFTEN]


def _of_other_form(name: str) -> str:
    """What is said of a name that a YAML config lacks, where a Python config asks for it."""
    return (
        f"there is no {name!r} in a YAML config, expected a Python config to build on, such as one "
        "of Detectron2's model zoo that ends with .py"
    )


def _wrong_syntax(config_file: str, error: SyntaxError) -> InputError:
    file, cause = error.filename, error
    if isinstance(error.__cause__, SyntaxError):  # Detectron2 parses configs without their names
        cause = error.__cause__
        named = re.fullmatch("Config file (.*) has syntax error!", str(error), re.DOTALL)
        file = named[1] if named else config_file
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        text = Path(str(file)).read_text(encoding="utf-8")
        check_no_other_file(str(file), text)
        keys = yaml.load(text, yaml.BaseLoader)
        if isinstance(keys, dict) and any(x.isupper() for x in keys):  # as are Detectron2's
            raise InputError(
                f"{file} is no valid config: it has YAML's keys, expected Python, or a name that "
                f"ends with .yaml{_importing(file, config_file)}"
            )
    place = f"line {cause.lineno}: " if cause.lineno else ""
    words = f"{file} is no valid config: {place}{type(cause).__name__}: {cause.msg}"
    return InputError(words + _importing(file, config_file))


def _importing(file: str | None, config_file: str) -> str:
    """Say which config imports another that is wrong, after what is wrong with that."""
    is_same = file is None or os.path.realpath(file) == os.path.realpath(config_file)
    return "" if is_same else f". {config_file} imports it"
