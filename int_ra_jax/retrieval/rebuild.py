"""A gallery is embedded by another checkpoint, in the background."""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.shelved import Progress
from int_ra_jax.retrieval.sticker_encoder import Encoded, StickerEncoder
from int_ra_jax.retrieval.stickers import GallerySticker

_BATCH = 64  # stickers that are embedded and written at once


class Rebuild:
    """A gallery that is being embedded anew, in a thread of its own, which is started here.

    Attributes:
      done: stickers that have the new embedding.
      total: stickers that need it.
      error: what ended it early, or None.
    """

    def __init__(
        self,
        store: GalleryStore,
        encoder: StickerEncoder,
        progress: Progress | None,
        prepare: Callable[[], Iterator[None]],
        go_over: Callable[[], None],
    ) -> None:
        """Starts.

        Args:
          store: of the gallery.
          encoder: of the new checkpoint.
          progress: is called after each batch.
          prepare: gets ready for going over, in steps, while others write; again whenever they
            have written.
          go_over: is called once nothing is missing, while nobody can write.
        """
        self.done, self.total = 0, 0
        self.error: BaseException | None = None
        self._store, self._encoder = store, encoder
        self._progress, self._prepare, self._go_over = progress, prepare, go_over
        self._stop, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="rebuild", daemon=True)
        self._thread.start()

    @property
    def finished(self) -> bool:
        """Whether the new embeddings answer."""
        return self._over

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for its end and returns whether the new embeddings answer.

        Args:
          seconds: how long at most; None for as long as it takes.

        Raises:
          BaseException: what ended it early.
        """
        self._thread.join(seconds)
        if self.error is not None:
            raise self.error
        return self._over

    def stop(self) -> None:
        """Ends it after the present batch or program; the next rebuild goes on from there."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                embed_missing(self._store, self._encoder, self._note, self._stop)
                for _ in self._prepare():
                    if self._stop.is_set():
                        break
                with self._store.writing():
                    digests = self._store.digests().values()
                    if self._stop.is_set() or self._store.missing(self._encoder.checksum, digests):
                        continue  # something was put since
                    self._go_over()
                    self._over = True
                    return
        except BaseException as error:  # it is raised again by ``wait``
            logging.error("the gallery could not be embedded anew: %s", error)
            self.error = error

    def _note(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._progress is not None:
            self._progress(done, total)


def embed_missing(
    store: GalleryStore,
    encoder: StickerEncoder,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Makes the embeddings of a checkpoint that a gallery lacks.

    Stickers that it cannot embed are passed over, and the gallery keeps why. Each call tries these
    again.

    Args:
      store: of the gallery.
      encoder: of the checkpoint.
      progress: is called after each batch.
      stop: ends it after the present batch.
    """
    store.refresh()
    owners = {digest: id for id, digest in store.digests().items()}
    missing = store.missing(encoder.checksum, owners, refused=True)
    total, done = len(owners), len(owners) - len(missing)
    for start in range(0, len(missing), _BATCH):
        if stop is not None and stop.is_set():
            break
        batch = missing[start : start + _BATCH]
        found = store.read([owners[one] for one in batch], pictures=True)
        read = {one.sticker.id: one for one in found.values() if one.digest in {*batch}}
        sound, encoded, reasons = encode_sound(encoder, [one.sticker for one in read.values()])
        for id, reason in reasons.items():
            logging.warning("sticker %r cannot be embedded, and is not found: %s", id, reason)
        with store.writing():
            if sound:
                digests = [read[one.id].digest for one in sound]
                store.add_vectors(encoder.checksum, digests, encoded)
            if reasons:
                whys = {read[id].digest: reason for id, reason in reasons.items()}
                store.refuse(encoder.checksum, whys)
        done += len(batch)
        if progress is not None:
            progress(done, total)


def encode_sound(
    encoder: StickerEncoder, stickers: Sequence[GallerySticker]
) -> tuple[list[GallerySticker], Encoded, dict[str, str]]:
    """Returns the stickers that can be embedded, what they are encoded to, and id -> why not."""
    try:
        return list(stickers), encoder.encode(stickers), {}
    except ValueError as error:
        if len(stickers) == 1:
            return [], encoder.encode([]), {stickers[0].id: str(error)}
    parts = [encode_sound(encoder, [one]) for one in stickers]
    encoded = Encoded(*map(np.concatenate, zip(*(one for _, one, _ in parts), strict=True)))
    reasons = {id: why for _, _, whys in parts for id, why in whys.items()}
    return [one for sound, _, _ in parts for one in sound], encoded, reasons
