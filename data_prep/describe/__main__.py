"""Checks a prepared directory, and writes copies: without bad records, or some stickers unseen.

    python -m data_prep.describe validate DIRECTORY
    python -m data_prep.describe validate DIRECTORY --skip_bad=CLEANED
    python -m data_prep.describe hold_out DIRECTORY OUT --share=0.2 --seed=0

The first prints one line ``file:line: message`` for each problem and a summary; exits with 1 if
there is any. A cleaned copy lists on stdout what it left out, and carries fresh counts and hashes.
Statistics and leaks: python launch.py --mode=stats. The last writes a copy in which some of the
stickers never occur in training (a cold start).
"""

from pathlib import Path

from data_prep import command
from data_prep.describe.hold_out import hold_out
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
    held = acts.add_parser("hold_out", help="writes a copy in which train lacks some stickers")
    held.takes(
        lambda line: hold_out(line.directory, line.out, line.share, line.seed),
        directory="a prepared directory", out="where to write the copy",
    )  # fmt: skip
    held.add_argument("--share", type=float, default=0.2, help="Which part of train's stickers.")
    held.add_argument("--seed", type=int, default=0, help="Of the draw.")
    return describe


if __name__ == "__main__":
    command.run(parser())
