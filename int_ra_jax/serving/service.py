"""What a service can do, whoever asks: the HTTP addresses, the tools of a language model, the page.

The model works in one thread, changes of the gallery in another: an upload of a thousand stickers
does not keep a reply waiting.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from absl import logging

from int_ra_jax.common.types import RankedList
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.shelved import Shelved
from int_ra_jax.retrieval.stickers import Filters, GallerySticker, Habits
from int_ra_jax.serving import pictures, schemas
from int_ra_jax.serving.answers import show, why, words_of
from int_ra_jax.serving.batching import Batcher
from int_ra_jax.serving.metrics import Metrics
from int_ra_jax.serving.problems import Problem, log_failure
from int_ra_jax.serving.settings import Limits
from int_ra_jax.serving.uploads import PackReader, Progress, Upload, new_sticker

BATCHES = (1, 2, 4, 8)  # sizes that are compiled before the service is ready
RANKED = (8, 64)  # so many stickers are ranked, whoever asks for fewer: few programs serve all
_TYPED = (1, 8, 16, 24)  # words of a search, at lengths that are padded to different ones
_KEPT = 20_000  # stickers whose predicted intentions are kept at hand
_LISTED = 1_000  # ids of a pack that are told
_Made = TypeVar("_Made")


class Service:
    """A retriever and its gallery, for many who ask at once.

    Args:
      retriever: of the run and its gallery.
      limits: of what is taken in.
      read_pack: reads packs as people exchange them; without one, pictures alone are taken.
    """

    def __init__(
        self, retriever: Retriever, limits: Limits, read_pack: PackReader | None = None
    ) -> None:
        self.retriever, self.limits, self._read_pack = retriever, limits, read_pack
        self._model = ThreadPoolExecutor(1, "model")
        self._writer = ThreadPoolExecutor(1, "writer")
        self._batcher = Batcher(
            self._answer, self._model, BATCHES[-1], limits.waiting, lambda n: self.metrics.batch(n)
        )
        self.metrics = Metrics(lambda: len(self.gallery), lambda: self._batcher.waiting)
        self._predicted: dict[str, tuple[GallerySticker, dict[str, float]]] = {}
        self._kept_by, self._lock = "", threading.Lock()
        self._own_checksum = ""
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
        """Returns what compiles, one piece after the other: replies, then searches for words."""
        replies = [
            partial(self.retriever.warm, (size,), top_k=top_k)
            for top_k in RANKED
            for size in BATCHES
        ]
        word = self.retriever.run.dataset.intentions[0]
        typed = [" ".join([word] * length) for length in _TYPED]
        return [*replies, *(partial(self.retriever.search, words) for words in typed)]

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
        return schemas.ReplyOut(
            stickers=ranked,
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

    async def similar(self, sticker: str, filters: schemas.Filters) -> schemas.FoundOut:
        """Returns the stickers most like one.

        Raises:
          Problem: 404, if there is no such sticker; 409, if the system cannot tell.
        """
        run = partial(self.retriever.similar, sticker, **filters.as_arguments())
        try:
            found = await self._batcher.answer(object(), run)
        except KeyError:
            raise _unknown_sticker() from None
        except ValueError as error:
            raise Problem(409, str(error)) from None
        return await self._found(found, "", filters.top_k)

    async def _found(self, found: RankedList, words: str, top_k: int) -> schemas.FoundOut:
        ranked = await asyncio.to_thread(self._ranked, found, words, top_k)
        return schemas.FoundOut(stickers=ranked, eligible=found.eligible)

    def _answer(self, kind: Any, questions: Sequence[Any]) -> list[RankedList]:
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

    def _ranked(self, found: RankedList, texts: str, top_k: int) -> list[schemas.Ranked]:
        listed = found.stickers[:top_k]
        stickers = self._stickers([one.sticker for one in listed])
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

    # What there is.

    def sticker(self, identity: str) -> schemas.StickerOut:
        """Returns a sticker.

        Raises:
          Problem: 404, if there is none of this id.
        """
        found = self._stickers([identity])
        if identity not in found:
            raise _unknown_sticker()
        return show(found[identity])

    def picture(self, identity: str) -> tuple[bytes, str]:
        """Returns a sticker's file and its media type.

        Raises:
          Problem: 404, if there is none of this id.
        """
        try:
            return self.gallery.picture(identity)
        except KeyError:
            raise _unknown_sticker() from None

    def packs(self) -> schemas.PacksOut:
        """Returns all packs."""
        return schemas.PacksOut(packs=dict(self.gallery.packs()))

    def pack(self, name: str, offset: int = 0) -> schemas.PackOut:
        """Returns a pack.

        Raises:
          Problem: 404, if there is none of this name.
        """
        number = self.gallery.packs().get(name)
        if number is None:
            raise _unknown_pack()
        listed = self.gallery.stickers(name, offset=offset, limit=_LISTED)
        return schemas.PackOut(name=name, stickers=number, ids=[one.id for one in listed])

    def model(self) -> schemas.ModelOut:
        """Returns what answers."""
        config, dataset = self.retriever.run.config, self.retriever.run.dataset
        return schemas.ModelOut(
            system=str(config.model.name),
            checkpoint=self._checksum(),
            width=self.retriever.width,
            intentions=list(dataset.intentions),
            stickers=len(self.gallery),
            version=self.gallery.version,
            ready=self.ready,
        )

    def _checksum(self) -> str:
        gallery = self.gallery
        if gallery.writable:
            return str(gallery.checksum)
        with self._lock:  # of a run's own gallery it takes a while, and never changes
            self._own_checksum = self._own_checksum or str(gallery.checksum)
        return self._own_checksum

    def _stickers(self, ids: Sequence[str]) -> dict[str, GallerySticker]:
        """Returns stickers without their pictures, with predicted intentions.

        A gallery reads those from its disk: they are kept as long as the sticker stays as it is.
        """
        found = self.gallery.read(ids)
        checksum = self._checksum()
        with self._lock:
            if self._kept_by != checksum or len(self._predicted) > _KEPT:
                self._predicted, self._kept_by = {}, checksum
            kept = self._predicted
        unknown = [
            one.id
            for one in found.values()
            if one.intentions is None and kept.get(one.id, (None,))[0] != one
        ]
        for one in self.gallery.read(unknown, pictures=True).values() if unknown else ():
            if one.id in found:
                kept[one.id] = (found[one.id], dict(one.intentions or {}))
        return {
            name: one
            if one.intentions is not None or name not in kept
            else replace(one, intentions=kept[name][1])
            for name, one in found.items()
        }

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
            if "attributes" in fields:
                kept = dict(gallery.get(identity).attributes)
                fields["attributes"] = kept | fields["attributes"]
            return show(gallery.change(identity, **fields))
        except KeyError:
            raise _unknown_sticker() from None
        except ValueError as error:
            raise Problem(422, str(error)) from None

    async def remove(self, identity: str) -> None:
        """Removes a sticker.

        Raises:
          Problem: 404, if there is none of this id; 409, if the gallery only answers.
        """
        if not await self._write(lambda gallery: gallery.remove([identity])):
            raise _unknown_sticker()

    async def remove_pack(self, name: str) -> None:
        """Removes a pack with its stickers.

        Raises:
          Problem: 404, if there is none of this name; 409, if the gallery only answers.
        """
        if not await self._write(lambda gallery: gallery.remove_pack(name)):
            raise _unknown_pack()

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
    return object() if alone else next(size for size in RANKED if size >= asked.top_k)


def _conversation(asked: schemas.ReplyIn) -> Conversation:
    turns = tuple(Turn(turn.speaker, turn.text) for turn in asked.turns)
    knowledge = {key: tuple(said) for key, said in (asked.knowledge or {}).items()}
    return Conversation("asked", "test", turns, asked.reply_speaker, "", "", knowledge or None)


def _filters(asked: schemas.ReplyIn) -> Filters:
    named = asked.as_arguments()
    del named["top_k"]
    return Filters.of(**named, exclude=asked.exclude)


def _unknown_sticker() -> Problem:
    return Problem(404, "there is no sticker of this id; /v1/packs lists what there is")


def _unknown_pack() -> Problem:
    return Problem(404, "there is no pack of this name; /v1/packs lists what there is")
