import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.models.layers import (
    ACTIVATIONS,
    Embed,
    LayerNorm,
    Linear,
    attend,
    dropout,
    masked_mean,
    split_key,
)
from int_ra_jax.models.towers.bert import BertConfig


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_equals_the_one_that_transformers_calls_so(name):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.activations").ACT2FN[name]
    x = np.linspace(-6, 6, 201, dtype=np.float32)
    ours, wanted = ACTIVATIONS[name](jnp.asarray(x)), theirs(torch.from_numpy(x)).numpy()
    # torch forms 1 + erf(x), which cancels in the far negative tail: hence the absolute 1e-6.
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)


def test_the_three_gelus_are_different_functions():
    x = jnp.linspace(-3.0, 3.0, 50)
    exact, tanh, quick = (ACTIVATIONS[name](x) for name in ("gelu", "gelu_new", "quick_gelu"))
    assert jnp.abs(exact - tanh).max() > 1e-4
    assert jnp.abs(exact - quick).max() > 1e-2


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"swiglu.*quick_gelu"):
        BertConfig.from_hf({"hidden_act": "swiglu"})


def test_layer_norm_statistics_are_float32_in_bfloat16():
    layer = LayerNorm(512, epsilon=1e-5, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = (normal(0, 4, 512) + 30).astype(jnp.bfloat16)
    wide = x.astype(jnp.float32)
    wanted = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    assert layer(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(layer(x).astype(jnp.float32), wanted, atol=0.02)


def test_parameters_are_float32_under_a_bfloat16_computation():
    layer = Linear(4, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    table = Embed(5, 4, rngs=nnx.Rngs(0))
    leaves = jax.tree.leaves((nnx.state(layer), nnx.state(table)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert layer(table(jnp.array([1]))).dtype == jnp.bfloat16


def test_an_id_outside_the_table_is_nan_and_not_another_row():
    table = Embed(5, 4, rngs=nnx.Rngs(0))
    rows = table(jnp.array([4, 5]))
    assert jnp.isfinite(rows[0]).all() and jnp.isnan(rows[1]).all()


@given(rate=st.floats(0.1, 0.8), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_dropout_keeps_the_mean_and_zeroes_the_stated_share(rate, seed):
    x = jnp.ones(20_000)
    y = dropout(x, rate, jax.random.key(seed))
    assert abs(float((y == 0).mean()) - rate) < 0.02
    assert abs(float(y.mean()) - 1) < 0.05


def test_dropout_without_key_or_rate_is_the_identity():
    x = normal(0, 10)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x


@given(real=st.integers(0, 5), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_masked_mean_is_the_mean_of_the_real_tokens(real, seed):
    tokens = normal(seed, 2, 5, 3)
    mask = jnp.broadcast_to(jnp.arange(5) < real, (2, 5))
    wanted = tokens[:, :real].mean(1) if real else jnp.zeros((2, 3))
    np.testing.assert_allclose(masked_mean(tokens, mask), wanted, rtol=1e-5, atol=1e-6)


def test_masked_mean_of_bfloat16_is_accumulated_in_float32():
    tokens = jnp.ones((1, 1000, 1), jnp.bfloat16)
    assert float(masked_mean(tokens, jnp.ones((1, 1000), bool))[0, 0]) == 1.0


@pytest.mark.parametrize("masked", [True, False])
def test_attention_equals_that_of_jax(masked):
    query, key, value = normal(0, 2, 3, 32), normal(1, 2, 5, 32), normal(2, 2, 5, 32)
    mask = jnp.array([[True, True, False, True, False], [True] * 5]) if masked else None
    wanted = jax.nn.dot_product_attention(
        *(x.reshape(*x.shape[:2], 4, 8) for x in (query, key, value)),
        mask=None if mask is None else mask[:, None, None, :],
    ).reshape(2, 3, 32)
    mixed, _ = attend(query, key, value, 4, mask)
    np.testing.assert_allclose(mixed, wanted, rtol=1e-5, atol=1e-6)


def test_attention_weights_sum_to_one_and_are_zero_on_masked_keys():
    query, key = normal(0, 2, 3, 32), normal(1, 2, 5, 32)
    mask = jnp.array([[True, True, False, True, False], [True] * 5])
    _, weights = attend(query, key, key, 4, mask)
    assert weights.shape == (2, 4, 3, 5) and weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert (weights[0][..., ~mask[0]] == 0).all()


def test_a_masked_key_never_reaches_the_output():
    query, key, value = normal(0, 1, 3, 32), normal(1, 1, 5, 32), normal(2, 1, 5, 32)
    mask = jnp.array([[True, True, True, False, False]])
    other = [x.at[:, 3:].set(1e4) for x in (key, value)]
    np.testing.assert_array_equal(
        attend(query, *other, 4, mask)[0], attend(query, key, value, 4, mask)[0]
    )


def test_a_row_without_any_key_is_finite_and_so_is_its_gradient():
    x = normal(0, 1, 3, 8)
    mask = jnp.zeros((1, 3), bool)
    value, gradient = jax.value_and_grad(lambda x: attend(x, x, x, 2, mask)[0].sum())(x)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_attention_dropout_follows_its_key():
    x = normal(0, 1, 6, 8)
    once, again, other = (
        attend(x, x, x, 2, rate=0.5, dropout_key=jax.random.key(seed))[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(once, again)
    assert not jnp.allclose(once, other)


def test_without_a_key_all_its_parts_are_none_and_with_one_they_differ():
    assert split_key(None, 3) == (None, None, None)
    keys = split_key(jax.random.key(0), 3)
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3
