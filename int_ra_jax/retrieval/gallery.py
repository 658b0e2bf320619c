"""The open gallery: stickers that can be put, changed, hidden and removed while it is in use.

retriever = Retriever.from_workdir("runs/demo", gallery="my_stickers")
retriever.gallery.put([GallerySticker("cat_1", picture=content, pack="cats", tags=("猫",))])
ranked = retriever.reply(conversation, top_k=5, packs=["cats"])
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from int_ra_jax.common.ledger import Ledger
from int_ra_jax.retrieval.stickers import GallerySticker

if TYPE_CHECKING:
    from int_ra_jax.run.workdir import Run

Progress = Callable[[int, int], None]
"""Is called with how many are done, and how many there are."""


class ReadOnlyError(ValueError):
    """Something was to be changed in a gallery that only answers."""


class StaleGalleryError(ValueError):
    """A gallery holds embeddings of another checkpoint alone; ``rebuild`` makes the right ones."""


class Rebuild:
    """A gallery that is being embedded anew, in a thread of its own.

    Attributes:
      done: stickers that have the new embedding.
      total: stickers that need it.
      error: what ended it early, or None.
    """

    done: int
    total: int
    error: BaseException | None

    @property
    def finished(self) -> bool:
        """Whether the new embeddings answer."""
        raise NotImplementedError

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for its end and returns whether it has come; raises what ended it early."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends it after the present batch; what is done stays, and the next rebuild goes on."""
        raise NotImplementedError


class Gallery:
    """Stickers in a LanceDB folder or object store, each with its embedding.

    Many processes may read one gallery; those that write a local one take turns by a lock. Every
    method may be called from any thread. What a method has returned from is on disk: it survives
    the end of the process, however it comes. Searching is the ``Retriever``'s part.
    """

    @classmethod
    def open(
        cls,
        path: str | Path,
        run: "Run | str | Path",
        *,
        read_words: Callable[[bytes], str] | None = None,
        exact_up_to: int = 2**20,
        create: bool = True,
    ) -> "Gallery":
        """Opens a gallery, or makes an empty one.

        Args:
          path: a local folder, or any URI that LanceDB takes ("s3://bucket/stickers").
          run: the open run, or its workdir, whose encoder embeds stickers.
          read_words: reads what is written on a picture, "" for nothing; rapidocr where that is
            installed, by default.
          exact_up_to: more stickers than these are searched by LanceDB's index with exact
            re-ranking, fewer by an exact matrix product in memory.
          create: whether one is made where there is none.

        Raises:
          FileNotFoundError: if there is no gallery and ``create`` is False, or no run.
          StaleGalleryError: if it holds embeddings of another checkpoint; see ``rebuild``.
          ValueError: if lancedb is not installed, or the run's system cannot embed new stickers.
        """
        raise NotImplementedError

    def put(self, stickers: Sequence[GallerySticker], progress: Progress | None = None) -> Ledger:
        """Inserts stickers, or replaces those of the same id, and makes them searchable.

        A broken sticker does not stop the others: it is left out, and the ledger has its reason.

        Args:
          stickers: with pictures; of several with one id the last counts.
          progress: is called after each batch.

        Returns:
          What became of each: records_in == kept + those left out, by reason.

        Raises:
          ReadOnlyError: if the gallery is a run's own.
        """
        raise NotImplementedError

    def change(self, id: str, **fields: Any) -> GallerySticker:
        """Changes fields of a sticker, and embeds it anew where it must be.

        Args:
          id: of the sticker.
          **fields: of ``GallerySticker``, but not ``id``.

        Returns:
          The sticker as it is now.

        Raises:
          KeyError: if there is none of this id.
          ValueError: for a field that is not known, or a value that does not fit, all at once.
          ReadOnlyError: if the gallery is a run's own.
        """
        raise NotImplementedError

    def hide(self, ids: Sequence[str]) -> int:
        """Takes stickers out of all answers and keeps them; returns how many were not hidden."""
        raise NotImplementedError

    def show(self, ids: Sequence[str]) -> int:
        """Undoes ``hide``; returns how many were hidden."""
        raise NotImplementedError

    def remove(self, ids: Sequence[str]) -> int:
        """Removes stickers with their pictures; returns how many there were, unknown ids passed."""
        raise NotImplementedError

    def remove_pack(self, name: str) -> int:
        """Removes all stickers of a pack; returns how many there were."""
        raise NotImplementedError

    def get(self, id: str) -> GallerySticker:
        """Returns a sticker with its picture, hidden or not.

        Raises:
          KeyError: if there is none of this id.
        """
        raise NotImplementedError

    def picture(self, id: str) -> tuple[bytes, str]:
        """Returns a sticker's file and its media type.

        Raises:
          KeyError: if there is none of this id.
        """
        raise NotImplementedError

    def stickers(
        self, pack: str | None = None, *, offset: int = 0, limit: int | None = None
    ) -> Iterator[GallerySticker]:
        """Yields stickers in order of pack and id, hidden ones too, without their pictures.

        Args:
          pack: of one pack alone.
          offset: how many are passed over.
          limit: how many at most.
        """
        raise NotImplementedError

    def packs(self) -> Mapping[str, int]:
        """Returns name -> number of stickers, hidden ones counted, in order of the names."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Returns the number of stickers, hidden ones counted."""
        raise NotImplementedError

    def __contains__(self, id: object) -> bool:
        """Tells whether there is a sticker of this id."""
        raise NotImplementedError

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        raise NotImplementedError

    @property
    def checksum(self) -> str:
        """Of the checkpoint whose embeddings are searched, in hexadecimal."""
        raise NotImplementedError

    @property
    def writable(self) -> bool:
        """Whether stickers can be put; a run's own gallery only answers."""
        raise NotImplementedError

    def refresh(self) -> bool:
        """Reads what other processes have written since; returns whether there was anything.

        A ``Retriever`` calls it before it answers, at most once in ``refresh_seconds``.
        """
        raise NotImplementedError
