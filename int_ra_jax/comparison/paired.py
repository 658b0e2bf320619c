"""Rows over one sample: means with their spread, and families of tests of some against others.

A sample is the queries of a split, or the posts that many people have answered. The unit of every
test is the query or post: its values are averaged over a system's seeds first, then paired between
systems. What belongs together, such as the queries of one post, is resampled together. The spread
between seeds stands beside it, as the standard deviation.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from int_ra_jax.comparison.evaluated import Columns
from int_ra_jax.comparison.layout import COLUMNS
from int_ra_jax.comparison.results import Spread, Test
from int_ra_jax.evaluation import significance

Planned = tuple[str, str, str]  # system, other row, column


@dataclass(frozen=True, eq=False)
class Sample:
    """What every row has in each query or post of a sample.

    Attributes:
      values: row -> column -> value of each query, averaged over seeds.
      clusters: what each is resampled with; None where each is by itself.
      resamples: of every bootstrap.
    """

    values: Mapping[str, Columns]
    clusters: Sequence[str] | None
    resamples: int

    def spreads(self, name: str, seeds: Sequence[Columns]) -> dict[str, Spread]:
        """Returns each column of a row: its mean, and how far it can be trusted.

        Args:
          name: of the row.
          seeds: its values under each seed; empty where there are none, as for a reference row.
        """
        columns = self.values[name]
        intervals = significance.bootstrap_intervals(
            columns, clusters=self.clusters, resamples=self.resamples
        )
        spreads = {}
        for column in columns:
            each = [float(np.nanmean(values[column])) for values in seeds]
            spreads[column] = Spread(
                mean=float(np.mean(each)) if each else intervals[column]["value"],
                sd=float(np.std(each, ddof=1)) if len(each) > 1 else None,
                low=intervals[column]["low"],
                high=intervals[column]["high"],
                seeds=tuple(each),
            )
        return spreads


def over_seeds(seeds: Sequence[Columns], columns: Sequence[str]) -> Columns:
    """Averages each query's values over seeds; a query is left out of all of them or of none."""
    return {name: np.mean([values[name] for values in seeds], axis=0) for name in columns}


def pairs(tested: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (system, other) for every pair to test, each once, whether or not it is complete."""
    return [
        (system, other)
        for number, system in enumerate(tested)
        for other in others
        if other not in (*tested[:number], system)
    ]


def family(name: str, planned: Sequence[Planned], sample: Sample) -> list[Test]:
    """Runs the tests of a family and corrects them for its size by Holm's method.

    A test that is undefined, or whose runs are not there yet, still counts in the size: what is
    significant must not depend on what has been trained so far.

    Args:
      name: of the family.
      planned: every test that belongs to it.
      sample: with the rows that there are.
    """
    tests = [
        _test(name, one, sample)
        for one in planned
        if all(one[2] in sample.values.get(row, ()) for row in one[:2])
    ]
    corrected = _holm([1.0 if test.p is None else test.p for test in tests], len(planned))
    hits = sum(COLUMNS[column].hit for _, _, column in planned)
    signs = iter(_holm([t.p_sign for t in tests if t.p_sign is not None], hits))
    return [
        dataclasses.replace(
            test,
            p_holm=None if test.p is None else float(p),
            p_sign_holm=None if test.p_sign is None else float(next(signs)),
        )
        for test, p in zip(tests, corrected, strict=True)
    ]


def _holm(p_values: Sequence[float], size: int) -> Sequence[float]:
    """Corrects for ``size`` tests, of which these are the ones there are."""
    if not p_values:
        return []
    absent = [1.0] * (size - len(p_values))
    corrected: Sequence[float] = significance.holm([*p_values, *absent])[: len(p_values)].tolist()
    return corrected


def _test(name: str, planned: Planned, sample: Sample) -> Test:
    system, other, column = planned
    a, b = (sample.values[row][column] for row in (system, other))
    clusters, resamples = sample.clusters, sample.resamples
    boot = significance.paired_bootstrap(a, b, clusters=clusters, resamples=resamples)
    t = p = None
    note = ""
    try:
        result = significance.paired_t(a, b, clusters=clusters)
        t, p = result["t"], result["p"]
    except ValueError as error:
        note = str(error)
    ratio: dict[str, float] = {}
    if np.nanmean(b):
        ratio = significance.ratio_bootstrap(a, b, clusters=clusters, resamples=resamples)
    test = Test(
        name, system, other, column, boot["difference"],
        ratio.get("ratio"), ratio.get("low"), ratio.get("high"),
        boot["low"], boot["high"], t, p, note=note,
    )  # fmt: skip
    if not COLUMNS[column].hit:
        return test
    sign = significance.exact_sign_test(a, b, clusters=clusters)
    wins, losses, ties = (int(sign[key]) for key in ("wins", "losses", "ties"))
    return dataclasses.replace(test, wins=wins, losses=losses, ties=ties, p_sign=sign["p"])
