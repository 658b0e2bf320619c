"""The page, once with NiceGUI's simulated user and once in a real browser."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

import pytest
from fixtures.prepared import draw_sticker
from nicegui import app, ui
from PIL import Image

from data_prep.annotation import workspace
from data_prep.annotation.board import KEYS
from data_prep.annotation.journal import LABEL
from data_prep.annotation.page import build
from data_prep.annotation.sessions import Project
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn, write_prepared
from int_ra_jax.data.validation import read_prepared

ROOT = Path(__file__).parents[3]
HOSTILE = "<script>document.title='broken in'</script><img src=x onerror=\"document.title='in'\">"

pytestmark = [
    # Libraries below NiceGUI warn of their own future; the tests are not about them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def hostile_directory(tmp_path_factory):
    """Returns a directory in which every text tries to become HTML."""
    import numpy as np

    path = tmp_path_factory.mktemp("data") / "hostile"
    rng = np.random.default_rng(0)
    names = ["joy", "<b>rage</b>", "惊讶"]
    stickers = [
        StickerEntry(f"s{i}", f"images/s{i}.png", dict.fromkeys(
            ("gesture", "posture", "facial", "verbal"), ""
        ))
        for i in range(2)
    ]  # fmt: skip
    conversations = [
        Conversation(
            id=f"c{i}", split=split, reply_speaker="<i>bo</i>", sticker="s0", intention="joy",
            turns=(Turn("ann", f"{HOSTILE} {i}", "s1"), Turn("<i>bo</i>", f"two\nlines {i}")),
        )
        for i, split in enumerate(["train", "train", "valid", "test"])
    ]  # fmt: skip
    images = {s.image: draw_sticker("gold", rng) for s in stickers}
    lying, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 40), "gold").save(lying, "PNG", exif=exif)
    images["images/s0.png"] = lying.getvalue()
    info = {"name": "hostile", "version": "1.0.0", "licence": "CC0-1.0", "source": "written"}
    write_prepared(path, conversations, stickers, names, info, images)
    return path


def visit(project, journey):
    """Lets a simulated user, who needs no browser, go through the pages of an project."""
    from nicegui.testing.user_simulation import user_simulation

    def pages():
        pass

    async def run():
        async with user_simulation(pages) as user:
            app.routes[:] = [r for r in app.routes if getattr(r, "path", "") != "/"]
            build(project)
            await journey(user)

    try:
        with mock.patch.dict(sys.modules):  # NiceGUI takes the pages' modules out, parents included
            asyncio.run(run())
    finally:
        project.close()


def opened(directory, workdir, only=None):
    prepared = read_prepared(directory)
    return Project(prepared, workdir, workspace.begin(workdir, prepared), only)


def events(workdir, name):
    lines = (workdir / "annotators" / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [(e["action"], e.get("intention")) for e in map(json.loads, lines)]


def test_a_user_enters_a_name_decides_and_takes_back(hostile_directory, tmp_path):
    async def journey(user):
        await user.open("/")
        await user.should_see("Who are you?")
        await user.open("/annotate?name=ann")
        await user.should_see("0 of 4")
        await user.should_see("<i>bo</i> mean by this sticker")
        user.find("惊讶").click()
        await user.should_see("1 of 4")
        user.find(marker="undo").click()
        await user.should_see("taken back: 惊讶")
        await user.should_see("0 of 4")
        for done in range(4):
            user.find("none fits" if done else "<b>rage</b>").click()
            await user.should_see(f"{done + 1} of 4")
        await user.should_see("Nothing left to decide")

    visit(opened(hostile_directory, tmp_path / "w"), journey)
    assert events(tmp_path / "w", "ann") == [
        ("label", "惊讶"),
        ("undo", None),
        ("label", "<b>rage</b>"),
        *[("none_fits", None)] * 3,
    ]


def test_another_sticker_is_picked_and_shown_to_who_settles(hostile_directory, tmp_path):
    project = opened(hostile_directory, tmp_path / "w")
    (shared,) = workspace.shared_ids(list(project.conversations), project.settings.overlap)

    async def journey(user):
        await user.open("/annotate?name=ann")
        user.find("another fits better").click()
        await user.should_not_see("惊讶")  # the sticker first, then its intention
        user.find(marker="words").type("nothing has this")
        await user.should_see("No other sticker has these words.")
        user.find(marker="words").clear()
        await user.should_see(marker="pick-1")
        user.find(marker="pick-1").click()
        await user.should_see("in the place of the sticker that was sent")
        user.find("惊讶").click()
        await user.should_see("1 of 4")
        user.find(marker="undo").click()
        await user.should_see("in the place of the sticker that was sent")
        user.find("the sent one fits").click()
        await user.should_not_see("in the place of the sticker that was sent")
        user.find(kind=ui.button, content="惊讶").click()
        await user.should_see("1 of 4")
        user.find("another fits better").click()
        await user.should_see("no sticker fits")
        user.find("no sticker fits").click()
        await user.should_see("2 of 4")
        project.annotator("ann").act(LABEL, shared, "joy", True)
        project.annotator("bo").act(LABEL, shared, "joy", False, "s1")
        await user.open("/adjudicate?name=cy")
        await user.should_see("ann: joy")
        await user.should_see("bo: joy, by another sticker")
        user.find(marker="pick-1").click()
        await user.should_see("in the place of the sticker that was sent")
        user.find(kind=ui.button, content="joy").click()
        await user.should_see("Nothing left to decide")
        await user.open("/agreement?name=cy")
        await user.should_see("the sticker that was sent fits: ann ")

    visit(project, journey)
    lines = (tmp_path / "w" / "annotators" / "ann.jsonl").read_text("utf-8").splitlines()
    said = [(e["action"], e.get("fits"), e.get("sticker")) for e in map(json.loads, lines)]
    assert said[:4] == [
        ("label", False, "s1"),
        ("undo", None, None),
        ("label", True, None),
        ("none_fits", False, None),
    ]
    settled = json.loads((tmp_path / "w" / "adjudication.jsonl").read_text("utf-8"))
    assert (settled["intention"], settled["fits"], settled["sticker"]) == ("joy", False, "s1")


def test_disputes_show_what_was_said_and_agreement_its_figures(hostile_directory, tmp_path):
    project = opened(hostile_directory, tmp_path / "w")
    (shared,) = workspace.shared_ids(list(project.conversations), project.settings.overlap)
    for name, vote in (("ann", "joy"), ("bo", "惊讶")):
        project.annotator(name).act(LABEL, shared, vote)

    async def journey(user):
        await user.open("/adjudicate?name=cy")
        await user.should_see("Disagreements")
        await user.should_see("ann: joy")
        await user.should_see("bo: 惊讶")
        await user.open("/agreement?name=cy")
        await user.should_see("Cohen's kappa ann, bo: 0.000")
        await user.open("/annotate?name=..%2Fcy")
        await user.should_see("cannot be an annotator's name")

    visit(project, journey)


def test_a_page_for_one_annotator_serves_nobody_else(hostile_directory, tmp_path):
    project = opened(hostile_directory, tmp_path / "w", only="ann")
    with pytest.raises(ValueError, match="this page is ann's alone"):
        project.annotator("bo")

    async def journey(user):
        await user.open("/annotate?name=bo")
        await user.should_see("0 of 4")

    visit(project, journey)
    assert [path.name for path in (tmp_path / "w/annotators").glob("*.jsonl")] == ["ann.jsonl"]


def test_no_key_stands_for_two_intentions():
    assert len(set(KEYS)) == len(KEYS) == 36


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(hostile_directory, tmp_path_factory):
    """Starts launch.py as a person would; yields its address and its directory."""
    workdir, port = tmp_path_factory.mktemp("served") / "w", free_port()
    process = subprocess.Popen(
        [sys.executable, "launch.py", "--mode=annotate", f"--prepared_dir={hostile_directory}",
         f"--workdir={workdir}", f"--port={port}", "--overlap=1"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        # NiceGUI takes pytest's variables for a sign that it is itself under test.
        env={k: v for k, v in os.environ.items() if "PYTEST" not in k and "NICEGUI" not in k},
    )  # fmt: skip
    address, limit = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit, "the server did not start"
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield address, workdir, hostile_directory
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, shown = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, shown
    assert "Traceback" not in shown


def test_a_foreign_name_for_this_machine_reaches_nothing(server):
    address, _, _ = server
    request = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400
    refused.value.close()


def test_pictures_are_served_by_number_and_nothing_else_is(server):
    address, _, directory = server
    with urllib.request.urlopen(f"{address}/stickers/1") as answer:
        assert answer.read() == (directory / "images/s1.png").read_bytes()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    with urllib.request.urlopen(f"{address}/stickers/0") as answer:  # as a browser may not turn it
        assert answer.headers["Content-Type"] == "image/png"
        assert Image.open(io.BytesIO(answer.read())).size == (40, 10)
    for path in ("stickers/9", "stickers/-1", "stickers/..%2f..%2fdataset.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/{path}")
        assert refused.value.code in (404, 422)
        refused.value.close()


def test_in_a_browser_keys_decide_and_hostile_text_stays_text(server, browser):
    address, workdir, _ = server
    page = browser.new_page()
    page.goto(f"{address}/annotate?name=ann")
    page.get_by_text("0 of 4").wait_for()
    assert HOSTILE in page.inner_text(".chat")
    assert page.title() == "Which intention?"
    assert page.locator(".chat script, .chat img[src='x'], .grid b, .chat i").count() == 0
    assert page.locator(".chat .words", has_text="two").inner_text().startswith("two\nlines")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    page.keyboard.press("2")
    page.get_by_text("1 of 4").wait_for()
    page.get_by_text("joy", exact=True).click()
    page.get_by_text("2 of 4").wait_for()
    page.keyboard.press("ArrowLeft")  # the button that was clicked must not swallow the key
    page.get_by_text("taken back: joy").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_text("1 of 4, 1 skipped").wait_for()
    page.keyboard.press("Control+1")  # the browser's own shortcut, and no decision
    page.keyboard.press("-")
    page.get_by_text("2 of 4, 1 skipped").wait_for()
    page.reload()
    page.get_by_text("2 of 4, 1 skipped").wait_for()
    page.close()
    assert [action for action, _ in events(workdir, "ann")] == [
        "label", "label", "undo", "skip", "none_fits",
    ]  # fmt: skip


def test_a_second_server_for_the_same_annotator_is_refused_with_one_message(server):
    address, workdir, directory = server
    urllib.request.urlopen(f"{address}/annotate?name=ann").close()
    done = subprocess.run(
        [sys.executable, "launch.py", "--mode=annotate", f"--prepared_dir={directory}",
         f"--workdir={workdir}", "--annotator=ann", f"--port={free_port()}"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is open in another process" in done.stderr
    assert "Traceback" not in done.stderr
