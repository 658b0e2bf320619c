"""Step 5, deduplicate: stickers that are copies of each other become one.

The same sticker is saved again in other sizes and formats. What tells copies from other stickers
stands in ``int_ra_jax/data/copies.py``.

Privacy: nothing is added; fewer distinct pictures are kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.chats import step
from int_ra_jax.data.copies import MAX_BITS, MAX_COLOUR, Fingerprint

MERGED_FILE = "merged.jsonl"


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
        prints = [Fingerprint.of_file((source / step.STICKERS / name).read_bytes()) for name in bar]
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
        twins = (kept[i] for i in near if prints[kept[i]].shows_same(one, max_bits, max_colour))
        first = next(twins, None)
        if first is None:
            bits[len(kept)] = packed
            kept.append(place)
        chosen.append(place if first is None else first)
    return chosen


def _replaced(context: dict[str, Any], stands_for: dict[str, str]) -> dict[str, Any]:
    for one in (context, *context["turns"]):
        if "sticker" in one:
            one["sticker"] = stands_for[one["sticker"]]
    return context
