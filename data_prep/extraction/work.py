"""What both extractions share: the directory in and out, and the chat model that is asked."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from data_prep.extraction import device as devices
from data_prep.extraction.answers import NoAnswer
from data_prep.extraction.dialogue import (
    Asked,
    BackendError,
    ChatBackend,
    Dialogue,
    Session,
)
from data_prep.extraction.endpoint import Endpoint, EndpointChat
from data_prep.extraction.in_process import InProcessChat
from data_prep.extraction.prompts import Prompt
from data_prep.extraction.store import ALL, ResultStore, Shard, model_identity
from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, PreparedDirectory, StickerEntry


@dataclass(frozen=True)
class Work:
    """Which part of which directory is to be done, and where the results go.

    Attributes:
      directory: a prepared directory; it is never changed.
      out: the new prepared directory.
      cache: folder of the result files.
      shard: this machine's part.
      merge: ask nothing; write ``out`` from the results of all shards.
      overwrite: do also what already has knowledge or attributes.
      leave_unanswered: write ``out`` although something has no answer; it stays as it was.
    """

    directory: Path
    out: Path
    cache: Path
    shard: Shard = ALL
    merge: bool = False
    overwrite: bool = False
    leave_unanswered: bool = False

    def __post_init__(self) -> None:
        """Refuses at the start what could only fail at the end.

        Raises:
          FileExistsError: if ``out`` holds anything.
          ValueError: if ``merge`` is given together with a shard.
        """
        if self.merge and self.shard.count > 1:
            raise ValueError("--merge joins the results of all shards; give no --shard with it")
        if self.writes and self.out.exists() and any(self.out.iterdir()):
            raise FileExistsError(f"{self.out} is not empty. Give a new --out or remove it.")

    @property
    def writes(self) -> bool:
        """Whether this run writes the new directory; one shard of several does not."""
        return self.shard.count == 1


@dataclass(frozen=True)
class Chat:
    """Which chat model to ask, and where it runs.

    Attributes:
      model: path or hub name; at an endpoint, the server's name for it.
      endpoint: of the server; None for this process.
      device: for this process: "auto" or one of torch's.
      batch_size: for this process: dialogues at a time.
      length: tokens of a reply, at most.
    """

    model: str
    endpoint: Endpoint | None = None
    device: str = "auto"
    batch_size: int = 8
    length: int = 256

    def asked(self, prompt: Prompt) -> Asked:
        """Returns what decides this model's replies, without loading it.

        At an endpoint the identity is the name; what it stands for is the server's matter.
        """
        identity = (
            f"endpoint:{self.model}"
            if self.endpoint
            else model_identity(devices.model_directory(self.model))
        )
        settings = {"length": self.length}
        return Asked(identity, settings, prompt.sha256, may_be_silent=self.endpoint is None)

    def results(
        self,
        prompt: Prompt,
        dialogues: Iterable[tuple[str, Dialogue]],
        titles: Mapping[str, str],
        store: ResultStore,
        *,
        sees: bool,
        ask: bool,
    ) -> "Answers":
        """Leads dialogues; the model is loaded if there is one that the store cannot finish.

        Args:
          prompt: what the dialogues are made of.
          dialogues: pairs of a name and a dialogue, made as there is room for them.
          titles: name -> what a warning calls it, for every dialogue.
          store: of earlier replies; new ones are added.
          sees: for a model that is shown pictures.
          ask: False leaves it at what the store knows.

        Returns:
          What came of the dialogues; one that still waits for a reply is in neither half.
        """
        asked, answers = self.asked(prompt), Answers({}, {})

        def done(session: Session) -> None:
            if session.failure:
                logging.warning("%s: %s", session.title, session.failure)
                answers.failed[session.name] = session.failure
            elif session.pending is None:
                answers.found[session.name] = session.result
            bar.update()

        def unfinished() -> Iterator[Session]:
            for name, dialogue in dialogues:
                session = Session(name, titles[name], dialogue, store, asked)
                if session.pending is None or not ask:
                    done(session)
                else:
                    yield session

        waiting = unfinished()
        with tqdm(total=len(titles), desc="asking", unit="dialogue", mininterval=1) as bar:
            try:
                for first in waiting:
                    self._open(sees, len(store) > 0).run(chain([first], waiting), done)
            except BackendError as error:
                return replace(answers, ended=error)
        return answers

    def _open(self, sees: bool, proven: bool) -> ChatBackend:
        if self.endpoint is not None:
            return EndpointChat(self.endpoint, proven)
        return InProcessChat(
            devices.model_directory(self.model),
            sees=sees,
            wanted_device=self.device,
            batch_size=self.batch_size,
            length=self.length,
            proven=proven,
        )


@dataclass(frozen=True)
class Answers:
    """What came of dialogues.

    Attributes:
      found: name -> result.
      failed: name -> why there is none.
      ended: why the run ended before all were asked, or None.
    """

    found: dict[str, Any]
    failed: dict[str, NoAnswer]
    ended: BackendError | None = None


class UnansweredError(ValueError):
    """Some of the work got no answer; what was answered is kept."""


def unanswered(failed: Mapping[str, NoAnswer], name: str) -> LeftOut:
    """Returns why something has no answer, for the ledger."""
    return LeftOut(failed[name].reason if name in failed else "not asked")


def check_complete(
    missing: int, unit: str, work: Work, ledger: Ledger, ended: BackendError | None = None
) -> None:
    """Ends a run that may not write yet.

    Args:
      missing: how many have no answer.
      unit: what they are.
      work: what is done.
      ledger: what became of each.
      ended: why the run ended before its end, or None.

    Raises:
      BackendError: if it ended so.
      UnansweredError: if anything is missing that is not to be left.
    """
    if ended is not None:
        raise BackendError(f"{ended}\n{ledger}") from ended
    if not missing or work.leave_unanswered:
        return
    advice = (
        "Run the shards that are not done, and copy their files there"
        if work.merge
        else "Run the same command again: what was answered is not asked again"
    )
    raise UnansweredError(
        f"{missing} of {ledger.records_in} {unit} have no answer in {work.cache}; nothing was "
        f"written. {advice}. With --leave_unanswered they are left as they are.\n{ledger}"
    )


def write(
    work: Work,
    prepared: PreparedDirectory,
    conversations: list[Conversation],
    stickers: list[StickerEntry],
    name: str,
    record: Mapping[str, Any],
) -> None:
    """Writes the new directory; dataset.json tells how ``name`` was extracted."""
    info = dict(prepared.info)
    info["extraction"] = dict(info.get("extraction") or {}) | {name: dict(record)}
    if name in info:  # the embedded data set says whether it has knowledge
        info[name] = True
    pictures = {s.image: schema.confined(prepared.path, s.image) for s in prepared.stickers}
    schema.write_prepared(work.out, conversations, stickers, prepared.intentions, info, pictures)
    logging.info("%s: content hash %s", work.out, schema.content_hash(work.out))
