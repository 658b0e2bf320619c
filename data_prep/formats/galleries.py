"""Packs of stickers without a chat, as a gallery: a prepared directory without conversations.

    SRC                     a folder of pictures, or of several packs, each in a folder of its own;
                            a pack as WhatsApp's apps exchange it (.wastickers), or any zip of these

Animated stickers become pictures (``animations``). ``pack_manifests`` knows what a pack says of its
files. What became of each sticker and file is in ``dataset.json`` under ``ledger``.
"""

import contextlib
import hashlib
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from absl import logging

from data_prep import archives
from data_prep.formats import animations, pack_manifests
from data_prep.formats.pack_manifests import Manifest, Said
from data_prep.formats.pictures import suffix_of
from data_prep.problems import Problems
from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import images, schema
from int_ra_jax.data.schema import StickerEntry

UNLABELLED = "unlabelled"  # stands in intentions.txt, which must not be empty
_PACKS = (".wastickers", ".zip")
_NUMBER = re.compile(r"[0-9]{1,6}")
_TRAYS = ("tray",)  # names of the pack's own sign, where nothing says which file that is
_SAYS_NOTHING = re.compile(r"\d+|[0-9a-f]{16,}|sticker|file|image|img|pack", re.I)


@dataclass
class _Files:
    """The files of a pack, by what a manifest may call them.

    Attributes:
      by_name: name, and name without suffix, in lower case -> file.
      numbered: number at the beginning of a name -> file.
      alone: number that is all of a name but its suffix -> file.
    """

    by_name: dict[str, Path] = field(default_factory=dict)
    numbered: dict[int, Path] = field(default_factory=dict)
    alone: dict[int, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "_Files":
        """Indexes files; of several that are called the same, the first counts."""
        files = cls()
        found = list(paths)
        for path in found:
            files.by_name.setdefault(path.name.casefold(), path)
            if match := _NUMBER.match(path.stem):
                files.numbered.setdefault(int(match[0]), path)
                if match[0] == path.stem:
                    files.alone.setdefault(int(match[0]), path)
        for path in found:
            files.by_name.setdefault(path.stem.casefold(), path)
        return files

    def called(self, name: str) -> Path | None:
        """Returns the file of a name, which may have a folder before it, and a suffix or none.

        A number may have noughts before it.
        """
        called = name.replace("\\", "/").rpartition("/")[2].casefold()
        number = int(called) if _NUMBER.fullmatch(called) else -1
        return self.by_name.get(called) or self.alone.get(number)

    def of_sticker(self, said: Said, total: int) -> Path | None:
        """Returns a sticker's file: by a name that is said, or by its place among numbers."""
        named = (self.called(name) for name in (*said.files, *said.ids))
        if path := next((path for path in named if path), None):
            return path
        first = min(self.numbered, default=-1)
        is_list = first in (0, 1) and len(self.numbered) == total
        return self.numbered.get(said.place + first) if is_list else None


@dataclass
class Collected:
    """What was found in packs.

    Attributes:
      folder: where the pictures are written.
      entries: the rows, by id.
      packs: their titles and authors.
      ledger: what became of each sticker and file.
    """

    folder: Path
    entries: dict[str, StickerEntry] = field(default_factory=dict)
    packs: list[dict[str, str]] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    def picture(self, entry: StickerEntry) -> Path:
        """Returns the file of a sticker."""
        return self.folder / Path(entry.image).name

    def take(self, path: Path, said: Said, manifest: Manifest) -> None:
        """Takes a sticker.

        Raises:
          LeftOut: with the reason why it is not taken.
        """
        content = _picture(path)
        digest = hashlib.sha256(content).hexdigest()[:20]
        identity, file = f"sticker_{digest}", f"{digest}{suffix_of(content)}"
        if identity in self.entries:
            self._say_more(identity, said)
            raise LeftOut("same picture as another sticker")
        name = said.name or ("" if path.stem in said.ids else _name(path.stem))
        about = {"name": name, "pack": manifest.title, "author": manifest.author}
        extra: dict[str, Any] = {key: value for key, value in about.items() if value}
        if said.emoji:
            extra["emoji"] = list(said.emoji)
        tags = dict.fromkeys(one for one in (*said.emoji, name, *said.tags) if one)
        (self.folder / file).write_bytes(content)
        self.entries[identity] = StickerEntry(
            id=identity,
            image=f"{schema.IMAGES}/{file}",
            attributes=dict.fromkeys(ATTRIBUTES, ""),
            tags=tuple(tags),
            extra=extra,
        )

    def _say_more(self, identity: str, said: Said) -> None:
        """Adds to a sticker what another one with the same picture says."""
        entry = self.entries[identity]
        more = (*said.emoji, said.name, *said.tags)
        tags = tuple(dict.fromkeys(one for one in (*entry.tags, *more) if one))
        emoji = list(dict.fromkeys((*entry.extra.get("emoji", ()), *said.emoji)))
        extra = {**entry.extra, "emoji": emoji} if emoji else entry.extra
        self.entries[identity] = replace(entry, tags=tags, extra=extra)


def import_packs(source: Path, out: Path, dry_run: bool = False) -> Ledger:
    """Writes packs of stickers as a gallery, or everything that is wrong with them.

    Args:
      source: a folder, or one pack in a file.
      out: must not exist yet, or be empty.
      dry_run: check everything and write nothing.

    Returns:
      What became of each sticker.

    Raises:
      BadInputError: with every problem, also if no sticker is left; then nothing was written.
      FileNotFoundError: if there is no ``source``.
      FileExistsError: if ``out`` holds anything.
      ValueError: if a zip is not unpacked.
    """
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}. Name a folder of pictures, or a pack.")
    if not dry_run and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not empty. Choose a new directory or remove it.")
    problems = Problems(source)
    with collected(source, problems) as gallery:
        ledger = gallery.ledger
        logging.info("%s", ledger)
        if not ledger.kept:
            problems.add(".", 0, f"no sticker: {str(ledger).replace(chr(10), ';')}")
        problems.stop_if_any()
        if not dry_run:
            _write(out, gallery, ledger)
    verb = "would write" if dry_run else "wrote"
    logging.info("%s %s: a gallery of %d stickers", verb, out, ledger.kept)
    return ledger


@contextlib.contextmanager
def collected(source: Path, problems: Problems) -> Iterator[Collected]:
    """Gives the stickers of packs, whose pictures are deleted again at the end.

    Args:
      source: a folder, or one pack in a file.
      problems: gets what is broken of what packs say; their pictures are read all the same.

    Raises:
      ValueError: if a zip is not unpacked.
    """
    with tempfile.TemporaryDirectory(prefix="packs-", ignore_cleanup_errors=True) as scratch:
        gallery = Collected(Path(scratch) / "pictures")
        gallery.folder.mkdir()
        zips = _zips(source)
        with archives.unpacked(zips, Path(scratch), whole=True) as unpacked:
            roots = [source] if source.is_dir() else []
            for root in [*roots, *([unpacked] if unpacked else [])]:
                title = source.name if root == source else source.stem
                files = [path for path in _files(root) if path not in zips]
                for place, make in _records(root, files, title, gallery, problems):
                    gallery.ledger.judge(place, make)
        yield gallery


def _zips(source: Path) -> list[Path]:
    if source.is_file():
        if not (zipfile.is_zipfile(source) or source.suffix.lower() in _PACKS):
            known = ", ".join(_PACKS)
            raise ValueError(f"{source} is no pack. Name a folder of pictures, or a file {known}.")
        return [source]
    return [path for path in _files(source) if path.suffix.lower() in _PACKS]


def _records(
    root: Path, files: list[Path], title: str, gallery: Collected, problems: Problems
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yields place and act for each sticker that a manifest names, then for every other file."""
    folders = dict.fromkeys([root, *(path.parent for path in files)])
    done: set[Path] = set()
    trays: set[Path] = set()
    packs: dict[Path, Manifest] = {}
    for folder in folders:
        manifests, read = pack_manifests.find(folder, root, problems)
        done |= read
        for manifest in manifests:
            packs[manifest.folder] = manifest
            gallery.packs.append({"title": manifest.title, "author": manifest.author})
            below = _Files.of(path for path in files if path.is_relative_to(manifest.folder))
            trays |= {path for path in map(below.called, manifest.trays) if path}
            for said in manifest.stickers:
                path = below.of_sticker(said, len(manifest.stickers))
                place = f"{manifest.file}:{said.place + 1}"
                done |= {path} if path else set()
                yield place, partial(gallery.take, path, said, manifest) if path else _missing
    for path in files:
        if path not in done:
            place = path.relative_to(root).as_posix()
            pack = _pack_of(path, root, packs) or _unnamed(path, root, title)
            yield place, partial(_other, gallery, path, trays, pack)


def _files(root: Path) -> list[Path]:
    """Returns the files of a folder, without those of file managers and links that leave it."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        parts = path.relative_to(root).parts
        noise = archives.is_noise(path.relative_to(root)) or any(one[0] == "." for one in parts)
        if not noise and path.resolve().is_relative_to(root.resolve()):
            found.append(path)
    return found


def _pack_of(path: Path, root: Path, packs: dict[Path, Manifest]) -> Manifest | None:
    """Returns the nearest pack of a file that no manifest names, or None."""
    folders = [folder for folder in path.parents if folder.is_relative_to(root)]
    return next((packs[folder] for folder in folders if folder in packs), None)


def _unnamed(path: Path, root: Path, title: str) -> Manifest:
    """Returns a pack that is called as its folder."""
    called = title if path.parent == root else path.parent.name
    return Manifest("", path.parent, pack_manifests.words(called))


def _other(gallery: Collected, path: Path, trays: set[Path], manifest: Manifest) -> None:
    if path in trays or path.stem.casefold() in _TRAYS:
        raise LeftOut("sign of the pack, no sticker")
    gallery.take(path, Said(0), manifest)


def _missing() -> NoReturn:
    raise LeftOut("file not in the pack")


def _picture(path: Path) -> bytes:
    """Returns a file as a picture.

    Raises:
      LeftOut: if it is none.
    """
    if path.stat().st_size > images.MAX_BYTES:
        raise LeftOut("picture that is too large")
    content = path.read_bytes()
    try:
        if animations.is_animation(content):
            content = animations.as_picture(content)
        for frame in images.FRAMES:
            images.decode(content, frame)
    except animations.PackageMissingError as missing:
        raise LeftOut(f"animated; pip install {missing.package}") from missing
    except ValueError as error:
        known = archives.may_be_sticker(path.name)
        reason = "no picture that can be read" if known else "file of another kind"
        raise LeftOut(reason) from error
    return content


def _name(stem: str) -> str:
    """Returns what a file's name says, without numbers and words that say nothing."""
    parts = re.split(r"[\s_.-]+", pack_manifests.words(stem))
    return " ".join(part for part in parts if part and not _SAYS_NOTHING.fullmatch(part))


def _write(out: Path, gallery: Collected, ledger: Ledger) -> None:
    titles = [pack for pack in gallery.packs if any(pack.values())]
    info = {
        "name": "packs of stickers",
        "version": "1",
        "licence": "the artists' own; ask them before the gallery leaves this machine",
        "source": "packs of stickers, by data_prep (docs/importing.md)",
        "knowledge": False,
        "counts": {"stickers": len(gallery.entries)},
        "gallery": True,
        "packs": titles,
        "ledger": ledger.to_json(),
    }
    entries = list(gallery.entries.values())
    pictures = {entry.image: gallery.picture(entry) for entry in entries}
    schema.write_prepared(out, (), entries, (UNLABELLED,), info, pictures)
