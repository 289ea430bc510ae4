"""The parser of a command's arguments."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# What web pages and word processors make of the dashes of an option.
_OTHER_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"


class Parser(argparse.ArgumentParser):
    """Answers what it does not understand in one line, as everything else here does."""

    def parse_known_args(self, args=None, namespace=None):
        """See argparse."""
        self._given: set[str] = set()
        given = sys.argv[1:] if args is None else args
        if "--opts" in given:  # as Detectron2's demo has it
            self.error("there is no --opts: settings come last, without a name")
        self._check_dashes(given)
        return super().parse_known_args(args, namespace)

    def _check_dashes(self, args: Sequence[str]) -> None:
        """Name an option with other dashes, which would be taken for a setting or a value."""
        for text in args:
            meant = f"--{text.lstrip(f'-{_OTHER_DASHES}')}"
            if text.startswith(tuple(_OTHER_DASHES)) and self.has_option(meant):
                self.error(f"{text!r} begins with another dash than options do, expected {meant}")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Called by argparse for each argument that is there, the last of which would count."""
        if action.option_strings and action.nargs is None:
            if action.dest in self._given:
                option = "/".join(action.option_strings)
                self.error(f"argument {option} is given twice, expected once")
            self._given.add(action.dest)
        return super()._get_values(action, arg_strings)

    def has_option(self, text: str) -> bool:
        """Whether a text is one of its options, with a value perhaps, as in ``--name=value``."""
        return text.partition("=")[0] in self._option_string_actions

    def check_settings(self, settings: Sequence[str]) -> None:
        """End where an option is among the settings, or begins them without its dashes."""
        if settings and self.has_option(f"--{settings[0]}"):
            self.error(f"{settings[0]!r} has no dashes, expected --{settings[0]}")
        for text in filter(self.has_option, settings):
            self.error(
                f"{text} comes after the settings, expected it before them: they begin with "
                f"{settings[0]!r}"
            )

    def error(self, message: str) -> NoReturn:
        if found := re.fullmatch("(argument .*): ignored explicit argument (.*)", message):
            message = f"{found[1]} is a switch, expected no value, found {found[2]}"
        if re.search(r"unrecognized arguments: --\w+\.\w", message):
            message += ": settings have no dashes, such as SOLVER.MAX_ITER 1000"
        self.exit(2, f"error: {message} ('{self.prog} --help' tells the arguments)\n")


def parser_of(
    prog: str | None,
    description: str | None,
    epilog: str,
    parent: argparse.ArgumentParser | None = None,
) -> Parser:
    """
    Build the parser of a command.

    Args:
        prog: how the command is called; None: as this process was.
        description: what it does.
        epilog: what stands below its arguments, line by line as it is.
        parent: another parser, whose arguments it has as well.
    """
    return Parser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=epilog,
        parents=[] if parent is None else [parent],
        add_help=parent is None,
    )
