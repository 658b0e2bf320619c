"""Requests that mean harm, or are merely wrong: one clear answer each, and nothing changes."""

import io
import json
import logging as python_logging
import random
import struct
import zlib

import pytest
from PIL import Image
from serving.toy_service import ToyRetriever, picture, toy_gallery
from serving.zips import zipped
from starlette.testclient import TestClient

from data_prep.formats.uploaded import read_pack
from int_ra_jax.serving.app import build
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Key, Limits, Settings

KEY = "a-key-that-is-long-enough"
WRITES = {"Authorization": f"Bearer {KEY}"}
JSON = {"Content-Type": "application/json"}
SECRET = "nobody-logs-this"
LIMITS = Limits(
    body=200_000, upload=400_000, picture=100_000, pixels=1_000_000, all_pixels=2_000_000,
    frames=50, files=20, per_second=1e6, burst=10**6,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def service():
    made = Service(ToyRetriever(toy_gallery()), LIMITS, read_pack)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(service):
    app = build(service, Settings(key=Key(KEY), limits=LIMITS))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def conversation(**changes):
    turns = [{"speaker": "ann", "text": SECRET}]
    return {"turns": turns, "reply_speaker": "bo", "knowledge": {"xWant": [SECRET]}} | changes


def sent(content, **headers):
    """Returns a reply's body as it is."""
    content = content if isinstance(content, bytes) else content.encode()
    return {"method": "POST", "url": "/v1/reply", "content": content, "headers": JSON | headers}


def reply(**changes):
    return sent(json.dumps(conversation(**changes)))


def search(**changes):
    content = json.dumps({"words": SECRET} | changes)
    return {"method": "POST", "url": "/v1/search", "content": content, "headers": JSON}


def get(path):
    return {"method": "GET", "url": path}


def put(content, path="/v1/stickers/new", **fields):
    files = {"picture": ("../../evil.png", content, "image/png")}
    data = {"sticker": json.dumps(fields)} if fields else {}
    return {"method": "PUT", "url": path, "files": files, "data": data, "headers": WRITES}


def pack(*contents, path="/v1/packs/new"):
    files = [("files", (f"../{place}.png", one)) for place, one in enumerate(contents)]
    return {"method": "PUT", "url": path, "files": files, "headers": WRITES}


def write(method, path, key=f"Bearer {KEY}", **request):
    return {"method": method, "url": path, "headers": {"Authorization": key}} | request


def png_of(width, height):
    """Returns a PNG whose head promises a size, and that holds nothing."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animation(frames, size):
    made = io.BytesIO()
    drawn = [Image.new("RGB", size, (4 * number, 0, 0)) for number in range(frames)]
    drawn[0].save(made, "GIF", save_all=True, append_images=drawn[1:], duration=20)
    return made.getvalue()


def without_key(request):
    return request | {"headers": {}}


def with_header(request, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request | {"headers": request.get("headers", {}) | named}


DEEP = 20_000
FORM = {"Content-Type": "multipart/form-data; boundary=x"} | WRITES
# What is sent -> the status, and a word of the answer that says what is wrong.
KINDS = {
    # No JSON, or JSON that no program should take.
    "empty body": (sent(b""), 422, "required"),
    "no json": (sent(b"turns: none"), 400, "not JSON"),
    "cut json": (sent(json.dumps(conversation())[:-9]), 400, "not JSON"),
    "two documents": (sent("{} {}"), 400, "not JSON"),
    "deep lists": (sent("[" * DEEP), 400, "read"),
    "deep objects": (sent('{"a":' * DEEP + "1" + "}" * DEEP), 400, "read"),
    "deep inside a field": (sent('{"turns":' + "[" * DEEP + "]" * DEEP + "}"), 400, "read"),
    "endless number": (sent('{"top_k":' + "9" * 10_000 + "}"), 400, "read"),
    "no utf-8": (sent(b'{"turns": "\xff\xfe\xfa"}'), 400, "read"),
    "nul bytes": (sent(b"\0" * 100), 400, "not JSON"),
    "zip as json": (sent(zipped({"a": "b"})), 400, "read"),
    "a list": (sent("[]"), 422, "valid dictionary"),
    "null": (sent("null"), 422, "body"),
    "a number": (sent("7"), 422, "body"),
    "form as json": (
        sent(b"a=b", **{"Content-Type": "application/x-www-form-urlencoded"}),
        415,
        "application/json",
    ),
    "text as json": (sent("{}", **{"Content-Type": "text/plain"}), 415, "application/json"),
    # Too much.
    "huge body": (sent(b" " * 300_000), 413, "200,000"),
    "body that says it is huge": (sent(b"{}", **{"Content-Length": str(10**12)}), 413, "200,000"),
    "body of endless length": (sent(b"{}", **{"Content-Length": "9" * 5_000}), 413, "200,000"),
    "body of negative length": (sent(b"{}", **{"Content-Length": "-1"}), 400, "content-length"),
    "hundred thousand turns": (reply(turns=[{"speaker": "", "text": ""}] * 10**5), 413, "200,000"),
    "too many turns": (reply(turns=[{"speaker": "a", "text": "b"}] * 201), 422, "turns"),
    "long turn": (reply(turns=[{"speaker": "a", "text": "b" * 4_001}]), 422, "turns[0].text"),
    "long name": (reply(reply_speaker="b" * 101), 422, "reply_speaker"),
    "many excluded": (reply(exclude=["a"] * 1_001), 422, "exclude"),
    "many just sent": (reply(recent=["a"] * 21), 422, "at most 20"),
    "many habits": (reply(habits=["a"] * 201), 422, "at most 200"),
    "many phrases": (reply(knowledge={"xWant": ["a"] * 21}), 422, "knowledge.xWant"),
    "long search": (search(words="a" * 501), 422, "words"),
    "many asked for": (search(top_k=10**9), 422, "top_k"),
    # Wrong types and values.
    "no turns": (reply(turns=[]), 422, "turns"),
    "turns as text": (reply(turns="hello"), 422, "turns"),
    "turns as object": (reply(turns={"0": {}}), 422, "turns"),
    "turn as list": (reply(turns=[["a", "b"]]), 422, "turns[0]"),
    "text as number": (reply(turns=[{"speaker": "a", "text": 1}]), 422, "turns[0].text"),
    "text as null": (reply(turns=[{"speaker": "a", "text": None}]), 422, "turns[0].text"),
    "speaker left out": (reply(turns=[{"text": "a"}]), 422, "turns[0].speaker"),
    "number in quotes": (reply(top_k="5"), 422, "top_k"),
    "yes as number": (reply(top_k=True), 422, "top_k"),
    "broken number": (reply(top_k=1.5), 422, "top_k"),
    "none asked for": (reply(top_k=0), 422, "top_k"),
    "minus one": (reply(top_k=-1), 422, "top_k"),
    "no number": (
        sent('{"turns":[{"speaker":"a","text":"b"}],"reply_speaker":"c","variety":NaN}'),
        422,
        "variety",
    ),
    "endless": (
        sent('{"turns":[{"speaker":"a","text":"b"}],"reply_speaker":"c","variety":1e999}'),
        422,
        "variety",
    ),
    "too varied": (reply(variety=1.01), 422, "variety"),
    "unknown key": (reply(__proto__={}), 422, "__proto__"),
    "unknown relation": (reply(knowledge={"xWhy": []}), 422, "knowledge.xWhy"),
    "half a character": (
        sent(json.dumps(conversation(turns=[{"speaker": "a", "text": "\ud83d"}]))),
        422,
        "half a character",
    ),
    "half a character as key": (sent('{"\\ud83d": 1}'), 422, "half a character"),
    "half a character in a search": (search(words="\udc00"), 422, "half a character"),
    "blank search": (search(words=" \u3000\t"), 422, "blank"),
    "control characters": (search(words="a\0b"), 422, "control character"),
    # Addresses.
    "path as id": (get("/v1/stickers/..%2f..%2fetc%2fpasswd"), 404, "no sticker"),
    "path as pack": (get("/v1/packs/..%2f..%2f"), 404, "no pack"),
    "no id": (get("/v1/stickers/"), 422, "at least 1"),
    "no sticker named to be removed": (write("DELETE", "/v1/stickers/"), 422, "at least 1"),
    "no pack named to be removed": (write("DELETE", "/v1/packs/"), 422, "at least 1"),
    "long pack": (reply(packs=["a" * 1_001]), 422, "packs[0]"),
    "dots as id": (get("/v1/stickers/%2e%2e"), 404, ""),
    "other slashes": (get("/v1/stickers/..%5c..%5cboot.ini"), 404, "no sticker"),
    "quotes as id": (get("/v1/stickers/a'%20OR%20'1'='1"), 404, "no sticker"),
    "nul in an id": (get("/v1/stickers/a%00.png/picture"), 422, "control character"),
    "bytes as id": (get("/v1/stickers/%ff%fe"), 404, "no sticker"),
    "long id": (get(f"/v1/stickers/{'a' * 5_000}"), 422, "id"),
    "unknown id": (get("/v1/similar/nobody"), 404, "no sticker"),
    "words as number": (get("/v1/similar/a?top_k=many"), 422, "top_k"),
    "unknown filter": (get("/v1/similar/a?where=1%3D1"), 422, "where"),
    "unknown address": (get("/v1/admin"), 404, "nothing"),
    "unknown method": ({"method": "BREW", "url": "/v1/model"}, 401, "key"),
    "offset below nothing": (get("/v1/packs/warm?offset=-1"), 422, "offset"),
    # Who may ask, and write.
    "another website": (with_header(reply(), Origin="https://evil.example"), 403, "other websites"),
    "no website": (with_header(reply(), Origin="null"), 403, "other websites"),
    "broken origin": (with_header(reply(), Origin="http://[::"), 403, "other websites"),
    "another name": (with_header(get("/v1/model"), Host="evil.example"), 421, "127.0.0.1"),
    "put without key": (without_key(put(picture())), 401, "key"),
    "delete without key": (without_key({"method": "DELETE", "url": "/v1/stickers/a"}), 401, "key"),
    "delete with another key": (
        {
            "method": "DELETE",
            "url": "/v1/packs/warm",
            "headers": {"Authorization": f"Bearer {KEY}x"},
        },
        401,
        "key",
    ),
    "delete with the key as password": (
        {"method": "DELETE", "url": "/v1/packs/warm", "headers": {"Authorization": f"Basic {KEY}"}},
        401,
        "key",
    ),
    "key of no letters": (write("DELETE", "/v1/packs/warm", b"Bearer \xff\xfe"), 401, "key"),
    # Pictures.
    "no picture": (put(b"no picture"), 422, "no known format"),
    "empty picture": (put(b""), 422, "empty"),
    "page as picture": (put(b"<svg onload='alert(1)'>"), 422, "SVG or a web page"),
    "program as picture": (put(b"MZ\x90\0" + bytes(200)), 422, "no known format"),
    "cut picture": (put(picture(size=(200, 200))[:-60]), 422, "truncated"),
    "bomb": (put(png_of(30_000, 30_000)), 422, "pixels"),
    "small bomb": (put(png_of(1_100, 1_000)), 422, "1,000,000 pixels"),
    "picture of no size": (put(png_of(0, 10)), 422, "picture"),
    "too many frames": (put(animation(60, (8, 8))), 422, "50 frames"),
    "large frames": (put(animation(40, (250, 250))), 422, "2,000,000 pixels"),
    "heavy picture": (put(random.Random(0).randbytes(150_000)), 422, "100,000"),
    "huge upload": (put(bytes(500_000)), 413, "400,000"),
    "picture left out": (
        {
            "method": "PUT",
            "url": "/v1/stickers/new",
            "data": {"sticker": "{}"},
            "files": {"other": b""},
            "headers": WRITES,
        },
        422,
        "picture",
    ),
    "no form": (
        write(
            "PUT",
            "/v1/stickers/new",
            content=picture(),
            headers=WRITES | {"Content-Type": "image/png"},
        ),
        415,
        "multipart/form-data",
    ),
    "form without boundary": (
        write(
            "PUT",
            "/v1/stickers/new",
            content=b"x",
            headers=WRITES | {"Content-Type": "multipart/form-data"},
        ),
        400,
        "read",
    ),
    "broken form": (
        write("PUT", "/v1/stickers/new", content=b"--x\r\nnonsense", headers=FORM),
        422,
        "picture",
    ),
    "words that are no json": (put(picture()) | {"data": {"sticker": "{'pack'"}}, 422, "sticker"),
    "words of the wrong type": (put(picture(), pack=3, colour="red"), 422, "sticker.pack"),
    "path as pack's name": (put(picture(), pack="a\nb"), 422, "control character"),
    "new sticker with a path": (put(picture(), "/v1/stickers/..%5cnew"), 422, "id"),
    "new sticker with a slash": (put(picture(), "/v1/stickers/a%2Fb"), 422, "holds one of /"),
    "new pack with a slash": (pack(picture(), path="/v1/packs/a/b"), 422, "holds one of /"),
    "new hidden file": (put(picture(), "/v1/stickers/.htaccess"), 422, "dot"),
    # Packs.
    "pack of nothing": (
        {
            "method": "PUT",
            "url": "/v1/packs/new",
            "data": {"a": "b"},
            "files": {"c": b""},
            "headers": WRITES,
        },
        422,
        "files",
    ),
    "pack of no pictures": (pack(b"a", b"b"), 422, "no known format"),
    "pack of too many": (pack(*[b"a"] * 21), 413, "at most 20"),
    "broken zip": (pack(zipped({"a": "b"})[:-9]), 422, "not unpacked"),
    "zip that leaves": (pack(zipped({"../../evil.png": picture()})), 422, "leaves the folder"),
    "zip with an absolute path": (
        pack(zipped({"/etc/evil.png": picture()})),
        422,
        "leaves the folder",
    ),
    "zip bomb": (pack(zipped({"a.png": bytes(50_000_000)})), 422, "unpacks to"),
    "zip of no pictures": (pack(zipped({"a.txt": "b"})), 422, "no sticker"),
    "broken manifest": (pack(zipped({"contents.json": '{"stickers": ['})), 422, "not JSON"),
    "pack with a path": (pack(picture(), path="/v1/packs/..%5c"), 422, "name"),
    # Changes.
    "change to null": (write("PATCH", "/v1/stickers/a", json={"hidden": None}), 422, "hidden"),
    "change of the id": (write("PATCH", "/v1/stickers/a", json={"id": "b"}), 422, "id"),
    "change of nobody": (
        write("PATCH", "/v1/stickers/x", json={"hidden": True}),
        404,
        "no sticker",
    ),
    "yes in quotes": (write("PATCH", "/v1/stickers/a", json={"hidden": "yes"}), 422, "hidden"),
    "nobody removed": (write("DELETE", "/v1/stickers/x"), 404, "no sticker"),
    "no pack removed": (write("DELETE", "/v1/packs/x"), 404, "no pack"),
}


@pytest.mark.parametrize(("request_", "status", "word"), KINDS.values(), ids=KINDS)
def test_what_means_harm_is_told_so_and_changes_nothing(
    client, service, caplog, request_, status, word
):
    caplog.set_level(python_logging.DEBUG)
    before = dict(service.gallery.held), service.gallery.version
    answer = client.request(**request_)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["type"] and problem["title"]
    assert word in answer.text and len(answer.text) < 5_000
    assert SECRET not in answer.text and SECRET not in caplog.text and KEY not in caplog.text
    assert (service.gallery.held, service.gallery.version) == before
