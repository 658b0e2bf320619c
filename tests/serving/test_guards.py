"""What stands before every address, and what the process does with those who are slow."""

import asyncio
import json
import logging as python_logging
import socket
import threading
import time

import hypothesis
import hypothesis.strategies as st
import pytest
import uvicorn
from serving.toy_service import ToyRetriever, toy_gallery
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from int_ra_jax.serving import server, settings
from int_ra_jax.serving.app import build
from int_ra_jax.serving.guards import Guard, Rate
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import KEY_VARIABLE, Key, Limits, Settings, settings_of

KEY = "a-key-that-is-long-enough"
SECRET = "nobody-logs-this"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def service():
    made = Service(ToyRetriever(toy_gallery()), Limits())
    yield made
    made.close()


def client_of(service, **changes):
    app = build(service, Settings(**changes))
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


def ask_slowly(guard, parts, scope=None):
    """Sends a body in parts, and then nothing more; returns the status and the answer."""
    scope = {
        "type": "http", "method": "POST", "path": "/v1/reply", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    } | (scope or {})  # fmt: skip
    sent, left = [], list(parts)

    async def receive():
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


async def never(scope, receive, send):
    raise AssertionError("the guard let it through")


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize(
    ("parts", "status", "word"),
    [
        ([], 408, "0.05 seconds"),
        ([part(b"{")], 408, "0.05 seconds"),
        ([part(b"")] * 50, 408, "0.05 seconds"),
        ([part(b" " * 40)] * 3, 413, "100 bytes"),
        ([part(b"{"), {"type": "http.disconnect"}], 400, "connection ended"),
    ],
)
def test_a_body_that_does_not_come_to_its_end_is_not_waited_for(parts, status, word):
    seconds = 0.05 if status == 408 else 60.0
    guard = Guard(never, Settings(limits=Limits(body=100, seconds=seconds)))
    found, problem = ask_slowly(guard, parts)
    assert found == status and word in problem["detail"]


UPLOAD = "/_nicegui/client/some-client/upload/7"


@pytest.mark.parametrize(
    ("method", "path", "key", "most"),
    [
        ("POST", "/", KEY, 100),
        ("POST", "/docs", KEY, 100),
        ("GET", "/v1/stickers/a", KEY, 100),
        ("POST", UPLOAD, "", 100),
        ("POST", UPLOAD, f"{KEY}x", 100),
        ("POST", UPLOAD, KEY, 1_000),
        ("PUT", "/v1/stickers/a", KEY, 1_000),
        ("PUT", "/v1/packs/a", KEY, 1_000),
    ],
)
def test_a_large_body_is_taken_where_pictures_are_uploaded_with_the_key_alone(
    method, path, key, most
):
    guard = Guard(never, Settings(key=Key(KEY), limits=Limits(body=100, upload=1_000)))
    headers = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"authorization", f"Bearer {key}".encode()),
    ]
    parts = [part(b" " * 99)] * 30
    status, problem = ask_slowly(guard, parts, {"method": method, "path": path, "headers": headers})
    assert status == 413 and f"more than {most:,} bytes" in problem["detail"]


@pytest.fixture(scope="module")
def address(service):
    """Serves on a real socket, and waits a fifth of a second for a head."""
    patch = pytest.MonkeyPatch()
    patch.setattr(server, "_HEAD_SECONDS", 0.2)
    listening = socket.create_server(("127.0.0.1", 0))
    app = build(service, Settings(limits=Limits(seconds=0.2)))
    process = uvicorn.Server(
        uvicorn.Config(
            app,
            http=server.ImpatientProtocol,
            log_level="critical",
            lifespan="off",
            timeout_keep_alive=1,
        )
    )
    thread = threading.Thread(target=process.run, args=([listening],))
    thread.start()
    yield listening.getsockname()
    process.should_exit = True
    thread.join()
    listening.close()
    patch.undo()


HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "said", [b"", b"G", HEAD, HEAD + b"\r\n" + HEAD[:20]], ids=["nothing", "letter", "head", "next"]
)
def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(address, said):
    with socket.create_connection(address, timeout=60) as slow:
        slow.sendall(said)
        begun, received = time.monotonic(), b""
        try:
            while more := slow.recv(65_536):
                received += more
        except ConnectionResetError:
            pass
        assert time.monotonic() - begun < 30
    assert received.count(b"200 OK") == (b"\r\n\r\n" in said)


@pytest.mark.parametrize(
    "said",
    [HEAD + b"X-A: " + b"a" * 200_000, b"GET /" + b"a" * 200_000, (HEAD + b"A: b\r\n" * 20_000)],
)
def test_a_head_that_is_too_large_is_told_so(address, said):
    with socket.create_connection(address, timeout=60) as large:
        large.sendall(said)
        answer = large.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 431 ") and b"65,536 bytes" in answer


def test_a_body_that_is_dripped_ends_with_a_clear_word(address):
    with socket.create_connection(address, timeout=60) as slow:
        head = HEAD.replace(b"GET /healthz", b"POST /v1/reply")
        slow.sendall(head + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        answer = slow.recv(65_536)
    assert b" 408 " in answer and b"problem+json" in answer


def test_a_request_that_is_refused_by_its_head_ends_the_connection(address):
    head = HEAD.replace(b"GET /healthz", b"PUT /v1/stickers/a")
    for asked, status in (
        (head, b" 403 "),
        (HEAD.replace(b"127.0.0.1", b"evil.example"), b" 421 "),
    ):
        with socket.create_connection(address, timeout=60) as large:
            large.sendall(asked + b"Content-Length: 60000000\r\n\r\n")
            received = b""
            while more := large.recv(65_536):
                received += more
        assert status in received and b"connection: close" in received.lower()


def test_what_fails_below_tells_nobody_what_was_asked(service, caplog, monkeypatch):
    caplog.set_level(python_logging.INFO)

    def fail(*_, **__):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(service.retriever, "reply_many", fail, raising=False)
    asked = {"turns": [{"speaker": "a", "text": SECRET}], "reply_speaker": "b"}
    with client_of(service) as client:
        answer = client.post("/v1/reply", json=asked)
    assert (
        answer.status_code == 500 and answer.headers["content-type"] == "application/problem+json"
    )
    assert SECRET not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text and "test_guards.py" in caplog.text


def test_one_address_that_asks_too_often_is_told_to_wait(service):
    with client_of(service, limits=Limits(per_second=0.001, burst=3)) as client:
        found = [client.get("/v1/packs") for _ in range(5)]
        assert [one.status_code for one in found] == [200, 200, 200, 429, 429]
        assert int(found[-1].headers["Retry-After"]) > 1
        assert found[-1].headers["Connection"] == "close"
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/docs", "/", "/nothing", "/_nicegui/a"])
def test_every_other_address_has_a_rate_as_well(service, path):
    with client_of(service, limits=Limits(page_per_second=0.001, page_burst=2)) as client:
        found = [client.get(path).status_code for _ in range(3)]
        assert found[2] == 429 and 429 not in found[:2]
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_nicegui_ws/socket.io"):
            pass
        assert client.get("/v1/packs").status_code == 200


@hypothesis.given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.integers(1, 5))
@hypothesis.settings(max_examples=30)
def test_no_address_gets_more_than_its_rate_and_its_burst(pauses, burst):
    now, let_through = [0.0], 0
    rate = Rate(2.0, burst, lambda: now[0])
    for pause in pauses:
        now[0] += pause
        wait = rate.wait("one")
        let_through += wait == 0
        assert 0 <= wait <= 0.5
        assert let_through <= burst + 2 * (now[0]) + 1e-6
    assert rate.wait("another") == 0


def test_without_a_key_nobody_writes(service):
    with client_of(service) as client:
        for given in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {KEY}"}):
            answer = client.delete("/v1/packs/warm", headers=given)
            assert answer.status_code == 403 and "without a key" in answer.text
    assert len(service.gallery) == 3


def test_a_gallery_that_only_answers_is_not_written(service, monkeypatch):
    monkeypatch.setattr(service.gallery, "may_write", False)
    with client_of(service, key=Key(KEY)) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        answers = [
            client.delete("/v1/stickers/a"),
            client.patch("/v1/stickers/a", json={"hidden": True}),
        ]
    assert [one.status_code for one in answers] == [409, 409]
    assert "--gallery=DIR" in answers[0].text


def test_answers_may_not_be_shown_or_read_by_other_websites(service):
    with client_of(service) as client:
        answer = client.get("/v1/stickers/a/picture", headers={"Origin": "http://127.0.0.1"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        again = client.get(
            "/v1/stickers/a/picture", headers={"If-None-Match": answer.headers["etag"]}
        )
        assert again.status_code == 304 and not again.content
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
        assert client.options("/v1/stickers/a", headers=preflight).status_code == 403


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "[::1]:8080"])
def test_this_machine_is_known_by_its_names(service, name):
    with client_of(service) as client:
        assert client.get("/healthz", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["", "evil.example", "127.0.0.1.evil.example", "localhost.", "[::2]"]
)
def test_this_machine_is_known_by_no_other_name(service, name):
    with client_of(service) as client:
        assert client.get("/healthz", headers={"Host": name}).status_code == 421


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8080", "https://stickers.example", 200),
        ("stickers.example", "https://stickers.example", 200),
        ("Stickers.example:443", None, 200),
        ("127.0.0.1:8080", "https://other.example:8443", 200),
        ("127.0.0.1:8080", "https://other.example", 403),
        ("127.0.0.1:8080", "https://stickers.example:8443", 403),
        ("127.0.0.1:8080", "http://localhost:3000", 403),
        ("127.0.0.1:8080", "https://evil.stickers.example", 403),
        ("evil.example", None, 421),
        ("evil.stickers.example", None, 421),
    ],
)
@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0"])
def test_a_proxy_shows_the_service_under_the_names_that_are_given(
    service, listens, host, origin, status
):
    names = ["stickers.example", "Other.example:8443"]
    given = settings_of(listens, 8080, open_without_key=True, names=names, environment={})
    with client_of(service, names=given.names, shown_as=given.shown_as) as client:
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        assert client.get("/healthz", headers=headers).status_code == status


def test_names_that_cannot_be_ones_are_refused_all_at_once():
    names = ["https://a.example", "b.example", "c.example/", "", "d:e"]
    with pytest.raises(
        ValueError, match=r"--name=https://a\.example, --name=c\.example/, --name=,"
    ):
        settings_of("127.0.0.1", 1, names=names, environment={})
    assert settings_of("::1", 1, names=["[::2]:80"], environment={}).names[-2:] == (
        "[::1]",
        "[::2]",
    )


# Settings.


def test_the_loopback_needs_no_key_and_others_do(tmp_path):
    assert settings_of("127.0.0.1", 1, environment={}).key is None
    with pytest.raises(ValueError, match=r"--host=0\.0\.0\.0 opens .* --key_file=FILE"):
        settings_of("0.0.0.0", 1, environment={})
    assert settings_of("0.0.0.0", 1, open_without_key=True, environment={}).key is None
    opened = settings_of("0.0.0.0", 1, environment={KEY_VARIABLE: KEY})
    assert opened.key.opens(KEY) and opened.names == ()


def test_a_key_comes_from_a_file_and_is_never_shown(tmp_path, caplog):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o644)
    caplog.set_level(python_logging.WARNING)
    found = settings_of("::1", 1, path, environment={KEY_VARIABLE: "another-key-that-is-long"})
    assert found.key.opens(KEY) and not found.key.opens("another-key-that-is-long")
    assert KEY not in repr(found) + str(vars(found.key)) + caplog.text
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("short", "5 characters; take 16 or more"),
        ("a key with blanks in it", "blanks"),
        ("ein-Schlüssel-mit-Umlaut", "not ASCII"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused(tmp_path, content, message):
    (tmp_path / "key").write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        settings_of("127.0.0.1", 1, tmp_path / "key", environment={})
    assert not content or content not in str(refused.value)
    with pytest.raises(FileNotFoundError, match="no such file"):
        settings_of("127.0.0.1", 1, tmp_path / "none", environment={})


def test_a_key_is_compared_as_a_whole():
    key = Key(KEY)
    others = ("", KEY[:-1], f"{KEY}x", KEY.upper(), f" {KEY}", "\ud800", "ключ" * 9)
    assert key.opens(KEY) and not any(key.opens(other) for other in others)


def test_an_address_that_cannot_be_listened_on_is_one_message():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port={port}: nothing can listen"):
            server._listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="nothing can listen"):
        server._listen("no.such.host.invalid", 1)


def test_what_is_loopback_is_named_once():
    assert set(settings.LOOPBACK) <= {*Settings.names, "::1"}
