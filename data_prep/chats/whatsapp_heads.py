"""The head of a message in WhatsApp's export: date and time at the start of a line.

The form follows the phone's language and its clock. Two things are told apart: a head that is
understood, and a line that looks like one and is not. The second is a record that is left out; as a
part of the message before, it would carry a name and a time into that message's words.
"""

import functools
import re
from collections import Counter
from dataclasses import dataclass

from data_prep.chats import day_periods, word_lists
from data_prep.chats.whatsapp_dates import Head

MARK = "\u200e"  # stands before what the program wrote, in a line that else a person wrote
RIGHT_MARK = "\u200f"  # the same from right to left, but for people's words that begin with it
# Marks of direction have no width and stand nearly anywhere.
_MARKS = dict.fromkeys(
    map(ord, "\u200e\u200f\u061c\u202a\u202b\u202c\u2066\u2067\u2068\u2069\ufeff")
)

FORMS = (
    "14/03/2024, 18:00 - NAME: TEXT",
    "[14/03/2024 18:00:11] NAME: TEXT",
    "2024/3/14 下午6:00 - NAME: TEXT",
    "3/14/24, 6:00 PM - NAME: TEXT",
    "2024. 3. 14. 오후 6:00, NAME : TEXT",
    "18:00, 14/3/2024 - NAME: TEXT",
)

_BETWEEN = r"\s?[./\-\u2013年月년월]\s?"
_DATE = rf"(?P<a>\d{{1,4}}){_BETWEEN}(?P<b>\d{{1,2}}){_BETWEEN}(?P<c>\d{{1,4}})"
_TIME = (
    r"(?P<hour>\d{1,2})(?:[:.\u066b\uff1a\u2236時时]|\s?h\s?|시\s?)(?P<minute>\d{2})"
    r"(?:[:.\u066b\uff1a\u2236](?P<second>\d{2}))?"
)
_WORDS = r"[^\d\[\]\n]"
_END = r"(?(open)\]\s?|(?P<end>\s[-\u2013\u2014](?=\s|$)|[,:](?=\s))\s?)"
_DATE_FIRST = re.compile(
    rf"(?P<open>\[)?{_DATE}(?P<before>{_WORDS}{{1,30}}?){_TIME}(?P<after>{_WORDS}{{0,30}}?){_END}"
)
_TIME_FIRST = re.compile(
    rf"(?P<open>\[)?{_TIME}(?P<before>{_WORDS}{{1,30}}?){_DATE}(?P<after>{_WORDS}{{0,12}}?){_END}"
)
# What else looks like a head: within brackets or before a dash, a time and the numbers of a date.
_LOOKS = re.compile(r"\[(?P<in>[^\[\]\n]{8,60})\]\s|(?P<bare>[^\n]{8,60}?)\s[-\u2013\u2014]\s")
_WORD = re.compile(r"[^\W\d_]+")
_RARE = 4  # times as many heads as a style has the file's own; then it is that of pasted words
_CLOCK = re.compile(r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?")

_NAMED_MONTH = re.compile(r"\d{1,2}[-/.][^\W\d]{3,}[-/.]\d{2}")  # 14-Mar-24


def clean(text: str) -> str:
    """Returns a text without marks of direction."""
    return text if text.isascii() else text.translate(_MARKS)


@dataclass(frozen=True)
class Line:
    """A line that begins a record.

    Attributes:
      style: how the head is set off, such as "bracket"; "" where it is not understood.
      head: date and time, or None where they are not understood.
      shown: what stands there as a head.
      rest: what follows the head, marks included.
      marked: whether a mark stands before the head.
    """

    style: str
    head: Head | None
    shown: str
    rest: str
    marked: bool


class Reader:
    """Finds the heads of one file.

    Attributes:
      styles: how often each style of head was seen.
      fillers: words of this file that say nothing about the part of the day: those that were seen
        with an hour above 12.
    """

    def __init__(self) -> None:
        """Starts without anything learned."""
        self.styles: Counter[str] = Counter()
        self.fillers: set[str] = set()

    def learn(self, line: Line, words: str) -> None:
        """Notes a style, and a word that cannot be a part of the day."""
        self.styles[line.style] += 1
        if words:
            self.fillers.add(words)

    @property
    def style(self) -> str:
        """The style of most heads of the file."""
        return max(self.styles, key=lambda style: (self.styles[style], style), default="")

    def is_weak(self, style: str) -> bool:
        """Whether a line of this style may be anybody's words in this file.

        Messages that somebody copied and pasted bring heads of their own with them.
        """
        own = {self.style, "colon"} if self.style == "comma" else {self.style}
        common = _RARE * self.styles[style] >= self.styles[self.style]
        return style not in own and not (common and style in ("bracket", "dash"))

    def find(self, line: str, learning: bool = False) -> Line | None:
        """Returns the line as the beginning of a record, or None where it goes on with one.

        Args:
          line: with its marks.
          learning: whether the file is read for the first time.
        """
        plain = clean(line)
        match = _DATE_FIRST.match(plain) or _TIME_FIRST.match(plain)
        marked = line.startswith((MARK, RIGHT_MARK))
        if match is None:
            if looks := _looks(plain):
                return Line("", None, looks, plain.partition(looks)[2].lstrip(), marked)
            return None
        style = _style(match)
        rest = line[passed(line, match.end()) :]
        shown = match[0].strip()
        period, unknown = _words(match["before"], match["after"], frozenset(self.fillers))
        late = int(match["hour"]) > 12
        found = Line(style, _head(match, period), shown, rest, marked)
        if learning:
            self.learn(found, unknown if late else "")
        if unknown and not late:
            return Line("", None, shown, rest, marked)
        return found


def _style(match: re.Match[str]) -> str:
    end = (match["end"] or "").strip()
    style = "bracket" if match["open"] else {",": "comma", ":": "colon"}.get(end, "dash")
    return style if match.re is _DATE_FIRST else f"{style}, time first"


def passed(line: str, count: int) -> int:
    """Returns the place in a line behind so many characters that are no marks."""
    if line.isascii():
        return min(count, len(line))
    for place, character in enumerate(line):
        if count == 0:
            return place
        count -= ord(character) not in _MARKS
    return len(line)


def _head(match: re.Match[str], period: str) -> Head:
    hour, minute = int(match["hour"]), int(match["minute"])
    if period:
        hour = day_periods.hour(hour, minute, period)
    numbers = (int(match["a"]), int(match["b"]), int(match["c"]))
    clock = (0 if hour == 24 else hour, minute, int(match["second"] or 0))
    return Head(numbers, len(match["a"]) == 4, clock)


@functools.cache
def _fillers() -> frozenset[str]:
    return word_lists.words(word_lists.shipped("time_fillers.txt"))


@functools.lru_cache(1024)
def _words(before: str, after: str, fillers: frozenset[str]) -> tuple[str, str]:
    """Returns the word for the part of the day, and a word that is not known; each may be empty."""
    period = unknown = ""
    for text in (before, after):
        word = day_periods.normal(text)
        passed = _fillers() | fillers
        if not word or word in passed:
            continue
        known = day_periods.windows()
        starts = sorted(passed, key=len, reverse=True)
        rest = next(
            (word.removeprefix(one) for one in starts if word.removeprefix(one) in known), ""
        )
        if word in known or rest:
            period = word if word in known else rest
        else:
            unknown = word
    return period, unknown


def _looks(line: str) -> str:
    """Returns what of a line looks like a head that is not understood, or nothing."""
    match = _LOOKS.match(line)
    if match is None:
        return ""
    inside = match["in"] or match["bare"]
    clocks = list(_CLOCK.finditer(inside))
    # 14.03.24 may be a date as well.
    clock = next((one for one in clocks if ":" in one[0]), clocks[-1] if clocks else None)
    if clock is None:
        return ""
    around = f"{inside[: clock.start()]} {inside[clock.end() :]}"
    numbers = re.findall(r"\d+", around)
    dated = len(numbers) >= 3 or (len(numbers) == 2 and any(len(one) == 4 for one in numbers))
    dated = dated or _NAMED_MONTH.search(around) is not None
    few = len(_WORD.findall(around)) <= 5
    # A weekday may stand before a head; "party on 14 March 2024, 18:00 - bring cake" is somebody's.
    first = re.search(r"\d", inside)
    named = ": " in line[match.end() : match.end() + 80]
    before = len(_WORD.findall(inside[: first.start()] if first else inside))
    begins = match["in"] is not None or before == 0 or (before == 1 and named)
    return match[0].strip() if dated and few and begins else ""
