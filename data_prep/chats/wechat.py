"""Reads chats of WeChat as CSV, in the columns of WeChatMsg and of the programs after it.

The columns are found by their names, in any order. A sticker is a row of type 47 whose content is
XML with the picture's MD5; it is kept if a file of that name lies somewhere beside the CSV.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from absl import logging

from data_prep.chats import pictures, placeholders, text_lines
from data_prep.chats.message import Exported, Message, Record, StickerLeftOut, files_of, naming
from data_prep.chats.neutral import moment
from data_prep.problems import Problems
from int_ra_jax.common.ledger import LeftOut

FILES = "**/*.csv"
STRICT = False
MAX_CELL = 2**20  # characters
ME = "me"  # the sender of what the exporter's owner wrote, where no column names him
# Names of columns, without case, blanks and strokes, by what they hold.
_COLUMNS = {
    "chat": ("talkerid", "talker", "strtalker"),
    "type": ("type", "类型"),
    "subtype": ("subtype",),
    "mine": ("issender",),
    "stamp": ("createtime",),
    "text": ("strcontent", "内容", "content"),
    "time": ("strtime", "时间", "time"),
    "remark": ("remark", "备注"),
    "nickname": ("nickname", "昵称"),
    "display": ("sendername",),
    "sender": ("sender", "发送人"),
}
_TEXT, _STICKER, _SHARED = 1, 47, 49
_KINDS = {
    3: "photo",
    34: "voice message",
    42: "contact",
    43: "video",
    48: "location",
    50: "call",
    62: "video",
    66: "contact",
}
_NOTICES = (10000, 10002)
_QUOTE = 57  # of the kinds of what is shared: words that quote another message
_SHARED_KINDS = {4: "share", 5: "link", 6: "file", 19: "forwarded messages", 2000: "transfer"}
_SHARED_KINDS |= {2001: "red packet", 33: "share", 36: "share"}
# Types as newer exporters write them, by words that are in them; the first that fits.
_LABELS = (
    ("表情", _STICKER),
    ("通话", 50),
    ("图片", 3),
    ("语音", 34),
    ("视频", 43),
    ("位置", 48),
    ("名片", 42),
    ("系统", 10000),
    ("撤回", 10002),
    ("拍一拍", 10000),
    ("引用", (_QUOTE << 32) | _SHARED),
    *((word, _SHARED) for word in ("分享", "链接", "文件", "小程序", "红包", "转账", "音乐")),
    ("文本", _TEXT),
)
_OF_SENDER = re.compile(r"(?P<sender>[A-Za-z][\w-]{4,40}):\n")  # before the text, in groups
_MD5 = re.compile(r'(?<![a-z0-9])md5\s*=\s*"([0-9a-f]{32})"', re.I)
_TITLE = re.compile(r"<title>(?:<!\[CDATA\[)?(?P<words>.*?)(?:\]\]>)?</title>", re.S)
_DATE = re.compile(
    r"\s*(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?[\sT]+(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\.\d+)?\s*"
)


@dataclass(frozen=True)
class _Table:
    """One file.

    Attributes:
      path: the file.
      name: of it, relative to the source.
      folder: its folder, relative to the source.
      encoding: of its text.
      delimiter: between two cells.
      columns: what a column holds -> its place.
    """

    path: Path
    name: str
    folder: str
    encoding: str
    delimiter: str
    columns: dict[str, int]

    @classmethod
    def of(cls, path: Path, root: Path) -> "_Table":
        """Reads a file's first row."""
        encoding = _encoding_of(path)
        with path.open(encoding=encoding, errors="replace", newline="") as file:
            first = file.readline(text_lines.MAX_TEXT)
        delimiter = max(",;\t", key=first.count)
        heads = [re.sub(r"[\s_-]", "", one.strip(' "\ufeff\r\n')) for one in first.split(delimiter)]
        places = {head.casefold(): place for place, head in reversed(list(enumerate(heads)))}
        found = {
            what: places[name]
            for what, names in _COLUMNS.items()
            for name in reversed(names)
            if name in places
        }
        name = path.relative_to(root).as_posix()
        folder = path.parent.relative_to(root).as_posix()
        return cls(path, name, folder, encoding, delimiter, found)

    def is_chat(self) -> bool:
        """Whether the columns are those of messages, and not of contacts or anything else."""
        has = self.columns.keys()
        return "text" in has and bool({"stamp", "time"} & has) and bool({"mine", "sender"} & has)

    def cell(self, row: list[str], what: str) -> str:
        """Returns what a row says, or nothing."""
        place = self.columns.get(what, len(row))
        return row[place].strip() if place < len(row) else ""


def read(source: Path, problems: Problems) -> Iterator[Record]:
    """Yields a record for each row, a notice as well; a table of something else is passed over.

    Args:
      source: a file, or a folder with those of several chats.
      problems: collects what is wrong with a file.
    """
    root = source.parent if source.is_file() else source
    csv.field_size_limit(MAX_CELL)
    tables = [_Table.of(path, root) for path in files_of(source, FILES)]
    chats = [table for table in tables if table.is_chat()]
    beside = pictures.Beside(root)
    for table in tables:
        if table in chats:
            for line, row in _rows(table):
                make = partial(_exported, table, row, beside) if row else _unread
                yield Record(table.name, line, make)
        elif chats:
            logging.warning("%s: passed over, no table of messages", table.name)
        else:
            problems.add(table.name, 1, f"no table of messages. {hint(root)}")


def hint(folder: Path) -> str:
    """Returns what to do where there is nothing to read."""
    return (
        "The first row must name the columns: StrContent, CreateTime or StrTime, Sender or "
        "IsSender (WeChatMsg), or 内容, 时间, 发送人. Let other exporters write ChatLab's format"
    )


def _encoding_of(path: Path) -> str:
    """Returns UTF-8, UTF-16, or GB 18030, which spreadsheets write in China."""
    encoding = text_lines.encoding_of(path)
    for tried in dict.fromkeys((encoding, "gb18030")):
        try:
            with path.open(encoding=tried) as file:
                while file.read(2**20):
                    pass
        except UnicodeError:
            continue
        return tried
    return encoding


def _rows(table: _Table) -> Iterator[tuple[int, list[str] | None]]:
    """Yields each row with the line where it begins; None for one whose quotes are broken."""
    with table.path.open(encoding=table.encoding, errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=table.delimiter, strict=True)
        line = 0
        while True:
            begin, line = line + 1, line
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                row = None
                message = "%s:%d: a row of broken quotes, up to line %d: %s"
                logging.warning(message, table.name, begin, rows.line_num, error)
            line = rows.line_num
            if begin > 1 and row != []:
                yield begin, row


def _unread() -> NoReturn:
    raise LeftOut("row whose quotes are broken")


def _exported(table: _Table, row: list[str], beside: pictures.Beside) -> Exported:
    text = table.cell(row, "text")
    if text_lines.LOST in text:
        raise LeftOut("bytes that are no text")
    sender, names, text = _sender(table, row, text)
    with naming(*names):
        return _said(table, row, beside, (sender, names, text))


def _said(
    table: _Table, row: list[str], beside: pictures.Beside, who: tuple[str, list[str], str]
) -> Exported:
    sender, names, text = who
    kind = _kind(table.cell(row, "type"))
    subkind = _kind(table.cell(row, "subtype")) if kind <= 0xFFFFFFFF else kind >> 32
    sticker = None
    if kind & 0xFFFFFFFF == _STICKER:
        text, sticker = "", _picture(table, text, beside)
    else:
        text = _words(kind & 0xFFFFFFFF, subkind, text)
    if not sender:
        raise LeftOut("message without a sender")
    chat = f"{table.name}/{table.cell(row, 'chat')}"
    message = Message(
        chat=chat,
        id=None,  # localId counts anew in each of WeChat's databases
        time=_time(table, row),
        sender=sender,
        text=text,
        sticker=sticker,
    )
    return Exported(message, name=names[0] if names else "", aliases=tuple(names[1:]))


def _kind(written: str) -> int:
    """Returns a type's number; 1, a text, where there is none; 0 for one that is not known."""
    number = written.removesuffix(".0")
    if number.isdecimal() and len(number) < 20:
        return int(number)
    known = (kind for word, kind in _LABELS if word in written)
    return next(known, 0) if written else _TEXT


def _words(kind: int, subkind: int, text: str) -> str:
    """Returns what a row that is no sticker says, or raises why that is nothing."""
    if kind in _NOTICES:
        raise LeftOut("notice of the program")
    if kind in _KINDS:
        placeholders.leave_out(_KINDS[kind])
    if kind == _SHARED and subkind == _QUOTE:
        title = _TITLE.search(text)
        text = title["words"].strip() if title else text
    elif kind == _SHARED:
        placeholders.leave_out(_SHARED_KINDS.get(subkind, "share"))
    elif kind != _TEXT:
        raise LeftOut("message of a type that is not known")
    if stands_for := placeholders.kind_of(text):
        placeholders.leave_out(stands_for)
    if not text or text.startswith(("<msg>", "<?xml", "<sysmsg")):
        raise LeftOut("message without words")
    return text


def _picture(table: _Table, content: str, beside: pictures.Beside) -> str:
    """Returns the sticker's file: by its MD5, or else by any hash or path that the content has."""
    found = beside.find(table.folder, *_MD5.findall(content), content)
    if found is None:
        raise StickerLeftOut("file not in the export")
    return found


def _sender(table: _Table, row: list[str], text: str) -> tuple[str, list[str], str]:
    """Returns the sender, all names of his, and the text without the sender before it."""
    sender = table.cell(row, "sender")
    before = _OF_SENDER.match(text)
    if before and sender in ("", before["sender"]):
        sender, text = before["sender"], text[before.end() :].strip()
    mine = table.cell(row, "mine").casefold() in ("1", "true", "是")
    given = [table.cell(row, what) for what in ("remark", "nickname", "display")]
    names = list(dict.fromkeys(name for name in given if name))
    if not sender:
        # Of a chat of two, older versions name nobody.
        other = names[0] if names else f"not {ME}" if table.cell(row, "mine") else ""
        sender = ME if mine else other
    elif sender not in names:
        names.append(sender)
    return sender, names, text


def _time(table: _Table, row: list[str]) -> int:
    stamp, written = table.cell(row, "stamp"), table.cell(row, "time")
    if stamp.isdecimal():
        return moment(stamp)
    if match := _DATE.fullmatch(written or stamp):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        return moment(f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    return moment(written or stamp)
