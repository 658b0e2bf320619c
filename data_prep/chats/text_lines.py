"""Lines of a text that some program exported: in UTF-8 or UTF-16, and never more than fits."""

from collections.abc import Iterator
from pathlib import Path

MAX_TEXT = 2**16  # characters of a line, and of a message
LOST = "\ufffd"  # stands for bytes that are no text
_WIDE = (b"\xff\xfe", b"\xfe\xff")


def encoding_of(path: Path) -> str:
    """Returns the encoding by the file's first bytes."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in _WIDE else "utf-8-sig"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields number and text; of a line without an end, no more than a message may have."""
    with path.open(encoding=encoding_of(path), errors="replace", newline="\n") as file:
        number, start = 1, True
        while piece := file.readline(MAX_TEXT):
            if start:
                yield number, piece.rstrip("\r\n")
            start = piece.endswith("\n")
            number += start
