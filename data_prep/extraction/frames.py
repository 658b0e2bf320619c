"""Stickers as the pictures that a model is shown: sampled frames, flattened, of bounded size."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from int_ra_jax.data import grounds, images

BACKGROUNDS = (grounds.WHITE, grounds.DARK)
MIN_EDGE = 32  # pixels; the processors of the Qwen-VL family refuse less
MAX_ASPECT = 50  # longer by shorter edge; they refuse 200


@dataclass(frozen=True)
class Picture:
    """A sticker file to be shown; it is decoded only when a model really has to see it.

    Attributes:
      path: of a file that validation has accepted.
      frames: at most so many frames of an animation.
      side: the longer edge is shrunk to so many pixels; never enlarged.
      digest: SHA-256 of the file.
      key: what decides the pixels.
      shown: how many frames are shown.
    """

    path: Path
    frames: int
    side: int
    digest: str
    key: tuple[object, ...]
    shown: int

    @classmethod
    def of(cls, path: Path, frames: int, side: int) -> "Picture":
        """Reads the file once, for its hash and for how its pixels are changed.

        Raises:
          ValueError: if it cannot be decoded.
        """
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        traits = images.traits(content)
        shrunk = [max(1, edge * side // max(side, *traits.size)) for edge in traits.size]
        # A picture that is shown as it lies keeps the key that it had before any was changed.
        changes = {
            "upright": traits.turned,
            traits.ground: traits.ground != grounds.WHITE,
            "padded": min(shrunk) < _least_edge(shrunk),
        }
        changed = (name for name, applies in changes.items() if applies)
        key = (digest, frames, side, *changed)
        return cls(path, frames, side, digest, key, len(sampled(traits.frames, frames)))

    def load(self, background: str | None = None) -> list[Image.Image]:
        """Decodes the sampled frames, RGB, oldest first; one for a still sticker.

        A frame that is too small or too thin for a model to take is padded.

        Args:
          background: colour below transparent pixels; None for the one that shows them.

        Raises:
          ValueError: if the file cannot be decoded.
        """
        try:
            return self._frames(background, self.frames)
        except (ValueError, OSError):  # a later frame may be broken: the first one stands
            try:
                return self._frames(background, 0)
            except (ValueError, OSError) as error:
                raise ValueError(f"{self.path}: {error}") from error

    def is_transparent(self) -> bool:
        """Tells whether anything of the first frame is seen through."""
        return images.is_transparent(self.path.read_bytes())

    def _frames(self, background: str | None, wanted: int) -> list[Image.Image]:
        content = self.path.read_bytes()
        decoded = images.decode_frames(content, lambda n: sampled(n, wanted) or [0], background)
        return [self._bounded(frame) for frame in decoded]

    def _bounded(self, frame: Image.Image) -> Image.Image:
        frame.thumbnail((self.side, self.side), Image.Resampling.BICUBIC)
        width, height = (max(edge, _least_edge(frame.size)) for edge in frame.size)
        if (width, height) == frame.size:
            return frame
        padded = Image.new("RGB", (width, height), grounds.WHITE)
        padded.paste(frame, ((width - frame.width) // 2, (height - frame.height) // 2))
        return padded


def _least_edge(size: Sequence[int]) -> int:
    return max(MIN_EDGE, -(-max(size) // MAX_ASPECT))


def sampled(total: int, wanted: int) -> list[int]:
    """Returns the numbers of frames that stand for an animation: the middles of equal parts.

    Args:
      total: frames there are.
      wanted: frames to take at most.
    """
    parts = min(total, wanted)
    return [(2 * part + 1) * total // (2 * parts) for part in range(parts)]
