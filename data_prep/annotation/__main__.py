"""Reads what annotators decided: how far they agree, and a data set with their intentions.

    python -m data_prep.annotation agreement ANNOTATIONS
    python -m data_prep.annotation export PREPARED ANNOTATIONS OUT
    python -m data_prep.annotation export PREPARED ANNOTATIONS OUT --undecided=keep

python launch.py --mode=annotate serves the page on which they decide; docs/annotation.md.
"""

from argparse import Namespace

from data_prep import command
from data_prep.annotation.agreement import summary_lines
from data_prep.annotation.export import KEEP, LEAVE_OUT, export


def parser() -> command.Parser:
    """Returns the parser of the two commands."""
    annotation = command.room("annotation", __doc__)
    acts = annotation.add_subparsers(metavar="ACT", required=True)
    where = "the --workdir of launch.py --mode=annotate"
    agreement = acts.add_parser("agreement", help="prints Cohen's and Fleiss' kappa")
    agreement.takes(_agreement, annotations=where)
    exported = acts.add_parser("export", help="writes a data set with the decided intentions")
    exported.takes(
        _export, prepared="what was annotated", annotations=where, out="the directory to write"
    )
    text = "What happens to a conversation without a decision: it is left out, or kept as it was."
    choices = (LEAVE_OUT, KEEP)
    exported.add_argument("--undecided", choices=choices, default=LEAVE_OUT, help=text)
    return annotation


def _agreement(line: Namespace) -> None:
    print(*summary_lines(line.annotations), sep="\n")


def _export(line: Namespace) -> None:
    counts = export(line.prepared, line.annotations, line.out, line.undecided)
    _agreement(line)
    print(f"wrote {line.out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    command.run(parser())
