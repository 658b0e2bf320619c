"""Stickers that are put, changed and removed over HTTP, and who sees them."""

import json
from urllib.parse import quote

import pytest
from serving.toy_service import ASKED, KEY, ids, picture

from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.serving.settings import Key
from int_ra_jax.serving.viewers import EVERYBODY, OWNER, Viewer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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


def test_a_patch_of_one_attribute_says_nothing_of_the_others(client, service, monkeypatch):
    said, change = [], service.gallery.change
    monkeypatch.setattr(
        service.gallery,
        "change",
        lambda id, **fields: (said.append({**fields}), change(id, **fields))[1],
    )
    assert client.patch("/v1/stickers/a", json={"attributes": {"verbal": "hi"}}).is_success
    assert said == [{"attributes": {"verbal": "hi"}}]


@pytest.mark.parametrize(
    ("viewer", "counts"),
    [
        (EVERYBODY, {"warm": 1}),
        (Viewer(adult=True), {"warm": 1, "冷": 1}),
        (OWNER, {"warm": 2, "冷": 1}),
    ],
)
def test_packs_are_counted_without_reading_a_sticker(service, monkeypatch, viewer, counts):
    for one, flag in (("a", "hidden"), ("c", "adult")):
        service.gallery.change(one, **{flag: True})
    monkeypatch.setattr(service.gallery, "read", None)
    assert service.catalogue.packs(viewer).packs == counts


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
