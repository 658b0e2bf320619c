"""The stickers that are searched, in memory: their embeddings, and what filters read.

Rows are padded to a power of two, so that a put changes no shape and compiles nothing; embeddings
are written into the matrix where it lies. A row that is free again is the next one to be filled.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int

from int_ra_jax.common.types import Sticker
from int_ra_jax.retrieval.stickers import Filters, GallerySticker
from int_ra_jax.run.ranking import top_k

_LEAST = 16  # rows of the smallest matrix
_MASKS = 64  # filters whose rows are remembered
_ANSWERS = 8  # ranked at least, so that asking for fewer finds the same program
_TINY = 1e-12
_FLAGS = ("hidden", "adult", "approved")


class Shelf:
    """Rows of stickers.

    Attributes:
      rows: id -> row.
      ids: the id of each row, None where it is free.
      encoded: parts f[C, ...] of the C rows on the device; None where they are searched on disk.
      said: f32[C, Dt], what typed words are compared with, on the host; None likewise.
    """

    def __init__(self, empty: Callable[[int], Sticker] | None) -> None:
        """Starts without stickers.

        Args:
          empty: number of rows -> encoded stickers of that many, of any value; None where
            embeddings are not held in memory.
        """
        self._empty = empty
        self.rows: dict[str, int] = {}
        self.ids: list[str | None] = []
        self.encoded: Any = None
        self.said: np.ndarray | None = None
        self._flags = {name: np.zeros(0, bool) for name in _FLAGS}
        self._live = np.zeros(0, bool)
        self._embedded = np.zeros(0, bool)  # those that are searched
        self._packs, self._languages = np.zeros(0, np.int32), np.zeros(0, np.int32)
        self._codes: dict[str, int] = {}  # of packs and languages alike
        self._tagged: dict[str, set[int]] = {}
        self._tags: list[tuple[str, ...]] = []
        self._free: list[int] = []
        self._masks: dict[Filters, np.ndarray] = {}
        self.reserve(0)

    @classmethod
    def of(cls, stickers: Sequence[GallerySticker], encoded: Sticker) -> "Shelf":
        """Returns a shelf that is filled once: with N stickers, encoded on the device."""
        shelf = cls(None)
        shelf.reserve(len(stickers))
        missing = len(shelf.ids) - len(stickers)
        shelf.encoded = jax.tree.map(
            lambda leaf: jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)), encoded
        )
        shelf.put(stickers)
        return shelf

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def capacity(self) -> int:
        """C, a power of two."""
        return len(self.ids)

    def reserve(self, number: int) -> None:
        """Makes room for so many stickers."""
        before, size = self.capacity, max(_LEAST, power_of_two(max(number, 1)))
        if size <= before:
            return
        more = size - before
        self.ids += [None] * more
        self._tags += [()] * more
        self._free += range(size - 1, before - 1, -1)
        self._live = np.pad(self._live, (0, more))
        self._embedded = np.pad(self._embedded, (0, more))
        self._packs = np.pad(self._packs, (0, more))
        self._languages = np.pad(self._languages, (0, more))
        self._flags = {name: np.pad(flags, (0, more)) for name, flags in self._flags.items()}
        if self._empty is not None:
            added = self._empty(more)
            self.encoded = (
                jax.device_put(added)
                if self.encoded is None
                else jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self.encoded, added)
            )

    def put(
        self,
        stickers: Sequence[GallerySticker],
        encoded: Sticker | None = None,
        said: Float32[np.ndarray, "n Dt"] | None = None,
        embedded: bool = True,
    ) -> None:
        """Fills rows, those of the same ids anew.

        Args:
          stickers: what filters read of them.
          encoded: on the host, one row each; None where it is as before.
          said: likewise.
          embedded: whether they have embeddings; those without pass no filter.
        """
        new = [one.id for one in stickers if one.id not in self.rows]
        self.reserve(len(self.rows) + len(new))
        for new_id in new:
            row = self._free.pop()
            self.rows[new_id], self.ids[row] = row, new_id
        rows = np.array([self.rows[one.id] for one in stickers], np.int32)
        for row, one in zip(rows.tolist(), stickers, strict=True):
            self._live[row], self._embedded[row] = True, embedded
            for name in _FLAGS:
                self._flags[name][row] = getattr(one, name)
            self._packs[row] = self._code(one.pack)
            self._languages[row] = self._code(one.language or "")
            self._tag(row, tuple({tag.casefold() for tag in one.tags}))
        self._masks.clear()
        if said is not None and len(rows):
            missing = self.capacity - (0 if self.said is None else len(self.said))
            before = np.zeros((0, said.shape[1]), np.float32) if self.said is None else self.said
            self.said = np.pad(before, ((0, missing), (0, 0))) if missing else before
            self.said[rows] = said
        if encoded is not None and len(rows):
            # Few shapes, so that few programs are compiled: what fills up repeats the last row.
            filled = np.pad(np.arange(len(rows)), (0, power_of_two(len(rows)) - len(rows)), "edge")
            values = jax.tree.map(lambda leaf: leaf[filled], encoded)
            self.encoded = _written(self.encoded, rows[filled], values)

    def drop(self, ids: Iterable[str]) -> None:
        """Frees the rows of stickers."""
        for one in ids:
            row = self.rows.pop(one)
            self.ids[row] = None
            self._live[row] = self._embedded[row] = False
            self._tag(row, ())
            self._free.append(row)
        self._masks.clear()

    def mask(self, filters: Filters) -> Bool[np.ndarray, "C"]:
        """Returns which rows pass the filters; not to be written to."""
        general = dataclasses.replace(filters, exclude=frozenset())
        whole = self._masks.get(general)
        if whole is None:
            whole = self._mask(general)
            if len(self._masks) >= _MASKS:
                self._masks.pop(next(iter(self._masks)))
            self._masks[general] = whole
        excluded = [self.rows[one] for one in filters.exclude if one in self.rows]
        if excluded:
            whole = whole.copy()
            whole[excluded] = False
        return whole

    def searched(self, id: str) -> bool:
        """Tells whether a sticker is there and has an embedding."""
        return id in self.rows and bool(self._embedded[self.rows[id]])

    def flagged(self, name: str) -> list[str]:
        """Returns the ids of stickers with a flag."""
        return self.row_ids(np.flatnonzero(self._live & self._flags[name]))

    def packs(self, without_flags: Collection[str] = ()) -> dict[str, int]:
        """Returns name -> number of stickers that have none of some flags, in order of names."""
        counted = self._live.copy()
        for name in without_flags:
            counted &= ~self._flags[name]
        codes, counts = np.unique(self._packs[counted], return_counts=True)
        names = {code: name for name, code in self._codes.items()}
        found = zip(codes.tolist(), counts.tolist(), strict=True)
        return dict(sorted((names[code], count) for code, count in found))

    def of_pack(self, pack: str | None = None) -> list[str]:
        """Returns the ids of a pack, or of all in order of their packs, sorted."""
        names = {code: name for name, code in self._codes.items()}
        wanted = (
            self._live if pack is None else self._live & (self._packs == self._codes.get(pack, -1))
        )
        rows = np.flatnonzero(wanted)
        found = [(names[self._packs[row]], str(self.ids[row])) for row in rows.tolist()]
        return [one for _, one in sorted(found)]

    def row_ids(self, rows: Int[np.ndarray, "k"]) -> list[str]:
        """Returns the ids of rows that are filled."""
        return [str(self.ids[row]) for row in rows.tolist()]

    def _mask(self, filters: Filters) -> np.ndarray:
        passed = self._embedded & ~self._flags["hidden"]
        if not filters.adult:
            passed &= ~self._flags["adult"]
        if filters.approved_only:
            passed &= self._flags["approved"]
        if filters.packs is not None:
            passed &= np.isin(self._packs, self._known(filters.packs))
        if filters.without_packs:
            passed &= ~np.isin(self._packs, self._known(filters.without_packs))
        if filters.languages is not None:  # and those on which nothing is written
            passed &= np.isin(self._languages, self._known({*filters.languages, ""}))
        if filters.tags is not None:
            tagged = np.zeros(self.capacity, bool)
            for tag in filters.tags:
                tagged[list(self._tagged.get(tag.casefold(), ()))] = True
            passed &= tagged
        return passed

    def _known(self, names: Collection[str]) -> list[int]:
        return [self._codes[name] for name in names if name in self._codes]

    def _code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def _tag(self, row: int, tags: tuple[str, ...]) -> None:
        for tag in self._tags[row]:
            self._tagged[tag].discard(row)
            if not self._tagged[tag]:
                del self._tagged[tag]
        for tag in tags:
            self._tagged.setdefault(tag, set()).add(row)
        self._tags[row] = tags


def nearest_rows(
    shelf: Shelf, sticker: str, mask: Bool[np.ndarray, "C"], left_out: int, number: int
) -> tuple[Float32[np.ndarray, "k"], Int[np.ndarray, "k"]]:
    """Returns cosines and rows of the stickers whose embeddings are nearest to one's.

    Args:
      shelf: with embeddings in memory.
      sticker: id of the one.
      mask: which rows pass; others are -inf.
      left_out: channels at the end of an embedding that are not compared.
      number: k at most.

    Raises:
      ValueError: if the system compares pairs instead of vectors.
    """
    embedding = shelf.encoded.embedding
    width = 0 if embedding is None else embedding.shape[1] - left_out
    if width <= 0:
        raise ValueError("this system compares pairs, and no embedding tells what is alike")
    number = min(number, shelf.capacity)
    best = min(max(power_of_two(number), _ANSWERS), shelf.capacity)
    found = _nearest(embedding, shelf.rows[sticker], mask, width, best)
    cosines, rows = jax.device_get(found)
    return cosines[:number], rows[:number]


@partial(jax.jit, static_argnums=(3, 4))
def _nearest(embedding: Any, row: Any, mask: Any, width: int, number: int) -> Any:
    vectors = embedding[:, :width]
    one = vectors[row]
    dots = jnp.einsum("nd,d->n", vectors, one, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.linalg.norm(vectors, axis=1) * jnp.linalg.norm(one)
    return top_k(jnp.where(mask, dots / jnp.maximum(norms, _TINY), -jnp.inf), number)


@partial(jax.jit, donate_argnums=0)
def _written(whole: Any, rows: Any, values: Any) -> Any:
    """Returns the matrix with some rows anew, in the memory of the old one."""
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), whole, values)


def power_of_two(number: int) -> int:
    """Returns the smallest power of two that is not below a number above 0."""
    return 1 << (number - 1).bit_length()
