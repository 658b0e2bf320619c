"""Who works on what: the state behind the page, without any of its looks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from data_prep.annotation import workspace
from data_prep.annotation.decisions import by_conversation, disagreements
from data_prep.annotation.journal import SKIP, Event, Journal, check_name
from data_prep.annotation.similar import Similar
from data_prep.annotation.workspace import Settings, Vote
from int_ra_jax.data.schema import Conversation, PreparedDirectory


@dataclass
class Session:
    """One person at one kind of work: giving intentions, or settling disagreements.

    Attributes:
      by: name of the person.
      journal: where the decisions go.
      open: returns the conversations that are to be decided, in order, skipped ones last.
      votes: returns what others said of a conversation, to be shown; nothing while annotating.
      sticker_votes: likewise which sticker they found to fit.
    """

    by: str
    journal: Journal
    open: Callable[[], Sequence[str]]
    votes: Callable[[str], Mapping[str, Vote]] = lambda one: {}
    sticker_votes: Callable[[str], Mapping[str, Vote]] = lambda one: {}

    def decided(self) -> int:
        """Returns how many conversations the journal decides."""
        return len(workspace.votes_in(self.journal.current))

    def skipped(self) -> int:
        """Returns how many wait to be looked at again."""
        return sum(event.action == SKIP for event in self.journal.current.values())

    def act(
        self,
        action: str,
        conversation: str,
        intention: str | None = None,
        fits: bool | None = None,
        sticker: str | None = None,
    ) -> None:
        """Writes a decision, see ``journal.Event``; when this returns it is on the disk."""
        self.journal.record(self.by, action, conversation, intention, fits, sticker)

    def undo(self) -> Event | None:
        """Takes the last decision back and returns it; None if there is none."""
        return self.journal.undo(self.by)


@dataclass
class Project:
    """All sessions of one server: it opens each file once, whoever asks and however often.

    Attributes:
      prepared: what is annotated.
      workdir: directory of the annotation.
      settings: of the annotation.
      only: the only annotator served, or None for any.
    """

    prepared: PreparedDirectory
    workdir: Path
    settings: Settings
    only: str | None = None
    _journals: dict[Path, Journal] = field(default_factory=dict)
    _elsewhere: dict[str, dict[str, Vote]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        members = workspace.conversations_of(self.prepared, self.settings.split)
        self.conversations: dict[str, Conversation] = {one.id: one for one in members}
        ids = list(self.conversations)
        self._shared = frozenset(workspace.shared_ids(ids, self.settings.overlap))
        self.pictures = {one.id: n for n, one in enumerate(self.prepared.stickers)}

    @cached_property
    def similar(self) -> Similar:
        """The gallery's words, by which another sticker is found."""
        return Similar(self.prepared.stickers)

    def annotator(self, name: str) -> Session:
        """Opens the session of an annotator.

        Raises:
          LockedError: if another process writes this annotator's file.
          BadInputError: if the file is damaged.
          ValueError: if the name cannot be one, or is not the one served.
        """
        if self.only not in (None, name):
            raise ValueError(f"this page is {self.only}'s alone")
        journal = self._journal(workspace.annotator_file(self.workdir, check_name(name)))
        votes = workspace.read_votes(self.workdir, self.settings).intentions
        self._elsewhere = {other: given for other, given in votes.items() if other != name}
        order = workspace.order_for(name, list(self.conversations), self.settings.overlap)
        return Session(name, journal, lambda: self._open(name, journal, order))

    def adjudicator(self, name: str) -> Session:
        """Opens the one session for disagreements; who decides is noted with each decision.

        Raises:
          LockedError, BadInputError, ValueError: as ``annotator``.
        """
        journal = self._journal(self.workdir / workspace.ADJUDICATION_FILE)
        said = workspace.read_votes(self.workdir, self.settings)
        votes, stickers = by_conversation(said.intentions), by_conversation(said.stickers)
        disputed = [one for one in disagreements(said) if one in self.conversations]
        return Session(
            check_name(name),
            journal,
            lambda: _skipped_last(disputed, journal),
            lambda one: votes.get(one, {}),
            lambda one: stickers.get(one, {}),
        )

    def names(self) -> list[str]:
        """Returns the annotators that have a file."""
        return sorted(workspace.read_votes(self.workdir, self.settings).intentions)

    def close(self) -> None:
        """Releases every file."""
        for journal in self._journals.values():
            journal.close()
        self._journals.clear()

    def _journal(self, path: Path) -> Journal:
        if path not in self._journals:
            self._journals[path] = Journal(path, self.settings.intentions)
        return self._journals[path]

    def _open(self, name: str, journal: Journal, order: Sequence[str]) -> list[str]:
        """What is not shared is decided by one person: whoever comes to it first."""
        elsewhere = dict(self._elsewhere)
        for path, other in self._journals.items():
            if other is not journal and path.parent.name == workspace.ANNOTATORS:
                elsewhere[path.stem] = workspace.votes_in(other.current)
        taken = set().union(*elsewhere.values()) - self._shared
        return [one for one in _skipped_last(order, journal) if one not in taken]


def _skipped_last(order: Sequence[str], journal: Journal) -> list[str]:
    current = journal.current
    wanted = set(order)
    skipped = [one for one, event in current.items() if event.action == SKIP and one in wanted]
    return [one for one in order if one not in current] + skipped
