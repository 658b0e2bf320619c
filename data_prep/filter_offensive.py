"""Step 3 of building a data set from chats: leaves out offensive messages.

    python -m data_prep.filter_offensive ANONYMISED OUT
    python -m data_prep.filter_offensive --lists=FOLDER ANONYMISED OUT

FOLDER holds lists *.txt, one expression a line, instead of the small ones that ship.
"""

from pathlib import Path

from absl import app, flags

from data_prep.chats import command, filter_offensive

_LISTS = flags.DEFINE_string("lists", None, "Folder of word lists that replace the shipped ones.")


def main(argv: list[str]) -> None:
    """Filters the step's directory named on the command line."""
    source, out = command.two_paths(argv)
    lists = None if _LISTS.value is None else Path(_LISTS.value)
    command.run(lambda: filter_offensive.filter_offensive(source, out, lists))


if __name__ == "__main__":
    app.run(main)
