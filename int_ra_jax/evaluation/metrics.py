"""Retrieval metrics over a full gallery, the relevance they are counted against, and chance.

NumPy only, so that the figures do not depend on an accelerator: ``ranking`` produces the scores,
``relevance`` says which stickers are right answers, ``evaluate_rankings`` turns both into figures,
and ``chance_metrics`` gives the row that a random ranking would get.

``hit@N`` is what the paper's table calls P@N: it asks whether any of the first N stickers is right
and rises with N. ``precision@N`` is the share of the first N that is right. Both are reported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from int_ra_jax.evaluation.checks import (
    OnEmpty,
    check_ids,
    check_protocol,
    check_relevant,
    check_tables,
    row_blocks,
    scorable_queries,
)

CUTOFFS: tuple[int, ...] = (1, 3, 5)
# The order in which the released code reads the splits: test labels are overwritten by valid ones.
WRITING_ORDER: tuple[str, ...] = ("train", "test", "valid")
# Name of a per-query value -> name of its mean; names that are absent here keep theirs.
MEAN_NAMES: dict[str, str] = {"ap": "mAP", "reciprocal_rank": "mrr", "gold_rank": "gold_rank_mean"}

_RECALL_PERCENT = np.arange(101)


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
      Python floats ``hit@n``, ``precision@n``, ``recall@n`` for n in CUTOFFS (n is cut to N in a
      smaller gallery), ``mAP`` (over the full gallery, divided by all relevant stickers) and
      ``mrr``; ``queries`` (int, how many were averaged) and ``queries_without_relevant`` (int).
      With gold: ``gold_rank_mean``, ``gold_rank_median`` (1 is best) and ``gold_hit@n``.
      With per_query: ``per_query``, a dict of f64[Q] named ``hit@n``, ``precision@n``,
      ``recall@n``, ``ap``, ``reciprocal_rank``, ``gold_rank`` and ``gold_hit@n``; rows that were
      left out are NaN.

    Raises:
      ValueError: if shapes disagree, a score is NaN, gold leaves the gallery, or a query has no
        relevant sticker and on_empty is "error". Every problem is named at once.
    """
    score_table, relevance_table = check_tables(scores, relevant)
    num_queries, num_stickers = score_table.shape
    gold_rows = None if gold is None else check_ids("gold", gold, num_queries, num_stickers)
    kept = scorable_queries(relevance_table, on_empty)
    values: dict[str, np.ndarray] = {}
    for rows, order in _ranked_chunks(score_table, tie_seed):
        ranked = np.take_along_axis(relevance_table[rows], order, axis=1)
        block = _relevance_values(ranked)
        if gold_rows is not None:
            block |= _gold_values(order, gold_rows[rows], num_stickers)
        for name, value in block.items():
            values.setdefault(name, np.full(num_queries, np.nan))[rows] = value
    for value in values.values():
        value[~kept] = np.nan
    return _summarise(values, kept, per_query)


def chance_metrics(
    relevant: ArrayLike,
    *,
    with_gold: bool = False,
    per_query: bool = False,
    on_empty: OnEmpty = "error",
) -> dict[str, Any]:
    """Gives the exact expectation of every metric under a uniformly random ranking.

    With R of N stickers relevant and H_n the n-th harmonic number: hit@n is
    1 - C(N-R, n) / C(N, n), precision@n is R / N, recall@n is n / N, the average precision is
    (H_N + (N - H_N) (R-1) / (N-1)) / N and the reciprocal rank R (H_N - H_{R-1}) / (N-R+1).

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
    h_all = harmonic[num_stickers]
    values: dict[str, np.ndarray] = {}
    for cutoff in CUTOFFS:
        size = min(cutoff, num_stickers)
        drawn = np.arange(size)
        misses = np.clip((num_stickers - count[:, None] - drawn) / (num_stickers - drawn), 0, 1)
        values[f"hit@{cutoff}"] = 1.0 - misses.prod(axis=1)
        values[f"precision@{cutoff}"] = count / num_stickers
        values[f"recall@{cutoff}"] = np.full(num_queries, size / num_stickers)
    others = (count - 1) / max(num_stickers - 1, 1)
    values["ap"] = (h_all + others * (num_stickers - h_all)) / num_stickers
    h_below = harmonic[count.astype(np.int64) - 1]
    values["reciprocal_rank"] = count * (h_all - h_below) / (num_stickers - count + 1)
    if with_gold:
        values["gold_rank"] = np.full(num_queries, (num_stickers + 1) / 2)
        for cutoff in CUTOFFS:
            share = min(cutoff, num_stickers) / num_stickers
            values[f"gold_hit@{cutoff}"] = np.full(num_queries, share)
    for value in values.values():
        value[~kept] = np.nan
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


def relevance(
    protocol: str,
    *,
    query_intention: ArrayLike,
    gold: ArrayLike,
    annotations: ArrayLike | None = None,
    last_written: ArrayLike | None = None,
) -> Bool[np.ndarray, "Q N"]:
    """Says which stickers are right answers to which queries, under a named protocol.

    ``multi``, the default everywhere: the query's intention is among those with which the sticker
    is annotated in train or valid, or the sticker is the query's gold one. ``paper``: the single
    intention that was written last for the sticker is the query's; test labels take part, and a
    gold sticker can be irrelevant to its own query. ``exact``: the gold sticker only.

    Args:
      protocol: one of PROTOCOLS; store it beside every result.
      query_intention: [Q] int, class id annotated for the query.
      gold: [Q] int, gallery row of the query's sticker.
      annotations: [N, K] bool, intentions of each sticker in train and valid, never test; read by
        multi, and by exact for the size of the gallery.
      last_written: [N] int, see last_written_intention; read by paper, and by exact for the size
        of the gallery where annotations is None.

    Returns:
      bool[Q, N].

    Raises:
      ValueError: for an unknown protocol, a missing or misshapen argument, or an id out of range.
    """
    table, written = check_protocol(protocol, annotations, last_written)
    num_stickers = len(written if table is None else table)  # type: ignore[arg-type]
    intention = np.atleast_1d(query_intention)
    gold_rows = check_ids("gold", gold, len(intention), num_stickers)
    num_classes = None if table is None else table.shape[1]
    columns = check_ids("query_intention", intention, len(intention), num_classes)
    if protocol == "paper":
        return columns[:, None] == written
    exact = gold_rows[:, None] == np.arange(num_stickers)
    return exact if protocol == "exact" else table[:, columns].T | exact  # type: ignore[index]


def last_written_intention(
    pairs_by_split: Mapping[str, tuple[ArrayLike, ArrayLike]], num_stickers: int
) -> Int[np.ndarray, " N"]:
    """Keeps one intention per sticker as the released code does: the last one written.

    The splits are read in WRITING_ORDER (train, then test, then valid), each in the order of its
    rows, so test labels define relevance. That is a property of the ``paper`` protocol, not advice.

    Args:
      pairs_by_split: split name -> (stickers int [M], intentions int [M]), row by row.
      num_stickers: N, size of the gallery.

    Returns:
      i64[N], class id, or -1 for a sticker that is annotated nowhere.

    Raises:
      ValueError: for an unknown split, columns of different length, or an id out of range.
    """
    unknown = sorted(set(pairs_by_split) - set(WRITING_ORDER))
    if unknown:
        raise ValueError(f"Unknown splits {unknown}; last_written_intention reads {WRITING_ORDER}.")
    written = np.full(num_stickers, -1, dtype=np.int64)
    for split in WRITING_ORDER:
        if split in pairs_by_split:
            stickers, intentions = map(np.asarray, pairs_by_split[split])
            rows = check_ids(f"{split} stickers", stickers, len(stickers), num_stickers)
            classes = check_ids(f"{split} intentions", intentions, len(stickers), None)
            written[rows] = classes  # NumPy assigns in order: the last of a repeated index wins
    return written


def unannotated_stickers(annotations: Bool[np.ndarray, "N K"]) -> Int[np.ndarray, " U"]:
    """Lists the stickers without any annotation outside test.

    Under ``multi`` they are relevant only as somebody's gold sticker; report how many there are.

    Args:
      annotations: [N, K] bool, intentions of each sticker in train and valid.

    Returns:
      i64[U], gallery rows in ascending order.
    """
    return np.flatnonzero(~annotations.any(axis=1))


def _ranked_chunks(
    scores: Float[np.ndarray, "Q N"], tie_seed: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows, gallery indices from best to worst, [rows, N])."""
    tie_order = np.random.default_rng(tie_seed).permutation(scores.shape[1])
    for start, block in row_blocks(scores):
        position = np.argsort(-block[:, tie_order], axis=1, kind="stable")
        yield slice(start, start + len(block)), tie_order[position]


def _relevance_values(ranked: Bool[np.ndarray, "Q N"]) -> dict[str, np.ndarray]:
    """Computes each query's values from the relevance of its ranked stickers."""
    found = np.cumsum(ranked, axis=1)
    count = np.maximum(found[:, -1], 1)  # rows without relevant stickers are blanked by the caller
    values: dict[str, np.ndarray] = {}
    for cutoff in CUTOFFS:
        size = min(cutoff, ranked.shape[1])
        top = found[:, size - 1]
        values[f"hit@{cutoff}"] = top > 0
        values[f"precision@{cutoff}"] = top / size
        values[f"recall@{cutoff}"] = top / count
    precision = found / np.arange(1, ranked.shape[1] + 1)
    values["ap"] = (precision * ranked).sum(axis=1) / count
    values["reciprocal_rank"] = 1.0 / (ranked.argmax(axis=1) + 1)
    return values


def _gold_values(order: np.ndarray, gold: np.ndarray, num_stickers: int) -> dict[str, np.ndarray]:
    """Computes each query's rank of the gold sticker."""
    rank = (order == gold[:, None]).argmax(axis=1) + 1
    hits = {f"gold_hit@{cutoff}": rank <= min(cutoff, num_stickers) for cutoff in CUTOFFS}
    return {"gold_rank": rank, **hits}


def _summarise(values: dict[str, np.ndarray], kept: np.ndarray, per_query: bool) -> dict[str, Any]:
    """Averages per-query values over the queries that were kept."""
    result: dict[str, Any] = {
        MEAN_NAMES.get(name, name): float(value[kept].mean()) for name, value in values.items()
    }
    if "gold_rank" in values:
        result["gold_rank_median"] = float(np.median(values["gold_rank"][kept]))
    result["queries"] = int(kept.sum())
    result["queries_without_relevant"] = int((~kept).sum())
    if per_query:
        result["per_query"] = values
    return result
