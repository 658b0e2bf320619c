"""From score tables to the figures of a report: means, intervals, differences, cases, people."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from int_ra_jax.evaluation import agreement, calibration, cold_start, metrics
from int_ra_jax.evaluation.cases import ECHO
from int_ra_jax.evaluation.judge import Judged
from int_ra_jax.evaluation.report_data import (
    Agreement,
    Case,
    ColdStart,
    Difference,
    Interval,
    System,
)
from int_ra_jax.evaluation.rows import CHANCE, Tables
from int_ra_jax.evaluation.significance import (
    bootstrap_intervals,
    paired_bootstrap,
    ratio_bootstrap,
)

PerQuery = Mapping[str, Mapping[str, np.ndarray]]

MEANS = {**metrics.MEANS, calibration.PER_QUERY: calibration.MEAN}
# The first columns of the table, and the metrics of the differences, by protocol. Under exact the
# precision at n is hit@n / n, and mAP equals mrr.
_FIRST = {
    "exact": ("hit@1", "hit@5", "hit@10", "mrr", calibration.MEAN),
    "": ("hit@1", "hit@3", "hit@5", "mAP", "mrr"),
}
_COMPARED = {"exact": ("hit@1", "reciprocal_rank", calibration.PER_QUERY), "": ("hit@1", "ap")}
_BASELINES = ("majority_intention", "prior", "popular", "chance", "linear", "zero_shot")
_OF_CASES = ("hit@1", "hit@5", "hit@10", "reciprocal_rank", calibration.PER_QUERY)


@dataclass(frozen=True)
class Draws:
    """How intervals are drawn.

    Attributes:
      clusters: what is resampled together, [Q]; None where each query stands for itself.
      headline: which queries the means are over.
      resamples: how often.
      seed: of the draw.
    """

    clusters: np.ndarray | None
    headline: Bool[np.ndarray, " Q"]
    resamples: int
    seed: int

    def intervals(
        self, values: Mapping[str, np.ndarray], rows: Bool[np.ndarray, " Q"]
    ) -> dict[str, Interval]:
        """Returns the interval of each metric's mean over some queries, by the mean's name."""
        found = bootstrap_intervals(
            {key: column[rows] for key, column in values.items()},
            clusters=self.together(rows), resamples=self.resamples, seed=self.seed,
        )  # fmt: skip
        return {MEANS[key]: Interval(**row) for key, row in found.items()}

    def together(self, rows: Bool[np.ndarray, " Q"]) -> np.ndarray | None:
        """Returns the clusters of some queries."""
        return None if self.clusters is None else self.clusters[rows]


@dataclass(frozen=True)
class Figures:
    """All figures of an evaluation; what the data does not tell is empty or None.

    Attributes:
      per_query: row -> metric -> each query's value, [Q].
      systems: the rows of the table.
      differences: of the main system from the others.
      cases: figures by case.
      posts: one object a graded post.
      agreement: their summary.
      unseen: the queries whose sticker train never used.
      cold_start: their summary.
    """

    per_query: PerQuery
    systems: Mapping[str, System]
    differences: Sequence[Difference]
    cases: Mapping[str, Case]
    posts: Sequence[Mapping[str, Any]]
    agreement: Agreement | None
    unseen: cold_start.Ranked | None
    cold_start: ColdStart | None


def compute(
    config: ConfigDict,
    tables: Tables,
    judged: Judged,
    scales: Mapping[str, float],
    notes: Mapping[str, str],
) -> Figures:
    """Computes every figure of an evaluation.

    Args:
      config: the run's.
      tables: row -> scores of the judged split, the main system's first.
      judged: the queries.
      scales: row -> inverse temperature, or nothing; see ``per_query``.
      notes: row -> what it is.
    """
    main, protocol = config.model.name, config.eval.protocol
    draws = Draws(judged.clusters, judged.headline, config.eval.resamples, config.seed)
    values = per_query(tables, judged, scales)
    stickers = judged.relevant.shape[1]
    found = agreement.find_posts(judged.conversations, judged.gold, stickers)
    any_order = np.broadcast_to(0.0, judged.relevant.shape)
    posts = agreement.graded(found, {**tables, "chance": any_order})
    unseen = cold_start.rank(tables, judged.gold, judged.train_uses == 0, judged.headline)
    drawn = {"resamples": draws.resamples, "seed": draws.seed}
    return Figures(
        per_query=values,
        systems=systems(values, notes, protocol, draws),
        differences=differences(values, main, protocol, draws),
        cases=by_case(values, judged, draws),
        posts=posts,
        agreement=with_people(posts, main, draws),
        unseen=unseen,
        cold_start=cold_start.summary(unseen, **drawn) if unseen else None,
    )


def per_query(
    tables: Tables, judged: Judged, scales: Mapping[str, float]
) -> dict[str, dict[str, np.ndarray]]:
    """Returns row -> metric -> each query's value, chance among the rows.

    Args:
      tables: row -> scores.
      judged: the queries.
      scales: row -> inverse temperature; adds the cross-entropy of the sticker that was sent where
        it is not empty.
    """
    rows = {
        name: metrics.evaluate_rankings(
            scores, judged.relevant, gold=judged.gold, per_query=True, on_empty="exclude"
        )["per_query"]
        for name, scores in tables.items()
    }
    rows["chance"] = metrics.chance_metrics(
        judged.relevant, with_gold=True, per_query=True, on_empty="exclude"
    )["per_query"]
    for name, scale in scales.items():
        rows[name][calibration.PER_QUERY] = calibration.gold_nll(tables[name], judged.gold, scale)
    if scales:
        queries, stickers = judged.relevant.shape
        rows["chance"][calibration.PER_QUERY] = np.full(queries, math.log(stickers))
    return rows


def fit_scales(tables: Tables, judged: Judged) -> dict[str, float]:
    """Fits the inverse temperature of every row on the validation split's headline queries."""
    rows = judged.headline
    return {
        name: calibration.fit_scale(scores[rows], judged.gold[rows])
        for name, scores in tables.items()
    }


def systems(
    values: PerQuery, notes: Mapping[str, str], protocol: str, draws: Draws
) -> dict[str, System]:
    """Returns the rows of the table, over the headline's queries."""
    first = _FIRST.get(protocol, _FIRST[""])
    notes = {**notes, "chance": CHANCE}
    found = {}
    for name, columns in values.items():
        named = draws.intervals(columns, draws.headline)
        order = [metric for metric in first if metric in named]
        order += [metric for metric in named if metric not in order]
        note = notes.get(name, "this run's system")
        found[name] = System({metric: named[metric] for metric in order}, note)
    return found


def differences(values: PerQuery, main: str, protocol: str, draws: Draws) -> list[Difference]:
    """Compares the main system with each row beside it, paired over the headline's queries."""
    rows, found = draws.headline, []
    for baseline in _BASELINES:
        for metric in _COMPARED.get(protocol, _COMPARED[""]) if baseline in values else ():
            paired = paired_bootstrap(
                values[main][metric][rows], values[baseline][metric][rows],
                clusters=draws.together(rows), resamples=draws.resamples, seed=draws.seed,
            )  # fmt: skip
            p_value = paired.pop("p")
            found.append(Difference(MEANS[metric], baseline, **paired, p_value=p_value))
    return found


def by_case(values: PerQuery, judged: Judged, draws: Draws) -> dict[str, Case]:
    """Returns the figures of every row on the queries of each case, echoes among them.

    All cases but ``echo`` are of the headline's queries alone.
    """
    found = {}
    for name, queries in judged.cases.named.items():
        headline = name != ECHO
        rows = queries & judged.headline if headline else queries
        if not rows.any():
            continue
        shown = {
            system: draws.intervals({m: row[m] for m in _OF_CASES if m in row}, rows)
            for system, row in values.items()
        }
        posts = len(set(np.asarray(judged.cases.clusters)[rows]))
        found[name] = Case(int(rows.sum()), posts, headline, shown)
    return found


def with_people(posts: Sequence[Mapping[str, Any]], main: str, draws: Draws) -> Agreement | None:
    """Summarises the graded posts; None where there are none.

    Args:
      posts: see ``agreement.graded``.
      main: the system that the answer is about.
      draws: how intervals over posts are drawn.
    """
    if not posts:
        return None
    settings: dict[str, Any] = {"resamples": draws.resamples, "seed": draws.seed}

    def column(*keys: str) -> np.ndarray:
        values: list[Any] = list(posts)
        for key in keys:
            values = [value[key] for value in values]
        return np.asarray(values, np.float64)

    def interval(names: Sequence[str], *keys: str) -> dict[str, Interval]:
        table = {name: column(*keys, name) for name in names}
        return {k: Interval(**v) for k, v in bootstrap_intervals(table, **settings).items()}

    def difference(other: str) -> Difference:
        pair = column("systems", main, "first"), column("people", other)
        found = paired_bootstrap(*pair, **settings)
        p_value = found.pop("p")
        return Difference("first", other, **found, p_value=p_value)

    people = interval(agreement.PEOPLE, "people")
    rows = {name: interval(agreement.ANSWERS, "systems", name) for name in posts[0]["systems"]}
    over_people, over_best = difference("two_agree"), difference("best_one")
    ratio = ratio_bootstrap(
        column("systems", main, "first"), column("people", "best_one"), **settings
    )
    share = Interval(ratio["ratio"], ratio["low"], ratio["high"])
    sentence = agreement.sentence(main, rows[main], people, over_people, over_best, share)
    return Agreement(
        len(posts), agreement.MINIMUM, people, rows, over_people, over_best, share, sentence
    )
