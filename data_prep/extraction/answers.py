"""What a chat model really said: its words without its reasoning, or why there are none.

A server has many ways not to answer: with an error in a response that says 200, with a web page,
with reasoning alone, with an answer cut in the middle. None of them is an answer, and none is kept.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

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

_WORDS = 300  # characters of a server's own words
# What servers say of an answer that came to its end; whatever else they say is taken at its word.
_FINISHED = re.compile(
    "|none|stop(ped|_sequence|_token|_str)?|eos(_token)?|end(_turn)?|completed?|finished|done|success"
)
_UNFINISHED = (
    (re.compile("length|token|trunc|context"), CUT),
    (
        re.compile("filter|safety|refus|sensitiv|block|prohibit|recitation|moderation|policy"),
        REFUSED,
    ),
    (re.compile("tool|function"), TOOL),
)
_NAMES = r"(?:\w{1,20}:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)"
_REASONING_ENDS = re.compile(
    rf"(?:<|\[|◁|&lt;)\s*/\s*{_NAMES}\s*(?:>|\]|▷|&gt;)|<\|end_of_thought\|>", re.IGNORECASE
)
_REASONING_BEGINS = re.compile(
    rf"(?:<|\[|◁|&lt;)\s*{_NAMES}\s*(?:>|\]|▷|&gt;)|<\|begin_of_thought\|>", re.IGNORECASE
)
_CHANNEL = "<|channel|>"
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]{0,80}<\|message\|>")
_FLATTENED = re.compile(
    r"\Aanalysis(?=[A-Z\s]).*assistant\s*final", re.DOTALL
)  # channels without marks
_MARK = re.compile(r"<\|[^|<>\s]{1,40}\|>|</s>|</?answer>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL | re.IGNORECASE)
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
    text = _without_reasoning(reply)
    if reply.strip() and not text.strip():
        raise NoAnswer(REASONING, short(reply))
    if found := _ANSWER.search(text):
        text = found[1]
    text = _MARK.sub("", text).strip()
    if not text and not may_be_silent:
        raise NoAnswer(EMPTY)
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
    _check_finished(choice.get("finish_reason"))
    if not text.strip():
        reasoned = any(message.get(key) for key in ("reasoning_content", "reasoning", "thinking"))
        raise NoAnswer(REASONING if reasoned else EMPTY)
    # Half a surrogate pair can be said in JSON, and no file can hold it.
    return text.encode("utf-8", "replace").decode().strip()


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


def _without_reasoning(text: str) -> str:
    if _CHANNEL in text:
        finals = list(_FINAL.finditer(text))
        return text[finals[-1].end() :] if finals else ""
    if found := _FLATTENED.match(text):
        return text[found.end() :]
    if ends := list(_REASONING_ENDS.finditer(text)):
        text = text[ends[-1].end() :]
    return "" if _REASONING_BEGINS.search(text) else text


def _record(body: bytes) -> dict[str, Any]:
    text = body.decode("utf-8-sig", "replace").strip()
    if text.startswith("<"):
        raise NoAnswer("a web page and no answer", _title(text), of_server=True)
    if _EVENT.match(text):
        return _joined(_events(text))
    try:
        body.decode("utf-8")  # what is replaced above would be said as if the model had said it
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise NoAnswer("a response that is not JSON", short(text, 120), of_server=True) from None
    if isinstance(record, list) and len(record) == 1:
        record = record[0]
    if not isinstance(record, dict):
        raise NoAnswer(FORM, short(record), of_server=True)
    return record


def _title(page: str) -> str:
    title = _TITLE.search(page)
    return " ".join(title[1].split()) if title else short(page)


def _events(text: str) -> Iterator[dict[str, Any] | None]:
    """Yields the objects that a stream sent; None for its mark of the end."""
    for line in text.split("\n"):  # other ends of lines may stand within a text
        name, _, data = line.partition(":")
        if name != "data":
            continue
        if data.strip() == "[DONE]":
            yield None
            continue
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise NoAnswer(UNFINISHED, f"broken stream: {short(data)}", of_server=True) from None
        if isinstance(event, dict):
            yield event


def _joined(events: Iterator[dict[str, Any] | None]) -> dict[str, Any]:
    """Returns the completion that the pieces of a stream make together."""
    said: dict[str, Any] = {"content": ""}
    finish: Any = "the stream broke off"
    for event in events:
        if event is None:
            finish = "stop" if finish == "the stream broke off" else finish
            continue
        if _error_of(event):
            return event
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            continue
        piece = choice.get("delta") or choice.get("message")
        if isinstance(piece, dict):
            text, refusal = _text(piece.get("content"))
            said["content"] += text
            said |= {key: value for key, value in piece.items() if value and key != "content"}
            if refusal:
                said["refusal"] = refusal
        finish = choice.get("finish_reason") or finish
    return {"choices": [{"message": said, "finish_reason": finish}]}


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
            text = part.get("text")
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
