"""The bot, against Telegram's own request objects and a service that is made up."""

import asyncio
import importlib.util
import json
from pathlib import Path

import httpx
import pytest

telegram = pytest.importorskip("telegram", reason="python-telegram-bot is not installed")
from telegram.ext import Application  # noqa: E402
from telegram.request import BaseRequest  # noqa: E402

PATH = Path(__file__).resolve().parents[2] / "examples" / "telegram_bot.py"
BOT = {"id": 1, "is_bot": True, "first_name": "Bot", "username": "bot"}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("telegram_bot", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Noted(BaseRequest):
    """Sends nothing; notes what would have been sent to Telegram."""

    def __init__(self):
        self.sent = []

    read_timeout = property(lambda self: 1)

    async def initialize(self):
        pass

    async def shutdown(self):
        pass

    async def do_request(self, url, method, request_data=None, **timeouts):
        name = url.rpartition("/")[2]
        self.sent.append((name, request_data))
        said = {"message_id": 9, "date": 0, "chat": {"id": 5, "type": "group"}, "text": "x"}
        return 200, json.dumps({"ok": True, "result": BOT if name == "getMe" else said}).encode()


def visit(example, messages, likeliest=0.9, media_type="image/png", status=200, whether=None):
    """Lets people write; returns what was asked of the service and sent to Telegram."""
    asked, noted = [], Noted()

    def answer(request):
        if request.url.path == "/v1/reply":
            asked.append(json.loads(request.content))
            found = {"sticker": {"id": f"s{len(asked)}", "picture": "/v1/stickers/s/picture"}}
            body = {"stickers": [found], "intention_probabilities": {"joy": likeliest}}
            body["whether"] = whether
            return httpx.Response(status, json=body)
        return httpx.Response(200, content=b"picture", headers={"content-type": media_type})

    async def run():
        service = httpx.AsyncClient(
            transport=httpx.MockTransport(answer), base_url="http://127.0.0.1:8080"
        )
        builder = Application.builder().token("1:a").request(noted).get_updates_request(Noted())
        application = example.listen(builder.updater(None), example.Bot(service))
        async with application, service:
            for number, text in enumerate(messages):
                entities = [{"type": "bot_command", "offset": 0, "length": len(text)}]
                message = {
                    "message_id": number, "date": 0, "chat": {"id": 5, "type": "group"},
                    "from": {"id": 2, "is_bot": False, "first_name": "Ann"}, "text": text,
                    "entities": entities if text[0] == "/" else [],
                }  # fmt: skip
                update = {"update_id": number, "message": message}
                await application.process_update(telegram.Update.de_json(update, application.bot))

    asyncio.run(run())
    return asked, [name for name, _ in noted.sent if name != "getMe"], noted


def test_a_sticker_is_sent_when_one_is_asked_for(example):
    asked, sent, noted = visit(example, ["I passed!", "/sticker", "again", "/sticker"])
    assert sent == ["sendPhoto", "sendPhoto"]
    assert asked[0]["turns"] == [{"speaker": "Ann", "text": "I passed!"}]
    assert (asked[0]["recent"], asked[1]["recent"]) == ([], ["s1"])
    (parameters,) = [data for name, data in noted.sent if name == "sendPhoto"][:1]
    assert parameters.parameters["chat_id"] == 5
    assert [content for _, content, _ in parameters.multipart_data.values()] == [b"picture"]


def test_what_moves_is_sent_as_an_animation(example):
    assert visit(example, ["hi", "/sticker"], media_type="image/gif")[1] == ["sendAnimation"]


def test_unasked_it_speaks_seldom_and_only_where_it_is_sure(example):
    assert visit(example, ["hi"] * 25)[1] == ["sendPhoto"] * 2
    assert visit(example, ["hi"] * 25, likeliest=0.2)[1] == []
    assert visit(example, ["hi"] * 25, whether=0.6)[1] == ["sendPhoto"] * 2
    assert visit(example, ["hi"] * 25, whether=0.1)[1] == []
    assert visit(example, ["hi", "/sticker"], whether=0.1)[1] == ["sendPhoto"]


def test_without_words_or_without_a_service_it_says_so(example):
    assert visit(example, ["/sticker"])[1] == ["sendMessage"]
    assert visit(example, ["hi", "/sticker"], status=503)[1] == ["sendMessage"]
