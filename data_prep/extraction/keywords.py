"""Turns what a model says about a sticker into keywords, and an evasive answer into nothing."""

import re
import string
from difflib import SequenceMatcher

from data_prep.extraction.dialogue import Dialogue, Message
from data_prep.extraction.frames import Picture
from data_prep.extraction.prompts import Prompt
from int_ra_jax.common.types import ATTRIBUTES

MAX_KEYWORDS = 6
MAX_KEYWORD = 60  # characters
MAX_VERBAL = 200
AGREEMENT = 0.6  # share of characters in common from which two readings are one
_EDGES = string.whitespace + ".,;:!\"'`*-–—。，；：！、“”‘’「」()（）[]"
_SEPARATORS = re.compile(r"[,;、，；\n。/|]|\.\s|(?:^|\s)[-*•]\s")
_LABEL = re.compile(
    r"^\W*(?:gestures?|postures?|facial(?: expressions?)?|verbal|words?|text|answer|keywords?"
    r"|手势|动作|姿势|姿态|表情|面部表情|文字|文本|关键词)\W*[:：]\s*",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"(?:none|n/?a|null|nil|nothing|unknown|unclear|not (?:applicable|visible|clear|shown|present)"
    r"|no(?:t any)? (?:visible |specific |clear |particular |written |discernible )*"
    r"(?:gestures?|postures?|hands?|body|face|expressions?|facial expressions?|words?|text|writing)"
    r"(?: (?:is|are) \w+| visible| shown| present)?"
    r"|(?:there (?:is|are) |it has )?no\b.*|there (?:isn't|is not|aren't|are not)\b.*"
    r"|无|没有.*|无.{0,6}|未.{0,8}|不适用|不明|未知|看不.*)",
    re.IGNORECASE,
)
# Of writing less is nothing: "No" and "Nothing" may well stand on a sticker.
_NO_WRITING = re.compile(
    r"(?:none|n/?a|null"
    r"|(?:there (?:is|are) |it has )?no(?:t any)? (?:\w+ )?(?:text|words?|writing)\b.*"
    r"|无|没有|无文字|(?:图中|图片中|贴纸上)?没有.{0,4}文?字.{0,6})",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:i'?m sorry|i am sorry|sorry,? (?:but )?i|as an ai|unable to (?:determine|see|identify"
    r"|tell|view)|i (?:cannot|can't|am unable|am not able|do not see|don't see)"
    r"|cannot be determined|(?:can't|cannot) (?:determine|identify|see|tell))"
    r"|抱歉|对不起，我|无法|作为.{0,6}(?:AI|人工智能)",
    re.IGNORECASE,
)
_QUOTED = re.compile('["“「『]([^"”」』]{1,200})["”」』]')
_TELLING = re.compile(
    r"^(?:the |this )?(?:sticker|image|picture|text|words?|writing)\b[^\"“]{0,40}"
    r"\b(?:says?|reads?|shows?|is|are)\b",
    re.IGNORECASE,
)


def describe(
    prompt: Prompt, picture: Picture, frames: int, asked: tuple[str, ...], language: str
) -> Dialogue:
    """Asks about one sticker, one attribute after the other, in one conversation (eq. 7).

    Args:
      prompt: the file ``attributes``.
      picture: the sticker.
      frames: how many of its frames are shown.
      asked: which attributes, in order.
      language: of the keywords; "" for the prompt's own.

    Returns:
      Attribute -> raw reply.
    """
    system = prompt.text("system", language=language or prompt.parts["language"])
    messages = [Message("system", system)]
    replies: dict[str, str] = {}
    for name in asked:
        question = str(prompt.parts["questions"][name]).strip()
        if not replies and frames > 1:
            question = f"{prompt.text('animated', count=frames)}\n{question}"
        messages.append(Message("user", question, None if replies else picture))
        replies[name] = yield list(messages)
        messages.append(Message("assistant", replies[name]))
    return replies


def keywords(reply: str) -> str:
    """Returns the keywords of a reply, joined by ", "; "" for a refusal or for "none".

    Labels ("Gesture:"), list marks and quotes go, repetitions too. A piece of more than
    ``MAX_KEYWORD`` characters is an essay and no keyword. Keywords given as a reply come back as
    they are.
    """
    # What one pass takes away can uncover more of it: a mark behind a blank, a label behind a mark.
    kept = _keywords_once(reply)
    return kept if kept == reply else keywords(kept)


def _keywords_once(reply: str) -> str:
    reply = _LABEL.sub("", _without_fence(reply).strip())
    if _REFUSAL.search(reply):
        return ""
    kept: dict[str, str] = {}
    for piece in _SEPARATORS.split(reply):
        piece = _LABEL.sub("", piece or "").strip(_EDGES)
        piece = re.sub(r"^and ", "", " ".join(piece.split()).lower())
        if piece and len(piece) <= MAX_KEYWORD and not _NOTHING.fullmatch(piece):
            kept.setdefault(piece, piece)
    return ", ".join(list(kept)[:MAX_KEYWORDS])


def words(reply: str) -> str:
    """Returns the writing that a reply copies: as it is written, without what is said about it."""
    reply = _LABEL.sub("", " ".join(_without_fence(reply).split()))
    if _REFUSAL.search(reply):
        return ""
    quoted = _QUOTED.findall(reply)
    if quoted and (_TELLING.search(reply) or reply[0] in '"“「『'):
        reply = " ".join(quoted)
    reply = reply.strip(string.whitespace + "\"'`*“”‘’「」")
    if _NO_WRITING.fullmatch(reply.strip(_EDGES)) or len(reply) > MAX_VERBAL:
        return ""
    return reply


def agree(one: str, other: str) -> bool:
    """Tells whether two readings of a sticker's writing are the same but for a few characters."""
    first, second = ("".join(c for c in t.casefold() if c.isalnum()) for t in (one, other))
    if not (first and second):
        return one == other
    return SequenceMatcher(None, first, second, autojunk=False).ratio() >= AGREEMENT


def settle_verbal(model: str, ocr: str) -> tuple[str, str]:
    """Decides between the model's reading of a sticker's writing and the OCR's.

    A model guesses words that are likely, so where the OCR read something else, the OCR is taken;
    it misses drawn lettering, so where it read nothing, the model is.

    Returns:
      The reading, and how it came about: "agree", "differ", "model_only", "ocr_only" or "neither".
    """
    if not model or not ocr:
        return model or ocr, "model_only" if model else "ocr_only" if ocr else "neither"
    return (model, "agree") if agree(model, ocr) else (ocr, "differ")


def attributes_of(replies: dict[str, str]) -> dict[str, str]:
    """Returns all four attributes from raw replies; one that was not asked is empty."""
    return {
        name: words(replies.get(name, "")) if name == "verbal" else keywords(replies.get(name, ""))
        for name in ATTRIBUTES
    }


def _without_fence(reply: str) -> str:
    return re.sub(r"```\w*", "", reply).replace("**", "")
