"""Step 5, deduplicate: stickers that are copies of each other become one.

The same sticker is saved again in other sizes and formats. Two pictures are one sticker if their
perceptual hashes are near and no part of them differs in colour: the hash alone sees neither the
colour of a heart nor another caption below the same face. Pictures that are both transparent are
compared on a dark ground, too, since white hides what is white in them. One that shows nothing is
nobody's copy. docs/construction.md has the measurement
that chose both thresholds.

Privacy: nothing is added; fewer distinct pictures are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep.chats import step
from int_ra_jax.data import grounds, images

MAX_BITS = 10  # of the hash's 64 that may differ
MAX_COLOUR = 30  # of 255, in the part of the picture that differs most
_GRID = 16  # parts along an edge
MERGED_FILE = "merged.jsonl"


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
        small = image.resize((_GRID, _GRID), Image.Resampling.BOX, reducing_gap=None)
        bits = imagehash.phash(image).hash.ravel()
        return cls(
            bits,
            np.asarray(small, np.int16),
            image.width / image.height,
            images.shows_nothing(image),
            None if on_dark is None else cls.of(on_dark),
        )

    def distance(self, other: "Fingerprint") -> tuple[int, int]:
        """Returns how many bits differ, and by how much the most different part does."""
        bits = int(np.count_nonzero(self.bits != other.bits))
        return bits, int(np.abs(self.colours - other.colours).max())


def deduplicate(
    source: Path, out: Path, max_bits: int = MAX_BITS, max_colour: int = MAX_COLOUR
) -> step.Counts:
    """Merges near-duplicate stickers; the first by name stands for its copies.

    Args:
      source: the result of the step segment.
      out: the step's directory; ``merged.jsonl`` in it names what was merged into what.
      max_bits: of the perceptual hash that may differ; -1 merges nothing.
      max_colour: by which any part of the pictures may differ.

    Returns:
      What was counted.
    """
    settings = {"max_bits": max_bits, "max_colour": max_colour}

    def work(building: Path) -> step.Counts:
        names = sorted(path.name for path in (source / step.STICKERS).iterdir())
        bar = tqdm(names, desc="hashing stickers", unit="sticker", mininterval=1)
        prints = [_fingerprint(source / step.STICKERS / name) for name in bar]
        chosen = merge(prints, max_bits, max_colour)
        stands_for = {name: names[chosen[i]] for i, name in enumerate(names)}
        merged = {a: b for a, b in stands_for.items() if a != b}
        rows = ({"sticker": a, "merged_into": b} for a, b in merged.items())
        step.write_lines(building, MERGED_FILE, rows)
        contexts = step.read_lines(source, step.CONTEXTS_FILE, "merging stickers")
        count = step.write_lines(
            building, step.CONTEXTS_FILE, (_replaced(one, stands_for) for one in contexts)
        )
        step.pass_on(source, building, sorted(set(stands_for.values())))
        return {"stickers": len(names), "merged_away": len(merged), "contexts": count}

    identity = step.identity(source, "deduplicate")
    return step.run_step("deduplicate", identity, out, settings, work)


def merge(prints: Sequence[Fingerprint], max_bits: int, max_colour: int) -> list[int]:
    """Returns for each picture the place of the one that stands for it.

    A picture is compared with those that stand for themselves, never along a chain of copies, so
    all that are merged are near to one picture.
    """
    chosen: list[int] = []
    kept: list[int] = []
    bits = np.zeros(len(prints), np.uint64)
    for place, one in enumerate(prints):
        (packed,) = np.packbits(one.bits).view(np.uint64)
        near = np.flatnonzero(np.bitwise_count(bits[: len(kept)] ^ packed) <= max_bits)
        twins = (kept[i] for i in near if _same(prints[kept[i]], one, max_bits, max_colour))
        first = next(twins, None)
        if first is None:
            bits[len(kept)] = packed
            kept.append(place)
        chosen.append(place if first is None else first)
    return chosen


def _same(one: Fingerprint, other: Fingerprint, max_bits: int, max_colour: int) -> bool:
    if one.blank or other.blank or abs(one.aspect / other.aspect - 1) >= 0.1:
        return False
    pairs = [(one, other)]
    if one.on_dark and other.on_dark:
        pairs.append((one.on_dark, other.on_dark))
    distances = (first.distance(second) for first, second in pairs)
    return all(bits <= max_bits and colour <= max_colour for bits, colour in distances)


def _fingerprint(path: Path) -> Fingerprint:
    content = path.read_bytes()
    dark = images.decode(content, ground=grounds.DARK) if images.is_transparent(content) else None
    return Fingerprint.of(images.decode(content), dark)


def _replaced(context: dict[str, Any], stands_for: dict[str, str]) -> dict[str, Any]:
    for one in (context, *context["turns"]):
        if "sticker" in one:
            one["sticker"] = stands_for[one["sticker"]]
    return context
