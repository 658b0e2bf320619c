"""Checks a prepared directory, and can write a copy of it without the bad records.

    python -m data_prep.describe validate DIRECTORY
    python -m data_prep.describe validate DIRECTORY --skip_bad=CLEANED

Prints one line ``file:line: message`` for each problem and a summary; exits with 1 if there is any.
A cleaned copy lists on stdout what it left out, and carries fresh counts and hashes. Statistics and
leaks: python launch.py --mode=stats.
"""

from pathlib import Path

from data_prep import command
from data_prep.describe.validate import validate


def parser() -> command.Parser:
    """Returns the parser of the command."""
    describe = command.room("describe", __doc__)
    acts = describe.add_subparsers(metavar="ACT", required=True)
    checked = acts.add_parser("validate", help="names every problem of a prepared directory")
    checked.takes(
        lambda line: validate(line.directory, line.skip_bad), directory="a prepared directory"
    )
    text = "Where to write a copy without the bad records."
    checked.add_argument("--skip_bad", "--skip-bad", type=Path, help=text)
    return describe


if __name__ == "__main__":
    command.run(parser())
