"""Infers knowledge for the conversations of a prepared directory: equations 1 and 2."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from absl import logging
from tqdm import tqdm

from data_prep.extraction import device as devices
from data_prep.extraction import seq2seq
from data_prep.extraction.answers import NoAnswer
from data_prep.extraction.dialogue import BackendError
from data_prep.extraction.knowledge import clean_knowledge, knowledge_dialogue, letter
from data_prep.extraction.prompts import Prompt
from data_prep.extraction.retrieved import FromHeads
from data_prep.extraction.store import ResultStore, digest_of, model_identity
from data_prep.extraction.work import Chat, Work, check_complete, unanswered, write
from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.common.types import RELATIONS
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation
from int_ra_jax.data.validation import read_prepared

KIND = "knowledge"
_GROUP = 16  # batches between two looks at the disk
Raw = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class FromComet:
    """COMET-BART in this process, behind a translator where the chats are not English.

    Attributes:
      model: path or hub name.
      prompt: the file ``comet``.
      translate: path or hub name of a translator into English; None for English chats.
      source_language: the translator's code of the chats' language.
      beams: of the search.
      returned: phrases for each relation before cleaning.
      length: tokens of a phrase, at most.
      context_tokens: budget of the chat in the prompt.
      batch_size: prompts at a time.
      device: "auto" or one of torch's.
    """

    model: str
    prompt: Prompt
    translate: str | None = None
    source_language: str = ""
    beams: int = 5
    returned: int = 5
    length: int = 24
    context_tokens: int = 256
    batch_size: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        """Checks what the search would refuse.

        Raises:
          ValueError: if more phrases are wanted than there are beams.
        """
        if self.returned > self.beams:
            raise ValueError(f"--returned={self.returned} needs at least as many --beams")

    def settings(self) -> dict[str, Any]:
        """Returns what decides the phrases besides model and prompt."""
        translator = self.translate and model_identity(devices.model_directory(self.translate))
        return {
            "beams": self.beams,
            "returned": self.returned,
            "length": self.length,
            "context_tokens": self.context_tokens,
            "translator": translator or None,
            "source_language": self.source_language,
        }

    def record(self) -> dict[str, Any]:
        """Returns what dataset.json says of the source."""
        identity = model_identity(devices.model_directory(self.model))
        return {
            "generator": "comet",
            "model_name": self.model,
            "identity": identity,
            "prompt": self.prompt.record(),
            **self.settings(),
        }

    def answers(
        self, todo: Mapping[str, Conversation], store: ResultStore, ask: bool
    ) -> Iterator[tuple[str, Raw | None]]:
        """Yields (content, raw phrases); None for an answer that cannot be used.

        Args:
          todo: conversations by content; what gets no answer is not yielded.
          store: of earlier answers; new ones are added.
          ask: False leaves it at the store.
        """
        directory = devices.model_directory(self.model)
        identity, settings = model_identity(directory), self.settings()
        keys = {
            content: digest_of("comet", identity, self.prompt.sha256, settings, content)
            for content in todo
        }
        waiting = [content for content, key in keys.items() if key not in store]
        yield from ((content, store[key]) for content, key in keys.items() if key in store)
        if not waiting or not ask:
            return
        waiting = _longest_first(waiting, todo)
        comet, translator = self._load()
        size = max(1, self.batch_size * _GROUP // len(RELATIONS))
        with tqdm(total=len(waiting), desc="inferring", unit="conversation", mininterval=1) as bar:
            for start in range(0, len(waiting), size):
                group = waiting[start : start + size]
                contexts = [[turn.text for turn in todo[content].turns] for content in group]
                if translator:
                    contexts = self._translated(contexts, translator)
                found = comet(contexts, self.batch_size)
                store.add(
                    [(keys[content], raw) for content, raw in zip(group, found, strict=True)],
                    model=identity,
                    prompt=self.prompt.sha256,
                )
                bar.update(len(group))
                yield from zip(group, found, strict=True)

    def _load(self) -> tuple[seq2seq.Comet, seq2seq.Translator | None]:
        directory = devices.model_directory(self.model)
        comet = seq2seq.Comet(
            seq2seq.Seq2Seq(directory, self.device, "BartForConditionalGeneration"),
            self.prompt.parts["template"],
            RELATIONS,
            beams=self.beams,
            returned=self.returned,
            length=self.length,
            context_tokens=self.context_tokens,
        )
        if not self.translate:
            return comet, None
        directory = devices.model_directory(self.translate)
        return comet, seq2seq.Translator(directory, self.device, self.source_language)

    def _translated(
        self, contexts: Sequence[Sequence[str]], translator: seq2seq.Translator
    ) -> list[list[str]]:
        flat = iter(translator([t for context in contexts for t in context], self.batch_size))
        return [[next(flat) for _ in context] for context in contexts]


@dataclass(frozen=True)
class FromChat:
    """A chat model, asked for the five relations in the language of the chat.

    Attributes:
      chat: the model, and where it runs.
      prompt: the file ``knowledge``.
      language: to answer in, by name; "" for the chat's own.
    """

    chat: Chat
    prompt: Prompt
    language: str = ""

    def record(self) -> dict[str, Any]:
        """Returns what dataset.json says of the source."""
        return {
            "generator": "llm",
            "model_name": self.chat.model,
            **self.chat.asked(self.prompt).record(),
            "prompt": self.prompt.record(),
            "language": self.language,
        }

    def answers(
        self, todo: Mapping[str, Conversation], store: ResultStore, ask: bool
    ) -> Iterator[tuple[str, Raw | NoAnswer | None]]:
        """Yields raw phrases, as ``FromComet.answers`` does, or why there are none.

        Raises:
          BackendError: at the end, if not all could be asked.
        """
        dialogues = (
            (content, knowledge_dialogue(self.prompt, todo[content], self.language))
            for content in _longest_first(todo, todo)
        )
        titles = {content: one.id for content, one in todo.items()}
        came = self.chat.results(self.prompt, dialogues, titles, store, sees=False, ask=ask)
        yield from came.found.items()
        yield from came.failed.items()
        if came.ended is not None:
            raise came.ended


Source = FromComet | FromChat | FromHeads  # what knowledge is inferred by


def _longest_first(contents: Iterable[str], todo: Mapping[str, Conversation]) -> list[str]:
    """Like lengths together; the longest first, so that memory runs out at once or never."""
    return sorted(contents, key=lambda one: -sum(len(turn.text) for turn in todo[one].turns))


def content_of(conversation: Conversation) -> str:
    """Returns a hash of what was said and in which roles; names and ids do not count."""
    letters: dict[str, str] = {}
    for turn in conversation.turns:
        letters.setdefault(turn.speaker, letter(len(letters)))
    turns = [[letters[turn.speaker], turn.text] for turn in conversation.turns]
    return digest_of(turns, letters.get(conversation.reply_speaker, "new"))


def extract(work: Work, source: Source, keep: int = 3) -> dict[str, int]:
    """Infers knowledge and writes the new directory, or does one shard's part.

    Args:
      work: what is to be done, and where results go.
      source: what infers.
      keep: phrases of a relation after cleaning, at most.

    Returns:
      Counts, as in dataset.json.

    Raises:
      PreparedDataError: if the directory is not valid.
      UnansweredError: if something got no answer; nothing is written then.
    """
    prepared = read_prepared(work.directory)
    conversations = [one for split in schema.SPLITS for one in prepared.conversations[split]]
    contents = {
        one.id: content_of(one) for one in conversations if work.overwrite or one.knowledge is None
    }
    todo = {
        contents[one.id]: one
        for one in conversations
        if one.id in contents and work.shard.owns(contents[one.id])
    }
    counts: Counter[str] = Counter(
        conversations=len(conversations), kept=len(conversations) - len(contents), unusable=0
    )
    with ResultStore(work.cache, KIND, work.shard) as store:
        came = _Came.of(source, todo, store, keep, ask=not work.merge)
    counts["unusable"] = len(came.unusable)
    ledger = Ledger()
    for one in conversations:
        if one.id in contents and work.shard.owns(contents[one.id]):
            ledger.judge(one.id, partial(came.phrases, contents[one.id]))
    missing = sum(
        work.shard.owns(content) and content not in came.found for content in contents.values()
    )
    check_complete(missing, "conversations", work, ledger, came.ended)
    counts["phrases"] = sum(len(one) for known in came.found.values() for one in known.values())
    logging.info("knowledge: %s; %s", dict(counts), ledger)
    if not work.writes:
        logging.info("shard %d/%d is done", work.shard.index, work.shard.count)
        return dict(counts)
    completed = [
        replace(one, knowledge=came.found.get(contents[one.id], one.knowledge))
        if one.id in contents
        else one
        for one in conversations
    ]
    record = source.record() | {"keep": keep, "counts": dict(counts), "ledger": ledger.to_json()}
    write(work, prepared, completed, list(prepared.stickers), KIND, record)
    return dict(counts)


@dataclass(frozen=True)
class _Came:
    """What came of conversations, by content.

    Attributes:
      found: clean phrases by relation.
      unusable: what was answered otherwise than asked, twice; no phrases are found.
      failed: why there is no answer.
      ended: why the run ended before all were asked, or None.
    """

    found: dict[str, dict[str, tuple[str, ...]]]
    unusable: set[str]
    failed: dict[str, NoAnswer]
    ended: BackendError | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        todo: Mapping[str, Conversation],
        store: ResultStore,
        keep: int,
        ask: bool,
    ) -> "_Came":
        came = cls({}, set(), {})
        try:
            for content, raw in source.answers(todo, store, ask=ask):
                if isinstance(raw, NoAnswer):
                    came.failed[content] = raw
                    continue
                if raw is None:
                    came.unusable.add(content)
                came.found[content] = clean_knowledge(raw or {}, keep)
        except BackendError as error:
            return replace(came, ended=error)
        return came

    def phrases(self, content: str) -> Mapping[str, tuple[str, ...]]:
        """Returns what was inferred.

        Raises:
          LeftOut: if nothing was.
        """
        if content not in self.found:
            raise unanswered(self.failed, content)
        if content in self.unusable:
            raise LeftOut("an answer that cannot be used")
        if not any(self.found[content].values()):
            raise LeftOut("no phrase that says something")
        return self.found[content]
