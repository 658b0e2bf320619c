"""What an importer has read, kept on disk until the whole input is known to be good.

A row goes to a spool file, and what must be remembered of all rows (ids, texts, which sticker was
used how) to a database beside it, so memory does not grow with the input.
"""

import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TextIO

from data_prep.formats.pictures import Pictures, id_message
from data_prep.problems import Problems, short
from int_ra_jax.common.ledger import Ledger
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, StickerEntry

LEAKS = ("refuse", "drop")
UNKNOWN = "unknown"  # who said a turn, in formats that do not tell
READING_ORDER = ("test", "valid", "train")  # so that a leak is found at the row that can be spared
_RESERVED = frozenset(
    ("id", "split", "turns", "reply_speaker", "sticker", "intention", "knowledge")
)
_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
PRAGMA cache_size=-65536;
CREATE TABLE ids (key BLOB PRIMARY KEY, file TEXT, line INTEGER) WITHOUT ROWID;
CREATE TABLE texts (key BLOB PRIMARY KEY, split TEXT, file TEXT, line INTEGER) WITHOUT ROWID;
CREATE TABLE uses (sticker TEXT, intention TEXT, n INTEGER, PRIMARY KEY (sticker, intention))
  WITHOUT ROWID;
CREATE TABLE described (sticker TEXT, split TEXT, attributes TEXT, n INTEGER,
  PRIMARY KEY (sticker, split, attributes)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Description:
    """What dataset.json says of an import, besides what is counted.

    Attributes:
      name: of the data set.
      licence: under which terms it may be used.
      source: where it comes from, and in which form.
      notes: anything else, by key.
    """

    name: str
    licence: str
    source: str
    notes: Mapping[str, Any]


class Staging:
    """Conversations and pictures of one import; a context that leaves nothing behind.

    Attributes:
      problems: where everything is noted that is wrong.
      pictures: the stickers' pictures.
      counts: split -> number of conversations.
      left_out: reason -> number of rows that were passed over on purpose.
      ledger: what became of every record, in formats that count them.
    """

    def __init__(self, out: Path, problems: Problems, leaks: str = "refuse") -> None:
        """Makes a working directory beside the target.

        Args:
          out: where the prepared directory will be; must not exist yet, or be empty.
          problems: where everything is noted that is wrong.
          leaks: what to do with a text that stands in two splits: "refuse" the input, or "drop" it
            from train (and from valid, where test has it too).

        Raises:
          FileExistsError: if ``out`` holds anything.
          ValueError: if ``leaks`` has an unknown value.
        """
        if leaks not in LEAKS:
            raise ValueError(f"leaks is {leaks!r}. Choose one of {', '.join(LEAKS)}.")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(f"{out} is not empty. Choose a new directory or remove it.")
        self.problems = problems
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.ledger = Ledger()
        self._declared: dict[str, StickerEntry] = {}
        self._out = out
        self._leaks = leaks
        self._folder = out.with_name(f"{out.name}.importing")
        if self._folder.exists():
            raise FileExistsError(
                f"{self._folder} is there: another import writes to it, or one was killed. "
                "Remove it if no import is running."
            )
        (self._folder / "images").mkdir(parents=True)
        self.pictures = Pictures(self._folder / "images", problems)
        self._memory = sqlite3.connect(self._folder / "memory.sqlite", isolation_level=None)
        self._memory.executescript(_TABLES + "BEGIN;")
        self._spools: dict[str, TextIO] = {}
        self._has_knowledge = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for spool in self._spools.values():
            spool.close()
        self._memory.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(
        self, row: Conversation, file: str, line: int, attributes: Sequence[str] | None = None
    ) -> bool:
        """Takes a conversation whose sticker and intention are known.

        Args:
          row: the conversation; its ``extra`` comes from ``extra_keys``.
          file: where it was found.
          line: likewise.
          attributes: what the row says of its sticker, in the order of ``ATTRIBUTES``.

        Returns:
          Whether it was kept; if not, a problem or ``left_out`` says why.
        """
        messages = list(self._messages(row))
        for message in messages:
            self.problems.add(file, line, message)
        if messages or not self._is_new(row, file, line) or self._leaked(row, file, line):
            return False
        if row.split == "train":  # other splits' annotations never reach training
            self._memory.execute(
                "INSERT INTO uses VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
                (row.sticker, row.intention),
            )
        if attributes is not None:
            self._memory.execute(
                "INSERT INTO described VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
                (row.sticker, row.split, json.dumps(attributes, ensure_ascii=False)),
            )
        self.counts[row.split] += 1
        self._has_knowledge |= bool(row.knowledge)
        self.keep(f"{row.split}.jsonl", row.to_json())
        return True

    def declare(self, entry: StickerEntry) -> None:
        """Takes what is known of a sticker apart from any conversation; it comes before votes.

        Args:
          entry: its ``image`` is not read, since ``pictures`` names the file.
        """
        self._declared[entry.id] = entry

    def keep(self, name: str, record: Mapping[str, Any]) -> None:
        """Appends a record to a file of the working directory."""
        if name not in self._spools:
            path = self._folder / name
            self._spools[name] = path.open("w", encoding="utf-8", newline="\n")
        self._spools[name].write(json.dumps(record, ensure_ascii=False) + "\n")

    def check_splits(self) -> None:
        """Notes a problem for each split without a conversation; call it once all are in."""
        for split in schema.SPLITS:
            if not self.counts[split]:
                self.problems.add(split, 0, f"no usable conversation in split {split!r}")

    def write(
        self, intentions: Sequence[str], description: Description, extra_files: Sequence[str] = ()
    ) -> None:
        """Writes the prepared directory, if nothing is wrong.

        Args:
          intentions: names in class order.
          description: for dataset.json.
          extra_files: names that ``keep`` was given, to lie beside the conversations.

        Raises:
          BadInputError: with everything that is wrong; then nothing is written.
        """
        self.problems.stop_if_any()
        stickers = list(self._stickers(intentions))
        info = {
            "name": description.name,
            "version": "1",
            "licence": description.licence,
            "source": description.source,
            "knowledge": self._has_knowledge,
            "counts": {split: self.counts[split] for split in schema.SPLITS},
            "left_out": dict(sorted(self.left_out.items())),
            **({"ledger": self.ledger.to_json()} if self.ledger.records_in else {}),
            **description.notes,
        }
        prepared = self._folder / "prepared"
        images = {entry.image: self.pictures.taken[entry.id].path for entry in stickers}
        schema.write_prepared(prepared, self._conversations(), stickers, intentions, info, images)
        for name in extra_files:
            if name in self._spools:
                self._spools[name].close()
                (self._folder / name).rename(prepared / name)
        if self._out.exists():
            self._out.rmdir()
        prepared.rename(self._out)

    def _messages(self, row: Conversation) -> Iterator[str]:
        if not any(turn.text.strip() for turn in row.turns):
            yield "empty context: no turn has any text"
        if any("\0" in turn.text for turn in row.turns):
            yield "a turn holds a NUL character"
        for sticker in dict.fromkeys([row.sticker, *(turn.sticker for turn in row.turns)]):
            message = None if sticker is None else self.pictures.message(sticker)
            if message:
                yield message
        message = id_message(row.id)
        if message and not id_message(row.sticker):  # which is part of it in some formats
            yield f"conversation's {message}"

    def _is_new(self, row: Conversation, file: str, line: int) -> bool:
        key = hashlib.sha256(row.id.encode()).digest()[:16]
        added = self._memory.execute(
            "INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (key, file, line)
        ).rowcount
        if not added:
            where = self._memory.execute("SELECT file, line FROM ids WHERE key = ?", (key,))
            first = ":".join(map(str, where.fetchone()))
            self.problems.add(file, line, f"duplicate id {short(row.id)}, first in {first}")
        return bool(added)

    def _leaked(self, row: Conversation, file: str, line: int) -> bool:
        """Whether another split has the same text; validation would refuse the result."""
        texts = [text for turn in row.turns if (text := turn.text.strip())]
        key = hashlib.sha256(json.dumps(texts).encode()).digest()[:16]
        self._memory.execute(
            "INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?)", (key, row.split, file, line)
        )
        found = self._memory.execute("SELECT split, file, line FROM texts WHERE key = ?", (key,))
        split, first_file, first_line = found.fetchone()
        if split == row.split:
            return False
        what = f"same text as {first_file}:{first_line} of split {split!r}"
        if self._leaks == "drop":
            self.problems.warn(file, line, f"left out: {what}")
            self.left_out[f"{row.split}: text also in {split}"] += 1
        else:
            self.problems.add(file, line, f"{what}. Remove one of them, or use --leaks=drop")
        return True

    def _stickers(self, intentions: Sequence[str]) -> Iterator[StickerEntry]:
        for sticker, picture in self.pictures.taken.items():
            used = self._memory.execute("SELECT intention FROM uses WHERE sticker = ?", (sticker,))
            image = f"{schema.IMAGES}/{picture.path.name}"
            if sticker in self._declared:
                yield replace(self._declared[sticker], image=image)
                continue
            yield StickerEntry(
                id=sticker,
                image=image,
                attributes=dict(zip(ATTRIBUTES, self._attributes(sticker), strict=True)),
                intentions=tuple(sorted((name for (name,) in used), key=intentions.index)),
            )

    def _attributes(self, sticker: str) -> list[str]:
        """The description that most rows give: of train, or else of the next split that has one."""
        for split in schema.SPLITS:
            rows = self._memory.execute(
                "SELECT attributes, n FROM described WHERE sticker = ? AND split = ? "
                "ORDER BY n DESC, length(attributes) DESC, attributes",
                (sticker, split),
            ).fetchall()
            if len(rows) > 1:
                votes = ", ".join(f"{short(text)} ({n})" for text, n in rows[:3])
                self.problems.warn(
                    split, 0, f"sticker {sticker!r} has {len(rows)} descriptions; kept {votes}"
                )
            if rows:
                found: list[str] = json.loads(rows[0][0])
                return found
        return [""] * len(ATTRIBUTES)

    def _conversations(self) -> Iterator[Conversation]:
        for split in schema.SPLITS:
            self._spools[f"{split}.jsonl"].close()
            with (self._folder / f"{split}.jsonl").open(encoding="utf-8", newline="\n") as spool:
                for line in spool:
                    yield Conversation.from_json(json.loads(line))


def extra_keys(record: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """Returns the keys of a source's row that the schema does not know, to be kept with it.

    A key that the schema uses itself becomes ``source_KEY``: a foreign "split" or "sticker" would
    otherwise replace the real one when the record is written.

    Args:
      record: the row.
      taken: keys that have become something else already.
    """
    rest = {key: value for key, value in record.items() if key not in taken}
    return {f"source_{key}" if key in _RESERVED else key: value for key, value in rest.items()}
