"""Retrieval metrics over a full gallery, and what chance would get in each.

NumPy only, so that the figures do not depend on an accelerator: ``ranking`` produces the scores,
``relevance`` says which stickers are right answers, ``evaluate_rankings`` turns both into figures,
and ``chance_metrics`` gives the row that a random ranking would get. A ``Metric`` in METRICS is all
that either knows of one.

Equal scores have no order. Every value is the exact expectation over all orders of tied stickers,
each as likely as any other, in closed form; nothing is drawn. A row that answers a constant gets
what chance gets. Without ties the values are the plain definitions, to the bit.
Source: McSherry and Najork, Computing information retrieval performance measures efficiently in the
presence of tied scores (ECIR 2008).

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

CUTOFFS: tuple[int, ...] = (1, 3, 5, 10)

_RECALL_PERCENT = np.arange(101)


@dataclass(frozen=True)
class Ranking:
    """What a metric reads of ranked queries: for each place, the group of tied stickers it is in.

    A sticker without ties is a group of one. Place p from 0, the best-ranked first.

    Attributes:
      start: how many stickers stand before the group.
      size: how many stickers the group has.
      right: how many of them are right.
      before: how many right ones stand before the group.
      gold_start: how many stickers score higher than the one that was sent; read by gold metrics
        alone, as the next.
      gold_size: how many score the same, itself among them.
    """

    start: Int[np.ndarray, "Q N"]
    size: Int[np.ndarray, "Q N"]
    right: Int[np.ndarray, "Q N"]
    before: Int[np.ndarray, "Q N"]
    gold_start: Int[np.ndarray, " Q"]
    gold_size: Int[np.ndarray, " Q"]

    @property
    def count(self) -> Int[np.ndarray, " Q"]:
        """How many stickers are right; 1 for a query without any, which is left out later."""
        return np.maximum(self.before[:, -1] + self.right[:, -1], 1)

    @property
    def stickers(self) -> int:
        """N, the size of the gallery."""
        return self.start.shape[1]


@dataclass(frozen=True)
class Metric:
    """One metric: all of it. A name in ``gold_`` is about the sticker that was sent alone.

    Attributes:
      name: of a query's value.
      value: each query's value, [Q]; its expectation where scores are tied.
      mean: name of the mean over queries, where it has one of its own.
    """

    name: str
    value: Callable[[Ranking], np.ndarray]
    mean: str = ""


def _at(n: int) -> tuple[Metric, ...]:
    """Returns the metrics of the first n stickers, all of them in a smaller gallery."""

    def found(ranking: Ranking) -> np.ndarray:
        last = min(n, ranking.stickers) - 1
        start, size, right, before = _group(ranking, last)
        return np.asarray(before + (last + 1 - start) * right / size)

    def hit(ranking: Ranking) -> np.ndarray:
        # Drawing without replacement from the group in which the first n end: the chance that
        # none of those drawn is right is hypergeometric.
        last = min(n, ranking.stickers) - 1
        start, size, right, before = _group(ranking, last)
        drawn = np.arange(last + 1)
        left = np.maximum(size[:, None] - drawn, 1)
        wrong = np.clip((left - right[:, None]) / left, 0, 1)
        missed = np.where(drawn < (last + 1 - start)[:, None], wrong, 1.0).prod(axis=1)
        return np.where(before > 0, 1.0, 1.0 - missed)

    return (
        Metric(f"hit@{n}", hit),
        Metric(f"precision@{n}", lambda r: found(r) / min(n, r.stickers)),
        Metric(f"recall@{n}", lambda r: found(r) / r.count),
    )


def _group(ranking: Ranking, place: int) -> tuple[np.ndarray, ...]:
    """Returns start, size, right and before of the groups at one place, each [Q]."""
    every = (ranking.start, ranking.size, ranking.right, ranking.before)
    return tuple(table[:, place] for table in every)


def _gold_at(n: int) -> Metric:
    def hit(ranking: Ranking) -> np.ndarray:
        return np.clip(n - ranking.gold_start, 0, ranking.gold_size) / ranking.gold_size

    return Metric(f"gold_hit@{n}", hit)


def _average_precision(ranking: Ranking) -> np.ndarray:
    """Takes the precision at each right answer, over the full gallery, divided by all of them.

    The i-th place of a group is right with probability r / g, and then (i - 1)(r - 1) / (g - 1) of
    the places before it in the group are right in expectation.
    """
    rank = np.arange(1, ranking.stickers + 1)
    others = (rank - 1 - ranking.start) * (ranking.right - 1) / np.maximum(ranking.size - 1, 1)
    found = (ranking.before + 1) + others
    return np.asarray((ranking.right / ranking.size * found / rank).sum(axis=1) / ranking.count)


def _reciprocal_rank(ranking: Ranking) -> np.ndarray:
    """Takes 1 / rank of the first right answer; it is in the first group that has any."""
    group = (ranking.right > 0).argmax(axis=1)[:, None]
    start, size, right = (
        np.take_along_axis(table, group, axis=1)
        for table in (ranking.start, ranking.size, ranking.right)
    )
    value = 1.0 / (start[:, 0] + 1)
    tied = size[:, 0] > 1
    if tied.any():
        place = np.arange(1, ranking.stickers + 1)
        left = np.maximum(size[tied] - (place - 1), 1)
        right_now = np.clip(right[tied] / left, 0, 1)
        none_yet = np.cumprod(1 - right_now[:, :-1], axis=1)
        right_now[:, 1:] *= none_yet
        value[tied] = (right_now / (start[tied] + place)).sum(axis=1)
    return value


def _gold_reciprocal_rank(ranking: Ranking) -> np.ndarray:
    """Takes 1 / rank of the sticker that was sent; tied, the mean over the group's places."""
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, ranking.stickers + 1))])
    start, size = ranking.gold_start, ranking.gold_size
    tied = (harmonic[start + size] - harmonic[start]) / size
    return np.where(size > 1, tied, 1.0 / (start + 1))


METRICS: tuple[Metric, ...] = (
    *(metric for cutoff in CUTOFFS for metric in _at(cutoff)),
    Metric("ap", _average_precision, "mAP"),
    Metric("reciprocal_rank", _reciprocal_rank, "mrr"),
    Metric("gold_rank", lambda r: r.gold_start + (r.gold_size + 1) / 2),
    Metric("gold_reciprocal_rank", _gold_reciprocal_rank, "gold_mrr"),
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
    per_query: bool = False,
    on_empty: OnEmpty = "error",
) -> dict[str, Any]:
    """Ranks the whole gallery for every query and averages the retrieval metrics over queries.

    Equal scores count as every order of them does on average (see the module). By index, a model
    that answers a constant would look good or bad by the accident of how the gallery is sorted.

    Args:
      scores: [Q, N] real; higher is better. Only the order within a row matters.
      relevant: [Q, N] bool (or 0/1); which stickers count as right answers.
      gold: [Q] int, gallery row of the sticker that was really sent; adds the gold_* figures.
      per_query: adds the values of each query, for intervals and paired tests.
      on_empty: what to do with a query that has no relevant sticker: raise, or leave it out of
        every mean.

    Returns:
      The mean of every metric (n is cut to N in a smaller gallery) under its mean's name;
      ``queries`` (int, how many were averaged) and ``queries_without_relevant`` (int). With gold:
      the gold metrics, too, and ``gold_rank_median`` (of the queries' expected ranks). With
      per_query: ``per_query``, a dict of f64[Q] by the metrics' names; rows that were left out are
      NaN.

    Raises:
      ValueError: if shapes disagree, a score is NaN, gold leaves the gallery, or a query has no
        relevant sticker and on_empty is "error". Every problem is named at once.
    """
    score_table, relevance_table = check_tables(scores, relevant)
    num_queries, num_stickers = score_table.shape
    gold_rows = None if gold is None else check_ids("gold", gold, num_queries, num_stickers)
    kept = scorable_queries(relevance_table, on_empty)
    # Without gold nothing reads its group: any sticker stands in.
    sent = np.zeros(num_queries, np.int64) if gold_rows is None else gold_rows
    values = _blank(num_queries, gold_rows is not None)
    for rows, _, ranking in _ranked_blocks(score_table, relevance_table, sent):
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

    That is the ranking in which all stickers are tied.

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
    num_stickers = table.shape[1]
    kept = scorable_queries(table, on_empty)
    # Chance depends on how many stickers are right, and on nothing else of a query.
    counts, place = np.unique(table.sum(axis=1), return_inverse=True)
    values = _blank(len(counts), with_gold)
    for start, right in row_blocks(np.broadcast_to(counts[:, None], (len(counts), num_stickers))):
        none, every = np.zeros_like(right), np.full_like(right, num_stickers)
        ranking = Ranking(none, every, right, none, none[:, 0], every[:, 0])
        for metric, column in values.items():
            column[start : start + len(right)] = metric.value(ranking)
    every_query = {metric: column[place] for metric, column in values.items()}
    return _summarise(every_query, kept, per_query)


def macro_pr_curve(
    scores: ArrayLike,
    relevant: ArrayLike,
    *,
    on_empty: OnEmpty = "error",
) -> PrecisionRecall:
    """Averages the interpolated precision of each query at fixed recall levels.

    The default curve: it depends on the order within a query only, so models whose scores are on
    different scales can share a plot. The area is the trapezoid of the 101 points; it is an
    interpolated figure, above mAP, and must not be reported as mAP.

    The interpolation takes a maximum, whose expectation over the orders of tied stickers has no
    closed form. The j-th of r right ones in a group of g tied stickers stands at its expected place
    there, j (g + 1) / (r + 1), instead: no order is drawn, and without ties nothing changes. Where
    all are tied, precision is (R + 1) / (N + 1) at every recall.

    Args:
      scores: [Q, N] real; higher is better.
      relevant: [Q, N] bool (or 0/1).
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
    nobody = np.zeros(len(score_table), np.int64)
    for _, hits, ranking in _ranked_blocks(score_table, relevance_table, nobody):
        found = np.cumsum(hits, axis=1)
        inside = (found - ranking.before) * (ranking.size + 1) / (ranking.right + 1)
        # Between right ones nothing is read, and the first of a group may have none before it.
        precision_at = found / np.maximum(ranking.start + inside, 1)
        for row in np.flatnonzero(hits.any(axis=1)):
            reached = precision_at[row, hits[row]]
            envelope = np.maximum.accumulate(reached[::-1])[::-1]
            # ceil(percent * R / 100) in integers: how many must be found to reach the level.
            needed = np.maximum(-(-_RECALL_PERCENT * len(reached) // 100), 1)
            total += envelope[needed - 1]
    recall, precision = _RECALL_PERCENT / 100, total / kept.sum()
    auc = float(np.trapezoid(precision, recall))
    return PrecisionRecall(recall, precision, auc, float(relevance_table[kept].mean()))


def _ranked_blocks(
    scores: Float[np.ndarray, "Q N"],
    relevant: Bool[np.ndarray, "Q N"],
    gold: Int[np.ndarray, " Q"],
) -> Iterator[tuple[slice, Bool[np.ndarray, "q N"], Ranking]]:
    """Yields rows, whether each sticker is right from best to worst, and the groups of ties."""
    for begin, block in row_blocks(scores):
        rows = slice(begin, begin + len(block))
        order = np.argsort(-block, axis=1)
        hits = np.take_along_axis(relevant[rows], order, axis=1)
        ranked = np.take_along_axis(block, order, axis=1)
        sent = np.take_along_axis(block, gold[rows, None], axis=1)
        gold_start, gold_size = (block > sent).sum(axis=1), (block == sent).sum(axis=1)
        yield rows, hits, Ranking(*_tied(ranked, hits), gold_start, gold_size)


def _tied(
    ranked: Float[np.ndarray, "Q N"], hits: Bool[np.ndarray, "Q N"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns start, size, right and before (see Ranking) of scores in falling order."""
    found, place = np.cumsum(hits, axis=1), np.arange(ranked.shape[1])
    opens = np.ones(ranked.shape, np.bool_)
    opens[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    if opens.all():
        alone = np.broadcast_to(place, ranked.shape), np.broadcast_to(1, ranked.shape)
        return *alone, hits.astype(np.int64), found - hits
    start = np.maximum.accumulate(np.where(opens, place, 0), axis=1)
    closes = np.roll(opens, -1, axis=1)
    ends = np.where(closes, place, len(place) - 1)[:, ::-1]
    end = np.minimum.accumulate(ends, axis=1)[:, ::-1]
    before = np.take_along_axis(found - hits, start, axis=1)
    return start, end - start + 1, np.take_along_axis(found, end, axis=1) - before, before


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
