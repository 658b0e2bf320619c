"""Dialogues with a chat model, apart from where the model runs.

A dialogue is a generator: it yields the messages so far, receives the model's reply, and returns
what it made of the replies. A ``Session`` drives one and remembers each reply in the store, so a
dialogue that was cut off goes on behind its last reply. Backends only answer messages.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data_prep.extraction import answers
from data_prep.extraction.answers import NoAnswer
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


IN_A_ROW = 5  # so many failures without an answer between them: no other question will fare better

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


class Patience:
    """Ends a run whose questions are not answered: ``IN_A_ROW`` in a row, with no answer between.

    What is wrong with one question alone does not count, once any other has been answered.
    """

    def __init__(self, proven: bool) -> None:
        """Starts.

        Args:
          proven: whether earlier runs have had answers.
        """
        self._proven, self._failed = proven, 0

    def answered(self) -> None:
        """Notes an answer."""
        self._proven, self._failed = True, 0

    def failed(self, session: "Session", failure: NoAnswer, place: str) -> None:
        """Gives a session up.

        Args:
          session: whose ``failure`` is set.
          failure: why.
          place: where the model runs, for the message.

        Raises:
          BackendError: if it is time to end.
        """
        session.failure = failure
        if self._proven and not failure.of_server:
            return
        self._failed += 1
        if self._failed >= IN_A_ROW:
            raise BackendError(
                f"{self._failed} dialogues in a row failed at {place}, the last of them, "
                f"{session.title}, with: {failure}"
            ) from failure


class Session:
    """One dialogue under way.

    Attributes:
      name: of what it is about.
      title: the same for messages.
      pending: the messages that wait for a reply; None once it is finished.
      result: what the dialogue returned.
      failure: why it was given up, or None.
    """

    def __init__(
        self, name: str, title: str, dialogue: Dialogue, store: ResultStore, asked: "Asked"
    ) -> None:
        """Starts the dialogue and goes as far as the store knows the replies."""
        self.name, self.title = name, title
        self.failure: NoAnswer | None = None
        self.result: Any = None
        self._dialogue, self._store, self._asked = dialogue, store, asked
        self.pending: list[Message] | None = next(dialogue)
        self._settle()

    def accept(self, reply: str) -> None:
        """Stores what the model says in its reply to ``pending``, and goes on.

        Raises:
          NoAnswer: if it says nothing; nothing is stored then.
        """
        assert self.pending is not None
        said = self._asked.said(reply)
        self._store.add(
            [(self._asked.key(self.pending), said)],
            model=self._asked.identity,
            prompt=self._asked.prompt,
        )
        self._send(said)
        self._settle()

    def _settle(self) -> None:
        while self.pending is not None:
            key = self._asked.key(self.pending)
            if key not in self._store:
                return
            try:
                said = self._asked.said(self._store[key])
            except NoAnswer:  # of a run that kept what is no answer: it is asked again
                return
            self._send(said)

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
      may_be_silent: whether an empty reply is an answer: a model in this process that ends at once
        has nothing to say, and what a server leaves out cannot be known.
    """

    identity: str
    settings: Mapping[str, Any]
    prompt: str
    may_be_silent: bool = True

    def record(self) -> dict[str, Any]:
        """Returns what dataset.json says of the model."""
        return {"identity": self.identity, **self.settings}

    def said(self, reply: object) -> str:
        """Returns what a reply says; see ``answers.said``."""
        return answers.said(reply, self.may_be_silent)

    def key(self, messages: Sequence[Message]) -> str:
        """Returns the key of the reply to these messages."""
        said = [[m.role, m.text, m.picture.key if m.picture else None] for m in messages]
        return digest_of("reply", self.identity, dict(self.settings), self.prompt, said)
