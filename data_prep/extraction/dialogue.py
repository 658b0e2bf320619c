"""Dialogues with a chat model, apart from where the model runs.

A dialogue is a generator: it yields the messages so far, receives the model's reply, and returns
what it made of the replies. A ``Session`` drives one and remembers each reply in the store, so a
dialogue that was cut off goes on behind its last reply. Backends only answer messages.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data_prep.extraction.frames import Picture
from data_prep.extraction.store import ResultStore, digest_of


@dataclass(frozen=True)
class Message:
    """One message to or from a model.

    Attributes:
      role: "system", "user" or "assistant".
      text: what is said.
      picture: a sticker shown before the text, or None.
    """

    role: str
    text: str
    picture: Picture | None = None


Dialogue = Generator[list[Message], str, Any]
"""Yields messages, receives replies, returns a result."""


class ChatBackend(Protocol):
    """Where a chat model runs; it answers greedily."""

    def run(self, sessions: Iterable["Session"], done: Callable[["Session"], None]) -> None:
        """Answers sessions that wait for a reply.

        Args:
          sessions: read when there is room for more.
          done: called with each session that has finished or failed.

        Raises:
          BackendError: if it cannot go on.
        """


class BackendError(ValueError):
    """A backend that cannot go on: wrong key, unknown model, a server that is gone."""


class Session:
    """One dialogue under way.

    Attributes:
      name: of what it is about, for messages.
      pending: the messages that wait for a reply; None once it is finished.
      result: what the dialogue returned.
      failure: why it was given up, or "".
      requests: replies that came from the model and not from the store.
    """

    def __init__(self, name: str, dialogue: Dialogue, store: ResultStore, asked: "Asked") -> None:
        """Starts the dialogue and goes as far as the store knows the replies."""
        self.name, self.failure, self.requests = name, "", 0
        self.result: Any = None
        self._dialogue, self._store, self._asked = dialogue, store, asked
        self.pending: list[Message] | None = next(dialogue)
        self._settle()

    def accept(self, reply: str) -> None:
        """Stores the model's reply to ``pending`` and goes on."""
        assert self.pending is not None
        self.requests += 1
        self._store.add(
            [(self._asked.key(self.pending), reply)],
            model=self._asked.identity,
            prompt=self._asked.prompt,
        )
        self._send(reply)
        self._settle()

    def _settle(self) -> None:
        while self.pending is not None:
            key = self._asked.key(self.pending)
            if key not in self._store:
                return
            self._send(self._store[key])

    def _send(self, reply: str) -> None:
        try:
            self.pending = self._dialogue.send(reply)
        except StopIteration as stop:
            self.pending, self.result = None, stop.value


@dataclass(frozen=True)
class Asked:
    """Everything besides the messages that decides a reply.

    Attributes:
      identity: of the model.
      settings: of the backend.
      prompt: hash of the prompt file.
    """

    identity: str
    settings: Mapping[str, Any]
    prompt: str

    def record(self) -> dict[str, Any]:
        """Returns what dataset.json says of the model."""
        return {"identity": self.identity, **self.settings}

    def key(self, messages: Sequence[Message]) -> str:
        """Returns the key of the reply to these messages."""
        said = [[m.role, m.text, m.picture.key if m.picture else None] for m in messages]
        return digest_of("reply", self.identity, dict(self.settings), self.prompt, said)
