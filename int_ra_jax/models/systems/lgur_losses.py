"""LGUR's ranking: which negatives an anchor may draw, and the hinge against the one it drew.

Pure functions of arrays, like ``losses.py``: they know no model and no batch. All arithmetic is
float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from int_ra_jax.models import losses


def semi_hard_terms(
    scores: Float[Array, "B B"],
    negative: Bool[Array, "B B"],
    margin: float,
    key: PRNGKeyArray,
    *,
    include_hard: bool = False,
) -> Float[Array, "B"]:
    """Returns each anchor's hinge against one negative drawn from its window.

    The window of anchor i holds the columns n with S_ii - margin < S_in < S_ii: nearly as good as
    the positive, and not better. An anchor whose window is empty gives exactly 0 and no gradient.

    Args:
      scores: cosines, one anchor a row; column i of row i is its positive.
      negative: which pairs may be drawn.
      margin: cosine.
      key: for the draw.
      include_hard: whether negatives that beat the positive are in the window too.
    """
    positive = losses.positive_scores(scores)[:, None]
    window = negative & (scores > positive - margin)
    if not include_hard:
        window &= scores < positive
    # The largest of independent noises is a uniform draw among the columns of the window.
    noise = jnp.where(window, jax.random.gumbel(key, scores.shape), -jnp.inf)  # [B, B]
    drawn = jnp.argmax(noise, axis=1)[:, None]  # i32[B, 1]
    terms = jax.nn.relu(margin - positive + jnp.take_along_axis(scores, drawn, axis=1))
    return jnp.where(window.any(axis=1), terms[:, 0], 0.0)


def ranking_loss(
    scores: Float[Array, "B B"],
    negative: Bool[Array, "B B"],
    margin: float,
    key: PRNGKeyArray,
    *,
    include_hard: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the sum of the terms of both directions, and the share of anchors that have one.

    The second direction mines and reads the transposed scores alike. It is a sum, as in the
    reference: its weight beside a mean grows with the batch.

    Args:
      scores: cosines of two sets of B vectors; pairs stand on the diagonal.
      negative: which pairs may be drawn.
      margin: cosine.
      key: for the draws.
      include_hard: see ``semi_hard_terms``.
    """
    row_key, column_key = jax.random.split(key)
    rows = semi_hard_terms(scores, negative, margin, row_key, include_hard=include_hard)
    columns = semi_hard_terms(scores.T, negative.T, margin, column_key, include_hard=include_hard)
    terms = jnp.concatenate([rows, columns])
    return jnp.sum(terms), jnp.mean((terms > 0).astype(jnp.float32))


def different_pairs(
    sticker: Int[Array, "B"], intention: Int[Array, "B"], match_label: str
) -> Bool[Array, "B B"]:
    """Returns which two pairs of the batch are negatives of each other.

    Args:
      sticker: gallery index of each pair's sticker; one sticker is never its own negative.
      intention: class id of each pair's intention.
      match_label: "intent" spares pairs of the same intention too, which evaluation counts as
        correct; "sticker" spares pairs of the same sticker alone.
    """
    different = sticker[:, None] != sticker[None, :]
    if match_label == "intent":
        different &= intention[:, None] != intention[None, :]
    return different
