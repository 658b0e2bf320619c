"""The benchmark under load: what is done is timed, what fails is counted, memory is a line."""

import asyncio
import collections
import os
import time

import httpx
import pytest
from serving.toy_service import ASKED, KEY, LIMITS, ToyRetriever, picture, toy_gallery

from benchmarks import load
from data_prep.formats.uploaded import read_pack
from int_ra_jax.serving.app import build
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Key, Settings


def worked(steps, key=KEY):
    """Lets a client do some things with a toy service; returns it and the gallery."""
    gallery = toy_gallery()
    service = Service(ToyRetriever(gallery), LIMITS, read_pack)
    app = build(service, Settings(key=Key(KEY), limits=LIMITS))

    async def run():
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://127.0.0.1",
                headers={"Authorization": f"Bearer {key}"},
            ) as http,
        ):
            client = load.Client(0, http, [ASKED], [picture()])
            for step in steps:
                await client.step(step)
            return client

    return asyncio.run(run()), gallery


def test_a_client_does_everything_without_an_error():
    everything = [*load.READS, *load.EDITS]
    client, gallery = worked(everything * 2)
    assert not client.errors
    assert {*everything, "put until found", "found after"} <= client.seconds.keys()
    assert gallery.packs().get("load 0", 0) == len(client.own) == client.made - 2


@pytest.mark.parametrize("shares", [load.READS, load.EDITS])
def test_what_is_drawn_adds_up_and_is_done_until_the_end(shares):
    assert sum(shares.values()) == pytest.approx(1.0)
    done = []
    client = load.Client(0, None, [ASKED], [])

    async def step(what):
        done.append(what)

    client.step = step
    asyncio.run(client.work(time.monotonic() + 0.2, shares, 0.01))
    assert {*done} <= shares.keys() and len(done) > 3


def test_it_keeps_no_more_stickers_than_it_may():
    client, gallery = worked(["put"] * (load.KEPT + 3))
    assert not client.errors and client.made == load.KEPT + 3
    assert len(client.own) == gallery.packs()["load 0"] == load.KEPT


def test_whoever_is_refused_counts_an_error():
    client, _ = worked(["put", "reply"], key="another-key-that-is-wrong")
    assert sum(client.errors.values()) == 1
    assert next(iter(client.errors)).startswith("put: 401")


def test_memory_that_grows_after_a_start_has_its_slope():
    samples = [
        (60.0 * minute, 900.0 if minute == 0 else 1000 + 2.0 * minute) for minute in range(11)
    ]
    rise, error, last = load.slope(samples)
    assert rise == pytest.approx(2.0) and error == pytest.approx(0.0, abs=1e-6)
    assert last == pytest.approx(1020.0)
    with pytest.raises(ValueError, match="more minutes"):
        load.slope(samples[:2])


def test_the_memory_is_that_of_a_process():
    assert 10 < load.resident_mib(os.getpid()) < 100_000


def test_rows_join_the_clients():
    client, _ = worked([])
    client.seconds = collections.defaultdict(list, {"reply": [0.01, 0.02]})
    (row,) = load.rows_of([client, client], 2.0)
    assert (row["done"], row["a second"], row["p50 ms"], row["longest ms"]) == (
        "4",
        "2.0",
        "15",
        "20",
    )
