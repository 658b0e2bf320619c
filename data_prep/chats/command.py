"""What the commands of the construction share: one message where the input is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import app


def two_paths(argv: list[str]) -> tuple[Path, Path]:
    """Returns the source and the directory to write, named on the command line."""
    if len(argv) != 3:
        raise app.UsageError("Name the source and the directory to write.")
    return Path(argv[1]), Path(argv[2])


def run(work: Callable[[], object]) -> None:
    """Does the work; an input that cannot be used ends the process with one message."""
    try:
        work()
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
