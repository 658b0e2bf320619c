"""Builds a data set out of exported chats: one step of the construction, or all of them.

    python -m data_prep.chats all --format=telegram EXPORT OUT

    python -m data_prep.chats collect --format=whatsapp --date_order=dmy EXPORT OUT
    python -m data_prep.chats anonymise --salt=FILE COLLECTED OUT
    python -m data_prep.chats filter_offensive ANONYMISED OUT
    python -m data_prep.chats segment --gap_minutes=60 FILTERED OUT
    python -m data_prep.chats deduplicate SEGMENTED OUT
    python -m data_prep.chats split --valid=0.05 --test=0.2 DEDUPLICATED OUT

docs/construction.md tells what each step does, and which result must stay private.
"""

from argparse import Namespace
from pathlib import Path

from data_prep import command
from data_prep.chats import anonymise, collect, deduplicate, filter_offensive, pii, segment, split
from data_prep.chats.construct import construct
from data_prep.chats.whatsapp_dates import ORDERS
from data_prep.command import Act

# Name, what it does, and its act; the steps in the order in which they follow each other.
STEPS: dict[str, tuple[str, Act]] = {
    "all": (
        "takes all six steps with their defaults; stopped, the same command goes on",
        lambda line: construct(line.format, line.source, line.out),
    ),
    "collect": (
        "reads an export; keep the result as private as the export",
        lambda line: collect.collect(line.format, line.source, line.out, line.date_order),
    ),
    "anonymise": (
        "gives people pseudonyms and masks personal data",
        lambda line: anonymise.anonymise(line.source, line.out, line.salt, line.regions),
    ),
    "filter_offensive": (
        "leaves out offensive messages",
        lambda line: filter_offensive.filter_offensive(line.source, line.out, line.lists),
    ),
    "segment": (
        "cuts chats into segments and gives each sticker its context",
        lambda line: segment.segment(line.source, line.out, _limits(line)),
    ),
    "deduplicate": (
        "makes one sticker of its copies; OUT/merged.jsonl names what was merged into what",
        lambda line: deduplicate.deduplicate(line.source, line.out, line.max_bits, line.max_colour),
    ),
    "split": (
        "writes train, valid and test, which share no segment and no text",
        lambda line: split.split(line.source, line.out, line.valid, line.test),
    ),
}


def parser() -> command.Parser:
    """Returns the parser of the steps and their options."""
    chats = command.room("chats", __doc__)
    steps = chats.add_subparsers(metavar="STEP", required=True)
    options = {name: steps.add_parser(name, help=text) for name, (text, _) in STEPS.items()}
    for name, step in options.items():
        read = "the export" if name in ("all", "collect") else "the result of the step before"
        step.takes(STEPS[name][1], source=read, out="the directory to write")
    for name in ("all", "collect"):
        options[name].add_argument(
            "--format",
            choices=collect.FORMATS,
            required=True,
            help="The program that wrote the export; jsonl for any other.",
        )
    add = options["collect"].add_argument
    text = "Day, month and year in WhatsApp's and LINE's dates; auto finds it out for each file."
    add("--date_order", choices=("auto", *ORDERS), default="auto", help=text)
    add = options["anonymise"].add_argument
    text = "File with the key of the hashes, outside OUT; made if it is not there."
    add("--salt", type=Path, required=True, help=text)
    text = "Countries whose telephone numbers are written without the country's code."
    add("--regions", type=command.names, default=pii.REGIONS, help=text)
    add = options["filter_offensive"].add_argument
    text = "Folder of lists *.txt, one expression a line, that replace the shipped ones."
    add("--lists", type=Path, help=text)
    add = options["segment"].add_argument
    text = "Minutes of silence after which a new segment begins."
    add("--gap_minutes", type=float, default=30, help=text)
    text = "Hours for which a reply still joins the segment of what it answers."
    add("--reply_hours", type=float, default=24, help=text)
    add("--max_messages", type=int, default=40, help="Messages of a segment, at most.")
    add = options["deduplicate"].add_argument
    text = "Bits of the perceptual hash's 64 that may differ between copies; -1 merges nothing."
    add("--max_bits", type=int, default=deduplicate.MAX_BITS, help=text)
    text = "By how much of 255 any part of a copy may differ."
    add("--max_colour", type=int, default=deduplicate.MAX_COLOUR, help=text)
    add = options["split"].add_argument
    add("--valid", type=float, default=split.FRACTION, help="Share of the conversations.")
    add("--test", type=float, default=split.FRACTION, help="Share of the conversations.")
    return chats


def _limits(line: Namespace) -> segment.Limits:
    seconds = round(60 * line.gap_minutes), round(3600 * line.reply_hours)
    return segment.Limits(*seconds, line.max_messages)


if __name__ == "__main__":
    command.run(parser())
