"""Encodes whole splits and galleries, in batches of one static shape each."""

import dataclasses
import inspect
import itertools
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from flax import nnx

from int_ra_jax.common.hosts import Placement
from int_ra_jax.common.log import progress
from int_ra_jax.common.params import flatten
from int_ra_jax.common.types import Bank, Batch, Context, Labels, Sticker, Tokens
from int_ra_jax.data.text import encode_names
from int_ra_jax.models.interface import Params, System, merge
from int_ra_jax.models.layers import masked_mean
from int_ra_jax.run.frozen_texts import frozen_texts
from int_ra_jax.run.ranking import score_in_chunks
from int_ra_jax.run.row_chunks import chunk_rows, joined
from int_ra_jax.run.workdir import Run

# Rooms whose code decides how a gallery is encoded, and what of it how a text tower computes.
_ENCODING = ("common", "data", "models", "run")
_TOKENS = 8  # short texts are padded to a power of two of tokens, so many at least
_TOWER = ("models/layers.py", "models/towers")


class Encoder:
    """Compiles a system's encoders once and runs them over splits and galleries.

    With a placement each process reads and encodes its own rows, and all of them get every result.

    Args:
      run: the open workdir.
      bank: the gallery on the device, with the frozen layers' output where it is cached; the
        run's own gallery by default.
      labels: likewise the intention names.
      placement: on which devices, and which rows are read here; the first device by default.
    """

    def __init__(
        self,
        run: Run,
        bank: Bank | None = None,
        labels: Labels | None = None,
        placement: Placement | None = None,
    ) -> None:
        self._run = run
        self._graphdef: nnx.GraphDef = run.graphdef
        self._bank = bank
        self._labels = labels
        self._placement = placement
        whole = None if placement is None else placement.whole
        self.encode_context = jax.jit(self._encode_context, out_shardings=whole)
        self._score_blocks = jax.jit(self._score_all, out_shardings=whole)
        self._encode_rows = jax.jit(
            lambda params, bank, rows: self._merge(params).encode_sticker(bank.rows(rows)),
            out_shardings=whole,
        )
        self._map_rows = jax.jit(
            lambda params, bank, rows: self._merge(params).attention_maps(bank.rows(rows)),
            out_shardings=whole,
        )
        self._hidden = jax.jit(self._hidden_texts, out_shardings=whole)
        self._hidden_names = jax.jit(
            lambda params, names: self._merge(params).hidden_text(names), out_shardings=whole
        )
        self._means = jax.jit(self._text_means, out_shardings=whole)

    @cached_property
    def bank(self) -> Bank:
        """The gallery on the device."""
        return self._everywhere(self._run.bank) if self._bank is None else self._bank

    @cached_property
    def labels(self) -> Labels:
        """The intention names on the device."""
        return self._everywhere(self._run.labels) if self._labels is None else self._labels

    def labels_read(self, params: Params) -> Labels:
        """Returns the names with the frozen layers' output: no batch computes it again."""
        labels = self.labels
        if labels.hidden is not None or "names" not in self._run.system.reads:
            return labels
        return dataclasses.replace(labels, hidden=self._hidden_names(params, labels.tokens))

    def gallery(self, params: Params) -> Sticker:
        """Returns the encoded gallery on the device, N rows in gallery order."""
        return self.stickers(params, np.arange(self.bank.index.shape[0]))

    def kept_gallery(self, params: Params) -> Sticker:
        """Returns ``gallery(params)`` from WORKDIR/search, where these parameters left it before.

        It is kept under the hash of everything that it depends on, this library's code included,
        and only the newest one is: a gallery of another checkpoint is never read. A workdir that
        cannot be written keeps what it holds; where several processes share the work, nothing is.
        """
        run = self._run
        if jax.process_count() > 1:
            return self.gallery(params)

        def sources() -> Iterator[str | bytes | np.ndarray]:
            yield from run.sources(_ENCODING)
            for path, leaf in sorted(flatten(params).items()):
                yield path
                yield np.asarray(leaf)

        def compute() -> dict[str, jax.Array]:
            run.kept.forget("gallery")
            fields = vars(self.gallery(params)).items()
            return {name: array for name, array in fields if array is not None}

        kept = run.kept.get_all("gallery", sources, compute)
        # A system says by its annotation what its encoder returns.
        encoded: type[Sticker] = run.system.encode_sticker.__annotations__["return"]
        sticker: Sticker = self._everywhere(encoded(**kept))
        return sticker

    def stickers(self, params: Params, rows: np.ndarray) -> Sticker:
        """Returns the encoded stickers of some gallery rows, in that order."""
        encoded: Sticker = self._in_chunks(self._encode_rows, params, rows)
        return encoded

    def newcomers(self, params: Params, bank: Bank) -> Sticker:
        """Returns the encoded stickers of any bank, such as one of stickers no run has seen."""
        encoded: Sticker = self._encode_rows(params, bank, np.arange(bank.index.shape[0]))
        return encoded

    def attention_maps(self, params: Params, rows: np.ndarray) -> jax.Array | None:
        """Returns what the attributes of some gallery rows attend to; see ``System``."""
        maps: jax.Array | None = self._in_chunks(self._map_rows, params, rows)
        return maps

    def newcomers_maps(self, params: Params, bank: Bank) -> jax.Array | None:
        """Returns ``attention_maps`` of any bank, such as one of stickers no run has seen."""
        maps: jax.Array | None = self._map_rows(params, bank, np.arange(bank.index.shape[0]))
        return maps

    def _in_chunks(self, compute: Any, params: Params, rows: np.ndarray) -> Any:
        chunks = rows[
            chunk_rows(len(rows), self._divisible(self._run.config.eval.sticker_batch_size))
        ]
        scatter = np.asarray if self._placement is None else self._placement.scatter
        return joined((compute(params, self.bank, scatter(chunk)) for chunk in chunks), len(rows))

    def contexts(self, params: Params, split: str, hidden: jax.Array | None = None) -> Context:
        """Returns a split's encoded conversations on the host, one row each, in split order.

        Args:
          params: parameters of the system.
          split: its name.
          hidden: f[M, L, Dt], the frozen layers' output of the split where it is cached.
        """
        labels = self.labels_read(params)

        def encode(batch: Batch) -> Context:
            if hidden is not None:
                batch = dataclasses.replace(batch, context_hidden=hidden[batch.example])
            encoded: Context = jax.device_get(self.encode_context(params, batch, labels))
            return encoded

        return self._over(split, f"encode {split}", encode, np.concatenate)

    def score_all(self, params: Params, context: Context, sticker: Sticker) -> jax.Array:
        """Returns the scores f32[Q, N] of many conversations, in blocks."""
        return self._score_blocks(params, self._everywhere(context), sticker)

    def timed_scores(
        self, params: Params, context: Context, sticker: Sticker
    ) -> tuple[np.ndarray, float]:
        """Returns ``score_all`` on the host, and the seconds it takes once it is compiled."""
        arguments = (params, self._everywhere(context), sticker)
        compiled = self._score_blocks.lower(*arguments).compile()
        jax.block_until_ready(arguments)  # the gallery is encoded asynchronously
        began = time.perf_counter()
        scores = np.asarray(compiled(*arguments))
        return scores, time.perf_counter() - began

    def hidden(self, params: Params, split: str) -> jax.Array | None:
        """Returns the frozen layers' output of a split, f[M, L, Dt], or None if none is frozen.

        It is taken from ``train.shared_cache`` where another run has left it there.
        """
        run = self._run
        if jax.process_count() > 1:  # they share the work already
            whole = self._compute_hidden(params, split)
            return None if whole is None else self._everywhere(whole)
        composed = run.composed(split)
        if composed is None:
            return None

        def sources() -> Iterator[str | bytes | np.ndarray]:
            # What is read, and not where it comes from: other labels change nothing here.
            for name, leaf in sorted(vars(composed.tokens).items()):
                if leaf is not None:
                    yield name
                    yield leaf
            yield f"{run.facts.special_ids} {run.facts.text}"
            trained = run.trainable
            kept, dtype = run.config.train.cache_dtype, run.config.model.dtype
            precision = dtype if kept == "same" else f"{dtype} as {kept}"
            yield f"{run.config.model.text.frozen_layers} {precision}"
            yield f"{[(key, run.config.model[key]) for key in run.system.frames]}"
            # A system may frame texts in a way of its own.
            framed = inspect.getfile(type(run.system).text_rows)
            yield from run.code((*_TOWER, "run/frozen_texts.py", framed))
            for path, leaf in sorted(flatten(params).items()):
                if path.startswith("text/") and path not in trained:
                    yield path
                    yield np.asarray(leaf)

        kept = run.shared.get(
            f"hidden-{split}", sources, lambda: self._compute_hidden(params, split)
        )
        return None if kept is None else self._everywhere(kept)

    def conversation_means(self, params: Params, split: str) -> np.ndarray:
        """Returns the mean of the text tower's features over each conversation's tokens.

        f32[M, Dt] in split order, standardised where the model reads them so. Where
        ``train.shared_cache`` holds the frozen layers' output, it is not computed again.
        """
        kept = self._run.config.train.cache_frozen and self._run.config.train.shared_cache
        hidden = self.hidden(params, split) if kept else None

        def means(batch: Batch) -> np.ndarray:
            known = None if hidden is None else hidden[batch.example]
            return np.asarray(jax.device_get(self._means(params, batch.context, known)))

        found: np.ndarray = self._over(split, f"means {split}", means, np.concatenate)
        return found

    def text_means(self, params: Params, texts: Sequence[str]) -> np.ndarray:
        """Returns the same of short texts, f32[T, Dt]; each is cut to ``text.context_tokens``."""
        width = self._run.config.text.context_tokens
        tokens = encode_names(self._run.tokenizer, texts, width)
        # Few texts, and short ones, are not padded to many and long ones.
        needed = int(tokens.mask.sum(axis=1).max())
        longest = next(length for length in self._lengths if length >= needed)
        tokens = jax.tree.map(lambda leaf: leaf[:, :longest], tokens)
        most = self._run.config.eval.sticker_batch_size
        size = self._divisible(min(most, 1 << (len(texts) - 1).bit_length()))

        def means(rows: np.ndarray) -> jax.Array:
            some = jax.tree.map(lambda leaf: leaf[rows], tokens)
            return self._means(params, self._everywhere(some), None)

        return np.asarray(joined(map(means, chunk_rows(len(texts), size)), len(texts)))

    def warm_text_means(self, params: Params) -> None:
        """Compiles ``text_means`` of one text, however long it is."""
        for length in self._lengths:
            ids, mask = np.zeros((1, length), np.int32), np.ones((1, length), bool)
            self._means(params, self._everywhere(Tokens(ids, mask, ids)), None)

    @property
    def _lengths(self) -> tuple[int, ...]:
        """Which a short text is padded to, in order."""
        most = self._run.config.text.context_tokens
        powers = itertools.takewhile(lambda one: one < most, (_TOKENS << n for n in range(most)))
        return (*powers, most)

    def _compute_hidden(self, params: Params, split: str) -> np.ndarray | None:
        run = self._run
        composed = run.composed(split)
        if composed is None:
            return None
        return frozen_texts(
            run.system, self._hidden, params, composed.tokens, rows=run.config.eval.batch_size,
            placement=self._placement, what=f"cache {split}",
        )  # fmt: skip

    def _over(self, split: str, what: str, compute: Any, join: Any) -> Any:
        """Returns what is computed of a split's conversations, in split order."""
        as_read = (lambda tree: tree) if self._placement is None else self._placement.as_read
        parts = (as_read(compute(batch)) for batch in self._batches(split, what))
        return joined(parts, self._run.dataset.size(split), join)

    def _batches(self, split: str, what: str) -> Iterator[Batch]:
        # Here, because a search reads no split.
        from int_ra_jax.data.batches import eval_batches

        run, placement = self._run, self._placement
        size, width = run.dataset.size(split), self._divisible(run.config.eval.batch_size)
        share = (0, 1) if placement is None else (placement.share, placement.shares)
        stream = eval_batches(
            run.dataset, run.tokenizer, run.config.text, split, width, *share,
            composed=run.composed(split),
        )  # fmt: skip
        with progress(what, size, "conversations") as bar:
            for start, batch in zip(range(0, size, width), stream, strict=True):
                yield batch if placement is None else placement.place(batch)
                bar.update(min(width, size - start))

    def _divisible(self, size: int) -> int:
        """Enlarges a batch to the next size that the devices divide."""
        parts = 1 if self._placement is None else self._placement.parts
        return -(-size // parts) * parts

    def _everywhere(self, tree: Any) -> Any:
        place = jax.device_put if self._placement is None else self._placement.everywhere
        return place(tree)

    def _merge(self, params: Params) -> System:
        system: System = merge(self._graphdef, params)
        return system

    def _encode_context(self, params: Params, batch: Batch, labels: Labels) -> Context:
        return self._merge(params).encode_context(dataclasses.replace(batch, labels=labels))

    def _text_means(self, params: Params, tokens: Tokens, hidden: jax.Array | None) -> jax.Array:
        return masked_mean(self._merge(params).text_tokens(tokens, hidden), tokens.mask)

    def _hidden_texts(self, params: Params, texts: Tokens) -> jax.Array | None:
        hidden = self._merge(params).hidden_text(texts)
        kept = self._run.config.train.cache_dtype
        return hidden if hidden is None or kept == "same" else hidden.astype(kept)

    def _score_all(self, params: Params, context: Context, sticker: Sticker) -> jax.Array:
        score = self._merge(params).score
        return score_in_chunks(score, context, sticker, sticker_chunk=1024)
