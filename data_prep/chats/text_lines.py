"""Lines of a text that some program exported: in UTF-8 or UTF-16, and never more than fits."""

from collections.abc import Iterator
from pathlib import Path

MAX_TEXT = 2**16  # characters of a line, and of a message
LOST = "\ufffd"  # stands for bytes that are no text
WIDE = (b"\xff\xfe", b"\xfe\xff")  # marks of UTF-16


def encoding_of(path: Path) -> str:
    """Returns the encoding by the file's first bytes; UTF-16 may lack its mark."""
    with path.open("rb") as file:
        first = file.read(64)
    if first.startswith(WIDE):
        return "utf-16"
    nul = [first[start::2].count(0) for start in (0, 1)]  # the empty halves of Latin and digits
    if len(first) > 3 and 0 in nul and max(nul) * 4 > len(first):
        return "utf-16-le" if nul[1] else "utf-16-be"
    return "utf-8-sig"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields number and text; of a line without an end, no more than a message may have.

    A line ends as on Unix, on Windows, or on an old Mac.
    """
    with path.open(encoding=encoding_of(path), errors="replace") as file:
        number, start = 1, True
        while piece := file.readline(MAX_TEXT):
            if start:
                yield number, piece.rstrip("\r\n")
            start = piece.endswith("\n")
            number += start
