"""Step 1, collect: the messages of an export in one form, sorted by chat and time.

Privacy: the result holds everything the export said, names included. Keep it as private as the
export itself, and delete it when the data set is built.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.chats import neutral, pictures, step, telegram, whatsapp
from data_prep.chats.message import Exported, Message, files_of
from data_prep.formats.pictures import suffix_of
from data_prep.problems import Problems
from int_ra_jax.data import images, schema

_READERS = {"jsonl": neutral, "telegram": telegram, "whatsapp": whatsapp}
FORMATS = tuple(_READERS)


def collect(format: str, source: Path, out: Path, date_order: str = "auto") -> step.Counts:
    """Reads an export.

    Args:
      format: "jsonl", "telegram" or "whatsapp".
      source: the export's folder, or its file with the stickers beside it.
      out: the step's directory.
      date_order: of WhatsApp's dates: "auto", "dmy", "mdy" or "ymd".

    Returns:
      What was counted.

    Raises:
      BadInputError: once, with everything that is wrong with the export.
      ValueError: if the format is unknown.
      FileNotFoundError: if there is nothing to read.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}. Choose one of {', '.join(FORMATS)}.")
    reader = _READERS[format]
    files = files_of(source, reader.FILES) if source.exists() else []
    if not files:
        what = f"{source} holds no {reader.FILES.removeprefix('**/')}"
        raise FileNotFoundError(f"{what}. Unpack the export and name its folder.")
    settings = {"format": format, "date_order": date_order}

    def work(building: Path) -> step.Counts:
        problems = Problems(source)
        if format == "whatsapp":
            exported = whatsapp.read(source, problems, date_order)
        else:
            exported = reader.read(source, problems)
        root = source.parent if source.is_file() else source
        return _Collector(building, root, problems, format == "jsonl").run(exported)

    return step.run_step("collect", _identity(files, source), out, settings, work)


class _Collector:
    """One reading of an export; messages are sorted on disk, so that memory stays bounded."""

    def __init__(self, building: Path, root: Path, problems: Problems, complete: bool) -> None:
        self.building, self.root, self.problems = building, root, problems
        self.complete = complete  # whether a sticker that is not there is a mistake
        self.left_out: Counter[str] = Counter()
        self.known: dict[Path, str | None] = {}  # file of the export -> name in the step
        self.total = 0

    def run(self, exported: Iterator[Exported]) -> step.Counts:
        spool = self.building / "spool.sqlite"
        database = sqlite3.connect(spool, isolation_level=None)
        database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
            "CREATE TABLE message(chat, id, time INTEGER, json);"
            "CREATE UNIQUE INDEX one ON message(chat, id) WHERE id IS NOT NULL;"
            "CREATE TABLE person(chat, sender, name, PRIMARY KEY(chat, sender, name));"
        )
        for found in tqdm(exported, desc="reading", unit="message", mininterval=1):
            self._take(database, found)
        if not (self.total or self.problems.total):
            self.problems.add(".", 0, "no message of a person in the export")
        self.problems.stop_if_any()
        database.execute("CREATE INDEX ordered ON message(chat, time)")
        counts = self._write(database)
        database.close()
        spool.unlink()
        return counts

    def _take(self, database: sqlite3.Connection, found: Exported) -> None:
        message = found.message
        if message.sticker is not None:
            message = replace(message, sticker=self._sticker(found, message.sticker))
            if not (message.sticker or message.text):
                return
        record = json.dumps(message.to_json(), ensure_ascii=False)
        try:
            row = (message.chat, message.id, message.time, record)
            database.execute("INSERT INTO message VALUES(?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            where = f"duplicate id {message.id!r} in chat {message.chat[:40]!r}"
            self.problems.add(found.file, found.line, f"{where}; leave one out")
            return
        except (UnicodeEncodeError, OverflowError, ValueError) as error:
            self.problems.add(found.file, found.line, f"message cannot be stored: {error}")
            return
        self.total += 1
        person = (message.chat, message.sender, found.name)
        database.execute("INSERT OR IGNORE INTO person VALUES(?, ?, ?)", person)

    def _sticker(self, found: Exported, name: str) -> str | None:
        """Takes a sticker over; returns its name in the step, or None where it is left out."""
        path = self.root / found.folder / name
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
            if not inside or "\\" in name or "\0" in name:
                raise ValueError("the path leaves the export")
            if name.lower().endswith(telegram.ANIMATED):
                self.left_out["animated, without a thumbnail"] += 1
                return None
            if path not in self.known:
                self.known[path] = self._store(path) if path.is_file() else None
        except (ValueError, OSError) as error:
            self.problems.add(found.file, found.line, f"sticker {name[:80]!r}: {error}")
            return None
        if self.known[path] is None and self.complete:
            self.problems.add(found.file, found.line, f"sticker {name[:80]!r} does not exist")
        elif self.known[path] is None:
            self.left_out["file not in the export"] += 1
        return self.known[path]

    def _store(self, path: Path) -> str:
        content = pictures.load(path)
        images.decode(content)  # raises ValueError for what cannot be decoded
        content = pictures.without_metadata(content)
        name = hashlib.sha256(content).hexdigest()[:20] + suffix_of(content)
        (self.building / step.STICKERS / name).write_bytes(content)
        return name

    def _write(self, database: sqlite3.Connection) -> step.Counts:
        counts: Counter[str] = Counter()

        def messages() -> Iterator[dict[str, Any]]:
            rows = database.execute("SELECT json FROM message ORDER BY chat, time, rowid")
            for (text,) in rows:
                message = Message.from_json(json.loads(text))
                counts["messages"] += 1
                counts["messages_with_sticker"] += message.sticker is not None
                yield message.to_json()

        step.write_lines(self.building, step.MESSAGES_FILE, messages())
        people = database.execute("SELECT chat, sender, name FROM person ORDER BY 1, 2, 3")
        rows = ({"chat": chat, "sender": sender, "name": name} for chat, sender, name in people)
        step.write_lines(self.building, step.PEOPLE_FILE, rows)
        chats = database.execute("SELECT COUNT(DISTINCT chat), COUNT(DISTINCT sender) FROM person")
        counts["chats"], counts["senders"] = chats.fetchone()
        left_out = dict(sorted(self.left_out.items()))
        stickers = len({name for name in self.known.values() if name})
        return dict(counts) | {"stickers": stickers, "stickers_left_out": left_out}


def _identity(files: list[Path], source: Path) -> str:
    """Hashes the export: what the texts say, and which other files there are, with their sizes."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    folder = source.parent if source.is_file() else source
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in schema.IMAGE_SUFFIXES:
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()
