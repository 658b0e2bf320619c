"""Step 4, segment: each chat is cut into segments, and each sticker gets the context before it.

Privacy: times and message ids end here; the result has pseudonyms, texts and stickers only.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from data_prep.chats import step
from data_prep.chats.message import Message


@dataclass(frozen=True)
class Limits:
    """Where a chat is cut.

    Attributes:
      gap: seconds of silence after which something new begins.
      reply: seconds for which a reply still joins the segment of what it answers.
      length: of a segment, in messages; a longer one is cut at its longest silence.
    """

    gap: int = 30 * 60
    reply: int = 24 * 3600
    length: int = 40

    def __post_init__(self) -> None:
        """Refuses limits that make no segment.

        Raises:
          ValueError: if one is too small.
        """
        if self.gap < 1 or self.reply < 0 or self.length < 2:
            raise ValueError(f"{self}: gap of 1 s, reply of 0 s, length of 2 messages at least")


@dataclass
class _Open:
    """A segment to which messages may still come."""

    messages: list[Message] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.messages[-1].time


def segment(source: Path, out: Path, limits: Limits | None = None) -> step.Counts:
    """Cuts the chats and takes the context of each sticker.

    Args:
      source: the result of the step filter_offensive.
      out: the step's directory.
      limits: where to cut; None takes the defaults.

    Returns:
      What was counted: segments, contexts, stickers without a context.
    """
    limits = limits or Limits()
    counts: Counter[str] = Counter(segments=0, contexts=0, without_context=0)

    def rows() -> Iterator[dict[str, Any]]:
        messages = step.read_messages(source, "segmenting")
        for _, chat in groupby(messages, key=lambda message: message.chat):
            for number, part in enumerate(segments(chat, limits)):
                counts["segments"] += 1
                yield from contexts(part, number, counts)

    def work(building: Path) -> step.Counts:
        step.write_lines(building, step.CONTEXTS_FILE, rows())
        step.pass_on(source, building)
        return dict(counts)

    identity = step.identity(source, "segment")
    return step.run_step("segment", identity, out, vars(limits), work)


def segments(messages: Iterable[Message], limits: Limits) -> Iterator[list[Message]]:
    """Cuts one chat; every message comes out in exactly one segment.

    A message that answers another joins that one's segment; any other joins the segment of the
    message before it, unless the silence was too long. Segments that nothing can join any more are
    given out at once, so that memory holds the chat's last ``limits.reply`` seconds only.

    Args:
      messages: of one chat, in the order of time.
      limits: where to cut.
    """
    waiting: deque[_Open] = deque()
    home: dict[str, _Open] = {}
    current: _Open | None = None
    for message in messages:
        while waiting and message.time - waiting[0].last > max(limits.reply, limits.gap):
            closed = waiting.popleft()
            for one in closed.messages:
                home.pop(one.id or "", None)
            yield closed.messages
        answered = home.get(message.reply_to or "")
        if answered and message.time - answered.last <= limits.reply:
            current = answered
        elif current is None or message.time - current.last > limits.gap:
            current = _Open()
        if current in waiting:
            waiting.remove(current)
        waiting.append(current)  # the one that spoke last stands last
        current.messages.append(message)
        if message.id:
            home[message.id] = current
        if len(current.messages) > limits.length:
            yield _cut(current, home)
    yield from (one.messages for one in waiting)


def _cut(one: _Open, home: dict[str, _Open]) -> list[Message]:
    """Takes the older part off a segment that is too long, at the longest silence of its end."""
    messages = one.messages
    places = range(len(messages) // 2, len(messages))
    place = max(places, key=lambda i: messages[i].time - messages[i - 1].time)
    older, one.messages = messages[:place], messages[place:]
    for message in older:
        home.pop(message.id or "", None)
    return older


def contexts(
    messages: list[Message], number: int, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yields each sticker of a segment with the turns before it.

    Words that the replier sent directly before the sticker, or with it, are the last turn: the case
    "supplement". A sticker needs words before it, and a turn of somebody else.

    Args:
      messages: of one segment, in the order of time.
      number: of the segment in its chat.
      counts: changed in place.
    """
    digest = hashlib.sha256(f"{messages[0].chat}\0{number}".encode()).hexdigest()[:16]
    turns: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        before = list(turns)
        if message.text:
            before.append({"speaker": message.sender, "text": message.text})
        if message.sticker:
            others = any(turn["speaker"] != message.sender for turn in before)
            if others and any(turn["text"] for turn in before):
                own = before[-1]["speaker"] == message.sender and before[-1]["text"]
                counts["contexts"] += 1
                yield {
                    "id": f"{digest}_{place:03d}",
                    "segment": digest,
                    "turns": before,
                    "reply_speaker": message.sender,
                    "sticker": message.sticker,
                    "intention": message.intention or step.UNLABELLED,
                    "case": "supplement" if own else "alone",
                    "emoji": message.emoji,
                }
            else:
                counts["without_context"] += 1
        turn: dict[str, Any] = {"speaker": message.sender, "text": message.text}
        if message.sticker:
            turn["sticker"] = message.sticker
        turns.append(turn)
