"""What there is in a gallery, as far as those who look may see it."""

import threading
from collections.abc import Sequence
from dataclasses import replace

from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.shelved import Shelved
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.serving import schemas
from int_ra_jax.serving.answers import show
from int_ra_jax.serving.problems import Problem
from int_ra_jax.serving.viewers import EVERYBODY, Viewer

_KEPT = 20_000  # stickers whose predicted intentions are kept at hand
_LISTED = 1_000  # ids of a pack that are told


class Catalogue:
    """The stickers and packs of a retriever's gallery; its methods read disks, and may wait.

    Args:
      retriever: whose gallery it is.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._predicted: dict[str, tuple[GallerySticker, dict[str, float]]] = {}
        self._kept_by, self._lock = "", threading.Lock()
        self._own_checksum = ""

    @property
    def gallery(self) -> Shelved:
        """The gallery that is searched."""
        return self._retriever.gallery

    def sticker(self, identity: str, viewer: Viewer = EVERYBODY) -> schemas.StickerOut:
        """Returns a sticker.

        Raises:
          Problem: 404, if there is none of this id that is shown.
        """
        self.check(identity, viewer)
        found = self.stickers([identity])
        if identity not in found:  # removed since
            raise unknown_sticker()
        return show(found[identity])

    def check(self, identity: str, viewer: Viewer) -> None:
        """Checks that a sticker is there, and is shown; see ``sticker``."""
        found = self.gallery.read([identity]).get(identity)
        if found is None or not viewer.sees(found):
            raise unknown_sticker()

    def picture(self, identity: str, viewer: Viewer = EVERYBODY) -> tuple[bytes, str]:
        """Returns a sticker's file and its media type.

        Raises:
          Problem: 404, if there is none of this id that is shown.
        """
        self.check(identity, viewer)
        try:
            return self.gallery.picture(identity)
        except KeyError:  # removed since
            raise unknown_sticker() from None

    def with_picture(self, identity: str, viewer: Viewer) -> GallerySticker:
        """Returns a sticker with its picture; see ``picture``."""
        self.check(identity, viewer)
        found = self.gallery.read([identity], pictures=True)
        if identity not in found:  # removed since
            raise unknown_sticker()
        return found[identity]

    def packs(self, viewer: Viewer = EVERYBODY) -> schemas.PacksOut:
        """Returns the packs of which a sticker is shown."""
        return schemas.PacksOut(packs=dict(self.gallery.packs(without_flags=viewer.unseen_flags)))

    def pack(self, name: str, offset: int = 0, viewer: Viewer = EVERYBODY) -> schemas.PackOut:
        """Returns a pack.

        Raises:
          Problem: 404, if there is none of this name of which a sticker is shown.
        """
        number = self.packs(viewer).packs.get(name)
        if number is None:
            raise unknown_pack()
        listed = self.listed(name, offset, _LISTED, viewer)
        return schemas.PackOut(name=name, stickers=number, ids=[one.id for one in listed])

    def listed(
        self, pack: str, offset: int, limit: int, viewer: Viewer
    ) -> list[schemas.StickerOut]:
        """Returns a part of a pack's stickers, without the intentions that are predicted."""
        unseen = viewer.unseen(self.gallery)
        found = self.gallery.stickers(pack, offset=offset, limit=limit, without=unseen)
        return [show(one) for one in found]

    def checksum(self) -> str:
        """Returns the checksum of the checkpoint that answers."""
        gallery = self.gallery
        if gallery.writable:
            return str(gallery.checksum)
        with self._lock:  # of a run's own gallery it takes a while, and never changes
            self._own_checksum = self._own_checksum or str(gallery.checksum)
        return self._own_checksum

    def stickers(self, ids: Sequence[str]) -> dict[str, GallerySticker]:
        """Returns stickers without their pictures, with predicted intentions.

        A gallery reads those from its disk: they are kept as long as the sticker stays as it is.
        """
        found = self.gallery.read(ids)
        checksum = self.checksum()
        with self._lock:
            if self._kept_by != checksum or len(self._predicted) > _KEPT:
                self._predicted, self._kept_by = {}, checksum
            kept = self._predicted
        unknown = [
            one.id
            for one in found.values()
            if one.intentions is None and kept.get(one.id, (None,))[0] != one
        ]
        for one in self.gallery.read(unknown, pictures=True).values() if unknown else ():
            if one.id in found:
                kept[one.id] = (found[one.id], dict(one.intentions or {}))
        return {
            name: one
            if one.intentions is not None or name not in kept
            else replace(one, intentions=kept[name][1])
            for name, one in found.items()
        }


def unknown_sticker() -> Problem:
    """Returns what is said where there is no such sticker, or none that is shown."""
    return Problem(404, "there is no sticker of this id; /v1/packs lists what there is")


def unknown_pack() -> Problem:
    """Returns what is said where there is no such pack, or none that is shown."""
    return Problem(404, "there is no pack of this name; /v1/packs lists what there is")
