"""MOD: the nearest features win, and the target neither moves nor leaks into the prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.prepared import text_config
from fixtures.toy_system import GALLERY, make_toy
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.common.params import flatten, matching
from int_ra_jax.common.types import Context, Sticker
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.data.text import compose_context
from int_ra_jax.models import interface, losses
from int_ra_jax.models.systems import mod

TOYS = {
    # The image tower stays frozen whatever the key says.
    "regress": make_toy(system="mod", model__image__frozen_layers=0),
    "id": make_toy(system="mod", model__head="id"),
}
HEADS = tuple(TOYS)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_augmented_product_orders_as_the_distance_does(seed, unit):
    rng = np.random.default_rng(seed)
    r, f = rng.normal(size=(3, 5)), rng.normal(size=(7, 5)) * rng.uniform(0.2, 3, (7, 1))
    if unit:
        f /= np.linalg.norm(f, axis=1, keepdims=True)
    scores = np.asarray(mod.augmented_query(jnp.asarray(r)) @ mod.augmented_item(jnp.asarray(f)).T)
    distance = -np.square(r[:, None] - f[None]).sum(2)
    # The same numbers but for what is constant in a row, hence the same order.
    shifted = 2 * scores - np.square(r).sum(1, keepdims=True)
    np.testing.assert_allclose(shifted, distance, atol=1e-3)
    if unit:
        cosine = r @ f.T / np.linalg.norm(r, axis=1, keepdims=True)
        np.testing.assert_array_equal(np.argsort(scores), np.argsort(cosine))


def test_the_regression_sums_over_the_channels_unless_asked_for_the_original():
    r, f = jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([[0.0, 2.0], [0.0, 1.0]])
    assert float(mod.regression_loss(r, f, "sum")) == pytest.approx((5 + 1) / 2)
    assert float(mod.regression_loss(r, f, "mean")) == pytest.approx((2.5 + 0.5) / 2)
    unit = jnp.eye(512)[:2]
    # Between unit vectors the mean is at most 4 / 512, which any cross-entropy drowns.
    assert float(mod.regression_loss(-unit, unit, "mean")) == pytest.approx(4 / 512)


def test_no_gradient_reaches_the_features_or_the_image_tower():
    toy = TOYS["regress"]
    gradients = toy.gradients()
    image = {path for path in gradients if path.startswith("image/")}
    assert image and not any(np.any(gradients[path]) for path in image)
    assert image <= matching(toy.params, toy.system.frozen_patterns())
    assert toy.system.hidden_image(toy.resident.bank.pixels) is not None
    for path in ("regression/kernel", "text/encoder/layer/0/output/dense/kernel"):
        assert np.any(gradients[path])


def test_the_target_is_the_class_token_at_length_one():
    toy = TOYS["regress"]
    sticker = toy.call("encode_sticker", toy.resident.bank)
    f = np.asarray(sticker.embedding)[:, :-1]
    cls = np.asarray(toy.call("image_tokens", toy.resident.bank))[:, 0]
    np.testing.assert_allclose(f, cls / np.linalg.norm(cls, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(sticker.embedding[:, -1], -0.5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_the_prediction_does_not_know_its_sticker(head):
    toy = TOYS[head]
    query = toy.call("encode_context", toy.attached).query
    other = toy.attached.replace(
        sticker=(toy.batch.sticker + 1) % GALLERY, intention=(toy.batch.intention + 1) % 5
    )
    np.testing.assert_array_equal(toy.call("encode_context", other).query, query)


def test_an_id_is_scored_by_its_logit_wherever_it_stands():
    toy = TOYS["id"]
    context = toy.call("encode_context", toy.attached)
    rows = jnp.array([7, 2, 2, 11])
    sticker = toy.call("encode_sticker", toy.resident.bank.rows(rows))
    weights = toy.params["sticker_classifier"]
    logits = context.query[:, :-1] @ weights["kernel"] + weights["bias"]
    assert logits.shape == (8, GALLERY)
    scores = toy.call("score", context, sticker)
    np.testing.assert_allclose(scores, logits[:, rows], atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("lambda_ret", "lambda_int"), [(1.0, 1.0), (0.5, 2.0)])
def test_the_loss_is_made_of_its_parts(head, lambda_ret, lambda_int):
    toy = TOYS[head]
    system = interface.merge(toy.graphdef, toy.params)
    system.lambda_ret, system.lambda_int = lambda_ret, lambda_int
    rng = np.random.default_rng(0)
    width = {"regress": system.image.config.hidden_size, "id": system.text.config.hidden_size}[head]
    predicted = jnp.asarray(rng.normal(size=(8, width)), jnp.float32)
    target = jnp.asarray(rng.normal(size=(8, width)), jnp.float32)
    context = Context(
        mod.augmented_query(predicted), jnp.asarray(rng.normal(size=(8, 5)), jnp.float32)
    )
    candidates = interface.Candidates(toy.batch.sticker, jnp.zeros((8, 5), bool))
    total, parts = system.loss(
        context, Sticker(mod.augmented_item(target)), toy.batch, candidates, key=jax.random.key(0)
    )
    if head == "regress":
        expected = np.square(np.asarray(predicted - target)).sum(1).mean()
    else:
        logits = np.asarray(system.sticker_classifier(predicted))
        rows = np.arange(8), np.asarray(toy.batch.sticker)
        expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[rows])
    assert float(parts["loss/retrieval"]) == pytest.approx(expected, rel=1e-5)
    intention = losses.cross_entropy(context.intention_logits, toy.batch.intention)
    assert float(parts["loss/intention"]) == pytest.approx(float(intention), rel=1e-6)
    weighted = lambda_ret * expected + lambda_int * float(intention)
    assert float(total) == float(parts["loss/total"]) == pytest.approx(weighted, rel=1e-5)


def test_only_the_head_that_is_asked_for_is_built():
    for head, toy in TOYS.items():
        heads = {path.split("/")[0] for path in flatten(toy.params)} - {"text", "image"}
        chosen = {"regress": "regression", "id": "sticker_classifier"}[head]
        assert heads == {chosen, "intention_classifier"}


def test_a_conversation_ends_where_the_sticker_would_be_tagged(tiny_tokenizer):
    def row(names, stickers=(None, None, None)):
        turns = tuple(
            Turn(name, "good morning", sticker)
            for name, sticker in zip(names, stickers, strict=True)
        )
        conversation = Conversation("c", "train", turns, names[1], "s", "joy")
        tokens, _ = compose_context(tiny_tokenizer, [conversation], text_config(), False)
        return tokens.ids[0][tokens.mask[0]]

    plain = row(("ana", "ben", "ana"))
    # [SEP] after the replying user's letter is the last real token, which is read out.
    letter = tiny_tokenizer.prefix("B")
    assert plain[-1] == tiny_tokenizer.sep_id
    assert plain[-1 - len(letter) : -1].tolist() == list(letter)
    # Other names in the same order of appearance are the same row; another order is not.
    np.testing.assert_array_equal(plain, row(("x2", "x1", "x2")))
    assert row(("ana", "ben", "ben")).tolist() != plain.tolist()
    # Stickers of earlier turns are not read, so the row is that of the text alone.
    np.testing.assert_array_equal(plain, row(("ana", "ben", "ana"), ("s1", None, "s2")))


def test_the_read_out_is_the_last_real_token():
    toy = TOYS["regress"]
    assert toy.system.text_pool == "last"
    context = toy.batch.context
    last = np.asarray(context.mask).sum(1) - 1
    tokens = np.asarray(toy.call("text_tokens", context, None))
    pooled = np.asarray(toy.call("text_vectors", context, None))
    np.testing.assert_allclose(pooled, tokens[np.arange(8), last], atol=1e-6)
