"""Figures of unseen stickers, pooled over tables that hold out different ones."""

import csv
import json

import numpy as np
import pytest
from fixtures.compared import write_evaluation

from int_ra_jax.comparison.hold_outs import pool

ROWS = {"int_ra": 0.4, "without_attribute": 0.1}
HELD_OUT = (("s0", "s1"), ("s1", "s2"))  # s1 twice, as the last of few stickers may be
QUERIES = {f"q{number}": f"s{number % 3}" for number in range(12)}


def value(row, seed, table, query):
    """A reciprocal rank among all stickers."""
    rng = np.random.default_rng([seed, table, int(query[1:]), *row.encode()])
    return float(np.clip(ROWS.get(row, 0.2) + rng.normal(scale=0.01), 0, 1))


def row_values(mrr):
    hits = {"hit@1": 0.0, "hit@5": 1.0, "hit@10": 1.0}
    return {
        "all": {**hits, "reciprocal_rank": mrr},
        "unseen": {**hits, "reciprocal_rank": min(1.0, 2 * mrr)},
    }


def write_run(workdir, name, seed, table, held, own="int_ra"):
    lines = []
    for query, sticker in QUERIES.items():
        line = {"id": query, "seed": seed, "sticker": sticker, "systems": {}}
        if sticker in held:
            line["cold_start"] = {
                own: row_values(value(name, seed, table, query)),
                "popular": row_values(value("popular", 0, table, query)),
            }
        lines.append(json.dumps(line))
    write_evaluation(workdir, own, seed)
    (workdir / "eval" / "per_query.jsonl").write_text("\n".join(lines) + "\n")
    path = workdir / "eval" / "report.json"
    report = {**json.loads(path.read_text()), "cold_start": {"queries": 8} if held else None}
    path.write_text(json.dumps(report))


def write_table(directory, number, held, rows=tuple(ROWS), error=""):
    runs = []
    for name in rows:
        for seed in (0, 1):
            workdir = directory / "runs" / name / f"seed-{seed}"
            write_run(workdir, name, seed, number, held)
            runs.append({"system": name, "seed": seed, "workdir": str(workdir), "error": error})
    (directory / "table").mkdir()
    with (directory / "table" / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["system", "seed", "workdir", "error"])
        writer.writeheader()
        writer.writerows(runs)
    return directory


@pytest.fixture
def tables(tmp_path):
    return [write_table(tmp_path / str(n), n, held) for n, held in enumerate(HELD_OUT)]


def figure(lines, row, place):
    """The mrr in per cent, of the first table (all stickers) or the second (the unseen)."""
    found = [line for line in lines if line.startswith(f"| {row} |")][place]
    return found.split("|")[-2].strip()


def test_a_query_counts_once_over_the_tables_that_hold_out_its_sticker(tables):
    lines = pool(tables, resamples=50)
    assert lines[0] == "12 queries, 3 stickers, 2 hold-outs."
    expected = []
    for seed in (0, 1):
        by_query = [
            np.mean([value("int_ra", seed, t, q) for t in (0, 1) if sticker in HELD_OUT[t]])
            for q, sticker in QUERIES.items()
        ]
        expected.append(100 * np.mean(by_query))
    assert figure(lines, "int_ra", 0) == f"{np.mean(expected):.1f} ± {np.std(expected, ddof=1):.1f}"
    popular = np.mean(
        [
            np.mean([value("popular", 0, t, q) for t in (0, 1) if sticker in HELD_OUT[t]])
            for q, sticker in QUERIES.items()
        ]
    )
    assert figure(lines, "popular", 0) == f"{100 * popular:.1f}"
    assert float(figure(lines, "without_attribute", 1).split(" ")[0]) > 15


def test_the_main_row_is_tested_against_every_other_one_over_stickers(tables):
    lines = pool(tables, resamples=50)
    tested = [line for line in lines if line.startswith("- ")]
    assert [line.split(":")[0] for line in tested] == 2 * ["- without_attribute", "- popular"]
    assert tested[0].startswith("- without_attribute: +30.") and "better" in tested[0]
    mirrored = pool(tables, main="without_attribute", resamples=50)
    assert "significantly worse" in next(x for x in mirrored if x.startswith("- int_ra"))


def test_a_row_that_is_complete_in_no_table_is_left_out(tables):
    for table in tables:
        path = table / "table" / "runs.csv"
        path.write_text(path.read_text() + "best,0,somewhere,not done yet\n")
    assert not any("best" in line for line in pool(tables, resamples=20))


def test_rows_that_are_not_in_every_table_are_named(tables, tmp_path):
    third = write_table(tmp_path / "third", 2, ("s0", "s2"), rows=("int_ra",))
    with pytest.raises(ValueError, match=r"not in every table: without_attribute \(seed 0\), with"):
        pool([*tables, third])


def test_what_cannot_be_pooled_is_said(tables, tmp_path):
    with pytest.raises(ValueError, match="no row 'best': there are int_ra"):
        pool(tables, main="best")
    with pytest.raises(ValueError, match="train lacks no sticker that was sent"):
        pool([write_table(tmp_path / "none", 0, ())])
    with pytest.raises(ValueError, match="has no complete run:\n  int_ra, seed 0: not done yet"):
        pool([write_table(tmp_path / "part", 0, ("s0",), error="not done yet")])
    with pytest.raises(ValueError, match=r"is no list of a table's runs"):
        pool([tmp_path / "nowhere"])
    other_seed = tables[1] / "runs" / "int_ra" / "seed-1" / "eval" / "per_query.jsonl"
    other_seed.write_text(other_seed.read_text().replace('"seed": 1', '"seed": 3'))
    with pytest.raises(ValueError, match=r"jsonl:\d+: ValueError: seed 3 where seed 1 belongs"):
        pool(tables)
    path = tables[0] / "runs" / "int_ra" / "seed-0" / "eval" / "per_query.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    old = [json.dumps({k: v for k, v in line.items() if k != "cold_start"}) for line in lines]
    path.write_text("\n".join(old))
    with pytest.raises(ValueError, match="evaluate again"):
        pool(tables)
