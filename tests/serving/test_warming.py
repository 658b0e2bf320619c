"""What is compiled before the service is ready."""

import asyncio
import time

import pytest
from serving.toy_service import ASKED, LIMITS, ToyGallery, ToyRetriever, ids, toy_gallery

from int_ra_jax.serving.service import BATCHES, Service

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_the_service_says_what_it_is_and_when_it_is_ready(client, service, monkeypatch):
    for _ in range(500):  # it warms in the background
        if client.get("/readyz").status_code == 200:
            break
        time.sleep(0.02)
    model = client.get("/v1/model").json()
    assert (model["system"], model["stickers"], model["ready"]) == ("toy", 3, True)
    assert client.get("/readyz").json() == {"status": "ready"}
    monkeypatch.setattr(service, "ready", False)
    assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200


def test_every_batch_is_warm_before_the_service_is_ready():
    warmed = []

    class Warmed(ToyRetriever):
        def warm(self, batches, *, top_k=5):
            assert not service.ready
            warmed.append((tuple(batches), top_k))

        def warm_attention(self):
            assert not service.ready
            warmed.append("attention")

    service = Service(Warmed(toy_gallery()), LIMITS)
    asyncio.run(service.warm())
    service.close()
    assert service.ready
    replies = [((size,), ranked) for ranked in (8, 64) for size in BATCHES]
    assert warmed == [*replies, ((1,), 256), "attention"]


def test_a_service_without_stickers_is_warm_as_well():
    service = Service(ToyRetriever(ToyGallery()), LIMITS)
    asyncio.run(service.warm())
    service.close()
    assert service.ready


@pytest.mark.parametrize(("top_k", "ranked"), [(1, 1), (5, 5), (8, 8), (9, 64), (50, 64)])
def test_whatever_number_is_asked_for_a_warm_program_ranks(client, service, top_k, ranked):
    assert len(ids(client.post("/v1/reply", json=ASKED | {"top_k": top_k}))) == min(top_k, 3)
    assert service.retriever.batches == [(1, ranked)]
