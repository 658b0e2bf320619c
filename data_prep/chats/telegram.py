"""Reads Telegram Desktop's JSON export: ``result.json`` of one chat or of the whole account.

The file is streamed, so that an export of any size needs the memory of one message, and in a forum
that of the messages' ids. The topics of a forum are chats of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ijson

from data_prep.chats.json_stream import ERRORS, CountedLines, add_problem
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

FILES = "**/result*.json"
STRICT = False
# One chat stands at the top of the file, the chats of an account below these.
_CHATS = ("", "chats.list.item", "left_chats.list.item")
_MESSAGES = tuple(f"{owner}.messages.item".lstrip(".") for owner in _CHATS)
_SAID = ("text", "caption", "title")  # keys of a rich message's words
# What a message without words may hold instead, by the key that says so.
_MEDIA = {
    "photo": "photo",
    "poll": "poll",
    "todo_list": "list of tasks",
    "location_information": "location",
    "live_location_period_seconds": "location",
    "contact_information": "contact",
    "game_title": "game",
    "invoice_information": "invoice",
    "giveaway_information": "giveaway",
    "giveaway_results": "giveaway",
    "paid_stars_amount": "paid media",
    "story": "story",
}
_MEDIA_TYPES = {
    "animation": "animation",
    "audio_file": "audio file",
    "video_file": "video",
    "video_message": "video message",
    "voice_message": "voice message",
}


@dataclass
class _Chat:
    """What is known of the chat whose messages are being read.

    Attributes:
      id: as the export writes it.
      topics: id of a message -> the topic of the forum in which it stands; none of other chats.
      roots: ids of the topics themselves.
    """

    id: str
    topics: dict[str, str] = field(default_factory=dict)
    roots: set[str] = field(default_factory=set)

    def place(self, record: dict[str, Any]) -> tuple[str, str | None]:
        """Returns the name of the chat, or of its topic, and the id of the answered message.

        Telegram writes a message of a topic as an answer to the notice that the topic was made, or
        to a message of the topic.
        """
        identity, answered = id_of(record.get("id")), id_of(record.get("reply_to_message_id"))
        if record.get("action") == "topic_created" and identity:
            self.roots.add(identity)
            self.topics[identity] = identity
        if "reply_to_peer_id" in record:
            answered = None  # of another chat
        topic = self.topics.get(answered or "")
        if topic and identity:
            self.topics[identity] = topic
        if answered in self.roots:
            answered = None  # the notice is no message, and all would be answers to it
        return (f"{self.id}/{topic}" if topic else self.id), answered


def read(source: Path, problems: Problems) -> Iterator[Record]:
    """Yields a record for each message, a notice as well; what is no JSON becomes a problem.

    Of an animated sticker that cannot be drawn the thumbnail is taken.

    Args:
      source: a file, or a folder with one export or several.
      problems: collects what is wrong with a file.
    """
    root = source.parent if source.is_file() else source
    for path in files_of(source, FILES):
        name = path.relative_to(root).as_posix()
        folder = path.parent.relative_to(root).as_posix()
        with path.open("rb") as file:
            lines = CountedLines(file)
            try:
                for chat, record in _records(lines):
                    yield Record(name, max(lines.line, 1), partial(_exported, chat, record, folder))
            except ERRORS as error:
                add_problem(problems, name, lines.line + 1, error)


def hint(folder: Path) -> str:
    """Returns what to do where there is nothing to read."""
    again = (
        "In Telegram Desktop choose Export chat history, and as format "
        "'Machine-readable JSON' in place of HTML"
    )
    pages = sorted(folder.rglob("*.html"))
    if pages:
        return f"It holds {pages[0].name}: an export as HTML, which is not read. {again}."
    return f"{again}; then name the export's folder."


def _records(lines: CountedLines) -> Iterator[tuple[_Chat, Any]]:
    """Yields (chat, message); an id stands before the messages in every export."""
    chat, count, item = _Chat("chat"), 0, ""
    seen: set[str] = set()
    builder: ijson.ObjectBuilder | None = None
    for prefix, event, value in ijson.parse(lines, use_float=True):
        if builder is not None:
            builder.event(event, value)
            if event.startswith("end_") and prefix == item:
                yield chat, builder.value
                builder = None
            continue
        lines.message = 0
        owner, _, key = prefix.rpartition(".")
        if event == "start_map" and prefix in _CHATS:
            count += 1
            chat = _Chat(f"chat {count}" if prefix else "chat")
        elif key == "id" and owner in _CHATS and (identity := id_of(value)):
            # A person and a group may have the same number.
            chat = _Chat(f"{identity} ({count})" if identity in seen else identity)
            seen.add(identity)
        elif prefix in _MESSAGES and event in ("start_map", "start_array"):
            item = prefix
            builder = ijson.ObjectBuilder()
            builder.event(event, value)
        elif prefix in _MESSAGES and not event.startswith("end_"):
            yield chat, value


def _exported(chat: _Chat, record: Any, folder: str) -> Exported:
    if not isinstance(record, dict):
        raise LeftOut("message that is no object")
    members = record.get("members")
    some = members if isinstance(members, list) else ()
    with naming(record.get("from"), record.get("actor"), *some):
        return _of_object(chat, record, folder)


def _of_object(chat: _Chat, record: dict[str, Any], folder: str) -> Exported:
    place, reply_to = chat.place(record)
    if record.get("type") != "message":
        service = record.get("type") == "service"
        raise LeftOut("notice of the program" if service else "message of a type that is not known")
    text = _plain(record.get("text") or record.get("text_entities") or "") or _rich(
        record.get("rich_message", "")
    )
    sticker = _sticker(record) if record.get("media_type") == "sticker" else None
    if not (text or sticker):
        raise LeftOut(_without_words(record))
    sender, name = _sender(record)
    emoji = record.get("sticker_emoji")
    message = Message(
        chat=place,
        id=id_of(record.get("id")),
        time=_time(record),
        sender=sender,
        text=text,
        sticker=sticker,
        reply_to=reply_to,
        emoji=emoji if isinstance(emoji, str) else None,
    )
    return Exported(message, folder, name, thumbnail=_thumbnail(record))


def _sender(record: dict[str, Any]) -> tuple[str, str]:
    """Returns the sender's id, by the name where there is no id, and the name or nothing."""
    given = record.get("from")
    name = given if isinstance(given, str) else ""
    sender = id_of(record.get("from_id")) or name
    if not sender:
        raise LeftOut("message without a sender")
    return sender, name


def _without_words(record: dict[str, Any]) -> str:
    """Returns the reason that names what a message without words and sticker is."""
    kind = record.get("media_type")
    if isinstance(kind, str) and kind in _MEDIA_TYPES:
        return f"{_MEDIA_TYPES[kind]} without words"
    found = next((name for key, name in _MEDIA.items() if key in record), None)
    if found is None and "file" in record:
        found = "file"
    if found:
        return f"{found} without words"
    return "rich message without words" if "rich_message" in record else "message without words"


def _time(record: dict[str, Any]) -> int:
    stamp = record.get("date_unixtime")
    said = str(stamp) if isinstance(stamp, str | int) else ""
    return moment(said if said.isdecimal() and len(said) < 13 else record.get("date"))


def _plain(text: Any) -> str:
    """Joins a text, which is a string or a list of strings and of marked parts."""
    parts = text if isinstance(text, list) else [text]
    found = [part.get("text") if isinstance(part, dict) else part for part in parts]
    plain = [part for part in found if isinstance(part, str)]
    if len(plain) < len(found):
        raise LeftOut("text of an unknown form")
    return "".join(plain).strip()


def _rich(rich: Any) -> str:
    """Joins the words of a rich message: those of its blocks, one a line."""
    try:
        return "\n".join(words for words in _block_words(rich) if words)
    except RecursionError as error:
        raise LeftOut("rich message nested too deeply") from error


def _block_words(block: Any) -> Iterator[str]:
    """Yields the words of a block, or of the blocks within it."""
    if isinstance(block, str):
        yield block.strip()
    elif isinstance(block, list):
        for one in block:
            yield from _block_words(one)
    elif isinstance(block, dict):
        for key, inner in block.items():
            if key in _SAID:
                yield _inline(inner).strip()
            elif isinstance(inner, dict | list):
                yield from _block_words(inner)


def _inline(text: Any) -> str:
    """Joins marked parts, which may hold marked parts themselves."""
    if isinstance(text, list):
        return "".join(_inline(part) for part in text)
    if isinstance(text, dict):
        return _inline(text.get("text", ""))
    return text if isinstance(text, str) else ""


def _sticker(record: dict[str, Any]) -> str:
    """Returns the sticker's file.

    A file that was not exported ("(File not included...)") keeps that text; the collector finds no
    such file and counts it.
    """
    file = record.get("file")
    if not isinstance(file, str):
        raise StickerLeftOut("file not in the export")
    return file


def _thumbnail(record: dict[str, Any]) -> str | None:
    thumbnail = record.get("thumbnail")
    return thumbnail if isinstance(thumbnail, str) else None
