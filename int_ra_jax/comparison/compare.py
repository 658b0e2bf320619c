"""Compares evaluated runs of several systems: means, spread, tests of some against the others.

The unit of every test is the query: each query's values are averaged over a system's seeds first,
then paired between systems. The spread between seeds stands beside it, as the standard deviation.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from int_ra_jax.comparison.results import (
    HITS,
    METRICS,
    REFERENCES,
    Columns,
    Comparison,
    Row,
    RunResult,
    RunRow,
    Spread,
    Test,
    TrialRow,
)
from int_ra_jax.evaluation import significance
from int_ra_jax.evaluation.plots import Curve

LEVEL = 0.05  # below which a corrected p value is called significant


def compare(
    groups: Mapping[str, Sequence[RunResult]],
    *,
    main: str,
    also_tested: Sequence[str] = (),
    readings: Sequence[str] = (),
    seeds: Sequence[int],
    tested: Sequence[str] = tuple(METRICS),
    resamples: int = 10_000,
    trials: Sequence[TrialRow] = (),
    runs: Sequence[RunRow] = (),
    notes: Sequence[str] = (),
) -> Comparison:
    """Puts systems side by side and tests the main one, and some more, against the others.

    Args:
      groups: system or reading -> its evaluated runs, one a seed; in the order of the table.
      main: the system that is tested against every other one and the linear row.
      also_tested: further systems that are tested so; a pair of tested ones is tested once.
      readings: names among ``groups`` that are variants of ``main``; a family of their own.
      seeds: that every row should have; what is missing is said in the notes.
      tested: metrics to test; pairs of systems times metrics are one family for Holm's
        correction.
      resamples: of the bootstraps.
      trials: of the search, to be written as they are.
      runs: that belong in the table, to be written as they are.
      notes: what else the reader must know.

    Raises:
      ValueError: if runs were evaluated on different queries or by other right answers; names
        both.
    """
    everything = [run for group in groups.values() for run in group]
    check_same_queries(everything)
    averaged: dict[str, Columns] = {
        name: _over_seeds([run.values[run.main] for run in group])
        for name, group in groups.items()
        if group
    }
    rows = []
    first = everything[0] if everything else None
    if first is not None:
        averaged = {name: first.values[name] for name in REFERENCES} | averaged
        rows = [_row(name, "reference", [], first, averaged, resamples) for name in REFERENCES]
    for name, group in groups.items():
        if group:
            kind = "reading" if name in readings else "system"
            rows.append(_row(name, kind, group, group[0], averaged, resamples))
    systems = [name for name in groups if name not in readings]
    families = {
        "systems": _pairs((main, *also_tested), [*systems, "linear"]),
        "readings": _pairs((main,), readings),
    }
    tests = [
        test
        for family, pairs in families.items()
        for test in _family(family, pairs, averaged, tested, resamples)
    ]
    return Comparison(
        title="Comparison of systems" if first is None else f"Systems on {_data(first)}",
        main=main,
        rows=rows,
        tests=tests,
        queries={} if first is None else dict(sorted(Counter(first.intentions).items())),
        curves=_curves(groups, readings),
        prevalence=0.0 if first is None else float(first.report["prevalence"]),
        facts={} if first is None else _facts(first),
        versions={} if first is None else first.report["run"]["versions"],
        notes=[*_missing(groups, seeds, main, also_tested), *_knowledge(first, groups), *notes],
        trials=trials,
        runs=runs,
        resamples=resamples,
        also_tested=tuple(also_tested),
        families={family: len(pairs) * len(tested) for family, pairs in families.items()},
    )


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
        elif not all(
            np.allclose(column, run.values["chance"][name], rtol=0, atol=1e-9, equal_nan=True)
            for name, column in first.values["chance"].items()
        ):
            what = (
                f"other stickers count as right (protocols {first.report['protocol']['name']} and "
                f"{run.report['protocol']['name']})"
            )
        if what:
            problems.append(f"{first.workdir} and {run.workdir}: {what}")
    if problems:
        raise ValueError(
            "runs over different queries cannot be compared; evaluate them on the same data, "
            "split and protocol:\n  " + "\n  ".join(problems)
        )


def _over_seeds(columns: Sequence[Columns]) -> Columns:
    """Averages each query's values over seeds; a query is left out of all of them or of none."""
    return {name: np.mean([values[name] for values in columns], axis=0) for name in METRICS}


def _row(
    name: str,
    kind: str,
    group: Sequence[RunResult],
    queries: RunResult,
    averaged: Mapping[str, Columns],
    resamples: int,
) -> Row:
    columns = averaged[name]
    intervals = significance.bootstrap_intervals(columns, resamples=resamples)
    metrics = {}
    for metric in METRICS:
        each = [float(np.nanmean(run.values[run.main][metric])) for run in group]
        metrics[metric] = Spread(
            mean=float(np.mean(each)) if each else intervals[metric]["value"],
            sd=float(np.std(each, ddof=1)) if len(each) > 1 else None,
            low=intervals[metric]["low"],
            high=intervals[metric]["high"],
            seeds=tuple(each),
        )
    facts: dict[str, float | None] = {}
    for key in group[0].facts if group else ():
        known = [value for run in group if (value := run.facts[key]) is not None]
        facts[key] = float(np.mean(known)) if known else None
    intentions = np.array(queries.intentions)
    scored = ~np.isnan(columns["mAP"])
    by_intention = {
        str(intention): {
            metric: float(columns[metric][chosen].mean())
            for metric in METRICS
        }
        for intention in np.unique(intentions)
        if (chosen := scored & (intentions == intention)).any()
    }  # fmt: skip
    return Row(name, kind, tuple(run.seed for run in group), metrics, facts, by_intention)


def _pairs(tested: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (system, other) for every pair to test, each once, whether or not it is complete."""
    return [
        (system, other)
        for number, system in enumerate(tested)
        for other in others
        if other not in (*tested[:number], system)
    ]


def _family(
    family: str,
    pairs: Sequence[tuple[str, str]],
    averaged: Mapping[str, Columns],
    tested: Sequence[str],
    resamples: int,
) -> list[Test]:
    tests = [
        _test(family, pair, metric, averaged, resamples)
        for pair in pairs
        if set(pair) <= averaged.keys()
        for metric in tested
    ]
    # A test that is undefined, or whose runs are not there yet, still counts in the size of its
    # family: what is significant must not depend on what has been trained so far.
    planned = len(pairs) * len(tested)
    corrected = _holm([1.0 if test.p is None else test.p for test in tests], planned)
    hits = len(pairs) * sum(metric in HITS for metric in tested)
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
    absent = [1.0] * (size - len(p_values))
    corrected: Sequence[float] = significance.holm([*p_values, *absent])[: len(p_values)].tolist()
    return corrected


def _test(
    family: str,
    pair: tuple[str, str],
    metric: str,
    averaged: Mapping[str, Columns],
    resamples: int,
) -> Test:
    a, b = (averaged[name][metric] for name in pair)
    boot = significance.paired_bootstrap(a, b, resamples=resamples)
    t = p = None
    note = ""
    try:
        result = significance.paired_t(a, b)
        t, p = result["t"], result["p"]
    except ValueError as error:
        note = str(error)
    below = float(np.nanmean(b))
    test = Test(
        family, *pair, metric, boot["difference"],
        float(np.nanmean(a)) / below if below else None,
        boot["low"], boot["high"], t, p, note=note,
    )  # fmt: skip
    if metric not in HITS:
        return test
    sign = significance.exact_sign_test(a, b)
    wins, losses, ties = (int(sign[key]) for key in ("wins", "losses", "ties"))
    return dataclasses.replace(test, wins=wins, losses=losses, ties=ties, p_sign=sign["p"])


def _curves(groups: Mapping[str, Sequence[RunResult]], readings: Sequence[str]) -> dict[str, Curve]:
    """Averages the systems' curves over seeds; readings would crowd the figure."""
    curves: dict[str, Curve] = {}
    for name, group in groups.items():
        found = [run.curves[run.main] for run in group if run.main in run.curves]
        if found and name not in readings:
            curves[name] = Curve(found[0].x, np.mean([curve.y for curve in found], axis=0))
            for reference in ("linear", "prior"):
                if reference in group[0].curves:
                    curves.setdefault(reference, group[0].curves[reference])
    references = {name: curves.pop(name) for name in REFERENCES if name in curves}
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
        "protocol": report["protocol"]["name"],
        "queries": len(run.ids),
        **{key: value for key, value in report["protocol"].get("counts", {}).items()
           if key != "queries"},
        "devices": ", ".join(map(str, report["run"].get("devices", ()))),
    }  # fmt: skip
