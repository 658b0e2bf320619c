"""Evaluated runs, read back from the files that their evaluations left.

Everything is checked value by value: the files may come from another machine.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from int_ra_jax.common import phases
from int_ra_jax.comparison.layout import AGREEMENT, PEOPLE, Column, columns_of, in_order
from int_ra_jax.evaluation.cases import ECHO
from int_ra_jax.evaluation.plots import Curve

_MAX_BYTES = 2**30
T = TypeVar("T")
_ROUNDING = 1e-9  # a sum of shares, as in nDCG, may end above 1 by this

Columns = Mapping[str, Float[np.ndarray, " Q"]]  # column -> value of each query, NaN: left out


@dataclass(frozen=True)
class Case:
    """A named subset of the queries: how many, and row -> column -> mean over them."""

    queries: int
    means: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Agreement:
    """How people and rows answer posts that many have answered, in the order of the posts' names.

    Attributes:
      posts: their names.
      people: measure of PEOPLE -> value of each post.
      values: row -> column of AGREEMENT -> value of each post.
    """

    posts: tuple[str, ...]
    people: Columns
    values: Mapping[str, Columns]


@dataclass(frozen=True, eq=False)
class RunResult:
    """One evaluated run; the queries of its headline, in the order of their ids.

    Attributes:
      workdir: of the run.
      seed: it was trained with.
      ids: of the queries.
      intentions: annotated intention of each query.
      golds: sticker of each query.
      values: row (``main`` and the references) -> values of each query.
      curves: row -> precision over recall.
      report: the run's report.json, as far as it is read here.
      clusters: what each query is resampled with, such as its post; its id where it is by itself.
      cases: name -> that subset of the queries, those outside the headline among them.
      agreement: with people, where posts were answered by many.
    """

    workdir: Path
    seed: int
    ids: tuple[str, ...]
    intentions: tuple[str, ...]
    golds: tuple[str, ...]
    values: Mapping[str, Columns]
    curves: Mapping[str, Curve]
    report: Mapping[str, Any]
    clusters: tuple[str, ...]
    cases: Mapping[str, Case] = field(default_factory=dict)
    agreement: Agreement | None = None

    @property
    def main(self) -> str:
        """Name of the run's own row."""
        return str(self.report["main_system"])

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the other rows, in the order of the table."""
        return in_order(set(self.values) - {self.main})

    @property
    def protocol(self) -> str:
        """Which stickers counted as right."""
        return str(self.report["protocol"]["name"])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns that the evaluation has recorded."""
        return tuple(self.values[self.main])

    @property
    def facts(self) -> dict[str, float | None]:
        """Parameters, training time in seconds and ranking time in ms; None: not recorded."""
        return _facts(self.report["run"])


@dataclass(frozen=True)
class _Query:
    """One line of per_query.jsonl; ``values`` are [rows, columns]."""

    id: str
    intention: str
    sticker: str
    cluster: str
    headline: bool
    cases: tuple[str, ...]
    values: list[list[float]]


def read_run(workdir: Path, seed: int) -> RunResult:
    """Reads what the evaluation of a run has written.

    Args:
      workdir: of the run.
      seed: it was trained with; every line must say so, too.

    Raises:
      ValueError: if a file is missing, damaged or of another seed; names file and line.
    """
    directory = workdir / "eval"
    report = read_report(directory / "report.json")
    path = directory / "per_query.jsonl"
    names = (report["main_system"], *(x for x in report["systems"] if x != report["main_system"]))
    columns: list[Column] = []

    def parse(row: dict[str, Any]) -> _Query:
        if not columns:
            columns.extend(_recorded(row, names[0], report["protocol"]["name"]))
        return _query(row, names, columns, seed)

    queries = read_lines(path, parse)
    queries.sort(key=lambda query: query.id)
    headline = [query for query in queries if query.headline]
    if not headline or len({query.id for query in queries}) < len(queries):
        raise ValueError(f"{path}: {'a query is there twice' if headline else 'no query'}")
    return RunResult(
        workdir,
        seed,
        tuple(query.id for query in headline),
        tuple(query.intention for query in headline),
        tuple(query.sticker for query in headline),
        _by_row(headline, names, columns),
        _curves(directory / "pr_curve.csv"),
        report,
        tuple(query.cluster for query in headline),
        _cases(queries, names, columns),
        _agreement(directory / "per_post.jsonl", names),
    )


def _by_row(
    queries: Sequence[_Query], names: Sequence[str], columns: Sequence[Column]
) -> dict[str, Columns]:
    table = np.array([query.values for query in queries], np.float64)  # [Q, rows, columns]
    return {
        name: {column.name: table[:, i, j] for j, column in enumerate(columns)}
        for i, name in enumerate(names)
    }


def _cases(
    queries: Sequence[_Query], names: Sequence[str], columns: Sequence[Column]
) -> dict[str, Case]:
    cases = {}
    for case in sorted({case for query in queries for case in query.cases}):
        # An echo is alone or beside words, too; the case of echoes alone has it (see figures).
        members = [q for q in queries if case in q.cases and (q.headline or case == ECHO)]
        if not members:
            continue
        scored = [query for query in members if not math.isnan(query.values[0][0])]
        values = _by_row(scored, names, columns) if scored else {}
        means = {
            name: {column: float(value.mean()) for column, value in row.items()}
            for name, row in values.items()
        }
        cases[case] = Case(len(members), means)
    return cases


def _agreement(path: Path, names: Sequence[str]) -> Agreement | None:
    """Reads the posts that many have answered; None where the evaluation found none."""
    if not path.exists():
        return None
    rows: list[str] = []

    def parse(post: dict[str, Any]) -> tuple[str, list[float], list[list[float]]]:
        if not rows:
            rows.extend(name for name in names if name in post["systems"])
        if names[0] not in rows or not isinstance(post["post"], str):
            raise ValueError("post is a text, and the run's own system is there")
        people = [_share(post["people"][key], key) for key in PEOPLE]
        values = [
            [_share(post["systems"][name][column.key], name) for column in AGREEMENT]
            for name in rows
        ]
        return post["post"], people, values

    posts = read_lines(path, parse)
    if not posts:
        return None
    posts.sort(key=lambda post: post[0])
    if len({post[0] for post in posts}) < len(posts):
        raise ValueError(f"{path}: a post is there twice")
    people, table = np.array([post[1] for post in posts]), np.array([post[2] for post in posts])
    return Agreement(
        tuple(post[0] for post in posts),
        {key: people[:, j] for j, key in enumerate(PEOPLE)},
        {
            name: {column.name: table[:, i, j] for j, column in enumerate(AGREEMENT)}
            for i, name in enumerate(rows)
        },
    )


def read_report(path: Path) -> dict[str, Any]:
    """Reads report.json, and checks what is read of it here.

    Raises:
      ValueError: if it is missing or damaged; names it.
    """
    text = _text(path)
    try:
        report: dict[str, Any] = json.loads(text)
        _ = [report["dataset"][key] for key in ("name", "has_knowledge")]
        _ = [report["protocol"]["name"], report["title"]]
        if not {"chance", report["main_system"]} <= {*report["systems"]}:
            raise ValueError("systems lacks chance or the run's own row")
        if not isinstance(report["main_system"], str):
            raise TypeError("main_system is no text")
        if not 0 <= report["prevalence"] <= 1:
            raise ValueError("prevalence is outside [0, 1]")
        _ = _facts(report["run"]), dict(report["run"]["versions"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}; evaluate again") from error
    return report


def _facts(run: Mapping[str, Any]) -> dict[str, float | None]:
    recorded = {
        "parameters": sum(run["parameters"].values()),
        "trained": run.get("trained"),
        "training_seconds": run["wall_time_s"].get(phases.TRAINING),
        "ranking_ms": run.get("ranking_ms"),
    }
    return {name: None if value is None else float(value) for name, value in recorded.items()}


def _recorded(row: dict[str, Any], main: str, protocol: str) -> list[Column]:
    """Returns the protocol's columns without those that came later than this evaluation."""
    known = row["systems"][main]
    return [c for c in columns_of(protocol) if c.key in known or not c.added_later]


def _query(
    row: dict[str, Any], names: Sequence[str], columns: Sequence[Column], seed: int
) -> _Query:
    if row["seed"] != seed:
        raise ValueError(f"seed {row['seed']!r} where seed {seed} belongs")
    texts = [row[key] for key in ("id", "intention", "sticker")]
    cluster, headline = row.get("cluster", texts[0]), row.get("headline", True)
    cases = tuple(row.get("cases", ()))
    if not all(isinstance(text, str) for text in (*texts, cluster, *cases)):
        raise TypeError("id, intention, sticker, cluster and cases are texts")
    if not isinstance(headline, bool):
        raise TypeError(f"headline is true or false, not {headline!r}")
    values = [[_value(row["systems"][name], column, name) for column in columns] for name in names]
    name, intention, sticker = texts
    return _Query(name, intention, sticker, cluster, headline, cases, values)


def _value(metrics: Mapping[str, Any], column: Column, name: str) -> float:
    if column.key == "gold_reciprocal_rank" and column.key not in metrics:
        return _from_rank(metrics["gold_rank"], name)
    if metrics[column.key] is None:
        return math.nan
    if not column.nats:
        return _share(metrics[column.key], f"{name} has {column.key}")
    value = float(metrics[column.key])
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} has {column.key}={value}, which is no cross-entropy")
    return value


def _from_rank(rank: Any, name: str) -> float:
    """Returns the gold MRR of evaluations that recorded the rank alone, all ties broken."""
    if rank is None:
        return math.nan
    value = float(rank)
    if not 1 <= value <= 1e8:
        raise ValueError(f"gold_rank {value} is no rank")
    if name == "chance":  # the expectation of 1 / rank, not 1 / the expected rank
        size = round(2 * value - 1)
        return math.fsum(1 / rank for rank in range(1, size + 1)) / size
    return 1 / value


def _share(number: Any, what: str) -> float:
    value = float(number)
    if not 0 <= value <= 1 + _ROUNDING:
        raise ValueError(f"{what}={value}, outside [0, 1]")
    return min(value, 1.0)


def _curves(path: Path) -> dict[str, Curve]:
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        for row in csv.DictReader(_text(path).splitlines()):
            points.setdefault(row["system"], []).append(
                (float(row["recall"]), float(row["precision"]))
            )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}; evaluate again") from error
    found = {name: np.array(pairs) for name, pairs in points.items()}
    return {name: Curve(pairs[:, 0], pairs[:, 1]) for name, pairs in found.items()}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path} is larger than {_MAX_BYTES} bytes; that is no evaluation")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; evaluate the run again") from error


def read_lines(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """Parses the JSON of every line; whatever is wrong with one names it."""
    found = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{path}:{number}: {type(error).__name__}: {error}; evaluate the run again"
            ) from error
    return found
