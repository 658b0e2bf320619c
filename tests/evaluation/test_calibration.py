"""Cross-entropy after one temperature, against a grid and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from int_ra_jax.evaluation.calibration import fit_scale, gold_nll


def drawn(seed, queries=200, stickers=7):
    """Scores, and stickers sent with the probabilities that a softmax of them gives."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(queries, stickers))
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(axis=1)


@given(st.integers(0, 99), st.floats(0.001, 1000))
def test_the_scale_of_the_scores_does_not_matter(seed, unit):
    logits, gold = drawn(seed)
    expected = gold_nll(logits, gold, fit_scale(logits, gold))
    scaled = logits / unit
    found = gold_nll(scaled, gold, fit_scale(scaled, gold))
    assert found.mean() == pytest.approx(expected.mean(), abs=1e-4)


@given(st.integers(0, 99))
def test_no_scale_of_a_grid_is_better(seed):
    logits, gold = drawn(seed)
    fitted = fit_scale(logits, gold)
    best = gold_nll(logits, gold, fitted).mean()
    for scale in fitted * np.geomspace(0.1, 10, 21):
        assert best <= gold_nll(logits, gold, scale).mean() + 1e-6


def test_log_probabilities_need_no_scaling():
    logits, gold = drawn(0, queries=20_000)
    assert fit_scale(log_softmax(logits, axis=1), gold) == pytest.approx(1.0, abs=0.05)


def test_the_values_are_those_of_a_softmax():
    logits, gold = drawn(1, queries=5)
    expected = -log_softmax(3 * logits, axis=1)[np.arange(5), gold]
    np.testing.assert_allclose(gold_nll(logits, gold, 3.0), expected)


def test_who_answers_a_constant_is_as_surprised_as_chance():
    scores, gold = np.full((4, 8), 0.3, np.float32), np.arange(4)
    assert fit_scale(scores, gold) == 1.0
    np.testing.assert_allclose(gold_nll(scores, gold, 1.0), np.log(8))


def test_scores_that_mislead_get_no_weight():
    scores = np.eye(4)
    gold = np.array([1, 2, 3, 0])
    found = gold_nll(scores, gold, fit_scale(scores, gold))
    np.testing.assert_allclose(found, np.log(4), atol=1e-3)


def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match=r"rows 1\).*small probability"):
        gold_nll([[0.0, 1.0], [-np.inf, 0.0]], [0, 1], 1.0)
    with pytest.raises(ValueError, match=r"in \[0, 2\)"):
        fit_scale([[0.0, 1.0]], [2])
    with pytest.raises(ValueError, match="non-empty"):
        fit_scale(np.zeros((0, 3)), [])
