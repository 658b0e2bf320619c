"""Reads the neutral form: JSON lines ``{chat, time, sender, text?, sticker?, id?, reply_to?}``.

For chats of any other program: write one such object per message. ``sticker`` names a picture
beside the file, ``intention`` its annotation, ``time`` is ISO 8601 or seconds since 1970.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_prep.chats.message import Exported, Message, files_of
from data_prep.problems import Problems

FILES = "*.jsonl"
MAX_LINE = 2**20
_OPTIONAL = ("text", "sticker", "intention")


def read(source: Path, problems: Problems) -> Iterator[Exported]:
    """Yields the messages in the order of the files; what is wrong becomes problems."""
    for path in files_of(source, FILES):
        with path.open("rb") as lines:
            number = 0
            while line := lines.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    problems.add(path.name, number, f"line of more than {MAX_LINE:,} bytes")
                    while line and not line.endswith(b"\n"):
                        line = lines.readline(MAX_LINE)
                    continue
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.decode("utf-8-sig"))
                    json.dumps(record, ensure_ascii=False).encode()
                    yield Exported(_message(record), path.name, number, name=record["sender"])
                except (ValueError, RecursionError) as error:
                    problems.add(path.name, number, f"{error}; write one message per line")


def _message(record: Any) -> Message:
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, found {str(record)[:40]!r}")
    for key in ("chat", "sender", *_OPTIONAL):
        value = record.get(key)
        wanted = key in ("chat", "sender") or value is not None
        if wanted and not (isinstance(value, str) and (value.strip() or key == "text")):
            raise ValueError(f"{key} is {str(value)[:40]!r}, expected a string that is not empty")
    if not (record.get("text") or record.get("sticker")):
        raise ValueError("the message has neither text nor sticker")
    for key in ("id", "reply_to"):
        if not isinstance(record.get(key), str | int | None):
            raise ValueError(f"{key} is {str(record[key])[:40]!r}, expected a string or a number")
    return Message(
        chat=record["chat"],
        id=_text(record.get("id")),
        time=seconds(record.get("time")),
        sender=record["sender"],
        text=(record.get("text") or "").strip(),
        sticker=record.get("sticker"),
        reply_to=_text(record.get("reply_to")),
        intention=record.get("intention"),
    )


def seconds(time: Any) -> int:
    """Returns a point of time as seconds since 1970; without a zone it is taken as UTC.

    Raises:
      ValueError: if it is neither a number nor ISO 8601.
    """
    if isinstance(time, int | float) and not isinstance(time, bool) and abs(time) < 1e11:
        return int(time)
    try:
        moment = datetime.fromisoformat(time)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"time is {str(time)[:40]!r}, expected ISO 8601 or seconds since 1970"
        ) from error
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)
