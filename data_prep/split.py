"""Step 6 of building a data set from chats: train, valid and test as a prepared directory.

    python -m data_prep.split DEDUPLICATED OUT
    python -m data_prep.split --valid=0.05 --test=0.2 DEDUPLICATED OUT

No two splits share a segment of a chat or a text.
"""

from absl import app, flags

from data_prep.chats import command, split

_VALID = flags.DEFINE_float("valid", split.FRACTION, "Share of the conversations.")
_TEST = flags.DEFINE_float("test", split.FRACTION, "Share of the conversations.")


def main(argv: list[str]) -> None:
    """Splits the step's directory named on the command line."""
    source, out = command.two_paths(argv)
    command.run(lambda: split.split(source, out, _VALID.value, _TEST.value))


if __name__ == "__main__":
    app.run(main)
