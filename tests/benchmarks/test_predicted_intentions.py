"""The benchmark of guessed intentions: what is new says nothing of its own guess."""

import numpy as np
import pytest

from benchmarks import predicted_intentions as guessing


def stickers(informed, size=60, intentions=4, width=16):
    """Returns features that tell the intention or tell nothing, intentions, names' features."""
    rng = np.random.default_rng(0)
    annotated = np.eye(intentions, dtype=bool)[rng.integers(0, intentions, size)]
    names = 3.0 + rng.standard_normal((intentions, width))
    noise = 3.0 + rng.standard_normal((size, width))
    return noise + informed * 3 * annotated @ names, annotated, names


def test_attributes_that_tell_are_right_and_those_that_do_not_cost_little():
    told = guessing.measure(*stickers(1.0), folds=5, repeats=3)
    untold = guessing.measure(*stickers(0.0), folds=5, repeats=3)
    assert told["attributes"]["first"].mean() > 0.9 > told["nothing"]["first"].mean()
    assert told["attributes"]["nats"].mean() < 0.5 * told["nothing"]["nats"].mean()
    assert untold["attributes"]["nats"].mean() < untold["nothing"]["nats"].mean() + 0.25


def test_what_is_new_does_not_count_in_its_own_guess():
    features, annotated, names = stickers(1.0)
    new = np.arange(10)
    changed = annotated.copy()
    changed[new] = ~changed[new]
    one, other = (guessing.guesses(features, some, names, new) for some in (annotated, changed))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
        assert one[name].sum(1) == pytest.approx(1.0)


def test_a_guess_is_judged_against_all_of_a_stickers_intentions_alike():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]])
    annotated = np.array([[True, True, False], [False, False, True]])
    found = guessing.judged(probabilities, annotated)
    assert found["first"].tolist() == [1.0, 0.0]
    expected = [(np.log(2) + np.log(4)) / 2, np.log(5)]
    np.testing.assert_allclose(found["nats"], expected, rtol=1e-6)


def test_each_sticker_is_new_once_in_each_repeat():
    parts = [*guessing._parts(11, 5, 2)]
    assert sorted(np.concatenate(parts[:5])) == sorted(np.concatenate(parts[5:])) == [*range(11)]
    rows = guessing.rows_of({"x": {"first": np.ones(11), "nats": np.full(11, 2.0)}})
    assert rows == [{"": "x", "first": "100.0 [100.0, 100.0]", "nats": "2.00 [2.00, 2.00]"}]
