"""Compares evaluated runs of several systems: means, spread, tests of some against the others."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from int_ra_jax.comparison import layout, paired, people
from int_ra_jax.comparison.evaluated import Columns, RunResult
from int_ra_jax.comparison.results import Comparison, Row, RunRow, TrialRow
from int_ra_jax.evaluation.plots import Curve

LEVEL = 0.05  # below which a corrected p value is called significant


def compare(
    groups: Mapping[str, Sequence[RunResult]],
    *,
    main: str,
    also_tested: Sequence[str] = (),
    readings: Sequence[str] = (),
    seeds: Sequence[int],
    tested: Sequence[str] = (),
    resamples: int = 10_000,
    trials: Sequence[TrialRow] = (),
    runs: Sequence[RunRow] = (),
    notes: Sequence[str] = (),
    lacks: Mapping[str, str] | None = None,
) -> Comparison:
    """Puts systems side by side and tests the main one, and some more, against the others.

    Args:
      groups: system or reading -> its evaluated runs, one a seed; in the order of the table.
      main: the system that is tested against every other one and the best answers without a
        model (``layout.references_tested``).
      also_tested: further systems that are tested so; a pair of tested ones is tested once.
      readings: names among ``groups`` that are variants of ``main``; a family of their own.
      seeds: that every row should have; what is missing is said in the notes.
      tested: columns to test; pairs of systems times columns are one family for Holm's
        correction. Empty: those that fit the runs' protocol.
      resamples: of the bootstraps.
      trials: of the search, to be written as they are.
      runs: that belong in the table, to be written as they are.
      notes: what else the reader must know.
      lacks: system -> the part of its method that it goes without; said in its row.

    Raises:
      ValueError: if runs were evaluated on different queries or by other right answers; names
        both.
    """
    everything = [run for group in groups.values() for run in group]
    check_same_queries(everything)
    first = everything[0] if everything else None
    protocol = first.protocol if first else "multi"
    tested = tuple(tested) or layout.columns_tested(protocol)
    sample = _sample(groups, everything, resamples)
    columns = [*next(iter(sample.values.values()), ())]
    both = (main, *also_tested)
    systems = [name for name in groups if name not in readings]
    pairs = {
        "systems": paired.pairs(both, [*systems, *layout.references_tested(protocol)]),
        "readings": paired.pairs((main,), readings),
    }
    planned = {
        name: [(*pair, c) for pair in every for c in tested] for name, every in pairs.items()
    }
    agreement = people.table(groups, tested=both, readings=readings, resamples=resamples)
    families = {name: len(tests) for name, tests in planned.items()}
    tests = [test for name in planned for test in paired.family(name, planned[name], sample)]
    return Comparison(
        title="Comparison of systems" if first is None else f"Systems on {_data(first)}",
        main=main,
        rows=_rows(groups, readings, everything, sample),
        tests=[*tests, *agreement.tests],
        queries={} if first is None else dict(sorted(Counter(first.intentions).items())),
        curves=_curves(groups, readings),
        prevalence=0.0 if first is None else float(first.report["prevalence"]),
        columns=columns,
        primary=layout.primary(protocol),
        facts={} if first is None else _facts(first),
        versions={} if first is None else first.report["run"]["versions"],
        notes=[
            *_missing(groups, seeds, main, also_tested), *_unrecorded(tested, columns, everything),
            *agreement.notes, *_knowledge(first, groups), *notes,
        ],
        trials=trials,
        runs=runs,
        resamples=resamples,
        also_tested=tuple(also_tested),
        families=families | ({people.FAMILY: agreement.planned} if agreement.rows else {}),
        clusters=len(set(sample.clusters or ())),
        cases={} if first is None else _sizes(first),
        agreement=agreement.rows,
        posts=agreement.posts,
        lacks=lacks or {},
    )  # fmt: skip


def check_same_queries(runs: Sequence[RunResult]) -> None:
    """Refuses runs that were judged on other queries or by other right answers than the first.

    Raises:
      ValueError: once, with every such run.
    """
    problems = []
    for run in runs[1:]:
        first, what = runs[0], ""
        if different := set(first.ids) ^ set(run.ids):
            what = f"{len(different)} queries are in one alone, such as {min(different)!r}"
        elif first.intentions != run.intentions or first.golds != run.golds:
            what = "the same queries have other intentions or stickers"
        elif first.protocol != run.protocol or not all(
            np.allclose(column, run.values["chance"][name], rtol=0, atol=1e-9, equal_nan=True)
            for name, column in first.values["chance"].items()
            if name in run.columns
        ):
            what = f"other stickers count as right (protocols {first.protocol} and {run.protocol})"
        elif first.clusters != run.clusters or _sizes(first) != _sizes(run):
            what = "the same queries belong to other posts or cases"
        elif not people.same_posts(first, run):
            what = "people's answers to the posts differ"
        if what:
            problems.append(f"{first.workdir} and {run.workdir}: {what}")
    if problems:
        raise ValueError(
            "runs over different queries cannot be compared; evaluate them on the same data, "
            "split and protocol:\n  " + "\n  ".join(problems)
        )


def _sizes(run: RunResult) -> dict[str, int]:
    return {name: case.queries for name, case in run.cases.items()}


def _clusters(run: RunResult) -> tuple[str, ...] | None:
    """Returns what queries are resampled with, or None where each is by itself."""
    return run.clusters if len(set(run.clusters)) < len(run.clusters) else None


def _sample(
    groups: Mapping[str, Sequence[RunResult]], runs: Sequence[RunResult], resamples: int
) -> paired.Sample:
    """Returns the values of every row in the columns that all runs have recorded.

    A reference row is of the first run that has it.
    """
    recorded = [
        column.name
        for column in layout.columns_of(runs[0].protocol if runs else "multi")
        if all(column.name in run.columns for run in runs)
    ]
    values: dict[str, Columns] = {}
    for run in runs:
        for name in run.references:
            values.setdefault(name, {column: run.values[name][column] for column in recorded})
    values = {name: values[name] for name in layout.in_order(set(values))}
    for name, group in groups.items():
        if group:
            values[name] = paired.over_seeds([run.values[run.main] for run in group], recorded)
    return paired.Sample(values, _clusters(runs[0]) if runs else None, resamples)


def _rows(
    groups: Mapping[str, Sequence[RunResult]],
    readings: Sequence[str],
    everything: Sequence[RunResult],
    sample: paired.Sample,
) -> list[Row]:
    rows = []
    for name in sample.values:
        kind = "reading" if name in readings else "system" if name in groups else "reference"
        rows.append(_row(name, kind, groups.get(name, ()), everything, sample))
    return rows


def _row(
    name: str,
    kind: str,
    group: Sequence[RunResult],
    everything: Sequence[RunResult],
    sample: paired.Sample,
) -> Row:
    columns = sample.values[name]
    facts: dict[str, float | None] = {}
    for key in group[0].facts if group else ():
        known = [value for run in group if (value := run.facts[key]) is not None]
        facts[key] = float(np.mean(known)) if known else None
    intentions = np.array(everything[0].intentions)
    scored = ~np.isnan(columns["hit@1"])
    by_intention = {
        str(intention): {column: float(values[chosen].mean()) for column, values in columns.items()}
        for intention in np.unique(intentions)
        if (chosen := scored & (intentions == intention)).any()
    }
    return Row(
        name, kind, tuple(run.seed for run in group),
        sample.spreads(name, [run.values[run.main] for run in group]),
        facts, by_intention, _by_case(name, group, everything, list(columns)),
    )  # fmt: skip


def _by_case(
    name: str,
    group: Sequence[RunResult],
    everything: Sequence[RunResult],
    columns: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Averages a row over the queries of each case; a reference is of the first run that has it."""
    sources = [(run, run.main) for run in group]
    if not group:
        sources = [(next(run for run in everything if name in run.references), name)]
    found = {}
    for case in everything[0].cases:
        means = [run.cases[case].means.get(row) for run, row in sources]
        told = [mean for mean in means if mean]
        if told:
            found[case] = {c: float(np.mean([mean[c] for mean in told])) for c in columns}
    return found


def _curves(groups: Mapping[str, Sequence[RunResult]], readings: Sequence[str]) -> dict[str, Curve]:
    """Averages the systems' curves over seeds; readings would crowd the figure."""
    curves: dict[str, Curve] = {}
    for name, group in groups.items():
        found = [run.curves[run.main] for run in group if run.main in run.curves]
        if found and name not in readings:
            curves[name] = Curve(found[0].x, np.mean([curve.y for curve in found], axis=0))
            for reference in ("linear", "prior", "popular", "zero_shot"):
                if reference in group[0].curves:
                    curves.setdefault(reference, group[0].curves[reference])
    references = {name: curves.pop(name) for name in layout.REFERENCES if name in curves}
    return curves | references


def _missing(
    groups: Mapping[str, Sequence[RunResult]],
    seeds: Sequence[int],
    main: str,
    also_tested: Sequence[str],
) -> list[str]:
    notes = []
    for name, group in groups.items():
        absent = [str(seed) for seed in seeds if seed not in {run.seed for run in group}]
        if absent and group:
            notes.append(
                f"{name}: seed {' and '.join(absent)} missing, so its row is the mean over "
                f"{len(group)} of {len(seeds)} seeds"
            )
    if empty := [name for name, group in groups.items() if not group]:
        notes.append(f"without a complete run, and so without a row: {', '.join(empty)}")
    if not groups.get(main):
        missing = "nothing" if not any(map(groups.get, also_tested)) else "neither it nor a reading"
        notes.append(f"{main}, the main system, has no complete run: {missing} is tested")
    return notes


def _unrecorded(
    tested: Sequence[str], columns: Sequence[str], runs: Sequence[RunResult]
) -> list[str]:
    """Says what is to be tested and is not there; it counts in its family all the same."""
    absent = [name for name in tested if name not in columns] if runs else []
    return [
        f"{name}: not recorded by every run under protocol {runs[0].protocol}, so that it is "
        "neither shown nor tested; evaluate them again"
        for name in absent
    ]


def _knowledge(first: RunResult | None, groups: Mapping[str, Sequence[RunResult]]) -> list[str]:
    if first is None or first.report["dataset"]["has_knowledge"]:
        return []
    return [f"{name}: the data holds no knowledge, so nothing was taken away"
            for name in groups if name == "without_knowledge"]  # fmt: skip


def _data(run: RunResult) -> str:
    return str(run.report["dataset"]["name"])


def _facts(run: RunResult) -> dict[str, object]:
    report = run.report
    return {
        "data": _data(run),
        "split and system of the first run": report["title"],
        "protocol": run.protocol,
        "queries": len(run.ids),
        **({"clusters of queries, resampled as one": len(set(run.clusters))}
           if _clusters(run) else {}),
        **{key: value for key, value in report["protocol"].get("counts", {}).items()
           if key != "queries"},
        "devices": ", ".join(map(str, report["run"].get("devices", ()))),
    }  # fmt: skip
