"""From encoded conversations and stickers to scores and ranked gallery rows, in bounded memory.

``score_in_chunks`` serves models that must look at every pair; ``streaming_top_k`` and
``rank_gallery`` those whose score is one dot product, over a gallery on the device or on disk. All
cut the work into chunks of one static shape, so that one compiled program serves any gallery. All
but ``rank_gallery`` are pure and may be called under ``jax.jit``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, PyTree

from int_ra_jax.evaluation.checks import check_ids, first_rows

# Pairs scored at a time: the fastest of those measured on two CPU cores (docs/performance.md).
QUERY_CHUNK = 256
STICKER_CHUNK = 8192

# In blocks of a multiple of so many rows a score does not depend on where in the block it stands.
_WHOLE_BLOCK = 256
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

    The last block is filled up by repeating real rows, because a row of zeros can give NaN in a
    model that normalises; what they score is cut off and never returned.

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

    For answers that are shown: figures are computed by ``metrics``, which breaks ties at random.
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
    _check_k(k, num_stickers)
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


def streaming_top_k(
    queries: Float[Array, "Q D"],
    gallery: Float[Array, "N D"],
    k: int,
    *,
    query_chunk: int = QUERY_CHUNK,
    sticker_chunk: int = STICKER_CHUNK,
) -> tuple[Float32[Array, "Q k"], Int32[Array, "Q k"]]:
    """Finds the k stickers with the largest dot product without ever holding a [Q, N] table.

    Equal to ``top_k(queries @ gallery.T, k)``, ties included. For a gallery on the device; one
    that is larger goes through ``rank_gallery``.

    Args:
      queries: [Q, D].
      gallery: [N, D].
      k: how many, in [1, N].
      query_chunk: queries scored at a time, > 0.
      sticker_chunk: gallery rows scored at a time, > 0.

    Returns:
      Scores f32[Q, k] in descending order and their gallery rows i32[Q, k].

    Raises:
      ValueError: if k is not in [1, N], or a chunk size is not positive.
    """
    num_stickers = gallery.shape[0]
    _check_k(k, num_stickers)
    blocks = _cut("sticker_chunk", gallery, num_stickers, sticker_chunk)
    size = blocks.shape[1]

    def add(best: _Best, block: tuple[jax.Array, jax.Array]) -> tuple[_Best, None]:
        first, rows = block
        return _add_block(best, None, queries, rows, None, first, num_stickers, query_chunk), None

    first = jnp.arange(blocks.shape[0], dtype=jnp.int32) * size
    best, _ = jax.lax.scan(add, _nothing(queries.shape[0], k), (first, blocks), reverse=True)
    return best.scores, best.rows


class Ranked(NamedTuple):
    """The best stickers of each query, and where its gold sticker stands.

    Attributes:
      scores: f32[Q, k], descending.
      rows: i32[Q, k], their gallery rows; equal scores by lower row.
      gold_rank: i32[Q], 1 is best; None where no gold was given.
    """

    scores: np.ndarray
    rows: np.ndarray
    gold_rank: np.ndarray | None


def rank_gallery(
    queries: Float[Array | np.ndarray, "Q D"],
    gallery: Any,
    k: int,
    *,
    gold: Int[np.ndarray, " Q"] | None = None,
    tie_seed: int = 0,
    sticker_chunk: int = STICKER_CHUNK,
) -> Ranked:
    """Ranks a gallery that need not fit into memory, reading one block of rows after the other.

    Runs on the host and holds two blocks at a time. Gold ranks are those of
    ``metrics.evaluate_rankings`` with the same ``tie_seed``: stickers that score as the gold one
    does stand before or after it by a random permutation of the gallery.

    Args:
      queries: f32[Q, D].
      gallery: f32[N, D] whose rows can be sliced and gathered: an array, or a memory-mapped file.
        Pages read from a mapped file count as resident until the kernel wants them back.
      k: how many, in [1, N].
      gold: gallery row of each query's gold sticker; adds their ranks.
      tie_seed: seed of that permutation.
      sticker_chunk: gallery rows of a block, > 0.

    Raises:
      ValueError: if k is not in [1, N], sticker_chunk is not positive, gold leaves the gallery, or
        the score of a gold sticker is NaN.
    """
    queries = jnp.asarray(queries)
    num_queries, num_stickers = queries.shape[0], gallery.shape[0]
    _check_k(k, num_stickers)
    _check_chunk("sticker_chunk", sticker_chunk)
    sticker_chunk = min(sticker_chunk, -(-num_stickers // _WHOLE_BLOCK) * _WHOLE_BLOCK)
    best, golds, positions = _nothing(num_queries, k), None, None
    if gold is not None:
        gold = check_ids("gold", gold, num_queries, num_stickers)
        # The place of each sticker among equal scores, as metrics draws it.
        positions = np.argsort(np.random.default_rng(tie_seed).permutation(num_stickers))
        own = _own_scores(queries, jnp.asarray(gallery[gold]), sticker_chunk)
        undefined = np.flatnonzero(np.isnan(own))
        if undefined.size:
            raise ValueError(f"The gold stickers of queries {first_rows(undefined)} score NaN.")
        golds = _Gold(own, jnp.asarray(positions[gold], jnp.int32))
        best = best._replace(ahead=jnp.zeros(num_queries, jnp.int32))
    for first in reversed(range(0, num_stickers, sticker_chunk)):
        # Read while the block behind it is still being scored, and never further ahead than that.
        rows = _filled(gallery[first : first + sticker_chunk], sticker_chunk)
        places = None
        if positions is not None:
            places = _filled(positions[first : first + sticker_chunk], sticker_chunk)
        jax.block_until_ready(best)
        best = _add_block_jit(best, golds, queries, rows, places, first, num_stickers, QUERY_CHUNK)
    rank = None if best.ahead is None else np.asarray(best.ahead) + 1
    return Ranked(np.asarray(best.scores), np.asarray(best.rows), rank)


class _Best(NamedTuple):
    """What a sweep over the gallery carries: [Q, k], [Q, k], and how many stand before the gold."""

    scores: jax.Array
    rows: jax.Array
    ahead: Any  # None where no gold was given


class _Gold(NamedTuple):
    """Score [Q] of each query's gold sticker, and its place [Q] among equal scores."""

    scores: jax.Array
    places: jax.Array


def _nothing(num_queries: int, k: int) -> _Best:
    """Returns filler that every real sticker replaces."""
    scores = jnp.full((num_queries, k), -jnp.inf, jnp.float32)
    return _Best(scores, jnp.full((num_queries, k), -1, jnp.int32), None)


def _add_block(
    best: _Best,
    gold: _Gold | None,
    queries: jax.Array,
    rows: jax.Array,
    places: Any,
    first: Any,
    num_stickers: int,
    query_chunk: int,
) -> _Best:
    """Merges the gallery's rows from ``first`` on into what was found behind them.

    The gallery is swept from its end: what is new then has the lower rows and stands first among
    equal scores, and the filler stands last, even behind scores of minus infinity.
    """
    num_queries, k = best.scores.shape
    size = rows.shape[0]
    real = first + jnp.arange(size, dtype=jnp.int32) < num_stickers

    def add(best: _Best, gold: _Gold | None, queries: jax.Array) -> _Best:
        scores = jnp.where(real, _dot(queries, rows), -jnp.inf)
        ahead = best.ahead
        if gold is not None:
            own, place = gold.scores[:, None], gold.places[:, None]
            before = (scores > own) | ((scores == own) & (places < place))
            # Rounded otherwise than in its block, a gold score could be outranked by itself.
            before &= real & (places != place)
            ahead = ahead + jnp.sum(before, axis=1, dtype=jnp.int32)
        values, index = top_k(scores, min(k, size))
        values = jnp.concatenate([values, best.scores], axis=1)
        index = jnp.concatenate([first + index, best.rows], axis=1)
        values, kept = jax.lax.top_k(values, k)
        return _Best(values, jnp.take_along_axis(index, kept, axis=1), ahead)

    parts = _cut("query_chunk", (best, gold, queries), num_queries, query_chunk)
    parts = jax.lax.map(lambda part: add(*part), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_queries], parts)


_add_block_jit = jax.jit(_add_block, static_argnums=(6, 7), donate_argnums=0)


@functools.partial(jax.jit, static_argnums=2)
def _own_scores(queries: jax.Array, gold_rows: jax.Array, size: int) -> jax.Array:
    """Scores every query against its own gold sticker, with the bits that a sweep gives the pair.

    The last bits of a product depend on the shape of its block, and a copy of the gold sticker
    must tie with it. Hence blocks of the sweep's shape, of which the diagonal is kept.
    """
    num_queries = queries.shape[0]
    parts = _cut("query_chunk", (queries, gold_rows), num_queries, QUERY_CHUNK)
    here = parts[0].shape[1]
    columns = jnp.arange(max(size, here)) % here
    scores = jax.lax.map(lambda part: jnp.diagonal(_dot(part[0], part[1][columns])), parts)
    return scores.reshape(-1)[:num_queries]


def _dot(queries: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.einsum(
        "qd,nd->qn", queries, rows, precision="highest", preferred_element_type=jnp.float32
    )


def _filled(rows: Any, size: int) -> np.ndarray:
    """Returns rows filled up with zeros to one static shape."""
    rows = np.asarray(rows)
    filler = ((0, size - len(rows)),) + ((0, 0),) * (rows.ndim - 1)
    return np.pad(rows, filler) if len(rows) < size else rows


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
        index = jnp.minimum(jnp.arange(-(-num_rows // size) * size), num_rows - 1)
        tree = jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0), tree)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), tree)


def _check_k(k: int, num_stickers: int) -> None:
    """Refuses more answers than there are stickers."""
    if not 1 <= k <= num_stickers:
        raise ValueError(
            f"k must be in [1, {num_stickers}] for a gallery of {num_stickers} stickers, got {k}."
        )


def _check_chunk(name: str, chunk: int) -> None:
    if chunk < 1:
        raise ValueError(f"{name} must be positive, got {chunk}.")
