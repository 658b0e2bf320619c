"""What a comparison of systems shows, as plain data, and the evaluated runs it is made from.

A run is read from the files that its evaluation left, checked value by value: they may come from
another machine.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from int_ra_jax.common import phases
from int_ra_jax.evaluation.plots import Curve

# Name in the table -> name of the per-query value; gold MRR is 1 / gold_rank.
METRICS = {
    "hit@1": "hit@1",
    "hit@3": "hit@3",
    "hit@5": "hit@5",
    "precision@1": "precision@1",
    "precision@3": "precision@3",
    "precision@5": "precision@5",
    "mAP": "ap",
    "gold MRR": "gold_rank",
}
# 0 or 1 for each query of one run, so that wins and losses can be counted
HITS = ("hit@1", "hit@3", "hit@5")
REFERENCES = ("chance", "majority_intention", "prior", "linear")
_MAX_BYTES = 2**30

Columns = Mapping[str, Float[np.ndarray, " Q"]]  # metric -> value of each query, NaN: left out


@dataclass(frozen=True, eq=False)
class RunResult:
    """One evaluated run, its queries in the order of their ids.

    Attributes:
      workdir: of the run.
      seed: it was trained with.
      ids: of the queries.
      intentions: annotated intention of each query.
      golds: sticker of each query.
      values: row (``main`` and the references) -> values of each query.
      curves: row -> precision over recall.
      report: the run's report.json, as far as it is read here.
    """

    workdir: Path
    seed: int
    ids: tuple[str, ...]
    intentions: tuple[str, ...]
    golds: tuple[str, ...]
    values: Mapping[str, Columns]
    curves: Mapping[str, Curve]
    report: Mapping[str, Any]

    @property
    def main(self) -> str:
        """Name of the run's own row."""
        return str(self.report["main_system"])

    @property
    def facts(self) -> dict[str, float | None]:
        """Parameters, training time in seconds and ranking time in ms; None: not recorded."""
        return _facts(self.report["run"])


@dataclass(frozen=True)
class Spread:
    """A metric of one row: mean over seeds, and how far it can be trusted.

    Attributes:
      mean: mean over seeds of the mean over queries.
      sd: standard deviation over seeds; None for one seed and for the reference rows.
      low: of the 95% bootstrap interval over queries, each averaged over seeds first.
      high: its other end.
      seeds: the value of each seed.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
      name: of the system, reading or reference.
      kind: ``reference``, ``system`` or ``reading``.
      seeds: that are complete; empty for a reference.
      metrics: by the names of METRICS.
      facts: as RunResult.facts, averaged over seeds; empty for a reference.
      by_intention: intention -> metric -> mean over its queries and the seeds.
    """

    name: str
    kind: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Spread]
    facts: Mapping[str, float | None]
    by_intention: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Test:
    """A tested system against another row, in one metric, paired over queries.

    Attributes:
      family: ``systems`` or ``readings``; p values are corrected within it.
      system: that is tested.
      other: the row compared with.
      metric: a name of METRICS.
      difference: system minus other.
      ratio: system divided by other; None where other is 0.
      low: of the 95% paired bootstrap interval of the difference.
      high: its other end.
      t: of the paired t-test; None where it is undefined, and so are its p values.
      p: of the t-test, two-sided.
      p_holm: the same, corrected for all tests of the family.
      wins: queries in which the system is better; hits only, as the four below.
      losses: queries in which it is worse.
      ties: queries without difference.
      p_sign: of the exact sign test.
      p_sign_holm: the same, corrected for all sign tests of the family.
      note: why the t-test is undefined.
    """

    __test__ = False  # not one of pytest's

    family: str
    system: str
    other: str
    metric: str
    difference: float
    ratio: float | None
    low: float
    high: float
    t: float | None
    p: float | None
    p_holm: float | None = None
    wins: int | None = None
    losses: int | None = None
    ties: int | None = None
    p_sign: float | None = None
    p_sign_holm: float | None = None
    note: str = ""

    def mirrored(self) -> "Test":
        """Returns the same test from the other row's side."""
        ratio = 1 / self.ratio if self.ratio else None
        if self.ratio is None and self.difference:
            ratio = 0.0
        return replace(
            self, system=self.other, other=self.system, difference=-self.difference, ratio=ratio,
            low=-self.high, high=-self.low, t=None if self.t is None else -self.t,
            wins=self.losses, losses=self.wins,
        )  # fmt: skip


@dataclass(frozen=True)
class TrialRow:
    """One trial of the search: what was tried, and its best validation mAP."""

    system: str
    number: int
    values: Mapping[str, Any]
    validation: float | None
    chosen: bool
    error: str = ""


@dataclass(frozen=True)
class RunRow:
    """One run that belongs in the table: where it is, or why it is not there."""

    system: str
    seed: int
    workdir: str
    error: str = ""
    command: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything that is written.

    Attributes:
      title: heading of the page.
      main: the system that is tested against the others and that the readings vary.
      rows: references, systems, readings.
      tests: both families; a pair of tested systems stands once, on the side of the earlier one.
      queries: intention -> how many queries it has.
      curves: row -> precision over recall, averaged over seeds.
      prevalence: share of relevant pairs.
      facts: of the data and the protocol, name -> value.
      versions: of what was run.
      notes: what a reader must know.
      trials: of the search.
      runs: that belong in the table.
      resamples: of the bootstrap.
      also_tested: further systems that are tested against the others.
      families: family -> how many tests its p values are corrected for, those of runs that are not
        there yet included.
    """

    title: str
    main: str
    rows: Sequence[Row]
    tests: Sequence[Test]
    queries: Mapping[str, int]
    curves: Mapping[str, Curve]
    prevalence: float
    facts: Mapping[str, Any]
    versions: Mapping[str, str]
    notes: Sequence[str]
    trials: Sequence[TrialRow] = field(default=())
    runs: Sequence[RunRow] = field(default=())
    resamples: int = 0
    also_tested: Sequence[str] = ()
    families: Mapping[str, int] = field(default_factory=dict)

    @property
    def tested_systems(self) -> tuple[str, ...]:
        """Every system that is tested against the others, the main one first."""
        return (self.main, *self.also_tested)

    def row(self, name: str) -> Row | None:
        """Returns a row by its name, or None where it is not complete."""
        return next((row for row in self.rows if row.name == name), None)

    def tests_of(self, system: str, family: str) -> list[Test]:
        """Returns the tests of one system in a family, each from its side."""
        return [
            test if test.system == system else test.mirrored()
            for test in self.tests
            if test.family == family and system in (test.system, test.other)
        ]

    def test(self, system: str, other: str, metric: str) -> Test | None:
        """Returns the test of a system against one row, from its side; None where there is none."""
        for test in self.tests:
            if test.metric == metric and {test.system, test.other} == {system, other}:
                return test if test.system == system else test.mirrored()
        return None


def read_run(workdir: Path, seed: int) -> RunResult:
    """Reads what the evaluation of a run has written.

    Args:
      workdir: of the run.
      seed: it was trained with; every line must say so, too.

    Raises:
      ValueError: if a file is missing, damaged or of another seed; names file and line.
    """
    directory = workdir / "eval"
    report = _report(directory / "report.json")
    path = directory / "per_query.jsonl"
    names = (report["main_system"], *REFERENCES)
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            rows.append(_query(json.loads(line), names, seed))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{path}:{number}: {type(error).__name__}: {error}; evaluate the run again"
            ) from error
    rows.sort(key=lambda row: row[0])
    ids = tuple(row[0] for row in rows)
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{path}: {'a query is there twice' if ids else 'no query'}")
    table = np.array([row[3] for row in rows], np.float64)  # [Q, rows, metrics]
    values = {
        name: {metric: table[:, i, j] for j, metric in enumerate(METRICS)}
        for i, name in enumerate(names)
    }
    intentions, golds = tuple(row[1] for row in rows), tuple(row[2] for row in rows)
    curves = _curves(directory / "pr_curve.csv")
    return RunResult(workdir, seed, ids, intentions, golds, values, curves, report)


def _report(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        report: dict[str, Any] = json.loads(text)
        _ = [report["dataset"][key] for key in ("name", "has_knowledge")]
        _ = [report["protocol"]["name"], report["title"]]
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


def _query(
    row: dict[str, Any], names: Sequence[str], seed: int
) -> tuple[str, str, str, list[list[float]]]:
    if row["seed"] != seed:
        raise ValueError(f"seed {row['seed']!r} where seed {seed} belongs")
    texts = [row[key] for key in ("id", "intention", "sticker")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("id, intention and sticker are texts")
    values = [[_value(row["systems"][name], key, name) for key in METRICS.values()]
              for name in names]  # fmt: skip
    return texts[0], texts[1], texts[2], values


def _value(metrics: Mapping[str, Any], key: str, name: str) -> float:
    if metrics[key] is None:
        return math.nan
    value = float(metrics[key])
    if key == "gold_rank":
        if not 1 <= value <= 1e8:
            raise ValueError(f"gold_rank {value} is no rank")
        if name == "chance":  # the expectation of 1 / rank, not 1 / the expected rank
            size = round(2 * value - 1)
            return math.fsum(1 / rank for rank in range(1, size + 1)) / size
        return 1 / value
    if not 0 <= value <= 1:
        raise ValueError(f"{name} has {key}={value}, outside [0, 1]")
    return value


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
