"""What is an answer of a server, and what only stands in the place of one."""

import contextlib
import json
import time

import pytest
from fixtures.responses import BODIES
from hypothesis import given, settings

from data_prep.extraction import answers
from data_prep.extraction.answers import NoAnswer, reply_of, said

THOUGHT = "I see a hand, so it may be a wave"


def body(content, finish="stop", **message):
    message = {"role": "assistant", "content": content, **message}
    return json.dumps({"choices": [{"finish_reason": finish, "message": message}]}).encode()


def stream(*pieces, finish="stop", end="data: [DONE]\n\n"):
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    events.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    return "".join(f"data: {json.dumps(one)}\n\n" for one in events).encode() + end.encode()


@pytest.mark.parametrize(
    "response",
    [
        body("waving"),
        b"\xef\xbb\xbf" + body(" waving\n", "STOP", reasoning_content=THOUGHT),
        body([{"type": "text", "text": "wav"}, {"type": "text", "text": "ing"}], "end_turn"),
        body([{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": "waving"}]),
        body({"type": "text", "text": "waving"}, None, refusal=None, tool_calls=[]),
        body(["waving"], "eos_token"),
        b'[{"error": null, "choices": [{"message": {"content": "waving"}}]}]',
        stream("wav", "ing"),
        stream("wav", "ing", finish=None),
        stream("wav", "ing").replace(b"\n", b"\r\n"),
        'data: {"choices": [{"message": {"content": "waving\u2028"}}]}\ndata: [DONE]'.encode(),
        b": keep-alive\n\n" + stream("waving", end=""),
        body(f"<think>\n{THOUGHT}\n</think>\n\nwaving"),
        body(f"{THOUGHT}</think>waving"),
        body(f"<think>a<think>b</think>{THOUGHT}</think>waving"),
        body(f"[THINK]{THOUGHT}[/THINK] waving"),
        body(f"◁think▷{THOUGHT}◁/think▷waving"),
        body(f"<seed:think>{THOUGHT}</seed:think>waving"),
        body(f"<Thinking>{THOUGHT}</THINKING ><answer>waving</answer>"),
        body(f"&lt;think&gt;{THOUGHT}&lt;/think&gt;waving"),
        body(
            f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|><|begin_of_box|>waving<|end_of_box|>"
        ),
        body(
            f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
            "<|channel|>final<|message|>waving<|return|>"
        ),
        body(f"analysis{THOUGHT}.assistantfinalwaving"),
        body(f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>waving"),
        body(f"<unused94>thought\n{THOUGHT}<unused95>waving"),
        body(f"<inner_monologue>{THOUGHT}</inner_monologue><final>waving</final>"),
        body(f"＜think＞{THOUGHT}＜/think＞waving"),
        body(f"<｜think｜>{THOUGHT}<｜/think｜>waving<｜end▁of▁sentence｜>"),
        body(f"<思考>{THOUGHT}</思考>waving<end_of_turn>"),
        body(f"Thinking...\n{THOUGHT}\n...done thinking.\n\nwaving"),
        body(f'<details type="reasoning" done="true">{THOUGHT}</details>\nwaving'),
        body(f"```thinking\n{THOUGHT}\n```\n<think/>waving"),
        body(f"**Reasoning:** {THOUGHT}\n\n**Answer:** waving"),
        body("\\boxed{waving}"),
        body("wav\0ing\x07"),
        body([{"type": "text", "text": {"value": "waving"}}], "FINISH_REASON_STOP"),
        body("waving").replace(b"content", b"Content").replace(b"finish_reason", b"finishReason"),
        body("waving").decode().encode("utf-16"),
        stream("wav", "ing").replace(b"\n", b"\r"),
        stream("wav", "ing").replace(b"\n\n", b"\n"),
        stream("waving").replace(b'"delta"', b'\ndata: "delta"'),
        stream("wav", "ing", end="").replace(b"data: ", b"").replace(b"\n\n", b"\n"),
        b'data: {"choices": [{"index": 1, "delta": {"content": "no"}}]}\n\n' + stream("waving"),
        b'data: {"choices": [{"message": {"content": "wav"}}]}\n\n'
        b'data: {"choices": [{"message": {"content": "waving"}, "finish_reason": "stop"}]}\n\n',
    ],
)
def test_an_answer_is_its_words_without_reasoning_and_marks(response):
    assert said(reply_of(response), may_be_silent=False) == "waving"


@pytest.mark.parametrize(
    ("response", "reason", "words"),
    [
        (body(None), answers.EMPTY, ""),
        (body(" \n"), answers.EMPTY, ""),
        (body([]), answers.EMPTY, ""),
        (body("<|im_end|>"), answers.EMPTY, ""),
        (body([{"type": "reasoning", "text": THOUGHT}]), answers.REASONING, ""),
        (body("wav", "length").replace(b"finish_reason", b"finishReason"), answers.CUT, ""),
        (body("wav", "length").replace(b"finish_reason", b"stop_reason"), answers.CUT, ""),
        (body('<tool_call>{"name": "see"}</tool_call>'), answers.TOOL, "see"),
        (body("[TOOL_CALLS][]"), answers.TOOL, ""),
        (body("I'm sorry, but I can’t assist with that."), answers.REFUSED, "assist"),
        (body("抱歉，我无法协助您。"), answers.REFUSED, ""),
        (body("wav", "guardrail_intervened"), answers.REFUSED, ""),
        (b'data: {"choices": [{\n\n' + stream("waving"), answers.UNFINISHED, "broken stream"),
        (body(None, "length", reasoning_content=THOUGHT), answers.CUT, "raise it"),
        (body("waving, smi", "MAX_TOKENS"), answers.CUT, ""),
        (body("waving, smi", "model_context_window_exceeded"), answers.CUT, ""),
        (body(None, reasoning_content=THOUGHT), answers.REASONING, ""),
        (body("", reasoning=THOUGHT), answers.REASONING, ""),
        (body(f"<think>{THOUGHT}"), answers.REASONING, ""),
        (body(f"<think>{THOUGHT}</think>\n"), answers.REASONING, ""),
        (body(f"<|channel|>analysis<|message|>{THOUGHT}"), answers.REASONING, ""),
        (body("w" * 20_001), answers.TOO_LONG, ""),
        (body(None, refusal="I cannot help."), answers.REFUSED, "I cannot help"),
        (body([{"type": "refusal", "refusal": "No help."}]), answers.REFUSED, "No help"),
        (body("The sticker sh", "content_filter"), answers.REFUSED, "content_filter"),
        (body("", "SAFETY"), answers.REFUSED, "SAFETY"),
        (body(None, "tool_calls", tool_calls=[{"id": "1"}]), answers.TOOL, ""),
        (body("let me look", "tool_calls"), answers.TOOL, ""),
        (body("wav", "abort"), answers.UNFINISHED, "abort"),
        (body("wav", {"type": "?"}), answers.UNFINISHED, "type"),
        (stream("wav", finish=None, end=""), answers.UNFINISHED, "broke off"),
        (stream("wav", end='data: {"cho'), answers.UNFINISHED, "cho"),
        (stream("wav", finish="length"), answers.CUT, ""),
        (b'event: error\ndata: {"error": {"message": "too busy"}}\n', answers.ERROR, "too busy"),
        (b'{"error": {"message": "loading", "code": 503}}', answers.ERROR, "loading; code 503"),
        (b'{"error": "out of credit"}', answers.ERROR, "out of credit"),
        (b'{"object": "error", "message": "no such model"}', answers.ERROR, "no such model"),
        (b'{"detail": [{"msg": "field required"}]}', answers.ERROR, "field required"),
        (b'[{"error": {"status": "DENIED"}}]', answers.ERROR, "DENIED"),
        (b'{"choices": [{"error": {"message": "upstream"}}]}', answers.ERROR, "upstream"),
        (b'{"choices": [{"message": null}]}', answers.FORM, "without a message"),
        (b'{"choices": []}', answers.FORM, "without a choice"),
        (b'{"choices": {"0": 1}}', answers.FORM, "without a choice"),
        (b'{"message": {"content": "waving"}, "done": true}', answers.FORM, "without a choice"),
        (body(17), answers.FORM, "17"),
        (b"17", answers.FORM, "17"),
        (b"[" * 100_000, "a response that is not JSON", "[["),
        (b'{"choices": [{"mess', "a response that is not JSON", "mess"),
        (b"", "a response that is not JSON", ""),
        (body("caf?").replace(b"?", b"\xe9"), "a response that is not JSON", "caf"),
        (b"\n<!doctype html><title>Sign\n in</title>", "a web page and no answer", "Sign in"),
    ],
)  # fmt: skip
def test_what_is_no_answer_has_a_reason_and_the_servers_own_words(response, reason, words):
    with pytest.raises(NoAnswer) as failure:
        said(reply_of(response), may_be_silent=False)
    assert failure.value.reason == reason and words in str(failure.value)


@pytest.mark.parametrize(
    "text",
    [
        "I can't help it!",
        "sorry, no hands are seen",
        '{"reasoning": "x",\n"answer": "y"}',
        "我不能来",
    ],
)
def test_what_looks_like_a_refusal_or_reasoning_and_is_an_answer_stays(text):
    assert said(reply_of(body(text)), may_be_silent=False) == text


@pytest.mark.parametrize(
    "piece", ["*", " ", "<", "[ ", "<answer>", "<think ", "sorry ", "\n**Answer"]
)
@pytest.mark.parametrize("start", ["", "Reasoning: ", "<details "])
def test_no_text_takes_long_to_be_looked_through(piece, start):
    begun = time.process_time()
    for times in (30_000 // len(piece), 200_000 // len(piece)):
        with contextlib.suppress(NoAnswer):
            said(start + piece * times, may_be_silent=False)
    assert time.process_time() - begun < 5  # squared or cubed it is minutes


def test_a_model_that_ends_at_once_has_said_nothing_and_one_that_only_reasons_has_not_answered():
    assert said(" ", may_be_silent=True) == ""
    for reply in ("<think>hm", "<think>hm</think> ", None, 5):
        with pytest.raises(NoAnswer):
            said(reply, may_be_silent=True)


@settings(max_examples=50, deadline=None)
@given(BODIES)
def test_any_response_is_an_answer_or_has_a_reason(response):
    try:
        answer = said(reply_of(response), may_be_silent=False)
    except NoAnswer as failure:
        assert failure.reason and str(failure)
    else:
        assert answer.strip() == answer != "" and answer.encode()
