"""Reads the neutral form: JSON lines ``{chat, time, sender, text?, sticker?, id?, reply_to?}``.

For chats of any other program: write one such object per message. ``sticker`` names a picture
beside the file, ``intention`` its annotation, ``time`` is ISO 8601 or seconds since 1970.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.chats.message import Exported, Message, Record, files_of
from data_prep.problems import Problems
from int_ra_jax.common.ledger import LeftOut

FILES = "*.jsonl"
# The form is written for this import, so whoever wrote a wrong line can mend it.
STRICT = True
MAX_LINE = 2**20
_MAX_MILLISECONDS = 1e14
_OPTIONAL = ("text", "sticker", "intention")


def read(source: Path, problems: Problems) -> Iterator[Record]:
    """Yields a record for each line, in the order of the files; what is no line becomes a problem.

    Args:
      source: a file, or the folder of all.
      problems: collects what is wrong with a file.
    """
    for path in files_of(source, FILES):
        with path.open("rb") as lines:
            number = 0
            while line := lines.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    problems.add(path.name, number, f"line of more than {MAX_LINE:,} bytes")
                    while line and not line.endswith(b"\n"):
                        line = lines.readline(MAX_LINE)
                elif line.strip():
                    yield Record(path.name, number, partial(_exported, line))


def hint(folder: Path) -> str:
    """Returns what to do where there is nothing to read."""
    return "Write one JSON object per message (docs/construction.md)."


def _exported(line: bytes) -> Exported:
    try:
        record = json.loads(line.decode("utf-8-sig"))
        json.dumps(record, ensure_ascii=False).encode()
        message = _message(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{error}; write one message per line") from error
    if not (message.text or message.sticker):
        raise LeftOut("text of blanks alone")
    return Exported(message, name=message.sender)


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
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"time is {str(time)[:40]!r}, expected ISO 8601 or seconds since 1970"
        ) from error


def moment(stamp: Any) -> int:
    """Returns a point of time of an export as seconds since 1970.

    Args:
      stamp: ISO 8601, seconds, or milliseconds, which some exporters write; numbers may be strings.

    Raises:
      LeftOut: if it is none of these.
    """
    if isinstance(stamp, str) and stamp.strip().isdecimal() and len(stamp) < 15:
        stamp = int(stamp)
    is_number = isinstance(stamp, int | float) and not isinstance(stamp, bool)
    if is_number and 1e11 <= stamp < _MAX_MILLISECONDS:
        stamp = stamp / 1000
    try:
        return seconds(stamp)
    except ValueError as error:
        raise LeftOut("time of an unknown form") from error


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)
