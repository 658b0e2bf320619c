"""Whether a table's intervals are too narrow because several queries come from one chat.

    python -m benchmarks.by_chat TABLE [--of=int_ra,best] [--resamples=10000] [--out=FILE]

TABLE is the folder that ``launch.py --mode=table`` wrote for the embedded data set (the one with
``runs.csv``), whose ids lead back to the chats of the package ``chitchat_dataset``. Resamples whole
chats instead of queries and prints both intervals of each difference, and the design effect: by how
much the variance grows. 1 means that queries of a chat tell as much as queries of as many chats.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from benchmarks import command
from data_prep.embedded import chitchat
from int_ra_jax.comparison import compare, evaluated

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
    parser = command.parser(__doc__)
    parser.add_argument("table", type=Path, metavar="TABLE")
    parser.add_argument("--of", default="int_ra,best", help="systems to compare with all others")
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()
    ids, values = read(arguments.table)
    chats = chats_of(ids)
    tested = [name for name in arguments.of.split(",") if name in values]
    found = {
        (f"{system} - {other}", metric): clustered(
            values[system][metric] - values[other][metric], chats, arguments.resamples
        )
        for place, system in enumerate(tested)
        for other in values
        if other not in tested[: place + 1]
        for metric in METRICS
    }
    rows = [
        {
            "": pair,
            "metric": metric,
            "difference": f"{100 * one.difference:+.1f}",
            "95% by query": "[{:+.1f}, {:+.1f}]".format(*(100 * end for end in one.by_query)),
            "95% by chat": "[{:+.1f}, {:+.1f}]".format(*(100 * end for end in one.by_chat)),
            "design effect": f"{one.design_effect:.2f}",
        }
        for (pair, metric), one in found.items()
    ]
    sizes = f"{len(ids):,} queries of {len(set(chats.tolist())):,} chats"
    differences = [{"systems": p, "metric": m, **asdict(one)} for (p, m), one in found.items()]
    command.publish(arguments, f"{sizes}\n\n{command.table(rows)}", differences=differences)


def read(table: Path) -> tuple[Sequence[str], Mapping[str, evaluated.Columns]]:
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
                run = evaluated.read_run(Path(row["workdir"]), int(row["seed"]))
                groups[row["system"]].append(run)
    runs = [run for group in groups.values() for run in group]
    if not runs:
        raise ValueError(f"{table}: no run is complete.")
    compare.check_same_queries(runs)
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


if __name__ == "__main__":
    main()
