"""Reads ChatLab's standard format, JSON or JSON lines: exporters of WeChat, QQ and others write it.

A file holds one chat. Its types of messages are numbers; a sticker has type 5, and its content, or
another key of the message, names the picture where the exporter saved it. The JSON that WeFlow
writes for itself differs in a few keys, and is read as well.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

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

FILES = "**/*.json*"
STRICT = False
# Types of messages by the names that the standard gives them.
_NAMES = {
    **{"TEXT": 0, "IMAGE": 1, "VOICE": 2, "VIDEO": 3, "FILE": 4, "EMOJI": 5, "STICKER": 5},
    **{"LINK": 7, "LOCATION": 8, "RED_PACKET": 20, "TRANSFER": 21, "POKE": 22, "CALL": 23},
    **{"SHARE": 24, "REPLY": 25, "FORWARD": 26, "CONTACT": 27},
    **{"SYSTEM": 80, "RECALL": 81, "OTHER": 99},
}
# Types as WeFlow's own JSON words them, by what is in them; the first that fits.
_LABELS = (
    *(("表情", 5), ("引用", 25), ("文本", 0), ("图片", 1), ("语音", 2), ("视频", 3)),
    *(("系统", 80), ("撤回", 81), ("链接", 7), ("文件", 4), ("位置", 8), ("名片", 27)),
)
_WORDS = (_NAMES["TEXT"], _NAMES["REPLY"])
_STICKER = _NAMES["EMOJI"]
_WITHOUT_WORDS = {
    1: "photo",
    2: "voice message",
    3: "video",
    4: "file",
    7: "link",
    8: "location",
    20: "red packet",
    21: "transfer",
    22: "poke",
    23: "call",
    24: "share",
    26: "forwarded messages",
    27: "contact",
}
_NOTICES = {80: "notice of the program", 81: "message that was taken back"}
# Keys of a message, those of the standard before those of WeFlow's own JSON.
_TYPE = ("chatLabType", "type")
_TIME = ("timestamp", "createTime")
_SENDER = ("sender", "senderUsername")
_NAMES_OF_SENDER = ("accountName", "groupNickname", "senderDisplayName")
_OF_PEOPLE = (*_SENDER, *_NAMES_OF_SENDER, "platformMessageId", "replyToMessageId")
_NAMES_OF_MEMBERS = tuple(
    f"members.item.{key}" for key in ("accountName", "groupNickname", "aliases.item")
)
_LINED = (b'"_type"',)
_MARKS = (b'"chatlab"', b'"messages"', *_LINED)  # what an export says near its beginning


@dataclass
class _Chat:
    """One file.

    Attributes:
      name: of the file, relative to the source; also the chat's id.
      folder: its folder, relative to the source.
      beside: the pictures of the export.
      people: id -> names, from the list of members.
    """

    name: str
    folder: str
    beside: pictures.Beside
    people: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _member: str = ""

    def note(self, place: str, value: Any) -> None:
        """Learns the members' names from what stands outside the messages."""
        if place == "members.item.platformId":
            self._member = str(value)
        elif place in _NAMES_OF_MEMBERS and isinstance(value, str):
            self.people[self._member].append(value)

    def add_member(self, record: dict[str, Any]) -> None:
        """Learns a member's names from a line of its own."""
        self.note("members.item.platformId", record.get("platformId"))
        for key in ("accountName", "groupNickname"):
            self.note(f"members.item.{key}", record.get(key))
        aliases = record.get("aliases")
        for alias in aliases if isinstance(aliases, list) else ():
            self.note("members.item.aliases.item", alias)


def read(source: Path, problems: Problems) -> Iterator[Record]:
    """Yields a record for each message, a notice as well; a file of another form is no chat.

    Args:
      source: a file, or a folder with one or several.
      problems: collects what is wrong with a file.
    """
    root = source.parent if source.is_file() else source
    paths = files_of(source, FILES)
    chats = [path for path in paths if json_stream.begins_with(path, _MARKS)]
    beside = pictures.Beside(root)
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path in chats:
            chat = _Chat(name, path.parent.relative_to(root).as_posix(), beside)
            lined = path.suffix.lower() == ".jsonl" or json_stream.begins_with(path, _LINED)
            yield from _lines(path, chat) if lined else _whole(path, chat, problems)
        elif chats:
            logging.warning("%s: passed over, no file of ChatLab's format", name)
        else:
            problems.add(name, 0, f"no file of ChatLab's format. {hint(root)}")


def hint(folder: Path) -> str:
    """Returns what to do where there is nothing to read."""
    return "Let the exporter write ChatLab's format, as JSON or JSONL, and name the file's folder."


def _whole(path: Path, chat: _Chat, problems: Problems) -> Iterator[Record]:
    if not json_stream.stands_before(path, b'"members"', b'"messages"'):
        json_stream.note_all(path, chat.note)  # the members may stand behind the messages
    for line, message in json_stream.messages(path, chat.name, problems, chat.note):
        yield Record(chat.name, line, partial(_exported, chat, message))


def _lines(path: Path, chat: _Chat) -> Iterator[Record]:
    """Yields the messages of JSON lines; a broken line is left out alone, as the form says."""
    _add_members(path, chat)
    with path.open("rb") as file:
        lines, number = json_stream.as_utf8(file), 0
        while line := lines.readline(json_stream.MAX_MESSAGE + 1):
            number += 1
            if len(line) > json_stream.MAX_MESSAGE:
                while line and not line.endswith(b"\n"):
                    line = lines.readline(json_stream.MAX_MESSAGE)
                yield Record(chat.name, number, partial(_refuse, "line that is too long"))
                continue
            try:
                text = line.decode("utf-8-sig").strip()
                if not text or text.startswith("#"):
                    continue
                record = json.loads(text)
            except (ValueError, RecursionError):
                yield Record(chat.name, number, partial(_refuse, "line that is no JSON"))
                continue
            kind = record.get("_type") if isinstance(record, dict) else None
            if kind not in ("member", "header"):
                yield Record(chat.name, number, partial(_exported, chat, record))


def _add_members(path: Path, chat: _Chat) -> None:
    """Learns the members' names, wherever their lines stand."""
    with path.open("rb") as file:
        lines = json_stream.as_utf8(file)
        while line := lines.readline(json_stream.MAX_MESSAGE + 1):
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line) if b'"member"' in line else None
                if isinstance(record, dict) and record.get("_type") == "member":
                    chat.add_member(record)


def _refuse(reason: str) -> NoReturn:
    raise LeftOut(reason)


def _exported(chat: _Chat, record: Any) -> Exported:
    if not isinstance(record, dict):
        raise LeftOut("message that is no object")
    with naming(*(record.get(key) for key in _NAMES_OF_SENDER)):
        return _of_object(chat, record)


def _of_object(chat: _Chat, record: dict[str, Any]) -> Exported:
    if record.get("_type", "message") != "message":
        raise LeftOut("line of a kind that is not known")
    kind = _kind(_first(record, _TYPE))
    if kind in _NOTICES:
        raise LeftOut(_NOTICES[kind])
    if kind in _WITHOUT_WORDS:
        placeholders.leave_out(_WITHOUT_WORDS[kind])
    if kind not in (*_WORDS, _STICKER):
        raise LeftOut("message of a type that is not known")
    text, sticker = _text(record.get("content")), None
    if kind == _STICKER:
        text, sticker = "", _picture(chat, record)
    elif stands_for := placeholders.kind_of(text):
        placeholders.leave_out(stands_for)
    elif not text:
        raise LeftOut("message without words")
    sender, names = _sender(chat, record)
    message = Message(
        chat=chat.name,
        id=id_of(record.get("platformMessageId")),
        time=moment(_first(record, _TIME)),
        sender=sender,
        text=text,
        sticker=sticker,
        reply_to=id_of(record.get("replyToMessageId")),
    )
    return Exported(message, name=names[0] if names else "", aliases=tuple(names[1:]))


def _first(record: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """Returns the value of the first of some keys that a message has, or None."""
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _kind(kind: Any) -> int | None:
    if isinstance(kind, str):
        known = _NAMES.get(kind.strip().upper())
        if known is None:
            known = next((number for word, number in _LABELS if word in kind), None)
        return int(kind) if known is None and kind.isdecimal() and len(kind) < 9 else known
    is_number = isinstance(kind, int | float) and not isinstance(kind, bool)
    return int(kind) if is_number and abs(kind) < 1e9 else None


def _text(content: Any) -> str:
    if content is not None and not isinstance(content, str):
        raise LeftOut("text of an unknown form")
    return (content or "").strip()


def _picture(chat: _Chat, record: dict[str, Any]) -> str:
    """Returns the sticker's picture: what the content names, or any other key of the message."""
    said = [record.get("content"), *(v for k, v in record.items() if k not in _OF_PEOPLE)]
    found = chat.beside.find(chat.folder, *(one for one in said if isinstance(one, str)))
    if found is None:
        raise StickerLeftOut("file not in the export")
    return found


def _sender(chat: _Chat, record: dict[str, Any]) -> tuple[str, list[str]]:
    """Returns the sender's id, by the name where there is no id, and all names."""
    given = [record.get(key) for key in _NAMES_OF_SENDER]
    names = [name for name in given if isinstance(name, str) and name.strip()]
    sender = id_of(_first(record, _SENDER)) or next(iter(names), None)
    if not sender:
        raise LeftOut("message without a sender")
    return sender, list(dict.fromkeys([*names, *chat.people.get(sender, ())]))
