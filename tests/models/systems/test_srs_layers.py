"""SRS's network: golden values of the interaction, and what padding must not do."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from int_ra_jax.models.systems.srs_layers import (
    GRU,
    MatchFusion,
    deep_interaction,
    match_vectors,
    word_and_region_weights,
)


def matrices(rows: int, columns: int) -> st.SearchStrategy[np.ndarray]:
    numbers = st.lists(st.floats(-4, 4, width=32), min_size=rows * columns, max_size=rows * columns)
    return numbers.map(lambda flat: np.asarray(flat, np.float32).reshape(rows, columns))


# ---- interaction ------------------------------------------------------------------------------

REGIONS = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
WORDS = jnp.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
REAL = jnp.array([True, True, False])


@pytest.mark.parametrize(
    ("original", "word_weights", "said"),
    [
        (True, [0.575975, 0.503490, 0.248255], [0.551814, 0.167830]),
        (False, [0.669762, 0.669762, 0.0], [1.004642, 0.334881]),
    ],
)
def test_interaction_golden_values(original, word_weights, said):
    # Computed in float64 from the formulas; the third word is a pad.
    read = jnp.ones(3, bool) if original else REAL
    w, r = word_and_region_weights(REGIONS, WORDS, read)
    np.testing.assert_allclose(w[0], word_weights, atol=1e-5)
    np.testing.assert_allclose(r[0], [0.804430, 0.5], atol=1e-5)
    c, g = deep_interaction(REGIONS, WORDS[None], REAL[None], original_masking=original)
    np.testing.assert_allclose(c[0, 0], said, atol=1e-5)
    np.testing.assert_allclose(g[0, 0], [0.402215, 0.25], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(matrices(6, 3), matrices(4, 3), st.integers(1, 4))
def test_weights_are_shares_and_those_of_the_words_sum_to_one_at_least(regions, words, number):
    read = jnp.arange(4) < number
    w, r = word_and_region_weights(jnp.asarray(regions).reshape(2, 3, 3), jnp.asarray(words), read)
    assert (np.asarray(w[:, :number]) > 0).all() and (np.asarray(w) <= 1 + 1e-6).all()
    assert (np.asarray(w).sum(1) >= 1 - 1e-5).all()
    assert (np.asarray(r) > 0).all() and (np.asarray(r) <= 1 + 1e-6).all()
    assert not np.any(w[:, number:])


def test_an_empty_utterance_says_and_sees_nothing_and_has_a_finite_gradient():
    def total(regions, words):
        c, g = deep_interaction(regions, words[None], jnp.zeros((1, 3), bool))
        return jnp.sum(c) + jnp.sum(g)

    assert float(total(REGIONS, WORDS)) == 0.0
    gradients = jax.grad(total, argnums=(0, 1))(REGIONS, WORDS)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_match_vectors_are_sum_product_and_the_three_vectors():
    said, seen, summary = jnp.array([[[2.0]]]), jnp.array([[[7.0]]]), jnp.array([[3.0]])
    assert np.asarray(match_vectors(said, seen, summary)).tolist() == [[[5.0, 6.0, 2.0, 3.0, 7.0]]]


# ---- fusion -----------------------------------------------------------------------------------


def test_the_recurrent_unit_equals_its_equations_and_passes_over_absent_steps():
    unit = GRU(3, 2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
    mask = np.array([True, True, False, True])
    states, last = unit(jnp.asarray(x), jnp.asarray(mask))

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    w, v = np.asarray(unit.inputs.kernel[...]), np.asarray(unit.state.kernel[...])
    state = np.zeros(2)
    for step in range(4):
        if mask[step]:
            a, b = x[0, step] @ w, state @ v  # the biases start at zero
            reset, update = sigmoid(a[:2] + b[:2]), sigmoid(a[2:4] + b[2:4])
            state = (1 - update) * np.tanh(a[4:] + reset * b[4:]) + update * state
        np.testing.assert_allclose(states[0, step], state, atol=1e-5)
    np.testing.assert_allclose(last[0], state, atol=1e-5)


@cache
def network():
    """Scores of random stickers, from the words on; compiled once per shape."""
    model = ConfigDict(
        {
            "fusion_width": 8,
            "fusion_heads": 2,
            "fusion_inner": 8,
            "fusion_layers": 2,
            "dropout": 0.0,
        }
    )
    fusion = MatchFusion(5 * 4, model, jnp.float32, nnx.Rngs(0))
    rng = np.random.default_rng(0)
    regions = jnp.asarray(rng.normal(size=(3, 6, 4)), jnp.float32)
    summary = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)

    @jax.jit
    def compiled(words, mask, regions, summary):
        said, seen = deep_interaction(regions, words, mask)
        return fusion(match_vectors(said, seen, summary), jnp.any(mask, axis=1))

    def scores(words, mask, regions=regions, summary=summary):
        return compiled(words, mask, regions, summary)

    words = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
    mask = jnp.array([[True, True, False], [True, True, True]])
    return scores, words, mask, regions, summary


def test_empty_utterances_and_pads_change_no_score():
    scores, words, mask, *_ = network()
    pad = ((0, 2), (0, 3))
    wider = jnp.pad(words, (*pad, (0, 0)), constant_values=7.0)  # pads whose features are not zero
    np.testing.assert_allclose(scores(wider, jnp.pad(mask, pad)), scores(words, mask), atol=1e-5)


def test_the_order_of_the_utterances_counts():
    scores, words, mask, *_ = network()
    before, after = scores(words, mask), scores(words[::-1], mask[::-1])
    assert float(jnp.min(jnp.abs(before - after))) > 1e-4


def test_stickers_do_not_see_each_other():
    scores, words, mask, regions, summary = network()
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(
        scores(words, mask, regions[order], summary[order]), scores(words, mask)[order], atol=1e-6
    )
    other = scores(words, mask, regions.at[1].add(1.0), summary)
    np.testing.assert_allclose(other[jnp.array([0, 2])], scores(words, mask)[::2], atol=1e-6)
    assert abs(float(other[1] - scores(words, mask)[1])) > 1e-4


def test_a_conversation_without_words_scores_zero():
    scores, words, mask, *_ = network()
    assert not np.any(scores(words, jnp.zeros_like(mask)))
