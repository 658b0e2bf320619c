"""How probable a system finds the sticker that was sent: cross-entropy after one temperature.

Scores of different systems are on different scales, which ranking does not see. A softmax of
``scale * score`` over the gallery makes probabilities of them; the one scale a system is fitted on
the validation split, so that its cross-entropy judges what it knows and not the scale it happens
to have. Where scores are log-probabilities already, the scale is close to 1.

Source: temperature scaling, Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from int_ra_jax.evaluation.checks import check_ids, first_rows, row_blocks

# Name of a query's value, and of its mean: the cross-entropy of the sticker that was sent, in nats.
PER_QUERY, MEAN = "gold_nll", "gold_cross_entropy"
# Cosines want scales of some 10 to 100, distances of narrow networks more.
_SCALES = (1e-4, 1e5)


def fit_scale(scores: ArrayLike, gold: ArrayLike) -> float:
    """Returns the inverse temperature under which the gold stickers are most probable.

    The loss is convex in the scale, hence with a single minimum in its logarithm as well.

    Args:
      scores: [Q, N] finite; of the validation split.
      gold: [Q] int, gallery row of the sticker that was sent.

    Returns:
      The scale, in [0.0001, 100000]; 1 where every row of scores is constant, so that all scales
      are alike.

    Raises:
      ValueError: as ``gold_nll``.
    """
    table, rows = _checked(scores, gold)
    if (np.ptp(table, axis=1) == 0).all():
        return 1.0

    def loss(log_scale: float) -> float:
        return float(_nll(table, rows, math.exp(log_scale)).mean())

    bounds = (math.log(_SCALES[0]), math.log(_SCALES[1]))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def gold_nll(scores: ArrayLike, gold: ArrayLike, scale: float) -> Float[np.ndarray, " Q"]:
    """Returns minus the log-probability of each query's gold sticker, in nats.

    Args:
      scores: [Q, N] finite; higher is better.
      gold: [Q] int, gallery row of the sticker that was sent.
      scale: the inverse temperature.

    Returns:
      f64[Q], 0 or more; ln N where all scores of a query are equal.

    Raises:
      ValueError: for scores that are not a finite [Q, N] table, or gold rows out of range.
    """
    return _nll(*_checked(scores, gold), scale)


def _checked(scores: ArrayLike, gold: ArrayLike) -> tuple[np.ndarray, Int[np.ndarray, " Q"]]:
    table = np.asarray(scores)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"scores must be a non-empty [Q, N] table, got shape {table.shape}.")
    broken = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if broken.size:
        raise ValueError(
            f"{broken.size} rows of scores are not finite (rows {first_rows(broken)}): they have "
            "no cross-entropy. Give stickers that were never used a small probability, not zero."
        )
    return table, check_ids("gold", gold, len(table), table.shape[1])


def _nll(scores: np.ndarray, gold: Int[np.ndarray, " Q"], scale: float) -> Float[np.ndarray, " Q"]:
    found = np.empty(len(scores))
    for start, block in row_blocks(scores):
        logits = scale * block.astype(np.float64)
        rows = slice(start, start + len(block))
        at_gold = np.take_along_axis(logits, gold[rows, None], axis=1)[:, 0]
        # Rounding alone could make it negative.
        found[rows] = np.maximum(logsumexp(logits, axis=1) - at_gold, 0.0)
    return found
