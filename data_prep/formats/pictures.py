"""Stickers' pictures: decoded one at a time within bounds, and put on disk under safe names."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from data_prep.problems import Problems, short
from int_ra_jax.data import images

MAX_TEXT = images.MAX_BYTES * 4 // 3 + 4096  # of a line that holds one picture in base64
_ID = re.compile(r"\w[\w.-]{0,99}")
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


def id_message(value: object) -> str | None:
    """Returns what is wrong with an id of a third party, or None.

    Ids become file names and keys, so a slash, a leading dot or a control character is refused.
    """
    if not isinstance(value, str):
        return f"id {short(value)} is no string"
    if not _ID.fullmatch(value) or ".." in value or len(value.encode()) > 200:
        return (
            f"id {short(value)} is unsafe as a file name. Use up to 100 letters, digits and _ . -, "
            "and a letter, digit or _ first"
        )
    return None


def suffix_of(content: bytes) -> str:
    """Returns the suffix that belongs to the format of a picture that has been decoded."""
    return next(suffix for start, suffix in _SUFFIXES.items() if content.startswith(start))


class Picture(NamedTuple):
    """A picture that was taken: its file, its content's digest, and where it came from."""

    path: Path
    digest: bytes
    file: str
    line: int


class Pictures:
    """The pictures of an input by sticker id, on disk.

    Attributes:
      taken: sticker id -> picture, in the order in which they came.
    """

    def __init__(self, directory: Path, problems: Problems) -> None:
        """Starts empty.

        Args:
          directory: where the pictures are written; must exist.
          problems: where bad ones are noted.
        """
        self._directory = directory
        self._problems = problems
        self._refused: set[str] = set()
        self.taken: dict[str, Picture] = {}

    def add(self, sticker: str, content: bytes, file: str, line: int) -> None:
        """Checks a picture and writes it.

        The same id may come again from another file of the input, if the content is the same.

        Args:
          sticker: its id.
          content: the encoded picture.
          file: where it was found.
          line: likewise.
        """
        message = id_message(sticker)
        if message:
            self._problems.add(file, line, message)
            return
        digest = hashlib.sha256(content).digest()
        before = self.taken.get(sticker)
        if before:
            where = f"{before.file}:{before.line}"
            if before.digest != digest:
                message = f"duplicate id {sticker!r} with another image, first in {where}"
                self._problems.add(file, line, message)
            elif before.file == file:
                self._problems.add(file, line, f"duplicate id {sticker!r}, first in {where}")
            return
        try:
            for frame in images.FRAMES:
                images.decode(content, frame)
        except ValueError as error:
            self._problems.add(
                file, line, f"image of sticker {sticker!r}: {short(str(error), 200)}"
            )
            self._refused.add(sticker)
            return
        path = self._directory / f"{sticker}{suffix_of(content)}"
        path.write_bytes(content)
        self.taken[sticker] = Picture(path, digest, file, line)

    def message(self, sticker: str) -> str | None:
        """Returns what is wrong with a reference to a sticker; None for a known one.

        A picture that was refused has been reported once, and not again for each of its uses.
        """
        if sticker in self.taken or sticker in self._refused:
            return None
        return id_message(sticker) or f"sticker {short(sticker)} has no image"
