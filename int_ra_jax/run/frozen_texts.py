"""The frozen text layers' output of many conversations: each text once, with little padding.

A system may read a conversation as one text or as several (SRS reads its turns apart). Replies to
one post share it, and most turns are short, so that a few texts stand for many rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Shaped

from int_ra_jax.common.hosts import Placement
from int_ra_jax.common.log import progress
from int_ra_jax.common.types import Tokens
from int_ra_jax.models.interface import Params, System
from int_ra_jax.run.row_chunks import chunk_rows

_STEP = 16  # texts are padded to a multiple of so many tokens: few programs, little padding


def frozen_texts(
    system: System,
    compute: Callable[[Params, Tokens], jax.Array | None],
    params: Params,
    tokens: Tokens,
    *,
    rows: int,
    placement: Placement | None,
    what: str,
) -> Shaped[np.ndarray, "M *U T Dt"] | None:
    """Returns the frozen layers' output of conversations, on the host.

    What it holds where a text has no token means nothing.

    Args:
      system: that says by ``text_rows`` which texts it reads.
      compute: compiled ``hidden_text``; its output lies in full on every device.
      params: whose frozen layers are read.
      tokens: Tokens [M, L] of all conversations, numpy leaves.
      rows: texts of full length that are computed at once; more of shorter ones.
      placement: which devices share a chunk; the first one by default.
      what: stands beside the progress bar.

    Returns:
      f[M, T, Dt], or f[M, U, T, Dt] of a system that reads U texts apart; None where no layer is
      frozen.
    """
    read = system.text_rows(tokens)
    shape = read.ids.shape  # [M, *U, T]
    texts = Tokens(
        *(np.asarray(leaf).reshape(-1, shape[-1]) for leaf in (read.ids, read.mask, read.type_ids))
    )
    first, of_row = distinct(texts)
    texts = jax.tree.map(lambda leaf: leaf[first], texts)
    parts = 1 if placement is None else placement.parts
    scatter = np.asarray if placement is None else placement.scatter
    found: Any = None
    with progress(what, len(first), "texts") as bar:
        for width, members in by_width(texts.mask).items():
            size = -(-max(rows * shape[-1] // width, 1) // parts) * parts
            for chunk in chunk_rows(len(members), min(size, _enough(len(members), parts))):
                some = members[chunk]
                cut = jax.tree.map(lambda leaf, some=some, w=width: leaf[some, :w], texts)
                hidden = compute(params, jax.tree.map(scatter, cut))
                if hidden is None:
                    return None
                if found is None:
                    found = np.zeros((len(first), shape[-1], hidden.shape[-1]), hidden.dtype)
                found[some, :width] = np.asarray(hidden)
                bar.update(len({*some.tolist()}))
    return found[of_row].reshape(*shape, found.shape[-1])  # type: ignore[no-any-return]


def distinct(texts: Tokens) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " M"]]:
    """Returns a row of each different text, and which of these texts each row is.

    Args:
      texts: Tokens [M, T]; what stands where there is no token does not count.
    """
    real = [np.where(texts.mask, leaf, -1) for leaf in (texts.ids, texts.type_ids)]
    _, first, of_row = np.unique(
        np.concatenate(real, axis=1), axis=0, return_index=True, return_inverse=True
    )
    return first, of_row.reshape(-1)


def by_width(mask: Shaped[np.ndarray, "R T"]) -> dict[int, Int[np.ndarray, " some"]]:
    """Returns width -> the rows whose tokens all stand within it, each row once.

    Args:
      mask: True where there is a token; a row may have none.
    """
    ends = np.max(np.where(mask, np.arange(1, mask.shape[1] + 1), 1), axis=1)
    widths = np.minimum(-(-ends // _STEP) * _STEP, mask.shape[1])
    return {int(width): np.flatnonzero(widths == width) for width in np.unique(widths)}


def _enough(number: int, parts: int) -> int:
    """Returns the smallest size of a chunk that holds so many rows, a power of two of parts."""
    return parts * (1 << max(-(-number // parts) - 1, 0).bit_length())
