"""Reads LINE's text export, of a phone or of a computer, in the language that the program spoke.

A line with a date alone begins a day. On a phone a message is ``time TAB name TAB text``, on a
computer ``time name text``. Stickers are a word in brackets, and no picture is exported.
"""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from absl import logging

from data_prep.chats import day_periods, line_dates, placeholders, text_lines, word_lists
from data_prep.chats.message import Exported, Message, Record, files_of, naming
from data_prep.chats.whatsapp_dates import ORDERS, Decision, Head, Orders
from data_prep.problems import Problems
from int_ra_jax.common.ledger import LeftOut

FILES = "**/*.txt"
STRICT = False
_CLOCK = (
    r"(?:(?P<before>[^\W\d][\w.\s]{0,10}?)\s?)?(?P<hour>\d{1,2})[:：.](?P<minute>\d{2})"
    r"(?:[:：.](?P<second>\d{2}))?(?:\s?(?P<after>%s))?"
)
_TIME = re.compile(_CLOCK % r"[^\W\d][\w.\s]{0,10}?")
_SPACED = re.compile(_CLOCK % r"[AaPp]\.?[Mm]\.?" + r" (?P<rest>\S.*)")
_CALL = "☎"
_WORDS_OF_NAME = 4  # at most, of a computer's export
_SAME = 3  # lines that begin with the same words, so that these are a name
_MANY = 2  # times a placeholder that is not known stands in a file
_KEPT = 100_000  # beginnings of lines that are remembered of a file, at most
_UNKNOWN = "placeholder of a language that is not known"


@dataclass(frozen=True)
class _Line:
    """The first line of a record.

    Attributes:
      clock: hour, minute and second; None where there is no such time.
      cells: what stands behind the time, by tabs; or one cell, by a blank.
    """

    clock: tuple[int, int, int] | None
    cells: tuple[str, ...]


@dataclass
class _Survey:
    """What is known of a file after the first reading.

    Attributes:
      path: the file.
      name: of it, relative to the source.
      phone: whether tabs stand behind the times. Then quotes mark what has several lines, so that
        a line with a date is one, whatever the day of the week is called.
      said: how many lines begin with a time.
      dates: how many are a date.
      orders: the order of the dates by their numbers.
      wrong: order -> dates whose day of the week is another one, or that do not exist.
      starts: the beginnings of a computer's lines, and how often they occur.
      bracketed: words in brackets that are no known placeholder, and how often they occur.
    """

    path: Path
    name: str
    phone: bool = False
    said: int = 0
    dates: int = 0
    orders: Orders = field(default_factory=Orders)
    wrong: Counter[str] = field(default_factory=Counter)
    starts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    bracketed: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, path: Path, name: str) -> "_Survey":
        """Reads a file to its end."""
        phone = any(_tabbed(text) for _, text in text_lines.lines(path))
        survey = cls(path, name, phone)
        for _, text in text_lines.lines(path):
            if found := line_dates.find(text, phone):
                survey._add_date(*found)
            elif survey.dates and phone and (line := _tabbed(text)):
                survey.said += 1
                words = placeholders.in_brackets(line.cells[-1])
                _count(survey.bracketed, words)
            elif survey.dates and not phone and (line := _spaced(text)):
                survey.said += 1
                parts = line.cells[0].split(" ")
                for count in range(1, 1 + min(len(parts), _WORDS_OF_NAME)):
                    _count(survey.starts, tuple(parts[:count]))
        return survey

    def _add_date(self, head: Head, weekdays: frozenset[int]) -> None:
        self.dates += 1
        self.orders.add(head)
        for order in ORDERS:
            day = line_dates.day(head, order)
            fits = day is not None and (not weekdays or day.weekday() in weekdays)
            self.wrong[order] += not fits

    def is_chat(self) -> bool:
        """Whether there are days, and messages in them."""
        return bool(self.dates and self.said)

    def decide(self, wanted: str) -> Decision:
        """Decides the order of the dates: by the days of the week, then as WhatsApp's.

        Raises:
          ValueError: if no order fits any date.
        """
        fewest = min(self.wrong[order] for order in ORDERS)
        fitting = [order for order in ORDERS if self.wrong[order] == fewest]
        if wanted == "auto" and len(fitting) == 1:
            return Decision(fitting[0])
        return self.orders.decide(wanted)

    @functools.cached_property
    def _longer(self) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
        """Beginning of lines -> the beginnings that have one word more."""
        found = defaultdict(set)
        for start in self.starts:
            found[start[:-1]].add(start)
        return found

    def split(self, rest: str) -> tuple[str, str]:
        """Returns sender and text of a computer's line, which only a blank divides.

        A name of several words is known by this: every line with the first has the others.
        """
        words = rest.split(" ")
        count = 1
        while count < min(_WORDS_OF_NAME, len(words) - 1):
            start = tuple(words[:count])
            same = self.starts[start] >= _SAME and len(self._longer[start]) == 1
            if not (same and self.starts[tuple(words[: count + 1])] == self.starts[start]):
                break
            count += 1
        return " ".join(words[:count]), " ".join(words[count:])


def read(source: Path, problems: Problems, date_order: str = "auto") -> Iterator[Record]:
    """Yields a record for each message and each notice; a file that is no chat becomes a problem.

    Args:
      source: a file, or a folder with one export or several.
      problems: collects what is wrong with a file.
      date_order: "auto", or "dmy", "mdy", "ymd" where a file leaves it open.
    """
    root = source.parent if source.is_file() else source
    paths = files_of(source, FILES)
    surveys = [_Survey.of(path, path.relative_to(root).as_posix()) for path in paths]
    chats = [survey for survey in surveys if survey.is_chat()]
    if chats:
        logging.warning("LINE exports no pictures: its stickers are counted and left out")
    for survey in surveys:
        if survey in chats:
            yield from _records(survey, date_order, problems)
        elif chats:
            logging.warning("%s: passed over, no chat of LINE", survey.name)
        else:
            problems.add(survey.name, 0, f"no date with messages below it. {hint(root)}")


def hint(folder: Path) -> str:
    """Returns what to do where there is nothing to read."""
    return "In the chat's settings of LINE choose Export chat history, and name the text file."


def _records(survey: _Survey, wanted: str, problems: Problems) -> Iterator[Record]:
    try:
        decision = survey.decide(wanted)
    except ValueError as error:
        problems.add(survey.name, 0, str(error))
        return
    if decision.doubt:
        logging.warning(
            "%s: %s; read as %s. Say --date_order if wrong.",
            survey.name,
            decision.doubt,
            decision.order,
        )
    day: date | None = None
    for number, line, body in _blocks(survey):
        said, rest = _of_message(survey, line, body)
        if line is not None:
            make = partial(_exported, survey, line, said, day)
            yield Record(survey.name, number, make)
        for place, text in rest:
            if found := line_dates.find(text, survey.phone):
                day = line_dates.day(found[0], decision.order)
            elif text.strip() and (line is not None or day is not None):
                yield Record(survey.name, place, _stray)


def _stray() -> NoReturn:
    raise LeftOut("line of no message")


def _blocks(survey: _Survey) -> Iterator[tuple[int, _Line | None, list[tuple[int, str]]]]:
    """Yields the line that begins a record, and all up to the next; first the head of the file."""
    read = _tabbed if survey.phone else _spaced
    begin, current = 0, None
    body: list[tuple[int, str]] = []
    last: tuple[int, int, int] | None = None  # time of the day, once there is a day
    room = text_lines.MAX_TEXT
    for number, text in text_lines.lines(survey.path):
        is_date = line_dates.find(text, survey.phone) is not None
        line = None if is_date or last is None else read(text)
        if is_date:
            last = (0, 0, 0)
        # Words that begin with a time are somebody's if time would run backwards.
        if last is not None and line and (survey.phone or (line.clock or last) >= last):
            yield begin, current, body
            begin, current, body, room = number, line, [], text_lines.MAX_TEXT
            last = line.clock or last
        elif (room := room - len(text) - 1) > 0 or is_date:
            body.append((number, text))
    yield begin, current, body


def _of_message(
    survey: _Survey, line: _Line | None, body: list[tuple[int, str]]
) -> tuple[list[str], list[tuple[int, str]]]:
    """Divides what stands below a record's first line: what goes on with it, and the rest.

    A phone sets quotes around a message of several lines, and a date may be one of them.
    """
    if line is None:
        return [], body
    end = next(
        (n for n, (_, text) in enumerate(body) if line_dates.find(text, survey.phone)), len(body)
    )
    if line.cells[-1].startswith('"'):
        closing = [n for n, (_, text) in enumerate(body) if text.rstrip().endswith('"')]
        end = closing[-1] + 1 if closing else end
    return [text for _, text in body[:end]], body[end:]


def _exported(survey: _Survey, line: _Line, below: list[str], day: date | None) -> Exported:
    if day is None or line.clock is None:
        raise LeftOut("date or time that does not exist")
    if len(line.cells) == 1 and survey.phone:
        raise LeftOut("notice of the program")
    sender, first = line.cells if survey.phone else survey.split(line.cells[0])
    text = "\n".join([first, *below]).strip()
    if text_lines.LOST in sender + text:
        raise LeftOut("bytes that are no text")
    if below and len(text) > 1 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1].replace('""', '"').strip()
    if not sender.strip():
        raise LeftOut("notice of the program")
    with naming(sender):
        _check_words(survey, text, sender.strip())
    order, clock = "ymd", line.clock
    time = Head((day.year, day.month, day.day), True, clock).seconds(order)
    message = Message(survey.name, None, time, sender.strip(), text)
    return Exported(message, name=sender.strip())


def _check_words(survey: _Survey, text: str, sender: str) -> None:
    """Raises the reason why a text is nobody's words, if it is not."""
    if text.startswith(_CALL):
        placeholders.leave_out("call")
    kind = placeholders.kind_of(text, bare=not survey.phone) or placeholders.kind_before(text)
    if kind:
        placeholders.leave_out(kind)
    words = placeholders.in_brackets(text)
    if words and survey.bracketed[words] >= _MANY:
        raise LeftOut(_UNKNOWN)
    if _bare(text) in _notices() or _bare(text.removeprefix(sender)) in _notices():
        raise LeftOut("notice of the program")
    if not text:
        raise LeftOut("message without words")


@functools.cache
def _notices() -> frozenset[str]:
    lines = word_lists.lines(word_lists.shipped("line_notices.txt"))
    return frozenset(_bare(line) for line in lines)


def _bare(text: str) -> str:
    return text.strip().strip(".。").casefold()


def _tabbed(text: str) -> _Line | None:
    """Returns a phone's line with a time, or None."""
    time, tab, rest = text.partition("\t")
    match = _TIME.fullmatch(time.strip()) if tab else None
    if match is None or (clock := _clock(match)) is None:
        return None
    return _Line(clock if _exists(clock) else None, tuple(rest.split("\t", 1)))


def _spaced(text: str) -> _Line | None:
    """Returns a computer's line with a time, or None."""
    match = _SPACED.fullmatch(text)
    if match is None or (clock := _clock(match)) is None:
        return None
    return _Line(clock if _exists(clock) else None, (match["rest"],))


def _clock(match: re.Match[str]) -> tuple[int, int, int] | None:
    """Returns the time, or None where the words beside it are no part of the day."""
    word = day_periods.normal((match["before"] or "") + (match["after"] or ""))
    hour, minute = int(match["hour"]), int(match["minute"])
    if word and word not in day_periods.windows():
        return None
    hour = day_periods.hour(hour, minute, word) if word else hour
    return hour, minute, int(match["second"] or 0)


def _exists(clock: tuple[int, int, int]) -> bool:
    return clock[0] < 24 and clock[1] < 60 and clock[2] < 60


def _count(counter: Counter[Any], key: Any) -> None:
    if key and (key in counter or len(counter) < _KEPT):
        counter[key] += 1
