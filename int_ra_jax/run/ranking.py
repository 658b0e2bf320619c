"""From encoded conversations and stickers to scores and ranked gallery rows, in bounded memory.

``score_in_chunks`` cuts the work into chunks of one static shape, so that one compiled program
serves any gallery; ``top_k`` finds the best of a row of scores, of a million as well. Both are pure
and may be called under ``jax.jit``.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, PyTree

from int_ra_jax.run.row_chunks import chunk_rows

# Selecting in two steps pays from groups of this width on.
_MIN_GROUP = 8
_Encoded = TypeVar("_Encoded")


def score_in_chunks(
    score_fn: Callable[[Any, Any], Float[Array, "q n"]],
    contexts: PyTree[Array],
    stickers: PyTree[Array],
    *,
    query_chunk: int = 64,
    sticker_chunk: int = 256,
) -> Float32[Array, "Q N"]:
    """Scores every conversation against every sticker, one block of pairs at a time.

    The last block is filled up by repeating real rows; what they score is cut off and never
    returned.

    Args:
      score_fn: (contexts of one chunk, stickers of one chunk) -> f[q, n]. Each pair's score must
        not depend on the other rows of the chunk.
      contexts: pytree, every leaf [Q, ...].
      stickers: pytree, every leaf [N, ...].
      query_chunk: rows of contexts per block, > 0.
      sticker_chunk: rows of stickers per block, > 0.

    Returns:
      f32[Q, N].

    Raises:
      ValueError: if leaves disagree on their leading axis, an input has no rows, or a chunk size
        is not positive.
    """
    num_queries = _num_rows("contexts", contexts)
    num_stickers = _num_rows("stickers", stickers)
    query_blocks = _cut("query_chunk", contexts, num_queries, query_chunk)
    sticker_blocks = _cut("sticker_chunk", stickers, num_stickers, sticker_chunk)

    def score_row(context: Any) -> jax.Array:
        return jax.lax.map(
            lambda block: score_fn(context, block).astype(jnp.float32), sticker_blocks
        )

    blocks = jax.lax.map(score_row, query_blocks)  # [Q/q, N/n, q, n]
    rows, columns = blocks.shape[0] * blocks.shape[2], blocks.shape[1] * blocks.shape[3]
    scores = blocks.transpose(0, 2, 1, 3).reshape(rows, columns)
    return scores[:num_queries, :num_stickers]


def top_k(
    scores: Float[Array, "*B N"], k: int
) -> tuple[Float[Array, "*B k"], Int32[Array, "*B k"]]:
    """Picks the k best gallery rows of each query, best first; equal scores by lower index.

    For answers that are shown: figures are those of ``metrics``, the mean over all orders of ties.
    NaN ranks last, as minus infinity, since a compiled function cannot raise.

    Args:
      scores: [..., N]; higher is better.
      k: how many, in [1, N].

    Returns:
      Scores [..., k] in descending order and their gallery rows i32[..., k].

    Raises:
      ValueError: if k is not in [1, N].
    """
    num_stickers = scores.shape[-1]
    if not 1 <= k <= num_stickers:
        raise ValueError(
            f"k must be in [1, {num_stickers}] for a gallery of {num_stickers} stickers, got {k}."
        )
    # XLA sorts -0.0 below 0.0, and NaN above everything.
    clean = jnp.where(scores == 0, 0.0, jnp.where(jnp.isnan(scores), -jnp.inf, scores))
    clean = clean.astype(scores.dtype)
    width = 2 ** round(math.log2(num_stickers / k) / 2)
    if width < _MIN_GROUP:
        values, index = jax.lax.top_k(clean, k)
        return values, index.astype(jnp.int32)
    # XLA's selection costs far more a column than a maximum does. So the columns are cut into
    # groups, and only the k groups with the largest maxima are searched. Nothing is missed: in
    # the order (score, then lower index) a group outside them has k better columns before its own
    # best. Equal maxima and candidates stay in column order, which decides between equal scores.
    filler = -num_stickers % width
    if filler:
        clean = jnp.pad(
            clean, [(0, 0)] * (clean.ndim - 1) + [(0, filler)], constant_values=-jnp.inf
        )
    groups = clean.reshape(*clean.shape[:-1], -1, width)
    _, best = jax.lax.top_k(groups.max(-1), k)
    best = jnp.sort(best, axis=-1)
    candidates = jnp.take_along_axis(groups, best[..., None], axis=-2, mode="clip")
    values, place = jax.lax.top_k(candidates.reshape(*candidates.shape[:-2], -1), k)
    group = jnp.take_along_axis(best, place // width, axis=-1, mode="clip")
    return values, (group * width + place % width).astype(jnp.int32)


def _num_rows(name: str, tree: PyTree[Array]) -> int:
    """Reads the leading axis that all leaves share."""
    shapes = {
        jax.tree_util.keystr(path) or "array": jnp.shape(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    sizes = {shape[:1] for shape in shapes.values()}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(
            f"Every leaf of {name} needs the same, non-empty leading axis; got shapes {shapes}."
        )
    return sizes.pop()[0]


def _cut(name: str, tree: _Encoded, num_rows: int, chunk: int) -> _Encoded:
    """Reshapes every leaf [R, ...] to [blocks, chunk, ...], filling up with the last row."""
    _check_chunk(name, chunk)
    size = min(chunk, num_rows)
    if num_rows % size:
        rows = chunk_rows(num_rows, size)
        return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), tree)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), tree)


def _check_chunk(name: str, chunk: int) -> None:
    if chunk < 1:
        raise ValueError(f"{name} must be positive, got {chunk}.")
