"""Reads WhatsApp's text export: ``_chat.txt`` (iOS) or ``WhatsApp Chat with NAME.txt`` (Android).

The form follows the phone's language, so the order of the date is decided from the whole file
(``whatsapp_dates``). A line that does not begin with a date goes on with the message before.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from data_prep.chats import whatsapp_dates
from data_prep.chats.message import Exported, Message, files_of
from data_prep.chats.whatsapp_dates import HEAD, Head
from data_prep.problems import Problems

FILES = "**/*.txt"
MAX_TEXT = 2**16
# Marks of direction stand before attachments and notices and would hide them.
_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202c\ufeff"))
_ATTACHED = re.compile(
    r"^[<\uff1c]\w+\s?[:\uff1a]\s?(?P<ios>[^<>]+\.\w{2,4})[>\uff1e]$"
    r"|^(?P<android>[^\s/]+\.\w{2,4}) [(\uff08][^()\uff08\uff09]{3,40}[)\uff09]$"
)
_STICKER_NAME = re.compile(r"(?:STK-|-STICKER-).*\.(?:webp|png|gif)$", re.I)
STICKER_OMITTED = re.compile(r"^(?:sticker omitted|贴图已忽略)$", re.I)
_NOTICE = re.compile(
    r"^(?:<[^<>]*omitted>|\w+ omitted|<媒体已忽略>|\w{2}已忽略"
    r"|(?:this message was deleted|you deleted this message)\.?|null"
    r"|此消息已删除|您已删除此消息"
    r"|missed (?:voice|video) call.*|.{0,80}end-to-end encrypted.*"
    r"|.{0,40}端到端加密.*)$",
    re.I | re.S,
)
_EDITED = re.compile(r"\s*<(?:this message was edited|此消息已编辑)>$", re.I)


def read(source: Path, problems: Problems, date_order: str = "auto") -> Iterator[Exported]:
    """Yields the messages that people wrote; what is wrong becomes problems.

    Args:
      source: a file, or a folder with one export or several, each in a folder of its own.
      problems: collects what is wrong.
      date_order: "auto", or "dmy", "mdy", "ymd" where a file leaves it open.
    """
    root = source.parent if source.is_file() else source
    for path in files_of(source, FILES):
        name = path.relative_to(root).as_posix()
        try:
            order = whatsapp_dates.decide(_heads(path), date_order)
        except (ValueError, UnicodeDecodeError) as error:
            problems.add(name, 0, f"{error}. Is it a WhatsApp export, saved as UTF-8?")
            continue
        if order.doubt:
            logging.warning(
                "%s: %s; read as %s. Say --date_order if wrong.", name, order.doubt, order.order
            )
        chat = name.removesuffix(".txt").removesuffix("/_chat")
        folder = path.parent.relative_to(root).as_posix()
        for line, head, body in _messages(path):
            try:
                message = _message(chat, head, body, order.order)
            except ValueError as error:
                problems.add(name, line, f"{error}; give the right --date_order")
                continue
            if message is not None:
                yield Exported(message, name, line, folder, message.sender)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields number and text; of a line without an end, no more than a message may have."""
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        number, start = 1, True
        while piece := lines.readline(MAX_TEXT):
            if start:
                yield number, piece.rstrip("\r\n").translate(_MARKS)
            start = piece.endswith("\n")
            number += start


def _heads(path: Path) -> Iterator[Head]:
    for _, line in _lines(path):
        if match := HEAD.match(line):
            yield Head.of(match)


def _messages(path: Path) -> Iterator[tuple[int, Head, str]]:
    """Yields (line, date and time, the rest) with the lines of a message joined."""
    current: tuple[int, Head] | None = None
    body: list[str] = []
    room = 0
    for number, line in _lines(path):
        if match := HEAD.match(line):
            if current:
                yield *current, "\n".join(body)
            current, body, room = (number, Head.of(match)), [line[match.end() :]], MAX_TEXT
        elif (room := room - len(line) - 1) > 0:
            body.append(line)
    if current:
        yield *current, "\n".join(body)


def _message(chat: str, head: Head, body: str, order: str) -> Message | None:
    sender, colon, text = body.partition(": ")
    if not colon:
        sender, colon, text = body.partition(":\n")
    sender = sender.strip("~\u202f\xa0 ")
    if not colon or "\n" in sender or not sender:
        return None  # a notice of the system: nobody said it
    text = _EDITED.sub("", text.strip())
    sticker = None
    if attached := _ATTACHED.match(text.split("\n", 1)[0].strip()):
        file = (attached["ios"] or attached["android"]).strip()
        if not _STICKER_NAME.search(file):
            return None
        sticker, text = file, ""
    elif STICKER_OMITTED.match(text):
        sticker, text = "(sticker omitted)", ""
    elif not text or _NOTICE.match(text):
        return None
    return Message(chat, None, head.seconds(order), sender, text, sticker)
