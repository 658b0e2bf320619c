"""What of a picture survives scaling and compression, to tell copies of a sticker from others.

Two pictures show the same if their perceptual hashes are near and no part of them differs in
colour: the hash alone sees neither the colour of a heart nor another caption below the same face.
Pictures that are both transparent are compared on a dark ground, too, since white hides what is
white in them. One that shows nothing is nobody's copy. docs/construction.md has the measurement
that chose both thresholds.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from PIL import Image

from int_ra_jax.data import grounds, images

MAX_BITS = 10  # of the hash's 64 that may differ
MAX_COLOUR = 30  # of 255, in the part of the picture that differs most
_GRID = 16  # parts along an edge
_MAX_ASPECT = 0.1  # by which width by height may differ, as a share
_HEAD = struct.Struct("<f?8s")  # aspect, blank, bits; the colours follow
_BITS, _COLOURS = 64, _GRID * _GRID * 3


@dataclass(frozen=True)
class Fingerprint:
    """What of a picture survives scaling and compression.

    Attributes:
      bits: the perceptual hash, as 64 truths.
      colours: [16, 16, 3], the mean colour of each part, 0 to 255.
      aspect: width by height.
      blank: whether it shows nothing, so that its hash is noise.
      on_dark: of a transparent picture, the same on a dark ground.
    """

    bits: np.ndarray
    colours: np.ndarray
    aspect: float
    blank: bool = False
    on_dark: "Fingerprint | None" = None

    @classmethod
    def of(cls, image: Image.Image, on_dark: Image.Image | None = None) -> "Fingerprint":
        """Computes it.

        Args:
          image: the picture as it is shown, in RGB.
          on_dark: of a transparent picture, the same on a dark ground.
        """
        import imagehash  # here, because only what reads pictures needs it

        small = image.resize((_GRID, _GRID), Image.Resampling.BOX, reducing_gap=None)
        return cls(
            imagehash.phash(image).hash.ravel(),
            np.asarray(small, np.int16),
            image.width / image.height,
            images.shows_nothing(image),
            None if on_dark is None else cls.of(on_dark),
        )

    @classmethod
    def of_file(cls, content: bytes) -> "Fingerprint":
        """Computes it of an encoded picture, or of an animation's first frame.

        Raises:
          ValueError: if no picture can be read.
        """
        seen_through = images.is_transparent(content)
        dark = images.decode(content, ground=grounds.DARK) if seen_through else None
        return cls.of(images.decode(content), dark)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Fingerprint":
        """Reads what ``to_bytes`` wrote.

        Raises:
          ValueError: for other bytes.
        """
        size = _HEAD.size + _COLOURS
        if len(content) not in (size, 2 * size):
            raise ValueError(f"{len(content)} bytes are no fingerprint; compute it again.")
        aspect, blank, bits = _HEAD.unpack_from(content)
        return cls(
            np.unpackbits(np.frombuffer(bits, np.uint8)).astype(bool),
            np.frombuffer(content[_HEAD.size : size], np.uint8)
            .astype(np.int16)
            .reshape(_GRID, _GRID, 3),
            aspect,
            blank,
            cls.from_bytes(content[size:]) if len(content) > size else None,
        )

    def to_bytes(self) -> bytes:
        """Returns it as 781 bytes, or twice as many for a transparent picture."""
        head = _HEAD.pack(self.aspect, self.blank, np.packbits(self.bits).tobytes())
        own = head + self.colours.astype(np.uint8).tobytes()
        return own if self.on_dark is None else own + self.on_dark.to_bytes()

    def distance(self, other: "Fingerprint") -> tuple[int, int]:
        """Returns how many bits differ, and by how much the most different part does."""
        bits = int(np.count_nonzero(self.bits != other.bits))
        return bits, int(np.abs(self.colours - other.colours).max())

    def shows_same(
        self, other: "Fingerprint", max_bits: int = MAX_BITS, max_colour: int = MAX_COLOUR
    ) -> bool:
        """Tells whether two pictures are copies of one sticker.

        Args:
          other: the other picture's.
          max_bits: of the perceptual hash that may differ.
          max_colour: by which any part of the pictures may differ.
        """
        if self.blank or other.blank or abs(self.aspect / other.aspect - 1) >= _MAX_ASPECT:
            return False
        pairs = [(self, other)]
        if self.on_dark and other.on_dark:
            pairs.append((self.on_dark, other.on_dark))
        distances = (first.distance(second) for first, second in pairs)
        return all(bits <= max_bits and colour <= max_colour for bits, colour in distances)


class Fingerprints:
    """M fingerprints side by side, so that one is compared with all of them at once."""

    def __init__(self, prints: Sequence[Fingerprint]) -> None:
        self._aspects = np.array([one.aspect for one in prints])
        self._blank = np.array([one.blank for one in prints], bool)
        self._dark = np.array([one.on_dark is not None for one in prints], bool)
        # Where there is none on dark, the one on white stands in its row and is not read.
        grounds = ([*prints], [one.on_dark or one for one in prints])
        self._grounds = [
            (
                np.array([one.bits for one in some], bool).reshape(len(prints), _BITS),
                np.array([one.colours for one in some], np.int16).reshape(len(prints), _COLOURS),
            )
            for some in grounds
        ]

    def copies_of(self, place: int) -> Bool[np.ndarray, " M"]:
        """Tells of which ones the one in a place is a copy, by ``Fingerprint.shows_same``."""
        shaped = abs(self._aspects / self._aspects[place] - 1) < _MAX_ASPECT
        same = shaped & ~self._blank & ~self._blank[place]
        for (bits, colours), compared in zip(
            self._grounds, (np.True_, self._dark & self._dark[place]), strict=True
        ):
            rows = np.flatnonzero(same & compared)
            rows = rows[np.count_nonzero(bits[rows] != bits[place], axis=1) <= MAX_BITS]
            # The hash leaves few, whose colours are many numbers.
            rows = rows[np.abs(colours[rows] - colours[place]).max(axis=1) <= MAX_COLOUR]
            near = np.zeros_like(same)
            near[rows] = True
            same &= near | ~compared
        return same
