"""What a product imports: a conversation in, ranked stickers out.

    retriever = Retriever.from_workdir("runs/demo")
    ranked = retriever.reply(conversation, top_k=5)

The gallery is encoded once for each checkpoint; a search then encodes one conversation.
"""

import time
from collections.abc import Collection, Sequence
from pathlib import Path

import jax
import numpy as np

from int_ra_jax.common.types import RankedList, RankedSticker, Sticker
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.data.text import Unread
from int_ra_jax.models.interface import Params
from int_ra_jax.retrieval.engine import Engine, Ranked, programs_kept
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.rebuild import Progress, Rebuild
from int_ra_jax.retrieval.shelf import nearest_rows
from int_ra_jax.retrieval.shelved import RunGallery, Shelved
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import Filters, GallerySticker
from int_ra_jax.run.workdir import Run, open_run

_EVERYTHING = Filters()
_REFRESH_SECONDS = 0.25  # other processes' writing is looked for no more often


class Retriever:
    """Searches a gallery by the best checkpoint of a run.

    Its methods may be called from any thread.

    Args:
      run: the open workdir.
      params: parameters of its system.
      gallery: an open gallery, or its path; None for the stickers that the run was trained on.
    """

    def __init__(
        self, run: Run, params: Params, gallery: "Gallery | str | Path | None" = None
    ) -> None:
        self._engine = Engine(run, params)
        self._gallery = self._opened(self._engine, gallery)
        self._refreshed = time.monotonic()

    @classmethod
    def from_workdir(
        cls, workdir: str | Path, gallery: "Gallery | str | Path | None" = None
    ) -> "Retriever":
        """Loads the best checkpoint of a run; nothing but the directory is needed.

        Args:
          workdir: of the run.
          gallery: an open gallery, or its path, where one is made if there is none; None for the
            stickers that the run was trained on.

        Raises:
          FileNotFoundError: if the workdir or its checkpoint does not exist.
          StaleGalleryError: if the gallery lacks embeddings of this checkpoint.
          ValueError: if an open gallery is of another checkpoint, or the system knows no stickers
            but those of its training.
        """
        run = open_run(Path(workdir))
        with programs_kept(run):
            params, _ = run.restore_best()
        return cls(run, params, gallery)

    @property
    def run(self) -> Run:
        """The open run."""
        return self._engine.run

    @property
    def gallery(self) -> Shelved:
        """The gallery that is searched: the run's own, which only answers, or an open one."""
        return self._gallery

    @property
    def width(self) -> int:
        """Channels of a sticker's embedding, where the system compares vectors."""
        return self._engine.run.system.embedding_width

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
    ) -> RankedList:
        """Returns the best stickers for a conversation, and its predicted intention.

        Filters act before ranking: there are ``top_k`` stickers in the answer wherever so many
        pass them, and ``RankedList.eligible`` says how many do.

        Args:
          conversation: its turns, reply speaker and, if there is any, knowledge; see
            ``read_conversation``. Split, sticker and intention are not read.
          top_k: how many stickers, at least 1.
          packs: see ``Filters``, as are the rest.
          tags: likewise.
          languages: likewise.
          adult: likewise.
          approved_only: likewise.
          exclude: likewise.

        Raises:
          ValueError: if top_k is below 1, or a text holds half a character.
        """
        asked = filters(packs, tags, languages, adult, approved_only, exclude)
        return self.reply_many([conversation], top_k=top_k, asked=asked)[0]

    def reply_many(
        self,
        conversations: Sequence[Conversation],
        *,
        top_k: int = 5,
        asked: Filters | Sequence[Filters] = _EVERYTHING,
    ) -> list[RankedList]:
        """Returns one ranked list per conversation, in batches; see ``reply``.

        Args:
          conversations: any number of them.
          top_k: how many stickers each.
          asked: filters for all of them, or one for each.

        Raises:
          ValueError: as ``reply``, or if there are not as many filters as conversations.
        """
        if not conversations:
            return []
        each = [asked] * len(conversations) if isinstance(asked, Filters) else [*asked]
        if len(each) != len(conversations):
            raise ValueError(f"{len(each)} filters for {len(conversations)} conversations")
        _check_top_k(top_k)
        self._refresh()
        gallery = self._gallery
        with gallery.lock:  # which checkpoint answers, and what it is asked about, is one thing
            engine = self._engine
            tokens, unread = engine.compose(conversations)
            masks = [gallery.shelf.mask(one) for one in each]
            if gallery.shelf.encoded is not None:
                number = min(top_k, gallery.shelf.capacity)
                ranked = engine.rank(tokens, gallery.shelf.encoded, masks, number)
                found = [
                    _passing(gallery, scores, rows)
                    for scores, rows in zip(ranked.scores, ranked.rows, strict=True)
                ]
                probable = ranked.probabilities
            else:
                assert isinstance(gallery, Gallery)  # a run's own gallery is in memory
                queries, probable = engine.queries(tokens)
                found = gallery.best_on_disk(queries, masks, top_k)
            eligible = [int(mask.sum()) for mask in masks]
        names = engine.run.dataset.intentions
        return [
            self._listed(*row, names) for row in zip(found, eligible, probable, unread, strict=True)
        ]

    def search(
        self,
        words: str,
        *,
        top_k: int = 5,
        packs: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        languages: Collection[str] | None = None,
        adult: bool = False,
        approved_only: bool = False,
        exclude: Collection[str] = (),
    ) -> RankedList:
        """Returns the stickers that suit typed words, "crying cat" or "猫 挥手".

        Args:
          words: what is looked for.
          top_k: how many stickers, at least 1.
          packs: see ``Filters``, as are the rest.
          tags: likewise.
          languages: likewise.
          adult: likewise.
          approved_only: likewise.
          exclude: likewise.

        Raises:
          ValueError: if nothing is asked for, top_k is below 1, or a text holds half a character.
        """
        if not words.strip():
            raise ValueError("nothing but blanks is asked for; give some words")
        said = Conversation("words", "test", (Turn("A", words),), "B", "", "")
        asked = filters(packs, tags, languages, adult, approved_only, exclude)
        return self.reply_many([said], top_k=top_k, asked=asked)[0]

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

        Scores are cosines; what the embeddings hold of intentions is no part of them.

        Args:
          sticker: id of a sticker of the gallery, hidden or not.
          top_k: how many, at least 1.
          packs: see ``Filters``, as are the rest.
          tags: likewise.
          languages: likewise.
          adult: likewise.
          approved_only: likewise.
          exclude: likewise.

        Raises:
          KeyError: if the gallery has no such sticker.
          ValueError: if top_k is below 1, or the system compares pairs instead of vectors.
        """
        _check_top_k(top_k)
        self._refresh()
        asked = filters(packs, tags, languages, adult, approved_only, {*exclude, sticker})
        gallery = self._gallery
        with gallery.lock:
            if sticker not in gallery.shelf.rows:
                raise KeyError(sticker)
            mask = gallery.shelf.mask(asked)
            own = self._engine.run.system.intention_width
            if gallery.shelf.encoded is not None:
                found = _passing(gallery, *nearest_rows(gallery.shelf, sticker, mask, own, top_k))
            else:
                assert isinstance(gallery, Gallery)  # a run's own gallery is in memory
                row = gallery.row(sticker)
                row[len(row) - own :] = 0
                found = gallery.best_on_disk(row[None] / np.linalg.norm(row), [mask], top_k)[0]
        return self._listed(found, int(mask.sum()), np.zeros(0, np.float32), Unread(), ())

    def warm(self, batches: Sequence[int], *, top_k: int = 5) -> None:
        """Compiles what replies to so many conversations at once need, of every length.

        Args:
          batches: numbers of conversations.
          top_k: how many stickers will be asked for.
        """
        text, words = self._engine.run.config.text, "a "
        for number in batches:
            for length in range(1, text.context_tokens + 8, 4):
                said = Conversation("warm", "test", (Turn("A", words * length),), "B", "", "")
                self.reply_many([said] * number, top_k=top_k)

    def move_to(self, workdir: str | Path, progress: Progress | None = None) -> Rebuild:
        """Goes over to another checkpoint, while the present one answers; see ``Rebuild``.

        The gallery is embedded anew in the background. When all of it is, the next answer is by
        the new checkpoint alone; never does one mix the two. If it is interrupted, the same call
        goes on where it stopped.

        Args:
          workdir: of the run with the other checkpoint; it may be the present one's, trained on.
          progress: is called after each batch.

        Raises:
          FileNotFoundError: if the workdir or its checkpoint does not exist.
          ValueError: if the run's own gallery is searched, which has no other checkpoint; or the
            new system knows no stickers but those of its training.
        """
        gallery = self._gallery
        if not isinstance(gallery, Gallery):
            raise ValueError(
                "the run's own gallery is searched, which is encoded with each checkpoint: open "
                f"the other one by Retriever.from_workdir({str(workdir)!r})"
            )
        run = open_run(Path(workdir))
        with programs_kept(run):
            params, _ = run.restore_best()
        engine = Engine(run, params)

        def swapped() -> None:
            self._engine = engine

        return gallery.rebuild(StickerEncoder(run, params), progress, swapped)

    def rank(
        self, conversations: Sequence[Conversation], gallery: Sticker, top_k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranks any encoded gallery, such as one of a million stickers.

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
        number = len(jax.tree.leaves(gallery)[0])
        if not 1 <= top_k <= number:
            raise ValueError(f"top_k={top_k} of a gallery of {number} stickers; use 1 to {number}.")
        tokens, _ = self._engine.compose(conversations)
        masks = [np.ones(number, bool)] * len(conversations)
        found: Ranked = self._engine.rank(tokens, gallery, masks, top_k)
        return found.scores, found.rows, found.probabilities

    def _opened(self, engine: Engine, gallery: "Gallery | str | Path | None") -> Shelved:
        run, params = engine.run, engine.params
        if gallery is None:
            return RunGallery(run, params, engine.own_gallery())
        encoder = StickerEncoder(run, params)
        if not isinstance(gallery, Gallery):
            return Gallery.open(gallery, encoder)
        if gallery.checksum != encoder.checksum:
            raise ValueError(
                f"the gallery is open with embeddings of another checkpoint than {run.workdir}'s: "
                "open it by Gallery.open(path, workdir), or move to the checkpoint by move_to"
            )
        return gallery

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = now
            self._gallery.refresh(wait=False)

    def _listed(
        self,
        found: Sequence[tuple[str, float]],
        eligible: int,
        probabilities: np.ndarray,
        unread: Unread,
        names: Sequence[str],
    ) -> RankedList:
        stickers = self._gallery.read([id for id, _ in found])
        # Another process may have removed one between search and reading.
        known = [(stickers[id], score) for id, score in found if id in stickers]
        order = np.argsort(-probabilities, kind="stable")
        return RankedList(
            stickers=[
                RankedSticker(
                    rank, one.id, float(score), self._image(one), dict(one.attributes), one.pack
                )
                for rank, (one, score) in enumerate(known, start=1)
            ],
            intention=names[order[0]] if len(order) else None,
            intention_probabilities={names[k]: float(probabilities[k]) for k in order},
            tokens=unread.tokens,
            unknown=dict(unread.unknown),
            eligible=eligible,
        )

    def _image(self, sticker: GallerySticker) -> str:
        return self._gallery.image(sticker.id) if isinstance(self._gallery, RunGallery) else ""


def filters(
    packs: Collection[str] | None,
    tags: Collection[str] | None,
    languages: Collection[str] | None,
    adult: bool,
    approved_only: bool,
    exclude: Collection[str],
) -> Filters:
    """Returns what was asked for as filters.

    Raises:
      ValueError: where one text stands in the place of several.
    """
    several = {"packs": packs, "tags": tags, "languages": languages, "exclude": exclude}
    if wrong := [name for name, value in several.items() if isinstance(value, str)]:
        raise ValueError(f"{', '.join(wrong)}: give a list of texts, not one text")
    sets = {name: None if value is None else frozenset(value) for name, value in several.items()}
    excluded = sets.pop("exclude") or frozenset()
    return Filters(**sets, adult=adult, approved_only=approved_only, exclude=excluded)


def _passing(gallery: Shelved, scores: np.ndarray, rows: np.ndarray) -> list[tuple[str, float]]:
    """Returns ids and scores of those that pass the filters."""
    passed = scores > -np.inf
    ids = gallery.shelf.row_ids(rows[passed])
    return [*zip(ids, scores[passed].tolist(), strict=True)]


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: ask for at least 1 sticker.")
