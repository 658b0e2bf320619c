"""What the preset ``best`` adds to the paper's model: the newest turn, and known intentions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import make_toy

from int_ra_jax.common.params import flatten


@pytest.fixture(scope="module")
def toy():
    return make_toy(model__intention_match=3.0, model__newest_turn=True)


def test_the_score_is_the_cosine_and_the_probability_that_an_annotated_intention_is_meant(toy):
    context = toy.call("encode_context", toy.attached)
    sticker = toy.call("encode_sticker", toy.resident.bank)
    width = toy.config.model.joint_width
    query, embedding = np.asarray(context.query), np.asarray(sticker.embedding)
    cosine = query[:, :width] @ embedding[:, :width].T
    np.testing.assert_allclose(np.linalg.norm(query[:, :width], axis=1), 1, atol=1e-5)
    probability = np.asarray(jax.nn.softmax(context.intention_logits))
    annotated = np.asarray(toy.resident.bank.intentions, np.float32)
    expected = cosine + 3.0 * probability @ annotated.T
    np.testing.assert_allclose(toy.call("score", context, sticker), expected, atol=1e-5)


def test_the_weight_changes_the_score_and_no_loss(toy):
    other = make_toy(model__intention_match=1.0, model__newest_turn=True)
    assert float(toy.loss(toy.params)) == pytest.approx(float(other.loss(toy.params)), abs=1e-6)
    assert not np.allclose(toy.scores(), other.scores(toy.params), atol=1e-3)


def test_only_the_newest_turn_and_what_it_was_read_with_make_the_query(toy):
    # With the newest turn alone pooled, the classifier sees other turns through attention only.
    plain = make_toy(model__intention_match=3.0)
    plain.params = {k: v for k, v in toy.params.items() if k != "newest_norm"}
    ours = toy.call("encode_context", toy.attached).intention_logits
    theirs = plain.call("encode_context", plain.attached).intention_logits
    assert not np.allclose(ours, theirs, atol=1e-3)


def test_words_of_other_turns_are_read_and_those_of_padding_are_not(toy):
    context = toy.batch.context
    features = toy.call("text_tokens", context, None)
    newest = np.asarray(context.turn == 1)
    mean = [np.asarray(features)[row, newest[row]].mean(axis=0) for row in range(len(newest))]
    norm = toy.system.newest_norm(jnp.asarray(np.stack(mean)))
    logits = toy.system.intention_classifier(norm)
    ours = toy.call("encode_context", toy.attached).intention_logits
    np.testing.assert_allclose(ours, logits, atol=1e-5)


def test_the_norm_of_the_newest_turn_is_trained(toy):
    gradients = toy.gradients()
    assert {path for path in flatten(toy.params) if path.startswith("newest_norm/")} == {
        "newest_norm/bias",
        "newest_norm/scale",
    }
    assert np.any(gradients["newest_norm/scale"]) and np.any(gradients["newest_norm/bias"])
