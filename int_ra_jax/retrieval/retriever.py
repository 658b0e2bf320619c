"""What a product imports: a conversation in, ranked stickers out.

    retriever = Retriever.from_workdir("runs/demo")
    ranked = retriever.reply(conversation, top_k=5)

The gallery is encoded once for each checkpoint; a search then encodes one conversation.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from int_ra_jax.common.types import RankedList, Sticker
from int_ra_jax.data.schema import Conversation
from int_ra_jax.data.text import Unread
from int_ra_jax.models.interface import Params
from int_ra_jax.retrieval.answer import best_of, listed, passing
from int_ra_jax.retrieval.engine import Engine, programs_kept
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.ordering import by_words, chosen_of, lifted
from int_ra_jax.retrieval.rebuild import Rebuild
from int_ra_jax.retrieval.shelf import nearest_rows
from int_ra_jax.retrieval.shelved import Progress, RunGallery, Shelved
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import Filters, GallerySticker, Habits
from int_ra_jax.retrieval.variety import candidates
from int_ra_jax.run.workdir import Run, open_run

_EVERYTHING = Filters()
_Named = Gallery | str | Path | None


class Retriever:
    """Searches a gallery by the best checkpoint of a run.

    Its methods may be called from any thread.

    Args:
      run: the open workdir.
      params: parameters of its system.
      gallery: an open gallery, or its path; None for the stickers that the run was trained on.
      create: whether a gallery is made where the path has none.
    """

    def __init__(
        self, run: Run, params: Params, gallery: _Named = None, *, create: bool = True
    ) -> None:
        self._engine = Engine(run, params)
        self._gallery = self._opened(self._engine, gallery, create)

    @classmethod
    def from_workdir(
        cls, workdir: str | Path, gallery: _Named = None, *, create: bool = True
    ) -> "Retriever":
        """Loads the best checkpoint of a run; nothing but the directory is needed.

        Args:
          workdir: of the run.
          gallery: an open gallery, or its path; None for the stickers that the run was trained on.
          create: whether a gallery is made where the path has none.

        Raises:
          FileNotFoundError: if the workdir, its checkpoint, or a gallery that is not to be made
            does not exist.
          StaleGalleryError: if the gallery lacks embeddings of this checkpoint.
          ValueError: if an open gallery is of another checkpoint, or the system knows no stickers
            but those of its training.
        """
        run = open_run(Path(workdir))
        with programs_kept(run):
            params, _ = run.restore_best()
        return cls(run, params, gallery, create=create)

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
        without_packs: Collection[str] = (),
        recent: Sequence[str] = (),
        habits: Habits | None = None,
        variety: float = 0.0,
    ) -> RankedList:
        """Returns the best stickers for a conversation, and its predicted intention.

        Filters act before ranking: there are ``top_k`` stickers in the answer wherever so many
        pass them, and ``RankedList.eligible`` says how many do.

        Args:
          conversation: its turns, reply speaker and, if there is any, knowledge; see
            ``read_conversation``. Split, sticker and intention are not read.
          top_k: how many stickers, at least 1.
          packs: see ``Filters``, as are the next six.
          tags: likewise.
          languages: likewise.
          adult: likewise.
          approved_only: likewise.
          exclude: likewise.
          without_packs: likewise.
          recent: ids that were just sent; these and their copies come last.
          habits: what the person sent before; their stickers rise. Scores are log-probabilities
            then, but for a constant.
          variety: in [0, 1]; above 0 copies come last, and what is like a better sticker later.

        Raises:
          ValueError: if top_k or variety is out of range, or a text holds half a character.
        """
        asked = Filters.of(packs, tags, languages, adult, approved_only, exclude, without_packs)
        if not recent and habits is None and variety == 0:
            return self.reply_many([conversation], top_k=top_k, asked=asked)[0]
        _check_top_k(top_k)
        self._gallery.look()
        gallery, number = self._gallery, candidates(top_k, len(recent))
        history = () if habits is None else habits.recent
        with gallery.lock:
            engine = self._engine
            tokens, unread = engine.compose([conversation])
            mask = gallery.shelf.mask(asked)
            own = [
                row for id in (*recent, *history) if (row := gallery.shelf.rows.get(id)) is not None
            ]
            sent = np.zeros_like(mask)
            sent[own] = mask[own]
            (best,), probable = best_of(engine, gallery, tokens, [mask], number)
            (known,), _ = best_of(engine, gallery, tokens, [sent], max(1, len({*own})))
        eligible, left_out = int(mask.sum()), engine.run.system.intention_width
        found = dict(best) | dict(known)
        if habits is not None:
            found = lifted(found, habits, eligible, engine.scale)
        chosen = chosen_of(gallery, found, top_k, variety, recent, left_out)
        return listed(
            gallery, chosen, eligible, probable[0], unread[0], engine.run.dataset.intentions
        )

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
        self._gallery.look()
        gallery = self._gallery
        with gallery.lock:  # which checkpoint answers, and what it is asked about, is one thing
            engine = self._engine
            tokens, unread = engine.compose(conversations)
            masks = [gallery.shelf.mask(one) for one in each]
            found, probable = best_of(engine, gallery, tokens, masks, top_k)
            eligible = [int(mask.sum()) for mask in masks]
        names = engine.run.dataset.intentions
        return [
            listed(gallery, *row, names)
            for row in zip(found, eligible, probable, unread, strict=True)
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
        without_packs: Collection[str] = (),
    ) -> RankedList:
        """Returns the stickers that suit typed words, "crying cat" or "猫 挥手".

        What has a word in common, and what the text tower finds alike where it reads the words'
        language and the gallery is in memory; there may be fewer than ``top_k``. See ``words``.

        Args:
          words: what is looked for; the first 200 characters are read.
          top_k: how many stickers, at least 1.
          packs: see ``Filters``, as are the rest.
          tags: likewise.
          languages: likewise.
          adult: likewise.
          approved_only: likewise.
          exclude: likewise.
          without_packs: likewise.

        Raises:
          ValueError: if nothing is asked for, top_k is below 1, or a text holds half a character.
        """
        if not words.strip():
            raise ValueError("nothing but blanks is asked for; give some words")
        _check_top_k(top_k)
        self._gallery.look()
        asked = Filters.of(packs, tags, languages, adult, approved_only, exclude, without_packs)
        gallery = self._gallery
        with gallery.lock:
            mask = gallery.shelf.mask(asked)
            vector = self._engine.typed(words)
            found = by_words(gallery, words, vector, mask, top_k)
        return listed(gallery, found, int(mask.sum()), np.zeros(0, np.float32), Unread(), ())

    def attention(self, sticker: GallerySticker) -> dict[str, np.ndarray]:
        """Returns where each attribute of a sticker looks; see ``StickerEncoder.attention``."""
        return self._engine.attention(sticker)

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
        without_packs: Collection[str] = (),
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
          without_packs: likewise.

        Raises:
          KeyError: if the gallery has no such sticker.
          ValueError: if top_k is below 1, the sticker has no embedding, or the system compares
            pairs instead of vectors.
        """
        _check_top_k(top_k)
        self._gallery.look()
        exclude = {*exclude, sticker}
        asked = Filters.of(packs, tags, languages, adult, approved_only, exclude, without_packs)
        gallery = self._gallery
        with gallery.lock:
            if sticker not in gallery.shelf.rows:
                raise KeyError(sticker)
            if not gallery.shelf.searched(sticker):
                raise ValueError("this sticker has no embedding, and nothing tells what is like it")
            mask = gallery.shelf.mask(asked)
            own = self._engine.run.system.intention_width
            if gallery.shelf.encoded is not None:
                found = passing(gallery, *nearest_rows(gallery.shelf, sticker, mask, own, top_k))
            else:
                assert isinstance(gallery, Gallery)  # a run's own gallery is in memory
                row = gallery.row(sticker)
                row[len(row) - own :] = 0
                found = gallery.best_on_disk(row[None] / np.linalg.norm(row), [mask], top_k)[0]
        return listed(gallery, found, int(mask.sum()), np.zeros(0, np.float32), Unread(), ())

    def warm(self, batches: Sequence[int], *, top_k: int = 5) -> None:
        """Compiles what replies to so many conversations at once need, of every length.

        Args:
          batches: numbers of conversations.
          top_k: how many stickers will be asked for.
        """
        gallery = self._gallery
        for number in batches:
            for tokens in self._engine.of_every_length(number):
                with gallery.lock:
                    masks = [gallery.shelf.mask(_EVERYTHING)] * number
                    best_of(self._engine, gallery, tokens, masks, top_k)

    def warm_typed(self) -> None:
        """Compiles what typed words of every length need."""
        self._engine.warm_typed()

    def warm_attention(self) -> None:
        """Compiles what ``attention`` needs."""
        self._engine.warm_attention()

    def move_to(self, workdir: str | Path, progress: Progress | None = None) -> Rebuild:
        """Goes over to another checkpoint, while the present one answers; see ``Rebuild``.

        The gallery is embedded anew in the background, and the kinds of questions that were asked
        so far are compiled. When all of it is done, the next answer is by the new checkpoint alone;
        never does one mix the two. If it is interrupted, the same call goes on where it stopped.
        Nothing is deleted: the way back embeds what was put since.

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

        def warm(encoded: Sticker | None) -> Iterator[None]:
            return engine.warm_as(self._engine, encoded)

        return gallery.rebuild(StickerEncoder(run, params), progress, swapped, warm)

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
        found = self._engine.rank(tokens, gallery, masks, top_k)
        return found.scores, found.rows, found.probabilities

    def _opened(self, engine: Engine, gallery: _Named, create: bool) -> Shelved:
        run, params = engine.run, engine.params
        if gallery is None:
            return RunGallery(run, params, engine.own_gallery())
        encoder = StickerEncoder(run, params)
        if not isinstance(gallery, Gallery):
            return Gallery.open(gallery, encoder, create=create)
        if gallery.checksum != encoder.checksum:
            raise ValueError(
                f"the gallery is open with embeddings of another checkpoint than {run.workdir}'s: "
                "open it by Gallery.open(path, workdir), or move to the checkpoint by move_to"
            )
        return gallery


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: ask for at least 1 sticker.")
