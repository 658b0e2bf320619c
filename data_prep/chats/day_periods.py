"""Words for parts of the day in the languages of phones, and the hours that they mean.

CLDR, which phones write by as well, says them through babel: AM and PM of every language, and where
a language cuts the day more finely (清晨, 凌晨) from when to when each part lasts.
"""

import functools
import unicodedata

from babel import Locale

from data_prep.chats import word_lists

DAY = 24 * 3600
_NOON = DAY // 2
# What phones with other versions of CLDR write.
_MORE = {
    "清晨": (5, 8),
    "早晨": (5, 9),
    "早上": (5, 12),
    "傍晚": (17, 19),
    "夜晚": (19, 24),
    "夜间": (19, 24),
    "深夜": (22, 24),
    "半夜": (0, 5),
    "vorm": (0, 12),
    "nachm": (12, 24),
}

Window = tuple[int, int]  # seconds from midnight: from when, and before when


def normal(word: str) -> str:
    """Returns a word without case, dots and blanks: "p.\u00a0m." is "pm"."""
    kept = (one for one in word.casefold() if unicodedata.category(one)[0] in "LMN")
    return "".join(kept)


def languages() -> list[str]:
    """Returns the languages of phones; words of others would mean something else in these."""
    return " ".join(word_lists.lines(word_lists.shipped("phone_languages.txt"))).split()


@functools.cache
def windows() -> dict[str, tuple[Window, ...]]:
    """Returns word -> when it is that part of the day, in every language that has the word."""
    found: dict[str, list[Window]] = {}
    known: dict[str, int] = {}  # which half of the day a word means in the first language with it
    for place, name in enumerate(languages()):
        locale = Locale.parse(name)
        rules = locale.day_period_rules.get(None, {})
        periods = locale.day_periods.get("format", {})
        for width in ("abbreviated", "wide"):
            for part, word in periods.get(width, {}).items():
                key = normal(word)
                if known.setdefault(key, place) == place or part not in ("am", "pm"):
                    found.setdefault(key, []).extend(_of(part, rules))
    for word, (start, end) in _MORE.items():
        found.setdefault(word, []).append((start * 3600, end * 3600))
    return {word: tuple(dict.fromkeys(of)) for word, of in found.items() if of}


def _of(part: str, rules: dict[str, list[dict[str, int]]]) -> list[Window]:
    if part in ("am", "pm"):
        return [(0, _NOON) if part == "am" else (_NOON, DAY)]
    return [
        (rule["at"], rule["at"] + 3600) if "at" in rule else (rule["from"], rule["before"])
        for rule in rules.get(part, ())
    ]


def hour(written: int, minute: int, word: str) -> int:
    """Returns the hour from 0 to 23 of a clock of twelve hours.

    Args:
      written: the hour as it stands there, 0 to 12; a larger one is of a clock of 24 hours already.
      minute: of the hour.
      word: the part of the day, one of ``windows``, as ``normal`` returns it.
    """
    if written > 12:
        return written
    choices = (written % 12, written % 12 + 12)
    of = windows()[word]
    return min(choices, key=lambda one: min(_away(3600 * one + 60 * minute, w) for w in of))


def _away(second: int, window: Window) -> int:
    """Returns by how many seconds a time is outside a window, which may go over midnight."""
    start, end = window
    length = (end - start) % DAY or DAY
    since = (second - start) % DAY
    return 0 if since < length else min(since - length + 1, DAY - since)
