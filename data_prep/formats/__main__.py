"""Imports a data set in a published format as a prepared directory.

    python -m data_prep.formats --format=stickerint SRC OUT
    python -m data_prep.formats --format=mod --language=c SRC OUT --leaks=drop
    python -m data_prep.formats --format=ced SRC OUT --stickers=PACK
    python -m data_prep.formats --format=stickerint SRC OUT --dry_run
    python -m data_prep.formats --format=pack PACK.wastickers GALLERY

docs/importing.md describes the formats. Everything that is wrong with the input is reported in one
run, with file and line, and nothing is written then. Exported chats: python -m data_prep.chats.
"""

from data_prep import command
from data_prep.formats import mod
from data_prep.formats.importing import PACK, PUBLISHED, import_published
from data_prep.formats.staging import LEAKS


def parser() -> command.Parser:
    """Returns the parser of the command."""
    formats = command.room("formats", __doc__)
    formats.takes(
        lambda line: import_published(
            line.format,
            line.source,
            line.out,
            line.leaks,
            line.dry_run,
            language=line.language,
            stickers=line.stickers,
            rumours=line.rumours,
            per_thread=line.per_thread,
            no_echoes=line.no_echoes,
        ),
        source="the directory of the release; a folder or a file of packs",
        out="the directory to write",
    )
    text = "The form of the release; pack for stickers without conversations."
    formats.add_argument("--format", choices=(*PUBLISHED, PACK), required=True, help=text)
    text = (
        "What happens to a text that stands in two splits: the input is refused, or the text is "
        "dropped from train (and from valid where test has it)."
    )
    formats.add_argument("--leaks", choices=LEAKS, default=LEAKS[0], help=text)
    text = "Which language of MOD: c for Chinese, e for English."
    formats.add_argument("--language", choices=mod.LANGUAGES, help=text)
    text = (
        "Of ced and choices: the directory of the sticker pack (stickers.jsonl and its pictures), "
        "or openmoji for emoji."
    )
    formats.add_argument("--stickers", metavar="PACK", help=text)
    text = "Of ced: read posts that were found to be rumours as well."
    formats.add_argument("--rumours", action="store_true", help=text)
    text = (
        "Of ced and choices: how many rows of one thread (a post with its replies, or a writer) "
        "train gets, drawn at random; 0 for all."
    )
    formats.add_argument("--per_thread", type=command.at_least(0), default=0, help=text)
    text = "Of ced and choices: leave rows out of train whose sticker stands in their context."
    formats.add_argument("--no_echoes", action="store_true", help=text)
    text = "Report what is wrong and write nothing."
    formats.add_argument("--dry_run", action="store_true", help=text)
    return formats


if __name__ == "__main__":
    command.run(parser())
