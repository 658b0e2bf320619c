"""Times a search: opening a trained run, the first answer, one query, many queries.

    python -m benchmarks.search --workdir=runs/demo [--split=test] [--queries=200] [--out=FILE]

Everything is timed in one process that has imported the library. What a start costs besides, the
interpreter and the imports, ``time python launch.py --mode=search ...`` tells. The first run on a
workdir also encodes the gallery and compiles, so run it twice and read the second.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command

BATCHES = (1, 8, 64)


def measure(workdir: Path, split: str, queries: int) -> dict[str, float]:
    """Returns milliseconds by what was timed.

    Args:
      workdir: of a trained run.
      split: whose conversations are asked, from the first one on.
      queries: how many, one by one; batches repeat five times.
    """
    from int_ra_jax.retrieval.retriever import Retriever
    from int_ra_jax.run.workdir import open_run

    asked = open_run(workdir).dataset.conversations(split)[:queries]
    began = time.perf_counter()
    retriever = Retriever.from_workdir(workdir)
    found = {"open": _since(began)}
    began = time.perf_counter()
    retriever.search(asked[0])
    found["first answer"] = _since(began)
    for conversation in asked:  # every length once, so that no program is compiled below
        retriever.search(conversation)
    alone = [_timed(retriever, [conversation]) for conversation in asked]
    found["one query, p50"], found["one query, p99"] = np.percentile(alone, [50, 99]).tolist()
    for size in BATCHES[1:]:
        retriever.search_many(asked[:size])
        times = [_timed(retriever, asked[:size]) for _ in range(5)]
        found[f"{size} queries, median"] = float(np.median(times))
    return found


def _timed(retriever: Any, conversations: Sequence[Any]) -> float:
    began = time.perf_counter()
    retriever.search_many(conversations)
    return _since(began)


def _since(began: float) -> float:
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Measures and prints."""
    options = command.parser(__doc__ or "")
    options.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    options.add_argument("--split", default="test", help="whose conversations are asked")
    options.add_argument("--queries", type=int, default=200, help="how many are asked one by one")
    arguments = options.parse_args()
    found = measure(arguments.workdir, arguments.split, arguments.queries)
    rows = [{"": name, "ms": f"{value:.1f}"} for name, value in found.items()]
    command.publish(arguments, command.table(rows), milliseconds=found)


if __name__ == "__main__":
    main()
