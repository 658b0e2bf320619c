"""Galleries too large for a matrix in memory: LanceDB's index, and exact scores of its finds."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32

from int_ra_jax.retrieval.embedding_tables import Embeddings
from int_ra_jax.retrieval.gallery_store import GalleryStore

_FIRST = 64  # candidates that are asked for first, or four times those that are wanted
_MORE, _ROUNDS = 8, 3  # times as many in the next round, and how many rounds there are
_REFINE = 4  # of how many times as many candidates the index computes the distance exactly
_PROBES = 64  # lists of the index that are read (docs/gallery.md has what fewer find)
_SELECTED = 4096  # stickers that pass a filter, up to which each of them is read


class OnDisk:
    """Searches the embeddings of one checkpoint.

    Args:
      store: of the gallery.
      checksum: of the checkpoint.
      owners: digest -> ids of the stickers whose embedding lies under it.
      rows: id -> row of the masks.
    """

    def __init__(
        self,
        store: GalleryStore,
        checksum: str,
        owners: Mapping[str, set[str]],
        rows: Mapping[str, int],
    ) -> None:
        self._store, self._checksum = store, checksum
        self._owners, self._rows = owners, rows

    def best(
        self,
        query: Float32[np.ndarray, "W"],
        mask: Bool[np.ndarray, "C"],
        number: int,
        passing: Callable[[], Sequence[str]],
    ) -> list[tuple[str, float]]:
        """Returns the best stickers that pass, with their dot products, best first.

        Where many pass, the index proposes and exact products decide; where few do, or the index
        has not found enough, all are looked at: there are ``number`` wherever so many pass.

        Args:
          query: of the same checkpoint.
          mask: which rows pass.
          number: how many are wanted.
          passing: returns the digests of those that pass.
        """
        eligible = int(mask.sum())
        if eligible <= max(_SELECTED, number):
            found = self._store.embeddings(self._checksum, passing()) if eligible else None
            return self._ranked(found, query, mask)[:number] if found else []
        asked = max(_FIRST, 4 * number)
        for _ in range(_ROUNDS):
            near = self._store.nearest(self._checksum, query, asked, _REFINE, _PROBES)
            ranked = self._ranked(near, query, mask)
            if len(ranked) >= number:
                return ranked[:number]
            asked *= _MORE
        best: list[tuple[str, float]] = []
        for some in self._store.each_embedding(self._checksum):
            best = sorted([*best, *self._ranked(some, query, mask)], key=_order)[:number]
        return best

    def _ranked(
        self, found: Embeddings, query: np.ndarray, mask: np.ndarray
    ) -> list[tuple[str, float]]:
        scores = found.rows @ query if found.digests else np.zeros(0, np.float32)
        known = zip(found.digests, scores.tolist(), strict=True)
        passed = [
            (one, score)
            for digest, score in known
            for one in self._owners.get(digest, ())
            if mask[self._rows[one]]
        ]
        return sorted(passed, key=_order)


def _order(found: tuple[str, float]) -> tuple[float, str]:
    return -found[1], found[0]
