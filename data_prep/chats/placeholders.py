"""What chat programs write where there is no text: ``[Sticker]``, ``[スタンプ]``, ``[贴图]``."""

import functools
import re
from typing import NoReturn

from data_prep.chats import word_lists
from data_prep.chats.message import StickerLeftOut
from int_ra_jax.common.ledger import LeftOut

_BRACKETED = re.compile(
    r"[\[【［]\s*(?P<words>[^\[\]【】［］\n]{1,40}?)\s*[\]】］](?P<rest>.*)", re.S
)


@functools.cache
def _kinds() -> dict[str, str]:
    """Returns words, in lower case -> the kind of what they stand for."""
    lines = word_lists.lines(word_lists.shipped("placeholders.txt"))
    pairs = (line.partition(":")[::2] for line in lines)
    return {word.strip().casefold(): kind for kind, words in pairs for word in words.split(",")}


def in_brackets(text: str) -> str | None:
    """Returns the words of a text that is one pair of brackets, or None."""
    match = _BRACKETED.fullmatch(text.strip())
    return match["words"] if match and not match["rest"].strip() else None


def kind_of(text: str, bare: bool = False) -> str | None:
    """Returns what a text stands for ("sticker", "photo", ...), or None for somebody's words.

    Args:
      text: of a message.
      bare: whether the program sets no brackets around its words.
    """
    words = in_brackets(text) or (text if bare else "")
    return _kinds().get(words.strip().casefold())


def kind_before(text: str) -> str | None:
    """Returns what the brackets at a text's beginning say that it is: "[Notes] ..."."""
    match = _BRACKETED.match(text.strip())
    return _kinds().get(match["words"].casefold()) if match else None


def leave_out(kind: str) -> NoReturn:
    """Raises the reason for a message that is of some kind and has no words.

    Raises:
      LeftOut: always; a StickerLeftOut for a sticker.
    """
    if kind == "sticker":
        raise StickerLeftOut("file not in the export")
    raise LeftOut(f"{kind} without words")
