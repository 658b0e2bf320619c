"""Questions that arrive together are answered together.

A model answers eight conversations in little more than the time of one. While it is at work,
questions wait; when it is free, those that wait and can share a batch do so. A question that comes
alone is answered at once: there is no time of waiting to be set.

Why no library: LitServe and mosec put the model into processes of its own, which take one kind of
question over a pipe or a socket. Here the model shares its process with a gallery that is searched,
changed and shown in the next moment; in another process it would be a copy, always a little old.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from int_ra_jax.serving.problems import Problem

_SECONDS = "1"  # after which who was sent away may try again


@dataclass
class _Waiting:
    """One question: what it shares a batch by, and where the answer goes."""

    kind: Hashable
    question: Any
    answer: asyncio.Future[Any]


class Batcher:
    """Answers questions in batches, one batch at a time.

    Args:
      ask: (kind, questions of that kind) -> their answers, in order; called in ``executor``.
      executor: where the model works.
      most: questions of a batch.
      waiting: questions that may wait; more are sent away with status 503.
      seen: told the size of each batch.
    """

    def __init__(
        self,
        ask: Callable[[Any, Sequence[Any]], Sequence[Any]],
        executor: Executor,
        most: int,
        waiting: int,
        seen: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._ask, self._executor = ask, executor
        self._most, self._limit, self._seen = most, waiting, seen
        self._queue: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Returns how many questions wait."""
        return len(self._queue)

    async def answer(self, kind: Hashable, question: Any) -> Any:
        """Returns the answer of one question; what ``ask`` raises of it alone is raised.

        Raises:
          Problem: 503, if too many wait already.
        """
        if len(self._queue) >= self._limit:
            raise Problem(
                503,
                f"{self._limit:,} requests wait already; try again in a moment",
                headers={"Retry-After": _SECONDS},
            )
        one = _Waiting(kind, question, asyncio.get_running_loop().create_future())
        self._queue.append(one)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await one.answer

    async def _work(self) -> None:
        while batch := self._next():
            self._seen(len(batch))
            await self._answer(batch)

    def _next(self) -> list[_Waiting]:
        """Takes the oldest question, and those of its kind that wait behind it."""
        # Who hung up is not answered.
        alive = [one for one in self._queue if not one.answer.done()]
        batch = [one for one in alive if one.kind == alive[0].kind][: self._most]
        taken = set(map(id, batch))
        self._queue = [one for one in alive if id(one) not in taken]
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop, questions = asyncio.get_running_loop(), [one.question for one in batch]
        try:
            answers = await loop.run_in_executor(
                self._executor, self._ask, batch[0].kind, questions
            )
        except Exception as error:
            if len(batch) > 1:  # one of them spoils it for all: each for itself
                for one in batch:
                    await self._answer([one])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)
