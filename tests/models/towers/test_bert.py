from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures import torch_checkpoints as hf
from fixtures.tiny_towers import TINY_BERT
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.common.params import flatten
from int_ra_jax.models.towers.bert import BertConfig, BertModel
from int_ra_jax.models.towers.pretrained import load_text_tower

TINY = TINY_BERT


@pytest.fixture(autouse=True)
def exact_matmul():
    with jax.default_matmul_precision("highest"):
        yield


def model(config=TINY, dtype=jnp.float32):
    return BertModel(config, dtype=dtype, rngs=nnx.Rngs(0))


TOWER = model()
GRAPH, STATE = nnx.split(TOWER)


@jax.jit
def encode(ids, mask, type_ids):
    return nnx.merge(GRAPH, STATE)(ids, mask, type_ids)


def text(seed=0, rows=3, length=10, vocab=50, lengths=(10, 6, 1)):
    """Random ids with right padding; returns ids, mask, type_ids."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length)[None, :] < np.asarray(lengths)[:, None]
    ids = rng.integers(0, vocab, (rows, length)).astype(np.int32)
    types = rng.integers(0, 2, (rows, length)).astype(np.int32)
    return jnp.asarray(ids), jnp.asarray(mask), jnp.asarray(types)


def theirs(torch_model, ids, mask, type_ids):
    """Hidden states of a transformers BERT: embeddings, then each layer; numpy."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        out = torch_model(
            input_ids=torch.from_numpy(np.array(ids, np.int64)),
            attention_mask=torch.from_numpy(np.array(mask, np.int64)),
            token_type_ids=torch.from_numpy(np.array(type_ids, np.int64)),
            output_hidden_states=True,
        )
    return [state.numpy() for state in out.hidden_states]


@pytest.mark.parity
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_every_layer_equals_torch(act, tmp_path):
    torch_model = hf.text_model(hidden_act=act)
    tower = load_text_tower(hf.saved(torch_model, tmp_path))
    ids, mask, type_ids = text()
    states = theirs(torch_model, ids, mask, type_ids)
    real = np.asarray(mask)
    hidden = tower.prefix(ids, mask, type_ids, 0)
    np.testing.assert_allclose(hidden[real], states[0][real], rtol=1e-5, atol=1e-5)
    for index, layer in enumerate(tower.encoder.layer):
        # Each layer starts from torch's own input, so that errors do not add up.
        ours = jax.jit(layer)(jnp.asarray(states[index]), mask, None)
        np.testing.assert_allclose(ours[real], states[index + 1][real], rtol=1e-5, atol=1e-5)
    whole = jax.jit(tower)(ids, mask, type_ids)
    np.testing.assert_allclose(whole[real], states[-1][real], rtol=1e-4, atol=1e-5)


@pytest.mark.parity
def test_the_layer_norm_epsilon_of_the_config_is_used(tmp_path):
    torch_model = hf.text_model(layer_norm_eps=0.5)
    tower = load_text_tower(hf.saved(torch_model, tmp_path))
    ids, mask, type_ids = text()
    real, wanted = np.asarray(mask), theirs(torch_model, ids, mask, type_ids)[-1]
    np.testing.assert_allclose(tower(ids, mask, type_ids)[real], wanted[real], rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_close_to_float32():
    args = text()
    narrow, wide = jax.jit(model(dtype=jnp.bfloat16))(*args), encode(*args)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=0.1)


@given(extra=st.sampled_from([1, 6]), seed=st.integers(0, 99), shown=st.integers(1, 10))
@settings(max_examples=10, deadline=None)
def test_padding_and_what_stands_in_it_change_no_real_token(extra, seed, shown):
    ids, mask, types = text(seed, lengths=(10, 6, shown))
    pad = ((0, 0), (0, extra))
    longer = encode(
        jnp.where(jnp.pad(mask, pad), jnp.pad(ids, pad), (ids.sum() + 7) % 50),
        jnp.pad(mask, pad),
        jnp.pad(types, pad, constant_values=1),
    )
    np.testing.assert_allclose(
        longer[:, :10][mask], encode(ids, mask, types)[mask], rtol=1e-4, atol=1e-5
    )


def test_a_row_alone_equals_the_row_in_a_batch():
    ids, mask, types = text()
    rows = [encode(ids[i : i + 1], mask[i : i + 1], types[i : i + 1]) for i in range(3)]
    alone = jnp.concatenate(rows)
    np.testing.assert_allclose(alone[mask], encode(ids, mask, types)[mask], rtol=1e-4, atol=1e-5)


@jax.jit
@jax.value_and_grad
def loss_and_gradient(state, ids, mask, types):
    tokens = nnx.merge(GRAPH, state)(ids, mask, types)
    return (tokens**2 * jnp.arange(tokens.size).reshape(tokens.shape)).mean()


def test_a_row_without_real_tokens_is_finite_and_so_are_its_gradients():
    ids, mask, types = text()
    loss, gradients = loss_and_gradient(STATE, ids, jnp.zeros_like(mask), types)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("key", [None, jax.random.key(3)])
@pytest.mark.parametrize("cut", range(TINY.num_hidden_layers + 1))
def test_prefix_then_suffix_is_the_whole_tower_exactly(cut, key):
    ids, mask, types = text()
    hidden = TOWER.prefix(ids, mask, types, cut, key=key)
    np.testing.assert_array_equal(
        TOWER.suffix(hidden, mask, cut, key=key), TOWER(ids, mask, types, key=key)
    )


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("cut", [0, 1, TINY.num_hidden_layers])
def test_the_first_token_alone_is_the_first_token_of_all(cut, remat):
    tower = model()
    tower.remat = remat
    ids, mask, types = text()

    def first(state, cls_only):
        given = nnx.merge(nnx.split(tower)[0], state)
        hidden = given.prefix(ids, mask, types, cut)
        return given.suffix(hidden, mask, cut, cls_only=cls_only)[:, :1]

    state = nnx.state(tower)
    np.testing.assert_allclose(first(state, True), first(state, False), rtol=1e-5, atol=1e-6)
    alone, whole = (
        jax.grad(lambda state, only=only: (first(state, only) ** 3).sum())(state)
        for only in (True, False)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), alone, whole)


def test_the_first_token_alone_costs_a_fraction_of_the_last_layer():
    ids, mask, types = text(length=64, vocab=50, lengths=(64, 64, 64))
    last = TINY.num_hidden_layers - 1
    hidden = TOWER.prefix(ids, mask, types, last)

    def flops(cls_only):
        run = jax.jit(lambda hidden: TOWER.suffix(hidden, mask, last, cls_only=cls_only))
        return run.lower(hidden).cost_analysis()["flops"]

    # Of the products with weights (12 parts) keys and values are left (2), of attention 1 / L.
    assert flops(True) < 0.3 * flops(False)


def test_dropout_follows_its_key_and_is_off_without_one():
    args = text()
    key = jax.random.key(0)
    np.testing.assert_array_equal(TOWER(*args, key=key), TOWER(*args, key=key))
    assert not jnp.allclose(TOWER(*args, key=key), TOWER(*args, key=jax.random.key(1)))
    still = replace(TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    np.testing.assert_array_equal(model(still)(*args, key=key), TOWER(*args))


def test_every_parameter_gets_gradient_and_is_float32():
    gradients = flatten(loss_and_gradient(STATE, *text())[1])
    # A key bias adds the same number to all logits of a query, which softmax takes away again.
    still = [n for n, g in gradients.items() if float(jnp.abs(g).max()) < 1e-9]
    assert all(name.endswith("key/bias") for name in still)
    assert {leaf.dtype for leaf in jax.tree.leaves(STATE)} == {jnp.dtype("float32")}


def test_parameters_have_the_names_of_flax_bert():
    names = set(flatten(STATE))
    assert {
        "embeddings/word_embeddings/embedding",
        "embeddings/position_embeddings/embedding",
        "embeddings/token_type_embeddings/embedding",
        "embeddings/LayerNorm/scale",
        "encoder/layer/0/attention/self/query/kernel",
        "encoder/layer/1/attention/output/LayerNorm/bias",
        "encoder/layer/1/intermediate/dense/kernel",
        "encoder/layer/1/output/dense/bias",
    } <= names
    assert len(names) == 5 + 16 * TINY.num_hidden_layers


def test_text_longer_than_the_position_table_and_layers_that_do_not_exist_are_refused():
    long = jnp.zeros((1, 65), jnp.int32)
    with pytest.raises(ValueError, match="65 tokens exceeds the 64 positions"):
        TOWER(long, long == 0, long)
    ids, mask, types = text()
    with pytest.raises(ValueError, match="tower of 2 layers"):
        TOWER.prefix(ids, mask, types, 3)
    with pytest.raises(ValueError, match="tower of 2 layers"):
        TOWER.suffix(TOWER(ids, mask, types), mask, 3)


def test_a_config_that_is_no_plain_encoder_is_refused_with_all_reasons():
    with pytest.raises(ValueError) as caught:
        BertConfig.from_hf(
            {
                "position_embedding_type": "relative_key",
                "is_decoder": True,
                "hidden_act": "swiglu",
                "hidden_size": 10,
                "num_attention_heads": 3,
            }
        )
    for reason in ("relative_key", "is_decoder", "swiglu", "not divisible"):
        assert reason in str(caught.value)


@pytest.mark.parity
def test_what_a_config_leaves_out_is_what_transformers_leaves_out():
    transformers = pytest.importorskip("transformers")
    assert BertConfig.from_hf({}) == BertConfig.from_hf(transformers.BertConfig().to_dict())
