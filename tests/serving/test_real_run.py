"""A trained run and an open gallery behind the addresses, as a product has them."""

import asyncio
import itertools
import json

import jax
import pytest
from serving.toy_service import picture
from starlette.testclient import TestClient

from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.serving import schemas
from int_ra_jax.serving import service as serving_service
from int_ra_jax.serving.app import build
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Key, Limits, Settings

KEY = "a-key-that-is-long-enough"
ASKED = {"turns": [{"speaker": "ann", "text": "we won the match today"}], "reply_speaker": "bo"}
ODD = "猫 1'; drop"  # an id that a query language would take for its own words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
    return trained.copy(tmp_path_factory.mktemp("served") / "run")


def client_of(retriever, **settings):
    service = Service(retriever, Limits())
    client = TestClient(build(service, Settings(**settings)), base_url="http://127.0.0.1")
    client.headers["Authorization"] = f"Bearer {KEY}"
    return service, client


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [one["sticker"]["id"] for one in answer.json()["stickers"]]


def test_what_is_put_is_found_until_it_is_hidden_or_removed(workdir, tmp_path):
    gallery = Gallery.open(tmp_path / "gallery", workdir)
    service, client = client_of(Retriever.from_workdir(workdir, gallery), key=Key(KEY))
    for more in ({}, {"variety": 0.5, "recent": ["x"], "habits": ["x"]}):
        assert ids(client.post("/v1/reply", json=ASKED | more)) == []
    said = {"pack": "猫", "tags": ["猫"], "attributes": {"facial": "a face full of joy"}}
    form = {"picture": ("a.png", picture())}
    put = client.put(f"/v1/stickers/{ODD}", files=form, data={"sticker": json.dumps(said)})
    assert put.status_code == 200, put.text
    assert put.json()["intentions"] and not put.json()["intentions_given"]
    files = [("files", (f"{colour}.png", picture(colour))) for colour in ("red", "navy")]
    assert client.put("/v1/packs/mine", files=files).json()["kept"] == 2
    assert client.get("/v1/packs").json()["packs"] == {"mine": 2, "猫": 1}
    answer = client.post("/v1/reply", json=ASKED)
    assert ODD in ids(answer) and answer.json()["eligible"] == 3
    for one in answer.json()["stickers"]:
        assert sum(one["sticker"]["intentions"].values()) == pytest.approx(1, abs=1e-3)
    only = {"packs": ["猫"], "recent": ["x"], "habits": [ODD], "variety": 0.5}
    assert ids(client.post("/v1/reply", json=ASKED | only)) == [ODD]
    assert len(ids(client.get(f"/v1/similar/{ODD}"))) == 2
    looked = client.get(f"/v1/stickers/{ODD}/attention").json()["attributes"]
    assert looked.keys() == {"facial"} and looked["facial"]["peak"] >= 1
    assert ODD in ids(client.post("/v1/search", json={"words": "猫"}))
    assert client.patch(f"/v1/stickers/{ODD}", json={"hidden": True}).json()["hidden"]
    assert ODD not in ids(client.post("/v1/reply", json=ASKED))
    assert client.get(f"/v1/stickers/{ODD}/picture").content == picture()
    others = {"headers": {"Authorization": ""}}
    assert client.get(f"/v1/stickers/{ODD}/picture", **others).status_code == 404
    assert client.get("/v1/packs", **others).json()["packs"] == {"mine": 2}
    assert client.get("/v1/packs/猫", **others).status_code == 404
    assert client.get("/v1/packs/猫").json()["ids"] == [ODD]
    assert len(client.get("/v1/packs/mine", params={"offset": 1}, **others).json()["ids"]) == 1
    assert client.delete(f"/v1/stickers/{ODD}").status_code == 204
    assert client.delete("/v1/packs/mine").status_code == 204
    assert client.get("/v1/model").json()["stickers"] == 0
    service.close()


def test_a_run_without_an_open_gallery_answers_and_is_not_written(workdir):
    retriever = Retriever.from_workdir(workdir)
    service, client = client_of(retriever, key=Key(KEY))
    found = client.post("/v1/reply", json=ASKED | {"top_k": 3}).json()
    assert len(found["stickers"]) == 3 and found["intention"] in retriever.run.dataset.intentions
    assert found["stickers"][0]["sticker"]["intentions_given"]
    first = found["stickers"][0]["sticker"]
    assert client.get(first["picture"]).headers["content-type"] == "image/png"
    assert client.delete(f"/v1/stickers/{first['id']}").status_code == 409
    service.close()


def mixed():
    """Returns questions of all kinds: of every length, under filters that all differ."""
    turns = [
        [schemas.TurnIn(speaker="a", text="we won " * words)] for words in (0, 1, 5, 9, 20, 90)
    ]
    turns += [[schemas.TurnIn(speaker=name, text="ok") for name in "abcdefghijkl"]]
    filters = [{}, {"packs": ["0"]}, {"packs": ["1"]}, {"adult": True}, {"exclude": ["s3"]}]
    sent = [f"s{number}" for number in range(70)]
    alone = [
        {"variety": 0.3},
        {"recent": sent[:20]},
        {"habits": sent[:3] * 3},
        {"habits": sent + sent, "recent": sent[:7], "variety": 1.0},
    ]
    asked = [
        schemas.ReplyIn(turns=said, reply_speaker="b", top_k=top_k, **more)
        for said, top_k, more in itertools.product(turns, (1, 8, 9, 50), filters + alone)
    ]
    words = ["joy", "a", "we won the match", "a b c d e f g h i j", "odd " * 100, "猫 挥手"]
    searches = [schemas.SearchIn(words=one, top_k=top_k) for one in words for top_k in (1, 50)]
    return asked, searches, [schemas.FiltersQuery(top_k=top_k) for top_k in (1, 9, 20, 50)]


@pytest.mark.long
def test_when_it_is_ready_no_question_compiles_anything(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(serving_service, "BATCHES", (1, 2))  # fewer are compiled sooner
    gallery = Gallery.open(tmp_path / "gallery", workdir)
    colours = [(3 * number, 255 - 3 * number, 50) for number in range(70)]
    gallery.put(
        [
            GallerySticker(f"s{place}", picture(colour), f"{place % 3}", adult=place % 5 == 0)
            for place, colour in enumerate(colours)
        ]
    )
    service, compiled = Service(Retriever.from_workdir(workdir, gallery), Limits()), []

    def note(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    async def run():
        await service.warm()
        before = len(compiled)
        replies, searches, likes = mixed()
        answers = await asyncio.gather(
            *(service.reply(one) for one in replies),
            *(service.search(one) for one in searches),
            *(service.similar("s1", one) for one in likes),
        )
        return before, [len(one.stickers) for one in answers]

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        before, found = asyncio.run(run())
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
        service.close()
    assert before and max(found) == 50 and len(compiled) == before
