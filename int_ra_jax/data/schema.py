"""The one data schema: what a prepared directory holds.

``DIR/conversations.jsonl`` and ``DIR/stickers.jsonl`` hold one JSON object a line,
``DIR/intentions.txt`` one name a line (its order is the class id), ``DIR/images/`` the pictures
and ``DIR/dataset.json`` the origin, the counts and a SHA-256 of every file. Importers in data_prep
write this form with ``write_prepared``; validation reads and checks it; the TFDS builder reads
nothing else. Nothing here imports tensorflow.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from int_ra_jax.common.types import ATTRIBUTES

SPLITS: tuple[str, ...] = ("train", "valid", "test")
CONVERSATIONS_FILE = "conversations.jsonl"
STICKERS_FILE = "stickers.jsonl"
INTENTIONS_FILE = "intentions.txt"
INFO_FILE = "dataset.json"
IMAGES = "images"
IMAGE_SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".gif")


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
      speaker: any name; letters replace it before a model sees it.
      text: what was said; empty where the turn was a sticker alone.
      sticker: id of a sticker sent with this turn, or None.
      extra: keys the schema does not know, kept as they came.
    """

    speaker: str
    text: str
    sticker: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Turn":
        """Builds a turn from a JSON object that validation has accepted."""
        return cls(
            speaker=record["speaker"],
            text=record["text"],
            sticker=record.get("sticker"),
            extra=_rest(record, ("speaker", "text", "sticker")),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object, unknown keys included."""
        record: dict[str, Any] = {"speaker": self.speaker, "text": self.text}
        if self.sticker is not None:
            record["sticker"] = self.sticker
        return record | dict(self.extra)


@dataclass(frozen=True)
class Conversation:
    """A conversation up to the sticker that answers it.

    Attributes:
      id: unique over all splits.
      split: "train", "valid" or "test".
      turns: oldest first, without the sticker reply itself.  Where the sticker supplements the
        replier's own words, those words are the last turn.
      reply_speaker: who sends the sticker.
      sticker: id of the gold sticker.
      intention: name of the annotated intention.
      knowledge: relation -> inferred phrases, or None where none was extracted.
      extra: keys the schema does not know, kept as they came.
    """

    id: str
    split: str
    turns: tuple[Turn, ...]
    reply_speaker: str
    sticker: str
    intention: str
    knowledge: Mapping[str, tuple[str, ...]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Conversation":
        """Builds a conversation from a JSON object that validation has accepted."""
        known = ("id", "split", "turns", "reply_speaker", "sticker", "intention", "knowledge")
        knowledge = record.get("knowledge")
        return cls(
            id=record["id"],
            split=record["split"],
            turns=tuple(Turn.from_json(turn) for turn in record["turns"]),
            reply_speaker=record["reply_speaker"],
            sticker=record["sticker"],
            intention=record["intention"],
            knowledge=None if knowledge is None else {k: tuple(v) for k, v in knowledge.items()},
            extra=_rest(record, known),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object, unknown keys included."""
        record: dict[str, Any] = {
            "id": self.id,
            "split": self.split,
            "turns": [turn.to_json() for turn in self.turns],
            "reply_speaker": self.reply_speaker,
            "sticker": self.sticker,
            "intention": self.intention,
        }
        if self.knowledge is not None:
            record["knowledge"] = {k: list(v) for k, v in self.knowledge.items()}
        return record | dict(self.extra)


@dataclass(frozen=True)
class StickerEntry:
    """One row of the gallery.

    Attributes:
      id: unique in the gallery.
      image: path relative to the prepared directory, below ``images/``, with forward slashes:
        ``images/cat_07.png``.
      attributes: the text of each of the four attributes; an absent one is the empty string.
      tags: free words; no model reads them.
      intentions: names given to the sticker itself, apart from any conversation.
      extra: keys the schema does not know, kept as they came.
    """

    id: str
    image: str
    attributes: Mapping[str, str]
    tags: tuple[str, ...] = ()
    intentions: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "StickerEntry":
        """Builds a sticker from a JSON object that validation has accepted."""
        return cls(
            id=record["id"],
            image=record["image"],
            attributes={name: record["attributes"][name] for name in ATTRIBUTES},
            tags=tuple(record.get("tags", ())),
            intentions=tuple(record.get("intentions", ())),
            extra=_rest(record, ("id", "image", "attributes", "tags", "intentions")),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object, unknown keys included."""
        record: dict[str, Any] = {
            "id": self.id,
            "image": self.image,
            "attributes": dict(self.attributes),
        }
        if self.tags:
            record["tags"] = list(self.tags)
        if self.intentions:
            record["intentions"] = list(self.intentions)
        return record | dict(self.extra)


@dataclass(frozen=True)
class PreparedDirectory:
    """A prepared directory that has been read and found valid.

    Attributes:
      path: where its images lie.
      conversations: split -> conversations, in file order.
      stickers: the gallery, in file order.
      intentions: names; the position is the class id.
      info: dataset.json.
    """

    path: Path
    conversations: Mapping[str, tuple[Conversation, ...]]
    stickers: tuple[StickerEntry, ...]
    intentions: tuple[str, ...]
    info: Mapping[str, Any]


def write_prepared(
    directory: Path,
    conversations: Iterable[Conversation],
    stickers: Sequence[StickerEntry],
    intentions: Sequence[str],
    info: Mapping[str, Any],
    images: Mapping[str, bytes | Path],
) -> None:
    """Writes a prepared directory, with the counts and hashes of its dataset.json.

    It is built beside ``directory`` and renamed at the end, so a run that is stopped leaves no
    half-written data set under the final name.

    Args:
      directory: must not exist yet, or be empty.
      conversations: in the order in which they are to be stored.
      stickers: the gallery, in order.
      intentions: names in class order.
      info: name, version, licence, source and whatever else dataset.json should tell.
      images: for each sticker's ``image``, the picture's bytes or a file to copy.

    Raises:
      FileExistsError: if ``directory`` holds anything.
      KeyError: if ``images`` lacks the image of a sticker.
      ValueError: if a sticker's ``image`` is not a path below ``images/``.
    """
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty. Choose a new directory or remove it.")
    building = directory.with_name(f"{directory.name}.incomplete-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    (building / IMAGES).mkdir(parents=True)
    for sticker in stickers:
        target = confined(building, sticker.image)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = images[sticker.image]
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    _write_lines(building / CONVERSATIONS_FILE, (_dump(c.to_json()) for c in conversations))
    _write_lines(building / STICKERS_FILE, (_dump(s.to_json()) for s in stickers))
    _write_lines(building / INTENTIONS_FILE, intentions)
    info = dict(info) | {"files": describe_files(building)}
    (building / INFO_FILE).write_text(
        json.dumps(info, ensure_ascii=False, indent=2) + "\n", "utf-8"
    )
    if directory.exists():
        directory.rmdir()
    building.rename(directory)


def confined(directory: Path, image: str) -> Path:
    """Returns the file that a sticker's ``image`` names, once it is known to lie in ``directory``.

    Directories come from third parties: a path must not reach a file outside, be it absolute, by
    ``..`` or through a symbolic link.

    Raises:
      ValueError: if it leaves the directory, is not below ``images/`` or has another suffix than
        ``IMAGE_SUFFIXES``.
    """
    path = PurePosixPath(image)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in image or "\0" in image
    if escapes or not (directory / path).resolve().is_relative_to(directory.resolve()):
        raise ValueError(f"path {image!r} leaves the directory")
    if len(path.parts) < 2 or path.parts[0] != IMAGES:
        raise ValueError(f"path {image!r} is not below {IMAGES}/. Write {IMAGES}/NAME")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"path {image!r} ends in none of {', '.join(IMAGE_SUFFIXES)}")
    return directory / path


def describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Returns the ``files`` entry of dataset.json: a count and a SHA-256 of each file.

    The images share one entry, ``images``, whose digest is that of the lines
    ``<sha256>  images/<name>`` sorted by name: what ``sha256sum images/* | sha256sum`` prints.
    """
    described = {}
    for name in (CONVERSATIONS_FILE, STICKERS_FILE, INTENTIONS_FILE):
        count, content = 0, hashlib.sha256()
        with (directory / name).open("rb") as file:
            for line in file:
                count += bool(line.strip())
                content.update(line)
        described[name] = {"count": count, "sha256": content.hexdigest()}
    paths = sorted(
        path.relative_to(directory).as_posix()
        for path in (directory / IMAGES).rglob("*")
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
    )
    digest = hashlib.sha256()
    for path in paths:
        image = hashlib.sha256((directory / path).read_bytes()).hexdigest()
        digest.update(f"{image}  {path}\n".encode())
    described[IMAGES] = {"count": len(paths), "sha256": digest.hexdigest()}
    return described


def content_hash(directory: Path) -> str:
    """Returns one SHA-256 over the whole data set, dataset.json included."""
    digests = {name: part["sha256"] for name, part in describe_files(directory).items()}
    digests[INFO_FILE] = hashlib.sha256((directory / INFO_FILE).read_bytes()).hexdigest()
    return hashlib.sha256(_dump(digests).encode()).hexdigest()


def _rest(record: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in known}


def _dump(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
