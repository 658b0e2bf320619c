"""Which questions share a batch."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from int_ra_jax.serving.batching import Batcher
from int_ra_jax.serving.problems import Problem


class Held:
    """Answers with a question's double, once it is let go."""

    def __init__(self):
        self.go, self.batches = threading.Event(), []

    async def taken(self):
        """Waits for the first batch."""
        async with asyncio.timeout(10):
            while not self.batches:
                await asyncio.sleep(0.001)

    def __call__(self, kind, questions):
        self.batches.append((kind, list(questions)))
        assert self.go.wait(10)
        if "bad" in questions:
            raise ValueError("bad")
        return [2 * one for one in questions]


def test_questions_of_a_kind_that_wait_share_a_batch():
    held = Held()

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(held, executor, most=3, waiting=10)
            first = asyncio.create_task(batcher.answer("k", 0))
            await held.taken()
            asked = [("k", 1), ("other", 2), ("k", 3), ("k", 4), ("k", 5)]
            others = [asyncio.create_task(batcher.answer(*one)) for one in asked]
            await asyncio.sleep(0)
            assert batcher.waiting == 5
            held.go.set()
            return await first, await asyncio.gather(*others)

    assert asyncio.run(run()) == (0, [2, 4, 6, 8, 10])
    assert held.batches == [("k", [0]), ("k", [1, 3, 4]), ("other", [2]), ("k", [5])]


def test_one_that_fails_fails_alone_and_who_left_is_not_answered():
    held = Held()

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(held, executor, most=8, waiting=10)
            tasks = [asyncio.create_task(batcher.answer("k", one)) for one in (0, 1, "bad", 2, 3)]
            await held.taken()
            tasks[4].cancel()
            held.go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(run())
    assert found[:2] + found[3:4] == [0, 2, 4]
    assert isinstance(found[2], ValueError) and isinstance(found[4], asyncio.CancelledError)


def test_more_than_may_wait_are_sent_away_at_once():
    held = Held()

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(held, executor, most=1, waiting=2)
            tasks = [asyncio.create_task(batcher.answer("k", 0))]
            await held.taken()
            tasks += [asyncio.create_task(batcher.answer("k", one)) for one in (1, 2)]
            await asyncio.sleep(0)
            begun = time.monotonic()
            with pytest.raises(Problem, match="2 requests wait") as refused:
                await batcher.answer("k", 9)
            assert refused.value.status == 503 and time.monotonic() - begun < 1
            held.go.set()
            return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [0, 2, 4]
