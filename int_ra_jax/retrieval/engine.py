"""One checkpoint's side of a search: conversations in, rows of the best stickers out.

A search is one compiled program. Its shapes are few, so that programs are compiled once:
conversations are padded to a multiple of eight tokens, batches and galleries to a power of two,
and answers to ``RANKED``. Filters are none of them: each conversation brings a mask of its own.
Programs stay in the workdir, as they were traced and compiled.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32

from int_ra_jax.common.params import flatten
from int_ra_jax.common.types import Batch, Labels, Sticker, Tokens
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.data.text import Unread, compose_context, encode_names
from int_ra_jax.models.interface import Params, System, merge
from int_ra_jax.models.layers import masked_mean
from int_ra_jax.retrieval.conversation_file import check_readable
from int_ra_jax.retrieval.shelf import power_of_two
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.retrieval.words import reads
from int_ra_jax.run.array_store import digest
from int_ra_jax.run.compiled_programs import PROGRAMS, kept_programs, traced
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.ranking import top_k as best_rows
from int_ra_jax.run.workdir import Run

_CODE = ("common", "data", "models", "run", "retrieval")  # rooms whose code makes a search
TOKENS = 8  # conversations are padded to a multiple of so many
# Conversations searched for at once. Few stay in the processor's cache and are padded little; a
# gallery that takes long to read is read for more of them, if their scores fit into 256 MiB.
_BATCH, _LARGE_BATCH = 8, 64
_LARGE, _SCORES = 2**15, 2**26
_TINY = 1e-12
RANKED = (8, 64, 256)  # so many are ranked, whoever asks for fewer: few programs serve all


class Ranked(NamedTuple):
    """What is found for Q conversations.

    Attributes:
      scores: f32[Q, k] of the best stickers, in descending order; -inf behind the last that passes.
      rows: i32[Q, k] of the gallery.
      probabilities: f32[Q, K] of the intentions, K = 0 where the system predicts none.
    """

    scores: np.ndarray
    rows: np.ndarray
    probabilities: np.ndarray


class Engine:
    """Searches encoded galleries by one checkpoint of a run.

    Args:
      run: the open workdir.
      params: parameters of its system.
    """

    def __init__(self, run: Run, params: Params) -> None:
        self.run = run
        self.params = jax.device_put(params)
        self._programs: dict[tuple[Any, ...], Callable[..., Any]] = {}
        # There is one program for each shape: those of other code are of no use any more.
        self._name = f"search-{digest(run.sources(_CODE))[:12]}"
        run.kept.forget("search", but=self._name)
        with self.programs_kept():
            self._labels = self._names()

    def programs_kept(self) -> AbstractContextManager[None]:
        """Keeps programs as training does; from a workdir that cannot be written, what it holds."""
        return programs_kept(self.run)

    @cached_property
    def scale(self) -> float:
        """What makes log-probabilities of scores.

        As the run's newest evaluation under ``exact`` fitted it; else the inverse temperature that
        training learnt, or the constant that it had. 1 where it had none, as under losses of
        margins and drawn pairs, whose scores no cosines are.
        """
        with contextlib.suppress(OSError, ValueError, KeyError):
            report = json.loads((self.run.workdir / "eval" / "report.json").read_text("utf-8"))
            return float(report["scales"][report["main_system"]])
        learnt = flatten(self.params).get("logit_scale")
        if learnt is not None:
            return float(jnp.exp(learnt))
        return 1 / float(self.run.config.loss.get("temperature", 1.0))

    def own_gallery(self) -> Sticker:
        """Returns the run's own gallery, encoded."""
        with self.programs_kept():
            return Encoder(self.run).kept_gallery(self.params)

    @cached_property
    def _encoder(self) -> StickerEncoder:
        return StickerEncoder(self.run, self.params)

    def attention(self, sticker: GallerySticker) -> dict[str, Float[np.ndarray, "g g"]]:
        """Returns where each attribute of a sticker looks; see ``StickerEncoder.attention``."""
        return self._encoder.attention(sticker) if self.run.system.encodes_unseen else {}

    def warm_attention(self) -> None:
        """Compiles what ``attention`` needs."""
        if self.run.system.encodes_unseen:
            self._encoder.warm_attention()

    def warm_as(self, other: "Engine", gallery: Sticker | None) -> Iterator[None]:
        """Compiles what another checkpoint's engine was asked for, of every length.

        Args:
          other: that answered until now.
          gallery: N encoded stickers of any value; None where they are searched on disk.

        Yields:
          After each program.
        """
        kinds = {(shape[0], shape[2]) for shape in [*other._programs] if shape[0] != "words"}
        number = 0 if gallery is None else len(jax.tree.leaves(gallery)[0])
        for size, kind in sorted(kinds):
            masks = [np.zeros(number, bool)] * size
            for tokens in self.of_every_length(size):
                if gallery is None:
                    self.queries(tokens)
                else:  # of those that were searched on disk none was ranked
                    self.rank(tokens, gallery, masks, min(kind if kind > 0 else 1, number))
                yield
        if any(shape[0] == "words" for shape in [*other._programs]):
            self.warm_typed()
            yield
        if "_encoder" in vars(other):  # it was asked where attributes look
            self.warm_attention()
            yield

    def compose(self, conversations: Sequence[Conversation]) -> tuple[Tokens, list[Unread]]:
        """Returns conversations as the text tower reads them, and what it does not read.

        Raises:
          ValueError: if a text holds half a character.
        """
        check_readable(conversations)
        run = self.run
        return compose_context(
            run.tokenizer, conversations, run.config.text, run.dataset.has_knowledge
        )

    def rank(
        self,
        tokens: Tokens,
        gallery: Sticker,
        masks: Sequence[Bool[np.ndarray, "N"]],
        number: int,
    ) -> Ranked:
        """Returns the best stickers that pass, for Q conversations.

        Args:
          tokens: of the conversations.
          gallery: N encoded stickers.
          masks: which of them pass, for each conversation.
          number: k, in [1, N].
        """
        size = len(jax.tree.leaves(gallery)[0])
        fewest = next((one for one in RANKED if one >= number), power_of_two(number))
        best = min(fewest, size)
        found = self._batched(tokens, gallery, masks, partial(self._best, number=best), best)
        return Ranked(found[0][:, :number], found[1][:, :number], found[2])

    def queries(
        self, tokens: Tokens
    ) -> tuple[Float32[np.ndarray, "Q W"], Float32[np.ndarray, "Q K"]]:
        """Returns conversations as the vectors whose dot products are scores, with probabilities.

        For systems that compare vectors alone.
        """
        none = Sticker(np.zeros((1, 1), np.float32))
        masks = [np.ones(1, bool)] * len(tokens.ids)
        queries, probabilities = self._batched(tokens, none, masks, self._queries, -1)
        return queries, probabilities

    def typed(self, words: str) -> Float32[np.ndarray, "Dt"] | None:
        """Returns typed words as a unit vector of the text tower; None where it reads them not.

        Raises:
          ValueError: if they hold half a character.
        """
        check_readable([Conversation("words", "test", (Turn("A", words),), "A", "", "")])
        run = self.run
        if not reads(run.tokenizer, words):
            return None
        tokens = encode_names(run.tokenizer, [words], run.config.text.context_tokens)
        width = -(-int(tokens.mask.sum()) // TOKENS) * TOKENS
        vector = self._mean(jax.tree.map(lambda leaf: leaf[:, :width], tokens))
        unit: np.ndarray = vector / max(float(np.linalg.norm(vector)), _TINY)
        return unit

    def of_every_length(self, number: int) -> Iterator[Tokens]:
        """Yields so many conversations as the text tower reads them, of every padded length."""
        said = Conversation("warm", "test", (Turn("A", "a"),), "B", "", "")
        return _of_every_length(self.compose([said] * number)[0])

    def warm_typed(self) -> None:
        """Compiles what typed words of every length need."""
        run = self.run
        tokens = encode_names(run.tokenizer, ["a"], run.config.text.context_tokens)
        for one in _of_every_length(tokens):
            self._mean(one)

    def _mean(self, tokens: Tokens) -> Float32[np.ndarray, "Dt"]:
        """Returns the text tower's mean over one text."""
        run = self.run

        def mean(params: Params, tokens: Tokens) -> jax.Array:
            system: System = merge(run.graphdef, params)
            return masked_mean(system.text_tokens(tokens, None), tokens.mask)

        shape = ("words", tokens.ids.shape[1])
        arguments = (self.params, tokens)
        if shape not in self._programs:
            name = "-".join(map(str, (self._name, *shape)))
            with self.programs_kept():
                program = traced(run.kept, name, run.sources(_CODE), mean, *arguments)
            self._programs[shape] = program
        found: np.ndarray = np.asarray(self._programs[shape](*jax.tree.leaves(arguments)))[0]
        return found

    def _batched(
        self,
        tokens: Tokens,
        gallery: Sticker,
        masks: Sequence[np.ndarray],
        function: Callable[..., Any],
        kind: int,
    ) -> list[np.ndarray]:
        """Computes in batches of conversations of like length: little of them is padding."""
        number = len(jax.tree.leaves(gallery)[0])
        lengths = tokens.mask.sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        fitting = 1 << max(0, (_SCORES // number).bit_length() - 1)
        size = min(_BATCH if number < _LARGE else _LARGE_BATCH, fitting)
        parts = []
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            some = tokens, rows, int(lengths[rows].max()), gallery, [masks[row] for row in rows]
            parts.append(self._computed(*some, function, kind))
        back = np.argsort(order)
        return [np.concatenate(part)[back] for part in zip(*parts, strict=True)]

    def _computed(
        self,
        tokens: Tokens,
        rows: np.ndarray,
        longest: int,
        gallery: Sticker,
        masks: Sequence[np.ndarray],
        function: Callable[..., Any],
        kind: int,
    ) -> list[np.ndarray]:
        """Computes for the conversations of some rows, in the smallest batch that holds them."""
        run, stickers = self.run, len(jax.tree.leaves(gallery)[0])
        size, width = power_of_two(len(rows)), -(-longest // TOKENS) * TOKENS
        filled = np.pad(rows, (0, size - len(rows)), mode="edge")
        batch = jax.tree.map(lambda leaf: leaf[filled, :width], tokens)
        # One mask for each, also where all are the same: what is asked for changes no program.
        if all(mask is masks[0] for mask in masks):  # which need not be sent more than once
            passing = _repeated(masks[0], size)
        else:
            passing = np.stack([*masks, *[masks[-1]] * (size - len(masks))])
        arguments = (self.params, gallery, self._labels, batch, passing)
        shape = (size, width, kind, stickers)
        if shape not in self._programs:
            name = "-".join(map(str, (self._name, *shape)))
            with self.programs_kept():  # to ask the disk each time would cost more than a search
                program = traced(run.kept, name, run.sources(_CODE), function, *arguments)
                found = program(*jax.tree.leaves(arguments))
            self._programs[shape] = program
        else:
            found = self._programs[shape](*jax.tree.leaves(arguments))
        return [np.asarray(part)[: len(rows)] for part in jax.device_get(found)]

    def _context(self, params: Params, labels: Labels, tokens: Tokens) -> tuple[Any, ...]:
        """Returns the system, the encoded conversations and the intentions' probabilities."""
        system: System = merge(self.run.graphdef, params)
        size = tokens.ids.shape[0]
        zeros = jnp.zeros(size, jnp.int32)
        batch = Batch(tokens, zeros, zeros, zeros, jnp.ones(size, bool), labels=labels)
        context = system.encode_context(batch)
        logits = context.intention_logits
        # A system that predicts no intention has no probability of any.
        probable = jnp.zeros((size, 0)) if logits is None else jax.nn.softmax(logits, axis=1)
        return system, context, probable

    def _best(
        self,
        params: Params,
        sticker: Sticker,
        labels: Labels,
        tokens: Tokens,
        masks: jax.Array,
        *,
        number: int,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns scores [B, k], gallery rows [B, k] and the intentions' probabilities [B, K]."""
        system, context, probable = self._context(params, labels, tokens)
        scores = system.score(context, sticker)
        # NaN comes last of those that pass, and before those that do not.
        lowest = jnp.finfo(scores.dtype).min
        sound = jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest)
        values, rows = best_rows(jnp.where(masks, sound, -jnp.inf), number)
        return values, rows, probable

    def _queries(
        self, params: Params, sticker: Sticker, labels: Labels, tokens: Tokens, masks: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the queries [B, W] and the intentions' probabilities [B, K]."""
        _, context, probable = self._context(params, labels, tokens)
        return context.query, probable

    def _names(self) -> Labels:
        """Returns the intention names, with the frozen layers' output where there is any."""
        run, names = self.run, jax.device_put(self.run.labels)
        if "names" not in run.system.reads:
            return names

        def hidden(params: Params, tokens: Tokens) -> jax.Array | None:
            system: System = merge(run.graphdef, params)
            return system.hidden_text(tokens)

        arguments = (self.params, names.tokens)
        program = traced(run.kept, "names", run.sources(_CODE), hidden, *arguments)
        return dataclasses.replace(names, hidden=program(*jax.tree.leaves(arguments)))


@partial(jax.jit, static_argnums=1)
def _repeated(mask: Any, times: int) -> Any:
    return jnp.broadcast_to(mask, (times, *mask.shape))


def _of_every_length(tokens: Tokens) -> Iterator[Tokens]:
    """Yields texts whose tokens are all their first one, as short and as long as they are read."""
    number, longest = tokens.ids.shape
    for length in range(TOKENS, longest + TOKENS, TOKENS):
        shape = (number, min(length, longest))
        yield jax.tree.map(lambda leaf, shape=shape: np.broadcast_to(leaf[:, :1], shape), tokens)


def programs_kept(run: Run) -> AbstractContextManager[None]:
    """Keeps programs as training does; from a workdir that cannot be written, those it holds."""
    usable = (run.workdir / PROGRAMS).is_dir() or os.access(run.workdir, os.W_OK)
    return kept_programs(run.config.train.compilation_cache if usable else "off", run.workdir)
