"""Choosing stickers that are good and unlike each other: what must hold for any candidates."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.retrieval.variety import candidates, varied


@st.composite
def asked(draw):
    """Candidates in some groups of copies, some of them just sent."""
    number = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    groups = rng.integers(0, draw(st.integers(1, number)), number)
    recent = draw(st.sets(st.integers(0, number - 1), max_size=3))
    top_k = draw(st.integers(1, 14))
    scores = rng.choice(np.round(rng.normal(size=number), 1), number)  # some are equal
    return scores, rng.normal(size=(number, 3)), groups, recent, top_k


@settings(max_examples=40)
@given(asked(), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_first_are_full_and_nothing_comes_twice(case, variety):
    scores, vectors, groups, recent, top_k = case
    found = varied(
        scores, vectors, top_k, variety=variety, alike=lambda p: groups == groups[p], recent=recent
    )
    assert len(found) == len(set(found)) == min(top_k, len(scores))
    # What was just sent, or a copy of it, is there only where nothing else was left.
    stale = [any(groups[p] == groups[one] for one in recent) for p in found]
    fresh = sum(not any(groups[p] == groups[one] for one in recent) for p in range(len(scores)))
    assert sum(not one for one in stale) == min(top_k, fresh)
    assert stale == sorted(stale)


@settings(max_examples=40)
@given(asked(), st.sampled_from([0.05, 0.5, 1.0]))
def test_no_two_copies_come_while_anything_else_is_left(case, variety):
    scores, vectors, groups, _, top_k = case
    found = varied(scores, vectors, top_k, variety=variety, alike=lambda p: groups == groups[p])
    kinds = [groups[p] for p in found]
    most = min(top_k, len(set(groups)))
    assert len(set(kinds[:most])) == most


@settings(max_examples=20)
@given(asked())
def test_without_variety_the_order_is_that_of_the_scores(case):
    scores, vectors, groups, _, top_k = case
    found = varied(scores, vectors, top_k, alike=lambda p: groups == groups[p])
    assert found == np.argsort(-scores, kind="stable")[:top_k].tolist()


def test_full_variety_takes_the_best_first_and_then_the_least_alike():
    scores = np.array([1.0, 0.9, 0.8, 0.0])
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    assert varied(scores, vectors, 3, variety=1.0) == [0, 3, 2]
    # A little of it leaves the best alone and passes over the second, which is like the best.
    assert varied(scores, vectors, 2, variety=0.4) == [0, 2]
    assert varied(scores, vectors, 2, variety=0.01) == [0, 1]


def test_equal_scores_and_embeddings_keep_their_order():
    assert varied(np.zeros(4), np.ones((4, 2)), 4, variety=0.5) == [0, 1, 2, 3]


@settings(max_examples=30)
@given(asked(), st.sampled_from([0.3, 1.0]))
def test_the_choice_is_that_of_the_formula_looked_up_pair_by_pair(case, variety):
    scores, vectors, groups, recent, top_k = case
    found = varied(
        scores, vectors, top_k, variety=variety, alike=lambda p: groups == groups[p], recent=recent
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    spread = [values - values.min() for values in (scores, unit @ unit.T)]
    relevance, similarity = (values / (values.max() or 1) for values in spread)
    chosen = []
    for place in found:
        left = [p for p in range(len(scores)) if p not in chosen]
        fresh = [p for p in left if not any(groups[p] == groups[one] for one in recent)] or left
        new = [p for p in fresh if not any(groups[p] == groups[one] for one in chosen)] or fresh
        assert place in new
        if chosen:
            gain = {
                p: (1 - variety) * relevance[p] - variety * max(similarity[p, c] for c in chosen)
                for p in new
            }
            assert gain[place] == pytest.approx(max(gain.values()))
        chosen.append(place)


@pytest.mark.parametrize("variety", [0.0, 0.5])
def test_copies_are_asked_for_once_for_each_that_was_sent_or_is_chosen(variety):
    asked_for = []

    def alike(place):
        asked_for.append(place)
        return np.arange(400) == place

    rng = np.random.default_rng(0)
    found = varied(
        rng.normal(size=400), rng.normal(size=(400, 4)), 50,
        variety=variety, alike=alike, recent=range(20),
    )  # fmt: skip
    assert asked_for == [*range(20), *(found if variety else [])]


def test_there_is_enough_to_choose_from():
    assert candidates(5) == 50
    assert candidates(100, recent=7) == 407


def test_everything_wrong_is_told_at_once():
    with pytest.raises(ValueError) as error:
        varied(np.array([math.nan, 0.0]), np.ones((2, 2)), 0, variety=1.5, recent=[2])
    for part in ("variety=1.5", "top_k=0", "finite", r"places [2]"):
        assert part in str(error.value)
