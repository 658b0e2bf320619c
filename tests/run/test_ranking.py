"""Chunked scoring and exact top-k: chunk sizes and padding must never show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.run.ranking import score_in_chunks, top_k


def whole_vectors(seed, *shape):
    """Small integers: dot products are exact, so that even ties must come out equal."""
    return jnp.asarray(np.random.default_rng(seed).integers(-2, 3, shape), jnp.float32)


def pair_scores(context, sticker):
    """Not a dot product: a model that has to look at every pair."""
    gap = context["a"][:, None] - sticker["x"][None]
    return -jnp.abs(gap).sum(-1) + context["b"][:, None] * sticker["y"][None]


def pair_inputs(num_queries, num_stickers):
    contexts = {"a": whole_vectors(0, num_queries, 3), "b": whole_vectors(1, num_queries)}
    stickers = {"x": whole_vectors(2, num_stickers, 3), "y": whole_vectors(3, num_stickers)}
    return contexts, stickers


@pytest.mark.parametrize(
    ("num_queries", "num_stickers", "query_chunk", "sticker_chunk"),
    [
        (5, 7, 1, 1),
        (5, 7, 2, 3),
        (5, 7, 5, 7),
        (5, 7, 9, 9),
        (4, 6, 2, 3),
        (1, 1, 1, 1),
        (1, 9, 3, 8),
    ],
)
def test_chunk_sizes_never_change_the_scores(num_queries, num_stickers, query_chunk, sticker_chunk):
    contexts, stickers = pair_inputs(num_queries, num_stickers)
    scores = score_in_chunks(
        pair_scores, contexts, stickers, query_chunk=query_chunk, sticker_chunk=sticker_chunk
    )
    assert scores.shape == (num_queries, num_stickers)
    np.testing.assert_array_equal(scores, pair_scores(contexts, stickers))


def test_scoring_works_under_jit_and_returns_float32_from_a_half_precision_model():
    contexts, stickers = pair_inputs(5, 7)

    @jax.jit
    def scored(contexts, stickers):
        half = lambda c, s: pair_scores(c, s).astype(jnp.bfloat16)  # noqa: E731
        return score_in_chunks(half, contexts, stickers, query_chunk=2, sticker_chunk=4)

    scores = scored(contexts, stickers)
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, pair_scores(contexts, stickers))


def test_the_filler_of_the_last_chunk_holds_real_rows_so_that_normalising_stays_finite():
    vectors = whole_vectors(5, 3, 4) + 10.0
    seen = []

    def cosine(context, sticker):
        jax.debug.callback(lambda s: seen.append(np.asarray(s)), sticker)
        sticker = sticker / jnp.linalg.norm(sticker, axis=1, keepdims=True)
        return context @ sticker.T

    score_in_chunks(cosine, vectors, vectors, query_chunk=2, sticker_chunk=2)
    jax.effects_barrier()
    assert seen
    assert all((np.linalg.norm(block, axis=1) > 1).all() for block in seen)


def test_inputs_whose_rows_disagree_are_named():
    contexts, stickers = pair_inputs(4, 6)
    with pytest.raises(ValueError, match=r"leaf of stickers.*'x'"):
        score_in_chunks(pair_scores, contexts, stickers | {"y": jnp.zeros(5)})
    with pytest.raises(ValueError, match="leaf of contexts"):
        score_in_chunks(pair_scores, jax.tree.map(lambda x: x[:0], contexts), stickers)
    with pytest.raises(ValueError, match="sticker_chunk must be positive, got 0"):
        score_in_chunks(pair_scores, contexts, stickers, sticker_chunk=0)


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(
        st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 2.0, np.inf]), min_size=1, max_size=9
    ),
    data=st.data(),
)
def test_top_k_is_a_stable_sort(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    values, index = top_k(jnp.asarray([scores], jnp.float32), k)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert index[0].tolist() == expected
    assert values[0].tolist() == [scores[i] for i in expected]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 60), extreme=st.booleans())
@pytest.mark.parametrize(("num_stickers", "k"), [(640, 10), (1000, 3), (4099, 1), (2000, 31)])
def test_top_k_of_many_columns_is_a_stable_sort_too(num_stickers, k, seed, levels, extreme):
    # Few levels: groups whose maxima tie, and more ties than k. Wide enough to search groups.
    scores = np.random.default_rng(seed).integers(0, levels, (3, num_stickers)).astype(np.float32)
    if extreme:
        scores = np.where(scores == levels - 1, np.nan, np.where(scores == 0, -np.inf, scores))
    values, index = jax.jit(top_k, static_argnums=1)(scores, k)
    clean = np.where(np.isnan(scores), -np.inf, scores)
    expected = np.argsort(-clean, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(clean, expected, axis=1))


def test_nan_is_never_the_best_answer():
    values, index = top_k(jnp.asarray([jnp.nan, 1.0, 2.0]), 3)
    assert index.tolist() == [2, 1, 0]
    assert values[2] == -jnp.inf


@pytest.mark.parametrize("k", [0, 6])
def test_asking_for_more_than_the_gallery_holds_is_refused(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, 5\].*got {k}"):
        top_k(jnp.zeros((2, 5)), k)
