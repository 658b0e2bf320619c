"""Step 1, collect: the messages of an export in one form, sorted by chat and time.

Privacy: the result holds everything the export said, names included. Keep it as private as the
export itself, and delete it when the data set is built.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from data_prep import archives
from data_prep.chats import (
    chatlab,
    discord,
    line,
    neutral,
    pictures,
    step,
    telegram,
    wechat,
    whatsapp,
)
from data_prep.chats.message import Exported, Message, Record, StickerLeftOut, files_of, naming
from data_prep.formats import animations
from data_prep.formats.pictures import suffix_of
from data_prep.problems import Problems
from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.data import images

# A reader is a module with FILES, the pattern of its files; STRICT, whether what is wrong with one
# record refuses the export; read(source, problems), which yields the records; and hint(folder),
# what to do where there is nothing to read.
_READERS: dict[str, Any] = {
    "jsonl": neutral,
    "telegram": telegram,
    "whatsapp": whatsapp,
    "wechat": wechat,
    "chatlab": chatlab,
    "discord": discord,
    "line": line,
}
FORMATS = tuple(_READERS)
_WITH_DATES = ("whatsapp", "line")  # whose dates have no order of their own
# What programs call their owner, or whoever left, in place of a name; masking it would take it out
# of all texts.
_NOBODY = frozenset(
    (
        *("me", "i", "you", "myself", "self", "我", "自己", "本人", "你", "您"),
        *("自分", "私", "あなた", "나", "ฉัน", "คุณ"),
        *("deleted user", "deleted account", "unknown", "已注销", "unknown user"),
    )
)
_NO_CHAT = ""  # of people whose messages are all left out
_OTHER = (".html", ".htm", ".rar", ".7z", ".tar", ".gz", ".tgz")  # never the file of an export


def collect(format: str, source: Path, out: Path, date_order: str = "auto") -> step.Counts:
    """Reads an export, and writes into ``report.json`` what became of each of its records.

    Args:
      format: one of ``FORMATS``.
      source: the export's folder, or its file with the stickers beside it, or a zip of it.
      out: the step's directory.
      date_order: of WhatsApp's and LINE's dates: "auto", "dmy", "mdy" or "ymd".

    Returns:
      What was counted.

    Raises:
      BadInputError: once, with everything that is wrong with the export.
      ValueError: if the format is unknown, or a zip is not unpacked.
      FileNotFoundError: if there is nothing to read.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}. Choose one of {', '.join(FORMATS)}.")
    reader = _READERS[format]
    zips = archives.zips_of(source, reader.FILES)
    files = zips or _files(source, reader)
    settings = {"format": format, "date_order": date_order}
    options = {"date_order": date_order} if format in _WITH_DATES else {}

    def work(building: Path) -> step.Counts:
        problems = Problems(source)
        with archives.unpacked(zips, building) as unpacked:
            root = unpacked or source
            if unpacked:
                _files(unpacked, reader, shown=source)
            records = reader.read(root, problems, **options)
            folder = root.parent if root.is_file() else root
            return _Collector(building, folder, problems, reader.STRICT).run(records)

    return step.run_step("collect", _identity(files, source, bool(zips)), out, settings, work)


def _files(source: Path, reader: Any, shown: Path | None = None) -> list[Path]:
    """Returns the files that a reader will read.

    Raises:
      FileNotFoundError: if there is none, with what to do.
    """
    known = reader.FILES.removeprefix("**/")
    other = source.is_file() and source.suffix.lower() in _OTHER
    if source.exists() and not other and (files := files_of(source, reader.FILES)):
        return files
    where = shown or source
    what = f"{where} {'holds no' if where.is_dir() or shown else 'is no'} {known}"
    if not source.exists():
        what = f"there is no {where}"
    raise FileNotFoundError(f"{what}. {reader.hint(source if source.is_dir() else source.parent)}")


def _name(database: sqlite3.Connection, chat: str, sender: str, given: Iterable[str]) -> None:
    """Stores the names of somebody."""
    plain = (one.encode("utf-8", "ignore").decode() for one in given)
    names = dict.fromkeys("" if one.strip().casefold() in _NOBODY else one for one in plain)
    people = [(chat, sender, name) for name in names if name or sender]
    database.executemany("INSERT OR IGNORE INTO person VALUES(?, ?, ?)", people)


class _Collector:
    """One reading of an export; messages are sorted on disk, so that memory stays bounded."""

    def __init__(self, building: Path, root: Path, problems: Problems, strict: bool) -> None:
        self.building, self.root, self.problems = building, root, problems
        self.strict = strict  # whether what is wrong with one record refuses the export
        self.ledger = Ledger()
        self.stickers_left_out: Counter[str] = Counter()
        # File of the export -> name in the step, or why there is none.
        self.known: dict[Path, str | StickerLeftOut | ValueError] = {}

    def run(self, records: Iterable[Record]) -> step.Counts:
        spool = self.building / "spool.sqlite"
        database = sqlite3.connect(spool, isolation_level=None)
        database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
            "CREATE TABLE message(chat, id, time INTEGER, json);"
            "CREATE UNIQUE INDEX one ON message(chat, id) WHERE id IS NOT NULL;"
            "CREATE TABLE person(chat, sender, name, PRIMARY KEY(chat, sender, name));"
        )
        for record in tqdm(records, desc="reading", unit="record", mininterval=1):
            try:
                self.ledger.judge(record.place, partial(self._keep, database, record))
            except ValueError as error:
                self.problems.add(record.file, record.line, str(error))
        if not (self.ledger.kept or self.problems.total):
            told = str(self.ledger).replace("\n", ";")
            other = "" if self.ledger.records_in else ". Is --format the program that wrote it?"
            self.problems.add(".", 0, f"no message of a person in the export: {told}{other}")
        self.problems.stop_if_any()
        database.execute("CREATE INDEX ordered ON message(chat, time)")
        counts = self._write(database)
        database.close()
        spool.unlink()
        logging.info("%s", self.ledger)
        return counts

    def _keep(self, database: sqlite3.Connection, record: Record) -> None:
        """Stores the message that a record becomes, or raises LeftOut: one of the two, always."""
        try:
            exported = record.make()
            with naming(exported.name, *exported.aliases):
                self._insert(database, exported)
        except LeftOut as lost:
            if isinstance(lost, StickerLeftOut):
                self.stickers_left_out[lost.why] += 1
            _name(database, _NO_CHAT, _NO_CHAT, lost.names)
            raise

    def _insert(self, database: sqlite3.Connection, exported: Exported) -> None:
        message = self._with_sticker(exported)
        written = json.dumps(message.to_json(), ensure_ascii=False)
        try:
            "".join((written, exported.name, *exported.aliases)).encode()
        except UnicodeEncodeError as error:
            raise LeftOut("characters that are not Unicode") from error
        if "\0" in message.text:
            raise LeftOut("NUL character in the text")
        try:
            row = (message.chat, message.id, message.time, written)
            database.execute("INSERT INTO message VALUES(?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            if self.strict:
                where = f"duplicate id {message.id!r} in chat {message.chat[:40]!r}"
                raise ValueError(f"{where}; leave one out") from error
            raise LeftOut("id of an earlier message of the chat") from error
        given = (exported.name, *filter(None, exported.aliases))
        _name(database, message.chat, message.sender, given)

    def _with_sticker(self, exported: Exported) -> Message:
        """Returns the message with its sticker taken over; words stay where the sticker cannot."""
        message = exported.message
        if message.sticker is None:
            return message
        try:
            return replace(message, sticker=self._sticker(exported, message.sticker))
        except StickerLeftOut as lost:
            if not message.text:
                raise
            self.stickers_left_out[lost.why] += 1
            return replace(message, sticker=None)

    def _sticker(self, exported: Exported, name: str) -> str:
        """Takes a sticker over, or else its thumbnail; returns its name in the step."""
        try:
            return self._taken(exported.folder, name)
        except StickerLeftOut:
            if exported.thumbnail is None:
                raise
            with contextlib.suppress(StickerLeftOut):
                return self._taken(exported.folder, exported.thumbnail)
            raise

    def _taken(self, folder: str, name: str) -> str:
        path = self.root / folder / name
        if path not in self.known:
            try:
                self.known[path] = self._store(path, name)
            except (StickerLeftOut, ValueError) as why:
                self.known[path] = why
        taken = self.known[path]
        if isinstance(taken, Exception):
            raise taken.with_traceback(None)
        return taken

    def _store(self, path: Path, name: str) -> str:
        """Writes a sticker's picture into the step; returns its name there.

        Raises:
          StickerLeftOut: if it cannot be taken.
          ValueError: likewise, where that refuses the export.
        """
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
            if not inside or "\\" in name or "\0" in name:
                raise ValueError("the path leaves the export")
            if not path.is_file():
                if self.strict:
                    raise ValueError("does not exist")
                raise StickerLeftOut("file not in the export")
            content = pictures.load(path)
            if animations.is_animation(content):
                content = animations.as_picture(content)
            images.decode(content)  # raises ValueError for what cannot be decoded
            content = pictures.without_metadata(content)
        except animations.PackageMissingError as missing:
            raise StickerLeftOut(f"animated; pip install {missing.package}") from missing
        except (ValueError, OSError) as error:
            if self.strict:
                raise ValueError(f"sticker {name[:80]!r}: {error}") from error
            raise StickerLeftOut("no picture that can be read") from error
        stored = hashlib.sha256(content).hexdigest()[:20] + suffix_of(content)
        (self.building / step.STICKERS / stored).write_bytes(content)
        return stored

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
        chats = database.execute(
            "SELECT COUNT(DISTINCT chat), COUNT(DISTINCT sender) FROM person WHERE chat != ?",
            (_NO_CHAT,),
        )
        counts["chats"], counts["senders"] = chats.fetchone()
        left_out = dict(sorted(self.stickers_left_out.items()))
        step.write_report(self.building, self.ledger)
        stickers = len({name for name in self.known.values() if isinstance(name, str)})
        return dict(counts) | {"stickers": stickers, "stickers_left_out": left_out}


def _identity(files: list[Path], source: Path, zipped: bool) -> str:
    """Hashes the export: what the texts say, and which other files there are, with their sizes.

    Of a zip the bytes alone: what lies beside it is not read.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    folder = source.parent if source.is_file() else source
    for path in () if zipped else sorted(folder.rglob("*")):
        if archives.may_be_sticker(path.name):
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()
