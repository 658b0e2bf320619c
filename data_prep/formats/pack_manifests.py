"""What a pack of stickers says of its files: title, author, each sticker's emoji, name, tags.

contents.json           WhatsApp's: ``sticker_packs`` with ``image_file`` and ``emojis``
*.json                  Telegram's answer to getStickerSet; Signal's manifest, not encrypted
emoji.txt               a JSON object: name of a file without its suffix -> emoji
title.txt, author.txt   a line each
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.problems import Problems

MAX_BYTES = 16 * 2**20  # of a manifest
MAX_TEXT = 200  # characters of a name, a tag, a title
_SAYS_FILE = ("image_file", "file", "path", "file_name", "file_path", "image")
_SAYS_ID = ("file_unique_id", "file_id", "id")
_SAYS_NAME = ("name", "accessibility_text", "title", "text")
_SAYS_TAGS = ("tags", "keywords")
# Of emoji: what joins them, and the letters of regions' flags; not printable by themselves.
_JOINS = re.compile("[\u200d\ufe0f\U000e0020-\U000e007f]")
_TEXTS = ("title.txt", "author.txt", "emoji.txt")


@dataclass(frozen=True)
class Said:
    """What a manifest says of one sticker.

    Attributes:
      place: in the list, from 0.
      files: how its file may be called, with suffix and folder or without.
      ids: by which its file may be called as well; they are no names.
      name: or empty.
      emoji: what its maker says that it stands for.
      tags: other words.
    """

    place: int
    files: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    name: str = ""
    emoji: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass
class Manifest:
    """What one pack says.

    Attributes:
      file: where it stands, relative to the source.
      folder: in which its files lie.
      title: of the pack, or empty.
      author: likewise.
      trays: how the files of the pack's own sign may be called, which is no sticker.
      stickers: in their order.
    """

    file: str
    folder: Path
    title: str = ""
    author: str = ""
    trays: tuple[str, ...] = ()
    stickers: list[Said] = field(default_factory=list)


def find(folder: Path, root: Path, problems: Problems) -> tuple[list[Manifest], set[Path]]:
    """Reads what the files of one folder say of stickers in it and below.

    Args:
      folder: of the files.
      root: of the source, for their names.
      problems: gets what is broken.

    Returns:
      The manifests, and the files that were read for them.
    """
    found, used = [], set()
    for path in sorted(path for path in folder.glob("*.json") if path.is_file()):
        name = path.relative_to(root).as_posix()
        packs = [one for one in _packs(_json(path, name, problems)) if isinstance(one, dict)]
        for pack in packs:
            found.append(_manifest(name, folder, pack))
        if packs:
            used.add(path)
    texts = {name: folder / name for name in _TEXTS if (folder / name).is_file()}
    used.update(texts.values())
    if not found and texts:
        found.append(_of_texts(texts, folder, root, problems))
    return found, used


def words(value: Any) -> str:
    """Returns a value as a name that can be stored: printable, one line, of bounded length."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    plain = text.encode("utf-8", "ignore").decode("utf-8", "ignore").split()
    kept = " ".join(plain)
    return "".join(one for one in kept if one.isprintable() or _JOINS.match(one))[:MAX_TEXT]


def _json(path: Path, name: str, problems: Problems) -> Any:
    if path.stat().st_size > MAX_BYTES:
        return None
    content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        if b'"stickers"' in content or path.name in _TEXTS:
            line = getattr(error, "lineno", 0)
            problems.add(name, line, f"not JSON: {error}. Mend it, or remove it")
        return None


def _packs(document: Any) -> Iterator[Any]:
    """Yields the objects of a document that have stickers: WhatsApp's file holds several."""
    if not isinstance(document, dict):
        return
    several = document.get("sticker_packs")
    inner = document.get("result", document)  # the Bot API wraps its answers
    yield from several if isinstance(several, list) else ()
    if isinstance(inner, dict) and isinstance(inner.get("stickers"), list):
        yield inner


def _manifest(name: str, folder: Path, pack: Mapping[str, Any]) -> Manifest:
    listed = pack.get("stickers")
    stickers = [
        _said(place, one)
        for place, one in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
    ]
    own = folder / words(pack.get("identifier"))
    inside = own if "identifier" in pack and own.is_dir() and own.parent == folder else folder
    cover = pack.get("cover")
    taken = {called for one in stickers for called in (*one.files, *one.ids)}
    trays = _texts(pack.get("tray_image_file"))
    if isinstance(cover, dict):  # Signal's may be one of the stickers
        sign = _said(0, cover)
        trays += tuple(one for one in (*sign.files, *sign.ids) if one not in taken)
    title = words(pack.get("title")) or words(pack.get("name"))
    author = words(pack.get("publisher")) or words(pack.get("author"))
    return Manifest(name, inside, title, author, trays, stickers)


def _said(place: int, record: Mapping[str, Any]) -> Said:
    files, ids = ([words(record.get(key)) for key in of] for of in (_SAYS_FILE, _SAYS_ID))
    names = [words(record.get(key)) for key in _SAYS_NAME]
    emoji = _texts(record.get("emojis")) + _texts(record.get("emoji"))
    tags = [tag for key in _SAYS_TAGS for tag in _texts(record.get(key))]
    return Said(
        place,
        tuple(dict.fromkeys(filter(None, files))),
        tuple(dict.fromkeys(filter(None, ids))),
        next(filter(None, names), ""),
        tuple(dict.fromkeys(emoji)),
        tuple(dict.fromkeys(tags)),
    )


def _texts(value: Any) -> tuple[str, ...]:
    """Returns what is one text or a list of them."""
    several = value if isinstance(value, list) else [value]
    return tuple(filter(None, (words(one) for one in several if isinstance(one, str))))


def _of_texts(texts: Mapping[str, Path], folder: Path, root: Path, problems: Problems) -> Manifest:
    said = {name: words(_beginning(path)) for name, path in texts.items()}
    file = list(texts.values())[-1].relative_to(root).as_posix()  # emoji.txt where there is one
    manifest = Manifest(file, folder, said.get("title.txt", ""), said.get("author.txt", ""))
    if path := texts.get("emoji.txt"):
        emoji = _json(path, path.relative_to(root).as_posix(), problems)
        for place, (stem, value) in enumerate(emoji.items() if isinstance(emoji, dict) else ()):
            manifest.stickers.append(Said(place, (words(stem),), emoji=_texts(value)))
    return manifest


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(MAX_TEXT)
