"""Every problem of a prepared directory, found in one run, each with its file and line.

``validate`` only reports. ``read_prepared`` turns the directory into a ``PreparedDirectory`` and
refuses one with problems, or leaves out the bad records, each of them named. Nothing is dropped
silently.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import logging

from int_ra_jax.common.nearest import did_you_mean
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import images, record_checks, schema
from int_ra_jax.data.schema import Conversation, PreparedDirectory, StickerEntry

_SHOWN = 50


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
      file: name relative to the prepared directory.
      line: counted from 1; 0 where the whole file is meant.
      message: what is wrong, with the value.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class PreparedDataError(ValueError):
    """A prepared directory that cannot be used as it is.

    Attributes:
      problems: all of them; the message shows the first fifty.
    """

    def __init__(self, directory: Path, problems: list[Problem]) -> None:
        self.problems = problems
        shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
        rest = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        super().__init__(
            f"{len(problems)} problems in the prepared directory {directory}:\n{shown}{rest}\n"
            "Repair them, or write a copy without the bad records with "
            f"`python -m data_prep.describe validate {directory} --skip_bad=NEW_DIRECTORY`."
        )


@dataclass
class Inspection:
    """What one reading of a prepared directory found.

    Attributes:
      problems: ordered by file and line.
      prepared: the records that are good.
      left_out: one line for each record that is not in ``prepared``, with the reason.
      sizes: split -> number of good conversations.
      has_knowledge: whether any of them carries inferred knowledge.
      warnings: what is odd and keeps no record out.
    """

    prepared: PreparedDirectory
    sizes: Mapping[str, int]
    has_knowledge: bool
    problems: list[Problem] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def validate(directory: str | Path) -> list[Problem]:
    """Returns every problem of a prepared directory; an empty list means that it is valid."""
    return inspect(directory).problems


def read_prepared(
    directory: str | Path, skip_bad: bool = False, gallery: bool = False
) -> PreparedDirectory:
    """Reads a prepared directory.

    Args:
      directory: as described in ``data.schema``.
      skip_bad: leave out bad records and log them, instead of refusing the directory.
      gallery: take a gallery without conversations as well, as ``inspect``.

    Raises:
      PreparedDataError: once, with all problems; with ``skip_bad`` only if nothing usable is left.
    """
    found = inspect(directory, gallery=gallery)
    unusable = not (found.prepared.stickers and found.prepared.intentions and found.prepared.info)
    if found.problems and (unusable or not skip_bad):
        raise PreparedDataError(Path(directory), found.problems)
    if found.problems:
        logging.warning(
            "%s: %d problems, %d records left out:\n%s",
            directory,
            len(found.problems),
            len(found.left_out),
            "\n".join([*map(str, found.problems), *found.left_out]),
        )
    return found.prepared


def read_outline(directory: str | Path) -> Inspection:
    """Checks a prepared directory of any size.

    Of a conversation only hashes are kept, a few hundred bytes, so that a million of them fit.

    Returns:
      What ``inspect`` found; its ``prepared`` has the gallery and no conversation.

    Raises:
      PreparedDataError: once, with all problems.
    """
    found = inspect(directory, keeps=False)
    if found.problems:
        raise PreparedDataError(Path(directory), found.problems)
    return found


def inspect(directory: str | Path, keeps: bool = True, gallery: bool = False) -> Inspection:
    """Reads all that can be read of a prepared directory, and collects what is wrong with it.

    Args:
      directory: as described in ``data.schema``.
      keeps: whether the good conversations are kept; without them a directory of any size fits.
      gallery: whether stickers alone are enough where dataset.json says ``"gallery": true``.
    """
    return _Inspector(Path(directory), keeps).run(gallery)


class _Inspector:
    """One reading of one directory; the state is what has been seen so far."""

    def __init__(self, directory: Path, keeps: bool) -> None:
        self.directory = directory
        self.keeps = keeps  # the conversations
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.left_out: list[str] = []
        self.intentions: dict[str, int] = {}  # name -> line
        self.sticker_lines: dict[str, int] = {}  # id -> line, bad rows included
        self.stickers: dict[str, StickerEntry] = {}  # the good ones
        self.conversation_lines: dict[str, tuple[int, str]] = {}  # id -> line, split
        self.text_lines: dict[bytes, tuple[int, str]] = {}  # hash of the texts -> line, split
        self.conversations: dict[str, list[Conversation]] = {split: [] for split in schema.SPLITS}
        self.sizes = dict.fromkeys(schema.SPLITS, 0)
        self.has_knowledge = False

    def run(self, gallery: bool = False) -> Inspection:
        self._read_intentions()
        self._read_stickers()
        self._read_conversations()
        info = self._read_info()
        if not (gallery and info.get("gallery") is True and not self.conversation_lines):
            self._check_splits(info.get("gallery") is True)
        prepared = PreparedDirectory(
            path=self.directory,
            conversations={split: tuple(kept) for split, kept in self.conversations.items()},
            stickers=tuple(self.stickers.values()),
            intentions=tuple(self.intentions),
            info=info,
        )
        return Inspection(
            prepared, self.sizes, self.has_knowledge, sorted(self.problems), self.left_out,
            self.warnings,
        )  # fmt: skip

    def _report(self, file: str, line: int, message: str) -> None:
        self.problems.append(Problem(file, line, message))

    def _lines(self, file: str) -> Iterator[tuple[int, str]]:
        """Yields the lines that are not blank and are UTF-8; the others become problems."""
        path = self.directory / file
        if not path.is_file():
            self._report(file, 0, f"file is missing in {self.directory}")
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    text = line.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    self._report(file, number, f"text is not UTF-8: {error}")
                    self.left_out.append(f"{file}:{number}: not UTF-8")
                    continue
                if text.startswith("\ufeff"):
                    self._report(file, number, "starts with a byte order mark. Save without it.")
                    text = text.lstrip("\ufeff")
                if text:
                    yield number, text

    def _records(self, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the lines that are JSON objects; the others become problems."""
        for number, text in self._lines(file):
            try:
                record = json.loads(text)
                # A lone surrogate is legal in JSON, but no file and no tokenizer can hold it.
                json.dumps(record, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError as error:
                message = f"text is not UTF-8: {error}"
            except (ValueError, RecursionError) as error:
                message = f"not JSON: {error}"
            else:
                if isinstance(record, dict):
                    yield number, record
                    continue
                message = f"expected a JSON object, found {record_checks.kind_of(record)}"
            self._report(file, number, message)
            self.left_out.append(f"{file}:{number}: {message}")

    def _read_intentions(self) -> None:
        file = schema.INTENTIONS_FILE
        for number, name in self._lines(file):
            if name in self.intentions:
                first = self.intentions[name]
                self._report(file, number, f"duplicate intention {name!r}, first on line {first}")
            else:
                self.intentions[name] = number
        if not self.intentions and (self.directory / file).is_file():
            self._report(file, 0, "no intention in the file")

    def _read_stickers(self) -> None:
        file = schema.STICKERS_FILE
        records = list(self._records(file))
        with ThreadPoolExecutor() as pool:
            judged = pool.map(lambda item: self._judge_image(item[1]), records)
            for (number, record), (image_messages, oddities) in zip(records, judged, strict=True):
                self.warnings += (Problem(file, number, oddity) for oddity in oddities)
                messages = list(self._sticker_messages(record)) + image_messages
                identity = record.get("id")
                if isinstance(identity, str):
                    if identity in self.sticker_lines:
                        first = self.sticker_lines[identity]
                        messages.append(f"duplicate id {identity!r}, first on line {first}")
                    self.sticker_lines.setdefault(identity, number)
                for message in messages:
                    self._report(file, number, message)
                if messages:
                    self.left_out.append(f"{file}:{number}: sticker {identity!r}")
                else:
                    self.stickers[record["id"]] = StickerEntry.from_json(record)
        if not records and (self.directory / file).is_file():
            self._report(file, 0, "no sticker in the file")

    def _sticker_messages(self, record: dict[str, Any]) -> Iterator[str]:
        yield from record_checks.key_messages(record, record_checks.STICKER)
        yield from record_checks.list_messages(record, "tags")
        yield from record_checks.list_messages(record, "intentions")
        attributes = record.get("attributes")
        if isinstance(attributes, dict):
            kinds = dict.fromkeys(ATTRIBUTES, str)
            yield from record_checks.key_messages(
                attributes, kinds, "attributes.", may_be_empty=True
            )
        for name in record_checks.strings_in(record.get("intentions")):
            if name not in self.intentions:
                yield f"unknown intention {name!r}{did_you_mean(name, self.intentions)}"

    def _judge_image(self, record: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Decodes the frames that a run may read; returns what is wrong, and what is odd."""
        image = record.get("image")
        if not isinstance(image, str) or not image:
            return [], []  # reported with the keys
        try:
            path = schema.confined(self.directory, image)
            if not path.is_file():
                return [f"image {image!r} does not exist"], []
            if path.stat().st_size > images.MAX_BYTES:
                return [f"image {image!r} has more than {images.MAX_BYTES:,} bytes"], []
            oddities = images.oddities(path.read_bytes())
        except (ValueError, OSError) as error:
            return [f"image {image!r}: {error}"], []
        return [], [f"image {image!r} {oddity}" for oddity in oddities]

    def _read_conversations(self) -> None:
        file = schema.CONVERSATIONS_FILE
        for number, record in self._records(file):
            messages = list(self._conversation_messages(record))
            if not messages:
                messages = list(self._leak_messages(number, record))
            for message in messages:
                self._report(file, number, message)
            missing = record_checks.stickers_in(record) - self.stickers.keys()
            if messages or missing:
                reason = "" if messages else f" (its sticker {min(missing)!r} is left out)"
                self.left_out.append(f"{file}:{number}: {record.get('id')!r}{reason}")
            else:
                self._take(record)
            identity, split = record.get("id"), record.get("split")
            if isinstance(identity, str):
                self.conversation_lines.setdefault(identity, (number, sys.intern(str(split))))

    def _check_splits(self, gallery: bool) -> None:
        file = schema.CONVERSATIONS_FILE
        why = (
            "; this is a gallery of stickers, and only its stickers can be read" if gallery else ""
        )
        for split, size in self.sizes.items():
            if not size and (self.directory / file).is_file():
                self._report(file, 0, f"no valid conversation in split {split!r}{why}")

    def _take(self, record: dict[str, Any]) -> None:
        self.sizes[record["split"]] += 1
        self.has_knowledge |= bool(record.get("knowledge"))
        if self.keeps:
            self.conversations[record["split"]].append(Conversation.from_json(record))

    def _conversation_messages(self, record: dict[str, Any]) -> Iterator[str]:
        yield from record_checks.key_messages(record, record_checks.CONVERSATION)
        yield from record_checks.turn_messages(record.get("turns"))
        yield from record_checks.knowledge_messages(record.get("knowledge"))
        split = record.get("split")
        if isinstance(split, str) and split not in schema.SPLITS:
            yield f"unknown split {split!r}{did_you_mean(split, schema.SPLITS)}"
        name = record.get("intention")
        if isinstance(name, str) and name and name not in self.intentions:
            yield f"unknown intention {name!r}{did_you_mean(name, self.intentions)}"
        for sticker in sorted(record_checks.stickers_in(record) - self.sticker_lines.keys()):
            yield f"unknown sticker {sticker!r}{did_you_mean(sticker, self.sticker_lines)}"
        identity = record.get("id")
        if isinstance(identity, str) and identity in self.conversation_lines:
            line, other = self.conversation_lines[identity]
            where = f"in split {other!r} too" if other != split else "in the same split"
            yield f"duplicate id {identity!r}, first on line {line}, {where}"

    def _leak_messages(self, number: int, record: dict[str, Any]) -> Iterator[str]:
        """Identical texts may repeat within a split, but never across splits."""
        texts = [text for turn in record["turns"] if (text := turn["text"].strip())]
        digest = hashlib.sha256(json.dumps(texts).encode()).digest()
        line, split = self.text_lines.setdefault(digest, (number, sys.intern(record["split"])))
        if split != record["split"]:
            yield (
                f"conversation {record['id']!r} of split {record['split']!r} has the same text as "
                f"line {line} of split {split!r}"
            )

    def _read_info(self) -> dict[str, Any]:
        file = schema.INFO_FILE
        path = self.directory / file
        if not path.is_file():
            self._report(file, 0, f"file is missing in {self.directory}")
            return {}
        try:
            info = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            self._report(file, getattr(error, "lineno", 0), f"not JSON: {error}")
            return {}
        if not isinstance(info, dict):
            self._report(file, 1, f"expected a JSON object, found {record_checks.kind_of(info)}")
            return {}
        for message in record_checks.key_messages(info, record_checks.INFO):
            self._report(file, 0, message)
        if isinstance(info.get("files"), dict):
            self._check_files(info["files"])
        return info

    def _check_files(self, stated: dict[str, Any]) -> None:
        names = (schema.CONVERSATIONS_FILE, schema.STICKERS_FILE, schema.INTENTIONS_FILE)
        if not all((self.directory / name).is_file() for name in names):
            return  # reported already, and there is nothing to compare with
        for name, found in schema.describe_files(self.directory).items():
            entry = stated.get(name)
            if not isinstance(entry, dict):
                self._report(schema.INFO_FILE, 0, f"missing key files.{name}")
                continue
            for key, value in found.items():
                if entry.get(key) != value:
                    message = (
                        f"files.{name}.{key} is {entry.get(key)!r}, but the data give {value!r}"
                    )
                    self._report(schema.INFO_FILE, 0, message)
