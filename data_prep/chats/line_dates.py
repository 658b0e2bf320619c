"""The dates of LINE's export: lines of their own, with or without a day of the week.

Days and months are named as CLDR does in the languages of phones.
"""

import functools
import re
from collections import defaultdict
from datetime import date

from babel import Locale

from data_prep.chats import day_periods
from data_prep.chats.whatsapp_dates import Head

_DATE = re.compile(
    r"(?P<before>[^\d\t]{0,24}?)(?P<one>\d{1,4})\s?[./年년-]\s?(?P<two>\d{1,2})\s?[./月월-]\s?"
    r"(?P<three>\d{1,4})\s?[日일.]?(?P<after>[^\d\t]{0,24})"
)
_LONGEST_DATE = 80  # characters
_SMALL_WORDS = frozenset(("de", "del", "of", "st", "nd", "rd", "th", "г", "р"))  # within a date
_EPOCH = date(1970, 1, 1).toordinal()


def find(text: str, any_word: bool = False) -> tuple[Head, frozenset[int]] | None:
    """Returns the date that a line is, and the days of the week that it names; or None.

    Args:
      text: the line.
      any_word: whether the word behind a date may be one that is in no list.
    """
    return _read_date(text, any_word) if len(text) < _LONGEST_DATE else None


@functools.lru_cache(maxsize=4096)
def _read_date(text: str, any_word: bool) -> tuple[Head, frozenset[int]] | None:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return _with_named_month(text, any_word)
    word = day_periods.normal(match["before"] + match["after"])
    alone = any_word and not match["before"] and len(match["after"].split()) < 2
    if word and word not in _weekdays() and not alone:
        return None
    one, two, three = (int(match[name]) for name in ("one", "two", "three"))
    head = Head((one, two, three), len(match["one"]) == 4, (0, 0, 0))
    return head, _weekdays().get(word, frozenset())


def _with_named_month(text: str, any_word: bool) -> tuple[Head, frozenset[int]] | None:
    """Returns the date of "Monday, January 15, 2024"; only any word lets "Monday" be left out."""
    numbers = [int(one) for one in re.findall(r"\d+", text)]
    words = [day_periods.normal(one) for one in re.findall(r"[^\W\d]+", text)]
    months = [_months()[one] for one in words if one in _months()]
    others = [one for one in words if one not in _months() and one not in _SMALL_WORDS]
    days = [_weekdays()[one] for one in others if one in _weekdays()]
    if len(numbers) != 2 or len(months) != 1 or len(months[0]) != 1 or len(days) < len(others):
        return None
    if not days and not any_word:
        return None
    (small, year), (month,) = sorted(numbers), months[0]
    return Head((year, month, small), True, (0, 0, 0)), days[0] if days else frozenset()


@functools.cache
def _weekdays() -> dict[str, frozenset[int]]:
    """Returns name -> the days that it names in the languages of phones, Monday being 0."""
    return _named("days", ("wide", "abbreviated", "short", "narrow"))


@functools.cache
def _months() -> dict[str, frozenset[int]]:
    """Returns name -> the months that it names in the languages of phones, January being 1."""
    return _named("months", ("wide", "abbreviated"))


def _named(what: str, widths: tuple[str, ...]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for language in day_periods.languages():
        uses = getattr(Locale.parse(language), what)
        for use, width in ((use, width) for use in uses for width in widths):
            for number, name in uses[use].get(width, {}).items():
                found[day_periods.normal(name)].add(number)
    return {name: frozenset(of) for name, of in found.items() if name}


def day(head: Head, order: str) -> date | None:
    """Returns the day of a date in an order of its numbers, or None where there is none."""
    try:
        return date.fromordinal(_EPOCH + head.seconds(order) // day_periods.DAY)
    except ValueError:
        return None
