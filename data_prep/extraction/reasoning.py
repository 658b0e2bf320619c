"""Where the reasoning of a chat model ends, in the forms that models and servers give it."""

import re

_NAMES = (
    r"(?:\w{1,20}:)?(?:(?:start_|end_|inner_|internal_)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)"
    r"(?:_process)?|reflection|analysis|scratchpad|(?:inner_)?monologue|internal|cot"
    r"|chain_of_thought|ponder(?:ing)?|(?:深度)?思考(?:过程)?|推理(?:过程)?)"
)
_OPEN, _CLOSE = r"(?:<[|｜]?|\[|◁|＜|&lt;)\s{0,3}", r"\s{0,3}(?:[|｜]?>|\]|▷|＞|&gt;)"
# Some templates have marks without a name, and some servers write reasoning as a web page or in a
# fence of Markdown.
_REASONING_ENDS = re.compile(
    rf"{_OPEN}\\?[/／]\s{{0,3}}{_NAMES}{_CLOSE}|{_OPEN}{_NAMES}\s{{0,3}}/>"
    r"|<\|end_(?:of_thought|thinking)\|>|<unused95>|^\.\.\.done thinking\.$",
    re.IGNORECASE | re.MULTILINE,
)
_REASONING_BEGINS = re.compile(
    rf"{_OPEN}{_NAMES}(?:\s{{1,3}}\w{{1,20}}=[^<>]{{0,80}})?{_CLOSE}|<\|(?:begin_of_thought|start_thinking)\|>"
    r"|<unused94>|\AThinking\.\.\.$",
    re.IGNORECASE | re.MULTILINE,
)
_REASONING_BLOCK = re.compile(
    r"\A\s*(?:```\s*(?:think|thinking|thought|reasoning)\b.*?(?:```|\Z)"
    r"|<details\b[^>]{0,80}\breasoning\b.*?(?:</details>|\Z))",
    re.DOTALL | re.IGNORECASE,
)
_HEADED = re.compile(
    r"[\s*#_]{0,8}(?:reasoning|thinking|thoughts?|思考(?:过程)?|推理)[ *#_]{0,8}[:：]",
    re.IGNORECASE,
)
_HEADED_ANSWER = re.compile(
    r"^[ *#_]{0,8}(?:final answer|answer|答案|回答)[ *#_]{0,8}[:：][\s*#_]{0,8}",
    re.IGNORECASE | re.MULTILINE,
)
_CHANNEL = "<|channel|>"
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]{0,80}<\|message\|>")
_FLATTENED = re.compile(
    r"\Aanalysis(?=[A-Z\s]).*assistant\s*final", re.DOTALL
)  # channels without marks


def without_reasoning(text: str) -> str:
    """Returns what follows a model's reasoning; "" where nothing does.

    Args:
      text: all that the model wrote.
    """
    if _CHANNEL in text:
        finals = list(_FINAL.finditer(text))
        return text[finals[-1].end() :] if finals else ""
    if found := _FLATTENED.match(text):
        return text[found.end() :]
    if _HEADED.match(text) and (answers := list(_HEADED_ANSWER.finditer(text))):
        return text[answers[-1].end() :]
    text = _REASONING_BLOCK.sub("", text)
    if ends := list(_REASONING_ENDS.finditer(text)):
        text = text[ends[-1].end() :]
    return "" if _REASONING_BEGINS.search(text) else text
