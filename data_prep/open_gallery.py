"""An open gallery from the command line: packs in, stickers listed, hidden, removed.

    python launch.py --mode=gallery --workdir=RUN --gallery=DIR add PACK...
    ... list [PACK...] | hide NAME... | show NAME... | remove NAME... | rebuild | forget

PACK is whatever ``formats.galleries`` reads (a folder, .wastickers, a zip; animated stickers too),
or a prepared directory, whose attributes and intentions are kept. NAME is a sticker's id, or a
pack's name for all of its stickers.
"""

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from absl import logging

from data_prep.formats import galleries
from data_prep.problems import Problems
from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.common.log import progress
from int_ra_jax.common.nearest import nearest
from int_ra_jax.data import schema
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.retrieval.gallery import Describe, Gallery, Given
from int_ra_jax.retrieval.stickers import GallerySticker, stated, stated_by_pack

_AT_ONCE = 256  # stickers that are read into memory

Found = tuple[StickerEntry, Callable[[], bytes]]
"""A sticker, and what reads its picture."""


def act(
    path: str, workdir: Path, words: Sequence[str], describe: Describe | None = None
) -> Iterator[str]:
    """Does what a command line says, and yields the lines of its answer.

    Args:
      path: of the gallery.
      workdir: of the run that embeds stickers.
      words: what to do, and with what.
      describe: describes stickers that are added; see ``Gallery.open``.

    Raises:
      ValueError: if that is not known or something is missing; or, when all else is done, if a
        source cannot be read.
      FileNotFoundError: if there is no run, or no gallery to do it with.
    """
    action, *names = words or ("",)
    if action not in _ACTIONS:
        near = nearest(action, [*_ACTIONS]) if action else None
        hint = f" Did you mean {near}?" if near else ""
        raise ValueError(f"--mode=gallery takes one of {', '.join(_ACTIONS)} behind it.{hint}")
    if action in _NAMED and not names:
        raise ValueError(f"{action} needs {'a PACK' if action == 'add' else 'an id or a pack'}.")
    if action != "add" and describe is not None:
        raise ValueError(f"--describer is read by add alone; {action} describes nothing.")
    if action == "add" and (gone := [name for name in names if not Path(name).exists()]):
        raise FileNotFoundError(f"there is no {', '.join(gone)}; nothing was added.")
    with _bar("embed", shown=action == "rebuild") as moved:
        gallery = Gallery.open(
            path,
            workdir,
            create=action == "add",
            rebuild=action == "rebuild",
            progress=moved,
            read_words=words_reader() if action == "add" else None,
            describe=describe,
        )
    yield from _ACTIONS[action](gallery, names)


def words_reader() -> Callable[[bytes], str] | None:
    """Returns what reads the words on a picture; None where no OCR is installed."""
    if not _reads_words():
        logging.info("words on stickers are not read: pip install -e '.[extract]'")
        return None
    return _read_words


def describer(named: str, language: str) -> Describe:
    """Returns what describes pictures; it reads their words, too, where no OCR is installed.

    Args:
      named: see ``StickerDescriber``.
      language: likewise.

    Raises:
      ValueError: likewise.
    """
    from data_prep.extraction.sticker_describer import StickerDescriber

    return StickerDescriber(named, language, words=not _reads_words())


def _reads_words() -> bool:
    return all(map(find_spec, ("rapidocr", "onnxruntime")))


def _read_words(content: bytes) -> str:
    reader, lock = _reader()
    with lock:
        return reader.read_file(content)


@functools.cache
def _reader() -> tuple[Any, threading.Lock]:
    from data_prep.extraction.ocr import StickerReader

    return StickerReader(), threading.Lock()


def _add(gallery: Gallery, names: Sequence[str]) -> Iterator[str]:
    refused = []
    for name in names:
        source = Path(name)
        try:
            with _stickers(source) as (found, ledger):
                given = stated if _is_prepared(source) else stated_by_pack
                whole = _put(gallery, found, ledger, source.stem, given)
        except (ValueError, OSError) as error:  # the other packs go in
            refused.append(str(error))
            continue
        yield f"{name}: {whole}"
    yield f"{len(gallery)} stickers in {len(gallery.packs())} packs"
    if refused:
        raise ValueError("\n".join(refused))


def _moved_on(moved: Callable[[int, int], None], before: int, of: int, done: int, _: int) -> None:
    moved(before + done, of)


def _put(
    gallery: Gallery, found: Sequence[Found], ledger: Ledger, title: str, given: Given
) -> Ledger:
    """Puts stickers, and returns the ledger of their source with what became of them."""
    known = frozenset(gallery.intentions)
    with _bar("put", shown=True) as moved:
        for start in range(0, len(found), _AT_ONCE):
            some = [_sticker(*one, title, known) for one in found[start : start + _AT_ONCE]]
            put = gallery.put(some, functools.partial(_moved_on, moved, start, len(found)), given)
            ledger.kept += put.kept - put.records_in
            for reason, noted in put.left_out.items():
                before = ledger.left_out.setdefault(reason, noted)
                before.count += noted.count if before is not noted else 0
    return ledger


def _sticker(
    entry: StickerEntry, read: Callable[[], bytes], title: str, known: frozenset[str]
) -> GallerySticker:
    stated = {name: 1.0 for name in entry.intentions if name in known}
    return GallerySticker(
        id=entry.id,
        picture=read(),
        pack=str(entry.extra.get("pack") or title),
        name=str(entry.extra.get("name", "")),
        attributes=entry.attributes,
        tags=entry.tags,
        emoji=tuple(map(str, entry.extra.get("emoji", ()))),
        intentions=stated or None,
    )


@contextlib.contextmanager
def _stickers(source: Path) -> Iterator[tuple[list[Found], Ledger]]:
    """Gives the stickers of a source, and what became of each of its records."""
    if _is_prepared(source):
        yield _prepared(source)
        return
    problems = Problems(source)
    with galleries.collected(source, problems) as packs:
        if problems.total:
            logging.warning("%s: %d manifests cannot be read", source, problems.total)
        entries = packs.entries.values()
        yield [(one, packs.picture(one).read_bytes) for one in entries], packs.ledger


def _is_prepared(source: Path) -> bool:
    return (source / schema.STICKERS_FILE).is_file()


def _prepared(directory: Path) -> tuple[list[Found], Ledger]:
    """Returns the stickers of a prepared directory; a broken row is left out."""
    ledger, found = Ledger(), []

    def read(line: str) -> Found:
        try:
            entry = StickerEntry.from_json(json.loads(line))
            path = schema.confined(directory, entry.image)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LeftOut("row that cannot be read") from error
        if not path.is_file():
            raise LeftOut("file not in the pack")
        return entry, path.read_bytes

    with (directory / schema.STICKERS_FILE).open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            place = f"{schema.STICKERS_FILE}:{number}"
            if line.strip() and (one := ledger.judge(place, functools.partial(read, line))):
                found.append(one)
    return found, ledger


def _list(gallery: Gallery, names: Sequence[str]) -> Iterator[str]:
    packs = gallery.packs()
    _check_known(gallery, [name for name in names if name not in packs])
    if not names:
        yield from (f"{count:7,d}  {name or '(no pack)'}" for name, count in packs.items())
        yield f"{len(gallery):7,d}  stickers"
        yield from _unsearched(gallery)
    reasons = gallery.unsearched()
    for name in names:
        for one in gallery.stickers(name):
            flags = [flag for flag in ("hidden", "adult", "approved") if getattr(one, flag)]
            said = "; ".join(text for text in one.attributes.values() if text)
            flags += [f"not found: {reasons[one.id]}"] if one.id in reasons else []
            yield "  ".join(filter(None, (one.id, said, " ".join(one.tags), " ".join(flags))))


def _remove(gallery: Gallery, names: Sequence[str]) -> Iterator[str]:
    yield f"{gallery.remove(_ids(gallery, names)):,} removed, {len(gallery):,} left"


def _hide(gallery: Gallery, names: Sequence[str]) -> Iterator[str]:
    yield f"{gallery.hide(_ids(gallery, names)):,} hidden"


def _show(gallery: Gallery, names: Sequence[str]) -> Iterator[str]:
    yield f"{gallery.show(_ids(gallery, names)):,} shown again"


def _rebuild(gallery: Gallery, names: Sequence[str]) -> Iterator[str]:
    done = len(gallery) - len(gallery.unsearched())
    yield f"{done:,} stickers have the embeddings of checkpoint {gallery.checksum[:12]}"
    yield from _unsearched(gallery)
    if others := len(gallery.others()):
        yield (
            f"those of {others} other checkpoints stay, for services that answer by them; "
            "once none does, forget deletes them"
        )


def _unsearched(gallery: Gallery) -> Iterator[str]:
    """Yields a line for each sticker that is kept and not found."""
    for name, reason in gallery.unsearched().items():
        yield f"{name} is not found by this checkpoint: {reason}"


def _forget(gallery: Gallery, names: Sequence[str]) -> Iterator[str]:
    others = gallery.others()
    gallery.forget(others)
    yield f"the embeddings of {len(others)} other checkpoints are deleted"


def _ids(gallery: Gallery, names: Sequence[str]) -> list[str]:
    """Returns ids, all of a pack for its name."""
    packs = gallery.packs()
    _check_known(gallery, [name for name in names if name not in gallery and name not in packs])
    found: list[str] = []
    for name in names:
        found += [name] if name in gallery else [one.id for one in gallery.stickers(name)]
    return found


def _check_known(gallery: Gallery, unknown: Sequence[str]) -> None:
    if unknown:
        known = ", ".join(list(gallery.packs())[:20])
        raise ValueError(f"the gallery has no {', '.join(unknown)}; its packs are {known}.")


@contextlib.contextmanager
def _bar(name: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives what moves a bar with the time that is left."""
    if not shown:
        yield lambda done, total: None
        return
    with progress(name, 0, "stickers") as bar:

        def moved(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield moved


_ACTIONS: dict[str, Callable[[Gallery, Sequence[str]], Iterator[str]]] = {
    "add": _add,
    "list": _list,
    "hide": _hide,
    "show": _show,
    "remove": _remove,
    "rebuild": _rebuild,
    "forget": _forget,
}
_NAMED = ("add", "hide", "show", "remove")
