"""Ranks a large gallery for many queries, ours against FAISS flat, side by side.

    python -m benchmarks.evaluate [--queries=2000] [--stickers=100000] [--width=512] [--k=10]
        [--rounds=3] [--contestants=...] [--folder=DIR] [--out=FILE]

The exact k best of the whole gallery by inner product, for unit vectors in float32. The gallery
lies in a file and is read block by block by all contestants but ``faiss in memory``, the ordinary
``IndexFlatIP``, which holds it (the time to fill it is not counted). The others are FAISS as its
users stream it, ``faiss.knn`` over blocks and a ``ResultHeap``: with its own block sizes, and with
the fastest of those that were tried. FAISS does not report where the gold sticker stands, which
evaluation needs; ours does so in ``ours + gold ranks``. All use every core.

Work is proportional to queries x stickers, so the time of 10,000 x 1,000,000 is also given, scaled
from whatever size was run. Peak memory is that of the whole process: interpreter, libraries,
queries, results, and any page of the file that is mapped at the time; beside it, what was resident
when the contestant was ready, with its queries and (in memory only) its index. The file itself is
in the page cache of the system, having just been written.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import side_by_side
from benchmarks.side_by_side import Contestant, Prepared, Result

FULL = 10_000 * 1_000_000
LIMIT = 2 * 2**30  # bytes
TOLERANCE = 2e-6  # of a score; each library adds 512 products in an order of its own
# Every so many stickers the gallery begins to repeat its first ones, so that there are exact ties.
COPIES = 100
FAISS_ROWS = 65_536  # of a block; larger ones were not faster
CONTESTANTS: dict[str, dict[str, Any]] = {
    "ours": {"factory": "ours"},
    "ours + gold ranks": {"factory": "ours", "gold": True},
    "faiss, its blocks": {"factory": "faiss_streamed"},
    "faiss, tuned blocks": {"factory": "faiss_streamed", "blocks": (4096, 4096)},
    "faiss in memory": {"factory": "faiss_in_memory", "blocks": (4096, 4096)},
}
COLUMNS = ["", "s", "spread", "/ ours", "s, full size", "GFLOP/s", "of floor", "peak GiB",
           "ready GiB", "same rows"]  # fmt: skip


class OnDisk:
    """Rows of a NumPy file, mapped anew for every access.

    Pages of a mapping that stays open would all count as the process's own after one pass.

    Args:
      path: of a two-dimensional .npy file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shape: tuple[int, ...] = np.load(path, mmap_mode="r").shape

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.load(self._path, mmap_mode="r")[rows]


def write_problem(folder: Path, queries: int, stickers: int, width: int) -> None:
    """Writes gallery.npy, queries.npy and gold.npy, of a fixed seed.

    A query points a little towards its gold sticker, whose ranks then spread from 1 to thousands.

    Args:
      folder: exists.
      queries: Q.
      stickers: N.
      width: D.
    """
    rng = np.random.default_rng(0)
    gallery = np.lib.format.open_memmap(folder / "gallery.npy", "w+", np.float32, (stickers, width))
    for start in range(0, stickers, FAISS_ROWS):
        size = min(FAISS_ROWS, stickers - start)
        rows = rng.standard_normal((size, width), np.float32)
        gallery[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    copies = stickers // COPIES
    gallery[stickers - copies :] = gallery[:copies]
    gallery.flush()
    gold = rng.integers(0, stickers, queries)
    found = gallery[gold] + rng.standard_normal((queries, width), np.float32) / 5
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.save(folder / "queries.npy", found)
    np.save(folder / "gold.npy", gold)


def ours(folder: Path, k: int, gold: bool = False) -> Prepared:
    """Prepares ``rank_gallery``, with or without the ranks of the gold stickers."""
    import jax

    from int_ra_jax.run.ranking import rank_gallery

    queries = jax.device_put(np.load(folder / "queries.npy"))
    rows = np.load(folder / "gold.npy") if gold else None
    gallery = OnDisk(folder / "gallery.npy")
    jax.block_until_ready(queries)
    return _prepared(lambda: tuple(rank_gallery(queries, gallery, k, gold=rows)))


def faiss_streamed(folder: Path, k: int, blocks: tuple[int, int] | None = None) -> Prepared:
    """Prepares FAISS over blocks of the file; ``blocks`` are (queries, rows) of one product."""
    faiss = _faiss(blocks)
    queries = np.load(folder / "queries.npy")
    gallery = OnDisk(folder / "gallery.npy")

    def run() -> Any:
        heap = faiss.ResultHeap(len(queries), k, keep_max=True)
        for start in range(0, gallery.shape[0], FAISS_ROWS):
            rows = gallery[start : start + FAISS_ROWS]
            scores, index = faiss.knn(
                queries, rows, min(k, len(rows)), metric=faiss.METRIC_INNER_PRODUCT
            )
            heap.add_result(scores, index + start)
        heap.finalize()
        return heap.D, heap.I, None

    return _prepared(run)


def faiss_in_memory(folder: Path, k: int, blocks: tuple[int, int]) -> Prepared:
    """Prepares an ``IndexFlatIP`` of the whole gallery, filled block by block."""
    faiss = _faiss(blocks)
    queries = np.load(folder / "queries.npy")
    gallery = OnDisk(folder / "gallery.npy")
    index = faiss.IndexFlatIP(gallery.shape[1])
    for start in range(0, gallery.shape[0], FAISS_ROWS):
        index.add(gallery[start : start + FAISS_ROWS])
    return _prepared(lambda: (*index.search(queries, k), None))


def disagreement(reference: Any, found: Any, stickers: int) -> tuple[float, float]:
    """Compares two answers; copies of a sticker count as the same.

    Args:
      reference: (scores [Q, k], rows [Q, k], ...).
      found: likewise.
      stickers: N.

    Returns:
      The share of places whose stickers are the same, and the largest difference of the scores at
      one place. Stickers that differ at a place score alike within twice that difference.
    """
    copies = stickers // COPIES
    originals = [
        np.where(rows >= stickers - copies, rows - (stickers - copies), rows)
        for rows in (np.asarray(reference[1]), np.asarray(found[1]))
    ]
    same = float((originals[0] == originals[1]).mean())
    return same, float(np.abs(np.asarray(reference[0]) - np.asarray(found[0])).max())


def main() -> None:
    """Prints one table."""
    arguments = _parse()
    side_by_side.use_device("cpu")
    begin = time.time()
    with tempfile.TemporaryDirectory(dir=arguments.folder or None) as folder:
        write_problem(Path(folder), arguments.queries, arguments.stickers, arguments.width)
        given = {"folder": Path(folder), "k": arguments.k}
        contestants = {}
        for name in arguments.contestants.split(";"):
            options = dict(CONTESTANTS[name])
            factory = f"benchmarks.evaluate:{options.pop('factory')}"
            contestants[name] = Contestant(factory, given | options)
        results = side_by_side.race(contestants, arguments.rounds)
    # After the race, so that this process does not start JAX while the others are timed.
    from benchmarks import floor

    rates = floor.measure("float32")
    flops = 2.0 * arguments.queries * arguments.stickers * arguments.width
    least = flops / rates.matmul_rate
    agreement = _agreement(results, arguments.stickers)
    rows = _rows(results, agreement, flops, least, arguments.queries * arguments.stickers)
    print(
        f"\n{rates.device}, {os.cpu_count()} cores: {arguments.queries} queries x "
        f"{arguments.stickers} stickers of {arguments.width}, k = {arguments.k}, float32; median "
        f"of {arguments.rounds} rounds\n{side_by_side.table(rows)}\n"
        f"floor {least:.1f} s: {flops / 1e12:.2f} TFLOP at {rates.matmul_rate / 1e9:.0f} GFLOP/s "
        f"in matmuls; full size: {FULL:.0e} pairs, scaled linearly unless run as such\n"
        f"{time.time() - begin:.0f} s in all"
    )
    content = {
        "arguments": vars(arguments),
        "floor": vars(rates),
        "floor_seconds": least,
        "agreement": agreement,
        "results": {name: result.to_json() for name, result in results.items()},
        "total_seconds": time.time() - begin,
    }
    side_by_side.write_json(arguments.out, content)


def _prepared(run: Callable[[], Any]) -> Prepared:
    status = Path("/proc/self/status")
    lines = dict(row.split(":", 1) for row in _lines(status))
    ready = int(lines["VmRSS"].split()[0]) * 1024 if "VmRSS" in lines else 0
    return Prepared(run, facts={"ready_bytes": ready})


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        yield from (line for line in path.read_text().splitlines() if ":" in line)


def _faiss(blocks: tuple[int, int] | None) -> Any:
    import faiss

    faiss.omp_set_num_threads(os.cpu_count() or 1)
    if blocks is not None:
        faiss.cvar.distance_compute_blas_query_bs, faiss.cvar.distance_compute_blas_database_bs = (
            blocks
        )
    return faiss


def _agreement(results: dict[str, Result], stickers: int) -> dict[str, tuple[float, float]]:
    """Returns ``disagreement`` with the first contestant; raises where it is more than rounding."""
    reference = next(iter(results.values())).first
    found = {
        name: disagreement(reference, result.first, stickers) for name, result in results.items()
    }
    wrong = {name: gap for name, (_, gap) in found.items() if not gap <= TOLERANCE}
    if wrong:
        raise AssertionError(f"Scores differ from the first contestant's by more: {wrong}.")
    return found


def _rows(
    results: dict[str, Result],
    agreement: dict[str, tuple[float, float]],
    flops: float,
    least: float,
    pairs: int,
) -> list[list[str]]:
    first = next(iter(results.values())).median
    rows = [COLUMNS]
    for name, result in results.items():
        median = result.median
        within = "" if result.peak_bytes <= LIMIT else " (!)"
        rows.append(
            [
                name,
                f"{median:.2f}",
                f"{result.spread:.0%}",
                f"{median / first:.2f}",
                f"{median * FULL / pairs:.0f}",
                f"{flops / median / 1e9:.0f}",
                f"{least / median:.0%}",
                f"{result.peak_bytes / 2**30:.2f}{within}",
                f"{result.facts['ready_bytes'] / 2**30:.2f}",
                f"{agreement[name][0]:.4%}",
            ]
        )
    return rows


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--stickers", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each")
    parser.add_argument(
        "--contestants", default=";".join(CONTESTANTS), help="semicolon-separated, ours first"
    )
    parser.add_argument("--folder", default="", help="where the gallery's file is put")
    parser.add_argument("--out", default="", help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
