"""Retrieval metrics over a full gallery, and what chance would get in each.

NumPy only, so that the figures do not depend on an accelerator: ``ranking`` produces the scores,
``relevance`` says which stickers are right answers, ``evaluate_rankings`` turns both into figures,
and ``chance_metrics`` gives the row that a random ranking would get. A ``Metric`` in METRICS is all
that either knows of one.

``hit@N`` is what the paper's table calls P@N: it asks whether any of the first N stickers is right
and rises with N. ``precision@N`` is the share of the first N that is right. Both are reported.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from int_ra_jax.evaluation.checks import (
    OnEmpty,
    check_ids,
    check_relevant,
    check_tables,
    row_blocks,
    scorable_queries,
)

CUTOFFS: tuple[int, ...] = (1, 3, 5)

_RECALL_PERCENT = np.arange(101)


@dataclass(frozen=True)
class Ranking:
    """What a metric reads of ranked queries.

    Attributes:
      relevant: whether each sticker is right, the best-ranked first.
      found: how many of the first 1, 2, ..., N stickers are right.
      gold_rank: rank of the sticker that was sent, 1 is best; read by gold metrics alone.
    """

    relevant: Bool[np.ndarray, "Q N"]
    found: Int[np.ndarray, "Q N"]
    gold_rank: Int[np.ndarray, " Q"]

    @property
    def count(self) -> Int[np.ndarray, " Q"]:
        """How many stickers are right; 1 for a query without any, which is left out later."""
        return np.maximum(self.found[:, -1], 1)


@dataclass(frozen=True)
class Chance:
    """What an expectation under a random ranking reads.

    Attributes:
      count: how many stickers are right.
      stickers: N, the size of the gallery.
      harmonic: the harmonic numbers H_0 to H_N.
    """

    count: Float[np.ndarray, " Q"]
    stickers: int
    harmonic: Float[np.ndarray, " N1"]


@dataclass(frozen=True)
class Metric:
    """One metric: all of it. A name in ``gold_`` is about the sticker that was sent alone.

    Attributes:
      name: of a query's value.
      value: each query's value, [Q].
      chance: the exact expectation of it, [Q] or one number for all.
      mean: name of the mean over queries, where it has one of its own.
    """

    name: str
    value: Callable[[Ranking], np.ndarray]
    chance: Callable[[Chance], ArrayLike]
    mean: str = ""


def _at(n: int) -> tuple[Metric, ...]:
    """Returns the metrics of the first n stickers, all of them in a smaller gallery."""

    def top(ranking: Ranking) -> np.ndarray:
        return ranking.found[:, :n][:, -1]

    def hit(chance: Chance) -> np.ndarray:
        drawn = np.arange(min(n, chance.stickers))
        wrong = chance.stickers - chance.count[:, None] - drawn
        return 1.0 - np.clip(wrong / (chance.stickers - drawn), 0, 1).prod(axis=1)

    return (
        Metric(f"hit@{n}", lambda r: top(r) > 0, hit),
        Metric(
            f"precision@{n}",
            lambda r: top(r) / min(n, r.found.shape[1]),
            lambda c: c.count / c.stickers,
        ),
        Metric(
            f"recall@{n}", lambda r: top(r) / r.count, lambda c: min(n, c.stickers) / c.stickers
        ),
    )


def _gold_at(n: int) -> Metric:
    return Metric(
        f"gold_hit@{n}", lambda r: r.gold_rank <= n, lambda c: min(n, c.stickers) / c.stickers
    )


def _average_precision(ranking: Ranking) -> np.ndarray:
    """Takes the precision at each right answer, over the full gallery, divided by all of them."""
    precision = ranking.found / np.arange(1, ranking.found.shape[1] + 1)
    return np.asarray((precision * ranking.relevant).sum(axis=1) / ranking.count)


def _chance_of_average_precision(chance: Chance) -> np.ndarray:
    others = (chance.count - 1) / max(chance.stickers - 1, 1)
    h_all = chance.harmonic[chance.stickers]
    return np.asarray((h_all + others * (chance.stickers - h_all)) / chance.stickers)


def _reciprocal_rank(ranking: Ranking) -> np.ndarray:
    return 1.0 / (ranking.relevant.argmax(axis=1) + 1)


def _chance_of_reciprocal_rank(chance: Chance) -> np.ndarray:
    h_below = chance.harmonic[chance.count.astype(np.int64) - 1]
    left = chance.harmonic[chance.stickers] - h_below
    return np.asarray(chance.count * left / (chance.stickers - chance.count + 1))


# With R of N stickers relevant and H_n the n-th harmonic number, chance is: hit@n
# 1 - C(N-R, n) / C(N, n), precision@n R / N, recall@n n / N, the average precision
# (H_N + (N - H_N) (R-1) / (N-1)) / N and the reciprocal rank R (H_N - H_{R-1}) / (N-R+1).
METRICS: tuple[Metric, ...] = (
    *(metric for cutoff in CUTOFFS for metric in _at(cutoff)),
    Metric("ap", _average_precision, _chance_of_average_precision, "mAP"),
    Metric("reciprocal_rank", _reciprocal_rank, _chance_of_reciprocal_rank, "mrr"),
    Metric("gold_rank", lambda r: r.gold_rank, lambda c: (c.stickers + 1) / 2),
    *map(_gold_at, CUTOFFS),
)
# Name of a query's value -> name of its mean.
MEANS: dict[str, str] = {metric.name: metric.mean or metric.name for metric in METRICS}


@dataclass(frozen=True)
class PrecisionRecall:
    """A precision-recall curve on the recall levels 0, 0.01, ..., 1.

    Attributes:
      recall: f64[101].
      precision: f64[101].
      auc: area under the curve, in [0, 1].
      prevalence: share of relevant pairs; the flat line that a random ranking approaches.
    """

    recall: np.ndarray
    precision: np.ndarray
    auc: float
    prevalence: float


def evaluate_rankings(
    scores: ArrayLike,
    relevant: ArrayLike,
    *,
    gold: ArrayLike | None = None,
    tie_seed: int = 0,
    per_query: bool = False,
    on_empty: OnEmpty = "error",
) -> dict[str, Any]:
    """Ranks the whole gallery for every query and averages the retrieval metrics over queries.

    Equal scores are ordered by one seeded random permutation of the gallery. By index, a model
    that answers a constant would look good or bad by the accident of how the gallery is sorted.

    Args:
      scores: [Q, N] real; higher is better. Only the order within a row matters.
      relevant: [Q, N] bool (or 0/1); which stickers count as right answers.
      gold: [Q] int, gallery row of the sticker that was really sent; adds the gold_* figures.
      tie_seed: seed of the permutation that orders equal scores.
      per_query: adds the values of each query, for intervals and paired tests.
      on_empty: what to do with a query that has no relevant sticker: raise, or leave it out of
        every mean.

    Returns:
      The mean of every metric (n is cut to N in a smaller gallery) under its mean's name;
      ``queries`` (int, how many were averaged) and ``queries_without_relevant`` (int). With gold:
      the gold metrics, too, and ``gold_rank_median``. With per_query: ``per_query``, a dict of
      f64[Q] by the metrics' names; rows that were left out are NaN.

    Raises:
      ValueError: if shapes disagree, a score is NaN, gold leaves the gallery, or a query has no
        relevant sticker and on_empty is "error". Every problem is named at once.
    """
    score_table, relevance_table = check_tables(scores, relevant)
    num_queries, num_stickers = score_table.shape
    gold_rows = None if gold is None else check_ids("gold", gold, num_queries, num_stickers)
    kept = scorable_queries(relevance_table, on_empty)
    values = _blank(num_queries, gold_rows is not None)
    for rows, order in _ranked_chunks(score_table, tie_seed):
        relevant_block = np.take_along_axis(relevance_table[rows], order, axis=1)
        gold_block = order[:, 0] if gold_rows is None else gold_rows[rows]
        gold_rank = (order == gold_block[:, None]).argmax(axis=1) + 1
        ranking = Ranking(relevant_block, np.cumsum(relevant_block, axis=1), gold_rank)
        for metric, column in values.items():
            column[rows] = metric.value(ranking)
    return _summarise(values, kept, per_query)


def chance_metrics(
    relevant: ArrayLike,
    *,
    with_gold: bool = False,
    per_query: bool = False,
    on_empty: OnEmpty = "error",
) -> dict[str, Any]:
    """Gives the exact expectation of every metric under a uniformly random ranking.

    Args:
      relevant: [Q, N] bool (or 0/1).
      with_gold: adds the gold_* figures of a sticker placed at random.
      per_query: adds the expectation of each query, for intervals beside those of a model.
      on_empty: as in evaluate_rankings.

    Returns:
      The keys of evaluate_rankings, with expectations as values.

    Raises:
      ValueError: if relevant is not a [Q, N] table of truth values, or a query has no relevant
        sticker and on_empty is "error".
    """
    table = check_relevant(relevant)
    num_queries, num_stickers = table.shape
    kept = scorable_queries(table, on_empty)
    count = np.where(kept, table.sum(axis=1), 1).astype(np.float64)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, num_stickers + 1))])
    values = _blank(num_queries, with_gold)
    for metric, column in values.items():
        column[:] = metric.chance(Chance(count, num_stickers, harmonic))
    return _summarise(values, kept, per_query)


def macro_pr_curve(
    scores: ArrayLike,
    relevant: ArrayLike,
    *,
    tie_seed: int = 0,
    on_empty: OnEmpty = "error",
) -> PrecisionRecall:
    """Averages the interpolated precision of each query at fixed recall levels.

    The default curve: it depends on the order within a query only, so models whose scores are on
    different scales can share a plot. The area is the trapezoid of the 101 points; it is an
    interpolated figure, above mAP, and must not be reported as mAP.

    Args:
      scores: [Q, N] real; higher is better.
      relevant: [Q, N] bool (or 0/1).
      tie_seed: as in evaluate_rankings.
      on_empty: as in evaluate_rankings.

    Returns:
      The curve; precision at recall r is the mean over queries of the best precision reached at
      any recall >= r.

    Raises:
      ValueError: as evaluate_rankings.
    """
    score_table, relevance_table = check_tables(scores, relevant)
    kept = scorable_queries(relevance_table, on_empty)
    total = np.zeros(len(_RECALL_PERCENT))
    for rows, order in _ranked_chunks(score_table, tie_seed):
        for ranked in np.take_along_axis(relevance_table[rows], order, axis=1):
            if not ranked.any():
                continue
            ranks = np.flatnonzero(ranked) + 1
            found = np.arange(1, len(ranks) + 1)
            envelope = np.maximum.accumulate((found / ranks)[::-1])[::-1]
            # ceil(percent * R / 100) in integers: how many must be found to reach the level.
            needed = np.maximum(-(-_RECALL_PERCENT * len(ranks) // 100), 1)
            total += envelope[needed - 1]
    recall, precision = _RECALL_PERCENT / 100, total / kept.sum()
    auc = float(np.trapezoid(precision, recall))
    return PrecisionRecall(recall, precision, auc, float(relevance_table[kept].mean()))


def _ranked_chunks(
    scores: Float[np.ndarray, "Q N"], tie_seed: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows, gallery indices from best to worst, [rows, N])."""
    tie_order = np.random.default_rng(tie_seed).permutation(scores.shape[1])
    for start, block in row_blocks(scores):
        position = np.argsort(-block[:, tie_order], axis=1, kind="stable")
        yield slice(start, start + len(block)), tie_order[position]


def _blank(queries: int, gold: bool) -> dict[Metric, Float[np.ndarray, " Q"]]:
    """Returns a column of NaN for each metric that can be told."""
    told = [metric for metric in METRICS if gold or not metric.name.startswith("gold_")]
    return {metric: np.full(queries, np.nan) for metric in told}


def _summarise(
    values: dict[Metric, Float[np.ndarray, " Q"]], kept: Bool[np.ndarray, " Q"], per_query: bool
) -> dict[str, Any]:
    """Averages per-query values over the queries that were kept, and blanks the others."""
    named = {metric.name: np.where(kept, column, np.nan) for metric, column in values.items()}
    result: dict[str, Any] = {
        MEANS[name]: float(column[kept].mean()) for name, column in named.items()
    }
    if "gold_rank" in named:
        result["gold_rank_median"] = float(np.median(named["gold_rank"][kept]))
    result["queries"] = int(kept.sum())
    result["queries_without_relevant"] = int((~kept).sum())
    if per_query:
        result["per_query"] = named
    return result
