"""LGUR: its mining and losses, its blocks, and what may be read when."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, INTENTIONS, Toy, make_toy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import lgur as configs_lgur
from int_ra_jax.common.params import flatten
from int_ra_jax.models import interface, registry
from int_ra_jax.models.systems import lgur, lgur_losses
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig
from int_ra_jax.training import sharding
from int_ra_jax.training.step import compute_loss

# Computed in float64 from the formula; rows are images, columns texts, all labels distinct.
SCORES = jnp.array([[0.8, 0.6, 0.1], [0.7, 0.5, 0.4], [0.2, 0.3, 0.9]])
OTHERS = ~jnp.eye(3, dtype=bool)
IMAGE_TERMS, TEXT_TERMS = [0.1, 0.2, 0.0], [0.2, 0.1, 0.0]
KEY = jax.random.key(0)


# ---- mining -------------------------------------------------------------------------------------


def test_ranking_golden_value_anchor_by_anchor():
    # The reference reads the texts' terms from S and not from its transpose: .1 and .2 then.
    for key in jax.random.split(KEY, 3):
        rows = lgur_losses.semi_hard_terms(SCORES, OTHERS, 0.3, key)
        columns = lgur_losses.semi_hard_terms(SCORES.T, OTHERS, 0.3, key)
        np.testing.assert_allclose(rows, IMAGE_TERMS, atol=1e-6)
        np.testing.assert_allclose(columns, TEXT_TERMS, atol=1e-6)
    total, active = lgur_losses.ranking_loss(SCORES, OTHERS, 0.3, KEY)
    assert float(total) == pytest.approx(0.6, abs=1e-6)
    assert float(active) == pytest.approx(4 / 6)


def test_both_directions_mine_by_one_rule():
    scores = jax.random.uniform(KEY, (6, 6))
    negative = jax.random.bernoulli(jax.random.key(1), 0.7, (6, 6))
    ahead, back = jax.random.split(KEY)
    total, _ = lgur_losses.ranking_loss(scores, negative, 0.3, KEY)
    expected = sum(lgur_losses.semi_hard_terms(scores, negative, 0.3, ahead)) + sum(
        lgur_losses.semi_hard_terms(scores.T, negative.T, 0.3, back)
    )
    assert float(total) == pytest.approx(float(expected), abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.6))
def test_every_term_lies_between_zero_and_the_margin_and_is_of_a_negative(seed, margin):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-1, 1, (5, 5)).astype(np.float32)
    negative = (rng.random((5, 5)) < 0.6) & ~np.eye(5, dtype=bool)
    margin = float(np.float32(margin))
    terms = np.asarray(
        lgur_losses.semi_hard_terms(
            jnp.asarray(scores), jnp.asarray(negative), margin, jax.random.key(seed)
        )
    )
    for anchor, term in enumerate(terms):
        best = scores[anchor, anchor]
        window = negative[anchor] & (scores[anchor] > best - margin) & (scores[anchor] < best)
        allowed = margin - best + scores[anchor][window]
        if window.any():
            assert 0 < term < margin and np.abs(allowed - term).min() < 1e-6
        else:
            assert term == 0


@pytest.mark.parametrize(
    ("scores", "negative"),
    [
        (jnp.ones((3, 3)), OTHERS),  # as good as the positive
        (jnp.eye(3), OTHERS),  # further off than the margin
        (SCORES, jnp.zeros((3, 3), bool)),  # one label
    ],
)
def test_an_empty_window_gives_exactly_zero_and_no_gradient(scores, negative):
    value, gradient = jax.value_and_grad(
        lambda scores: lgur_losses.ranking_loss(scores, negative, 0.3, KEY)[0]
    )(scores)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0)


def test_a_harder_negative_is_drawn_only_when_asked():
    too_hard = jnp.zeros((3, 3), bool).at[1, 0].set(True)  # .7 against a positive of .5
    np.testing.assert_array_equal(lgur_losses.semi_hard_terms(SCORES, too_hard, 0.3, KEY), 0)
    terms = lgur_losses.semi_hard_terms(SCORES, too_hard, 0.3, KEY, include_hard=True)
    np.testing.assert_allclose(terms, [0, 0.5, 0], atol=1e-6)


def test_every_negative_of_the_window_is_drawn_about_equally_often():
    scores = jnp.array([[0.9, 0.8, 0.75, 0.7, 0.1]])
    scores = jnp.concatenate([scores, jnp.zeros((4, 5))])
    negative = jnp.ones((5, 5), bool).at[0, 3].set(False)
    draws = jax.vmap(lambda key: lgur_losses.semi_hard_terms(scores, negative, 0.3, key)[0])(
        jax.random.split(KEY, 400)
    )
    values, counts = np.unique(np.asarray(draws).round(3), return_counts=True)
    np.testing.assert_allclose(values, [0.15, 0.2], atol=1e-6)
    assert counts.min() > 150  # 200 expected; the label spares .7, the margin .1


def test_a_pair_is_no_negative_of_its_own_label_or_sticker():
    sticker, intention = jnp.array([4, 4, 7, 8]), jnp.array([0, 1, 0, 2])
    by_intent = lgur_losses.different_pairs(sticker, intention, "intent")
    np.testing.assert_array_equal(
        by_intent, np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]], bool)
    )
    by_sticker = lgur_losses.different_pairs(sticker, intention, "sticker")
    np.testing.assert_array_equal(by_sticker, sticker[:, None] != sticker[None])


# ---- blocks -------------------------------------------------------------------------------------


def test_the_bilstm_equals_torchs_on_packed_sequences():
    torch = pytest.importorskip("torch")
    width, inputs, lengths = 4, 6, [5, 3, 1]
    peer = torch.nn.LSTM(inputs, width, bias=False, batch_first=True, bidirectional=True)
    ours = lgur.BiLSTM(inputs, width, dtype=jnp.float32, rngs=nnx.Rngs(0))
    weights = {name: leaf.detach().numpy().T for name, leaf in peer.named_parameters()}
    read = [weights["weight_ih_l0"], weights["weight_ih_l0_reverse"]]
    ours.read.kernel[...] = jnp.asarray(np.concatenate(read, axis=1))
    ours.ahead.kernel[...] = jnp.asarray(weights["weight_hh_l0"])
    ours.back.kernel[...] = jnp.asarray(weights["weight_hh_l0_reverse"])
    x = np.random.default_rng(0).normal(size=(3, 5, inputs)).astype(np.float32)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), lengths, batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(peer(packed)[0], batch_first=True)
    expected = expected.detach().numpy().reshape(3, 5, 2, width).mean(axis=2)
    mask = np.arange(5) < np.array(lengths)[:, None]
    found = np.asarray(ours(jnp.asarray(x), jnp.asarray(mask)))
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-6)
    # A library whose padding reached the backward direction would move the real tokens.
    moved = np.where(mask[:, :, None], x, 9.0)
    again = np.asarray(ours(jnp.asarray(moved), jnp.asarray(mask)))
    np.testing.assert_array_equal(again[mask], found[mask])


def test_a_row_without_any_token_has_the_zero_state():
    lstm = lgur.BiLSTM(3, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    found = lstm(jnp.ones((2, 4, 3)), jnp.array([[False] * 4, [True] * 4]))
    np.testing.assert_array_equal(found[0], 0)
    assert np.any(found[1])


# ---- the system ---------------------------------------------------------------------------------


@functools.cache
def toy_of() -> Toy:
    return make_toy(system="lgur")


def scores_with(**changes: object) -> np.ndarray:
    """Scores after exchanging parameters, named by path with __ for the slash."""
    toy = toy_of()
    params = jax.tree.map(lambda leaf: leaf, toy.params)
    for path, leaf in changes.items():
        *outer, last = path.split("__")
        functools.reduce(lambda tree, key: tree[key], outer, params)[last] = leaf
    return np.asarray(toy.scores(params))


def test_the_order_of_the_dictionary_changes_nothing_and_its_rows_do():
    dictionary = toy_of().params["dictionary"]
    np.testing.assert_allclose(scores_with(dictionary=dictionary[::-1]), scores_with(), atol=1e-5)
    other = scores_with(dictionary=-dictionary)  # a constant would be lost in the LayerNorm
    assert np.abs(other - scores_with()).max() > 1e-3


def test_queries_permuted_together_with_their_projections_change_no_score():
    params = toy_of().params
    first, second = (params["projections"][key]["kernel"] for key in "01")
    together = {"projections__0__kernel": second, "projections__1__kernel": first}
    queries = params["queries"][::-1]
    np.testing.assert_allclose(scores_with(queries=queries, **together), scores_with(), atol=1e-5)
    assert np.abs(scores_with(queries=queries) - scores_with()).max() > 1e-3


def test_without_foreground_every_sticker_is_the_same():
    scores = scores_with(foreground__bias=jnp.array([-1e9]))
    np.testing.assert_allclose(scores, scores[:, :1] + np.zeros((1, GALLERY)), atol=1e-6)
    assert np.ptp(scores_with(), axis=1).min() > 1e-4


def test_what_stands_at_the_padding_changes_no_score():
    toy = toy_of()
    context = toy.batch.context
    noise = jnp.where(context.mask, context.ids, 77)
    other = toy.batch.replace(context=context.replace(ids=noise))
    scores = Toy(toy.config, toy.graphdef, toy.params, toy.resident, other).scores()
    np.testing.assert_allclose(scores, scores_with(), atol=1e-5)


def test_evaluation_computes_nothing_of_the_guided_branch(monkeypatch):
    toy = toy_of()
    system = toy.system
    monkeypatch.setattr(lgur.LGUR, "guided_parts", None)
    context = jax.eval_shape(lambda: system.encode_context(toy.attached))
    sticker = jax.eval_shape(lambda: system.encode_sticker(toy.resident.bank))
    assert set(flatten(context)) == {"query"} and set(flatten(sticker)) == {"embedding"}
    train = jax.eval_shape(lambda: system.encode_sticker(toy.resident.bank, key=KEY))
    assert train.patches.shape == (GALLERY, 9, 16) and train.foreground.shape == (GALLERY, 9, 1)
    # The class token is no patch: 9 of 48 x 48 pixels.


def test_a_guided_sticker_reads_its_own_conversation_and_no_other():
    toy = toy_of()
    rng = np.random.default_rng(0)
    width = toy.config.model.token_width
    mask = jnp.arange(5) < jnp.array([[5], [2], [3]])
    context = lgur.LgurContext(tokens=jnp.asarray(rng.normal(size=(3, 5, width)), "f4"), mask=mask)
    sticker = lgur.LgurSticker(
        patches=jnp.asarray(rng.normal(size=(3, 9, width)), "f4"), foreground=jnp.ones((3, 9, 1))
    )
    before = np.asarray(toy.call("guided_parts", context, sticker))
    assert before.shape == (3, 2, 16)

    def moved(tokens: jax.Array) -> list[int]:
        after = np.asarray(toy.call("guided_parts", context.replace(tokens=tokens), sticker))
        return np.flatnonzero(np.abs(after - before).max(axis=(1, 2)) > 1e-5).tolist()

    assert moved(context.tokens.at[1].multiply(-2.0)) == [1]
    assert moved(jnp.where(mask[:, :, None], context.tokens, 50.0)) == []


def test_parts_sum_to_the_total_and_a_frozen_text_tower_is_still_and_unmoved():
    toy = make_toy(
        system="lgur", model__text__frozen_layers=-1, model__dropout=0.4,
        loss__lambda_ret=2.0, loss__lambda_int=0.5,
    )  # fmt: skip

    def loss(params):
        system = interface.merge(toy.graphdef, params)
        total, parts = compute_loss(system, toy.batch, toy.resident, None, KEY)
        text, hidden = toy.attached.context, toy.attached.context_hidden
        tokens = [system.text_tokens(text, hidden, key) for key in (KEY, None)]
        queries = [system.encode_context(toy.attached, key=key).query for key in (KEY, None)]
        return total, (parts, tokens, queries)

    (total, (parts, tokens, queries)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        toy.params
    )
    names = ("guided", "dictionary", "text", "image")
    ranking = sum(parts[f"loss/ranking_{name}"] for name in names)
    intention = sum(parts[f"loss/intention_{name}"] for name in names[:2])
    assert float(parts["loss/retrieval"]) == pytest.approx(float(ranking), rel=1e-5)
    assert float(parts["loss/intention"]) == pytest.approx(float(intention), rel=1e-5)
    assert float(total) == pytest.approx(float(2.0 * ranking + 0.5 * intention), rel=1e-5)
    assert 0 < float(parts["ranking/active"]) <= 1
    np.testing.assert_allclose(tokens[0], tokens[1], atol=1e-6)  # no dropout in what is frozen
    assert np.abs(queries[0] - queries[1]).max() > 0.01  # but before the heads
    for path, leaf in flatten(gradients).items():
        if path.startswith("text/"):
            assert not np.any(leaf), path
        elif path.startswith("words/"):
            assert np.any(leaf), path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_batch_can_be_encoded_in_parts(dtype):
    # Traced alone: a recurrence that carries its parameters through a loop fails here.
    toy = make_toy(system="lgur", model__dtype=dtype)

    def loss(params):
        system = interface.merge(toy.graphdef, params)
        return compute_loss(system, toy.batch, toy.resident, None, KEY, micro_batches=2)[0]

    assert jax.eval_shape(jax.grad(loss), toy.params).keys() == toy.params.keys()
    assert jax.eval_shape(loss, toy.params).dtype == jnp.float32
    assert jax.eval_shape(toy.scores, toy.params).dtype == jnp.float32


def test_the_dictionary_and_the_queries_are_split_by_rules_of_their_own():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1})
    toy = toy_of()
    places = flatten(sharding.state_shardings(toy.params, mesh, toy.system.sharding_rules))
    for name in ("dictionary", "queries", "words/ahead/kernel", "decoder/0/key/kernel"):
        assert places[name].spec == jax.sharding.PartitionSpec("fsdp", *places[name].spec[1:])
    with pytest.raises(ValueError, match="2 parameters: dictionary, queries"):
        sharding.state_shardings(toy.params, mesh)


def test_parameters_start_as_the_reference_draws_them():
    config = configs_lgur.get_config("smoke")
    config.model.update({"token_width": 96, "joint_width": 128, "dictionary_size": 50})
    text = BertConfig(128, 16, 1, 2, 32, max_position_embeddings=64)
    image = ClipVisionConfig(16, 32, 1, 2, image_size=48, patch_size=16)
    facts = interface.Facts(
        text, image, INTENTIONS, GALLERY, (1,) * INTENTIONS, interface.SpecialIds(0, 1, 2, 3)
    )
    _, params = interface.split(registry.build(config, facts, nnx.Rngs(0)))
    leaves = flatten(params)
    expected = {
        "dictionary": 1.0,
        "queries": 1.0,
        "projections/1/kernel": (2 / 64) ** 0.5,  # fan-out of one part of 128 / 2
        "classifiers/0/kernel": 0.001,
        "words/read/kernel": (3 * 96) ** -0.5,  # uniform in +-96**-0.5
        "words/back/kernel": (3 * 96) ** -0.5,
    }
    for path, spread in expected.items():
        assert float(jnp.std(leaves[path])) == pytest.approx(spread, rel=0.12), path
    biases = [
        path for path in leaves if path.startswith(("words", "projections")) and "bias" in path
    ]
    assert biases == []


# ---- configuration ------------------------------------------------------------------------------


def test_the_original_preset_has_the_reference_implementations_numbers():
    config = configs_lgur.get_config("original")
    model = config.model
    assert (model.parts, model.joint_width, model.token_width) == (6, 6 * 512, 384)
    assert (model.dictionary_size, model.heads) == (400, 6)
    assert (model.rebuild_head, model.rebuild_ffn) == (64, 768)
    assert (model.decoder_head, model.decoder_ffn) == (512, 512)
    assert (config.loss.margin, config.loss.include_hard) == (0.3, False)
    assert (config.optim.lr, config.optim.multipliers.fast) == (1e-4, 10.0)
    assert (config.train.batch_size, config.train.epochs) == (64, 60.0)
    assert model.text.frozen_layers == -1 and config.text.knowledge == "off"


def test_a_width_that_the_parts_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"model\.joint_width=32 is not divisible by .*parts=3"):
        make_toy(system="lgur", model__parts=3)
