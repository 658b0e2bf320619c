"""Hidden words: which may be hidden, behind what, and who may read them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import make_tokens, spoken
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from int_ra_jax.common.types import Tokens
from int_ra_jax.models.interface import SpecialIds
from int_ra_jax.models.systems import irra_reasoning
from int_ra_jax.models.systems.irra_reasoning import (
    InteractionEncoder,
    WordHead,
    hide_words,
    masked_word_loss,
    most_hidden,
)
from int_ra_jax.models.towers.bert import BertConfig

SPECIAL = SpecialIds(pad=0, cls=1, sep=2, mask=7)  # [MASK] in the midst of the words
VOCABULARY = 128
hide = jax.jit(lambda tokens, key: hide_words(tokens, SPECIAL, VOCABULARY, key))


def rows(seed: int, size: int = 16, length: int = 40) -> Tokens:
    return make_tokens(np.random.default_rng(seed), (size,), length)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_only_words_are_hidden_and_only_what_is_counted_changes(seed):
    tokens = rows(seed)
    masked, hidden = hide(tokens, jax.random.key(seed))
    ids, seen = np.asarray(tokens.ids), np.asarray(masked.ids)
    positions, counted = np.asarray(hidden.positions), np.asarray(hidden.counted)
    is_word = np.asarray(tokens.mask) & ~np.isin(ids, [0, 1, 2, 7])
    for row in range(len(ids)):
        assert len(set(positions[row])) == most_hidden(40) == 14
        there = positions[row][counted[row]]
        assert is_word[row, there].all()
        assert (len(there) >= 1) == is_word[row].any()
        np.testing.assert_array_equal(hidden.words[row][counted[row]], ids[row, there])
        assert set(np.flatnonzero(seen[row] != ids[row])) <= set(there)
        assert not np.isin(seen[row, there], [0, 1, 2]).any()
    np.testing.assert_array_equal(masked.mask, tokens.mask)


def test_the_shares_are_those_of_the_reference():
    tokens = rows(1, size=4000)
    masked, hidden = hide(tokens, jax.random.key(0))
    long = np.asarray(tokens.mask).sum(axis=1) > 30  # forced ones are rare in these
    words = (np.asarray(tokens.mask) & ~np.isin(tokens.ids, [0, 1, 2, 7]))[long].sum()
    counted = np.asarray(hidden.counted)[long]
    assert counted.sum() / words == pytest.approx(0.15, abs=0.01)
    seen = np.take_along_axis(np.asarray(masked.ids), np.asarray(hidden.positions), axis=1)[long]
    behind, kept = seen[counted] == 7, (seen == np.asarray(hidden.words)[long])[counted]
    assert behind.mean() == pytest.approx(0.8, abs=0.02)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 124, abs=0.02)
    behind_others = np.asarray(masked.ids)[np.asarray(masked.ids != tokens.ids)]
    # every word, and no special token
    assert set(behind_others) == set(range(3, VOCABULARY))


def test_a_row_without_a_draw_hides_its_first_word_behind_the_mask_and_one_without_words_nothing():
    ids = jnp.array([[1, 2, 50, 2, 0], [1, 2, 2, 2, 0], [1, 2, 50, 60, 2]])
    tokens = spoken(ids, ids != 0)
    first = []
    for seed in range(30):
        masked, hidden = hide(tokens, jax.random.key(seed))
        assert np.asarray(hidden.counted).any(axis=1).tolist() == [True, False, True]
        np.testing.assert_array_equal(masked.ids[1], ids[1])
        first.append(int(masked.ids[0, 2]))
    # The only word is drawn in 15% of the cases; in all others it is forced, and then masked.
    assert np.mean(np.array(first) == 7) > 0.85


def test_each_key_hides_other_words():
    tokens = rows(3)
    one, other = (hide(tokens, jax.random.key(seed))[0].ids for seed in (0, 1))
    assert (np.asarray(one) != np.asarray(other)).any(axis=1).sum() > 8
    np.testing.assert_array_equal(one, hide(tokens, jax.random.key(0))[0].ids)


def test_where_there_is_no_room_for_all_the_rest_stays_as_it_was(monkeypatch):
    monkeypatch.setattr(irra_reasoning, "most_hidden", lambda length: 2)
    tokens = rows(4, size=200)
    masked, hidden = hide_words(tokens, SPECIAL, VOCABULARY, jax.random.key(0))
    counted = np.asarray(hidden.counted)
    assert counted.shape == (200, 2) and counted.all(axis=1).mean() > 0.4
    changed = np.asarray(masked.ids != tokens.ids).sum(axis=1)
    assert (changed <= counted.sum(axis=1)).all()
    # Not always the first two of a row.
    assert np.asarray(hidden.positions).max() > 30


def test_the_word_loss_is_a_mean_over_the_batch_and_zero_where_nothing_is_hidden():
    rng = np.random.default_rng(0)
    logits, words = rng.normal(size=(2, 3, 5)), rng.integers(5, size=(2, 3))
    counted = np.array([[True, True, True], [False, True, False]])
    log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    expected = -np.take_along_axis(log_p, words[..., None], axis=2)[..., 0][counted].mean()
    arguments = jnp.asarray(logits, jnp.float32), jnp.asarray(words)
    assert float(masked_word_loss(*arguments, jnp.asarray(counted))) == pytest.approx(expected)
    loss = lambda x: masked_word_loss(x, arguments[1], jnp.zeros((2, 3), bool))  # noqa: E731
    assert float(loss(arguments[0])) == 0.0
    assert np.all(np.asarray(jax.grad(loss)(arguments[0])) == 0)


# ---- the encoder that guesses ------------------------------------------------------------------

FLOAT = jnp.dtype("float32")
MODEL = ConfigDict({"joint_width": 16, "heads": 2, "interaction_layers": 2})


def interaction():
    encoder = InteractionEncoder(MODEL, FLOAT, nnx.Rngs(0))
    rng = np.random.default_rng(0)
    text, image = (jnp.asarray(rng.normal(size=(2, size, 16)), jnp.float32) for size in (6, 5))
    mask = jnp.arange(6) < jnp.array([[6], [4]])
    return encoder, text, mask, image


def test_padding_is_read_by_none_and_the_order_of_the_positions_does_not_matter():
    encoder, text, mask, image = interaction()
    call = jax.jit(encoder.__call__)
    before = call(text, mask, image, jnp.array([[1, 3], [0, 2]]))
    padded = text.at[1, 4:].add(9.0)
    np.testing.assert_allclose(call(padded, mask, image, jnp.array([[1, 3], [0, 2]])), before)
    swapped = call(text, mask, image, jnp.array([[3, 1], [2, 0]]))
    np.testing.assert_allclose(swapped[:, ::-1], before, atol=1e-5)


def test_nothing_is_added_around_the_cross_attention():
    encoder, text, mask, image = interaction()
    for layer in (encoder.cross_attention.query, encoder.cross_attention.value):
        layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
    hidden = jax.jit(encoder.__call__)(text, mask, image, jnp.array([[0, 1], [2, 3]]))
    # Without what it asks and gets, no token knows which word it was.
    np.testing.assert_allclose(hidden, jnp.broadcast_to(hidden[:1, :1], hidden.shape), atol=1e-5)


def word_head(width: int, table: tuple[int, int], layers: int, *, tied: bool) -> WordHead:
    model = ConfigDict({"joint_width": width, "interaction_layers": layers, "tie_mlm": tied})
    return WordHead(model, BertConfig(*table), FLOAT, nnx.Rngs(1))


def test_kernels_are_drawn_as_clips_are():
    model = ConfigDict({"joint_width": 128, "heads": 2, "interaction_layers": 4})
    encoder = InteractionEncoder(model, FLOAT, nnx.Rngs(0))
    head = word_head(128, (300, 64), 4, tied=False)
    block, write = encoder.blocks[1], 128**-0.5 * 8**-0.5
    for layer, expected in (
        (encoder.cross_attention.query, 128**-0.5),
        (block.attention.key, 128**-0.5),
        (block.attention.out, write),
        (block.fc1, 256**-0.5),
        (block.fc2, write),
        (head.dense, 256**-0.5),
        (head.output, write),
    ):
        assert float(jnp.std(layer.kernel[...])) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_compares_with_the_table_and_teaches_it(tied):
    head = word_head(16, (30, 8), 2, tied=tied)
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(2, 3, 16)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(30, 8)), jnp.float32)
    assert head(features, table).shape == (2, 3, 30)
    gradient = jax.grad(lambda table: jnp.sum(head(features, table) ** 2))(table)
    assert bool(jnp.any(gradient)) == tied
