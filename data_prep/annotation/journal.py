"""What one annotator decided: a file that only grows, one JSON line an event.

Each event is on the disk before the page says so. What a crash leaves is an unfinished last line at
most: nobody was told that it was saved, so it is reported and cut off. A lock keeps a second
process from writing the same file.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from absl import logging
from filelock import FileLock, Timeout

from data_prep.problems import Problems, short

LABEL, NONE_FITS, SKIP, UNDO = "label", "none_fits", "skip", "undo"
ACTIONS = (LABEL, NONE_FITS, SKIP, UNDO)
SUFFIX = ".jsonl"
_NAME = re.compile(r"\w[\w.-]{0,39}")


class LockedError(ValueError):
    """The file is open in another process."""


@dataclass(frozen=True)
class Event:
    """One thing an annotator did.

    Attributes:
      time: UTC, ISO 8601.
      by: name of the annotator.
      action: one of ``ACTIONS``; an undo takes back the last event that is not undone yet.
      conversation: id of what it was done to.
      intention: the name given; None unless the action is ``LABEL``.
      fits: whether the sticker that was sent fits; None where nobody was asked, as in files from
        before the page asked.
      sticker: id of the one that would fit instead; None where it fits, or none does.
    """

    time: str
    by: str
    action: str
    conversation: str
    intention: str | None = None
    fits: bool | None = None
    sticker: str | None = None


def check_name(name: str) -> str:
    """Returns an annotator's name if it can be a file name everywhere.

    Raises:
      ValueError: if it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{short(name)} cannot be an annotator's name. Use up to 40 letters, digits, '.', '-' "
            "and '_', a letter or digit first."
        )
    return name


def remaining(events: Sequence[Event]) -> list[Event]:
    """Returns the events that no undo took back, oldest first."""
    kept: list[Event] = []
    for event in events:
        if event.action != UNDO:
            kept.append(event)
        elif kept:
            kept.pop()
    return kept


def latest(events: Sequence[Event]) -> dict[str, Event]:
    """Returns what holds for each conversation, in the order in which it came to hold."""
    holding: dict[str, Event] = {}
    for event in remaining(events):
        _hold(holding, event)
    return holding


def _hold(holding: dict[str, Event], event: Event) -> None:
    holding.pop(event.conversation, None)  # a conversation met again goes to the end
    holding[event.conversation] = event


def read_events(path: Path, intentions: Sequence[str]) -> tuple[list[Event], bytes]:
    """Reads a file of events, which another process may be writing.

    Args:
      path: of the file; one that does not exist holds nothing.
      intentions: the names that a label may give.

    Returns:
      The events, and an unfinished last line, empty where there is none.

    Raises:
      BadInputError: once, with every line that is not an event.
    """
    content = path.read_bytes() if path.exists() else b""
    *lines, unfinished = content.split(b"\n")
    problems = Problems(path)
    known = frozenset(intentions)
    events = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():  # of an editor; nothing is lost with it
            continue
        try:
            # Not left to json, which would read UTF-16, and events in UTF-8 would be added to it.
            events.append(_event(json.loads(line.decode("utf-8-sig")), known))
        except (ValueError, RecursionError) as error:
            problems.add(path.name, number, f"not an event: {error}. Repair or remove the line.")
    problems.stop_if_any()
    return events, unfinished


def _event(record: object, intentions: frozenset[str]) -> Event:
    if not isinstance(record, Mapping):
        raise ValueError(f"expected a JSON object, found {short(record)}")
    fields: dict[str, str] = {}
    for name in ("time", "by", "action", "conversation"):
        value = record.get(name)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} is {short(value)}, not a string")
        fields[name] = value
    if fields["action"] not in ACTIONS:
        raise ValueError(f"action is {short(fields['action'])}, not one of {', '.join(ACTIONS)}")
    fits, sticker = _about_sticker(record)
    if fields["action"] != LABEL:
        return Event(**fields, fits=fits, sticker=sticker)
    intention = record.get("intention")
    if not isinstance(intention, str) or intention not in intentions:
        raise ValueError(f"unknown intention {short(intention)}")
    return Event(**fields, intention=intention, fits=fits, sticker=sticker)


def _about_sticker(record: Mapping[str, object]) -> tuple[bool | None, str | None]:
    fits, sticker = record.get("fits"), record.get("sticker")
    if fits is not None and not isinstance(fits, bool):
        raise ValueError(f"fits is {short(fits)}, neither true nor false")
    if sticker is None:
        return fits, None
    if not isinstance(sticker, str) or not sticker:
        raise ValueError(f"sticker is {short(sticker)}, no sticker's id")
    if fits is not False:
        raise ValueError(f"sticker is {short(sticker)}, where another one needs fits: false")
    return fits, sticker


class Journal:
    """One file of events, open for writing by this process alone.

    Attributes:
      path: of the file.
      current: conversation -> the event that holds for it.
    """

    def __init__(self, path: Path, intentions: Sequence[str]) -> None:
        """Takes the lock, reads what there is, and cuts off an unfinished last line.

        Raises:
          LockedError: if another process has the file open.
          BadInputError: if a finished line is not an event.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LockedError(
                f"{path} is open in another process. Close that page's server first, or use "
                "another name."
            ) from None
        try:
            self._events, unfinished = read_events(path, intentions)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except BaseException:
            self._lock.release()
            raise
        self._size = os.fstat(self._file).st_size - len(unfinished)
        if unfinished:
            os.ftruncate(self._file, self._size)
            logging.warning(
                "%s ended in an unfinished line, which a crash leaves; it was cut off: %r",
                path,
                unfinished[:200],
            )
        self.current = latest(self._events)

    def record(
        self,
        by: str,
        action: str,
        conversation: str,
        intention: str | None = None,
        fits: bool | None = None,
        sticker: str | None = None,
    ) -> None:
        """Writes one event, see ``Event``; when this returns it is on the disk.

        Raises:
          OSError: if it could not be written; then nothing of it is in the file.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        event = Event(now, by, action, conversation, intention, fits, sticker)
        fields = {name: value for name, value in asdict(event).items() if value is not None}
        line = json.dumps(fields, ensure_ascii=False).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)
        self._events.append(event)
        if action == UNDO:
            self.current = latest(self._events)
        else:
            _hold(self.current, event)

    def undo(self, by: str) -> Event | None:
        """Takes back the last event that holds.

        Returns:
          What was taken back; None if there is nothing.
        """
        kept = remaining(self._events)
        if not kept:
            return None
        self.record(by, UNDO, kept[-1].conversation)
        return kept[-1]

    def close(self) -> None:
        """Lets another process write the file."""
        os.close(self._file)
        self._lock.release()
