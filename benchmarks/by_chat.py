"""Whether a table's intervals are too narrow because several queries come from one chat.

    python -m benchmarks.by_chat TABLE [--of=int_ra,best] [--resamples=10000]

TABLE is the folder that ``launch.py --mode=table`` wrote for the embedded data set (the one with
``runs.csv``), whose ids lead back to the chats of the package ``chitchat_dataset``. Resamples whole
chats instead of queries and prints both intervals of each difference, and the design effect: by how
much the variance grows. 1 means that queries of a chat tell as much as queries of as many chats.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from benchmarks import side_by_side
from data_prep import chitchat
from int_ra_jax.comparison import compare as comparison
from int_ra_jax.comparison import results as comparison_data

METRICS = ("hit@1", "mAP")
_SEED = 0
_BLOCK = 500  # resamples drawn at a time: 500 x 1,000 weights are 4 MB


@dataclass(frozen=True)
class Clustered:
    """One difference, in [-1, 1].

    Attributes:
      difference: mean over queries.
      by_query: 95% interval with queries resampled.
      by_chat: the same with chats resampled.
      design_effect: variance by chat over variance by query.
    """

    difference: float
    by_query: tuple[float, float]
    by_chat: tuple[float, float]
    design_effect: float


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description="Intervals over queries, and over chats.")
    parser.add_argument("table", type=Path, metavar="TABLE")
    parser.add_argument("--of", default="int_ra,best", help="systems to compare with all others")
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()
    ids, values = read(arguments.table)
    chats = chats_of(ids)
    print(f"{len(ids):,} queries of {len(set(chats.tolist())):,} chats")
    rows = [["", "metric", "difference", "95% by query", "95% by chat", "design effect"]]
    tested = [name for name in arguments.of.split(",") if name in values]
    for system in tested:
        for other in values:
            if other in tested[: tested.index(system) + 1]:
                continue
            for metric in METRICS:
                found = clustered(
                    values[system][metric] - values[other][metric], chats, arguments.resamples
                )
                rows.append([f"{system} - {other}", metric, *_cells(found)])
    print(side_by_side.table(rows))


def read(table: Path) -> tuple[Sequence[str], Mapping[str, comparison_data.Columns]]:
    """Reads the runs that a table was written from.

    Args:
      table: its folder.

    Returns:
      The queries' ids, and row -> metric -> f64[Q], averaged over seeds; the row ``linear`` last.

    Raises:
      FileNotFoundError: if there is no ``runs.csv``.
      ValueError: if no run is complete, or they were judged on different queries.
    """
    groups = defaultdict(list)
    with (table / "runs.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if not row["error"]:
                run = comparison_data.read_run(Path(row["workdir"]), int(row["seed"]))
                groups[row["system"]].append(run)
    runs = [run for group in groups.values() for run in group]
    if not runs:
        raise ValueError(f"{table}: no run is complete.")
    comparison.check_same_queries(runs)
    values = {
        name: {
            metric: np.mean([run.values[run.main][metric] for run in group], axis=0)
            for metric in METRICS
        }
        for name, group in groups.items()
    }
    values["linear"] = {metric: runs[0].values["linear"][metric] for metric in METRICS}
    return runs[0].ids, values


def chats_of(ids: Sequence[str]) -> Int[np.ndarray, " Q"]:
    """Returns the number of the chat that each conversation of the embedded data set is cut from.

    Raises:
      ValueError: if some are of no chat of the package.
    """
    chat_of = {
        example.id: chat.id
        for chat in chitchat.load_chats()
        for example in chitchat.examples_of(chat)
    }
    if unknown := [one for one in ids if one not in chat_of]:
        raise ValueError(
            f"{len(unknown)} of {len(ids)} queries, such as {unknown[0]!r}, are of no chat of "
            "chitchat_dataset; this works for the embedded data set alone."
        )
    return np.unique([chat_of[one] for one in ids], return_inverse=True)[1]


def clustered(
    differences: Float[np.ndarray, " Q"], chats: Int[np.ndarray, " Q"], resamples: int
) -> Clustered:
    """Bootstraps a mean over queries and over chats.

    Args:
      differences: of two systems, query by query.
      chats: the chat of each query, from 0.
      resamples: of each bootstrap.
    """
    number = int(chats.max()) + 1
    sums, sizes = np.bincount(chats, differences, number), np.bincount(chats, minlength=number)
    by_query = _resampled(differences, np.ones(len(differences)), resamples)
    by_chat = _resampled(sums, sizes.astype(np.float64), resamples)
    spread = float(by_query.var())
    return Clustered(
        float(differences.mean()),
        _interval(by_query),
        _interval(by_chat),
        float(by_chat.var()) / spread if spread else float("nan"),
    )


def _resampled(
    sums: Float[np.ndarray, " G"], sizes: Float[np.ndarray, " G"], resamples: int
) -> Float[np.ndarray, " R"]:
    """Draws the groups with replacement, and returns each draw's mean over all their queries."""
    rng = np.random.default_rng(_SEED)
    even = np.full(len(sums), 1 / len(sums))
    means = []
    for start in range(0, resamples, _BLOCK):
        times = rng.multinomial(len(sums), even, min(_BLOCK, resamples - start))
        means.append(times @ sums / (times @ sizes))
    return np.concatenate(means)


def _interval(means: Float[np.ndarray, " R"]) -> tuple[float, float]:
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _cells(found: Clustered) -> list[str]:
    intervals = [
        f"[{100 * low:+.1f}, {100 * high:+.1f}]" for low, high in (found.by_query, found.by_chat)
    ]
    return [f"{100 * found.difference:+.1f}", *intervals, f"{found.design_effect:.2f}"]


if __name__ == "__main__":
    main()
