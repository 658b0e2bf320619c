"""Exports and packs as a zip: unpacked within bounds into a directory that is deleted again."""

import contextlib
import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from data_prep.problems import short
from int_ra_jax.data import schema

# What some reader opens. Of others the name alone counts: whether a chat attached such a file.
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".html")
PICTURES = (*schema.IMAGE_SUFFIXES, ".tgs", ".webm", ".was")  # of stickers, animated ones too
_NOISE = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")  # of file managers
_SHADOW = "._"  # before a file's name: what macOS writes beside it
_HASH = re.compile(r"[0-9a-f]{32}", re.I)  # by which some programs name a picture
MAX_MEMBERS = 200_000
MAX_BYTES = 16 * 2**30  # of all members that are unpacked
MAX_RATIO = 200  # of a member's size to its packed size, above which it is made to do harm
_SAYS_UTF8 = 0x800  # the flag of a member's name
_SMALL = 2**20  # bytes; below, a high ratio is a text with many blanks
_CHUNK = 2**20
_UNPACK = "Unpack it yourself and name the folder"


def zips_of(source: Path, pattern: str) -> list[Path]:
    """Returns the zips to read: the source itself, or those of a folder that holds no export.

    Args:
      source: what the user named.
      pattern: of the files that a reader reads.
    """
    if source.is_file():
        return [source] if zipfile.is_zipfile(source) or source.suffix.lower() == ".zip" else []
    if not source.is_dir() or any(path.is_file() for path in source.glob(pattern)):
        return []
    return sorted(p for p in source.iterdir() if p.suffix.lower() == ".zip" and p.is_file())


@contextlib.contextmanager
def unpacked(zips: Sequence[Path], beside: Path, whole: bool = False) -> Iterator[Path | None]:
    """Gives a directory with the zip unpacked, or each of several in a folder of its name.

    Args:
      zips: the files.
      beside: the directory in which the temporary one is made.
      whole: whether members of every name are unpacked; else the texts and what may be a sticker,
        and of the others an empty file tells the name.

    Yields:
      The directory; None without a zip.

    Raises:
      ValueError: if a zip is broken, out of bounds, or a member leaves its folder.
    """
    if not zips:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=beside) as scratch:
        for path in zips:
            folder = Path(scratch) / path.stem if len(zips) > 1 else Path(scratch)
            same = 1
            while len(zips) > 1 and folder.exists():  # cats.zip beside cats.wastickers
                folder, same = folder.with_name(f"{path.stem} {same + 1}"), same + 1
            _unpack(path, folder, whole)
        yield Path(scratch)


def _unpack(path: Path, folder: Path, whole: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                one.filename = _name_of(one)
            members = [one for one in archive.infolist() if not one.filename.endswith("/")]
            members = [one for one in members if not is_noise(PurePosixPath(one.filename))]
            read = [one for one in members if whole or _is_read(one)]
            wrong = [f"{short(one.filename)} {why}" for one in members if (why := _leaves(one))]
            wrong += [f"{short(one.filename)} {why}" for one in read if (why := _swells(one))]
            total = sum(one.file_size for one in read)
            if len(members) > MAX_MEMBERS:
                wrong.append(f"{len(members):,} members; at most {MAX_MEMBERS:,} are read")
            if total > MAX_BYTES:
                wrong.append(f"{total:,} bytes unpacked; at most {MAX_BYTES:,} are read")
            if wrong:
                more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
                raise ValueError(f"{'; '.join(wrong[:5])}{more}")
            for one in members:
                target = folder / one.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                if whole or _is_read(one):
                    _copy(archive, one, target)
                else:
                    target.touch(exist_ok=False)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,  # encrypted
        OSError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} is not unpacked: {error}. {_UNPACK}, or export again.") from error


def is_noise(path: PurePath) -> bool:
    """Whether a file is of a file manager, and nobody's: ``__MACOSX/a``, ``._a``."""
    return path.name.startswith(_SHADOW) or any(part in _NOISE for part in path.parts)


def _name_of(member: zipfile.ZipInfo) -> str:
    """Returns a member's name as its maker wrote it: zips of old programs do not say how."""
    name = member.filename
    if not name.isascii() and not member.flag_bits & _SAYS_UTF8:
        for encoding in ("utf-8", "gb18030"):  # of macOS; of Windows in China
            with contextlib.suppress(UnicodeError):
                name = name.encode("cp437").decode(encoding)
                break
    return name.replace("\\", "/")


def may_be_sticker(name: str) -> bool:
    """Whether a file of this name may hold a sticker: by its suffix, or a hash without one."""
    return name.lower().endswith(PICTURES) or _HASH.fullmatch(PurePosixPath(name).name) is not None


def _is_read(member: zipfile.ZipInfo) -> bool:
    return member.filename.lower().endswith(_TEXTS) or may_be_sticker(member.filename)


def _leaves(member: zipfile.ZipInfo) -> str:
    """Returns why a member has no place in the folder, or nothing."""
    name = member.filename
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/") or PureWindowsPath(name).drive:
        return "leaves the folder"
    return ""


def _swells(member: zipfile.ZipInfo) -> str:
    """Returns why a member is not unpacked, or nothing."""
    if member.file_size > max(_SMALL, MAX_RATIO * member.compress_size):
        return f"unpacks to {member.file_size:,} bytes of {member.compress_size:,}"
    return ""


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Unpacks one member; no more than it says, since the bounds were checked on that."""
    left = member.file_size
    with archive.open(member) as packed, target.open("xb") as file:
        while chunk := packed.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"{short(member.filename)} is larger than it says")
            file.write(chunk)
