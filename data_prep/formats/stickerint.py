"""StickerInt as its authors release it: JSON lines, pictures in base64, and a label file.

    SRC/{train,valid,test}_contexts_total_key.jsonl   one row a line (also ..._comet_key.jsonl)
    SRC/{train,valid,test}_imgs.tsv                   image_id TAB base64
    SRC/intent_label.txt                              id TAB name TAB text

The rows name who replies and nobody else, so who said a turn stays unknown (docs/importing.md).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from data_prep.formats.labels import Labels, read_labels, tidy
from data_prep.formats.pictures import MAX_TEXT
from data_prep.formats.reading import InputDirectory, decode_base64
from data_prep.formats.staging import READING_ORDER, UNKNOWN, Description, Staging, extra_keys
from data_prep.problems import short
from int_ra_jax.common.types import ATTRIBUTES, RELATIONS
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, Turn

LABELS_FILE = "intent_label.txt"
SEPARATOR = "[SEP]"
REPLIER = "replier"  # where a row does not say who replies
NOTES: Mapping[str, Any] = {
    "speakers": "Rows name the replying user only. Every turn's speaker is 'unknown'.",
    "relevance": "A sticker counts as relevant if it carries the gold intention.",
}
DESCRIPTION = Description(
    name="stickerint",
    licence="as agreed with the authors of StickerInt; this copy grants nothing",
    source="StickerInt release (arXiv 2403.05427), imported from JSON lines",
    notes=NOTES,
)
_TAKEN = ("image_ids", "text", "speaker")
_OPTIONAL = ("textid", "keyword", "speaker", "comet")


class RowError(ValueError):
    """A row that cannot become a conversation; its message says why."""


def read(source: InputDirectory, staging: Staging) -> Labels:
    """Reads a release into the staging area.

    Args:
      source: the directory with the files above.
      staging: takes conversations and pictures.

    Returns:
      The intentions.
    """
    labels = read_labels(source, LABELS_FILE)
    files = [name for split in schema.SPLITS if source.has(name := f"{split}_imgs.tsv")]
    if not files:
        source.problems.add("train_imgs.tsv", 0, f"no picture file *_imgs.tsv in {source.root}")
    for name in files:
        read_pictures(source, staging, name)
    for split in READING_ORDER:
        rows = source.first([f"{split}_contexts_{kind}_key.jsonl" for kind in ("total", "comet")])
        if rows:
            for line, record in source.records(rows):
                add_row(record, split, rows, line, staging, labels)
    return labels


def read_pictures(source: InputDirectory, staging: Staging, name: str) -> None:
    """Reads a file of pictures, one ``id TAB base64`` a line."""
    for line, text in source.lines(name, MAX_TEXT):
        sticker, tab, encoded = text.partition("\t")
        if not tab or "\t" in encoded:
            found = text.count("\t")
            message = f"expected id TAB base64, found {found} TABs in {short(text)}"
            source.problems.add(name, line, message)
            continue
        try:
            content = decode_base64(encoded)
        except ValueError as error:
            source.problems.add(name, line, f"image of sticker {short(sticker)}: {error}")
            continue
        staging.pictures.add(sticker, content, name, line)


def add_row(
    record: Mapping[str, Any], split: str, file: str, line: int, staging: Staging, labels: Labels
) -> None:
    """Turns one row into a conversation for each of its stickers, or into problems.

    Args:
      record: the row.
      split: where it belongs.
      file: where it was found.
      line: likewise.
      staging: takes the conversations.
      labels: the intentions.
    """
    messages: list[str] = []

    def tried(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except RowError as error:
            messages.append(str(error))
            return None

    stickers = tried(_stickers, record)
    context = tried(_context, record)
    attributes = tried(_attributes, record.get("keyword"))
    knowledge = tried(_knowledge, record.get("comet"))
    speaker = tried(_speaker, record.get("speaker"))
    number = tried(_number, record.get("textid"), line)
    message = labels.message(record.get("fined_intent"))
    if message:
        messages.append(message)
    for message in messages:
        staging.problems.add(file, line, message)
    if messages:
        return
    missing = [key for key in _OPTIONAL if key not in record]
    if missing:
        staging.problems.warn(file, line, f"row has no {', '.join(missing)}")
    _warn_of_lost_text(context, file, line, staging)
    extra = extra_keys(record, _TAKEN) | {"legacy_text": record["text"]}
    for sticker in stickers:
        row = Conversation(
            id=f"{split}-{number}-{sticker}",
            split=split,
            turns=tuple(Turn(UNKNOWN, text) for text in context.turns),
            reply_speaker=speaker,
            sticker=sticker,
            intention=tidy(record["fined_intent"]),
            knowledge=knowledge,
            extra=extra,
        )
        staging.add(row, file, line, attributes)


class Context(NamedTuple):
    """The turns of a text, and the words that the grammar passes over."""

    turns: tuple[str, ...]
    before: str
    after: str


def parse_text(text: str) -> Context:
    """Splits a text as the released code does: ``TAB turn [SEP] TAB turn [SEP] ...``.

    What stands before the first TAB and after the last [SEP] is no part of the context there, and
    so not here; it stays in the conversation's ``legacy_text``.
    """
    *parts, after = text.split(SEPARATOR)
    before, *fields = SEPARATOR.join(parts).split("\t")
    turns = split_turns(fields)
    return Context(turns, before.replace(SEPARATOR, " ").strip(), after.strip())


def split_turns(fields: list[str]) -> tuple[str, ...]:
    """Returns the turns within fields that were separated by TABs; blank ones are no turns."""
    pieces = (piece.strip() for field in fields for piece in field.split(SEPARATOR))
    return tuple(piece for piece in pieces if piece)


def _warn_of_lost_text(context: Context, file: str, line: int, staging: Staging) -> None:
    for words, where in ((context.before, "before the first TAB"), (context.after, "after [SEP]")):
        if words:
            message = f"words {where} are no turn, as in the released code: {short(words)}"
            staging.problems.warn(file, line, message)


def _stickers(record: Mapping[str, Any]) -> list[str]:
    value = record.get("image_ids")
    stickers = [value] if isinstance(value, str) else value
    if not isinstance(stickers, list) or not stickers:
        raise RowError(f"image_ids is {short(value)}, expected a list of ids")
    if not all(isinstance(sticker, str) for sticker in stickers):
        raise RowError(f"image_ids holds something that is no string: {short(stickers)}")
    return stickers


def _context(record: Mapping[str, Any]) -> Context:
    text = record.get("text")
    if not isinstance(text, str):
        raise RowError(f"text is {short(text)}, expected a string")
    context = parse_text(text)
    if not context.turns:
        raise RowError(
            f"empty context: no turn between a TAB and [SEP] in {short(text)}. "
            "Write TAB turn [SEP] TAB turn [SEP]"
        )
    return context


def _attributes(value: Any) -> list[str] | None:
    """The four attributes of a ``keyword``: a string with three commas, or an object."""
    if value is None:
        return None
    if isinstance(value, str):
        pieces = [piece.strip() for piece in value.split(",")]
        if len(pieces) != len(ATTRIBUTES):
            raise RowError(
                f"keyword has {len(pieces)} parts, expected {len(ATTRIBUTES)} "
                f"({', '.join(ATTRIBUTES)}) with commas between: {short(value)}"
            )
        return pieces
    if isinstance(value, dict) and set(value) <= set(ATTRIBUTES):
        pieces = [value.get(name, "") for name in ATTRIBUTES]
        if all(isinstance(piece, str) for piece in pieces):
            return [piece.strip() for piece in pieces]
    raise RowError(f"keyword is {short(value)}, expected four strings: {', '.join(ATTRIBUTES)}")


def _knowledge(value: Any) -> dict[str, tuple[str, ...]] | None:
    """The inferred phrases of a ``comet``.

    The released form is one string without its relations. All its phrases then go to the first
    relation: a model reads the phrases and not the relation's name.
    """
    if isinstance(value, str) or value is None:
        phrases = _phrases(value or "")
        return {RELATIONS[0]: phrases} if phrases else None
    if isinstance(value, dict):
        found = {relation: _phrases(said) for relation, said in value.items()}
        return found if any(found.values()) else None
    raise RowError(f"comet is {short(value)}, expected a string or an object")


def _phrases(value: Any) -> tuple[str, ...]:
    said = value.split(SEPARATOR) if isinstance(value, str) else value
    if not isinstance(said, list) or not all(isinstance(phrase, str) for phrase in said):
        raise RowError(f"comet holds {short(value)}, expected a string or a list of strings")
    return tuple(text for phrase in said if (text := phrase.strip()))


def _speaker(value: Any) -> str:
    if value is None:
        return REPLIER
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"speaker is {short(value)}, expected the name of the replying user")
    return value.strip()


def _number(value: Any, line: int) -> str:
    if value is None:
        return f"line{line}"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowError(f"textid is {short(value)}, expected a number or a string")
    return str(value)
