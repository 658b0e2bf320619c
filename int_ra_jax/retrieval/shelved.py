"""What every gallery answers, the run's own and an open one."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32

from int_ra_jax.common.ledger import Ledger
from int_ra_jax.common.types import Sticker
from int_ra_jax.data.copies import Fingerprint
from int_ra_jax.models.interface import Params
from int_ra_jax.retrieval import words
from int_ra_jax.retrieval.completion import language_of
from int_ra_jax.retrieval.gallery_rows import called
from int_ra_jax.retrieval.shelf import Shelf
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder, checksum
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.run.workdir import Run

Progress = Callable[[int, int], None]
"""Is called with how many are done, and how many there are."""

_READING = ("common", "data", "models", "run", "retrieval/words.py")
_READ = 500  # stickers that are read at once
_GATHERED = 512  # embeddings that are read at once, so that one program reads any number


class ReadOnlyError(ValueError):
    """Something was to be changed in a gallery that only answers."""


class Shelved:
    """A gallery, as far as it is read: it refuses all changes.

    Attributes:
      shelf: what is searched; read and written inside ``lock`` alone.
      lock: is held by whoever reads or writes the shelf.
    """

    shelf: Shelf
    lock: threading.RLock

    @property
    def writable(self) -> bool:
        """Whether stickers can be put; a run's own gallery only answers."""
        return False

    def warm(self) -> None:
        """Compiles what a put of one sticker needs."""

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return 0

    @property
    def checksum(self) -> str:
        """Of the checkpoint whose embeddings are searched, in hexadecimal."""
        raise NotImplementedError

    def read(self, ids: Sequence[str], *, pictures: bool = False) -> dict[str, GallerySticker]:
        """Returns stickers by their ids; those that are not there are left out."""
        raise NotImplementedError

    def refresh(self, *, wait: bool = True) -> bool:
        """Reads what other processes have written since; returns whether there was anything.

        Args:
          wait: whether to wait for a thread that changes the gallery right now.
        """
        return False

    def look(self) -> None:
        """Reads what other processes have written since, if it is time to look again."""

    def put(self, stickers: Sequence[GallerySticker], progress: Progress | None = None) -> Ledger:
        """Inserts or replaces stickers; see ``Gallery.put``.

        Raises:
          ReadOnlyError: if the gallery only answers.
        """
        raise _only_answers()

    def change(self, id: str, /, **fields: Any) -> GallerySticker:
        """Changes fields of a sticker; see ``put`` and ``Gallery.change``."""
        raise _only_answers()

    def hide(self, ids: Iterable[str]) -> int:
        """Takes stickers out of all answers; see ``put`` and ``Gallery.hide``."""
        raise _only_answers()

    def show(self, ids: Iterable[str]) -> int:
        """Undoes ``hide``; see ``put`` and ``Gallery.show``."""
        raise _only_answers()

    def remove(self, ids: Iterable[str]) -> int:
        """Removes stickers; see ``put`` and ``Gallery.remove``."""
        raise _only_answers()

    def remove_pack(self, name: str) -> int:
        """Removes all stickers of a pack; see ``put`` and ``Gallery.remove_pack``."""
        raise _only_answers()

    def matches(self, query: str, number: int) -> list[str]:
        """Returns the ids of stickers that have any of a query's words, the best first."""
        raise NotImplementedError

    def said(self) -> Float32[np.ndarray, "C Dt"] | None:
        """Returns what typed words are compared with, None where it is not in memory."""
        return self.shelf.said

    def looks(self, ids: Sequence[str]) -> dict[str, Fingerprint]:
        """Returns what tells copies, of those stickers that are there."""
        return {id: Fingerprint.from_bytes(one.looks) for id, one in self.read(ids).items()}

    def vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "M W"]:
        """Returns the embeddings of stickers that are there; [M, 0] where pairs are compared."""
        with self.lock:
            embedding = getattr(self.shelf.encoded, "embedding", None)
            if embedding is None:
                return np.zeros((len(ids), 0), np.float32)
            rows = np.array([self.shelf.rows[one] for one in ids], np.int32)
            filled = np.pad(rows, (0, _GATHERED - len(rows) % _GATHERED))
            return np.asarray(embedding[filled])[: len(rows)]

    def get(self, id: str) -> GallerySticker:
        """Returns a sticker with its picture, hidden or not.

        Raises:
          KeyError: if there is none of this id.
        """
        return self.read([id], pictures=True)[id]

    def picture(self, id: str) -> tuple[bytes, str]:
        """Returns a sticker's file and its media type.

        Raises:
          KeyError: if there is none of this id.
        """
        found = self.read([id], pictures=True)[id]
        return found.picture, found.media_type

    def stickers(
        self,
        pack: str | None = None,
        *,
        offset: int = 0,
        limit: int | None = None,
        without: Collection[str] = (),
    ) -> Iterator[GallerySticker]:
        """Yields stickers in order of pack and id, hidden ones too, without their pictures.

        Args:
          pack: of one pack alone.
          offset: how many are passed over.
          limit: how many at most.
          without: ids that are left out, and count for neither.
        """
        self.look()
        with self.lock:
            ids = [one for one in self.shelf.of_pack(pack) if one not in without]
        ids = ids[offset:][:limit]
        for start in range(0, len(ids), _READ):
            some = ids[start : start + _READ]
            found = self.read(some)
            yield from (found[one] for one in some if one in found)

    def packs(self, *, without_flags: Collection[str] = ()) -> Mapping[str, int]:
        """Returns name -> number of stickers, hidden ones counted, in order of the names.

        Args:
          without_flags: stickers that have one of these ("hidden", "adult", "approved") are not
            counted, and packs of no other are left out.
        """
        self.look()
        with self.lock:
            return self.shelf.packs(without_flags)

    def flagged(self, name: str) -> list[str]:
        """Returns the ids of the stickers with a flag: hidden, adult or approved."""
        self.look()
        with self.lock:
            return self.shelf.flagged(name)

    def __len__(self) -> int:
        """Returns the number of stickers, hidden ones counted."""
        self.look()
        with self.lock:
            return len(self.shelf)

    def __contains__(self, id: object) -> bool:
        """Tells whether there is a sticker of this id."""
        self.look()
        with self.lock:
            return id in self.shelf.rows


class RunGallery(Shelved):
    """The stickers that a run was trained on, which only answer.

    Args:
      run: the open run.
      params: of its system.
      encoded: its gallery.
    """

    def __init__(self, run: Run, params: Params, encoded: Sticker) -> None:
        self.lock = threading.RLock()
        self._run, self._params = run, params
        self._looks: dict[str, Fingerprint] = {}
        # What filters read; the rest is read when it is asked for.
        self.shelf = Shelf.of(
            [self._sticker(row) for row in range(len(run.dataset.stickers))], encoded
        )

    @property
    def checksum(self) -> str:
        """Of the checkpoint whose embeddings are searched, in hexadecimal."""
        return checksum(self._run, self._params)

    def read(self, ids: Sequence[str], *, pictures: bool = False) -> dict[str, GallerySticker]:
        """Returns stickers by their ids; those that are not there are left out."""
        rows = self._run.dataset.sticker_rows
        return {one: self._sticker(rows[one], True, pictures) for one in ids if one in rows}

    def matches(self, query: str, number: int) -> list[str]:
        """Returns the ids of stickers that have any of a query's words, the best first."""
        return words.matches(self._terms, query, number)

    def said(self) -> Float32[np.ndarray, "C Dt"]:
        """Returns what typed words are compared with, which is kept in the workdir."""
        if self.shelf.said is None:
            run, encoder = self._run, StickerEncoder(self._run, self._params)

            def compute() -> np.ndarray:
                run.kept.forget("said")
                return encoder.said(self._whole)

            kept = run.kept.get("said", lambda: [*run.sources(_READING), encoder.checksum], compute)
            missing = self.shelf.capacity - len(self._whole)
            self.shelf.said = np.pad(np.asarray(kept), ((0, missing), (0, 0)))
        return self.shelf.said

    @cached_property
    def _terms(self) -> Any:
        texts = [words.terms_of(**called(one)) for one in self._whole]
        return words.in_memory([one.id for one in self._whole], texts)

    @property
    def _whole(self) -> list[GallerySticker]:
        return [self._sticker(row) for row in range(len(self._run.dataset.stickers))]

    def looks(self, ids: Sequence[str]) -> dict[str, Fingerprint]:
        """Returns what tells copies of stickers that are there, computed once for each."""
        for one in ids:
            if one not in self._looks:
                self._looks[one] = Fingerprint.of_file(self.picture(one)[0])
        return {one: self._looks[one] for one in ids}

    def image(self, id: str) -> str:
        """Returns the path of a sticker's picture in the prepared directory."""
        return self._run.dataset.stickers[self._run.dataset.sticker_rows[id]].image

    def _sticker(self, row: int, whole: bool = False, picture: bool = False) -> GallerySticker:
        dataset = self._run.dataset
        entry = dataset.stickers[row]
        verbal = entry.attributes["verbal"]
        more: dict[str, Any] = {}
        if whole:
            from int_ra_jax.data.images import media_type

            known = zip(dataset.intentions, self._run.annotations[row].tolist(), strict=True)
            more = {"intentions": {name: 1.0 for name, has in known if has}}
            more |= {"intentions_given": True}
            if picture:
                content = dataset.image(row)
                more |= {"picture": content, "media_type": media_type(content)}
        return GallerySticker(
            id=entry.id,
            pack=str(entry.extra.get("pack", "")),
            name=str(entry.extra.get("name", "")),
            attributes=entry.attributes,
            tags=entry.tags,
            emoji=tuple(map(str, entry.extra.get("emoji", ()))),
            words=verbal,
            language=language_of(verbal),
            adult=entry.extra.get("adult") is True,
            approved=True,
            **more,
        )


def _only_answers() -> ReadOnlyError:
    return ReadOnlyError("the run's own gallery only answers: name one by --gallery=DIR")
