"""Files of third parties as lines and records: bounded, confined, and never trusted.

Nothing here stops at the first fault: what cannot be read becomes a problem with its file and line,
and reading goes on with the next line.
"""

import ast
import binascii
import gzip
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from data_prep.problems import Problems, short

MAX_LINE = 8 * 2**20  # bytes of a line that is a record
MAX_LITERAL = (
    2**20
)  # characters of a line that Python's parser reads, at a hundred times the memory
MAX_DOCUMENT = 256 * 2**20  # bytes of a file that is one JSON document

_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_MARK = "\ufeff"
_SPACE = re.compile(r"[ \t\n\r]*")


class InputDirectory:
    """A directory that somebody else filled.

    Attributes:
      root: the directory.
      problems: where everything is noted that is wrong with its files.
    """

    def __init__(self, root: Path, problems: Problems) -> None:
        self.root = root
        self.problems = problems

    def has(self, name: str) -> bool:
        """Whether a file lies there and inside the directory, symbolic links followed."""
        path = self.root / name
        return path.is_file() and path.resolve().is_relative_to(self.root.resolve())

    def names(self) -> list[str]:
        """Returns the names of all files, relative with forward slashes, sorted."""
        names = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*"))
        return sorted(name for name in names if self.has(name))

    def first(self, names: Sequence[str]) -> str | None:
        """Returns the first of these files that is there; notes a problem where none is."""
        found = [name for name in names if self.has(name)]
        if not found:
            self.problems.add(names[0], 0, f"file is missing in {self.root}")
            return None
        for name in found[1:]:
            self.problems.warn(name, 0, f"not read, since {found[0]} is there")
        return found[0]

    def lines(self, name: str, limit: int = MAX_LINE) -> Iterator[tuple[int, str]]:
        """Yields the number and the text of each line that is not blank.

        Args:
          name: of a file that ``has`` has confirmed.
          limit: bytes of a line; a longer one is a problem and never held in memory.
        """
        path = self.root / name
        size = path.stat().st_size
        if size == 0:
            self.problems.add(name, 0, "file is empty")
            return
        bar = tqdm(total=size, desc=f"reading {name}", unit="B", unit_scale=True, mininterval=1)
        with (gzip.open if name.endswith(".gz") else open)(path, "rb") as file, bar:
            if file.read(4).startswith(_WIDE_MARKS):
                self.problems.add(
                    name, 1, "file is UTF-16 or UTF-32. Convert it: iconv -f UTF-16 -t UTF-8"
                )
                return
            file.seek(0)
            number = 0
            while raw := file.readline(limit + 1):
                number += 1
                bar.update(len(raw))
                if len(raw) > limit:
                    self.problems.add(name, number, f"line has more than {limit:,} bytes")
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(limit)
                        bar.update(len(raw))
                    continue
                text = self._decoded(name, number, raw)
                if text.strip():
                    yield number, text

    def records(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the number and the object of each line; the others become problems.

        A line is JSON, or the Python literal that the authors' scripts write.
        """
        for number, text in self.lines(name):
            try:
                yield number, parse_record(text)
            except ValueError as error:
                self.problems.add(name, number, str(error))

    def members(self, name: str) -> Iterator[tuple[int, str, Any]]:
        """Yields line, key and value of each member of a file that is one JSON object or list.

        The members of a list have their places as keys. One member at a time is decoded, so the
        text alone is in memory; after a fault in the JSON nothing can follow.
        """
        path = self.root / name
        if path.stat().st_size > MAX_DOCUMENT:
            self.problems.add(name, 0, f"file has more than {MAX_DOCUMENT:,} bytes")
            return
        before = self.problems.total
        text = "\n".join(self._whole_text(name, path.read_bytes()))
        if self.problems.total > before:
            return
        if not text.strip():
            self.problems.add(name, 0, "file is empty")
            return
        line, counted = 1, 0
        try:
            for position, key, value in _walk(text):
                line += text.count("\n", counted, position)
                counted = position
                check_storable(value)
                yield line, key, value
        except RecursionError:
            self.problems.add(name, line, "JSON is nested too deeply")
        except json.JSONDecodeError as error:
            self.problems.add(name, error.lineno, f"not JSON: {error}")
        except ValueError as error:
            self.problems.add(name, line, str(error))

    def _whole_text(self, name: str, content: bytes) -> Iterator[str]:
        if content.startswith(_WIDE_MARKS):
            self.problems.add(
                name, 1, "file is UTF-16 or UTF-32. Convert it: iconv -f UTF-16 -t UTF-8"
            )
            return
        for number, raw in enumerate(content.split(b"\n"), start=1):
            yield self._decoded(name, number, raw)

    def _decoded(self, name: str, number: int, raw: bytes) -> str:
        """Returns the text of a line, or "" after noting why there is none."""
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            self.problems.add(name, number, f"text is not UTF-8: {error.reason}{_encoding(raw)}")
            return ""
        if "\0" in text:
            self.problems.add(name, number, "line holds a NUL byte; is the file UTF-16 or binary?")
            return ""
        if text.startswith(_MARK):
            self.problems.warn(name, number, "byte order mark passed over")
            text = text.removeprefix(_MARK)
        return text


def parse_record(text: str) -> dict[str, Any]:
    """Reads one line that ought to be an object, as JSON or as a Python literal.

    Raises:
      ValueError: if it is neither, no object, or holds what no UTF-8 file can.
    """
    try:
        record = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        try:
            record = _literal(text)
        except ValueError:
            raise ValueError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, found {short(record)}")
    check_storable(record)
    return record


def check_storable(value: Any) -> None:
    """Checks that a value can be written as JSON in UTF-8.

    A lone surrogate and an infinite number are legal in what Python reads, but no file can hold
    the one and no other reader takes the other.

    Raises:
      ValueError: if it cannot.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"text is not UTF-8: {error.reason}") from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def decode_base64(text: str) -> bytes:
    """Decodes base64 of either alphabet, strictly: one wrong character is an error.

    Raises:
      ValueError: if the text is not base64.
    """
    plain = text.strip().replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise ValueError(f"base64 does not decode: {short(str(error), 120)}") from None


def _literal(text: str) -> Any:
    """Reads a Python literal as the JSON value that it corresponds to."""
    if len(text) > MAX_LITERAL:
        raise ValueError("line is too long for a Python literal")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # '\d' in somebody's text is no concern of ours
            value = ast.literal_eval(text.strip())
        return json.loads(json.dumps(value), parse_constant=_no_constant)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a Python literal: {error}") from None


def _walk(text: str) -> Iterator[tuple[int, str, Any]]:
    """Yields position, key and value of the members of a JSON object or list."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
    opening = _past_space(text, 0)
    closing = {"{": "}", "[": "]"}.get(text[opening : opening + 1])
    if closing is None:
        raise json.JSONDecodeError("Expecting an object or a list", text, opening)
    position = _past_space(text, opening + 1)
    more = text[position : position + 1] != closing
    index = 0
    while more:
        start, key = position, str(index)
        if closing == "}":
            key, position = decoder.raw_decode(text, position)
            position = _past_space(text, position)
            if not isinstance(key, str) or text[position : position + 1] != ":":
                raise json.JSONDecodeError("Expecting a key and a colon", text, start)
            position = _past_space(text, position + 1)
        value, position = decoder.raw_decode(text, position)
        yield start, key, value
        index += 1
        position = _past_space(text, position)
        more = text[position : position + 1] == ","
        if more:
            position = _past_space(text, position + 1)
    if text[position : position + 1] != closing:
        raise json.JSONDecodeError(f"Expecting , or {closing}", text, position)
    if text[position + 1 :].strip():
        raise json.JSONDecodeError("Extra data", text, position + 1)


def _past_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {short(twice)} stands twice in one object")
    return record


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _encoding(raw: bytes) -> str:
    """Returns the end of a message: which encoding the bytes may be in."""
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return ". It reads as GB18030; if it is, convert the file: iconv -f GB18030 -t UTF-8"
