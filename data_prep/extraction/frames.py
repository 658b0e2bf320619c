"""Stickers as the pictures that a model is shown: sampled frames, flattened, of bounded size."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from int_ra_jax.data import images

BACKGROUNDS = ("white", "dimgray")


@dataclass(frozen=True)
class Picture:
    """A sticker file to be shown; it is decoded only when a model really has to see it.

    Attributes:
      path: of a file that validation has accepted.
      frames: at most so many frames of an animation.
      side: the longer edge is shrunk to so many pixels; never enlarged.
      digest: SHA-256 of the file.
    """

    path: Path
    frames: int
    side: int
    digest: str

    @classmethod
    def of(cls, path: Path, frames: int, side: int) -> "Picture":
        """Reads the file once, for its hash."""
        return cls(path, frames, side, hashlib.sha256(path.read_bytes()).hexdigest())

    @property
    def key(self) -> list[object]:
        """What decides the pixels."""
        return [self.digest, self.frames, self.side]

    def load(self, background: str = "white") -> list[Image.Image]:
        """Decodes the sampled frames, RGB, oldest first; one for a still sticker.

        Args:
          background: colour below transparent pixels.

        Raises:
          ValueError: if the file cannot be decoded.
        """
        try:
            return self._frames(sampled(self._total(), self.frames), background)
        except Exception:  # a later frame of an animation may be broken: the first one stands
            try:
                return self._frames([0], background)
            except Exception as error:  # decoders of hostile bytes raise anything
                raise ValueError(f"{self.path}: unreadable image: {error}") from error

    def shown(self) -> int:
        """Returns how many frames are shown."""
        return len(sampled(self._total(), self.frames))

    def _total(self) -> int:
        with Image.open(self.path, formats=images.FORMATS) as image:
            return min(getattr(image, "n_frames", 1), images.MAX_FRAMES)

    def _frames(self, numbers: list[int], background: str) -> list[Image.Image]:
        with Image.open(self.path, formats=images.FORMATS) as image:
            pictures = []
            for number in numbers:
                if number:
                    image.seek(number)
                pictures.append(self._flat(image, background))
            return pictures

    def is_transparent(self) -> bool:
        """Tells whether anything of the first frame is seen through."""
        with Image.open(self.path, formats=images.FORMATS) as image:
            return bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)

    def _flat(self, image: Image.Image, background: str) -> Image.Image:
        flat = images.opaque(image, background)
        flat.thumbnail((self.side, self.side), Image.Resampling.BICUBIC)
        return flat


def sampled(total: int, wanted: int) -> list[int]:
    """Returns the numbers of frames that stand for an animation: the middles of equal parts.

    Args:
      total: frames there are.
      wanted: frames to take at most.
    """
    parts = min(total, wanted)
    return [(2 * part + 1) * total // (2 * parts) for part in range(parts)]
