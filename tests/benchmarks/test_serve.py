"""What is timed of a service is whole answers; the table has medians of the rounds."""

import asyncio
import json

import pytest

from benchmarks import serve
from int_ra_jax.data.schema import Conversation, Turn

ASKED = Conversation("c", "test", (Turn("a", "hi"), Turn("b", "您好")), "a", "", "")


def asked_of(status, seconds=0.3, clients=3):
    """Lets clients ask a server that is made up; returns what it heard and what was timed."""
    heard = []

    async def answer(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            heard.append(json.loads(await reader.readexactly(length)))
            await asyncio.sleep(0.01)
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}".encode())

    async def quietly(reader, writer):
        try:
            await answer(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    async def run():
        server = await asyncio.start_server(quietly, "127.0.0.1", 0)
        requests = [*map(serve.request_of, serve.bodies("ours", [ASKED]))]
        try:
            port = server.sockets[0].getsockname()[1]
            return await serve.ask(port, requests, clients, seconds)
        finally:
            server.close()

    return asyncio.run(run()), heard


def test_every_client_asks_again_and_again_and_each_answer_is_timed():
    took, heard = asked_of(200)
    assert len(took) == len(heard) >= 6 and min(took) >= 0.01
    assert heard[0] == {
        "turns": [{"speaker": "a", "text": "hi"}, {"speaker": "b", "text": "您好"}],
        "reply_speaker": "a",
        "top_k": serve.TOP,
    }
    assert json.loads(serve.bodies("peer", [ASKED])[0])["text"] == "a: hi\nb: 您好"


def test_an_answer_that_is_none_ends_the_benchmark():
    with pytest.raises(RuntimeError, match="503"):
        asked_of(503)


def test_a_row_has_medians_over_the_rounds():
    rounds = [[0.001, 0.002, 0.003], [0.010] * 5, [0.004] * 4]
    found = serve.row("ours", 100_000, 8, rounds, seconds=2.0)
    # Medians of the rounds: 2, 10 and 4 ms; of their numbers 3, 5 and 4 in 2 s.
    assert (found["p50 ms"], found["requests/s"], found["stickers"]) == ("4.0", "2", "100,000")
