"""What the two extraction commands share: flags, the directory in and out, and how runs end."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from data_prep.extraction import device as devices
from data_prep.extraction.dialogue import Asked, BackendError, ChatBackend, Session
from data_prep.extraction.endpoint import Endpoint, EndpointChat
from data_prep.extraction.in_process import InProcessChat
from data_prep.extraction.prompts import Prompt
from data_prep.extraction.store import ALL, Shard, model_identity
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
    """

    directory: Path
    out: Path
    cache: Path
    shard: Shard = ALL
    merge: bool = False
    overwrite: bool = False

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
        return Asked(identity, {"length": self.length}, prompt.sha256)

    def answer(
        self, sessions: Iterable[Session], done: Callable[[Session], None], *, sees: bool, ask: bool
    ) -> None:
        """Answers sessions; the model is loaded if there is one that the store cannot finish.

        Args:
          sessions: read one after the other, as there is room.
          done: called with each session: finished, failed, or still waiting if not asked.
          sees: for a model that is shown pictures.
          ask: False leaves it at what the store knows.
        """

        def unfinished() -> Iterator[Session]:
            for session in sessions:
                if session.pending is None or not ask:
                    done(session)
                else:
                    yield session

        waiting = unfinished()
        for first in waiting:
            self._open(sees).run(chain([first], waiting), done)

    def _open(self, sees: bool) -> ChatBackend:
        if self.endpoint is not None:
            return EndpointChat(self.endpoint)
        return InProcessChat(
            devices.model_directory(self.model),
            sees=sees,
            wanted_device=self.device,
            batch_size=self.batch_size,
            length=self.length,
        )


class UnansweredError(RuntimeError):
    """Some of the work got no answer; what was answered is kept."""


def check_complete(missing: int, total: int, unit: str, work: Work) -> None:
    """Ends a run that may not write yet.

    Raises:
      UnansweredError: if anything is missing.
    """
    if missing:
        advice = (
            "Run the shards that are not done, and copy their files there"
            if work.merge
            else "Run the same command again: what was answered is not asked again"
        )
        raise UnansweredError(
            f"{missing} of {total} {unit} have no answer in {work.cache}; nothing was written. "
            f"{advice}."
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


def define_flags(name: str, length: int) -> None:
    """Defines the flags that both commands have.

    Called when a command runs and not when it is imported: flags are global, and two modules that
    define the same one cannot be imported together.

    Args:
      name: of what is extracted, for the names of the default files.
      length: default of --max_tokens.
    """
    flags.DEFINE_string("model", None, "Directory or hub name; at an endpoint, its name there.")
    flags.DEFINE_string("out", None, f"New prepared directory. Default: DIR-{name}.")
    flags.DEFINE_string("cache", None, "Folder of the results. Default: DIR-extraction.")
    flags.DEFINE_string("shard", "1/1", "i/n: do the i-th of n parts and write no directory.")
    flags.DEFINE_boolean("merge", False, "Ask nothing; write --out from the results of all parts.")
    flags.DEFINE_boolean("overwrite", False, f"Replace {name} that DIR has.")
    flags.DEFINE_string("prompt", None, "Prompt file to use in place of the package's.")
    flags.DEFINE_string("device", "auto", "Where the model runs: auto, cpu, cuda:1, mps.")
    flags.DEFINE_integer("batch_size", 8, "At a time, in this process.", lower_bound=1)
    flags.DEFINE_integer("max_tokens", length, "Of one answer, at most.", lower_bound=1)
    flags.DEFINE_string("language", "", "Of the answers, by name: Chinese.")
    flags.DEFINE_string("endpoint", None, "Base URL of an OpenAI-compatible server: .../v1.")
    flags.DEFINE_string("api_key_env", "OPENAI_API_KEY", "Variable that holds the server's key.")
    flags.DEFINE_integer("concurrency", 8, "Requests at a time, at an endpoint.", lower_bound=1)
    flags.DEFINE_integer("retries", 5, "Of one request, at an endpoint.", lower_bound=0)
    flags.DEFINE_float("timeout_s", 120.0, "Of one request, at an endpoint.", lower_bound=0.001)


def work_of(argv: list[str], name: str) -> Work:
    """Returns the work that the command line names."""
    if len(argv) != 2:
        raise app.UsageError("Name one prepared directory.")
    directory, values = Path(argv[1]), flags.FLAGS
    return Work(
        directory=directory,
        out=Path(values.out) if values.out else directory.with_name(f"{directory.name}-{name}"),
        cache=Path(values.cache or directory.with_name(f"{directory.name}-extraction")),
        shard=Shard.parse(values.shard),
        merge=values.merge,
        overwrite=values.overwrite,
    )


def chat_of() -> Chat:
    """Returns the chat model that the command line names.

    Raises:
      ValueError: if none is named.
    """
    values = flags.FLAGS
    if not values.model:
        raise ValueError("name a model: --model=PATH_OR_NAME")
    endpoint = values.endpoint and Endpoint(
        url=values.endpoint,
        model=values.model,
        key_variable=values.api_key_env,
        concurrency=values.concurrency,
        retries=values.retries,
        timeout_s=values.timeout_s,
        length=values.max_tokens,
    )
    return Chat(values.model, endpoint or None, values.device, values.batch_size, values.max_tokens)


def prompt_path() -> Path | None:
    """Returns the prompt file that the command line names, if any."""
    return Path(flags.FLAGS.prompt) if flags.FLAGS.prompt else None


def ending(act: Callable[[], None]) -> None:
    """Runs a command; what a user can repair becomes one message and exit status 1."""
    try:
        act()
    except (ValueError, OSError, UnansweredError, BackendError, RuntimeError) as error:
        sys.exit(f"error: {error}")
