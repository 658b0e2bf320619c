"""Losses: golden values, the defects they avoid, and their invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.models import losses


def all_negatives(batch: int, columns: int | None = None) -> jax.Array:
    return ~jnp.eye(batch, columns or batch, dtype=bool)


def test_infonce_golden_value():
    # baselines specification, golden value 1: q=[[1,0],[0,1]], v=[[1,0],[.6,.8]], scale 10
    scores = jnp.array([[1.0, 0.0], [0.0, 1.0]]) @ jnp.array([[1.0, 0.0], [0.6, 0.8]]).T
    value = losses.infonce(scores, all_negatives(2), jnp.log(10.0))
    assert float(value) == pytest.approx(0.0363647, abs=1e-6)


def test_infonce_of_identical_features_is_log_batch():
    for batch in (1, 4, 7):
        value = losses.infonce(jnp.ones((batch, batch)), all_negatives(batch), jnp.asarray(2.0))
        assert float(value) == pytest.approx(np.log(batch), abs=1e-5)


def test_infonce_ignores_false_negatives():
    scores = jnp.array([[0.5, 0.9, 0.1], [0.2, 0.7, 0.3]])
    negative = jnp.array([[False, False, True], [True, False, False]])
    moved = scores.at[0, 1].set(-0.9).at[1, 2].set(0.99)  # masked pairs, in either direction
    before = losses.infonce(scores, negative, jnp.asarray(1.0))
    assert float(losses.infonce(moved, negative, jnp.asarray(1.0))) == pytest.approx(float(before))


def test_hinge_golden_value():
    # every anchor against every column but its own: relu(.2 - pos + neg)
    scores = jnp.array([[0.9, 0.8, -1.0], [0.5, 0.5, 0.4]])
    value = losses.hinge_loss(scores, all_negatives(2, 3), 0.2)
    assert float(value) == pytest.approx((0.1 + 0.0 + 0.2 + 0.1) / 4, abs=1e-6)


def test_hinge_without_valid_negatives_is_zero_with_finite_gradient():
    loss = lambda s: losses.hinge_loss(s, jnp.zeros((2, 2), bool), 0.2)  # noqa: E731
    assert float(loss(jnp.ones((2, 2)))) == 0.0
    assert bool(jnp.all(jax.grad(loss)(jnp.ones((2, 2))) == 0))


def test_literal_eq14_cannot_tell_positive_from_negative_and_hinge_can():
    negative = jnp.array([[False, True]])
    scores = jnp.array([[0.7, 0.6]])
    literal = jax.grad(lambda s: losses.literal_eq14(s, negative, 0.2))(scores)[0]
    hinge = jax.grad(lambda s: losses.hinge_loss(s, negative, 0.2))(scores)[0]
    np.testing.assert_allclose(literal, [1.0, 1.0])
    np.testing.assert_allclose(hinge, [-1.0, 1.0])


def test_gold_sticker_is_never_a_negative_wherever_it_stands():
    gold, column = jnp.array([3, 3, 5]), jnp.array([3, 3, 5, 0, 3])
    intentions = jnp.zeros((5, 2), bool)
    negative = losses.negative_pairs(gold, jnp.array([0, 1, 0]), column, intentions, False)
    expected = [[0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [1, 1, 0, 1, 1]]
    np.testing.assert_array_equal(negative, np.array(expected, bool))


def test_same_intention_is_spared_only_when_asked():
    gold, column = jnp.array([0, 1]), jnp.array([0, 1, 2])
    intentions = jnp.array([[1, 0], [0, 1], [1, 0]], bool)  # sticker 2 carries intention 0
    arguments = (gold, jnp.array([0, 1]), column, intentions)
    assert not losses.negative_pairs(*arguments, True)[0, 2]
    assert losses.negative_pairs(*arguments, True)[1, 2]
    assert losses.negative_pairs(*arguments, False)[0, 2]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 3.0))
def test_losses_do_not_depend_on_the_order_of_the_batch(seed: int, scale: float):
    rng = np.random.default_rng(seed)
    scores = jnp.asarray(rng.uniform(-1, 1, (4, 4)), jnp.float32)
    order = jnp.asarray(rng.permutation(4))
    shuffled = scores[order][:, order]
    masks = jnp.asarray(rng.random((4, 4)) < 0.5) & all_negatives(4)
    moved = masks[order][:, order]
    for loss in (
        lambda s, m: losses.hinge_loss(s, m, 0.2),
        lambda s, m: losses.infonce(s, m, jnp.asarray(scale)),
        lambda s, m: losses.multi_positive(s, ~m, m, jnp.asarray(scale)),
    ):
        np.testing.assert_allclose(loss(scores, masks), loss(shuffled, moved), atol=1e-5)


def test_multi_positive_with_one_positive_is_cross_entropy():
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.uniform(-1, 1, (3, 6)), jnp.float32)
    positive = jnp.eye(3, 6, dtype=bool)
    expected = -jnp.mean(jnp.diagonal(jax.nn.log_softmax(scores * jnp.exp(1.5))[:, :3]))
    value = losses.multi_positive(scores, positive, ~positive, jnp.asarray(1.5))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_multi_positive_is_least_when_positives_share_the_mass():
    positive = jnp.array([[True, True, False, False]])
    good = losses.multi_positive(
        jnp.array([[1.0, 1.0, -1.0, -1.0]]), positive, ~positive, jnp.asarray(4.0)
    )
    lopsided = losses.multi_positive(
        jnp.array([[1.0, 0.0, -1.0, -1.0]]), positive, ~positive, jnp.asarray(4.0)
    )
    assert float(good) == pytest.approx(np.log(2), abs=1e-5)
    assert float(lopsided) > float(good) + 1


def gold_softmax(scores, column, gold, allowed=None, scale=1.5):
    column, gold = jnp.asarray(column), jnp.asarray(gold)
    allowed = jnp.ones(len(column), bool) if allowed is None else jnp.asarray(allowed)
    return losses.gold_softmax(
        jnp.asarray(scores, jnp.float32),
        gold[:, None] == column[None, :],
        allowed,
        losses.copies(column, 10),
        jnp.asarray(scale),
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_sticker_has_one_place_of_the_softmax_in_however_many_columns_it_stands(seed):
    rng = np.random.default_rng(seed)
    gallery = rng.uniform(-1, 1, (4, 10)).astype(np.float32)
    gold = rng.integers(0, 10, 4)
    # The batch's golds, of which some may be the same sticker, and then the whole gallery.
    column = np.concatenate([gold, np.arange(10)])
    value = gold_softmax(gallery[:, column], column, gold)
    expected = optax.softmax_cross_entropy_with_integer_labels(gallery * np.exp(1.5), gold)
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-5)


def test_a_softmax_with_one_right_answer_has_its_golden_value():
    # By hand: columns 0 (twice: 1 and 0), 3; logits as scores. Places: sticker 0 has
    # (e + 1) / 2 = 1.859141, sticker 3 has 1; ln(2.859141) - mean(1, 0) = 0.5505213.
    value = gold_softmax([[1.0, 0.0, 0.0]], [0, 0, 3], [0], scale=0.0)
    assert float(value) == pytest.approx(0.5505213, abs=1e-6)


def test_what_may_not_be_a_negative_stands_in_no_denominator():
    scores, column = [[0.3, 0.9, 0.1]], [4, 7, 2]
    without = gold_softmax([[0.3, 0.1]], [4, 2], [4])
    assert float(gold_softmax(scores, column, [4], [True, False, True])) == pytest.approx(
        float(without), abs=1e-6
    )
    # The gold sticker is there whatever is said of it.
    assert float(gold_softmax(scores, column, [4], [False, False, True])) == pytest.approx(
        float(without), abs=1e-6
    )


def test_stickers_that_train_never_uses_are_negatives_only_if_asked_for():
    arguments = (jnp.array([0]), jnp.array([1]), jnp.array([0, 1, 2]))
    known = jnp.array([[False, True], [False, False], [True, False]])
    for spared in (True, False):
        pairs = [losses.negative_pairs(*arguments, known, spared, x) for x in (True, False)]
        np.testing.assert_array_equal(pairs, [[[False, True, True]], [[False, False, True]]])


def test_label_smoothing_golden_value():
    # baselines specification, golden value 8
    logits, label = jnp.array([[1.0, 0.0, 0.0, 0.0]]), jnp.array([0])
    smoothed = losses.cross_entropy(logits, label, label_smoothing=0.1)
    assert float(smoothed) == pytest.approx(0.8186686, abs=1e-6)
    assert float(losses.cross_entropy(logits, label)) == pytest.approx(0.7436684, abs=1e-6)


def test_intention_loss_goes_below_the_floor_of_a_double_softmax():
    for num_intentions in (5, 23):
        floor = np.log(np.e + num_intentions - 1) - 1
        logits = 20.0 * jnp.eye(num_intentions)
        value = losses.cross_entropy(logits, jnp.arange(num_intentions))
        assert float(value) < floor / 100


def test_class_weights_give_a_weighted_mean():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    labels, weights = jnp.array([0, 1, 2, 2]), jnp.array([3.0, 1.0, 0.5])
    rows = np.array([losses.cross_entropy(logits[i : i + 1], labels[i : i + 1]) for i in range(4)])
    expected = np.average(rows, weights=np.asarray(weights)[np.asarray(labels)])
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, weights), expected, rtol=1e-6)
