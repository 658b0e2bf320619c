"""What an open gallery costs: a put of 100 stickers, and a search of 489 to a million.

    python -m benchmarks.gallery --workdir=runs/demo [--sizes=489,100000,1000000] [--rounds=20]
        [--put=100] [--index=100000] [--out=FILE]

Embeddings are generated unit vectors of the run's width, the query a further one; half of the
stickers pass the filter. ``reply`` is the whole of a reply, the conversation's encoding included;
the others look for one vector: ``ours`` as a reply does, in memory; numpy by a product and a
partition; LanceDB by its flat scan, filter first, and, from ``--index`` rows on, as
``retrieval/on_disk.py`` asks: an index's candidates with exact products, filter last, rows padded
(``benchmarks.large_gallery`` has what such an index finds). All take their turns in each round, in
one process.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.search import unit_vectors

TOP = 5
_AT_ONCE = 100_000  # rows written to LanceDB at once
_CANDIDATES, _REFINE, _PROBES, _PART = 64, 4, 64, 16  # as on_disk and embedding_tables


def pictures(count: int) -> list[bytes]:
    """Returns drawn stickers, each its own."""
    from PIL import Image, ImageDraw

    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        colours = rng.integers(0, 255, (3, 3)).tolist()
        image = Image.new("RGB", (256, 256), tuple(colours[0]))
        draw = ImageDraw.Draw(image)
        for colour in colours[1:]:
            x, y = rng.integers(0, 128, 2).tolist()
            draw.ellipse((x, y, x + 120, y + 100), fill=tuple(colour))
        content = io.BytesIO()
        image.save(content, "PNG")
        found.append(content.getvalue())
    return found


def put_seconds(workdir: Path, folder: Path, count: int) -> dict[str, float]:
    """Returns how long a gallery takes for its first put, a second one, and to open again."""
    from int_ra_jax.retrieval.gallery import Gallery
    from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
    from int_ra_jax.retrieval.stickers import GallerySticker

    encoder, found = StickerEncoder.from_workdir(workdir), {}
    gallery = Gallery.open(folder / "put", encoder)
    drawn = pictures(2 * count + 1)
    for place, name in enumerate((f"first put, of {count}, with compiling", f"put of {count}")):
        some = [
            GallerySticker(f"s{number}", drawn[number], emoji=("😭",))
            for number in range(place * count, (place + 1) * count)
        ]
        found[name] = _seconds(lambda some=some: gallery.put(some))
    one = GallerySticker("one", drawn[-1], emoji=("👋",))
    gallery.put([GallerySticker("few", drawn[0])])  # compiles the program of few
    found["put of one"] = _seconds(lambda: gallery.put([one]))
    found["open again"] = _seconds(lambda: Gallery.open(folder / "put", encoder))
    return found


def lance_table(folder: Path, vectors: np.ndarray, passes: np.ndarray) -> Any:
    """Returns a table of LanceDB with rows, vectors f32[N, W] and whether they pass the filter."""
    import lancedb
    import pyarrow as pa

    size, width = vectors.shape
    vector = pa.list_(pa.float32(), width)
    schema = pa.schema([("row", pa.int64()), ("passes", pa.bool_()), ("vector", vector)])
    table = lancedb.connect(folder).create_table("vectors", schema=schema)
    for start in range(0, size, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        flat = pa.array(vectors[some].reshape(-1))
        rows = pa.array(np.arange(size)[some])
        columns = [rows, pa.array(passes[some]), pa.FixedSizeListArray.from_arrays(flat, width)]
        table.add(pa.Table.from_arrays(columns, schema=schema))
    return table


def lance_searches(
    folder: Path, vectors: np.ndarray, mask: np.ndarray, query: np.ndarray, index: bool
) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Returns LanceDB's searches, and the seconds that its index took; see ``searches``."""
    behind = (0, -len(query) % _PART)
    table = lance_table(folder, np.pad(vectors, ((0, 0), behind)), mask)
    asked = np.pad(query, behind)

    def by_scan() -> Any:
        search = table.search(asked).distance_type("dot").where("passes", prefilter=True).limit(TOP)
        return search.bypass_vector_index().select(["row", "_distance"]).to_arrow()

    def by_index() -> Any:
        search = table.search(asked).distance_type("dot").limit(_CANDIDATES)
        search = search.refine_factor(_REFINE).nprobes(_PROBES)
        near = search.select(["row", "_distance"]).to_arrow()["row"].to_numpy()
        return near[mask[near]][:TOP]

    if not index:
        return {"LanceDB, scan": by_scan}, {}
    from lancedb.index import IvfPq

    made = _seconds(lambda: table.create_index("vector", config=IvfPq(distance_type="dot")))
    return {"LanceDB, scan": by_scan, "LanceDB, index": by_index}, {"index": made}


def searches(
    workdir: Path, folder: Path, size: int, index: bool
) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Returns name -> what searches once, and seconds that it took to prepare.

    Args:
      workdir: of the run.
      folder: for LanceDB's table.
      size: of the gallery.
      index: whether LanceDB makes an index.
    """
    import jax
    import jax.numpy as jnp

    from int_ra_jax.common.types import Sticker
    from int_ra_jax.retrieval.retriever import Retriever
    from int_ra_jax.retrieval.shelf import power_of_two
    from int_ra_jax.run.ranking import top_k

    retriever = Retriever.from_workdir(workdir)
    engine, width = retriever._engine, retriever.width
    vectors = unit_vectors(size + 1, width)
    vectors, query = vectors[:-1], vectors[-1]
    mask = np.random.default_rng(1).random(size) < 0.5
    padded = power_of_two(size) - size
    matrix = jax.device_put(np.pad(vectors, ((0, padded), (0, 0))))
    passed = np.pad(mask, (0, padded))
    tokens, _ = engine.compose(retriever.run.dataset.conversations("test", [0]))

    @jax.jit
    def best(matrix: Any, query: Any, mask: Any) -> Any:
        scores = jnp.einsum("nd,d->n", matrix, query, precision=jax.lax.Precision.HIGHEST)
        return top_k(jnp.where(mask, scores, -jnp.inf), TOP)

    def by_numpy() -> Any:
        scores = np.where(mask, vectors @ query, -np.inf)
        some = np.argpartition(-scores, TOP)[:TOP]
        return some[np.argsort(-scores[some])]

    lance, prepared = lance_searches(folder / f"lance-{size}", vectors, mask, query, index)
    found: dict[str, Callable[[], Any]] = {
        "reply": lambda: engine.rank(tokens, Sticker(matrix), [passed], TOP),
        "ours": lambda: jax.device_get(best(matrix, query, passed)),
        "numpy": by_numpy,
        **lance,
    }
    rows = jax.device_get(best(matrix, query, passed))[1]
    if rows.tolist() != by_numpy().tolist():
        raise AssertionError(f"ours finds {rows.tolist()}, numpy {by_numpy().tolist()}")
    return found, prepared


def rounds(found: dict[str, Callable[[], Any]], count: int) -> dict[str, list[float]]:
    """Returns seconds of each, which take their turns; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(count + 1):
        for name, search in found.items():
            took = _seconds(search)
            if turn:
                seconds[name].append(took)
    return seconds


def rows_of(measured: dict[int, dict[str, list[float]]]) -> list[dict[str, str]]:
    """Returns the table of searches."""
    rows = []
    for size, seconds in measured.items():
        mine = statistics.median(seconds["ours"])
        for name, each in seconds.items():
            p50, p99 = np.percentile(each, [50, 99])
            rows.append(
                {
                    "gallery": f"{size:,}",
                    "": name,
                    "p50 ms": f"{1e3 * p50:.2f}",
                    "p99 ms": f"{1e3 * p99:.2f}",
                    "/ ours": f"{p50 / mine:.2f}",
                }
            )
    return rows


def main() -> None:
    """Prints puts and searches."""
    arguments = _parse()
    command.use_device("cpu")
    measured, prepared = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        puts = put_seconds(arguments.workdir, folder, arguments.put)
        for size in arguments.sizes:
            found, took = searches(arguments.workdir, folder, size, size >= arguments.index)
            measured[size], prepared[size] = rounds(found, arguments.rounds), took
            del found  # a million vectors, twice
    lines = [{"": name, "s": f"{s:.2f}"} for name, s in puts.items()]
    report = f"{command.table(lines)}\n\n{command.table(rows_of(measured))}"
    command.publish(arguments, report, puts=puts, searches=measured, prepared=prepared)


def _seconds(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    sizes = "rows, comma-separated"
    parser.add_argument(
        "--sizes", type=lambda given: [int(size) for size in given.split(",")],
        default="489,100000,1000000", help=sizes,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds of each")
    parser.add_argument("--put", type=int, default=100, help="stickers of a put")
    parser.add_argument("--index", type=int, default=100_000, help="rows for LanceDB's index")
    return parser.parse_args()


if __name__ == "__main__":
    main()
