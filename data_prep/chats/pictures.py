"""Sticker files of an export: read within bounds, and freed of metadata."""

import re
import struct
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from data_prep import archives
from int_ra_jax.data import images

# A picture's metadata can tell who drew or sent it, with which device, where and when.
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME")
_WEBP_METADATA = (b"EXIF", b"XMP ")
_WEBP_FLAGS = 0b0000_1100  # of the VP8X chunk: "has EXIF", "has XMP"
_JPEG_KEPT = (0xE0, 0xE2, 0xEE)  # JFIF, colour profile, Adobe's colour transform


_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", re.I)  # MD5, as WeChat names stickers
_THUMBNAIL = "th_"  # before the hash, in the name of a smaller copy
_MAX_PATH = 1_000  # characters of what may be a path


class Beside:
    """The pictures that lie beside an export, by what its messages say of them."""

    def __init__(self, root: Path) -> None:
        """Looks nowhere yet.

        Args:
          root: the folder of the export.
        """
        self._root = root

    @cached_property
    def _by_hash(self) -> dict[str, str]:
        """Hash that a file's name begins with -> the file; a thumbnail where there is no other."""
        found: dict[str, str] = {}
        paths = (path for path in sorted(self._root.rglob("*")) if path.is_file())
        for path in sorted(paths, key=lambda one: one.name.startswith(_THUMBNAIL)):
            match = _HASH.match(path.name.removeprefix(_THUMBNAIL))
            if match and (archives.may_be_sticker(path.name) or path.suffix == ".json"):
                found.setdefault(match[0].lower(), path.relative_to(self._root).as_posix())
        return found

    def find(self, folder: str, *said: str) -> str | None:
        """Returns the first picture that a message names, relative to the root, or None.

        Args:
          folder: of the export's file, relative to the root.
          *said: strings of the message: paths, or texts that hold an MD5.
        """
        for one in said:
            if path := self._path(folder, one) or self._hashed(one):
                return path
        return None

    def _path(self, folder: str, said: str) -> str | None:
        """Returns the file whose path is said, however the exporter's machine writes paths."""
        if not 0 < len(said) <= _MAX_PATH or "\n" in said or "\0" in said:
            return None
        for written in dict.fromkeys((said, said.replace("\\", "/"), unquote(said))):
            try:
                path = (self._root / folder / written).resolve()
                if path.is_file() and path.is_relative_to(self._root.resolve()):
                    return path.relative_to(self._root.resolve()).as_posix()
            except (OSError, ValueError):
                continue
        return None

    def _hashed(self, said: str) -> str | None:
        hashes = (match[0].lower() for match in _HASH.finditer(said))
        return next((self._by_hash[one] for one in hashes if one in self._by_hash), None)


def load(path: Path) -> bytes:
    """Returns a picture's bytes, once they are known to be few enough.

    Raises:
      ValueError: if there are too many.
    """
    size = path.stat().st_size
    if size > images.MAX_BYTES:
        raise ValueError(f"picture of {size:,} bytes; at most {images.MAX_BYTES:,} are read")
    return path.read_bytes()


def without_metadata(content: bytes) -> bytes:
    """Returns the same picture without its metadata, and decodes it only to turn it upright.

    How a picture is to be turned stands in its metadata, so its pixels are turned before.

    Args:
      content: PNG, JPEG, WebP or GIF that decodes. GIF is returned as it is.

    Raises:
      ValueError: if it does not decode.
    """
    content = images.as_upright(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _webp(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg(content)
    return content


def _png(content: bytes) -> bytes:
    kept, place = [content[:8]], 8
    while place + 12 <= len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        end = place + 12 + size
        if content[place + 4 : place + 8] not in _PNG_METADATA:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _webp(content: bytes) -> bytes:
    kept, place = [], 12
    while place + 8 <= len(content):
        kind = content[place : place + 4]
        (size,) = struct.unpack("<I", content[place + 4 : place + 8])
        end = place + 8 + size + size % 2
        chunk = content[place:end]
        if kind == b"VP8X" and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS]) + chunk[9:]
        if kind not in _WEBP_METADATA:
            kept.append(chunk)
        place = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg(content: bytes) -> bytes:
    kept, place = [content[:2]], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        marker = content[place + 1]
        (size,) = struct.unpack(">H", content[place + 2 : place + 4])
        end = place + 2 + size
        metadata = (0xE0 <= marker <= 0xEF and marker not in _JPEG_KEPT) or marker == 0xFE
        if not metadata:
            kept.append(content[place:end])
        place = end
    return b"".join([*kept, content[place:]])
