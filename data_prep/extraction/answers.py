"""What a chat model really said: its words without its reasoning, or why there are none.

A server has many ways not to answer: with an error in a response that says 200, with a web page,
with reasoning alone, with an answer cut in the middle. None of them is an answer, and none is kept.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.extraction.reasoning import without_reasoning
from data_prep.problems import short

MAX_REPLY = 20_000  # characters of an answer; more is none
REFUSED = "the model refused"
CUT = "cut off at --max_tokens"
REASONING = "reasoning and no answer"
EMPTY = "an empty answer"
TOO_LONG = f"an answer of more than {MAX_REPLY:,} characters"
UNFINISHED = "an answer that was not finished"
TOOL = "a call of a tool and no answer"
ERROR = "the server reported an error"
FORM = "a response that is no chat completion"

_MAX_LINES = 100  # of one event of a stream
_WORDS = 300  # characters of a server's own words
# What servers say of an answer that came to its end; whatever else they say is taken at its word.
_FINISHED = re.compile(
    "|none|null|(finish_reason_)?stop(ped|_sequence|_token|_str)?|eos(_token)?|end(_turn)?"
    "|completed?|finish(ed)?|done|success|normal"
)
_FINISH_KEYS = ("finish_reason", "native_finish_reason", "done_reason", "stop_reason")
_UNFINISHED = (
    (re.compile("length|token|trunc|context"), CUT),
    (
        re.compile(
            "filter|safety|refus|sensitiv|block|prohibit|recitation|moderation|policy|guardrail"
            "|toxic|spii"
        ),
        REFUSED,
    ),
    (re.compile("tool|function"), TOOL),
)
_MARK = re.compile(
    r"<[|｜][^|｜<>\s]{1,40}[|｜]>|</s>|</?(?:answer|final|final_answer|output|response)>"
    r"|<start_of_turn>(?:model|assistant)?|<end_of_turn>",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"<(answer|final|final_answer|output|response)>(?P<said>.*)</\1>"
    r"|\A\s*\\boxed\{(?P<boxed>[^{}]*)\}\s*\Z",
    re.DOTALL | re.IGNORECASE,
)
_CALL = re.compile(
    r"<[|｜]?/?(?:tool_calls?|function_calls?|toolcall|function=\w{1,60}|tool▁calls?▁begin)(?:[|｜]?>)"
    r"|\[TOOL_CALLS\]|<\|python_tag\|>",
    re.IGNORECASE,
)
# What a model that was taught to refuse says, whatever it was asked; "unable to see hands" is an
# answer, and so is a sticker's "I can't help it".
_REFUSAL = re.compile(
    r"\A\W{0,6}(?:(?:i'?m|i am) (?:(?:very|so|really) )?sorry|sorry|i apologi[sz]e"
    r"|unfortunately)?\W{0,6}"
    r"(?:but )?(?:as an ai\b[^.]{0,60}?)?(?:i (?:can(?:'|’)?t|cannot|can not|won(?:'|’)?t"
    r"|am (?:unable|not able) to|(?:'|’)m (?:unable|not able) to)|i(?:'|’)m (?:unable|not able) to)"
    r" (?:(?:assist|help)(?: you)? with|comply with|fulfil+|process this|engage with|respond to)\b"
    r"|\A\W{0,6}(?:很?抱歉|对不起)?\W{0,6}(?:但是?)?\W{0,6}我?(?:无法|不能)(?:协助|帮助你|满足|回应|处理|完成)"
    r"(?:你|您|这|此|该)",
    re.IGNORECASE,
)
# A file of lines, a terminal and a tokenizer each take them for something else.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_EVENT = re.compile(r"(?:data|event|id|retry)?:")
_ERROR_KEYS = ("error", "errors", "detail", "message", "msg", "error_msg", "error_message")


class NoAnswer(Exception):
    """A reply that is no answer.

    Attributes:
      reason: its name, by which such replies are counted.
      of_server: whether the server is at fault, so that other questions would fare no better.
    """

    def __init__(self, reason: str, detail: str = "", of_server: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.of_server = reason, of_server


def said(reply: object, may_be_silent: bool) -> str:
    """Returns what a model said, without its reasoning and the marks of its chat template.

    Args:
      reply: the model's whole text, as it is kept.
      may_be_silent: whether an empty text is an answer.

    Raises:
      NoAnswer: if it says nothing.
    """
    if not isinstance(reply, str):
        raise NoAnswer(FORM, f"the text is {short(reply)}")
    text = without_reasoning(reply)
    if reply.strip() and not text.strip():
        raise NoAnswer(REASONING, short(reply))
    if len(text) > 2 * MAX_REPLY:  # before anything is looked for in it
        raise NoAnswer(TOO_LONG)
    if _CALL.search(text):
        raise NoAnswer(TOOL, short(text.strip()))
    if found := _ANSWER.search(text):
        text = found["said"] or found["boxed"] or ""
    text = _MARK.sub("", text).translate(_CONTROL).strip()
    if not text and not may_be_silent:
        raise NoAnswer(EMPTY)
    if _REFUSAL.search(text):
        raise NoAnswer(REFUSED, short(text))
    if len(text) > MAX_REPLY:
        raise NoAnswer(TOO_LONG)
    return text


def reply_of(body: bytes) -> str:
    """Returns the model's whole text from the response of an OpenAI-compatible server.

    Args:
      body: one completion in JSON, or the events of a stream of them.

    Raises:
      NoAnswer: if there is no whole text, with the server's own words where it has any.
    """
    try:
        return _reply_in(_record(body))
    except RecursionError:
        raise NoAnswer(FORM, "it is nested too deeply", of_server=True) from None


def _reply_in(record: Mapping[str, Any]) -> str:
    if words := _error_of(record):
        raise NoAnswer(ERROR, words, of_server=True)
    choices = record.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise NoAnswer(FORM, f"without a choice: {_brief(record)}", of_server=True)
    if choice.get("error"):
        raise NoAnswer(ERROR, _words(choice["error"]), of_server=True)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise NoAnswer(FORM, f"without a message: {_brief(choice)}", of_server=True)
    text, refusal = _text(message.get("content"))
    if refusal or message.get("refusal"):
        raise NoAnswer(REFUSED, _words(refusal or message["refusal"]))
    if message.get("tool_calls") or message.get("function_call"):
        raise NoAnswer(TOOL)
    _check_finished(_finish_of(choice))
    if not text.strip():
        if _reasons(message):
            raise NoAnswer(REASONING)
        raise NoAnswer(EMPTY)
    # Half a surrogate pair can be said in JSON, and no file can hold it.
    return text.encode("utf-8", "replace").decode().strip()


def _finish_of(choice: Mapping[str, Any]) -> object:
    """Returns why an answer ended, under whichever key a server says it."""
    if choice.get("finish_reason") is None:
        said = (choice.get(key) for key in _FINISH_KEYS)
        return next((one for one in said if isinstance(one, str)), None)
    return choice["finish_reason"]


def _reasons(message: Mapping[str, Any]) -> bool:
    """Tells whether a message has reasoning beside its content, or as parts of it."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    kinds = {str(part.get("type")) for part in parts if isinstance(part, dict)}
    beside = any(message.get(key) for key in ("reasoning_content", "reasoning", "thinking"))
    return beside or bool(kinds & {"thinking", "reasoning", "redacted_thinking"})


def words_of(body: bytes) -> str:
    """Returns what a server says in the body of a refusal, in one line; "" if nothing.

    Args:
      body: JSON with an error in it, a web page, or any text.
    """
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return _title(text)
    try:
        record = json.loads(text)
        return (_error_of(record) if isinstance(record, dict) else "") or _words(record)
    except (ValueError, RecursionError):
        return _words(text)


def _record(body: bytes) -> dict[str, Any]:
    encoding = json.detect_encoding(body)
    text = body.decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace").strip()
    if text.startswith("<"):
        raise NoAnswer("a web page and no answer", _title(text), of_server=True)
    if _EVENT.match(text):
        return _joined(_events(text))
    try:
        body.decode(encoding)  # what is replaced above would be said as if the model had said it
        record = _parsed(text)
    except (ValueError, RecursionError):
        if (events := _lines(text)) is not None:
            return _joined(iter(events))
        raise NoAnswer("a response that is not JSON", short(text, 120), of_server=True) from None
    if isinstance(record, list) and len(record) == 1:
        record = record[0]
    if not isinstance(record, dict):
        raise NoAnswer(FORM, short(record), of_server=True)
    if _is_piece(record):
        return _joined(iter([record]))
    return record


def _parsed(text: str) -> Any:
    """Reads JSON with its keys in one spelling: ``finishReason`` and ``Finish_Reason`` are one."""
    return json.loads(text, object_pairs_hook=lambda pairs: {_spelt(key): x for key, x in pairs})


def _spelt(key: str) -> str:
    return key if key.islower() else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()


def _lines(text: str) -> list[dict[str, Any]] | None:
    """Returns the pieces of a stream that has a JSON object a line; None if it is none."""
    try:
        found = [_parsed(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError):
        return None
    return (
        found if found and all(isinstance(one, dict) and _is_piece(one) for one in found) else None
    )


def _is_piece(record: Mapping[str, Any]) -> bool:
    choices = record.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(choice, dict) and "delta" in choice and not choice.get("message")


def _title(page: str) -> str:
    title = _TITLE.search(page)
    return " ".join(title[1].split()) if title else short(page)


def _events(text: str) -> Iterator[dict[str, Any] | None]:
    """Yields the objects that a stream sent; None for its mark of the end."""
    # Other ends of lines may stand within a text, and within JSON these three cannot.
    held: list[str] = []  # an event may have several lines
    for line in re.split("\r\n|\n|\r", text):
        name, _, data = line.partition(":")
        if held and (not line.strip() or len(held) >= _MAX_LINES):
            break
        if name != "data" or not data.strip():
            continue
        if data.strip() == "[DONE]":
            yield None
            continue
        held.append(data)
        try:
            event = _parsed("\n".join(held))
        except (ValueError, RecursionError):
            continue
        held = []
        if isinstance(event, dict):
            yield event
    if held:
        said = short("\n".join(held))
        raise NoAnswer(UNFINISHED, f"broken stream: {said}", of_server=True)


def _joined(events: Iterator[dict[str, Any] | None]) -> dict[str, Any]:
    """Returns the completion that the pieces of a stream make together."""
    said: dict[str, Any] = {"content": "", "refusal": ""}
    finish: Any = "the stream broke off"
    for event in events:
        if event is None:
            finish = "stop" if finish == "the stream broke off" else finish
            continue
        if _error_of(event):
            return event
        choice = _first_choice(event)
        if choice is None:
            continue
        whole = choice.get("message")  # some servers send all that was said so far
        piece = whole if isinstance(whole, dict) else choice.get("delta")
        if isinstance(piece, dict):
            text, refusal = _text(piece.get("content"))
            said["content"] = text if piece is whole else said["content"] + text
            refusal += _words(piece["refusal"]) if piece.get("refusal") else ""
            said["refusal"] = " ".join([said["refusal"], refusal]).strip()
            known = ("content", "refusal")
            said |= {key: value for key, value in piece.items() if value and key not in known}
        finish = _finish_of(choice) or finish
    return {"choices": [{"message": said, "finish_reason": finish}]}


def _first_choice(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what a piece of a stream says of the first choice; others may be mixed in."""
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def _text(content: object) -> tuple[str, str]:
    """Returns the text and the refusal of a message's content: null, a string, or parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    parts = [content] if isinstance(content, dict) else content
    if not isinstance(parts, list):
        raise NoAnswer(FORM, f"the content is {short(content)}", of_server=True)
    texts, refusals = [], []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            text = part.get("text", part.get("content"))
            if isinstance(text, dict):
                text = text.get("value")
            texts.append(text if isinstance(text, str) else "")
        elif isinstance(part, dict) and part.get("type") == "refusal":
            refusals.append(_words(part))
    return "".join(texts), " ".join(refusals)


def _check_finished(finish: object) -> None:
    word = str("" if finish is None else finish).strip().casefold()
    if _FINISHED.fullmatch(word):
        return
    for pattern, reason in _UNFINISHED:
        if pattern.search(word):
            advice = "; raise it, above all for a model that reasons" if reason == CUT else ""
            raise NoAnswer(reason, f"finish_reason {short(finish)}{advice}")
    raise NoAnswer(UNFINISHED, f"finish_reason {short(finish)}")


def _error_of(record: Mapping[str, Any]) -> str:
    """Returns the server's own words about what went wrong; "" where nothing did."""
    for key in _ERROR_KEYS[: 2 if record.get("choices") else None]:
        found = record.get(key)
        # Elsewhere these keys hold data: an error in them is told in words.
        if found and (isinstance(found, str) or key in _ERROR_KEYS[:3]):
            return _words(found)
    return ""


def _words(value: object) -> str:
    """Returns what an error says, in one line: a text, an object with a message, or several."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        known = [value[key] for key in (*_ERROR_KEYS, "refusal") if isinstance(value.get(key), str)]
        codes = [f"{key} {value[key]}" for key in ("code", "type") if value.get(key)]
        value = "; ".join([*known[:1], *codes]) or _brief(value)
    return " ".join(str(value).split())[:_WORDS]


def _brief(record: Mapping[str, Any]) -> str:
    return short(json.dumps(record, ensure_ascii=False), 120)
