"""Intervals and paired tests over queries.

The unit is the query: every function takes per-query values (see ``metrics``, ``per_query=True``)
of the same queries in the same order. With several seeds, average each query's values over the
seeds first, and report the spread between seeds separately. Queries that the evaluation left out
(NaN) must be left out by every system compared.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

# Bounds the resampled counts held at once to some 64 MB.
_CHUNK_ELEMENTS = 2**22
# Differences whose spread is below this share of their size are constant up to rounding.
_ROUNDING = 1e-12


def bootstrap_intervals(
    per_query: Mapping[str, ArrayLike],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, float]]:
    """Gives the percentile bootstrap interval of every metric's mean over queries.

    All metrics see the same resampled queries, so their intervals can be compared.

    Args:
      per_query: metric name -> [Q] values; a query that is NaN in every metric is left out.
      resamples: how many times Q queries are drawn with replacement.
      seed: seed of the draw.
      level: coverage, in (0, 1).

    Returns:
      metric name -> {"value": mean, "low", "high"}.

    Raises:
      ValueError: for columns of different length, NaN in some metrics only, or no queries.
    """
    if not per_query:
        raise ValueError("bootstrap_intervals needs at least one metric.")
    values = _scored_queries(per_query)
    means = _resampled_means(values, resamples, seed)
    low, high = _percentiles(means, level)
    return {
        name: {
            "value": float(values[:, column].mean()),
            "low": float(low[column]),
            "high": float(high[column]),
        }
        for column, name in enumerate(per_query)
    }


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> dict[str, float]:
    """Gives the interval of the mean difference a - b over resampled queries, and its p-value.

    The two-sided p is twice the smaller share of resampled differences on either side of zero,
    zero counted on both sides, with one added to both counts so that it is never 0.

    Args:
      a: [Q] values of the first system.
      b: [Q] values of the second, for the same queries.
      resamples: how many times Q queries are drawn with replacement.
      seed: seed of the draw.
      level: coverage of the interval, in (0, 1).

    Returns:
      {"difference", "low", "high", "p"}.

    Raises:
      ValueError: for different lengths, NaN in one system only, or no queries.
    """
    difference = _paired_difference(a, b)
    means = _resampled_means(difference[:, None], resamples, seed)
    low, high = _percentiles(means, level)
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return {
        "difference": float(difference.mean()),
        "low": float(low[0]),
        "high": float(high[0]),
        "p": min(1.0, 2.0 * (min(below, above) + 1) / (resamples + 1)),
    }


def paired_t(a: ArrayLike, b: ArrayLike) -> dict[str, float]:
    """Runs the two-sided paired t-test over queries.

    Optimistic for hit@N where few queries differ: add ``exact_sign_test``.

    Args:
      a: [Q] values of the first system.
      b: [Q] values of the second, for the same queries.

    Returns:
      {"difference", "t", "df", "p"}; identical systems give t = 0 and p = 1.

    Raises:
      ValueError: for fewer than two queries, different lengths, NaN in one system only, or a
        difference that is the same non-zero constant in every query, which has no t.
    """
    difference = _paired_difference(a, b)
    count = len(difference)
    if count < 2:
        raise ValueError(f"A paired t-test needs at least two queries, got {count}.")
    size = float(np.abs(difference).max())
    if size == 0:
        return {"difference": 0.0, "t": 0.0, "df": float(count - 1), "p": 1.0}
    if np.ptp(difference) <= _ROUNDING * size:
        raise ValueError(
            f"All {count} queries differ by the same {difference[0]:g}: the spread is 0 and t is "
            "undefined. Check that the two systems' files are not shifted copies."
        )
    result = stats.ttest_1samp(difference, 0.0)
    return {
        "difference": float(difference.mean()),
        "t": float(result.statistic),
        "df": float(count - 1),
        "p": float(result.pvalue),
    }


def exact_sign_test(a: ArrayLike, b: ArrayLike) -> dict[str, float]:
    """Tests whether a wins over b in as many queries as it loses, by the binomial distribution.

    For hit@N (0 or 1 per query) this is the exact McNemar test. Ties carry no information and are
    counted, not used.

    Args:
      a: [Q] values of the first system.
      b: [Q] values of the second, for the same queries.

    Returns:
      {"wins", "losses", "ties", "p"}, p two-sided; 1 where every query ties.

    Raises:
      ValueError: for different lengths, NaN in one system only, or no queries.
    """
    difference = _paired_difference(a, b)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    p = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    return {
        "wins": float(wins),
        "losses": float(losses),
        "ties": float(len(difference) - wins - losses),
        "p": float(p),
    }


def holm(p_values: ArrayLike) -> Float[np.ndarray, " M"]:
    """Adjusts p-values for the number of tests by Holm's step-down method.

    Args:
      p_values: [M] raw p-values of one family of tests, e.g. every system and metric of a table.

    Returns:
      f64[M] adjusted p-values in the given order, at most 1.

    Raises:
      ValueError: if a value is not in [0, 1].
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1 or not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError(f"p-values must be a list of numbers in [0, 1], got {raw.tolist()}.")
    from statsmodels.stats.multitest import multipletests  # seconds, and of a table alone

    return np.asarray(multipletests(raw, method="holm")[1])


def _scored_queries(columns: Mapping[str, ArrayLike]) -> Float[np.ndarray, "Q M"]:
    """Stacks columns of per-query values and drops the queries that were left out of all."""
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"Per-query values must be [Q] over the same queries, got {shapes}.")
    values = np.stack(list(arrays.values()), axis=1)
    missing = np.isnan(values)
    partial = np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1))
    if partial.size:
        raise ValueError(
            f"{partial.size} queries have a value in some of {list(arrays)} and NaN in others "
            f"(first rows {partial[:10].tolist()}): compare the same queries everywhere."
        )
    values = values[~missing.all(axis=1)]
    if not len(values):
        raise ValueError("There are no queries to compare.")
    return values


def _paired_difference(a: ArrayLike, b: ArrayLike) -> Float[np.ndarray, " Q"]:
    """Subtracts b from a, query by query."""
    values = _scored_queries({"a": a, "b": b})
    return values[:, 0] - values[:, 1]


def _resampled_means(
    values: Float[np.ndarray, "Q M"], resamples: int, seed: int
) -> Float[np.ndarray, "R M"]:
    """Draws queries with replacement; how often each was drawn gives all means as one product."""
    if resamples < 1:
        raise ValueError(f"resamples must be positive, got {resamples}.")
    count = len(values)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_ELEMENTS // count)
    means = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means.append(times @ values / count)
    return np.concatenate(means)


def _percentiles(means: Float[np.ndarray, "R M"], level: float) -> Float[np.ndarray, "2 M"]:
    """Cuts off (1 - level) / 2 of the resampled means on either side."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    tail = 50.0 * (1.0 - level)
    return np.percentile(means, [tail, 100.0 - tail], axis=0)
