"""Ten million embeddings: the index on disk beside an exact search and FAISS IVF-PQ.

    python -m benchmarks.large_gallery --folder=DIR [--rows=10000000] [--width=256] [--probes=20,64]
        [--rounds=5] [--out=FILE]

Embeddings are generated, and stored in half precision: unit vectors that vary in ``LATENT``
directions and a little in all others, as those of pictures do; points drawn uniformly from a sphere
are all equally far from each other, and no index finds anything among them. Queries are further
ones. ``ours`` is the gallery's own table, index and re-ranking (``retrieval/embedding_tables.py``,
``on_disk.py``), of which LanceDB keeps all on disk, in single precision as a gallery does. FAISS
gets as many bytes a code, lists and candidates, keeps its codes in memory, and reads the
candidates' vectors from a mapped file for the exact products that ours does too. ``exact`` reads
all of that file. Each builds, and then searches, in a process of its own; the searches take turns.
Recall is of the ten largest products of the stored vectors.

DIR needs some 17 GB at ten million; it is made, and stays.
"""

import argparse
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, side_by_side
from benchmarks.side_by_side import Contestant, Prepared, Result

TOP = 10
QUERIES = 100
LATENT = 32  # directions in which embeddings vary most
_NOISE = 0.1  # of the others, beside one in each direction
_BLOCK = 2**17  # rows in memory at once
_WANTED, _REFINE = 64, 4  # as on_disk: candidates, and how many times as many have exact products
_SUBVECTOR = 16  # numbers that one byte of a code stands for, as in LanceDB
_LIST = 8192  # rows of a list of the index, as in LanceDB
_NAME = "generated"


def embeddings(folder: Path, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings f16[rows, width], mapped from a file that is made if need be, and queries.

    Args:
      folder: for the file.
      rows: how many.
      width: numbers of each.
    """
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((LATENT, width), np.float32)

    def some(number: int) -> np.ndarray:
        found = rng.standard_normal((number, LATENT), np.float32) @ plane
        found += _NOISE * math.sqrt(LATENT) * rng.standard_normal((number, width), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    queries = some(QUERIES)
    file = folder / f"embeddings-{rows}-{width}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".tmp")
        made = np.lib.format.open_memmap(unfinished, "w+", np.float16, (rows, width))
        for start in range(0, rows, _BLOCK):
            made[start : start + _BLOCK] = some(len(made[start : start + _BLOCK]))
        made.flush()
        unfinished.rename(file)
    return np.load(file, mmap_mode="r"), queries


def nearest(vectors: np.ndarray, queries: np.ndarray, number: int = TOP) -> np.ndarray:
    """Returns the rows with the largest products, i64[Q, number], best first; reads all once."""
    best = np.full((len(queries), number), -np.inf, np.float32)
    rows = np.zeros((len(queries), number), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        scores = queries @ vectors[start : start + _BLOCK].astype(np.float32).T  # [Q, block]
        there = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        best, rows = np.hstack([best, scores]), np.hstack([rows, there])
        kept = np.argpartition(-best, number - 1, axis=1)[:, :number]
        best, rows = (np.take_along_axis(one, kept, axis=1) for one in (best, rows))
    return np.take_along_axis(rows, np.argsort(-best, axis=1), axis=1)


def recall(found: Sequence[Sequence[int]], truth: np.ndarray) -> float:
    """Returns the share of the true rows that were found."""
    hits = [len({*some} & {*true.tolist()}) for some, true in zip(found, truth, strict=True)]
    return float(np.mean(hits) / truth.shape[1])


# ---- contestants: what builds, and what searches ------------------------------------------------


def build_ours(folder: Path, rows: int, width: int) -> Prepared:
    """Writes the gallery's table of embeddings and makes its index."""
    import pyarrow as pa

    from int_ra_jax.retrieval.gallery_store import GalleryStore

    vectors, _ = embeddings(folder, rows, width)
    schema = pa.schema([("digest", pa.string()), ("rows", pa.list_(pa.float32(), width))])

    def batches() -> Iterator[Any]:
        for start in range(0, rows, _BLOCK):
            block = vectors[start : start + _BLOCK].astype(np.float32)
            digests = pa.array([_digest(row) for row in range(start, start + len(block))])
            flat = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)
            yield pa.RecordBatch.from_arrays([digests, flat], schema=schema)

    shutil.rmtree(folder / "ours", ignore_errors=True)  # of a run before
    store = GalleryStore(folder / "ours")
    began = time.perf_counter()
    store._db.create_table(f"vectors_{_NAME}", batches(), schema=schema)
    written = time.perf_counter()
    store.index(_NAME)
    return Prepared(
        lambda: None, {"write": written - began, "index": time.perf_counter() - written}
    )


def ours(folder: Path, rows: int, width: int, probes: Sequence[int]) -> Prepared:
    """Searches the gallery's table."""
    from int_ra_jax.retrieval.gallery_store import GalleryStore

    _, queries = embeddings(folder, rows, width)
    store = GalleryStore(folder / "ours")

    def search(query: np.ndarray, probes: int) -> list[int]:
        near = store.nearest(_NAME, query, _WANTED, _REFINE, probes)
        order = np.argsort(-(near.rows.astype(np.float32) @ query))[:TOP]
        return [int(near.digests[place], 16) for place in order]

    return _prepared(search, queries, probes)


def build_faiss(folder: Path, rows: int, width: int) -> Prepared:
    """Makes FAISS's index and writes it."""
    import faiss

    vectors, _ = embeddings(folder, rows, width)
    lists = max(round(rows / _LIST), 1)
    began = time.perf_counter()
    quantiser = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFPQ(
        quantiser, width, lists, width // _SUBVECTOR, 8, faiss.METRIC_INNER_PRODUCT
    )
    sample = np.sort(
        np.random.default_rng(1).choice(rows, min(rows, max(64 * lists, 2**16)), replace=False)
    )
    index.train(vectors[sample].astype(np.float32))
    trained = time.perf_counter()
    for start in range(0, rows, _BLOCK):
        index.add(vectors[start : start + _BLOCK].astype(np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))
    return Prepared(
        lambda: None, {"write": time.perf_counter() - trained, "index": trained - began}
    )


def faiss_ivf_pq(folder: Path, rows: int, width: int, probes: Sequence[int]) -> Prepared:
    """Searches FAISS's index, and the mapped file for exact products."""
    import faiss

    vectors, queries = embeddings(folder, rows, width)
    index = faiss.read_index(str(folder / "index.faiss"))

    def search(query: np.ndarray, probes: int) -> list[int]:
        index.nprobe = probes
        _, near = index.search(query[None], _WANTED * _REFINE)
        rows = near[0][near[0] >= 0]
        order = np.argsort(-(vectors[rows].astype(np.float32) @ query))[:TOP]
        found: list[int] = rows[order].tolist()
        return found

    return _prepared(search, queries, probes)


def exact(folder: Path, rows: int, width: int) -> Prepared:
    """Searches the mapped file alone, one query a round."""
    vectors, queries = embeddings(folder, rows, width)

    def search(query: np.ndarray, probes: int) -> list[int]:
        found: list[int] = nearest(vectors, query[None])[0].tolist()
        return found

    return _prepared(search, queries[:1], [0])


def _digest(row: int) -> str:
    return f"{row:064x}"  # as long as a gallery's


def _prepared(
    search: Callable[[np.ndarray, int], list[int]], queries: np.ndarray, probes: Sequence[int]
) -> Prepared:
    def run() -> dict[int, list[tuple[float, list[int]]]]:
        found: dict[int, list[tuple[float, list[int]]]] = {}
        for number in probes:
            for query in queries:
                began = time.perf_counter()
                rows = search(query, number)
                found.setdefault(number, []).append((time.perf_counter() - began, rows))
        return found

    return Prepared(run)


# ---- tables -------------------------------------------------------------------------------------


def search_rows(searched: Mapping[str, Result], truth: np.ndarray) -> list[dict[str, str]]:
    """Returns the table of searches."""
    rows = []
    for name, result in searched.items():
        for probes in result.values[0]:
            asked = [one for value in result.values for one in value[probes]]
            p50, p99 = 1e3 * np.quantile([seconds for seconds, _ in asked], [0.5, 0.99])
            found = [rows for _, rows in result.values[0][probes]]
            rows.append(
                {
                    "": name,
                    "lists read": str(probes or "all"),
                    f"recall@{TOP}": f"{100 * recall(found, truth[: len(found)]):.1f}",
                    "p50 ms": f"{p50:.1f}",
                    "p99 ms": f"{p99:.1f}",
                    "peak GB": f"{result.peak_bytes / 1e9:.2f}",
                }
            )
    return rows


def build_rows(built: Mapping[str, Result], bytes_of: Mapping[str, int]) -> list[dict[str, str]]:
    """Returns the table of what building takes."""
    return [
        {
            "": name,
            "index s": f"{result.facts['index']:.0f}",
            "write s": f"{result.facts['write']:.0f}",
            "peak GB": f"{result.peak_bytes / 1e9:.1f}",
            "disk GB": f"{bytes_of[name] / 1e9:.2f}",
        }
        for name, result in built.items()
    ]


def main() -> None:
    """Builds both indexes, lets them search in turn, and prints both tables."""
    arguments = _parse()
    folder, size = arguments.folder, (arguments.rows, arguments.width)
    said = dict(folder=folder, rows=size[0], width=size[1])
    command.say("embeddings ...")
    vectors, queries = embeddings(folder, *size)
    truth = nearest(vectors, queries)
    here = "benchmarks.large_gallery:"
    built = {}
    for name, factory in (("ours", "build_ours"), ("FAISS IVF-PQ", "build_faiss")):
        # One after the other, since each takes all cores and much memory.
        built |= side_by_side.race({name: Contestant(here + factory, said)}, 0)
    asked = {**said, "probes": arguments.probes}
    searched = side_by_side.race(
        {
            "ours": Contestant(f"{here}ours", asked),
            "FAISS IVF-PQ": Contestant(f"{here}faiss_ivf_pq", asked),
            "exact": Contestant(f"{here}exact", said),
        },
        arguments.rounds,
    )
    table = sum(one.stat().st_size for one in (folder / "ours").rglob("*") if one.is_file())
    index = (folder / "index.faiss").stat().st_size
    bytes_of = {"ours": table, "FAISS IVF-PQ": index + vectors.nbytes}
    tables = build_rows(built, bytes_of), search_rows(searched, truth)
    command.publish(
        arguments, "\n\n".join(map(command.table, tables)), built=tables[0], searched=tables[1]
    )


def _parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for embeddings and indexes")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument(
        "--probes", type=lambda given: [int(one) for one in given.split(",")], default="20,64",
        help="lists of the index that a search reads",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="of all queries, after two more")
    return parser.parse_args()


if __name__ == "__main__":
    main()
