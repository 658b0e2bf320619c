"""The tools of a language model, asked by the protocol's own client over standard input."""

import asyncio
import base64
import io
import os
import sys
import threading
from pathlib import Path

import mcp
import numpy as np
import pytest
from PIL import Image
from serving.toy_service import ToyRetriever, picture, toy_gallery

from int_ra_jax.serving import tool_server
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Limits

TESTS = Path(__file__).resolve().parents[1]
TURNS = [{"speaker": "ann", "text": "All is gold!"}]
SERVER = """
from serving.toy_service import ToyRetriever, toy_gallery
from int_ra_jax.serving import tool_server
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Limits
tool_server.run(Service(ToyRetriever(toy_gallery()), Limits()))
"""

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def talk(server, *calls):
    """Lets the protocol's client list the tools and call some; returns both."""

    async def run():
        async with mcp.Client(server) as client:
            tools = await client.list_tools()
            return tools.tools, [await client.call_tool(*one) for one in calls]

    return asyncio.run(run())


@pytest.fixture
def service():
    made = Service(ToyRetriever(toy_gallery()), Limits())
    yield made
    made.close()


def said(result):
    return " ".join(one.text for one in result.content if one.type == "text")


def test_over_standard_input_a_model_gets_stickers_with_their_pictures():
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    server = mcp.StdioServerParameters(
        command=sys.executable, args=["-c", SERVER], env={**os.environ, "PYTHONPATH": path}
    )
    tools, (reply, search) = talk(
        mcp.stdio_client(server),
        ("reply_with_sticker", {"turns": TURNS, "reply_speaker": "bo", "top_k": 2}),
        ("search_stickers", {"words": "猫 挥手", "packs": ["冷"]}),
    )
    assert [tool.name for tool in tools] == ["reply_with_sticker", "search_stickers"]
    assert [one.type for one in reply.content] == ["text", "text", "image", "text", "image"]
    assert "intention: joy" in said(reply) and "1. a (pack warm): a gold square" in said(reply)
    shown = [one for one in reply.content if one.type == "image"]
    assert shown[0].mime_type == "image/png"
    assert base64.b64decode(shown[0].data) == picture("gold")
    assert "1. c (pack 冷)" in said(search) and not search.is_error


@pytest.mark.parametrize(
    ("tool", "arguments", "word"),
    [
        ("reply_with_sticker", {"turns": [], "reply_speaker": "b"}, "turns"),
        ("reply_with_sticker", {"turns": [{"text": 1}], "reply_speaker": "b"}, "turns[0].speaker"),
        ("reply_with_sticker", {"turns": TURNS, "reply_speaker": "b", "top_k": 99}, "top_k"),
        ("reply_with_sticker", {"turns": TURNS * 201, "reply_speaker": "b"}, "turns"),
        ("search_stickers", {"words": "\n"}, "blank"),
        ("search_stickers", {"words": "a" * 501}, "words"),
        ("search_stickers", {}, "words"),
    ],
)
def test_a_model_that_asks_for_what_cannot_be_is_told_why(service, tool, arguments, word):
    _, (result,) = talk(tool_server.build(service), (tool, arguments))
    assert result.is_error and word in said(result)


def test_a_heavy_picture_is_shown_smaller(service):
    noise = np.random.default_rng(0).integers(0, 255, (400, 600, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    sticker = service.gallery.held["a"]
    service.gallery.put([type(sticker)("a", content.getvalue(), media_type="image/png")])
    _, (result,) = talk(tool_server.build(service), ("search_stickers", {"words": "a", "top_k": 1}))
    (shown,) = [one for one in result.content if one.type == "image"]
    assert Image.open(io.BytesIO(base64.b64decode(shown.data))).size == (256, 171)


def test_pictures_are_read_beside_the_loop_that_answers_everybody(service, monkeypatch):
    read, threads = service.gallery.picture, []
    monkeypatch.setattr(
        service.gallery, "picture", lambda id: threads.append(threading.get_ident()) or read(id)
    )
    talk(tool_server.build(service), ("search_stickers", {"words": "gold"}))
    assert len(threads) == 3 and threading.get_ident() not in threads


def test_what_was_hidden_since_it_was_found_is_not_shown(service, monkeypatch):
    find = service.retriever.search

    def found(words, **asked):
        answer = find(words, **asked)
        service.gallery.change("a", hidden=True)
        return answer

    monkeypatch.setattr(service.retriever, "search", found)
    _, (result,) = talk(tool_server.build(service), ("search_stickers", {"words": "gold"}))
    assert (
        not result.is_error and "2. b" in said(result) and "(pack warm): a gold" not in said(result)
    )
