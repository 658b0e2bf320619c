"""People's real choices: replies with the one sticker that each writer sent, a JSON object a line.

    SRC/**/replies.jsonl[.gz], choices.jsonl[.gz]

    {"thread", "month", "user", "turns": [{"speaker", "text"}], "own_words", "sticker", "times",
     "direct", "echo", "split"}             replies under public posts; formats/ced.py makes them
    {"user", "order", "month", "turns", "own_words", "emoji", "split"}
                                            messages of a chat with the one emoji typed in them

``turns`` is what the writer answers, oldest first; ``own_words`` is what stands beside the sticker,
"" where it stands alone. Rows are third-party data: one that is not of this form is left out and
counted, by what is wrong with it.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from data_prep.formats.labels import Labels
from data_prep.formats.packs import Pack, load
from data_prep.formats.reading import InputDirectory
from data_prep.formats.staging import READING_ORDER, Description, Staging
from int_ra_jax.common.ledger import LeftOut
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, Turn

Row = TypeVar("Row")
NAMES = ("replies.jsonl", "choices.jsonl", "replies.jsonl.gz", "choices.jsonl.gz")
NOTES: Mapping[str, Any] = {
    "relevance": "The gold sticker is the one that the writer sent; others may fit as well.",
    "intention": "Weak: the commonest intention of the sticker that was sent, by two readings of "
    "the sticker (docs/data.md). Nobody annotated the conversation.",
    "case": "alone: the sticker is the whole reply; own_words: it supplements the last turn.",
}
DESCRIPTION = Description(
    name="choices",
    licence="none stated by the sources; research use, cite, do not redistribute (docs/data.md)",
    source="rows of people's replies with the sticker that each sent",
    notes=NOTES,
)


@dataclass(frozen=True)
class Choice:
    """A reply and the sticker that its writer sent.

    Attributes:
      thread: the post or the writer's log that it belongs to; intervals resample threads.
      user: the writer's hashed id.
      turns: what is answered, oldest first.
      own_words: beside the sticker, or "".
      sticker: its id in the pack.
      split: "train", "valid" or "test".
      facts: month, times (in a row), direct (answers the post itself), echo (the sticker stands in
        the context already), order (place in the writer's log), as far as the source has them.
    """

    thread: str
    user: str
    turns: tuple[Turn, ...]
    own_words: str
    sticker: str
    split: str
    facts: Mapping[str, Any]

    def conversation(self, intention: str, place: str) -> Conversation:
        """Returns it in the schema's form.

        Args:
          intention: the sticker's commonest.
          place: where it was found, which makes the id unique.
        """
        turns = self.turns
        if self.own_words:
            turns = (*turns, Turn(self.user, self.own_words))
        digest = hashlib.sha256(f"{place}\0{self.user}".encode()).hexdigest()[:12]
        case = "own_words" if self.own_words else "alone"
        return Conversation(
            id=f"{self.thread}-{digest}",
            split=self.split,
            turns=turns,
            reply_speaker=self.user,
            sticker=self.sticker,
            intention=intention,
            extra={"thread": self.thread, "case": case, **self.facts},
        )


@dataclass
class Training:
    """Which rows training gets; valid and test keep all of theirs.

    Attributes:
      per_thread: how many rows of a thread, drawn at random; 0 = all. Some posts have hundreds of
        replies, and would otherwise outweigh all others.
      echoes: whether rows count whose sticker stands in their context already.
      taken: train rows of each thread so far.
    """

    per_thread: int = 0
    echoes: bool = True
    taken: Counter[str] = field(default_factory=Counter)

    def shuffled(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Returns rows in the order in which they are drawn: as they stand, where all are."""
        return random.Random(0).sample(rows, len(rows)) if self.per_thread else rows

    def check(self, choice: Choice) -> None:
        """Raises LeftOut for a train row that training does not get."""
        if choice.split != "train":
            return
        if not self.echoes and choice.facts.get("echo"):
            raise LeftOut("an echo in train")
        if self.per_thread and self.taken[choice.thread] >= self.per_thread:
            raise LeftOut(f"train has {self.per_thread} rows of the thread already")


def read(
    source: InputDirectory,
    staging: Staging,
    stickers: str,
    per_thread: int = 0,
    no_echoes: bool = False,
) -> Labels:
    """Reads rows into the staging.

    Args:
      source: a directory with one of ``NAMES``.
      staging: takes conversations and pictures.
      stickers: the pack that rows name (packs.load).
      per_thread: see Training.
      no_echoes: see Training.

    Returns:
      The intentions.
    """
    pack, training = load(stickers, source.problems), Training(per_thread, not no_echoes)
    name = source.first(NAMES)
    rows = training.shuffled(list(source.records(name))) if name else []
    for split in READING_ORDER:
        for line, record in rows:
            if record.get("split") == split:
                take = partial(_take, record, pack, staging, training, str(name), line)
                staging.ledger.judge(f"{name}:{line}", take)
    for line, record in rows:
        if record.get("split") not in schema.SPLITS:
            staging.ledger.judge(f"{name}:{line}", _without_split)
    return pack.labels()


def add(
    choice: Choice, pack: Pack, staging: Staging, training: Training, file: str, line: int
) -> None:
    """Takes a choice, and its sticker's picture with its first use.

    Raises:
      LeftOut: if training does not get it, or the staging did not keep it.
    """
    training.check(choice)
    pack.take(choice.sticker, staging)
    intention = pack.stickers[choice.sticker].intentions[0]
    if not staging.add(choice.conversation(intention, f"{file}:{line}"), file, line):
        raise LeftOut("the same text stands in another split")
    training.taken[choice.thread] += choice.split == "train"


def _take(
    record: Mapping[str, Any],
    pack: Pack,
    staging: Staging,
    training: Training,
    file: str,
    line: int,
) -> None:
    add(parse(record, pack), pack, staging, training, file, line)


def parse(record: Mapping[str, Any], pack: Pack) -> Choice:
    """Checks a row.

    Raises:
      LeftOut: for one that is not of this form, or whose sticker the pack does not have.
    """
    sticker = record.get("sticker", record.get("emoji"))
    if not isinstance(sticker, str) or sticker not in pack.stickers:
        raise LeftOut("sticker is not in the pack")
    user, own_words = record.get("user"), record.get("own_words", "")
    thread = record.get("thread", user)
    if not all(isinstance(one, str) and one for one in (user, thread)):
        raise LeftOut("row without user")
    if not isinstance(own_words, str):
        raise LeftOut("own_words is no text")
    turns = _turns(record.get("turns"))
    if not turns and not own_words.strip():
        raise LeftOut("nothing was said before the sticker")
    own_words = own_words.strip()
    facts = {
        key: record[key] for key in ("month", "times", "direct", "echo", "order") if key in record
    }
    return Choice(
        str(thread), str(user), turns, own_words, str(sticker), str(record["split"]), facts
    )


def _turns(value: Any) -> tuple[Turn, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise LeftOut("turns is no list")
    turns = []
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("text"), str):
            raise LeftOut("turn without text")
        if not isinstance(one.get("speaker"), str) or not one["speaker"]:
            raise LeftOut("turn without speaker")
        if one["text"].strip():
            turns.append(Turn(one["speaker"], one["text"].strip()))
    return tuple(turns)


def _without_split() -> None:
    raise LeftOut("split is none of train, valid, test")
