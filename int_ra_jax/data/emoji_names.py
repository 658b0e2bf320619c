"""Emoji as words, for a text tower whose vocabulary has none: it reads them all alike, as unknown.

The names are CLDR's short names, as the package ``emoji`` holds them. They are written beside the
tokenizer, so that a run reads the same names on any machine, whatever is installed there.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from int_ra_jax.common.files import replace_text

FILE = "emoji.json"  # beside a saved tokenizer
# They choose between a drawing in colour and a plain one, and are left out as often as not.
_SELECTORS = dict.fromkeys((0xFE0E, 0xFE0F))
_JOINER, _TAGS, _LETTERS = "\u200d", "\U000e0020-\U000e007f", "\U0001f1e6-\U0001f1ff"


class EmojiNames:
    """Writes names in the place of emoji.

    Attributes:
      names: sequence, without variation selectors -> name.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        """Takes a table, of any language."""
        self.names = dict(names)

    def to_words(self, text: str) -> str:
        """Returns a text with the name of each emoji, set off by spaces.

        A sequence (skin tone, family, flag, keycap) has one name. The same emoji several times in a
        row is named once, or a row of them would take the place of everything else that was said.
        What has no name stays.
        """
        if text.isascii():
            return text
        text = text.translate(_SELECTORS)
        parts, end, before = [], 0, ""
        for found in self.pattern.finditer(text):
            between, name = text[end : found.start()], self.names.get(found[1], "")
            if not name:
                parts += [between, found[0]]
            elif name != before or between.strip():
                parts += [between, f" {name} "]
            before, end = name, found.end()
        return "".join([*parts, text[end:]])

    def save(self, directory: Path) -> None:
        """Writes the table beside a tokenizer."""
        replace_text(directory / FILE, json.dumps(self.names, ensure_ascii=False) + "\n")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What finds emoji in a text without variation selectors; its group is what has a name."""
        known = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True)))
        firsts = {sequence[0] for sequence in self.names} | {*_LETTERS} - {"-"}
        # Most characters begin no emoji: told by a class of single ones for the first plane, which
        # is a table, and by a range above it, where a class would be a list.
        low = "".join(re.escape(one) for one in sorted(firsts) if ord(one) < 2**16)
        high = [one for one in firsts if ord(one) >= 2**16]
        begins = f"[{min(high)}-{max(high)}]" + (f"|[{low}]" if low else "")
        # Two letters are one flag, whether it has a name or not, or the next ones would be read
        # across flags. Joiners and tags are what is left of a sequence that has no name as a whole.
        return re.compile(f"{_JOINER}?(?={begins})({known}|[{_LETTERS}]{{2}})[{_JOINER}{_TAGS}]*")


def load(directory: Path) -> EmojiNames | None:
    """Reads the table beside a tokenizer; None where there is none.

    Raises:
      ValueError: if the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(names, dict) and bool(names) and all(names)
        sound = sound and all(isinstance(name, str) for name in names.values())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {path}: {error}; fetch it again") from None
    if not sound:
        raise ValueError(f"cannot read {path}: no table of emoji and their names; fetch it again")
    return EmojiNames(names)


def languages() -> tuple[str, ...]:
    """Returns the languages in which emoji have names, as two letters each."""
    import emoji  # here, because a search needs no more than the table

    return tuple(emoji.LANGUAGES)


def in_language(language: str) -> EmojiNames:
    """Returns the names of all emoji in one of ``languages``."""
    import emoji

    emoji.config.load_language(language)
    named = {
        sequence.translate(_SELECTORS): " ".join(data[language].strip(":").split("_"))
        for sequence, data in emoji.EMOJI_DATA.items()
        if language in data
    }
    return EmojiNames(named)


def has_emoji(text: str) -> bool:
    """Tells whether a text has an emoji."""
    import emoji

    return bool(emoji.emoji_count(text))
