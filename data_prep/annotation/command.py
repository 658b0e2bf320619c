"""Commands whose errors are one message."""

import sys
from collections.abc import Callable, Sequence

from absl import app


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a command; what a user can act on ends it with a message and exit code 2.

    Args:
      main: as ``absl.app.run`` takes it.
    """

    def guarded(argv: Sequence[str]) -> None:
        try:
            main(argv)
        except (ValueError, OSError) as error:
            print(f"{error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)
