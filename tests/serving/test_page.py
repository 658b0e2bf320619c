"""The page, once with NiceGUI's simulated user and once in a real browser."""

import asyncio
import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import fixtures.browser
import pytest
from nicegui import app, ui
from nicegui.testing.user_interaction import UserInteraction
from PIL import Image
from serving.toy_service import ToyRetriever, picture, toy_gallery
from serving.zips import zipped

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.serving import page as serving_page
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Key, Limits, Settings

TESTS = Path(__file__).resolve().parents[1]
KEY = "a-key-that-is-long-enough"
HOSTILE = "<script>document.title='broken in'</script><img src=x onerror=\"document.title='in'\">"
PATIENCE = 60_000  # ms that a busy machine may take for a step
SLOW = 300  # tenths of a second that it may take to load what draws, or many packs
SERVER = f"""
import sys
from PIL import Image
from serving.toy_service import ToyRetriever, picture, toy_gallery
from data_prep.formats.uploaded import read_pack
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.serving import app, page, server
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Key, Settings
settings = Settings(port=int(sys.argv[1]), key=Key({KEY!r}))
gallery = toy_gallery()
hostile = sys.argv[2]
gallery.put([GallerySticker("d", picture(), hostile[:90], hostile, tags=(hostile,), words="gold",
                            media_type="image/png")])
service = Service(ToyRetriever(gallery), settings.limits, read_pack)
built = app.build(service, settings)
page.attach(built, service, settings)
server.run(built, settings)
"""

pytestmark = [
    # Libraries below NiceGUI warn of their own future; the tests are not about them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_every_text_is_there_in_both_languages():
    english, chinese = serving_page.TEXTS["en"], serving_page.TEXTS["zh"]
    assert set(english) == set(chinese) and all(english.values()) and all(chinese.values())
    holes = {name: re.findall(r"{\w+}", text) for name, text in english.items()}
    assert {name: sorted(re.findall(r"{\w+}", text)) for name, text in chinese.items()} == {
        name: sorted(found) for name, found in holes.items()
    }
    here = Path(serving_page.__file__)
    parts = [here, *(here.with_name(f"page_{part}.py") for part in ("packs", "why"))]
    code = "".join(part.read_text("utf-8") for part in parts)
    english = english.keys() - {*ATTRIBUTES}  # which are said by their names
    assert [name for name in english if not re.search(f"[\"']{name}[\"']", code)] == []


def visit(settings, journey):
    """Lets a simulated user, who needs no browser, use the page."""
    from nicegui.testing.user_simulation import user_simulation

    service = Service(ToyRetriever(toy_gallery()), settings.limits)
    service.ready = True

    def pages():
        pass

    async def run():
        async with user_simulation(pages) as user:
            app.routes[:] = [one for one in app.routes if getattr(one, "path", "") != "/"]
            serving_page.declare(service, settings)
            await journey(user, service)

    try:
        with mock.patch.dict(sys.modules):  # NiceGUI takes the pages' modules out, parents included
            asyncio.run(run())
    finally:
        service.close()


def test_stickers_appear_while_one_types_and_are_sent():
    async def journey(user, service):
        await user.open("/")
        await user.should_see("Write what your friend says")
        user.find(marker="draft").type("all is gold")
        await user.should_see(marker="offer-1")
        await user.should_see("75%")
        await user.should_see("joy · because of")
        user.find(marker="why-1").click()
        await user.should_see(marker="reasons")
        await user.should_see("do not look at parts")  # the toy's stickers have no attributes
        user.find("close").click()
        user.find(marker="offer-1").click()
        await user.should_see("all is gold")
        await user.should_not_see("Write what your friend says")
        assert service.retriever.batches[0][0] == 1
        user.find(marker="find").type("teal")
        await user.should_see(marker="offer-3")
        user.find("中文").click()
        await user.should_see("表情包")

    visit(Settings(), journey)


def test_why_a_sticker_is_offered_shows_where_its_attributes_look():
    async def journey(user, service):
        service.gallery.change("a", attributes={"facial": "a smile", "verbal": ""})
        await user.open("/")
        user.find(marker="draft").type("all is gold")
        await user.should_see(marker="offer-1")
        user.find(marker="why-1").click()
        await user.should_see("facial expression · 4.0×", retries=SLOW)
        await user.should_see("a smile")
        await user.should_see("Where each attribute looks")
        await user.should_not_see("words ·")

    visit(Settings(), journey)


@pytest.mark.parametrize(("resize", "there"), [("crop", True), ("squeeze", False)])
def test_overlays_lie_over_what_the_model_saw_of_the_picture(resize, there):
    async def journey(user, service):
        service.retriever.run = SimpleNamespace(
            config=SimpleNamespace(data=SimpleNamespace(resize=resize))
        )
        service.gallery.change("a", attributes={"facial": "a smile"})
        await user.open("/")
        user.find(marker="draft").type("all is gold")
        await user.should_see(marker="offer-1")
        user.find(marker="why-1").click()
        await user.should_see("a smile", retries=SLOW)
        (laid,) = user.find(marker="overlaid").elements
        assert ("middle" in laid.classes) == there

    visit(Settings(), journey)


def test_of_more_packs_than_a_request_may_name_one_is_left_out():
    async def journey(user, service):
        sticker = service.gallery.held["a"]
        more = [type(sticker)(f"z{n}", sticker.picture, f"z{n}") for n in range(Limits.names)]
        service.gallery.put(more)
        await user.open("/")
        await user.should_see("冷")
        user.find(kind=ui.checkbox, content="warm").click()
        user.find(marker="draft").type("all is gold")
        await user.should_see(marker="offer-12", retries=SLOW)
        await user.should_not_see("a gold square")

    visit(Settings(), journey)


def test_more_packs_than_a_request_may_name_can_be_left_out():
    async def journey(user, service):
        await user.open("/")
        user.find(marker="draft").type("all is gold")
        await user.should_see(marker="offer-1", retries=SLOW)
        await user.should_not_see("a gold square")

    unticked = ["warm", *(f"z{number}" for number in range(Limits.names))]
    with mock.patch.object(serving_page.Packs, "without", unticked):
        visit(Settings(), journey)


def test_without_the_key_the_page_writes_nothing():
    async def journey(user, service):
        await user.open("/")
        await user.should_not_see(marker="pack-name")
        user.find(marker="key").type("another-key-that-is-long")
        await user.should_not_see(marker="pack-name")
        user.find(marker="key").clear()
        user.find(marker="key").type(KEY)
        await user.should_see(marker="pack-name")

    visit(Settings(key=Key(KEY)), journey)


def test_a_service_without_a_key_says_that_nobody_may_write():
    async def journey(user, service):
        await user.open("/")
        await user.should_see("Nobody may write here")
        await user.should_not_see(marker="key")

    visit(Settings(), journey)


def test_a_hidden_sticker_is_shown_to_its_owner_alone():
    async def journey(user, service):
        for one, change in (("a", {"hidden": True}), ("b", {"adult": True})):
            service.gallery.change(one, **change)
        await user.open("/")
        await user.should_see("冷")
        await user.should_not_see(marker="pack-warm")
        user.find(marker="key").type(KEY)
        await user.should_see(marker="pack-warm")
        user.find(marker="pack-warm").click()
        await user.should_see(marker="show-a")
        await user.should_see(marker="hide-b")
        user.find(marker="show-a").click()
        await user.should_see(marker="hide-a")
        assert not service.gallery.get("a").hidden
        user.find(marker="remove-a").click()
        await user.should_not_see(marker="hide-a")
        assert "a" not in service.gallery

    visit(Settings(key=Key(KEY)), journey)


@pytest.mark.parametrize("pack", ["", "long " * 60, "two\nlines", "a/b"])
def test_stickers_of_a_pack_of_any_name_are_offered_and_shown(pack):
    async def journey(user, service):
        sticker = service.gallery.held["a"]
        service.gallery.put([type(sticker)("odd", sticker.picture, pack, "odd one")])
        await user.open("/")
        await user.should_see("冷")
        user.find(kind=ui.checkbox, content="warm").click()
        user.find(marker="draft").type("all is gold")
        await user.should_see(marker="offer-2")
        await user.should_not_see(marker="offer-3")
        (opens,) = [
            one for one in user.find(kind=ui.button).elements
            if one.props.get("aria-label") == f"{pack}: 1"
        ]  # fmt: skip
        UserInteraction(user, {opens}, None).click()
        await user.should_see("odd one")

    visit(Settings(), journey)


@pytest.fixture(scope="module")
def address():
    """Starts the service in a process of its own; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    # NiceGUI takes pytest's variables for a sign that it is itself under test.
    env = {k: v for k, v in os.environ.items() if "PYTEST" not in k and "NICEGUI" not in k}
    env["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port), HOSTILE],
        cwd=TESTS.parent, env=env, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    found, limit = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit, "the server did not start"
            try:
                urllib.request.urlopen(f"{found}/readyz", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, shown = process.communicate(timeout=30)
        finally:
            process.kill()
    assert HOSTILE not in shown and KEY not in shown


def test_a_browser_that_is_required_and_missing_fails_the_run(monkeypatch):
    monkeypatch.delenv(fixtures.browser.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no chromium"):
        fixtures.browser.without("no chromium")
    monkeypatch.setenv(fixtures.browser.REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match="required, and no chromium"):
        fixtures.browser.without("no chromium")


def test_in_a_browser_one_chats_uploads_and_hides(address, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-US")
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    draft = page.locator(".compose input")
    page.locator(".compose").get_by_text("friend").click()
    draft.fill(HOSTILE)
    page.locator(".card").first.wait_for()
    draft.press("Enter")
    page.locator(".bubble", has_text="<script>").wait_for()
    page.locator(".compose").get_by_text("you", exact=True).click()
    draft.fill("all is gold")
    page.locator(".card", has_text="because of gold").first.wait_for()
    draft.press("Alt+2")
    page.locator(".bubble img").wait_for()
    page.locator(".bubble.own").nth(1).wait_for()
    assert page.locator(".bubble script, .card script, .pack b, img[src='x']").count() == 0
    # A pack is dropped; it is there without a reload, and can be limited to.
    page.locator("input[type=password]").fill(KEY)
    noise = Image.frombytes("RGB", (800, 800), random.Random(0).randbytes(3 * 800 * 800))
    noise.save(large := io.BytesIO(), "PNG")  # more than a body without the key may have
    assert len(large.getvalue()) > Limits.body
    pack = zipped(
        {"a grin.png": picture("red"), "b.png": picture("blue"), "c.png": large.getvalue()}
    )
    chooser = page.locator("input[type=file]").first
    chooser.set_input_files([{"name": "p.zip", "mimeType": "application/zip", "buffer": pack}])
    page.locator(".pack", has_text="my stickers").wait_for()
    page.get_by_text("3 taken, 0 left out").wait_for()
    page.locator(".pack", has_text="my stickers").get_by_role("button").click()
    page.locator(".held").nth(1).wait_for()
    page.get_by_role("button", name="hide").first.click()
    page.locator(".held.off").wait_for()
    shows = "image => image.decode().then(() => image.naturalWidth > 0)"
    assert page.locator(".held.off img").evaluate(shows)
    page.get_by_role("button", name="close").click()
    assert page.title() == "Stickers"
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_is_wider_than_the_screen(address, browser, width):
    context = browser.new_context(
        viewport={"width": width, "height": 800}, locale="zh-CN", color_scheme="dark"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator(".compose input").fill("好" * 40)
    page.locator(".card").first.wait_for()
    page.get_by_text("English").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = (
        "e => { const b = e.getBoundingClientRect(); return b.left >= 0 && b.right <= innerWidth }"
    )
    assert page.locator(".compose").evaluate(inside)
    assert page.locator(".compose input").bounding_box()["width"] > 120
    assert page.evaluate("document.body.classList.contains('body--dark')")
    context.close()
