"""SRS: golden values of its losses, how utterances are split, and which pairs the loss sees."""

import math
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, INTENTIONS, make_toy, spoken
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import srs as srs_config
from int_ra_jax.common.params import flatten, matching
from int_ra_jax.models import losses
from int_ra_jax.models.interface import Candidates, SpecialIds, merge
from int_ra_jax.models.systems import srs

PAD, CLS, SEP = 0, 1, 2
SPECIAL = SpecialIds(PAD, CLS, SEP, 3)
NUMBERS = st.floats(-4, 4, width=32)


def matrices(rows: int, columns: int) -> st.SearchStrategy[np.ndarray]:
    numbers = st.lists(NUMBERS, min_size=rows * columns, max_size=rows * columns)
    return numbers.map(lambda flat: np.asarray(flat, np.float32).reshape(rows, columns))


# ---- losses -----------------------------------------------------------------------------------


def pairwise_hinge(scores, counts, margin):
    """Column 0 is the positive, the others are negatives."""
    return losses.hinge_loss(scores[:, 1:], counts, margin, positive=scores[:, 0])


def test_pairwise_hinge_golden_value():
    # Computed in float64 from the formula: positives 2 and 0 against (1, .5) and (0, 0).
    scores = jnp.array([[2.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    assert float(pairwise_hinge(scores, jnp.ones((2, 2), bool), 1.0)) == pytest.approx(0.5)


@settings(max_examples=50, deadline=None)
@given(matrices(3, 4), NUMBERS)
def test_the_hinge_is_zero_where_every_negative_is_a_margin_below_and_knows_no_offset(scores, up):
    counts = jnp.ones((3, 3), bool)
    loss = float(pairwise_hinge(jnp.asarray(scores), counts, 1.0))
    assert (loss == 0) == bool((scores[:, :1] - scores[:, 1:] >= 1).all())
    moved = scores + np.float32([[up], [0], [0]])
    assert float(pairwise_hinge(jnp.asarray(moved), counts, 1.0)) == pytest.approx(loss, abs=1e-4)


def test_the_hinge_is_the_margin_for_equal_scores_and_passes_over_missing_negatives():
    equal = jnp.full((2, 4), 3.0)
    assert float(pairwise_hinge(equal, jnp.ones((2, 3), bool), 1.0)) == 1.0
    one = jnp.array([[True, False, False], [False, False, False]])
    raised = equal.at[0, 2].set(9.0).at[1, 1].set(9.0)
    assert float(pairwise_hinge(raised, one, 1.0)) == 1.0
    assert float(pairwise_hinge(raised, jnp.zeros((2, 3), bool), 1.0)) == 0.0


def test_smoothed_cross_entropy_golden_values():
    # Computed in float64 from the formula, with smoothing .1 and without.
    logits, label = jnp.array([[1.0, 0.0, 0.0, 0.0]]), jnp.array([[True, False, False, False]])
    weight = jnp.ones(1)
    for smoothing, value in ((0.1, 0.8186686), (0.0, 0.7436684)):
        loss = srs.smoothed_cross_entropy(logits, label, weight, smoothing)
        assert float(loss) == pytest.approx(value, abs=1e-6)


def test_a_sticker_with_several_intentions_is_asked_for_all_of_them_alike():
    logits, labels = jnp.array([[2.0, -1.0, 0.5]]), jnp.array([[True, False, True]])
    log_share = np.asarray(jax.nn.log_softmax(logits))[0]
    loss = srs.smoothed_cross_entropy(logits, labels, jnp.ones(1), 0.0)
    assert float(loss) == pytest.approx(-(log_share[0] + log_share[2]) / 2, abs=1e-6)


def test_a_sticker_without_intention_has_neither_loss_nor_gradient():
    logits = jnp.array([[1.0, 0.0], [5.0, -5.0]])
    labels = jnp.array([[True, False], [False, False]])

    def loss(logits, labels):
        return srs.smoothed_cross_entropy(logits, labels, jnp.ones(len(labels)), 0.1)

    alone = float(loss(logits[:1], labels[:1]))
    assert float(loss(logits, labels)) == pytest.approx(alone, abs=1e-6)
    assert not np.any(jax.grad(loss)(logits, labels)[1])
    assert float(loss(logits[1:], labels[1:])) == 0.0


def test_negatives_are_allowed_ones_without_repetition_and_all_of_them_come_up():
    allowed = jnp.array([[True, False, True, True, True], [False, False, True, False, False]])
    seen = set()
    for seed in range(40):
        column, counts = map(np.asarray, srs.draw_negatives(allowed, 2, jax.random.key(seed)))
        for row in range(2):
            kept = column[row][counts[row]]
            assert len(set(kept)) == len(kept) == min(2, int(allowed[row].sum()))
            assert np.asarray(allowed)[row][kept].all()
        seen |= set(column[0])
    assert seen == {0, 2, 3, 4}


# ---- utterances -------------------------------------------------------------------------------


split = jax.jit(srs.split_utterances, static_argnums=(1, 2, 3))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(5, 9), min_size=1, max_size=8), min_size=0, max_size=5),
        min_size=2,
        max_size=2,
    ),
    st.sampled_from([(1, 5), (3, 4), (4, 6)]),
)
def test_rows_are_split_into_their_newest_utterances(said, sizes):
    number, length = sizes
    rows = [[CLS, *(token for turn in turns for token in (*turn, SEP))] for turns in said]
    ids = np.array([row + [PAD] * (48 - len(row)) for row in rows], np.int32)
    mask = np.array([[i < len(row) for i in range(48)] for row in rows])
    framed = split(spoken(ids, mask), number, length, SPECIAL)
    assert framed.ids.shape == (2, number, length)
    for b, turns in enumerate(said):
        expected = [turn[-(length - 2) :] for turn in turns][-number:]
        for u in range(number):
            line = [CLS, *expected[u], SEP] if u < len(expected) else []
            assert np.asarray(framed.ids[b, u]).tolist() == line + [PAD] * (length - len(line))
            assert int(framed.mask[b, u].sum()) == len(line)
            assert int(framed.words[b, u].sum()) == max(len(line) - 2, 0)


def test_knowledge_is_no_utterance():
    ids = jnp.array([[CLS, 5, SEP, 6, 7, SEP]])
    tokens = spoken(ids, jnp.ones_like(ids, bool), jnp.array([[0, 0, 0, 1, 1, 1]]))
    framed = split(tokens, 3, 4, SPECIAL)
    assert np.asarray(framed.ids[0, 0]).tolist() == [CLS, 5, SEP, PAD]
    assert int(framed.words.sum()) == 1


def test_a_region_window_takes_the_mean_of_neighbouring_patches():
    patches = jnp.arange(16.0).reshape(1, 16, 1)  # 4 x 4, row by row
    np.testing.assert_array_equal(
        srs.pooled_grid(patches, 2)[0, :, 0],
        [(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4, (8 + 9 + 12 + 13) / 4, (10 + 11 + 14 + 15) / 4],
    )
    assert srs.pooled_grid(patches, 1) is patches


# ---- the system -------------------------------------------------------------------------------


def encoded(toy):
    """Random words and a random gallery in place of the towers', and the columns of a step."""
    rng = np.random.default_rng(5)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    context = srs.Utterances(
        words=draw(8, 2, 3, 32), word_mask=jnp.asarray(rng.random((8, 2, 3)) < 0.7)
    )
    gallery = srs.Regions(
        regions=draw(GALLERY, 4, 32),
        summary=draw(GALLERY, 32),
        intention_logits=draw(GALLERY, INTENTIONS),
    )
    index = jnp.concatenate([toy.batch.sticker, toy.batch.sticker, jnp.arange(GALLERY)])
    columns = Candidates(index, toy.resident.bank.intentions[index])
    return context, gallery, jax.tree.map(lambda leaf: leaf[index], gallery), columns


@pytest.mark.parametrize("negatives_from", ["any_other_sticker", "other_intent"])
def test_the_loss_compares_the_gold_sticker_with_allowed_ones_alone(negatives_from):
    # With more candidates than stickers every allowed one is drawn, so nothing is left to chance.
    toy = make_toy(
        system="srs",
        loss__negatives_from=negatives_from,
        loss__candidates=GALLERY + 5,
        loss__lambda_ret=0.5,
        loss__lambda_int=2.0,
    )
    context, gallery, sticker, columns = encoded(toy)

    @jax.jit
    def loss(params):
        key = jax.random.key(0)
        return merge(toy.graphdef, params).loss(context, sticker, toy.batch, columns, key=key)

    total, parts = loss(toy.params)
    scores, gold = np.asarray(toy.call("score", context, gallery)), np.asarray(toy.batch.sticker)
    labels = np.asarray(toy.resident.bank.intentions)
    same = labels[:, np.asarray(toy.batch.intention)].T
    pairs = [
        (b, n)
        for b, n in product(range(8), range(GALLERY))
        if n != gold[b] and not (negatives_from == "other_intent" and same[b, n])
    ]
    terms = [max(0.0, 1.0 - scores[b, gold[b]] + scores[b, n]) for b, n in pairs]
    assert float(parts["loss/retrieval"]) == pytest.approx(np.mean(terms), abs=1e-4)

    log_shares = np.asarray(jax.nn.log_softmax(gallery.intention_logits))
    entropies = []
    for n in [*gold, *(n for _, n in pairs)]:
        if labels[n].any():
            target = 0.9 * labels[n] / labels[n].sum() + 0.1 / INTENTIONS
            entropies.append(-(target * log_shares[n]).sum())
    assert 0 < len(entropies) < len(gold) + len(pairs)
    assert float(parts["loss/intention"]) == pytest.approx(np.mean(entropies), abs=1e-4)
    expected = 0.5 * parts["loss/retrieval"] + 2.0 * parts["loss/intention"]
    assert float(total) == pytest.approx(float(expected), abs=1e-5)


def test_the_first_stage_reaches_the_intentions_of_the_stickers_alone():
    toy = make_toy(system="srs", loss__lambda_ret=0.0)
    context, _, sticker, columns = encoded(toy)

    @jax.jit
    def gradients(params, words, sticker):
        def loss(params, words, sticker):
            given = context.replace(words=words)
            key = jax.random.key(0)
            return merge(toy.graphdef, params).loss(given, sticker, toy.batch, columns, key=key)[0]

        return jax.grad(loss, argnums=(0, 1, 2))(params, words, sticker)

    heads, words, stickers = gradients(toy.params, context.words, sticker)
    for untouched in (*jax.tree.leaves(heads), words, stickers.regions, stickers.summary):
        assert not np.any(untouched)
    assert np.any(stickers.intention_logits)
    stage = srs_config.get_config("original_stage1")
    assert stage.loss.lambda_ret == 0
    trained = set(flatten(toy.params)) - matching(toy.params, stage.optim.frozen)
    assert {path.split("/")[0] for path in trained} == {"image", "sticker_intention"}


def test_cached_frozen_layers_give_the_same_words_in_a_batch_narrower_than_the_cache():
    toy = make_toy(system="srs", model__text__frozen_layers=-1, model__utterances=15)
    hidden = toy.call("hidden_text", toy.batch.context)
    assert hidden.shape == (8, 12, 12, 16)  # 24 tokens hold 12 utterances
    rows = np.flatnonzero(np.asarray(toy.batch.context.mask.sum(1)) <= 10)
    assert len(rows) > 1
    narrow = jax.tree.map(lambda leaf: leaf[rows, :10], toy.batch.context)
    toy.batch = jax.tree.map(lambda leaf: leaf[rows], toy.batch).replace(context=narrow)
    plain = toy.call("encode_context", toy.attached)
    toy.resident = toy.resident.replace(context_hidden=hidden)
    assert toy.attached.context_hidden.shape[1] == 10
    cached = toy.call("encode_context", toy.attached)
    np.testing.assert_array_equal(cached.word_mask, plain.word_mask)
    real = np.asarray(plain.word_mask)
    np.testing.assert_allclose(cached.words[real], plain.words[real], atol=1e-5)


def test_there_is_nothing_to_search_by_and_the_intention_is_predicted_in_training_alone():
    toy = make_toy(system="srs")
    context = jax.eval_shape(toy.system.encode_context, toy.attached)
    assert context.query is None and context.intention_logits is None
    assert toy.system.embedding_width == 0
    for key in (None, jax.random.key(0)):
        encode = partial(toy.system.encode_sticker, key=key)
        sticker = jax.eval_shape(encode, toy.resident.bank)
        assert sticker.embedding is None
        assert (sticker.intention_logits is None) == (key is None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"text__speakers": "prefix"}, "text.speakers='prefix'"),
        ({"text__knowledge": "append"}, "text.knowledge='append'"),
        ({"model__region_window": 2}, "does not divide the 3 x 3 patches"),
        ({"model__fusion_heads": 3}, "model.fusion_width=16 is not divisible"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        make_toy(system="srs", **overrides)


def test_the_original_preset_has_the_originals_numbers():
    config = srs_config.get_config("original")
    assert (config.train.batch_size, config.train.epochs, config.optim.lr) == (32, 5, 1e-4)
    assert (config.model.joint_width, config.model.fusion_width) == (200, 100)
    assert (config.model.utterances, config.model.utterance_tokens - 2) == (15, 30)
    assert (config.loss.candidates, config.loss.margin, config.loss.label_smoothing) == (10, 1, 0.1)
    assert config.loss.bank_size == math.prod((config.train.batch_size, config.loss.candidates - 1))
