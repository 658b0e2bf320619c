"""Chat models behind an endpoint: a real server with a tiny model, and one that misbehaves."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from fixtures.prepared import make_prepared_directory
from fixtures.responses import BODIES, completion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("openai", reason="the endpoint backend needs the openai package")

from data_prep.extraction import attributes, comet, dialogue
from data_prep.extraction.attributes import Describer
from data_prep.extraction.comet import FromChat
from data_prep.extraction.dialogue import BackendError
from data_prep.extraction.endpoint import Endpoint, EndpointChat
from data_prep.extraction.prompts import load_prompt
from data_prep.extraction.work import Chat, UnansweredError, Work
from int_ra_jax.common.types import ATTRIBUTES, RELATIONS
from int_ra_jax.data.validation import read_prepared

KNOWLEDGE = load_prompt("knowledge", {"ask": str})
DESCRIBE = load_prompt("attributes", {"questions": dict})
GOOD = json.dumps({relation: [f"a {relation} phrase", "none"] for relation in RELATIONS})


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_prepared_directory(tmp_path_factory.mktemp("bare") / "d", knowledge=False)


def chat(server_or_url, **changes):
    url = getattr(server_or_url, "url", server_or_url)
    settings = {"concurrency": 3, "retries": 2, "timeout_s": 20.0, "length": 16}
    return Chat("m", Endpoint(url, "m", **settings | changes), length=16)


def infer(bare, folder, server, name="out", leave=False, **changes):
    work = Work(bare, folder / name, folder / "cache", leave_unanswered=leave)
    return comet.extract(work, FromChat(chat(server, **changes), KNOWLEDGE))


def test_answers_become_knowledge_and_no_name_leaves_the_machine(
    bare, serve, tmp_path, monkeypatch
):
    monkeypatch.setenv("MY_KEY", "s3cret")
    server = serve(lambda number, body: (200, f"Sure!\n```json\n{GOOD}\n```"))
    counts = infer(bare, tmp_path, server, key_variable="MY_KEY")
    assert counts["unusable"] == 0 and counts["phrases"] == 24 * 5
    first = read_prepared(tmp_path / "out").conversations["train"][0].knowledge
    assert first == {relation: (f"a {relation} phrase",) for relation in RELATIONS}
    assert len(server.bodies) == 24 and not any("User" in body for body in server.bodies)
    assert server.keys == {"Bearer s3cret"} and 1 <= server.most <= 3
    assert "s3cret" not in "".join(
        path.read_text() for path in tmp_path.rglob("*.json*") if path.is_file()
    )


def test_an_unusable_answer_is_repaired_once_then_empty_and_counted(bare, serve, tmp_path):
    def answer(number, body):
        repairing = "cannot be used" in body["messages"][-1]["content"]
        hopeless = "story 3\n" in body["messages"][1]["content"]
        return 200, GOOD if repairing and not hopeless else "I would say he is happy."

    server = serve(answer)
    counts = infer(bare, tmp_path, server)
    assert counts["unusable"] == 1 and counts["phrases"] == 23 * 5
    assert len(server.bodies) == 48
    known = [
        one.knowledge
        for split in read_prepared(tmp_path / "out").conversations.values()
        for one in split
    ]
    assert sum(not any(knowledge.values()) for knowledge in known) == 1


def test_a_passing_failure_is_tried_again_and_answers_are_kept(bare, serve, tmp_path):
    server = serve(lambda number, body: (429 if number % 5 == 0 else 200, GOOD))
    infer(bare, tmp_path, server, retries=6)
    assert len(server.bodies) > 24
    before = len(server.bodies)
    infer(bare, tmp_path, server, name="again")
    assert len(server.bodies) == before


def test_what_fails_for_good_is_named_and_the_next_run_asks_only_that(bare, serve, tmp_path):
    state = {"broken": True}

    def answer(number, body):
        broken = state["broken"] and "story 5\n" in body["messages"][1]["content"]
        return (400 if broken else 200), GOOD

    server = serve(answer)
    with pytest.raises(UnansweredError, match="1 of 24 conversations have no answer"):
        infer(bare, tmp_path, server)
    assert not (tmp_path / "out").exists() and len(server.bodies) == 24
    state["broken"] = False
    infer(bare, tmp_path, server)
    assert len(server.bodies) == 25


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (401, b'{"error": {"message": "no such key"}}', r"refuses \(HTTP 401\): no such key"),
        (404, b'{"detail": "Not Found"}', r"refuses \(HTTP 404\): Not Found"),
        (402, b"pay first", r"refuses \(HTTP 402\): pay first"),
        (429, b'{"error": {"code": "insufficient_quota"}}', "insufficient_quota"),
        (500, b"<html><title>502 Bad Gateway</title></html>", "in a row.* HTTP 500: 502 Bad Gat"),
    ],
)
def test_a_server_that_will_never_answer_ends_the_run_early(
    bare, serve, tmp_path, status, text, said
):
    server = serve(lambda number, body: (status, text))
    with pytest.raises(BackendError, match=said):
        infer(bare, tmp_path, server, retries=0)
    assert len(server.bodies) <= 8 and not (tmp_path / "out").exists()


def ledger_of(directory, kind="knowledge"):
    return read_prepared(directory).info["extraction"][kind]["ledger"]


def test_what_is_no_answer_is_counted_by_reason_asked_again_and_left_on_demand(
    bare, serve, tmp_path, caplog
):
    faults = {
        "story 1\n": (200, completion(None)),
        "story 2\n": (200, completion(GOOD[:40], "length")),
        "story 3\n": (200, b"<html><title>Portal</title></html>"),
        "story 4\n": (200, b'{"error": {"message": "the model sleeps"}}'),
        "story 5\n": (400, b'{"error": {"message": "the policy forbids this"}}'),
        "story 6\n": (200, completion("<think>hm")),
        "story 7\n": (200, completion("<think>hm</think>" + GOOD)),
        "story 8\n": (200, completion([{"type": "text", "text": GOOD}])),
    }

    def answer(number, body):
        asked = body["messages"][1]["content"]
        return next((fault for word, fault in faults.items() if word in asked), (200, GOOD))

    server = serve(answer)
    with pytest.raises(UnansweredError, match="6 of 24 conversations have no answer") as stopped:
        infer(bare, tmp_path, server, concurrency=1, retries=0)
    assert "24 records in, 18 kept" in str(stopped.value) and "sleeps" in caplog.text
    assert "left out: 1 (cut off at --max_tokens; first conversation_0002)" in str(stopped.value)
    cache = (tmp_path / "cache/knowledge.jsonl").read_text()
    assert len(cache.splitlines()) == 18 and "think" not in cache
    before = len(server.bodies)
    infer(bare, tmp_path, server, leave=True, retries=0)
    assert len(server.bodies) == before + 6
    ledger = ledger_of(tmp_path / "out")
    assert (ledger["records_in"], ledger["kept"]) == (24, 18)
    assert sorted((name, one["count"]) for name, one in ledger["left_out"].items()) == [
        ("HTTP 400", 1), ("a web page and no answer", 1), ("an empty answer", 1),
        ("cut off at --max_tokens", 1), ("reasoning and no answer", 1),
        ("the server reported an error", 1),
    ]  # fmt: skip
    unanswered = [
        one
        for split in read_prepared(tmp_path / "out").conversations.values()
        for one in split
        if one.knowledge is None
    ]
    assert len(unanswered) == 6
    faults.clear()
    infer(bare, tmp_path, server, name="whole")
    assert len(server.bodies) == before + 12
    assert ledger_of(tmp_path / "whole") == {"records_in": 24, "kept": 24, "left_out": {}}


def test_answers_that_were_none_are_asked_again_though_an_earlier_run_kept_them(
    bare, serve, tmp_path
):
    server = serve(lambda number, body: (200, GOOD))
    infer(bare, tmp_path, server)
    path = tmp_path / "cache/knowledge.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()]
    kept = ["", None, "<think>so", f"<think>so</think>{GOOD}"]
    for result, value in zip(results, kept, strict=False):
        result["value"] = value
    path.write_text("".join(json.dumps(one) + "\n" for one in results))
    infer(bare, tmp_path, server, name="again")
    assert len(server.bodies) == 24 + 3
    assert ledger_of(tmp_path / "again")["kept"] == 24


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
         "'max_completion_tokens' instead.", 400),
        ([{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}], 422),
    ],
)  # fmt: skip
def test_a_server_is_asked_without_what_it_does_not_take(bare, serve, tmp_path, refusal, status):
    def answer(number, body):
        if "max_tokens" in body:
            words = {"message": refusal} if isinstance(refusal, str) else refusal
            return status, json.dumps({"error": words, "detail": words}).encode()
        if "temperature" in body:
            words = "'temperature' does not support 0 with this model. Only the default (1)"
            return 400, json.dumps({"error": {"message": f"Unsupported value: {words}"}}).encode()
        return 200, GOOD

    server = serve(answer)
    infer(bare, tmp_path, server, retries=0)
    assert len(server.bodies) <= 24 + 2 * 3  # three requests at a time
    last = json.loads(server.bodies[-1])
    assert last["max_completion_tokens"] == 16 and "temperature" not in last


def test_what_one_question_meets_never_ends_the_run_of_the_others(bare, serve, tmp_path):
    state = {"refuses": False}
    refusal = completion(None, "content_filter")

    def answer(number, body):
        asked = body["messages"][1]["content"]
        refused = state["refuses"] and any(f"story {n}\n" in asked for n in range(10, 20))
        return 200, refusal if refused else GOOD

    server = serve(answer)
    state["refuses"] = True
    with pytest.raises(UnansweredError, match="10 of 24"):
        infer(bare, tmp_path, server)
    # The ten are all that is left to ask, and the first ones that are asked.
    with pytest.raises(UnansweredError, match="10 of 24"):
        infer(bare, tmp_path, server)
    fresh = serve(lambda number, body: (200, refusal))
    with pytest.raises(BackendError, match=r"5 dialogues in a row .*the model refused"):
        infer(bare, tmp_path / "fresh", fresh, concurrency=1)
    assert len(fresh.bodies) == 5


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bodies=st.lists(BODIES | st.just(completion(GOOD)), min_size=1, max_size=6))
def test_whatever_a_server_sends_the_ledger_sums(bare, tmp_path_factory, bodies):
    tmp_path, asked = tmp_path_factory.mktemp("any"), itertools.cycle(bodies)

    async def sent(*_):
        return next(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EndpointChat, "_body", sent)
        patch.setattr(dialogue, "IN_A_ROW", 1000)
        infer(bare, tmp_path, "http://localhost:1/v1", leave=True)
    ledger = ledger_of(tmp_path / "out")
    left_out = sum(one["count"] for one in ledger["left_out"].values())
    assert ledger["records_in"] == 24 == ledger["kept"] + left_out


@pytest.mark.slow
def test_a_killed_run_repeats_no_request(bare, serve, tmp_path):
    reached, gate = threading.Event(), threading.Event()

    def answer(number, body):
        if number == 8:  # the kill finds this request unsent: the client waits for the seventh
            reached.set()
        if number > 7 and not gate.is_set():
            gate.wait(60)
        return 200, GOOD

    server = serve(answer)
    command = [
        sys.executable,
        "-m",
        "data_prep.extraction",
        "knowledge",
        bare,
        "--generator=llm",
        "--model=m",
    ]
    command += [f"--endpoint={server.url}", "--concurrency=1", f"--out={tmp_path / 'out'}"]
    command += [f"--cache={tmp_path / 'cache'}", "--max_tokens=16"]
    killed = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    assert reached.wait(60)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    gate.set()
    unanswered = server.bodies[7]
    infer(bare, tmp_path, server)
    repeated = [body for body, times in Counter(server.bodies).items() if times > 1]
    # Only the request that was under way when the run was killed is sent again.
    assert repeated == [unanswered] and len(server.bodies) == 24 + 1


def test_a_sticker_is_asked_about_in_one_conversation_of_several_turns(bare, serve, tmp_path):
    replies = {
        "gesture": "Waving.",
        "posture": "none",
        "facial": "There is no face.",
        "words": 'The sticker says "HI"',
    }

    def answer(number, body):
        question = body["messages"][-1]["content"]
        text = question if isinstance(question, str) else question[-1]["text"]
        return 200, next(reply for word, reply in replies.items() if word in text)

    server = serve(answer)
    work = Work(bare, tmp_path / "out", tmp_path / "cache", overwrite=True)
    attributes.extract(work, Describer(chat(server), DESCRIBE, "model", "Chinese"))
    for sticker in read_prepared(tmp_path / "out").stickers:
        assert sticker.attributes == {
            "gesture": "waving",
            "posture": "",
            "facial": "",
            "verbal": "HI",
        }
    talks = [json.loads(body)["messages"] for body in server.bodies]
    assert sorted({len(talk) for talk in talks}) == [2, 4, 6, 8]
    longest = max(talks, key=len)
    assert [m["role"] for m in longest] == ["system", *["user", "assistant"] * 3, "user"]
    assert "Chinese" in longest[0]["content"]
    assert longest[1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert all(isinstance(message["content"], str) for message in longest[2:])


@pytest.mark.long
def test_transformers_serve_answers_both_extractors(bare, vision_dir, llm_dir, tmp_path):
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")
    pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn")
    for number, (model, sees) in enumerate(((vision_dir("llava"), True), (llm_dir, False))):
        # A random model would be cut off: it is made to end after a few tokens.
        model = shutil.copytree(model, tmp_path / f"model{number}")
        ends = {"eos_token_id": 2, "exponential_decay_length_penalty": [3, 1000.0]}
        (model / "generation_config.json").write_text(json.dumps(ends))
        with _transformers_serve(model, tmp_path / f"{number}.log") as url:
            asked = Chat(str(model), Endpoint(url, str(model), concurrency=2, length=9), length=9)
            work = Work(
                bare, tmp_path / f"out{number}", tmp_path / f"cache{number}", overwrite=True
            )
            if sees:
                attributes.extract(work, Describer(asked, DESCRIBE, "model"), side=64)
            else:
                comet.extract(work, FromChat(asked, KNOWLEDGE))
        lines = (next(work.cache.glob("*.jsonl"))).read_text().splitlines()
        # A random model's answers are of no use, so each conversation is asked twice.
        distinct = len({path.read_bytes() for path in (bare / "images").iterdir()})
        assert len(lines) == (distinct * len(ATTRIBUTES) if sees else 24 * 2)


class _transformers_serve:
    """A real server on loopback, as a context."""

    def __init__(self, model, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        program = Path(sys.executable).with_name("transformers")
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--device", "cpu"]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, program, "serve", str(model), *options],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        base = f"http://127.0.0.1:{self.port}"
        for _ in range(2400):
            try:
                with urllib.request.urlopen(f"{base}/health", timeout=1):
                    return f"{base}/v1"
            except OSError:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                time.sleep(0.1)
        raise AssertionError(f"no server: {self.log.read_text()[-2000:]}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
