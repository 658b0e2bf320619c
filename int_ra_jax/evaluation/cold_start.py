"""How well stickers that train never used are ranked.

Attributes and pictures are what a system knows of such a sticker. Two questions: does it come up
among all stickers, where those that train used compete, and is it told from the other unseen ones,
where only they compete?

How well one new sticker is ranked says little of the next: intervals resample stickers, each with
all the queries that it answers. Queries of one post are alike as well, but far less than those of
one sticker, of which there are few.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from int_ra_jax.evaluation import metrics
from int_ra_jax.evaluation.report_data import ColdStart, Interval
from int_ra_jax.evaluation.significance import bootstrap_intervals

SHOWN = ("hit@1", "hit@5", "hit@10", "reciprocal_rank")


def cold_start(
    tables: Mapping[str, Float[np.ndarray, "Q N"]],
    gold: Int[np.ndarray, " Q"],
    unseen: Bool[np.ndarray, " N"],
    counted: Bool[np.ndarray, " Q"],
    **draws: int,
) -> ColdStart | None:
    """Ranks the stickers that train never used, for the queries whose gold they are.

    The gold sticker alone counts as right, whatever the protocol.

    Args:
      tables: row -> scores of all queries; chance is added.
      gold: gallery row of each query's sticker.
      unseen: which stickers never occur in train.
      counted: which queries count, of those that have an unseen gold.
      **draws: ``resamples`` and ``seed`` of the intervals.

    Returns:
      Figures of every row among all stickers and among the unseen; None where no counted query has
      an unseen gold.
    """
    rows = np.flatnonzero(unseen[gold] & counted)
    if not rows.size:
        return None
    columns = np.flatnonzero(unseen)
    place = np.cumsum(unseen) - 1  # of an unseen sticker among the unseen
    among = {
        "all": (np.arange(len(unseen)), gold[rows]),
        "unseen": (columns, place[gold[rows]]),
    }
    systems: dict[str, dict[str, dict[str, Interval]]] = {}
    for where, (kept, right) in among.items():
        for name, values in _values(tables, rows, kept, right):
            intervals = bootstrap_intervals(values, clusters=gold[rows], **draws)
            named = {metrics.MEANS[key]: Interval(**row) for key, row in intervals.items()}
            systems.setdefault(name, {})[where] = named
    return ColdStart(len(rows), len(columns), len(np.unique(gold[rows])), systems)


def _values(
    tables: Mapping[str, Float[np.ndarray, "Q N"]],
    rows: Int[np.ndarray, " U"],
    columns: Int[np.ndarray, " C"],
    right: Int[np.ndarray, " U"],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yields each row's per-query values with some columns alone in the gallery."""
    relevant = right[:, None] == np.arange(len(columns))
    for name, scores in tables.items():
        found = metrics.evaluate_rankings(scores[np.ix_(rows, columns)], relevant, per_query=True)
        yield name, {key: found["per_query"][key] for key in SHOWN}
    chance = metrics.chance_metrics(relevant, per_query=True)["per_query"]
    yield "chance", {key: chance[key] for key in SHOWN}
