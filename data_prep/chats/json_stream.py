"""JSON exports of any size, streamed: they need the memory of one message."""

import codecs
import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import ijson

from data_prep.chats import text_lines
from data_prep.problems import Problems

MAX_MESSAGE = 2**20  # bytes; the programs' own limits are far below
_HEAD = 2**16  # bytes within which an export says what it is
ERRORS = (ijson.JSONError, ValueError, RecursionError)  # of what is no JSON


class _Recoded:
    """A file in UTF-16, read as UTF-8."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, "utf-16", errors="replace", newline="\n")

    def readline(self, size: int = -1) -> bytes:
        """Returns no more than the next line; ``size`` counts characters."""
        return self._text.readline(size).encode()


def as_utf8(file: IO[bytes]) -> IO[bytes] | _Recoded:
    """Returns a file, which stands at its beginning, behind its mark and without UTF-16."""
    first = file.read(len(codecs.BOM_UTF8))
    if first != codecs.BOM_UTF8:
        file.seek(0)
    return _Recoded(file) if first.startswith(text_lines.WIDE) else file


class CountedLines:
    """Hands a file over line by line, so that the parser's place is known as a line.

    ``message`` counts the bytes since the parser was last outside a message: what it holds in
    memory, which a file made to do harm would let grow without end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.line, self.message = as_utf8(file), 0, 0

    def read(self, size: int = -1) -> bytes:
        """Returns no more than the next line.

        Raises:
          JSONError: if a message is longer than any is.
        """
        chunk = self.file.readline(size)
        self.line += chunk.endswith(b"\n")
        self.message += len(chunk)
        if self.message > MAX_MESSAGE:
            raise ijson.JSONError(f"more than {MAX_MESSAGE:,} bytes in one message")
        return chunk


def add_problem(problems: Problems, name: str, line: int, error: Exception) -> None:
    """Notes that a file is no JSON from some line on."""
    text = " ".join(str(error).split())[:200]
    problems.add(name, line, f"not JSON: {text}. Export the chat again, as JSON.")


def begins_with(path: Path, words: tuple[bytes, ...]) -> bool:
    """Whether any of some words stands near a file's beginning."""
    head = _head(path)
    return any(word in head for word in words)


def stands_before(path: Path, word: bytes, other: bytes) -> bool:
    """Whether a word stands near a file's beginning, and before another one."""
    return word in _head(path).partition(other)[0]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(text_lines.WIDE):
        head = head.decode("utf-16", "ignore").encode("utf-8", "ignore")
    return head


def note_all(path: Path, note: Callable[[str, Any], None]) -> None:
    """Calls ``note`` as ``messages`` does, up to what is no JSON; messages are passed over."""
    with path.open("rb") as file, contextlib.suppress(*ERRORS):
        lines = CountedLines(file)
        for prefix, event, value in ijson.parse(lines, use_float=True):
            lines.message = 0 if prefix in ("", "messages") else lines.message
            if value is not None and event != "map_key" and not prefix.startswith("messages."):
                note(prefix, value)


def messages(
    path: Path, name: str, problems: Problems, note: Callable[[str, Any], None]
) -> Iterator[tuple[int, Any]]:
    """Yields line and value of each item of the list ``messages`` at the top of a file.

    Args:
      path: the file.
      name: of it, relative to the source.
      problems: gets what is no JSON.
      note: is called with path and value of every string, number, boolean and null outside the
        messages, as they come: ``channel.id``, ``members.item.accountName``.
    """
    with path.open("rb") as file:
        lines = CountedLines(file)
        builder: ijson.ObjectBuilder | None = None
        try:
            for prefix, event, value in ijson.parse(lines, use_float=True):
                if builder is not None:
                    builder.event(event, value)
                    if event.startswith("end_") and prefix == "messages.item":
                        yield max(lines.line, 1), builder.value
                        builder = None
                    continue
                lines.message = 0
                if prefix == "messages.item" and event in ("start_map", "start_array"):
                    builder = ijson.ObjectBuilder()
                    builder.event(event, value)
                elif prefix == "messages.item":
                    yield max(lines.line, 1), value
                elif value is not None and event != "map_key":
                    note(prefix, value)
        except ERRORS as error:
            add_problem(problems, name, lines.line + 1, error)
