"""How every command of data_prep reads its line, and the one way in which it ends.

Exit status 0: done. 1: the input cannot be used, or something is missing; one message on stderr
names everything that is wrong, and ``--traceback`` shows where it comes from. 2: the command line
itself is wrong.
"""

import argparse
import logging as python_logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import logging

from int_ra_jax.common.nearest import nearest

Act = Callable[[argparse.Namespace], object]


class _Layout(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps a docstring's lines, and tells the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


class Parser(argparse.ArgumentParser):
    """The command line of one room, or of one of a room's steps."""

    def __init__(self, **settings: Any) -> None:
        """Starts with ``--traceback`` alone; ``settings`` are those of argparse."""
        super().__init__(formatter_class=_Layout, allow_abbrev=False, **settings)
        text = "Show where an error comes from."
        # Without a default, so that a step does not take back what stands before its name.
        self.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=text)

    def takes(self, act: Act, **paths: str) -> None:
        """Says what to do, and with which paths.

        Args:
          act: is called with what the line says.
          paths: name -> what lies there, in the order in which they stand on the line.
        """
        self.set_defaults(act=act)
        for name, text in paths.items():
            self.add_argument(name, type=Path, metavar=name.upper(), help=text)

    def error(self, message: str) -> NoReturn:
        """Ends with status 2; a mistyped option is answered with the nearest one there is."""
        if found := re.search(r"unrecognized arguments: (--\w+)", message):
            near = nearest(found[1], re.findall(r"--\w+", self.format_help()), cutoff=0.6)
            message += f". Did you mean {near}?" if near else ""
        super().error(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses a line, or a step's part of it, which only the step's own parser can judge."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def room(name: str, description: str | None) -> Parser:
    """Returns the parser of ``python -m data_prep.NAME``, described by a module's docstring."""
    return Parser(prog=f"python -m data_prep.{name}", description=description)


def run(parser: Parser, line: Sequence[str] | None = None) -> None:
    """Does what the command line says, and ends as the top of this file tells.

    Args:
      parser: whose ``takes`` has said what to do.
      line: what to parse; None takes the process's own.
    """
    arguments = parser.parse_args(line)
    layout = python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    logging.get_absl_handler().setFormatter(layout)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    try:
        arguments.act(arguments)
    except Exception as error:
        # What a user can act on; torch's class of this name must not be imported to be known.
        clear = isinstance(error, ValueError | OSError | ImportError)
        clear |= type(error).__name__ == "OutOfMemoryError"
        if not clear or "traceback" in arguments:
            raise
        parser.exit(1, f"{parser.prog}: error: {error}\n")


def at_least(least: float, kind: type = int) -> Callable[[str], Any]:
    """Returns an argument type: a number of a kind that is no smaller."""

    def number(given: str) -> Any:
        if (value := kind(given)) < least:
            raise argparse.ArgumentTypeError(f"{given} is smaller than {least}")
        return value

    return number


def names(given: str) -> tuple[str, ...]:
    """Returns the names that an argument lists with commas; none for an empty one."""
    return tuple(name for name in given.split(",") if name)
