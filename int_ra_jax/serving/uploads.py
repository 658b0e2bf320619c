"""From what a request uploads to stickers of the gallery."""

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.stickers import GallerySticker, stated_by_pack
from int_ra_jax.serving import pictures, schemas
from int_ra_jax.serving.problems import Problem
from int_ra_jax.serving.settings import Limits

PackReader = Callable[[bytes], tuple[Sequence[tuple[StickerEntry, bytes]], Mapping[str, int]]]
"""A pack in a file -> its stickers with their pictures, and how many were left out by reason.

It raises ValueError with the reason where nothing of the file can be read.
"""
Progress = Callable[[int, int], None]
"""Is called with how many are done, and how many there are."""
_CHUNK = 16  # stickers that are put at once, between two signs of progress
_ANIMATED = (".tgs", ".was", ".webm")  # what a pack's reader draws and Pillow does not
_ZIP = b"PK\x03\x04"
_AGAIN = "same picture as another sticker"
# Reasons of a pack's reader for what is no sticker of the pack, now or before.
_NO_LOSS = frozenset((_AGAIN, "sign of the pack, no sticker", "file of another kind"))


def new_sticker(
    identity: str, said: schemas.StickerIn, content: bytes, media_type: str
) -> GallerySticker:
    """Returns a sticker as a gallery takes it."""
    given = {name: 1.0 for name in said.intentions}
    return GallerySticker(
        id=identity,
        picture=content,
        pack=said.pack,
        name=said.name,
        attributes=dict.fromkeys(ATTRIBUTES, "") | dict(said.attributes),
        tags=tuple(said.tags),
        emoji=tuple(said.emoji),
        adult=said.adult,
        approved=said.approved,
        intentions=given or None,
        intentions_given=bool(given),
        media_type=media_type,
    )


class Upload:
    """Takes the files of one request into a gallery.

    Args:
      gallery: that takes them.
      limits: of pictures.
      read_pack: reads packs as people exchange them; None takes pictures alone.
    """

    def __init__(self, gallery: Gallery, limits: Limits, read_pack: PackReader | None) -> None:
        self._gallery, self._limits, self._read_pack = gallery, limits, read_pack
        self._left_out: Counter[str] = Counter()
        self._refused: set[str] = set()  # ids that pictures would have had
        self._unknown = False  # whether something was refused that may have been any sticker

    def put(
        self, name: str, files: Sequence[tuple[str, bytes]], progress: Progress, whole: bool
    ) -> schemas.LedgerOut:
        """Puts files into a pack; see ``Service.put_pack``."""
        stickers, left_out = self._read(name, files), self._left_out
        kept = 0
        for start in range(0, len(stickers), _CHUNK):
            ledger = self._gallery.put(stickers[start : start + _CHUNK], given=stated_by_pack)
            kept += ledger.kept
            left_out.update({reason: noted.count for reason, noted in ledger.left_out.items()})
            progress(min(start + _CHUNK, len(stickers)), len(stickers))
        if not kept:
            raise Problem(422, "no sticker was taken", [("files", why) for why in left_out])
        removed = self._remove_others(name, {one.id for one in stickers}) if whole else 0
        return schemas.LedgerOut(kept=kept, left_out=dict(left_out), removed=removed)

    def _remove_others(self, name: str, ours: set[str]) -> int:
        """Removes what the pack had besides, but nothing that may be a file that was refused."""
        there = [one.id for one in self._gallery.stickers(name)]
        stay = ours | self._refused
        if self._unknown or not stay <= {*there}:
            return 0
        gone = [one for one in there if one not in stay]
        return self._gallery.remove(gone) if gone else 0

    def _read(self, name: str, files: Sequence[tuple[str, bytes]]) -> list[GallerySticker]:
        """Returns the stickers of an upload, each once, and counts what is left out of it."""
        found: dict[str, GallerySticker] = {}
        for called, content in files:
            try:
                for one in self._stickers(name, called, content):
                    if one.id in found:
                        self._left_out[_AGAIN] += 1
                    found.setdefault(one.id, one)
            except Problem as problem:
                self._refuse(pictures.identity(content), problem)
        return list(found.values())

    def _refuse(self, identity: str, problem: Problem) -> None:
        self._left_out[problem.errors[0][1] if problem.errors else problem.detail] += 1
        self._refused.add(identity)

    def _stickers(self, name: str, called: str, content: bytes) -> Iterable[GallerySticker]:
        """Returns the stickers of one file.

        Raises:
          Problem: if there is none in it.
        """
        moves = called.lower().endswith(_ANIMATED)
        if self._read_pack and (moves or content.startswith(_ZIP)):
            try:
                entries, without = self._read_pack(_alone(content) if moves else content)
            except ValueError as error:
                raise Problem(422, str(error)) from None
            self._left_out.update(without)
            self._unknown |= not _NO_LOSS.issuperset(without)
            return self._taken(name, called if moves else "", entries)
        media_type = pictures.checked(content, self._limits)
        # Words from a file's name, which our own rules cut, need no check of their own.
        said = schemas.StickerIn.model_construct(pack=name, name=pictures.called(called))
        return [new_sticker(pictures.identity(content), said, content, media_type)]

    def _taken(
        self, name: str, called: str, entries: Sequence[tuple[StickerEntry, bytes]]
    ) -> Iterable[GallerySticker]:
        """Yields the stickers of a pack whose pictures are within bounds."""
        for entry, content in entries:
            try:
                media_type = pictures.checked(content, self._limits)
            except Problem as problem:
                self._refuse(entry.id, problem)
                continue
            yield GallerySticker(
                id=entry.id,
                picture=content,
                pack=name,
                name=str(entry.extra.get("name", "")) or pictures.called(called),
                attributes=dict(entry.attributes),
                tags=entry.tags,
                emoji=tuple(entry.extra.get("emoji", ())),
                media_type=media_type,
            )


def _alone(content: bytes) -> bytes:
    """Returns one sticker as a pack, under a name of ours."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("sticker", content)
    return packed.getvalue()
