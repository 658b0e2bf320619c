"""Who looks at a gallery, and what of it they see."""

from dataclasses import dataclass

from int_ra_jax.retrieval.shelved import Shelved
from int_ra_jax.retrieval.stickers import GallerySticker


@dataclass(frozen=True)
class Viewer:
    """Somebody who looks at stickers without having found them by a question.

    Attributes:
      owner: has the key, and sees all there is.
      adult: asked for adult stickers too.
    """

    owner: bool = False
    adult: bool = False

    def sees(self, sticker: GallerySticker) -> bool:
        """Tells whether a sticker is shown."""
        return not any(getattr(sticker, flag) for flag in self.unseen_flags)

    @property
    def unseen_flags(self) -> tuple[str, ...]:
        """Returns the flags whose stickers are not shown."""
        return () if self.owner else ("hidden",) if self.adult else ("hidden", "adult")

    def unseen(self, gallery: Shelved) -> set[str]:
        """Returns the ids of all stickers that are not shown."""
        return {one for name in self.unseen_flags for one in gallery.flagged(name)}


EVERYBODY, OWNER = Viewer(), Viewer(owner=True)
