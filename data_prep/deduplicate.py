"""Step 5 of building a data set from chats: copies of a sticker become one.

    python -m data_prep.deduplicate SEGMENTED OUT
    python -m data_prep.deduplicate --max_bits=-1 SEGMENTED OUT         merges identical files only

OUT/merged.jsonl names what was merged into what.
"""

from absl import app, flags

from data_prep.chats import command, near_duplicates

_BITS = flags.DEFINE_integer(
    "max_bits", near_duplicates.MAX_BITS, "Bits of the perceptual hash's 64 that may differ."
)
_COLOUR = flags.DEFINE_integer(
    "max_colour", near_duplicates.MAX_COLOUR, "By how much of 255 any part may differ."
)


def main(argv: list[str]) -> None:
    """Merges the stickers of the step's directory named on the command line."""
    source, out = command.two_paths(argv)
    command.run(lambda: near_duplicates.deduplicate(source, out, _BITS.value, _COLOUR.value))


if __name__ == "__main__":
    app.run(main)
