"""What the addresses answer, and which questions share a batch."""

import asyncio
import dataclasses
import io
import json
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import hypothesis
import numpy as np
import pytest
from serving.toy_service import ToyGallery, ToyRetriever, picture, toy_gallery
from serving.zips import zipped
from starlette.testclient import TestClient

from data_prep.formats.uploaded import read_pack
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.retrieval import whether
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.serving import modes, pictures, schemas
from int_ra_jax.serving.app import build
from int_ra_jax.serving.batching import Batcher
from int_ra_jax.serving.problems import Problem
from int_ra_jax.serving.service import BATCHES, Service
from int_ra_jax.serving.settings import Key, Limits, Settings
from int_ra_jax.serving.uploads import Upload

KEY = "a-key-that-is-long-enough"
LIMITS = Limits(per_second=1e6, burst=10**6)
ASKED = {"turns": [{"speaker": "ann", "text": "All is gold!"}], "reply_speaker": "bo"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def service():
    made = Service(ToyRetriever(toy_gallery()), LIMITS, read_pack)
    yield made
    made.close()


@pytest.fixture
def client(service):
    app = build(service, Settings(key=Key(KEY), limits=LIMITS))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [one["sticker"]["id"] for one in answer.json()["stickers"]]


def test_a_reply_has_stickers_pictures_and_reasons(client):
    answer = client.post("/v1/reply", json=ASKED).json()
    assert (answer["intention"], answer["tokens"], answer["eligible"]) == ("joy", 3, 9)
    first = answer["stickers"][0]
    assert (first["rank"], first["score"], first["sticker"]["pack"]) == (1, 1.0, "warm")
    assert first["why"] == {"intention": "joy", "matched": ["gold", "a gold square"]}
    shown = client.get(first["sticker"]["picture"])
    assert shown.content == picture("gold") and shown.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("own_words", "typed", "found"),
    [(False, False, 0.25), (False, True, 0.25), (True, True, 0.25), (True, False, None)],
)
def test_a_reply_says_how_likely_a_sticker_is_at_all(own_words, typed, found):
    weights = np.zeros(whether.width(own_words), np.float32)
    model = whether.Whether(weights, -np.log(3.0), own_words, threshold=0.3, base_rate=0.3)
    service = Service(ToyRetriever(toy_gallery()), LIMITS, whether=model)
    turns = ASKED["turns"] + [{"speaker": "bo", "text": "me too"}] * typed
    asked = schemas.ReplyIn.model_validate(ASKED | {"turns": turns})
    assert asyncio.run(service.reply(asked)).whether == pytest.approx(found)
    service.close()


def test_whether_is_read_from_the_workdir(client, tmp_path):
    assert client.post("/v1/reply", json=ASKED).json()["whether"] is None
    assert modes._whether(tmp_path) is None
    weights = np.zeros(whether.width(False), np.float32)
    whether.Whether(weights, 0.0, False, 0.3, 0.3).save(tmp_path / "whether.npz")
    assert modes._whether(tmp_path).probability(whether.Moment(("hi",))) == 0.5
    (tmp_path / "whether.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"whether\.npz cannot be read"):
        modes._whether(tmp_path)


def test_filters_reach_every_question(client):
    for limited in ({"packs": ["冷"]}, {"packs": ["冷"], "top_k": 1, "adult": True}):
        assert ids(client.post("/v1/reply", json=ASKED | limited)) == ["c"]
        assert ids(client.post("/v1/search", json={"words": "teal"} | limited)) == ["c"]
        assert ids(client.get("/v1/similar/a", params=limited)) == ["c"]
    assert ids(client.post("/v1/reply", json=ASKED | {"exclude": ["a"], "top_k": 1})) == ["b"]
    assert ids(client.post("/v1/reply", json=ASKED | {"exclude": ["a"], "variety": 0.5})) == [
        "b",
        "c",
    ]
    assert ids(client.post("/v1/reply", json=ASKED | {"packs": []})) == []
    assert ids(client.get("/v1/similar/a", params={"top_k": 2})) == ["b", "c"]


def test_a_sticker_is_put_found_changed_and_removed(client, service):
    said = {
        "pack": "mine",
        "tags": ["猫"],
        "attributes": {"facial": "a grin"},
        "intentions": ["joy"],
    }
    form = {"picture": ("猫.png", picture("navy"))}
    put = client.put("/v1/stickers/新", files=form, data={"sticker": json.dumps(said)})
    assert put.status_code == 200, put.text
    assert put.json()["attributes"] == {"facial": "a grin"}
    assert put.json()["intentions_given"] and put.json()["intentions"] == {"joy": 1.0}
    assert client.get(put.json()["picture"]).content == picture("navy")
    assert "新" in ids(client.post("/v1/search", json={"words": "猫", "top_k": 9}))
    change = {"hidden": True, "attributes": {"verbal": "hi"}, "tags": []}
    changed = client.patch("/v1/stickers/新", json=change).json()
    assert changed["hidden"] and changed["attributes"] == {"facial": "a grin", "verbal": "hi"}
    assert "新" not in ids(client.post("/v1/search", json={"words": "猫", "top_k": 9}))
    assert client.delete("/v1/stickers/新").status_code == 204
    assert client.get("/v1/stickers/新").status_code == 404
    assert "新" not in service.gallery


def test_hidden_and_adult_stickers_are_seen_by_those_alone_who_may(client):
    for one, flag in (("a", "hidden"), ("c", "adult")):
        assert client.patch(f"/v1/stickers/{one}", json={flag: True}).status_code == 200
    everybody, asks = {"headers": {"Authorization": f"Bearer {KEY}x"}}, {"params": {"adult": True}}
    for who, packs, seen in (
        (everybody, {"warm": 1}, "b"),
        (everybody | asks, {"warm": 1, "冷": 1}, "bc"),
        ({}, {"warm": 2, "冷": 1}, "abc"),
    ):
        assert client.get("/v1/packs", **who).json()["packs"] == packs
        listed = [client.get(f"/v1/packs/{name}", **who).json().get("ids", []) for name in packs]
        assert "".join(sorted("".join(map("".join, listed)))) == seen
        for one in "abc":
            for address in ("stickers/{}", "stickers/{}/picture", "similar/{}"):
                answer = client.get(f"/v1/{address.format(one)}", **who)
                assert answer.status_code == (200 if one in seen else 404), (address, one)
    assert client.get("/v1/packs/冷", **everybody).status_code == 404
    assert client.get("/v1/packs/warm", **everybody).json()["stickers"] == 1
    # The address of an answer's picture opens for who got the answer.
    shown = client.get("/v1/stickers/c", **everybody | asks).json()
    assert client.get(shown["picture"], **everybody).status_code == 200


def test_a_ticket_opens_one_picture_and_nothing_else(client):
    for one in "ab":
        client.patch(f"/v1/stickers/{one}", json={"hidden": True})
    client.headers["Authorization"] = ""

    def status(address, ticket):
        return client.get(f"/v1/stickers/{address}", params={"ticket": ticket}).status_code

    ticket = Key(KEY).ticket("a")
    assert status("a/picture", ticket) == 200
    assert status("a", ticket) == status("b/picture", ticket) == 404
    for other in ("", "é", KEY, ticket[:-1], Key(f"{KEY}x").ticket("a")):
        assert status("a/picture", other) == 404


def test_what_other_ways_put_into_a_gallery_is_found_at_its_address(client, service):
    odd, long = "猫/a?b #1%", "long/" * 60
    for identity, pack in ((odd, long), ("plain", "")):
        held = GallerySticker(identity, picture("navy"), pack, media_type="image/png")
        service.gallery.put([held])
    shown = client.get(f"/v1/stickers/{quote(odd, safe='')}").json()
    assert (shown["id"], shown["pack"]) == (odd, long)
    assert client.get(shown["picture"]).content == picture("navy")
    assert odd not in ids(client.get(f"/v1/similar/{quote(odd, safe='')}"))
    assert client.get("/v1/packs").json()["packs"] == {"": 1, "warm": 2, "冷": 1, long: 1}
    assert client.get(f"/v1/packs/{quote(long)}").json()["ids"] == [odd]
    assert ids(client.post("/v1/reply", json=ASKED | {"packs": [long, ""]})) == ["plain", odd]
    assert client.patch(f"/v1/stickers/{quote(odd, safe='')}", json={"tags": ["a"]}).is_success
    assert client.delete(f"/v1/stickers/{quote(odd, safe='')}").is_success
    assert odd not in service.gallery


def test_a_pack_is_put_listed_replaced_and_removed(client):
    def put(*files):
        return client.put("/v1/packs/mine", files=[("files", one) for one in files])

    red, blue = ("happy_cat-01.png", picture("red")), ("b.gif", picture("blue", form="GIF"))
    manifest = {"title": "Cats", "stickers": [{"image_file": "a.png", "emojis": ["😀"]}]}
    inside = zipped({"contents.json": json.dumps(manifest), "a.png": picture("green")})
    first = put(red, blue, ("again.png", picture("red")), ("no.txt", b"text"), ("p.zip", inside))
    assert first.json()["kept"] == 3 and first.json()["removed"] == 0
    assert sum(first.json()["left_out"].values()) == 2
    assert client.get("/v1/packs").json()["packs"]["mine"] == 3
    listed = [
        client.get(f"/v1/stickers/{one}").json()
        for one in client.get("/v1/packs/mine").json()["ids"]
    ]
    assert {one["name"] for one in listed} == {"happy cat", "b", "a"}
    assert [one["emoji"] for one in listed if one["emoji"]] == [["😀"]]
    assert put(red).json() == {"kept": 1, "left_out": {}, "removed": 2}
    assert client.delete("/v1/packs/mine").status_code == 204
    assert "mine" not in client.get("/v1/packs").json()["packs"]


def test_a_sticker_that_is_put_again_keeps_what_the_request_does_not_say(client):
    def put(**said):
        form = {"picture": ("a.png", picture("navy"))}
        return client.put("/v1/stickers/n", files=form, data={"sticker": json.dumps(said)}).json()

    said = {"pack": "mine", "tags": ["navy"], "adult": True, "approved": True, "emoji": ["😀"]}
    first = put(**said)
    assert client.patch("/v1/stickers/n", json={"hidden": True}).status_code == 200
    assert put() == first | {"hidden": True}
    changed = {"hidden": True, "adult": False, "tags": [], "picture": "/v1/stickers/n/picture"}
    assert put(adult=False, tags=[]) == first | changed
    again = client.put("/v1/packs/mine", files=[("files", ("n.png", picture("navy")))]).json()
    assert again == {"kept": 1, "left_out": {}, "removed": 1}  # by an id of its own


def test_a_picture_that_is_uploaded_again_keeps_its_flags_and_tags(client):
    red = [("files", ("red.png", picture("red")))]
    assert client.put("/v1/packs/mine", files=red).json()["kept"] == 1
    (one,) = client.get("/v1/packs/mine").json()["ids"]
    change = {"hidden": True, "adult": True, "approved": True, "tags": ["fire"], "emoji": ["🔥"]}
    changed = client.patch(f"/v1/stickers/{one}", json=change).json()
    assert client.put("/v1/packs/mine", files=red).json()["kept"] == 1
    assert client.get(f"/v1/stickers/{one}").json() == changed
    inside = zipped({"other_words.png": picture("red")})
    assert client.put("/v1/packs/mine", files=[("files", ("p.zip", inside))]).json()["kept"] == 1
    assert client.get(f"/v1/stickers/{one}").json() == changed | {"name": "other words"}


def test_a_whole_pack_removes_nothing_that_may_be_a_file_that_was_refused(service):
    def put(limits, *files):
        upload = Upload(service.gallery, limits, read_pack)
        ledger = upload.put("mine", files, lambda done, total: None, whole=True)
        return ledger.kept, sum(ledger.left_out.values()), ledger.removed

    red, large = ("red.png", picture("red")), ("large.png", picture("blue", (90, 90)))
    green, packed = ("g.png", picture("green")), picture("navy", (90, 90))
    zips = ("p.zip", zipped({"a.png": packed, "b.png": picture("pink")}))
    assert put(LIMITS, red, large, green, zips) == (5, 0, 0)
    small = dataclasses.replace(LIMITS, pixels=80 * 80)
    assert put(small, red, large, zips) == (2, 2, 1)  # green; of the refused ones none
    held = service.gallery
    assert {pictures.identity(large[1]), pictures.identity(packed)} <= {*held.held}
    broken = ("p.zip", zipped({"a.png": packed[:60], "b.png": picture("pink")}))
    # What cannot be read may be any of those that were there.
    for refused in (("red.png", red[1][:60]), ("p.zip", b"PK\x03\x04 no zip"), broken):
        assert put(LIMITS, green, refused)[1:] == (1, 0)
    noise = zipped({"a.png": picture("red"), "tray.png": picture("tan"), "a.txt": b"hm"})
    assert put(LIMITS, ("p.zip", noise)) == (1, 2, 4)
    assert [one.id for one in held.stickers("mine")] == [pictures.identity(red[1])]


@pytest.mark.parametrize("form", ["tgs", "WEBM", "was"])
def test_an_animation_alone_is_drawn_as_one_of_a_pack(form):
    given = []

    def read_pack(content):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            given.append({name: archive.read(name) for name in archive.namelist()})
        entry = StickerEntry("drawn", "images/drawn.gif", dict.fromkeys(ATTRIBUTES, ""))
        return [(entry, picture(form="GIF"))], {}

    service = Service(ToyRetriever(toy_gallery()), LIMITS, read_pack)
    files = [(f"../waving_cat.{form}", b"PK\x03\x04 or not")]
    assert asyncio.run(service.put_pack("moving", files)).kept == 1
    assert given == [{"sticker": b"PK\x03\x04 or not"}]
    assert service.gallery.get("drawn").name == "waving cat"
    service.close()


def test_progress_is_told_while_a_pack_is_taken(service):
    told = []
    files = [(f"{number}.png", picture((number, 0, 0))) for number in range(20)]
    asyncio.run(service.put_pack("many", files, lambda *at: told.append(at), whole=False))
    assert told == [(16, 20), (20, 20)]


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

    service = Service(Warmed(toy_gallery()), LIMITS)
    asyncio.run(service.warm())
    service.close()
    assert service.ready
    replies = [((size,), ranked) for ranked in (8, 64) for size in BATCHES]
    assert warmed == [*replies, ((1,), 256)]


def test_a_service_without_stickers_is_warm_as_well():
    service = Service(ToyRetriever(ToyGallery()), LIMITS)
    asyncio.run(service.warm())
    service.close()
    assert service.ready


@pytest.mark.parametrize(("top_k", "ranked"), [(1, 1), (5, 5), (8, 8), (9, 64), (50, 64)])
def test_whatever_number_is_asked_for_a_warm_program_ranks(client, service, top_k, ranked):
    assert len(ids(client.post("/v1/reply", json=ASKED | {"top_k": top_k}))) == min(top_k, 3)
    assert service.retriever.batches == [(1, ranked)]


def test_counts_name_routes_and_no_stickers(client):
    client.get("/v1/stickers/a"), client.get("/v1/stickers/b"), client.post("/v1/reply", json=ASKED)
    counts = client.get("/metrics").text
    assert 'route="/v1/stickers/{id}",status="200"} 2.0' in counts
    assert "int_ra_batch_size_count 1.0" in counts and "int_ra_stickers 3.0" in counts


def test_the_page_of_addresses_needs_no_other_website(client):
    page = client.get("/docs").text
    assert "swagger" in page and "https://" not in page.replace("http://127.0.0.1", "")
    described = client.get("/openapi.json").json()
    paths = {path: set(methods) for path, methods in described["paths"].items()}
    assert paths["/v1/stickers/{id}"] == {"get", "put", "patch", "delete"}
    assert paths["/v1/packs/{name}"] == {"get", "put", "delete"}
    assert {"/v1/reply", "/v1/search", "/v1/similar/{id}", "/v1/model", "/readyz"} <= set(paths)


def test_what_the_description_says_holds_for_drawn_requests(client, service):
    schemathesis = pytest.importorskip("schemathesis", reason="draws requests; not installed")
    here = {"Host": "127.0.0.1"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=here)
    statuses = []
    few = hypothesis.settings(
        max_examples=4, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    for found in schema.get_all_operations():

        @few
        @hypothesis.given(case=found.ok().as_strategy())
        def check(case):
            answer = case.call(headers=here | {"Authorization": f"Bearer {KEY}"})
            statuses.append(answer.status_code)
            assert answer.status_code < 500, answer.content[:500]
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == ["application/problem+json"]

        check()
    assert {200, 422} <= set(statuses)


# Batches.


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
