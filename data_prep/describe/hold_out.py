"""A copy of a prepared directory in which some stickers never occur in training: a cold start.

Stickers that train uses are ordered by how often, and cut into as many runs of equal length as are
to be held out; one of each run is drawn. So the held-out stickers are used about as often as the
others. With a share of a fifth, seeds 0 to 4 together hold out every sticker, so that a figure need
not hang on which were drawn. Conversations of train and valid that they answer are left out, the
test stays whole, and ``dataset.json`` names the stickers.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from absl import logging

from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation
from int_ra_jax.data.validation import read_prepared

HELD_OUT = "its sticker is held out"
_KEPT_WHOLE = "test"


def hold_out(directory: Path, out: Path, share: float = 0.2, seed: int = 0) -> None:
    """Writes the copy, and says what became of the conversations.

    Args:
      directory: a prepared directory.
      out: must not exist yet, or be empty.
      share: of the stickers that train uses, which are held out; above 0 and below 1.
      seed: of the draw.

    Raises:
      ValueError: for another share, too few stickers in train, or a directory with problems.
      FileExistsError: if ``out`` holds anything.
    """
    prepared = read_prepared(directory)
    uses = Counter(conversation.sticker for conversation in prepared.conversations["train"])
    held = draw(uses, share, seed)
    ledger = Ledger()
    judged = [
        ledger.judge(one.id, partial(_answered_by_a_known_one, one, held))
        for split in schema.SPLITS
        for one in prepared.conversations[split]
    ]
    kept = [one for one in judged if one is not None]
    told = {"share": share, "seed": seed, "stickers": sorted(held), "ledger": ledger.to_json()}
    name = f"{prepared.info['name']}-held-out"
    pictures = {s.image: schema.confined(prepared.path, s.image) for s in prepared.stickers}
    schema.write_prepared(
        out, kept, prepared.stickers, prepared.intentions,
        dict(prepared.info) | {"name": name, "held_out": told}, pictures,
    )  # fmt: skip
    logging.info("%d of %d stickers of train are held out", len(held), len(uses))
    logging.info("%s", ledger)
    logging.info("%s: content hash %s", out, schema.content_hash(out))


def _answered_by_a_known_one(conversation: Conversation, held: frozenset[str]) -> Conversation:
    if conversation.split != _KEPT_WHOLE and conversation.sticker in held:
        raise LeftOut(HELD_OUT)
    return conversation


def draw(uses: Mapping[str, int], share: float, seed: int) -> frozenset[str]:
    """Draws the stickers that are held out, one of each run of about equally used ones.

    Args:
      uses: sticker -> how often train uses it; each at least once.
      share: which part of them, above 0 and below 1; at least one is drawn.
      seed: of the draw. Of n stickers in a run, n seeds in a row, the first a multiple of the
        longest run, draw every one.

    Raises:
      ValueError: for another share, or fewer than two stickers.
    """
    if not 0 < share < 1:
        raise ValueError(f"--share={share} must be above 0 and below 1.")
    if len(uses) < 2:
        raise ValueError(f"train uses {len(uses)} stickers: holding one out leaves none to learn.")
    ordered = sorted(uses, key=lambda sticker: (-uses[sticker], sticker))
    count = min(max(1, round(share * len(ordered))), len(ordered) - 1)
    runs = np.array_split(np.array(ordered), count)
    order, place = divmod(seed, max(map(len, runs)))
    rng = np.random.default_rng(order)
    return frozenset(str(rng.permutation(run)[place % len(run)]) for run in runs)
