"""New stickers of an open gallery are described over real sockets, by a server that is told how."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures.pictures import drawn

pytest.importorskip("openai", reason="the describer needs the openai package")

from data_prep import modes, open_gallery
from data_prep.extraction import sticker_describer
from data_prep.extraction.answers import NoAnswer
from data_prep.extraction.dialogue import IN_A_ROW, BackendError
from data_prep.extraction.sticker_describer import StickerDescriber
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.serving import modes as serving

REPLIES = {
    "gesture": "Waving.",
    "posture": "none",
    "facial": "a grin",
    "words": 'The sticker says "HI"',
}
SEEN = {"gesture": "waving", "posture": "", "facial": "a grin", "verbal": "HI"}


def says(number, body):
    """Answers each question of the prompt."""
    question = body["messages"][-1]["content"]
    text = question if isinstance(question, str) else question[-1]["text"]
    return 200, next(reply for word, reply in REPLIES.items() if word in text)


def named(server, model="org/m@1"):
    return f"{model}@{server.url}"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Repeats no request, which takes the client half a second."""
    monkeypatch.setattr(sticker_describer, "RETRIES", 0)


def test_a_picture_is_shown_once_with_the_key_and_each_attribute_asked_for(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    server = serve(says)
    assert StickerDescriber(named(server))(drawn(1, "GIF", frames=3)) == SEEN
    talks = [json.loads(body) for body in server.bodies]
    assert {talk["model"] for talk in talks} == {"org/m@1"} and len(talks) == 4
    assert server.keys == {"Bearer s3cret"}
    parts = talks[0]["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["image_url"] * 3 + ["text"]
    chinese = StickerDescriber(named(server), "Chinese", words=False)
    assert chinese(drawn(1)) == SEEN | {"verbal": ""}
    assert len(server.bodies) == 7 and "Chinese" in server.bodies[-1]


def test_several_threads_ask_at_once_a_server_that_takes_less_than_it_is_sent(serve):
    def picky(number, body):
        ended = time.monotonic() + 30
        while server.most < 8 and time.monotonic() < ended:  # all of them are told at once
            time.sleep(0.01)
        if "max_tokens" in body:
            return 400, b'{"error": {"message": "max_tokens: use max_completion_tokens"}}'
        if "temperature" in body:
            return 400, b'{"error": {"message": "temperature is not supported"}}'
        return says(number, body)

    server = serve(picky)
    describe = StickerDescriber(named(server))
    with ThreadPoolExecutor(12) as pool:
        assert [*pool.map(describe, map(drawn, range(12)))] == [SEEN] * 12
    assert server.most == 8


def test_one_sticker_without_an_answer_is_none_of_the_others(serve, caplog):
    state = {"refuses": True}

    def answer(number, body):
        return (400, b'{"error": "a grin"}') if state["refuses"] else says(number, body)

    describe = StickerDescriber(named(serve(answer)))
    for _ in range(2 * IN_A_ROW):
        with pytest.raises(NoAnswer):
            describe(drawn(1))
    assert "a sticker is not described: HTTP 400" in caplog.text and "grin" not in caplog.text
    state["refuses"] = False
    assert describe(drawn(1)) == SEEN
    with pytest.raises(ValueError, match="no known format"):
        describe(b"no picture")


@pytest.mark.parametrize(("status", "asked"), [(401, 1), (500, IN_A_ROW)])
def test_a_server_that_will_not_answer_is_left_alone_for_a_while(
    serve, status, asked, monkeypatch, caplog
):
    state = {"status": status}
    server = serve(lambda number, body: (state["status"], says(number, body)[1]))
    describe = StickerDescriber(named(server))
    for _ in range(3 * IN_A_ROW):
        with pytest.raises((BackendError, NoAnswer)):
            describe(drawn(1))
    assert len(server.bodies) == asked
    assert caplog.text.count("no sticker is described for 60 s") == 1
    state["status"] = 200
    describe._paused_until = 0.0
    assert describe(drawn(1)) == SEEN


def test_what_names_no_model_and_no_address_is_refused(flagged, tmp_path):
    for wrong in ("http://localhost:1/v1", "model", "@http://localhost:1/v1", "m@localhost:1"):
        with pytest.raises(ValueError, match="write MODEL@http://HOST:PORT/v1"):
            StickerDescriber(wrong)
    flagged.describer_language = "Chinese"
    with pytest.raises(ValueError, match="needs --describer=MODEL@URL"):
        modes.describer()
    flagged.describer = "m@http://localhost:1/v1"
    assert isinstance(modes.describer(), StickerDescriber)
    with pytest.raises(ValueError, match="read by add alone; list describes nothing"):
        next(open_gallery.act("g", tmp_path, ["list"], modes.describer()))
    flagged.gallery = None
    with pytest.raises(ValueError, match="--describer needs --gallery"):
        serving._service(tmp_path, describe=modes.describer())


def test_the_flag_describes_what_is_added(serve, flagged, evaluated, tmp_path, monkeypatch, capsys):
    server, opened = serve(says), Gallery.open
    encoder = StickerEncoder.from_workdir(evaluated.workdir)
    monkeypatch.setattr(Gallery, "open", lambda path, _, **given: opened(path, encoder, **given))
    monkeypatch.setattr(open_gallery, "_reads_words", lambda: False)
    (tmp_path / "pack").mkdir()
    for number in (1, 2):
        (tmp_path / "pack" / f"{number}.png").write_bytes(drawn(number))
    flagged.gallery, flagged.describer = str(tmp_path / "g"), named(server)
    for _ in range(2):
        modes.gallery(evaluated.workdir, "add", str(tmp_path / "pack"))
    flagged.describer = None
    modes.gallery(evaluated.workdir, "list", "pack")
    assert capsys.readouterr().out.count("waving; a grin; HI") == 2
    assert len(server.bodies) == 2 * 4  # the second time nothing is asked
