"""Reads Telegram Desktop's JSON export: ``result.json`` of one chat or of the whole account.

The file is streamed, so that an export of any size needs the memory of one message.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ijson

from data_prep.chats.message import Exported, Message, files_of
from data_prep.chats.neutral import seconds
from data_prep.problems import Problems

FILES = "result.json"
MAX_MESSAGE = 2**20  # bytes; Telegram's own limit is far below
ANIMATED = (".tgs", ".webm")
# One chat stands at the top of the file, the chats of an account below these.
_CHATS = ("", "chats.list.item", "left_chats.list.item")


class _CountedLines:
    """Hands a file over line by line, so that the parser's place is known as a line.

    ``message`` counts the bytes since the parser was last outside a message: what it holds in
    memory, which a file made to do harm would let grow without end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.line, self.message = file, 0, 0

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.readline(size)
        self.line += chunk.endswith(b"\n")
        self.message += len(chunk)
        if self.message > MAX_MESSAGE:
            raise ijson.JSONError(f"more than {MAX_MESSAGE:,} bytes in one message")
        return chunk


@dataclass
class _Chat:
    """What is known of the chat whose messages are being read."""

    prefix: str
    id: str | None = None


def read(source: Path, problems: Problems) -> Iterator[Exported]:
    """Yields the messages that people wrote; what is wrong becomes problems.

    Service messages (joined, pinned, called) and other media than stickers are passed over. Of an
    animated sticker the thumbnail is taken, because no image library decodes the animation.
    """
    for path in files_of(source, FILES):
        with path.open("rb") as file:
            lines = _CountedLines(file)
            try:
                for chat, record in _records(lines):
                    try:
                        exported = _message(chat, record, path.name, lines.line)
                    except ValueError as error:
                        message = f"message {str(record.get('id'))[:20]} of chat {chat}: {error}"
                        problems.add(path.name, lines.line, message)
                        continue
                    if exported is not None:
                        yield exported
            except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
                text = " ".join(str(error).split())[:200]
                problems.add(path.name, lines.line + 1, f"not JSON: {text}. Export the chat again.")


def _records(lines: _CountedLines) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (id of the chat, message); an id stands before the messages in every export."""
    chat, item = _Chat(""), ""
    builder: ijson.ObjectBuilder | None = None
    for prefix, event, value in ijson.parse(lines, use_float=True):
        if builder is not None:
            builder.event(event, value)
            if event == "end_map" and prefix == item:
                yield chat.id or "chat", builder.value
                builder = None
            continue
        lines.message = 0
        owner, _, key = prefix.rpartition(".")
        if key == "id" and owner in _CHATS and event in ("number", "string"):
            chat = _Chat(owner, str(value))
        elif event == "start_map" and prefix.endswith("messages.item"):
            item = prefix
            if prefix.removesuffix("messages.item").rstrip(".") in _CHATS:
                builder = ijson.ObjectBuilder()
                builder.event(event, value)


def _message(chat: str, record: dict[str, Any], file: str, line: int) -> Exported | None:
    if record.get("type") != "message":
        return None
    text = _plain(record.get("text", ""))
    sticker = _sticker(record) if record.get("media_type") == "sticker" else None
    if not (text or sticker):
        return None
    name = record.get("from")
    sender = record.get("from_id") or name
    if not isinstance(sender, str | int):
        raise ValueError(f"from_id is {str(sender)[:40]!r}, expected a string")
    emoji, reply = record.get("sticker_emoji"), record.get("reply_to_message_id")
    message = Message(
        chat=chat,
        id=str(record.get("id")),
        time=seconds(_time(record)),
        sender=str(sender),
        text=text,
        sticker=sticker,
        reply_to=None if reply is None else str(reply),
        emoji=emoji if isinstance(emoji, str) else None,
    )
    return Exported(message, file, line, name=name if isinstance(name, str) else "")


def _time(record: dict[str, Any]) -> Any:
    stamp = record.get("date_unixtime")
    return int(stamp) if isinstance(stamp, str) and stamp.isdecimal() else record.get("date")


def _plain(text: Any) -> str:
    """Joins a text, which is a string or a list of strings and of marked parts."""
    parts = text if isinstance(text, list) else [text]
    found = [part.get("text") if isinstance(part, dict) else part for part in parts]
    plain = [part for part in found if isinstance(part, str)]
    if len(plain) < len(found):
        raise ValueError(f"text is {str(text)[:40]!r}, expected a string or a list of parts")
    return "".join(plain).strip()


def _sticker(record: dict[str, Any]) -> str:
    """Returns the sticker's file, or its thumbnail where it is animated.

    A file that was not exported ("(File not included...)") keeps that text; the collector finds no
    such file and counts it.
    """
    file, thumbnail = record.get("file"), record.get("thumbnail")
    if not isinstance(file, str):
        raise ValueError(f"file is {str(file)[:40]!r}, expected the sticker's path")
    if file.lower().endswith(ANIMATED) and isinstance(thumbnail, str):
        return thumbnail
    return file
