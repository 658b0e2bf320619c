"""What a comparison of systems shows, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from int_ra_jax.evaluation.plots import Curve


@dataclass(frozen=True)
class Spread:
    """A metric of one row: mean over seeds, and how far it can be trusted.

    Attributes:
      mean: mean over seeds of the mean over queries.
      sd: standard deviation over seeds; None for one seed and for the reference rows.
      low: of the 95% bootstrap interval over clusters of queries, each query averaged over seeds
        first.
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
      kind: ``reference``, ``system``, ``reading`` or ``people``.
      seeds: that are complete; empty for a reference.
      metrics: by the names of the columns.
      facts: as RunResult.facts, averaged over seeds; empty for a reference.
      by_intention: intention -> metric -> mean over its queries and the seeds.
      by_case: case -> the same.
    """

    name: str
    kind: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Spread]
    facts: Mapping[str, float | None]
    by_intention: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_case: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Test:
    """A tested system against another row, in one metric, paired over queries or posts.

    Attributes:
      family: ``systems``, ``readings`` or ``agreement``; p values are corrected within it.
      system: that is tested.
      other: the row compared with.
      metric: a column's name.
      difference: system minus other.
      ratio: system divided by other; None where other is 0.
      ratio_low: of its 95% bootstrap interval, both sides resampled together.
      ratio_high: its other end; infinite where other is 0 in many resamples.
      low: of the 95% paired bootstrap interval of the difference.
      high: its other end.
      t: of the paired t-test; None where it is undefined, and so are its p values.
      p: of the t-test, two-sided.
      p_holm: the same, corrected for all tests of the family.
      wins: clusters of queries in which the system is better; hits only, as the four below.
      losses: those in which it is worse.
      ties: those without difference.
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
    ratio_low: float | None
    ratio_high: float | None
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
        ends = [_turned(end) for end in (self.ratio_high, self.ratio_low)]
        return replace(
            self, system=self.other, other=self.system, difference=-self.difference, ratio=ratio,
            ratio_low=ends[0], ratio_high=ends[1], low=-self.high, high=-self.low,
            t=None if self.t is None else -self.t, wins=self.losses, losses=self.wins,
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
      tests: of all families; a pair of tested systems stands once, on the side of the earlier one.
      queries: intention -> how many queries it has.
      curves: row -> precision over recall, averaged over seeds.
      prevalence: share of relevant pairs.
      columns: of the table, by name (``layout``).
      primary: the one by which systems are called better.
      facts: of the data and the protocol, name -> value.
      versions: of what was run.
      notes: what a reader must know.
      trials: of the search.
      runs: that belong in the table.
      resamples: of the bootstrap.
      also_tested: further systems that are tested against the others.
      families: family -> how many tests its p values are corrected for, those of runs that are not
        there yet included.
      clusters: how many groups of queries are resampled; 0 where each query is by itself.
      cases: case -> how many queries it has.
      agreement: rows of the second table, people's first; empty where no post was answered by many.
      posts: how many posts that table is over.
      lacks: system -> the part of its method that it goes without.
    """

    title: str
    main: str
    rows: Sequence[Row]
    tests: Sequence[Test]
    queries: Mapping[str, int]
    curves: Mapping[str, Curve]
    prevalence: float
    columns: Sequence[str]
    primary: str
    facts: Mapping[str, Any]
    versions: Mapping[str, str]
    notes: Sequence[str]
    trials: Sequence[TrialRow] = field(default=())
    runs: Sequence[RunRow] = field(default=())
    resamples: int = 0
    also_tested: Sequence[str] = ()
    families: Mapping[str, int] = field(default_factory=dict)
    clusters: int = 0
    cases: Mapping[str, int] = field(default_factory=dict)
    agreement: Sequence[Row] = ()
    posts: int = 0
    lacks: Mapping[str, str] = field(default_factory=dict)

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


def _turned(end: float | None) -> float | None:
    """Returns 1 / end, with infinity for 0."""
    if end is None:
        return None
    return 1 / end if end else float("inf")
