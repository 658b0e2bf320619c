"""What a service can do, whoever asks: the HTTP addresses, the tools of a language model, the page.

The model works in one thread, changes of the gallery in another: an upload of a thousand stickers
does not keep a reply waiting.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from absl import logging

from int_ra_jax.common.types import RankedList
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.retrieval.engine import RANKED
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.shelved import Shelved
from int_ra_jax.retrieval.stickers import Filters, GallerySticker, Habits
from int_ra_jax.retrieval.whether import Whether, moment
from int_ra_jax.serving import pictures, schemas
from int_ra_jax.serving.answers import looks, show, why, words_of
from int_ra_jax.serving.batching import Batcher
from int_ra_jax.serving.catalogue import Catalogue, unknown_pack, unknown_sticker
from int_ra_jax.serving.metrics import Metrics
from int_ra_jax.serving.problems import Problem, log_failure
from int_ra_jax.serving.settings import Limits
from int_ra_jax.serving.uploads import PackReader, Progress, Upload, new_sticker
from int_ra_jax.serving.viewers import EVERYBODY, Viewer

BATCHES = (1, 2, 4, 8)  # sizes that are compiled before the service is ready
_Made = TypeVar("_Made")


class Service:
    """A retriever and its gallery, for many who ask at once.

    Attributes:
      catalogue: what there is to see.

    Args:
      retriever: of the run and its gallery.
      limits: of what is taken in.
      read_pack: reads packs as people exchange them; without one, pictures alone are taken.
      whether: tells how likely a sticker is at all; without one, replies do not say.
    """

    def __init__(
        self,
        retriever: Retriever,
        limits: Limits,
        read_pack: PackReader | None = None,
        whether: Whether | None = None,
    ) -> None:
        self.retriever, self.limits, self._read_pack = retriever, limits, read_pack
        self._whether = whether
        self.catalogue = Catalogue(retriever)
        self._model = ThreadPoolExecutor(1, "model")
        self._writer = ThreadPoolExecutor(1, "writer")
        self._batcher = Batcher(
            self._answer, self._model, BATCHES[-1], limits.waiting, lambda n: self.metrics.batch(n)
        )
        self.metrics = Metrics(lambda: len(self.gallery), lambda: self._batcher.waiting)
        self.ready = False

    @property
    def gallery(self) -> Shelved:
        """The gallery that is searched."""
        return self.retriever.gallery

    async def warm(self) -> None:
        """Compiles every shape that a question can have; the service is ready afterwards.

        Questions that come meanwhile are answered between two shapes.
        """
        loop, jobs = asyncio.get_running_loop(), self._warming()
        try:
            for number, job in enumerate(jobs, start=1):
                await loop.run_in_executor(self._model, job)
                logging.info("compiling: %d of %d", number, len(jobs))
        except Exception as error:
            log_failure(error)
            raise
        self.ready = True
        logging.info("ready: %d stickers", len(self.gallery))

    def _warming(self) -> list[Callable[[], Any]]:
        """Returns what compiles, one piece after the other: replies, then all else."""
        retriever, most = self.retriever, self.limits.top_k
        alone = RANKED[-1]  # candidates of replies with variety, or with stickers sent before
        shapes = [(size, top_k) for top_k in RANKED if top_k < alone for size in BATCHES]
        replies = [partial(retriever.warm, (size,), top_k=top_k) for size, top_k in shapes]
        replies += [partial(retriever.warm, (1,), top_k=alone)]
        said = Conversation("warm", "test", (Turn("A", "a"),), "B", "", "")
        sent = ("",)  # none that there is
        word = retriever.run.dataset.intentions[0]
        known = [one.id for one in self.gallery.stickers(limit=1)]
        return [
            *replies,
            retriever.warm_typed,
            retriever.warm_attention,
            self.gallery.warm,
            # Drawing one loads what draws.
            partial(
                looks, GallerySticker("", attributes={"": ""}), {"": np.ones((1, 1), np.float32)}
            ),
            partial(
                retriever.reply, said, top_k=most, recent=sent, habits=Habits(sent), variety=0.5
            ),
            partial(retriever.search, word),
            *(partial(self._similar, known[0], top_k=size) for size in RANKED[:2] if known),
            self.model,
            partial(self._probability, said),
        ]

    def _similar(self, sticker: str, **asked: Any) -> RankedList | None:
        """Returns what is like a sticker; None where the system cannot tell."""
        try:
            return self.retriever.similar(sticker, **asked)
        except ValueError:
            return None

    def close(self) -> None:
        """Ends both threads, after what they are at."""
        for executor in (self._model, self._writer):
            executor.shutdown(wait=True, cancel_futures=True)

    # Questions.

    async def reply(self, asked: schemas.ReplyIn) -> schemas.ReplyOut:
        """Returns stickers that would reply to a conversation."""
        found: RankedList = await self._batcher.answer(_kind(asked), asked)
        texts = " ".join(turn.text for turn in asked.turns[-2:])
        ranked = await asyncio.to_thread(self._ranked, found, texts, asked.top_k)
        sends = await asyncio.to_thread(self._probability, _conversation(asked))
        return schemas.ReplyOut(
            stickers=ranked,
            whether=sends,
            intention=found.intention,
            intention_probabilities=found.intention_probabilities,
            tokens=found.tokens,
            unknown=found.unknown,
            eligible=found.eligible,
        )

    async def search(self, asked: schemas.SearchIn) -> schemas.FoundOut:
        """Returns stickers that suit typed words."""
        run = partial(self.retriever.search, asked.words, **asked.as_arguments())
        found = await self._batcher.answer(object(), run)
        return await self._found(found, asked.words, asked.top_k)

    async def similar(
        self, sticker: str, filters: schemas.Filters, viewer: Viewer = EVERYBODY
    ) -> schemas.FoundOut:
        """Returns the stickers most like one.

        Raises:
          Problem: 404, if there is no such sticker that is shown; 409, if the system cannot tell.
        """
        await asyncio.to_thread(self.catalogue.check, sticker, viewer)
        asked = filters.as_arguments() | {"top_k": _enough(filters.top_k)}
        run = partial(self.retriever.similar, sticker, **asked)
        try:
            found = await self._batcher.answer(object(), run)
        except KeyError:
            raise unknown_sticker() from None
        except ValueError as error:
            raise Problem(409, str(error)) from None
        return await self._found(found, "", filters.top_k)

    async def attention(self, sticker: str, viewer: Viewer = EVERYBODY) -> schemas.AttentionOut:
        """Returns where in its picture each attribute of a sticker looks.

        Raises:
          Problem: 404, if there is no such sticker that is shown.
        """
        found = await asyncio.to_thread(self.catalogue.with_picture, sticker, viewer)
        maps = await self._batcher.answer(object(), partial(self.retriever.attention, found))
        return schemas.AttentionOut(
            attributes=await asyncio.to_thread(looks, found, maps),
            middle_square=self.retriever.run.config.data.resize == "crop",
        )

    async def _found(self, found: RankedList, words: str, top_k: int) -> schemas.FoundOut:
        ranked = await asyncio.to_thread(self._ranked, found, words, top_k)
        return schemas.FoundOut(stickers=ranked, eligible=found.eligible)

    def _answer(self, kind: Any, questions: Sequence[Any]) -> list[Any]:
        """Asks the retriever, in the model's thread."""
        if not isinstance(kind, int):
            return [one() if callable(one) else self._reply_alone(one) for one in questions]
        asked = [_filters(one) for one in questions]
        said = [_conversation(one) for one in questions]
        # Of few, no more are read than somebody asked for: it is the same program.
        top_k = max(one.top_k for one in questions) if kind == RANKED[0] else kind
        return self.retriever.reply_many(said, top_k=top_k, asked=asked)

    def _reply_alone(self, asked: schemas.ReplyIn) -> RankedList:
        return self.retriever.reply(
            _conversation(asked),
            **asked.as_arguments(),
            exclude=tuple(asked.exclude),
            recent=tuple(asked.recent),
            habits=None if asked.habits is None else Habits(tuple(asked.habits)),
            variety=asked.variety,
        )

    def _probability(self, conversation: Conversation) -> float | None:
        """Returns how likely a sticker is at all; None where nothing can tell."""
        now = moment(conversation)
        if self._whether is None or (self._whether.own_words and not now.own_words.strip()):
            return None
        return self._whether.probability(now)

    def _ranked(self, found: RankedList, texts: str, top_k: int) -> list[schemas.Ranked]:
        listed = found.stickers[:top_k]
        stickers = self.catalogue.stickers([one.sticker for one in listed])
        said = words_of(texts)
        there = [one for one in listed if one.sticker in stickers]  # others were removed since
        return [
            schemas.Ranked(
                rank=rank,
                score=one.score,
                sticker=show(stickers[one.sticker]),
                why=why(stickers[one.sticker], found.intention_probabilities, said),
            )
            for rank, one in enumerate(there, start=1)
        ]

    def model(self) -> schemas.ModelOut:
        """Returns what answers."""
        config, dataset = self.retriever.run.config, self.retriever.run.dataset
        return schemas.ModelOut(
            system=str(config.model.name),
            checkpoint=self.catalogue.checksum(),
            width=self.retriever.width,
            intentions=list(dataset.intentions),
            stickers=len(self.gallery),
            version=self.gallery.version,
            ready=self.ready,
        )

    # Changes.

    async def put(
        self, identity: str, said: schemas.StickerIn, content: bytes
    ) -> schemas.StickerOut:
        """Puts one sticker into the gallery, or changes what is said of the one of its id.

        Raises:
          Problem: 422, if its picture is none; 409, if the gallery only answers.
        """
        return await self._write(partial(self._put, identity, said, content))

    def _put(
        self, identity: str, said: schemas.StickerIn, content: bytes, gallery: Gallery
    ) -> schemas.StickerOut:
        sticker = new_sticker(identity, said, content, pictures.checked(content, self.limits))
        ledger = gallery.put([sticker], given=lambda _: said.model_fields_set)
        if not ledger.kept:
            reasons = [("picture", reason) for reason in ledger.left_out]
            raise Problem(422, "the sticker was not taken", reasons)
        return show(gallery.get(identity))

    async def change(self, identity: str, change: schemas.StickerChange) -> schemas.StickerOut:
        """Changes a sticker.

        Raises:
          Problem: 404, if there is none of this id; 422, if a value does not fit; 409, if the
            gallery only answers.
        """
        return await self._write(partial(self._change, identity, change))

    def _change(
        self, identity: str, change: schemas.StickerChange, gallery: Gallery
    ) -> schemas.StickerOut:
        fields = change.model_dump(exclude_unset=True)
        empty = [(name, "may be left out, but not null") for name in fields if fields[name] is None]
        if empty:
            raise Problem(422, "values are missing", empty)
        for name in ("tags", "emoji"):
            if name in fields:
                fields[name] = tuple(fields[name])
        try:
            return show(gallery.change(identity, **fields))
        except KeyError:
            raise unknown_sticker() from None
        except ValueError as error:
            raise Problem(422, str(error)) from None

    async def remove(self, identity: str) -> None:
        """Removes a sticker.

        Raises:
          Problem: 404, if there is none of this id; 409, if the gallery only answers.
        """
        if not await self._write(lambda gallery: gallery.remove([identity])):
            raise unknown_sticker()

    async def remove_pack(self, name: str) -> None:
        """Removes a pack with its stickers.

        Raises:
          Problem: 404, if there is none of this name; 409, if the gallery only answers.
        """
        if not await self._write(lambda gallery: gallery.remove_pack(name)):
            raise unknown_pack()

    async def put_pack(
        self,
        name: str,
        files: Sequence[tuple[str, bytes]],
        progress: Progress = lambda done, total: None,
        whole: bool = True,
    ) -> schemas.LedgerOut:
        """Puts pictures, or packs in files, into a pack.

        Args:
          name: of the pack.
          files: what each is called, and what it holds.
          progress: told how many stickers are done, and of how many; called in another thread.
          whole: whether the files are all of the pack: what it had besides is removed, unless a
            file was refused that may be part of it.

        Raises:
          Problem: 422, with the reasons, if no sticker is left; 409, if the gallery only answers.
        """

        def put(gallery: Gallery) -> schemas.LedgerOut:
            upload = Upload(gallery, self.limits, self._read_pack)
            return upload.put(name, files, progress, whole)

        return await self._write(put)

    async def _write(self, change: Callable[[Gallery], _Made]) -> _Made:
        """Makes a change in the writer's thread: one after the other."""
        gallery = self.gallery
        if not (gallery.writable and isinstance(gallery, Gallery)):
            raise Problem(
                409, "the run's own gallery only answers; start the service with --gallery=DIR"
            )
        return await asyncio.get_running_loop().run_in_executor(self._writer, change, gallery)


def _kind(asked: schemas.ReplyIn) -> Any:
    """Returns what a reply shares a batch by: how many stickers are ranked, where that is all."""
    alone = asked.recent or asked.variety or asked.habits is not None
    return object() if alone else _enough(asked.top_k)


def _enough(top_k: int) -> int:
    """Returns how many are ranked, so that one program serves whoever asks for fewer."""
    return next(size for size in RANKED if size >= top_k)


def _conversation(asked: schemas.ReplyIn) -> Conversation:
    turns = tuple(Turn(turn.speaker, turn.text) for turn in asked.turns)
    knowledge = {key: tuple(said) for key, said in (asked.knowledge or {}).items()}
    return Conversation("asked", "test", turns, asked.reply_speaker, "", "", knowledge or None)


def _filters(asked: schemas.ReplyIn) -> Filters:
    named = asked.as_arguments()
    del named["top_k"]
    return Filters.of(**named, exclude=asked.exclude)
