"""The second table: how far the rows agree with people, post by post.

Where many people have answered one post with a sticker, it can be measured how often two of them
agree, and a system's answer to the post can be held against what they sent. The unit is the post.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from int_ra_jax.comparison import paired
from int_ra_jax.comparison.evaluated import Agreement, Columns, RunResult
from int_ra_jax.comparison.layout import AGREEMENT, PEOPLE, in_order
from int_ra_jax.comparison.results import Row, Test

FAMILY = "agreement"
TESTED = ("first", "five")  # of a person's answers: the one sticker, and five to choose from
_COLUMNS = tuple(column.name for column in AGREEMENT)


@dataclass(frozen=True)
class Table:
    """Rows, their tests, and what to say where there are none."""

    rows: Sequence[Row] = ()
    tests: Sequence[Test] = ()
    planned: int = 0
    posts: int = 0
    notes: Sequence[str] = ()


def table(
    groups: Mapping[str, Sequence[RunResult]],
    *,
    tested: Sequence[str],
    readings: Sequence[str],
    resamples: int,
) -> Table:
    """Makes the table, empty where no evaluation has found posts that many have answered.

    Args:
      groups: system or reading -> its evaluated runs.
      tested: systems that are tested against every other system, the references and two people.
      readings: names among ``groups`` that are variants; shown and not tested.
      resamples: of the bootstraps.
    """
    runs = [run for group in groups.values() for run in group]
    recorded = [run.agreement for run in runs if run.agreement is not None]
    if not recorded:
        return Table()
    if len(recorded) < len(runs):
        lacking = next(run.workdir for run in runs if run.agreement is None)
        return Table(
            notes=[f"agreement with people: {lacking} has not recorded it; evaluate it again"]
        )
    first = recorded[0]
    seeds = {
        name: [run.agreement.values[run.main] for run in group if run.agreement is not None]
        for name, group in groups.items()
        if group
    }
    references = _references(runs, recorded)
    values: dict[str, Columns] = {
        **{key: {PEOPLE[key]: column} for key, column in first.people.items()},
        **references,
        **{name: paired.over_seeds(each, _COLUMNS) for name, each in seeds.items()},
    }
    sample = paired.Sample(values, None, resamples)
    rows = [
        Row(
            name,
            _kind(name, references, readings),
            tuple(run.seed for run in groups.get(name, ())),
            sample.spreads(name, seeds.get(name, ())),
            facts={},
        )
        for name in values
    ]
    others = [*(name for name in groups if name not in readings), *references]
    planned = [
        *((*pair, column) for pair in paired.pairs(tested, others) for column in TESTED),
        *((system, "two_agree", PEOPLE["two_agree"]) for system in tested),
    ]
    tests = paired.family(FAMILY, planned, sample)
    return Table(rows, tests, len(planned), len(first.posts))


def same_posts(first: RunResult, run: RunResult) -> bool:
    """Says whether two runs were held against the same people; so where one has not recorded it."""
    one, other = first.agreement, run.agreement
    if one is None or other is None:
        return True
    return one.posts == other.posts and all(
        np.allclose(column, other.people[key], rtol=0, atol=1e-9)
        for key, column in one.people.items()
    )


def _references(runs: Sequence[RunResult], recorded: Sequence[Agreement]) -> dict[str, Columns]:
    """Returns the reference rows, each of the first run that has it."""
    found: dict[str, Columns] = {}
    for run, agreement in zip(runs, recorded, strict=True):
        for name, columns in agreement.values.items():
            if name != run.main:
                found.setdefault(name, columns)
    return {name: found[name] for name in in_order(set(found))}


def _kind(name: str, references: Mapping[str, Columns], readings: Sequence[str]) -> str:
    if name in PEOPLE:
        return "people"
    if name in references:
        return "reference"
    return "reading" if name in readings else "system"
