"""The open gallery: stickers that can be put, changed, hidden and removed while it is in use.

retriever = Retriever.from_workdir("runs/demo", gallery="my_stickers")
retriever.gallery.put([GallerySticker("cat_1", picture=content, pack="cats", tags=("猫",))])
ranked = retriever.reply(conversation, top_k=5, packs=["cats"])
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.common.types import Sticker
from int_ra_jax.retrieval.completion import (
    Finders,
    check_changeable,
    give_nothing,
    id_problem,
    problems,
    renamed_attributes,
)
from int_ra_jax.retrieval.description import Describe as Describe
from int_ra_jax.retrieval.description import Descriptions
from int_ra_jax.retrieval.gallery_rows import Stored, digest_of
from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.rebuild import Rebuild, embed_missing, encode_sound
from int_ra_jax.retrieval.shelved import Progress
from int_ra_jax.retrieval.shelved import ReadOnlyError as ReadOnlyError
from int_ra_jax.retrieval.sticker_encoder import Encoded, StickerEncoder
from int_ra_jax.retrieval.stickers import GallerySticker, stated
from int_ra_jax.retrieval.stored_shelf import StoredShelf

EXACT = 2**20  # stickers up to which a matrix in memory is searched
_BATCH = 64  # stickers that are embedded and written at once
_PAIRS = 2**28  # numbers of stickers that are compared in pairs: 1 GiB
_FLAGS = frozenset(("adult", "approved", "hidden"))
_AGAIN = "replaced by a later sticker of the same id"

Given = Callable[[GallerySticker], Collection[str]]
"""The names of the fields that a sticker gives, where one of its id is there already."""


class StaleGalleryError(ValueError):
    """A gallery lacks embeddings of the checkpoint that is to search it."""


class Gallery(StoredShelf):
    """Stickers in a LanceDB folder or object store, each with its embedding.

    Many processes may read one gallery; those that write a local one take turns by a lock. Every
    method may be called from any thread. What a method has returned from is on disk: it survives
    the end of the process, however it comes. Searching is the ``Retriever``'s part.
    """

    def __init__(
        self,
        store: GalleryStore,
        encoder: StickerEncoder,
        read_words: Callable[[bytes], str] | None = None,
        exact_up_to: int = EXACT,
        describe: Describe | None = None,
    ) -> None:
        """Reads what is stored; ``open`` is how it is called.

        Args:
          store: the tables.
          encoder: embeds new stickers.
          read_words: see ``open``.
          exact_up_to: likewise.
          describe: likewise.
        """
        super().__init__(store, encoder, exact_up_to)
        self._read_words, self._describe = read_words, describe

    @classmethod
    def open(
        cls,
        path: str | Path,
        run: StickerEncoder | str | Path,
        *,
        create: bool = True,
        rebuild: bool = False,
        progress: Progress | None = None,
        read_words: Callable[[bytes], str] | None = None,
        exact_up_to: int = EXACT,
        describe: Describe | None = None,
    ) -> "Gallery":
        """Opens a gallery, or makes an empty one.

        Args:
          path: a local folder, or any URI that LanceDB takes ("s3://bucket/stickers").
          run: encodes stickers; or the workdir of the run that does, by its best checkpoint.
          create: whether one is made where there is none.
          rebuild: whether embeddings of this checkpoint that are missing are made first; see
            ``rebuild`` for how to do that while others answer.
          progress: of that.
          read_words: reads what is written on a picture, "" for nothing; None reads nothing.
          exact_up_to: more stickers than these are searched by LanceDB's index with exact
            re-ranking, fewer by an exact matrix product in memory.
          describe: says what a picture shows along the attributes, several at a time; is asked of
            a put sticker that gives none, once for each picture. What it leaves empty, and all
            where it raises, is derived. None describes nothing.

        Raises:
          FileNotFoundError: if there is no gallery and ``create`` is False, or no run.
          StaleGalleryError: if it lacks embeddings of this checkpoint and ``rebuild`` is False.
          ValueError: if lancedb is not installed, or the run's system cannot embed new stickers.
        """
        store = GalleryStore(path, create)
        encoder = run if isinstance(run, StickerEncoder) else StickerEncoder.from_workdir(run)
        digests = [*store.digests().values()]
        if rebuild:
            embed_missing(store, encoder, progress)
        elif missing := len(store.missing(encoder.checksum, digests)):
            raise StaleGalleryError(
                f"{path}: {missing} of {len(digests)} stickers have no embedding of the "
                f"checkpoint in {encoder.run.workdir}. Make them: launch.py --mode=gallery "
                f"--workdir={encoder.run.workdir} --gallery={path} rebuild"
            )
        gallery = cls(store, encoder, read_words, exact_up_to, describe)
        if not gallery.in_memory:
            store.index(encoder.checksum)
        return gallery

    @property
    def writable(self) -> bool:
        """Whether stickers can be put; a run's own gallery only answers."""
        return True

    # ---- changes --------------------------------------------------------------------------------

    def put(
        self,
        stickers: Sequence[GallerySticker],
        progress: Progress | None = None,
        given: Given = stated,
    ) -> Ledger:
        """Inserts stickers, or changes those of the same id, and makes them searchable.

        Of a sticker that is there its picture is replaced, and what is given; all else stays, its
        flags too. A broken sticker does not stop the others: it is left out, and the ledger has
        its reason; what is there of its id stays as it is.

        Args:
          stickers: with pictures; of several with one id the last counts.
          progress: is called after each batch.
          given: the names of the fields that a sticker gives; by default those in which it says
            more than a bare id would, so that what is to be emptied is named here, or changed by
            ``change``.

        Returns:
          What became of each: records_in == kept + those left out, by reason.

        Raises:
          ValueError: if the system compares pairs, and there would be too many of them.
        """
        self._check_room(stickers)
        ledger = Ledger()
        last = {one.id: place for place, one in enumerate(stickers) if isinstance(one.id, str)}
        for start in range(0, len(stickers), _BATCH):
            batch = [*enumerate(stickers[start : start + _BATCH], start=start)]
            counting = [one for place, one in batch if last.get(one.id, place) == place]
            outcomes = iter(self._keep(counting, given))
            for place, one in batch:
                again = last.get(one.id, place) != place
                outcome = LeftOut(_AGAIN) if again else next(outcomes)
                ledger.judge(str(one.id), partial(_judged, outcome))
            if progress is not None:
                progress(min(start + _BATCH, len(stickers)), len(stickers))
        return ledger

    def change(self, id: str, /, **fields: Any) -> GallerySticker:
        """Changes fields of a sticker, and embeds it anew where it must be.

        Args:
          id: of the sticker.
          **fields: of ``GallerySticker``, but not ``id`` and not what is computed. ``attributes``
            may name some of the four: the others stay as they are, given or derived.

        Returns:
          The sticker as it is now.

        Raises:
          KeyError: if there is none of this id.
          ValueError: for a field that is not known, or a value that does not fit, all at once.
        """
        check_changeable(fields)
        fields = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        asks = "picture" in fields or give_nothing(fields.get("attributes"))
        seen = Descriptions(self._describe if asks else None)
        if asks and self._describe is not None:
            self._store.refresh()
            self._changed(id, fields, seen)  # nobody waits for the describer in a lock
            seen.report()
        with self._writing():
            made = self._changed(id, fields, seen)
            if made is not None:
                self._write([made], self._encoder.encode([made]))
            elif fields:
                self._mark([id], **fields)
        return self.get(id)

    def hide(self, ids: Iterable[str]) -> int:
        """Takes stickers out of all answers and keeps them; returns how many were not hidden."""
        return self._set_hidden(ids, True)

    def show(self, ids: Iterable[str]) -> int:
        """Undoes ``hide``; returns how many were hidden."""
        return self._set_hidden(ids, False)

    def remove(self, ids: Iterable[str]) -> int:
        """Removes stickers with their pictures; returns how many there were, unknown ids passed."""
        with self._writing():
            gone = [one for one in dict.fromkeys(ids) if one in self._known]
            if gone:
                self._store.delete(gone)
                self._drop(gone)
                self._settle()
            return len(gone)

    def remove_pack(self, name: str) -> int:
        """Removes all stickers of a pack; returns how many there were."""
        with self._writing():
            with self.lock:
                ids = self.shelf.of_pack(name)
            return self.remove(ids)

    def rebuild(
        self,
        run: StickerEncoder | str | Path,
        progress: Progress | None = None,
        swapped: Callable[[], None] | None = None,
        warm: Callable[[Sticker | None], Iterator[None]] | None = None,
    ) -> Rebuild:
        """Embeds all stickers by another checkpoint, in the background, and goes over to it.

        Until the last one is embedded everything is searched as before; then all of it by the new
        checkpoint. What is put meanwhile is searched at once, and embedded by both. If it is
        interrupted, the next call goes on where it stopped. The embeddings of all checkpoints
        before are kept, so that going back embeds what was put since alone; ``forget`` deletes.

        Args:
          run: the encoder, or the workdir of its run.
          progress: is called after each batch.
          swapped: is called in the moment of going over, inside ``lock``.
          warm: compiles, one program between two steps, what answers by the new checkpoint will
            need; before it goes over, with stickers of any value in as many rows as there will
            be, None where they are searched on disk.
        """
        encoder = run if isinstance(run, StickerEncoder) else StickerEncoder.from_workdir(run)

        def prepare() -> Iterator[None]:
            if warm is not None:
                shelf = self._empty(encoder)
                shelf.reserve(len(self._store))
                yield from warm(shelf.encoded)

        def go_over() -> None:
            if not self._fits(encoder):
                self._store.index(encoder.checksum)
            with self._changing:
                self._load(encoder, swapped)

        return Rebuild(self._store, encoder, progress, prepare, go_over)

    def others(self) -> list[str]:
        """Returns the checksums of other checkpoints that have embeddings, last written last."""
        return self._store.others({self.checksum})

    def forget(self, checksums: Iterable[str]) -> None:
        """Deletes the embeddings of other checkpoints; these can be made again.

        A process that still answers by one of them can take no further sticker, and must be started
        anew.
        """
        with self._writing():
            there = self.others()
            self._store.forget([one for one in dict.fromkeys(checksums) if one in there])

    # ---- inside ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Is entered by one thread of one process at a time, all others' writing read."""
        with self._store.writing(), self._changing:
            could = self.in_memory
            self.refresh()
            yield
            if could and not self.in_memory:
                self._store.index(self.checksum)

    def _finders(self, seen: Descriptions) -> Finders:
        run = self._encoder.run
        return Finders(self._read_words, run.tokenizer.emoji, run.dataset.intentions, seen.of)

    def _changed(
        self, id: str, fields: Mapping[str, Any], seen: Descriptions
    ) -> GallerySticker | None:
        """Returns a sticker with some fields anew, complete; None where they are flags alone."""
        finders = self._finders(seen)
        before = self._store.read([id], pictures=True)[id].sticker
        after = dataclasses.replace(before, **fields)
        if found := problems(after, frozenset(finders.intentions)):
            raise ValueError(f"sticker {id!r}: {'; '.join(found)}")
        if {*fields} <= _FLAGS:
            return None
        if "attributes" in fields:
            fields = {**fields, **renamed_attributes(before, fields["attributes"], finders.names)}
            after = dataclasses.replace(before, **fields)
        made = finders.completed(after, before, lambda _: fields)
        if isinstance(made, LeftOut):
            raise ValueError(f"sticker {id!r}: {made}")
        return made

    def _keep(
        self, batch: Sequence[GallerySticker], given: Given
    ) -> list[GallerySticker | LeftOut]:
        """Embeds and writes a batch; returns what became of each."""
        known = [one.id for one in batch if not id_problem(one.id)]
        before, encoder = self._store.read(known, pictures=True), self._encoder
        seen = Descriptions(self._describe)
        made, encoded = self._made(batch, before, given, self._finders(seen))
        seen.report()
        with self._writing():
            now = self._store.read(known, pictures=True)
            if encoder is not self._encoder or now != before:  # somebody else was at it since
                made, encoded = self._made(batch, now, given, self._finders(seen))
            self._write([one for one in made if isinstance(one, GallerySticker)], encoded)
        return made

    def _made(
        self,
        batch: Sequence[GallerySticker],
        before: Mapping[str, Stored],
        given: Given,
        finders: Finders,
    ) -> tuple[list[GallerySticker | LeftOut], Encoded]:
        """Returns each as it will be stored, or why it is not, and what those are encoded to."""

        def complete(one: GallerySticker) -> GallerySticker | LeftOut:
            there = before.get(str(one.id))
            return finders.completed(one, there.sticker if there else None, given)

        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
            made = [*pool.map(complete, batch)]
        good = [one for one in made if isinstance(one, GallerySticker)]
        _, encoded, broken = encode_sound(self._encoder, good)
        return [
            LeftOut("no finite embedding")
            if isinstance(one, GallerySticker) and one.id in broken
            else one
            for one in made
        ], encoded

    def _write(self, stickers: Sequence[GallerySticker], encoded: Encoded) -> None:
        if not stickers:
            return
        digests = [digest_of(one) for one in stickers]
        self._store.add_vectors(self.checksum, digests, encoded)
        self._store.write(stickers, digests)
        self.refresh()

    def _mark(self, ids: Sequence[str], **flags: bool) -> None:
        self._store.mark(ids, **flags)
        self.refresh()

    def _set_hidden(self, ids: Iterable[str], hidden: bool) -> int:
        with self._writing():
            with self.lock:
                already = {*self.shelf.flagged("hidden")}
            wanted = [one for one in dict.fromkeys(ids) if one in self._known]
            wanted = [one for one in wanted if (one in already) != hidden]
            if wanted:
                self._mark(wanted, hidden=hidden)
            return len(wanted)

    def _check_room(self, stickers: Sequence[GallerySticker]) -> None:
        layout = self._encoder.layout
        if layout.is_vector:
            return
        self.look()
        with self.lock:
            number = len(self._known.keys() | {str(one.id) for one in stickers})
        if number * layout.width > _PAIRS:
            raise ValueError(
                f"this system compares pairs: {number:,} stickers of {layout.width:,} "
                f"numbers each are more than it can search; at most {_PAIRS // layout.width:,}"
            )


def _judged(outcome: GallerySticker | LeftOut) -> None:
    if isinstance(outcome, LeftOut):
        raise outcome
