"""What a product imports: a conversation in, ranked stickers out.

    retriever = Retriever.from_workdir("runs/demo")
    ranked = retriever.search(conversation, top_k=5)

The gallery is encoded once for each checkpoint; a search then encodes one conversation.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from int_ra_jax.common.nearest import nearest
from int_ra_jax.common.types import (
    RELATIONS,
    Batch,
    Labels,
    RankedList,
    RankedSticker,
    Sticker,
    Tokens,
)
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.data.text import Unread, compose_context
from int_ra_jax.models.interface import Params, System, merge
from int_ra_jax.retrieval.gallery import Gallery, Progress, Rebuild
from int_ra_jax.retrieval.stickers import Filters
from int_ra_jax.run.array_store import digest
from int_ra_jax.run.compiled_programs import PROGRAMS, kept_programs, traced
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.ranking import top_k as best_rows
from int_ra_jax.run.workdir import Run, open_run

_CODE = ("common", "data", "models", "run", "retrieval")  # rooms whose code makes a search
_TOKENS = 8  # conversations are padded to a multiple of so many
# Conversations searched for at once. Few stay in the processor's cache and are padded little; a
# gallery that takes long to read is read for more of them, if their scores fit into 256 MiB.
_BATCH, _LARGE_BATCH = 8, 64
_LARGE, _SCORES = 2**15, 2**26
_HALF = (
    "holds half a character (a lone surrogate), as where an emoji was cut in two; write it whole "
    "or leave it out"
)
_FORM = 'One object is read: {"turns": [{"speaker": "A", "text": "..."}], "reply_speaker": "B"}'
_SHOWN = 20  # problems of a file that are told
_ANSWERS = 8  # ranked at least, so that asking for fewer finds the same program


class Retriever:
    """Searches the gallery of a trained run.

    A search is one compiled program: conversation in, rows of the best stickers out. Its shapes
    are few, so that programs are compiled once: conversations are padded to a multiple of eight
    tokens and batches to a power of two. Programs and the encoded gallery stay in the workdir.

    Args:
      run: the open workdir.
      params: parameters of its system.
    """

    def __init__(self, run: Run, params: Params) -> None:
        self._run = run
        self._params = jax.device_put(params)
        self._programs: dict[tuple[int, ...], Callable[..., Any]] = {}
        # There is one program for each shape: those of other code are of no use any more.
        self._name = f"search-{digest(run.sources(_CODE))[:12]}"
        run.kept.forget("search", but=self._name)
        with _programs(run):
            self._sticker = Encoder(run).kept_gallery(self._params)
            self._labels = self._names()

    @classmethod
    def from_workdir(cls, workdir: str | Path) -> "Retriever":
        """Loads the best checkpoint of a run; nothing but the directory is needed.

        Raises:
          FileNotFoundError: if the workdir or its checkpoint does not exist.
        """
        run = open_run(Path(workdir))
        with _programs(run):
            params, _ = run.restore_best()
        return cls(run, params)

    @property
    def width(self) -> int:
        """Channels of a sticker's embedding, where the system compares vectors."""
        return self._run.system.embedding_width

    @property
    def system(self) -> str:
        """Name of the system that was trained."""
        return str(self._run.config.model.name)

    @property
    def intentions(self) -> tuple[str, ...]:
        """Names of the intentions that the run knows."""
        return tuple(self._run.dataset.intentions)

    def search(self, conversation: Conversation, top_k: int = 5) -> RankedList:
        """Returns the best stickers for a conversation, and its predicted intention.

        Args:
          conversation: its turns, reply speaker and, if there is any, knowledge; see
            ``read_conversation``. Split, sticker and intention are not read.
          top_k: how many stickers, at most the gallery's size.

        Raises:
          ValueError: if top_k is not in [1, N], or a text holds half a character.
        """
        return self.search_many([conversation], top_k)[0]

    def reply(
        self,
        conversation: Conversation,
        *,
        top_k: int = 5,
        packs: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        languages: Collection[str] | None = None,
        adult: bool = False,
        approved_only: bool = False,
        exclude: Collection[str] = (),
        recent: Sequence[str] = (),
        habits: Any = None,
        variety: float = 0.0,
    ) -> RankedList:
        """Returns the best stickers for a conversation, and its predicted intention.

        Filters act before ranking: there are ``top_k`` stickers in the answer wherever so many
        pass them, and ``RankedList.eligible`` says how many do.

        Args:
          conversation: its turns, reply speaker and, if there is any, knowledge; see
            ``read_conversation``. Split, sticker and intention are not read.
          top_k: how many stickers, at least 1.
          packs: see ``Filters``, as are the next four.
          tags: likewise.
          languages: likewise.
          adult: likewise.
          approved_only: likewise.
          exclude: ids that are not wanted.
          recent: ids that were just sent, the newest first; these and their near-duplicates come
            last.
          habits: a person's earlier use; nothing of it is stored.
          variety: in [0, 1]; 0 ranks by score alone, above it what is like a sticker that is
            ranked higher comes later.

        Raises:
          ValueError: if top_k or variety is out of range, or a text holds half a character.
        """
        raise NotImplementedError

    def reply_many(
        self,
        conversations: Sequence[Conversation],
        *,
        top_k: int = 5,
        filters: Filters | Sequence[Filters] = Filters(),
    ) -> list[RankedList]:
        """Returns one ranked list per conversation, in batches; see ``reply``.

        Args:
          conversations: any number of them.
          top_k: how many stickers each.
          filters: for all of them, or one per conversation.
        """
        raise NotImplementedError

    def search_words(
        self, words: str, *, top_k: int = 5, filters: Filters = Filters()
    ) -> RankedList:
        """Returns the stickers that suit typed words, "crying cat" or "猫 挥手"; see ``reply``.

        It becomes ``search(words, *, top_k, packs, tags, languages, adult, approved_only,
        exclude)``, as today's ``search`` becomes ``reply``.

        Raises:
          ValueError: if nothing but blanks is asked for, or a text holds half a character.
        """
        raise NotImplementedError

    def similar(
        self,
        sticker: str,
        *,
        top_k: int = 5,
        packs: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        languages: Collection[str] | None = None,
        adult: bool = False,
        approved_only: bool = False,
        exclude: Collection[str] = (),
    ) -> RankedList:
        """Returns the stickers whose embeddings are nearest to one's, itself left out.

        Args:
          sticker: id of a sticker of the gallery, hidden or not.
          top_k: how many, at least 1.
          packs: see ``reply``, as are the rest.
          tags: likewise.
          languages: likewise.
          adult: likewise.
          approved_only: likewise.
          exclude: likewise.

        Raises:
          KeyError: if the gallery has no such sticker.
          ValueError: if top_k is out of range, or the system compares no vectors.
        """
        raise NotImplementedError

    @property
    def gallery(self) -> Gallery:
        """The gallery that is searched: the run's own, which only answers, or an open one."""
        raise NotImplementedError

    def warm(self, batches: Sequence[int], *, top_k: int = 5) -> None:
        """Compiles what replies to so many conversations at once need, of every length.

        Args:
          batches: numbers of conversations.
          top_k: how many stickers will be asked for.
        """
        raise NotImplementedError

    def move_to(self, workdir: str | Path, progress: Progress | None = None) -> Rebuild:
        """Goes over to another checkpoint, while the present one answers; see ``Rebuild``.

        The gallery is embedded anew in the background. When all of it is, the next answer is by
        the new checkpoint alone; never does one mix the two. If it is interrupted, the same call
        goes on where it stopped.

        Args:
          workdir: of the run with the other checkpoint; it may be the present one's, trained on.
          progress: is called after each batch.
        """
        raise NotImplementedError

    def search_many(
        self, conversations: Sequence[Conversation], top_k: int = 5
    ) -> list[RankedList]:
        """Returns one ranked list per conversation; see ``search``."""
        if not conversations:
            return []
        tokens, unread = self._compose(conversations)
        found = self._rank_tokens(tokens, self._sticker, top_k)
        return [self._ranked(*row) for row in zip(*found, unread, strict=True)]

    def rank(
        self, conversations: Sequence[Conversation], gallery: Sticker, top_k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranks any encoded gallery, such as one of a million stickers; see ``search``.

        Args:
          conversations: Q of them, at least one.
          gallery: N stickers as the run's system encodes them, ``Sticker(embedding)`` for most.
          top_k: how many stickers.

        Returns:
          The scores f32[Q, k] of the best stickers in descending order, their gallery rows
          i32[Q, k], and the intentions' probabilities f32[Q, K], of K = 0 intentions where the
          system predicts none.

        Raises:
          ValueError: if top_k is not in [1, N], or a text holds half a character.
        """
        return self._rank_tokens(self._compose(conversations)[0], gallery, top_k)

    def _compose(self, conversations: Sequence[Conversation]) -> tuple[Tokens, list[Unread]]:
        problems = [
            f"conversation {one.id!a}: {where} {_HALF}"
            for one in conversations
            for where in _halves(
                {
                    "turns": [{"speaker": turn.speaker, "text": turn.text} for turn in one.turns],
                    "reply_speaker": one.reply_speaker,
                    "knowledge": {key: list(said) for key, said in (one.knowledge or {}).items()},
                }
            )
        ]
        if problems:
            raise ValueError("\n".join(problems))
        run = self._run
        return compose_context(
            run.tokenizer, conversations, run.config.text, run.dataset.has_knowledge
        )

    def _rank_tokens(
        self, tokens: Tokens, gallery: Sticker, top_k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Searches in batches; see ``rank``."""
        number = len(jax.tree.leaves(gallery)[0])
        if not 1 <= top_k <= number:
            raise ValueError(f"top_k={top_k} of a gallery of {number} stickers; use 1 to {number}.")
        # Conversations of like length share a batch, and little of it is padding.
        lengths = tokens.mask.sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        fitting = 1 << max(0, (_SCORES // number).bit_length() - 1)
        size = min(_BATCH if number < _LARGE else _LARGE_BATCH, fitting)
        parts = []
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            parts.append(self._rank(tokens, rows, int(lengths[rows].max()), gallery, top_k))
        back = np.argsort(order)
        scores, best, probable = (np.concatenate(part)[back] for part in zip(*parts, strict=True))
        return scores, best, probable

    def _rank(
        self, tokens: Tokens, rows: np.ndarray, longest: int, gallery: Sticker, top_k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Searches for the conversations of some rows, in the smallest batch that holds them."""
        run, stickers = self._run, len(jax.tree.leaves(gallery)[0])
        size, width = _power_of_two(len(rows)), -(-longest // _TOKENS) * _TOKENS
        filled = np.pad(rows, (0, size - len(rows)), mode="edge")
        batch = jax.tree.map(lambda leaf: leaf[filled, :width], tokens)
        number = min(max(_power_of_two(top_k), _ANSWERS), stickers)
        arguments = (self._params, gallery, self._labels, batch)
        shape = (size, width, number, stickers)
        if shape not in self._programs:
            name = "-".join(map(str, (self._name, *shape)))
            best = partial(self._best, number=number)
            with _programs(run):  # to ask the disk each time would cost more than a search
                program = traced(run.kept, name, run.sources(_CODE), best, *arguments)
                found = program(*jax.tree.leaves(arguments))
            self._programs[shape] = program
        else:
            found = self._programs[shape](*jax.tree.leaves(arguments))
        values, places, probable = jax.device_get(found)
        asked = slice(len(rows))
        return values[asked, :top_k], places[asked, :top_k], probable[asked]

    def _best(
        self, params: Params, sticker: Sticker, labels: Labels, tokens: Tokens, *, number: int
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns scores [B, k], gallery rows [B, k] and the intentions' probabilities [B, K]."""
        system: System = merge(self._run.graphdef, params)
        size = tokens.ids.shape[0]
        zeros = jnp.zeros(size, jnp.int32)
        batch = Batch(tokens, zeros, zeros, zeros, jnp.ones(size, bool), labels=labels)
        context = system.encode_context(batch)
        logits = context.intention_logits
        # A system that predicts no intention has no probability of any.
        probable = jnp.zeros((size, 0)) if logits is None else jax.nn.softmax(logits, axis=1)
        values, rows = best_rows(system.score(context, sticker), number)
        return values, rows, probable

    def _names(self) -> Labels:
        """Returns the intention names, with the frozen layers' output where there is any."""
        run, names = self._run, jax.device_put(self._run.labels)
        if "names" not in run.system.reads:
            return names

        def hidden(params: Params, tokens: Tokens) -> jax.Array | None:
            system: System = merge(run.graphdef, params)
            return system.hidden_text(tokens)

        arguments = (self._params, names.tokens)
        program = traced(run.kept, "names", run.sources(_CODE), hidden, *arguments)
        return dataclasses.replace(names, hidden=program(*jax.tree.leaves(arguments)))

    def _ranked(
        self, scores: np.ndarray, rows: np.ndarray, probabilities: np.ndarray, unread: Unread
    ) -> RankedList:
        entries = [self._run.dataset.stickers[row] for row in rows]
        names = self._run.dataset.intentions
        order = np.argsort(-probabilities, kind="stable")
        return RankedList(
            stickers=[
                RankedSticker(rank, entry.id, float(score), entry.image, dict(entry.attributes))
                for rank, (entry, score) in enumerate(zip(entries, scores, strict=True), start=1)
            ],
            intention=names[order[0]] if len(order) else None,
            intention_probabilities={names[k]: float(probabilities[k]) for k in order},
            tokens=unread.tokens,
            unknown=dict(unread.unknown),
        )


def _programs(run: Run) -> AbstractContextManager[None]:
    """Keeps programs as training does; from a workdir that cannot be written, those it holds."""
    usable = (run.workdir / PROGRAMS).is_dir() or os.access(run.workdir, os.W_OK)
    return kept_programs(run.config.train.compilation_cache if usable else "off", run.workdir)


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is not below a number above 0."""
    return 1 << (number - 1).bit_length()


def read_conversation(path: Path) -> Conversation:
    """Reads {turns: [{speaker, text}, ...], reply_speaker, knowledge?} from a JSON file.

    UTF-8, UTF-16 and UTF-32 are read, with a byte order mark or without.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: one error with every problem of the file.
    """
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.json")], cutoff=0.6)
        hint = f" Did you mean {path.parent / near}?" if near else ""
        raise FileNotFoundError(f"--conversation={path}: no such file.{hint}")
    content = path.read_bytes()
    if not content.strip(b"\0 \t\r\n"):
        raise ValueError(f"--conversation={path} is empty. {_FORM}")
    try:
        record = json.loads(content)
        problems = list(_problems(record))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--conversation={path} is not in UTF-8, UTF-16 or UTF-32: {error}. Save it as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--conversation={path} is not JSON: {error}. {_FORM}") from None
    if problems:
        before = "\n  " if len(problems) > 1 else " "
        told = problems[:_SHOWN]
        if len(problems) > _SHOWN:
            told.append(f"and {len(problems) - _SHOWN:,} more")
        raise ValueError(f"--conversation={path}:{before}" + "\n  ".join(told))
    unread = sorted(set(record) - {"id", "turns", "reply_speaker", "knowledge"})
    if unread:
        logging.info("not read from %s: %s", path, ", ".join(unread))
    return Conversation(
        id=str(record.get("id", path.stem)),
        split="test",
        turns=tuple(Turn(turn["speaker"], turn["text"]) for turn in record["turns"]),
        reply_speaker=record["reply_speaker"],
        sticker="",
        intention="",
        knowledge={k: tuple(v) for k, v in record["knowledge"].items()}
        if record.get("knowledge")
        else None,
    )


def _problems(record: Any) -> list[str]:
    if not isinstance(record, dict):
        return [f"a JSON object is expected, not {type(record).__name__}"]
    problems = [f"{where} {_HALF}" for where in _halves(record)]
    turns = record.get("turns")
    if not isinstance(turns, list) or not turns:
        problems.append('"turns" must be a list of at least one {"speaker", "text"}')
    else:
        for number, turn in enumerate(turns, start=1):
            for key in ("speaker", "text"):
                if not isinstance(turn, dict) or not isinstance(turn.get(key), str):
                    problems.append(f'turn {number}: "{key}" must be a string')
    if not isinstance(record.get("reply_speaker"), str):
        problems.append('"reply_speaker" must name who replies')
    knowledge = record.get("knowledge") or {}
    if not isinstance(knowledge, dict):
        problems.append(f'"knowledge" must be an object with lists for {RELATIONS}')
    else:
        for name, values in knowledge.items():
            if name not in RELATIONS:
                near = nearest(name, RELATIONS)
                problems.append(f'knowledge "{name}": did you mean "{near}"?')
            elif not isinstance(values, list) or not all(isinstance(v, str) for v in values):
                problems.append(f'knowledge "{name}" must be a list of strings')
    return problems


def _halves(value: Any, where: str = "") -> Iterator[str]:
    """Yields where a text has half a character: legal in JSON, but no model can read it."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            around = value[max(0, error.start - 20) : error.end]
            yield f"{where.lstrip('.: ')}: {around!a}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _halves(key, f"{where}: a key")
            yield from _halves(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _halves(inner, f"{where}[{number}]")
