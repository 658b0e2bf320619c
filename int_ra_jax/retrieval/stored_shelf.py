"""What of an open gallery is in memory: the shelf, brought up to what is stored."""

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from absl import logging
from jaxtyping import Float32

from int_ra_jax.common.types import Sticker
from int_ra_jax.retrieval.gallery_rows import Stored
from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.on_disk import OnDisk
from int_ra_jax.retrieval.shelf import Shelf
from int_ra_jax.retrieval.shelved import Shelved
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import GallerySticker

_REMEMBERED = 2**16  # stickers whose texts are kept in memory
_LOOK_SECONDS = 0.25  # other processes' writing is looked for no more often
_WAITS = "no embedding yet: rebuild the gallery"


class StoredShelf(Shelved):
    """A gallery that is stored, as far as it is read.

    There are three locks, and a thread takes them in this order: the store's ``writing``, which is
    for changing what is stored; ``_changing``, for bringing what is in memory up to it; ``lock``,
    for reading or changing the shelf. Who holds a later one never waits for an earlier one: so
    whoever refreshes never writes, and whoever searches never refreshes, inside ``lock``.

    Args:
      store: the tables.
      encoder: of the checkpoint that is searched.
      exact_up_to: more stickers than these are searched by LanceDB's index.
    """

    def __init__(self, store: GalleryStore, encoder: StickerEncoder, exact_up_to: int) -> None:
        self.lock = threading.RLock()
        self._store, self._encoder, self._exact_up_to = store, encoder, exact_up_to
        self._changing = threading.RLock()
        self._looked = 0.0  # when others' writing was looked for, by the monotonic clock
        self._seen = 0  # version of the store up to which all is here
        self._tried = -1  # version of the embeddings at which those that wait were looked for
        self._known: dict[str, tuple[str, int]] = {}  # id -> digest, version of its writing
        self._waiting: set[str] = set()  # those of them without an embedding of this checkpoint
        self._owners: dict[str, set[str]] = {}  # digest -> ids; of stickers searched on disk
        self._texts: OrderedDict[str, Stored] = OrderedDict()
        self._load(encoder)

    # ---- what it is -----------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        self.look()
        return self._store.version

    @property
    def checksum(self) -> str:
        """Of the checkpoint whose embeddings are searched, in hexadecimal."""
        return self._encoder.checksum

    @property
    def encoder(self) -> StickerEncoder:
        """What embeds new stickers."""
        return self._encoder

    def warm(self) -> None:
        """Compiles what a put of one sticker needs."""
        self._encoder.warm()

    @property
    def intentions(self) -> tuple[str, ...]:
        """Names of the intentions that the run knows."""
        return self._encoder.run.dataset.intentions

    @property
    def in_memory(self) -> bool:
        """Whether a matrix in memory is searched, or LanceDB's index."""
        return self.shelf.encoded is not None

    def read(self, ids: Sequence[str], *, pictures: bool = False) -> dict[str, GallerySticker]:
        """Returns stickers by their ids; those that are not there are left out.

        Intentions that nobody gave are the predicted ones where pictures are asked for, and None
        elsewhere.
        """
        self.look()
        if pictures:
            found = self._store.read(ids, pictures=True)
            return {id: self._with_predicted(one) for id, one in found.items()}
        with self.lock:
            fresh = {
                one: self._texts[one]
                for one in ids
                if one in self._texts and one in self._known
                and self._texts[one].changed == self._known[one][1]
            }  # fmt: skip
        if missing := [one for one in dict.fromkeys(ids) if one not in fresh]:
            found = self._store.read(missing)
            with self.lock:
                self._remember(found.values())
            fresh |= found
        return {one: fresh[one].sticker for one in ids if one in fresh}

    def unsearched(self) -> dict[str, str]:
        """Returns the ids of stickers that no search finds, with the reasons.

        They have no embedding of this checkpoint: it could not embed them, or nobody has let it.
        """
        with self.lock:
            waiting = {id: self._known[id][0] for id in sorted(self._waiting)}
            checksum = self.checksum
        reasons = self._store.refused(checksum) if waiting else {}
        return {id: reasons.get(digest, _WAITS) for id, digest in waiting.items()}

    # ---- searching ------------------------------------------------------------------------------

    def look(self) -> None:
        """Reads what other processes have written, four times a second at most; waits for nobody.

        Whatever reads a gallery calls it first, outside ``lock``.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self.refresh(wait=False)

    def refresh(self, *, wait: bool = True) -> bool:
        """Reads what other processes have written since; returns whether there was anything.

        Args:
          wait: whether to wait for a thread that changes the gallery right now, which reads all
            there is as well.
        """
        if not self._changing.acquire(blocking=wait):
            return False
        try:
            before, seen = self._seen, self._store.refresh()
            if seen == before and not self._waiting:
                return False
            embedded = self._store.version_of(self.checksum) if self._waiting else self._tried
            if seen == before and embedded == self._tried:
                return False
            changed = [one for some in self._store.changed_since(before) for one in some]
            self._take([one for one in changed if self._known.get(one.sticker.id) != one[1:]])
            if embedded != self._tried:
                self._take([*self._store.read([*self._waiting]).values()])
            if len(self._store) != len(self._known):
                # All that was changed is here: what else is here, is gone there.
                self._drop(self._known.keys() - self._store.digests().keys())
            self._settle()
            self._seen, self._tried = seen, embedded
            return True
        finally:
            self._changing.release()

    def row(self, id: str) -> Float32[np.ndarray, "W"]:
        """Returns the numbers of a sticker's embedding.

        Raises:
          KeyError: if there is no such sticker, or it has no embedding.
        """
        with self.lock:
            digest, _ = self._known[id]
            checksum = self.checksum
        found = self._store.embeddings(checksum, [digest])
        if not found.digests:
            raise KeyError(id)
        row: np.ndarray = found.rows[0]
        return row

    def matches(self, query: str, number: int) -> list[str]:
        """Returns the ids of stickers that have any of a query's words, the best first."""
        return self._store.matches(query, number)

    def vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "M W"]:
        """Returns the embeddings of stickers that are there; [M, 0] where pairs are compared."""
        if self.in_memory:
            return super().vectors(ids)
        with self.lock:
            digests = [self._known[one][0] for one in ids]
        found = self._store.embeddings(self.checksum, digests)
        places = {digest: place for place, digest in enumerate(found.digests)}
        rows: np.ndarray = found.rows[[places[digest] for digest in digests]]
        return rows

    def best_on_disk(
        self, queries: Float32[np.ndarray, "B W"], masks: Sequence[np.ndarray], number: int
    ) -> list[list[tuple[str, float]]]:
        """Returns the best stickers of each query with their dot products; inside ``lock``.

        Args:
          queries: of the checkpoint that is searched.
          masks: which rows of the shelf pass, for each query.
          number: how many at most.
        """
        disk = OnDisk(self._store, self.checksum, self._owners, self.shelf.rows)

        def passing(mask: np.ndarray) -> list[str]:
            return [self._known[id][0] for id in self.shelf.row_ids(np.flatnonzero(mask))]

        return [
            disk.best(query, mask, number, partial(passing, mask))
            for query, mask in zip(queries, masks, strict=True)
        ]

    def _load(self, encoder: StickerEncoder, swapped: Callable[[], None] | None = None) -> None:
        """Reads the whole gallery, and searches it from now on by a checkpoint."""
        seen = self._store.refresh()
        shelf, layout, late = self._empty(encoder), encoder.layout, list[Stored]()
        in_memory = shelf.encoded is not None
        known, owners = dict[str, tuple[str, int]](), dict[str, set[str]]()
        there = self._store.all_embeddings(encoder.checksum, rows=in_memory)
        places = {digest: place for place, digest in enumerate(there.digests)}
        for some in self._store.changed_since():
            ready = [one for one in some if one.digest in places]
            rows = [places[one.digest] for one in ready]
            encoded = layout.encoded(there.rows[rows]) if in_memory else None
            said = there.said[rows] if in_memory else None
            shelf.put([one.sticker for one in ready], encoded, said)
            known |= {one.sticker.id: one[1:] for one in ready}
            late += [one for one in some if one.digest not in places]
            for one in ready if not in_memory else ():
                owners.setdefault(one.digest, set()).add(one.sticker.id)
            if len(known) <= _REMEMBERED:
                with self.lock:
                    self._remember(ready)
        with self.lock:
            self.shelf, self._known, self._waiting, self._owners = shelf, known, set(), owners
            self._encoder, self._seen, self._tried = encoder, seen, -1
            if late:  # another process may have put them after their embeddings were read
                self._take(late)
            if swapped is not None:
                swapped()

    def _empty(self, encoder: StickerEncoder) -> Shelf:
        """Returns a shelf without stickers as what is stored asks for under a checkpoint."""
        layout = encoder.layout

        def empty(number: int) -> Sticker:
            return layout.encoded(np.zeros((number, layout.width), np.float32))

        return Shelf(empty if self._fits(encoder) else None)

    def _fits(self, encoder: StickerEncoder) -> bool:
        """Tells whether what is stored is few enough to be searched in memory."""
        return len(self._store) <= self._exact_up_to or not encoder.layout.is_vector

    def _take(self, stored: Sequence[Stored]) -> None:
        """Brings stickers that are stored into the shelf."""
        moved = [
            one for one in stored
            if self._known.get(one.sticker.id, ("",))[0] != one.digest
            or one.sticker.id in self._waiting
        ]  # fmt: skip
        there = self._store.embeddings(self.checksum, [one.digest for one in moved])
        places = {name: place for place, name in enumerate(there.digests)}
        ready = [one for one in moved if one.digest in places]
        late = [one for one in moved if one.digest not in places]
        if new := {one.sticker.id for one in late} - self._waiting:
            logging.warning(
                "%d stickers have no embedding: --mode=gallery list tells why", len(new)
            )
        encoded = said = None
        if self.in_memory and ready:
            rows = [places[one.digest] for one in ready]
            encoded, said = self._encoder.layout.encoded(there.rows[rows]), there.said[rows]
        ids = {one.sticker.id for one in moved}
        kept = [one for one in stored if one.sticker.id not in ids]
        with self.lock:
            self._disown(ids)
            self.shelf.put([one.sticker for one in ready], encoded, said)
            self.shelf.put([one.sticker for one in kept])
            self.shelf.put([one.sticker for one in late], embedded=False)
            self._known |= {one.sticker.id: one[1:] for one in (*moved, *kept)}
            self._waiting = (self._waiting - ids) | {one.sticker.id for one in late}
            if not self.in_memory:
                for one in ready:
                    self._owners.setdefault(one.digest, set()).add(one.sticker.id)
            self._remember((*moved, *kept))

    def _settle(self) -> None:
        """Goes over to the other way of searching, where the number of stickers asks for it."""
        many = len(self._known) > self._exact_up_to and self._encoder.layout.is_vector
        # Half as few before the way back, so that no gallery goes to and fro.
        few = 2 * len(self._known) <= self._exact_up_to
        if (self.in_memory and many) or (not self.in_memory and few):
            self._load(self._encoder)

    def _drop(self, ids: Iterable[str]) -> None:
        with self.lock:
            there = [one for one in ids if one in self._known]
            self._disown(there)
            self.shelf.drop(there)
            self._waiting -= {*ids}
            for one in there:
                del self._known[one]
                self._texts.pop(one, None)

    def _disown(self, ids: Iterable[str]) -> None:
        for one in ids:
            if one in self._known and (owners := self._owners.get(self._known[one][0])):
                owners.discard(one)

    def _remember(self, stored: Iterable[Stored]) -> None:
        for one in stored:
            self._texts[one.sticker.id] = one
            self._texts.move_to_end(one.sticker.id)
        while len(self._texts) > _REMEMBERED:
            self._texts.popitem(last=False)

    def _with_predicted(self, stored: Stored) -> GallerySticker:
        if stored.sticker.intentions is not None:
            return stored.sticker
        names = self._encoder.run.dataset.intentions
        found = self._store.intentions(self.checksum, stored.digest)
        predicted = dict(zip(names, found, strict=True)) if found else None
        return dataclasses.replace(stored.sticker, intentions=predicted)
