"""How well stickers that train never used are ranked.

Attributes and pictures are what a system knows of such a sticker. Two questions: does it come up
among all stickers, where those that train used compete, and is it told from the other unseen ones,
where only they compete?

How well one new sticker is ranked says little of the next: intervals resample stickers, each with
all the queries that it answers. Queries of one post are alike as well, but far less than those of
one sticker, of which there are few.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from int_ra_jax.evaluation import metrics
from int_ra_jax.evaluation.report_data import ColdStart, Interval
from int_ra_jax.evaluation.significance import bootstrap_intervals

SHOWN = ("hit@1", "hit@5", "hit@10", "reciprocal_rank")
AMONG = ("all", "unseen")


@dataclass(frozen=True, eq=False)
class Ranked:
    """The queries whose sticker train never used, and how each row ranks it.

    Attributes:
      queries: which they are, of all queries.
      gold: gallery row of each one's sticker.
      unseen: how many stickers of the gallery train never used.
      values: row -> one of AMONG, the stickers that are ranked -> one of SHOWN -> [U].
    """

    queries: Int[np.ndarray, " U"]
    gold: Int[np.ndarray, " U"]
    unseen: int
    values: Mapping[str, Mapping[str, Mapping[str, Float[np.ndarray, " U"]]]]

    def of(self, number: int) -> dict[str, dict[str, dict[str, float]]]:
        """Returns the values of the query at a place among these, for a file."""
        return {
            name: {
                among: {key: float(column[number]) for key, column in columns.items()}
                for among, columns in row.items()
            }
            for name, row in self.values.items()
        }


def rank(
    tables: Mapping[str, Float[np.ndarray, "Q N"]],
    gold: Int[np.ndarray, " Q"],
    unseen: Bool[np.ndarray, " N"],
    counted: Bool[np.ndarray, " Q"],
) -> Ranked | None:
    """Ranks the stickers that train never used, for the queries whose gold they are.

    The gold sticker alone counts as right, whatever the protocol.

    Args:
      tables: row -> scores of all queries; chance is added.
      gold: gallery row of each query's sticker.
      unseen: which stickers never occur in train.
      counted: which queries count, of those that have an unseen gold.

    Returns:
      Each such query's values; None where there is none.
    """
    rows = np.flatnonzero(unseen[gold] & counted)
    if not rows.size:
        return None
    columns = np.flatnonzero(unseen)
    place = np.cumsum(unseen) - 1  # of an unseen sticker among the unseen
    among = ((np.arange(len(unseen)), gold[rows]), (columns, place[gold[rows]]))
    values: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for where, (kept, right) in zip(AMONG, among, strict=True):
        relevant = right[:, None] == np.arange(len(kept))
        found = {
            name: metrics.evaluate_rankings(scores[np.ix_(rows, kept)], relevant, per_query=True)
            for name, scores in tables.items()
        }
        found["chance"] = metrics.chance_metrics(relevant, per_query=True)
        for name, figures in found.items():
            columns_of = {key: figures["per_query"][key] for key in SHOWN}
            values.setdefault(name, {})[where] = columns_of
    return Ranked(rows, gold[rows], len(columns), values)


def summary(ranked: Ranked, **draws: int) -> ColdStart:
    """Returns the means of every row among all stickers and among the unseen.

    Args:
      ranked: the queries.
      **draws: ``resamples`` and ``seed`` of the intervals.
    """
    systems: dict[str, dict[str, dict[str, Interval]]] = {}
    for name, row in ranked.values.items():
        for where, columns in row.items():
            intervals = bootstrap_intervals(columns, clusters=ranked.gold, **draws)
            named = {metrics.MEANS[key]: Interval(**one) for key, one in intervals.items()}
            systems.setdefault(name, {})[where] = named
    sent = len(np.unique(ranked.gold))
    return ColdStart(len(ranked.queries), ranked.unseen, sent, systems)
