"""Ranking of stickers that train never used, against naive loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.evaluation.cold_start import rank, summary

DRAWS = {"resamples": 20, "seed": 0}


def cold_start(tables, gold, unseen, counted, **draws):
    ranked = rank(tables, gold, unseen, counted)
    return None if ranked is None else summary(ranked, **draws)


@given(st.integers(0, 999))
def test_ranks_among_all_and_among_the_unseen_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    queries, stickers = 30, 14
    scores = rng.permuted(np.tile(np.arange(stickers), (queries, 1)), axis=1).astype(float)
    unseen = rng.random(stickers) < 0.4
    unseen[0] = True
    gold = rng.integers(0, stickers, queries)
    gold[0] = 0
    counted = rng.random(queries) < 0.8
    counted[0] = True
    found = cold_start({"system": scores}, gold, unseen, counted, **DRAWS)
    rows = [q for q in range(queries) if counted[q] and unseen[gold[q]]]
    assert found.queries == len(rows)
    assert found.unseen == unseen.sum()
    assert found.sent == len({gold[q] for q in rows})
    for where, columns in (("all", range(stickers)), ("unseen", np.flatnonzero(unseen))):
        ranks = [sum(scores[q][c] >= scores[q][gold[q]] for c in columns) for q in rows]
        figures = found.systems["system"][where]
        assert list(figures) == ["hit@1", "hit@5", "hit@10", "mrr"]
        for n in (1, 5, 10):
            assert figures[f"hit@{n}"].value == pytest.approx(np.mean([r <= n for r in ranks]))
        assert figures["mrr"].value == pytest.approx(np.mean([1 / rank for rank in ranks]))
        chance = found.systems["chance"][where]
        assert chance["hit@1"].value == pytest.approx(1 / len(columns))


def test_who_cannot_tell_the_unseen_apart_is_at_chance_among_them_and_last_among_all():
    scores = np.where(np.arange(9) < 6, 1.0 + np.arange(9), 0.0)
    unseen = np.arange(9) >= 6
    gold = np.array([6, 7, 8, 0])
    tables = {"popular": np.broadcast_to(scores, (4, 9))}
    found = cold_start(tables, gold, unseen, np.ones(4, bool), **DRAWS)
    popular, chance = found.systems["popular"], found.systems["chance"]
    assert popular["unseen"] == chance["unseen"]
    assert popular["all"]["hit@5"].value == 0.0


def test_without_an_unseen_gold_there_is_nothing_to_tell():
    tables = {"system": np.eye(3)}
    seen = np.array([False, False, True])
    everyone = np.ones(3, bool)
    assert cold_start(tables, np.array([0, 1, 0]), seen, everyone, **DRAWS) is None
    assert cold_start(tables, np.array([0, 1, 2]), seen, ~seen, **DRAWS) is None


def test_intervals_resample_stickers_and_not_their_many_queries():
    # One of two unseen stickers is always first, the other never, in a thousand queries each.
    scores = np.tile([2.0, 1.0, 0.0], (2000, 1))
    gold = np.repeat([0, 2], 1000)
    unseen = np.array([True, False, True])
    found = cold_start({"system": scores}, gold, unseen, np.ones(2000, bool), resamples=400, seed=0)
    hit = found.systems["system"]["all"]["hit@1"]
    assert (hit.low, hit.value, hit.high) == (0.0, 0.5, 1.0)
