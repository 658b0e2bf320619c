"""Packs and pictures that are uploaded."""

import asyncio
import dataclasses
import io
import json
import zipfile

import pytest
from serving.toy_service import LIMITS, ToyRetriever, picture, toy_gallery
from serving.zips import zipped

from data_prep.formats.uploaded import read_pack
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.serving import pictures
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.uploads import Upload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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
