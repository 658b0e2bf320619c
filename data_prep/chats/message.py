"""One message of a chat, as the steps of the construction hand it on."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.archives import is_noise
from int_ra_jax.common.ledger import LeftOut


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
      chat: id of the chat.
      id: unique in the chat, or None.
      time: seconds; from 1970 as the export writes the local time, and from the chat's first
        message once it is anonymised.
      sender: id of the sender.
      text: what was said; empty where the message is a sticker alone.
      sticker: name of the picture's file among the step's stickers, or None.
      reply_to: id of the message that this one answers, or None.
      intention: name of the annotated intention of the sticker, or None.
      emoji: what the sticker stands for by its maker's word, or None.
    """

    chat: str
    id: str | None
    time: int
    sender: str
    text: str = ""
    sticker: str | None = None
    reply_to: str | None = None
    intention: str | None = None
    emoji: str | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Message":
        """Builds a message from what ``to_json`` gave."""
        return cls(id=record.get("id"), **{k: v for k, v in record.items() if k != "id"})

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object, without the keys that are empty."""
        return {key: value for key, value in vars(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Exported:
    """A message as a reader of an export finds it.

    Attributes:
      message: with ``sticker`` naming a file of the export, relative to ``folder``.
      folder: the folder below which the export's own files lie, relative to the source.
      name: the sender's name as people read it.
      aliases: other names of the sender, by which people may call each other.
      thumbnail: a still picture of the sticker, below ``folder``, for where its own file cannot be
        taken; or None.
    """

    message: Message
    folder: str = "."
    name: str = ""
    aliases: tuple[str, ...] = ()
    thumbnail: str | None = None


@dataclass(frozen=True)
class Record:
    """One record of an export: where it stands, and how it becomes a message.

    A reader yields one for everything that the export's program wrote as a record, a notice as well
    as a message. What becomes of it is decided when ``make`` is called, once, by the ledger: so no
    reader can lose a record without a reason.

    Attributes:
      file: where it stands, relative to the source.
      line: counted from 1.
      make: returns the message, or raises LeftOut with the reason's name (a fixed text: nothing of
        what the record says). Any other ValueError refuses the export.
    """

    file: str
    line: int
    make: Callable[[], Exported]

    @property
    def place(self) -> str:
        """Where it stands, as one text."""
        return f"{self.file}:{self.line}"


class StickerLeftOut(LeftOut):
    """Raised for a record whose sticker is not kept.

    Attributes:
      why: what is wrong with the sticker.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"sticker: {why}")
        self.why = why


@contextlib.contextmanager
def naming(*names: object) -> Iterator[None]:
    """Notes whom a record names if it is left out within: others may speak of them.

    Args:
      *names: those that are no text are passed over.
    """
    try:
        yield
    except LeftOut as reason:
        reason.names += tuple(name for name in names if isinstance(name, str) and name.strip())
        raise


def id_of(value: Any) -> str | None:
    """Returns an id as a string, or None where an export's value is none."""
    known = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if known and value != "" else None


def files_of(source: Path, pattern: str) -> list[Path]:
    """Returns an export's files to read: the source itself, or what the pattern finds in it."""
    if source.is_file():
        return [source]
    found = (path for path in source.glob(pattern) if path.is_file())
    return sorted(path for path in found if not is_noise(path.relative_to(source)))
