"""Reads the JSON of DiscordChatExporter: one file for each channel, or several parts of one.

A sticker's picture is in the export if the exporter was told to download assets (``--media``); then
``sourceUrl`` is its path.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from absl import logging

from data_prep.chats import json_stream, pictures, placeholders
from data_prep.chats.message import (
    Exported,
    Message,
    Record,
    StickerLeftOut,
    files_of,
    id_of,
    naming,
)
from data_prep.chats.neutral import moment
from data_prep.problems import Problems
from int_ra_jax.common.ledger import LeftOut

FILES = "**/*.json"
STRICT = False
# By the exporter's name; a type that it has no name for is written as Discord's number.
_SAID = ("Default", "0")
_REPLIES = ("Reply", "19")
# What a message without words may hold instead, by the key that says so.
_MEDIA = {"attachments": "file", "embeds": "embed", "forwardedMessage": "forwarded message"}
_MARKS = (b'"channel"', b'"messages"')


@dataclass
class _Channel:
    """One file.

    Attributes:
      name: of the file, relative to the source.
      folder: its folder, relative to the source.
      beside: the pictures of the export.
      id: of the channel; the file's name where it has none.
    """

    name: str
    folder: str
    beside: pictures.Beside
    id: str = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.name

    def note(self, place: str, value: Any) -> None:
        """Learns the channel's id, which stands before the messages."""
        if place == "channel.id":
            self.id = str(value)


def read(source: Path, problems: Problems) -> Iterator[Record]:
    """Yields a record for each message, a notice as well.

    Args:
      source: a file, or a folder with those of several channels.
      problems: collects what is wrong with a file.
    """
    root = source.parent if source.is_file() else source
    paths = files_of(source, FILES)
    channels = [path for path in paths if json_stream.begins_with(path, _MARKS)]
    beside = pictures.Beside(root)
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path in channels:
            channel = _Channel(name, path.parent.relative_to(root).as_posix(), beside)
            for line, record in json_stream.messages(path, name, problems, channel.note):
                yield Record(name, line, partial(_exported, channel, record))
        elif not channels:
            problems.add(name, 0, f"no export of DiscordChatExporter. {hint(root)}")
        elif "_Files/" not in name:  # where animated stickers lie
            logging.warning("%s: passed over, no export of DiscordChatExporter", name)


def hint(folder: Path) -> str:
    """Returns what to do where there is nothing to read."""
    return "Export the channel with DiscordChatExporter as JSON, and with --media for its stickers."


def _exported(channel: _Channel, record: Any) -> Exported:
    if not isinstance(record, dict):
        raise LeftOut("message that is no object")
    author = record.get("author")
    given = author if isinstance(author, dict) else {}
    with naming(given.get("nickname"), given.get("name")):
        return _of_object(channel, record)


def _of_object(channel: _Channel, record: dict[str, Any]) -> Exported:
    kind = str(record.get("type"))
    if kind not in (*_SAID, *_REPLIES):
        raise LeftOut("notice of the program")
    author = record.get("author")
    if not isinstance(author, dict):
        raise LeftOut("message without a sender")
    if author.get("isBot") is True:
        raise LeftOut("message of a bot")
    content = record.get("content")
    if not isinstance(content, str | None):
        raise LeftOut("text of an unknown form")
    text = (content or "").strip()
    sticker = _sticker(channel, record, text)
    if not (text or sticker):
        found = next((name for key, name in _MEDIA.items() if record.get(key)), "message")
        placeholders.leave_out(found)
    names = [author.get(key) for key in ("nickname", "name")]
    known = list(dict.fromkeys(name for name in names if isinstance(name, str) and name.strip()))
    sender = id_of(author.get("id")) or next(iter(known), None)
    if not sender:
        raise LeftOut("message without a sender")
    message = Message(
        chat=channel.id,
        id=id_of(record.get("id")),
        time=moment(record.get("timestamp")),
        sender=sender,
        text=text,
        sticker=sticker,
        reply_to=_answered(channel, record) if kind in _REPLIES else None,
    )
    return Exported(message, name=known[0] if known else "", aliases=tuple(known[1:]))


def _sticker(channel: _Channel, record: dict[str, Any], text: str) -> str | None:
    """Returns the first sticker's picture, relative to the source, or None without a sticker."""
    stickers = record.get("stickers")
    if not isinstance(stickers, list) or not stickers:
        return None
    urls = [one.get("sourceUrl") for one in stickers if isinstance(one, dict)]
    paths = [url for url in urls if isinstance(url, str)]
    found = channel.beside.find(channel.folder, *paths)
    if found is None and not text:
        raise StickerLeftOut("file not in the export")
    return found or (paths[0] if paths else "no path")  # the collector counts it


def _answered(channel: _Channel, record: dict[str, Any]) -> str | None:
    """Returns the id of the message that is answered, if it is of this channel."""
    reference = record.get("reference")
    if not isinstance(reference, dict):
        return None
    where = id_of(reference.get("channelId"))
    return id_of(reference.get("messageId")) if where in (None, channel.id) else None
