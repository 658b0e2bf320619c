"""Stickers that training never used, pooled over the hold-outs of one data set.

One hold-out leaves out a fifth of the stickers, which say little of the next new one. Where several
together leave out every sticker (``data_prep.describe hold_out``), the figures are over all of
them. One table a hold-out, with the same rows:

    python -m int_ra_jax.comparison.hold_outs TABLE_DIR... [--main=int_ra]
"""

import argparse
import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from int_ra_jax.comparison import paired, texts
from int_ra_jax.comparison.evaluated import Columns, read_lines, read_report
from int_ra_jax.comparison.layout import columns_of, in_order
from int_ra_jax.evaluation.cold_start import AMONG, SHOWN

FAMILY = "cold start"
_NAMES = {column.key: column.name for column in columns_of("exact")}
_COLUMNS = tuple(_NAMES[key] for key in SHOWN)
_TESTED = "mrr"
_RANKED = {"all": "all stickers", "unseen": "the unseen alone"}
# query -> its values in each table that holds out its sticker, [among, shown]
_Queries = dict[str, list[Float[np.ndarray, "2 4"]]]
_Rows = dict[str, dict[int, _Queries]]  # row -> seed -> queries; a reference has one seed, NONE
_NONE = -1


def pool(tables: Sequence[Path], main: str = "int_ra", resamples: int = 10_000) -> list[str]:
    """Pools the queries of several tables whose sticker train lacks there.

    Args:
      tables: working directories of ``--mode=table``, one a hold-out.
      main: the row that is tested against every other.
      resamples: of the bootstrap, which draws stickers.

    Returns:
      Lines in Markdown: figures of every row, and the tests of ``main``. A query that is unseen in
      several tables counts once, by its mean, and so does one of several seeds; the tests are over
      stickers, each with all its queries.

    Raises:
      ValueError: if a table has no complete run, an evaluation is damaged or too old, no sticker is
        unseen, or rows have not the same queries.
    """
    rows: _Rows = {}
    stickers: dict[str, str] = {}
    unseen_in = Counter[str]()  # query -> in how many tables
    for table in tables:
        for number, (name, seed, workdir) in enumerate(_runs(table)):
            # Every run has the same references, of which one is enough.
            lines = _unseen(workdir, seed)
            unseen_in.update(line["id"] for line in lines if not number)
            for line in lines:
                stickers[line["id"]] = line["sticker"]
                for row, values in line["values"].items():
                    if row == line["main"]:
                        _queries(rows, name, seed)[line["id"]].append(values)
                    elif not number:
                        _queries(rows, row, _NONE)[line["id"]].append(values)
    if not stickers:
        raise ValueError(f"train lacks no sticker that was sent: {', '.join(map(str, tables))}")
    if main not in rows:
        raise ValueError(f"no row {main!r}: there are {', '.join(rows)}")
    queries = sorted(stickers)
    if unequal := [
        f"{name} (seed {seed})"
        for name, seeds in rows.items()
        for seed, found in seeds.items()
        if {query: len(values) for query, values in found.items()} != unseen_in
    ]:
        raise ValueError(f"not in every table: {', '.join(unequal)}; train these rows, too")
    clusters = [stickers[query] for query in queries]
    sent = len(set(clusters))
    told = [f"{len(queries):,} queries, {sent} stickers, {len(tables)} hold-outs."]
    for place, among in enumerate(AMONG):
        told += _section(rows, queries, clusters, place, _RANKED[among], main, resamples)
    return told


def _runs(table: Path) -> Iterator[tuple[str, int, Path]]:
    """Yields row, seed and folder of every complete run of a table."""
    path = table / "table" / "runs.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            runs = list(csv.DictReader(file))
        found = [
            (run["system"], int(run["seed"]), Path(run["workdir"]))
            for run in runs
            if not run["error"]
        ]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no list of a table's runs: {error}") from error
    if not found:
        errors = "\n  ".join(f"{run['system']}, seed {run['seed']}: {run['error']}" for run in runs)
        raise ValueError(f"{table} has no complete run:\n  {errors}")
    yield from found


def _unseen(workdir: Path, seed: int) -> list[dict[str, Any]]:
    """Returns the queries of stickers that train never used, each with the run's own row's name."""
    directory = workdir / "eval"
    report, path = read_report(directory / "report.json"), directory / "per_query.jsonl"
    if report.get("cold_start") is None:
        return []
    main = report["main_system"]

    def parse(line: dict[str, Any]) -> dict[str, Any] | None:
        if "cold_start" not in line:
            return None
        if line["seed"] != seed:
            raise ValueError(f"seed {line['seed']!r} where seed {seed} belongs")
        values = {row: _array(found) for row, found in line["cold_start"].items()}
        return {"id": line["id"], "sticker": line["sticker"], "main": main, "values": values}

    found = [line for line in read_lines(path, parse) if line is not None]
    if not found:
        raise ValueError(f"{path} does not tell the queries of unseen stickers; evaluate again")
    return found


def _queries(rows: _Rows, name: str, seed: int) -> _Queries:
    return rows.setdefault(name, {}).setdefault(seed, defaultdict(list))


def _array(values: Mapping[str, Mapping[str, float]]) -> Float[np.ndarray, "2 4"]:
    return np.array([[values[among][key] for key in SHOWN] for among in AMONG])


def _section(
    rows: _Rows, queries: Sequence[str], clusters: Sequence[str], place: int, ranked: str,
    main: str, resamples: int,
) -> Iterator[str]:  # fmt: skip
    """Yields figures and tests where some stickers are ranked."""

    def columns(found: _Queries) -> Columns:
        table = np.array([np.mean(found[query], axis=0)[place] for query in queries])
        return {name: table[:, number] for number, name in enumerate(_COLUMNS)}

    seeds = {name: [columns(found) for found in each.values()] for name, each in rows.items()}
    values = {name: paired.over_seeds(each, _COLUMNS) for name, each in seeds.items()}
    sample = paired.Sample(values, clusters, resamples)
    systems = [name for name, each in rows.items() if _NONE not in each]
    references = in_order({name for name, each in rows.items() if _NONE in each})
    yield from ("", f"Ranked: {ranked}.", "", f"| | {' | '.join(_COLUMNS)} |")
    yield "|---" * (len(_COLUMNS) + 1) + "|"
    for name in (*references, *systems):
        spreads = sample.spreads(name, seeds[name] if name in systems else ())
        cells = [texts.cell(column, spreads[column]) for column in _COLUMNS]
        yield f"| {name} | {' | '.join(cells)} |"
    others = [*(name for name in systems if name != main), *references]
    yield from ("", f"{main} minus each, {_TESTED} in points, p by Holm over these tests:", "")
    for test in paired.family(FAMILY, [(main, other, _TESTED) for other in others], sample):
        what = f"{texts.difference(test)}, p {texts.p_value(test.p_holm)}"
        yield f"- {test.other}: {what}: {texts.outcome(test)}"


def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", type=Path, help="working directories of tables")
    parser.add_argument("--main", default="int_ra", help="the row that is tested")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    asked = parser.parse_args()
    try:
        print(*pool(asked.tables, asked.main, asked.resamples), sep="\n")
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    _main()
