"""Intervals and paired tests over queries, or over clusters of queries that belong together.

Every function takes per-query values (see ``metrics``, ``per_query=True``) of the same queries in
the same order. With several seeds, average each query's values over the seeds first, and report the
spread between seeds separately. Queries that the evaluation left out (NaN) must be left out by
every system compared.

``clusters`` names, for each query, what was sampled from the world as one: replies to one post are
alike, and a hundred of them do not tell as much as replies to a hundred posts. Whole clusters are
then drawn, each with all its queries, and a mean is the sum over the queries drawn by their number
(a ratio estimator: large clusters keep their weight). Without it each query is a cluster.
"""

from collections.abc import Hashable, Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import stats

# Bounds the resampled counts held at once to some 64 MB.
_CHUNK_ELEMENTS = 2**22
# Differences whose spread is below this share of their size are constant up to rounding.
_ROUNDING = 1e-12

Clusters = Iterable[Hashable]  # [Q], the cluster of each query; any names


def bootstrap_intervals(
    per_query: Mapping[str, ArrayLike],
    *,
    clusters: Clusters | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, float]]:
    """Gives the percentile bootstrap interval of every metric's mean over queries.

    All metrics see the same resampled clusters, so their intervals can be compared.

    Args:
      per_query: metric name -> [Q] values; a query that is NaN in every metric is left out.
      clusters: [Q] of what is drawn as one (see the module); None: each query by itself.
      resamples: how many times as many clusters as there are are drawn with replacement.
      seed: seed of the draw.
      level: coverage, in (0, 1).

    Returns:
      metric name -> {"value": mean, "low", "high"}.

    Raises:
      ValueError: for columns of different length, NaN in some metrics only, or no queries.
    """
    if not per_query:
        raise ValueError("bootstrap_intervals needs at least one metric.")
    values, groups = _scored_queries(per_query, clusters)
    means = _resampled_means(values, groups, resamples, seed)
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
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Clusters | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, float]:
    """Gives the interval of the mean difference a - b over resampled clusters, and its p-value.

    The two-sided p is twice the smaller share of resampled differences on either side of zero,
    zero counted on both sides, with one added to both counts so that it is never 0.

    Args:
      a: [Q] values of the first system.
      b: [Q] values of the second, for the same queries.
      clusters: as in bootstrap_intervals.
      resamples: as in bootstrap_intervals.
      seed: seed of the draw.
      level: coverage of the interval, in (0, 1).

    Returns:
      {"difference", "low", "high", "p"}.

    Raises:
      ValueError: for different lengths, NaN in one system only, or no queries.
    """
    difference, groups = _paired_difference(a, b, clusters)
    means = _resampled_means(difference[:, None], groups, resamples, seed)
    low, high = _percentiles(means, level)
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return {
        "difference": float(difference.mean()),
        "low": float(low[0]),
        "high": float(high[0]),
        "p": min(1.0, 2.0 * (min(below, above) + 1) / (resamples + 1)),
    }


def ratio_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Clusters | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, float]:
    """Gives the interval of mean(a) / mean(b), both sides resampled together.

    Dividing by b as if it were known would give an interval that is too narrow where b varies, and
    too wide where a and b rise and fall together.

    Args:
      a: [Q] values of the first system, none negative.
      b: [Q] values of the second, for the same queries, none negative.
      clusters: as in bootstrap_intervals.
      resamples: as in bootstrap_intervals.
      seed: seed of the draw.
      level: coverage of the interval, in (0, 1).

    Returns:
      {"ratio", "low", "high"}; the ends are resampled ratios, so that they turn into each other
      where a and b change places. A draw in which b is 0 counts as infinite: ``high`` is inf
      where there are many.

    Raises:
      ValueError: for different lengths, NaN in one system only, no queries, a negative value, or
        where all of b is 0.
    """
    values, groups = _scored_queries({"a": a, "b": b}, clusters)
    if (values < 0).any():
        raise ValueError("A ratio of means needs values that are not negative.")
    above, below = values.mean(axis=0)
    if below == 0:
        raise ValueError("All values of b are 0, so that there is no ratio to them.")
    means = _resampled_means(values, groups, resamples, seed)
    nothing = means[:, 1] == 0
    ratios = np.where(nothing, np.inf, means[:, 0] / np.where(nothing, 1.0, means[:, 1]))
    tail = _tail(level)
    return {
        "ratio": float(above / below),
        "low": float(np.percentile(ratios, tail, method="lower")),
        "high": float(np.percentile(ratios, 100.0 - tail, method="higher")),
    }


def paired_t(a: ArrayLike, b: ArrayLike, *, clusters: Clusters | None = None) -> dict[str, float]:
    """Runs the two-sided paired t-test over queries.

    Optimistic for hit@N where few queries differ: add ``exact_sign_test``. With clusters the
    standard error is the cluster-robust one (statsmodels, with its correction for few clusters),
    and t has one degree of freedom fewer than there are clusters; one query a cluster is the
    ordinary test.

    Args:
      a: [Q] values of the first system.
      b: [Q] values of the second, for the same queries.
      clusters: as in bootstrap_intervals.

    Returns:
      {"difference", "t", "df", "p"}; identical systems give t = 0 and p = 1.

    Raises:
      ValueError: for fewer than two queries or clusters, different lengths, NaN in one system
        only, or a difference that is the same non-zero constant in every query (in every
        cluster's mean, with clusters), which has no t.
    """
    difference, groups = _paired_difference(a, b, clusters)
    what, count = "queries", len(difference)
    if groups is not None:
        what, count = "clusters", int(groups.max()) + 1
    if count < 2:
        raise ValueError(f"A paired t-test needs at least two {what}, got {count}.")
    size = float(np.abs(difference).max())
    if size == 0:
        return {"difference": 0.0, "t": 0.0, "df": float(count - 1), "p": 1.0}
    if groups is None:
        spread = float(np.ptp(difference))
    else:
        residual = np.bincount(groups, difference - difference.mean())
        spread = float(np.abs(residual).max()) / len(difference)
    if spread <= _ROUNDING * size:
        raise ValueError(
            f"All {count} {what} differ by the same {difference.mean():g}: the spread is 0 and t "
            "is undefined. Check that the two systems' files are not shifted copies."
        )
    if groups is None:
        plain = stats.ttest_1samp(difference, 0.0)
        t, p = float(plain.statistic), float(plain.pvalue)
    else:
        t, p = _clustered_t(difference, groups)
    return {"difference": float(difference.mean()), "t": t, "df": float(count - 1), "p": p}


def exact_sign_test(
    a: ArrayLike, b: ArrayLike, *, clusters: Clusters | None = None
) -> dict[str, float]:
    """Tests whether a wins over b in as many queries as it loses, by the binomial distribution.

    For hit@N (0 or 1 per query) this is the exact McNemar test. Ties carry no information and are
    counted, not used. With clusters a cluster wins or loses by its mean difference, once, however
    many queries it has: queries of one post are no independent coins.

    Args:
      a: [Q] values of the first system.
      b: [Q] values of the second, for the same queries.
      clusters: as in bootstrap_intervals.

    Returns:
      {"wins", "losses", "ties", "p"}, in queries or clusters; p two-sided, 1 where all tie.

    Raises:
      ValueError: for different lengths, NaN in one system only, or no queries.
    """
    difference, groups = _paired_difference(a, b, clusters)
    if groups is not None:
        size = np.bincount(groups, np.abs(difference))
        total = np.bincount(groups, difference)
        difference = np.where(np.abs(total) <= _ROUNDING * size, 0.0, total)
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


def _scored_queries(
    columns: Mapping[str, ArrayLike], clusters: Clusters | None
) -> tuple[Float[np.ndarray, "Q M"], Int[np.ndarray, " Q"] | None]:
    """Stacks columns of per-query values and drops the queries that were left out of all.

    Clusters are numbered as they come, so that one query each leaves every draw as it is.
    """
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"Per-query values must be [Q] over the same queries, got {shapes}.")
    values = np.stack(list(arrays.values()), axis=1)
    names = None if clusters is None else list(clusters)
    if names is not None and len(names) != len(values):
        raise ValueError(f"{len(values)} queries but {len(names)} clusters: give one for each.")
    missing = np.isnan(values)
    partial = np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1))
    if partial.size:
        raise ValueError(
            f"{partial.size} queries have a value in some of {list(arrays)} and NaN in others "
            f"(first rows {partial[:10].tolist()}): compare the same queries everywhere."
        )
    kept = ~missing.all(axis=1)
    if not kept.any():
        raise ValueError("There are no queries to compare.")
    if names is None:
        return values[kept], None
    number: dict[Hashable, int] = {}
    groups = [number.setdefault(names[row], len(number)) for row in np.flatnonzero(kept)]
    return values[kept], np.array(groups)


def _paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Clusters | None
) -> tuple[Float[np.ndarray, " Q"], Int[np.ndarray, " Q"] | None]:
    """Subtracts b from a, query by query."""
    values, groups = _scored_queries({"a": a, "b": b}, clusters)
    return values[:, 0] - values[:, 1], groups


def _clustered_t(
    difference: Float[np.ndarray, " Q"], groups: Int[np.ndarray, " Q"]
) -> tuple[float, float]:
    """Regresses the differences on a constant, with errors that may agree within a cluster."""
    from statsmodels.regression.linear_model import OLS  # seconds, and of a table alone

    fitted = OLS(difference, np.ones(len(difference))).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    return float(fitted.tvalues[0]), float(fitted.pvalues[0])


def _resampled_means(
    values: Float[np.ndarray, "Q M"],
    groups: Int[np.ndarray, " Q"] | None,
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "R M"]:
    """Draws clusters with replacement; how often each was drawn gives all means as one product."""
    if resamples < 1:
        raise ValueError(f"resamples must be positive, got {resamples}.")
    sums, sizes = values, np.ones(len(values))
    if groups is not None:
        sizes = np.bincount(groups).astype(np.float64)
        sums = np.stack([np.bincount(groups, column) for column in values.T], axis=1)
    count = len(sums)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_ELEMENTS // count)
    means = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means.append(times @ sums / (times @ sizes)[:, None])
    return np.concatenate(means)


def _percentiles(means: Float[np.ndarray, "R M"], level: float) -> Float[np.ndarray, "2 M"]:
    """Cuts off (1 - level) / 2 of the resampled means on either side."""
    tail = _tail(level)
    return np.percentile(means, [tail, 100.0 - tail], axis=0)


def _tail(level: float) -> float:
    """Returns what is cut off on either side, in per cent."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    return 50.0 * (1.0 - level)
