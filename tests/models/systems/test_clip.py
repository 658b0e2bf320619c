"""CLIP: the loss is the diagonal's, the temperature stays in its range, no more is read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures.toy_system import GALLERY, INTENTIONS, make_toy
from flax import nnx

from configs.clip import get_config
from int_ra_jax.common.params import flatten
from int_ra_jax.common.types import Batch, Context, Sticker
from int_ra_jax.models import interface
from int_ra_jax.models.systems.clip import CLIP, negatives
from int_ra_jax.models.two_towers import MAX_LOGIT_SCALE

TOY = make_toy(system="clip")
MASKED = make_toy(system="clip", loss__dup_policy="mask_same_sticker")


def pairs(gold):
    """Conversations answered by these stickers; all of one intention, as the stickers are."""
    size, zeros = len(gold), jnp.zeros(len(gold), jnp.int32)
    batch = Batch(TOY.batch.context, gold, zeros, zeros, jnp.ones(size, bool))
    return batch, interface.Candidates(gold, jnp.ones((size, INTENTIONS), bool))


def loss_of(q, v, scale=1.0, gold=None, toy=TOY):
    """The loss of raw features: of the system itself, its towers left out."""
    size = len(q)
    gold = jnp.arange(size) if gold is None else jnp.asarray(gold)
    params = {**toy.params, "logit_scale": jnp.log(scale)}
    unit = [np.asarray(x, np.float32) for x in (q, v)]
    unit = [jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in unit]
    system = interface.merge(toy.graphdef, params)
    total, parts = system.loss(
        Context(unit[0]), Sticker(unit[1]), *pairs(gold), key=jax.random.key(0)
    )
    assert parts["loss/total"] == total == parts["loss/retrieval"]
    return float(total)


def test_the_loss_has_its_golden_value():
    # Computed in float64 from the formula: 0.5 [CE(s q v^T, i) + CE(s v q^T, i)].
    assert loss_of([[1, 0], [0, 1]], [[1, 0], [0.6, 0.8]], 10.0) == pytest.approx(
        0.0363647, abs=1e-6
    )


def test_the_loss_of_known_cases():
    for size in (1, 2, 8):
        assert loss_of(np.ones((size, 3)), np.ones((size, 3)), 20.0) == pytest.approx(
            np.log(size), abs=1e-5
        )
        matched = np.log1p((size - 1) * np.exp(-3.0))
        assert loss_of(np.eye(size), np.eye(size), 3.0) == pytest.approx(matched, abs=1e-6)


def test_the_loss_is_symmetric_and_knows_neither_order_nor_length():
    rng = np.random.default_rng(0)
    q, v = rng.normal(size=(2, 6, 4))
    order, value = rng.permutation(6), loss_of(q, v, 7.0)
    assert loss_of(v, q, 7.0) == pytest.approx(value, abs=1e-5)
    assert loss_of(q[order], v[order], 7.0) == pytest.approx(value, abs=1e-5)
    assert loss_of(q * rng.uniform(0.1, 9, (6, 1)), v, 7.0) == pytest.approx(value, abs=1e-5)
    assert loss_of(q[order], v, 7.0) != pytest.approx(value, abs=1e-3)


def test_a_sticker_that_two_conversations_share_is_a_negative_unless_masked():
    q, v = np.array([[1, 0], [1, 0], [0, 1.0]]), np.array([[1, 0], [1, 0], [0, 1.0]])
    gold = [4, 4, 7]
    strict, spared = loss_of(q, v, 50.0, gold), loss_of(q, v, 50.0, gold, MASKED)
    assert strict == pytest.approx(2 / 3 * np.log(2), abs=1e-5)
    assert spared == pytest.approx(0.0, abs=1e-5)
    # That all of them have one intention changes neither.
    given = pairs(jnp.asarray(gold))
    np.testing.assert_array_equal(negatives(*given, "none"), ~np.eye(3, dtype=bool))
    np.testing.assert_array_equal(
        negatives(*given, "mask_same_sticker"), [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    )


def test_the_temperature_stays_in_its_range_and_comes_back():
    optimizer, scale = optax.sgd(50.0), jnp.asarray(-np.log(0.07), jnp.float32)
    state, seen = optimizer.init(scale), []
    for step in range(100):
        # The gradient that a perfect, then a hopeless batch would give.
        updates, state = optimizer.update(jnp.asarray(-1.0 if step < 50 else 1.0), state)
        params = {**TOY.params, "logit_scale": optax.apply_updates(scale, updates)}
        scale = TOY.system.post_update(params)["logit_scale"]
        seen.append(float(scale))
    assert min(seen) == 0.0 and max(seen) == pytest.approx(MAX_LOGIT_SCALE)
    above = jax.grad(infonce_at)(jnp.asarray(MAX_LOGIT_SCALE + 1.0))
    assert above != 0  # a clamp in the forward pass would end its training here


def infonce_at(logit_scale):
    system = interface.merge(TOY.graphdef, {**TOY.params, "logit_scale": logit_scale})
    q, v = jnp.eye(2), jnp.asarray([[0.52, 0.5], [0.5, 0.51]])
    return system.loss(Context(q), Sticker(v), *pairs(jnp.arange(2)), key=jax.random.key(0))[0]


def test_the_projections_have_no_bias_and_the_originals_spread():
    heads = {path for path in flatten(TOY.params) if not path.startswith(("text/", "image/"))}
    assert heads == {"query_projection/kernel", "image_projection/kernel", "logit_scale"}
    text, image = TOY.system.text, TOY.system.image
    ids = interface.SpecialIds(0, 1, 2, 3)
    facts = interface.Facts(text.config, image.config, INTENTIONS, GALLERY, (1,) * INTENTIONS, ids)
    wide = get_config("smoke")
    wide.model.joint_width = 512
    system = CLIP(interface.Setup(text, image, wide, facts, nnx.Rngs(0)))
    for layer in (system.query_projection, system.image_projection):
        spread = float(jnp.std(layer.kernel[...]))
        assert spread == pytest.approx(layer.kernel.shape[0] ** -0.5, rel=0.05)


def test_scores_are_cosines_of_the_conversation_and_the_pixels_alone():
    context = TOY.call("encode_context", TOY.attached)
    sticker = TOY.call("encode_sticker", TOY.resident.bank)
    for vectors in (context.query, sticker.embedding):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert context.intention_logits is None
    assert TOY.system.attention_maps(TOY.resident.bank) is None
    assert TOY.system.reads == frozenset()
    bank = TOY.resident.bank
    other = bank.replace(attribute_index=bank.attribute_index * 0, intentions=~bank.intentions)
    np.testing.assert_array_equal(TOY.call("encode_sticker", other).embedding, sticker.embedding)
    pixels = bank.pixels.at[3].set(255 - bank.pixels[3])
    moved = TOY.call("encode_sticker", bank.replace(pixels=pixels)).embedding
    changed = np.flatnonzero(np.abs(np.asarray(moved - sticker.embedding)).max(1) > 1e-5)
    assert changed.tolist() == [3] and GALLERY > 3


@pytest.mark.parametrize("frozen", [0, 1, -1])
def test_a_sticker_of_several_frames_is_the_mean_of_their_features(frozen):
    toy = make_toy(system="clip", model__image__frozen_layers=frozen)
    some = toy.resident.bank.rows(np.arange(3))
    drawn = np.random.default_rng(0).integers(0, 256, (3, 2, *some.pixels.shape[1:]), np.uint8)
    frames = jnp.asarray(drawn)
    one, other = (
        toy.call("image_tokens", dataclasses.replace(some, pixels=frames[:, place]))
        for place in range(2)
    )
    several = dataclasses.replace(some, pixels=frames)
    np.testing.assert_allclose(toy.call("image_tokens", several), (one + other) / 2, atol=1e-5)
    if frozen:
        hidden = toy.call("hidden_image", frames)
        cached = dataclasses.replace(several, pixels=None, image_hidden=hidden)
        np.testing.assert_allclose(toy.call("image_tokens", cached), (one + other) / 2, atol=1e-5)
