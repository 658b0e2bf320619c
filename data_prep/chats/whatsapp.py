"""Reads WhatsApp's text export: ``_chat.txt`` (iOS) or ``WhatsApp Chat with NAME.txt`` (Android).

Each file is read twice: once to learn its form, which follows the phone's language (``_Survey``),
and once for its records. A line that does not begin with a date goes on with the message before.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from absl import logging

from data_prep.chats import text_lines
from data_prep.chats.message import Exported, Message, Record, files_of, naming
from data_prep.chats.text_lines import LOST
from data_prep.chats.whatsapp_dates import ORDERS, Decision, Orders
from data_prep.chats.whatsapp_heads import FORMS, Line, Reader, clean
from data_prep.chats.whatsapp_senders import Senders
from data_prep.chats.whatsapp_texts import Texts
from data_prep.problems import Problems, short
from int_ra_jax.common.ledger import LeftOut

FILES = "**/*.txt"
STRICT = False


@dataclass
class _Style:
    """What is known of the heads of one style: their dates, and who speaks behind them."""

    orders: Orders = field(default_factory=Orders)
    senders: Senders = field(default_factory=Senders)


@dataclass
class _Survey:
    """What is known of a file after the first reading.

    Attributes:
      path: the file.
      name: of the file, relative to the source.
      texts: how it attaches files.
      heads: its heads.
      styles: by the style of the heads, since some may be anybody's words (``Reader.is_weak``).
      first: line of the first head; 0 without one.
      strange: line and head of the first that is not understood.
    """

    path: Path
    name: str
    texts: Texts
    heads: Reader = field(default_factory=Reader)
    styles: dict[str, _Style] = field(default_factory=lambda: defaultdict(_Style))
    first: int = 0
    strange: tuple[int, str] | None = None

    @classmethod
    def of(cls, path: Path, name: str) -> "_Survey":
        """Reads a file to its end."""
        survey = cls(path, name, Texts(path.parent))
        for number, text in text_lines.lines(path):
            if line := survey.heads.find(text, learning=True):
                survey._add(number, line)
        return survey

    def _add(self, number: int, line: Line) -> None:
        if line.head is None:
            self.strange = self.strange or (number, line.shown)
            return
        self.first = self.first or number
        self.styles[line.style].orders.add(line.head)
        self.styles[line.style].senders.add(line.rest)
        self.texts.add(line.rest)

    @property
    def orders(self) -> Orders:
        """The dates of the style that most heads have."""
        return self.styles[self.heads.style].orders

    @property
    def senders(self) -> Senders:
        """Who speaks in the style that most heads have."""
        return self.styles[self.heads.style].senders


def read(source: Path, problems: Problems, date_order: str = "auto") -> Iterator[Record]:
    """Yields a record for each message and each notice; a file that is no chat becomes a problem.

    Beside a chat, a text file without any head is no chat but a file that somebody sent; so is one
    that the chat names as attached.

    Args:
      source: a file, or a folder with one export or several, each in a folder of its own.
      problems: collects what is wrong with a file.
      date_order: "auto", or "dmy", "mdy", "ymd" where a file leaves it open.
    """
    root = source.parent if source.is_file() else source
    paths = files_of(source, FILES)
    surveys = [_Survey.of(path, path.relative_to(root).as_posix()) for path in paths]
    sent = {one.path.parent / name for one in surveys for name in one.texts.documents}
    chats = [one for one in surveys if one.orders.count and one.path not in sent]
    chats = chats or [one for one in surveys if one.orders.count]
    for survey in surveys:
        if survey in chats:
            yield from _records(survey, root, date_order, problems, len(chats) == 1)
        elif not chats:
            problems.add(survey.name, *_not_a_chat(survey))
        elif survey.strange and survey.path not in sent:
            logging.warning("%s:%d: %s", survey.name, *_not_a_chat(survey))
            number, _ = survey.strange
            yield Record(survey.name, number, partial(_refuse, "file whose heads are not known"))
        else:
            logging.warning("%s: passed over, a text file that is no chat", survey.name)


def hint(folder: Path) -> str:
    """Returns what to do where there is nothing to read."""
    return "Export the chat with its media, and name the zip or the unpacked folder."


def _not_a_chat(survey: _Survey) -> tuple[int, str]:
    forms = _known_forms()
    if survey.strange:
        number, shown = survey.strange
        return (
            number,
            f"looks like the head of a message and is not understood: {short(shown)}. {forms}",
        )
    error = "no line begins with a date and a time"
    return 0, f"{error}. Is it a WhatsApp export, saved as UTF-8? {forms}"


def _known_forms() -> str:
    return f"Known forms are: {'; '.join(FORMS)}"


def _records(
    survey: _Survey, root: Path, wanted: str, problems: Problems, alone: bool
) -> Iterator[Record]:
    """Yields the records of a chat; where there are others, dates that do not fit stop nothing."""
    try:
        order = survey.orders.decide(wanted)
    except ValueError as error:
        told = f"{error}. {_known_forms()}"
        if alone:
            problems.add(survey.name, survey.first, told)
            return
        logging.warning("%s:%d: %s", survey.name, survey.first, told)
        order = Decision(ORDERS[0])
    if order.doubt:
        logging.warning(
            "%s: %s; read as %s. Say --date_order if wrong.", survey.name, order.doubt, order.order
        )
    if survey.strange:
        logging.warning(
            "%s:%d: %s; records with such heads are left out", survey.name, *_not_a_chat(survey)
        )
    strict = wanted != "auto" and not survey.orders.fits(wanted)
    chat = survey.name.removesuffix(".txt").removesuffix("/_chat")
    folder = survey.path.parent.relative_to(root).as_posix()
    for number, line, body in _bodies(survey):
        if line is None:
            yield Record(survey.name, number, partial(_refuse, "lines before the first message"))
            continue
        make = partial(_exported, survey, line, body, order.order, strict, (chat, folder))
        yield Record(survey.name, number, make)


def _refuse(reason: str) -> NoReturn:
    raise LeftOut(reason)


def _bodies(survey: _Survey) -> Iterator[tuple[int, Line | None, str]]:
    """Yields number, first line and all that follows its head, with the record's lines joined."""
    begin, current = 0, None
    body: list[str] = []
    room = text_lines.MAX_TEXT
    for number, text in text_lines.lines(survey.path):
        if line := _begins(survey, text):
            if begin:
                yield begin, current, "\n".join(body)
            begin, current, body, room = number, line, [line.rest], text_lines.MAX_TEXT
        elif begin or text.strip():
            begin = begin or number
            if (room := room - len(text) - 1) > 0:
                body.append(text)
    if begin:
        yield begin, current, "\n".join(body)


def _begins(survey: _Survey, text: str) -> Line | None:
    """Returns a line as the beginning of a record, or None where it goes on with one."""
    line = survey.heads.find(text)
    if line is None or not survey.heads.is_weak(line.style):
        return line
    # Anybody may write "14/03/2024 18:00, dinner"; with the name of somebody who speaks in the chat
    # it is a head, in a form that this file has not.
    whole = line.style in ("", "dash") or line.shown.startswith("[")
    named = whole or survey.senders.knows(line.rest)
    return Line("", None, line.shown, line.rest, line.marked) if named else None


def _exported(
    survey: _Survey, line: Line, body: str, order: str, strict: bool, where: tuple[str, str]
) -> Exported:
    """Returns the message of a record, or raises LeftOut."""
    if line.head is None:
        speaks = survey.senders.split(line.rest, certain=True)
        with naming(clean(speaks[0]) if speaks else None):
            raise LeftOut("head of a message in a form that is not known")
    if LOST in body:
        raise LeftOut("bytes that are no text")
    first, newline, more = body.partition("\n")
    split = survey.senders.split(first, line.style.startswith("bracket"))
    if split is None:
        raise LeftOut("notice of the program")
    sender, said = split
    with naming(clean(sender)):
        text, sticker = survey.texts.read(said + newline + more, line)
    try:
        time = line.head.seconds(order)
    except ValueError as error:
        if strict:
            raise ValueError(f"{error}; give the right --date_order") from error
        raise LeftOut("date or time that does not exist") from error
    chat, folder = where
    message = Message(chat, None, time, clean(sender), text, sticker)
    return Exported(message, folder, message.sender)
