"""IRRA's losses by the numbers, and what its parts may and may not depend on."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, INTENTIONS, Toy, make_toy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import irra as configs
from int_ra_jax.common.params import flatten, label_by_pattern
from int_ra_jax.models import interface, registry
from int_ra_jax.models.losses import cross_entropy
from int_ra_jax.models.systems.irra import (
    identity_classifier,
    label_entropy,
    similarity_distribution_matching,
)
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig
from int_ra_jax.training.optim import make_optimizer
from int_ra_jax.training.step import compute_loss


def sdm(text, image, label, scale: float) -> float:
    text, image, label = (np.asarray(x, np.float32) for x in (text, image, label))
    text, image = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, image))
    match = jnp.asarray(label[:, None] == label)
    return float(similarity_distribution_matching(jnp.asarray(text @ image.T), match, scale))


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 15.3859065), (50.0, 25.0229770)])
def test_sdm_golden_value(scale, expected):
    # computed in float64 from the formula (baselines specification, golden value 2)
    text, image = [[1, 0], [0, 1], [1, 1]], [[1, 0], [1, 1], [0, 1]]
    assert sdm(text, image, [0, 1, 0], scale) == pytest.approx(expected, rel=1e-6)


def test_sdm_is_zero_where_the_scores_say_what_matches():
    same = np.ones((8, 3))
    assert sdm(same, same, np.zeros(8), 50.0) == pytest.approx(0, abs=1e-6)
    classes = np.arange(8) % 2
    assert sdm(np.eye(2)[classes], np.eye(2)[classes], classes, 50.0) == pytest.approx(0, abs=1e-6)
    own = np.eye(8)
    assert sdm(own, own, np.arange(8), 50.0) == pytest.approx(0, abs=1e-6)
    # at a lower scale some mass is left elsewhere; 3.99e-5 in float64
    assert sdm(own, own, np.arange(8), 14.0) == pytest.approx(4e-5, abs=2e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(1.0, 50.0))
def test_sdm_is_bounded_and_symmetric_and_knows_no_order_and_no_length(seed, scale):
    rng = np.random.default_rng(seed)
    text, image = rng.normal(size=(2, 6, 4))
    label, order = rng.integers(3, size=6), rng.permutation(6)
    value = sdm(text, image, label, scale)
    assert value >= -2 * np.log(1 + 6e-8) - 1e-5
    near = partial(pytest.approx, rel=1e-4, abs=1e-4)
    assert sdm(image, text, label, scale) == near(value)
    assert sdm(text[order], image[order], label[order], scale) == near(value)
    assert sdm(text * rng.uniform(0.1, 9, (6, 1)), 3 * image, label, scale) == near(value)


def test_every_row_of_what_matches_is_divided_by_its_own_sum():
    # Conversation 0 matches both stickers, conversation 1 only its own: no equivalence.
    scores, match = np.array([[0.2, -0.1], [0.4, 0.3]]), np.array([[True, True], [False, True]])

    def one_way(logits: np.ndarray, q: np.ndarray) -> float:
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float((np.exp(log_p) * (log_p - np.log(q + 1e-8))).sum(axis=1).mean())

    expected = one_way(5 * scores, match / [[2], [1]]) + one_way(5 * scores.T, match.T / [[1], [2]])
    value = similarity_distribution_matching(jnp.asarray(scores), jnp.asarray(match), 5.0)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    swapped = one_way(5 * scores, match / [2, 1]) + one_way(5 * scores.T, match.T / [1, 2])
    assert abs(swapped - expected) > 0.1  # what dividing columns would give


def test_label_entropy_is_zero_for_one_label_and_log_batch_for_all_different():
    assert float(label_entropy(jnp.zeros(6, int))) == 0
    assert float(label_entropy(jnp.arange(6))) == pytest.approx(np.log(6), rel=1e-6)
    mixed = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert float(label_entropy(jnp.array([4, 4, 1, 4]))) == pytest.approx(mixed, rel=1e-6)


def test_the_classifier_starts_at_log_classes():
    classifier = identity_classifier(64, 7, nnx.Rngs(0))
    feature = jax.random.normal(jax.random.key(0), (16, 64))
    loss = cross_entropy(classifier(feature), jnp.arange(16) % 7)
    assert float(loss) == pytest.approx(np.log(7), abs=0.01)


# ---- structure, without compiling anything -----------------------------------------------------

SHAPES = (
    BertConfig(300, 16, 1, 2, 32, max_position_embeddings=64),
    ClipVisionConfig(16, 32, 1, 2, image_size=48, patch_size=16),
)


@cache
def abstract(preset: str = "smoke", mask: int = 3, **overrides):
    config = configs.get_config(preset)
    for key, value in overrides.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    special = interface.SpecialIds(0, 1, 2, mask)
    facts = interface.Facts(*SHAPES, INTENTIONS, GALLERY, (1,) * INTENTIONS, special)
    graphdef, params = registry.abstract(config, facts)
    return config, interface.merge(graphdef, params), flatten(params)


def test_a_vocabulary_without_mask_is_refused_unless_no_word_is_hidden():
    with pytest.raises(ValueError, match=r"does not have. Use --config.loss.lambda_mlm=0"):
        abstract(mask=-1)
    _, _, params = abstract(mask=-1, loss__lambda_mlm=0.0)
    assert not any(path.startswith(("interaction", "mlm_head")) for path in params)


def test_the_label_decides_the_classes():
    assert abstract()[2]["classifier/kernel"].shape == (32, INTENTIONS)
    assert abstract(loss__match_label="sticker")[2]["classifier/kernel"].shape == (32, GALLERY)


def test_a_tied_head_has_a_bias_for_every_word_and_no_matrix_of_words():
    untied, tied = abstract()[2], abstract("original")[2]
    assert untied["mlm_head/output/kernel"].shape == (32, 300)
    assert tied["mlm_head/output/kernel"].shape == (512, 16)
    assert tied["mlm_head/bias"].shape == (300,)
    assert "mlm_head/output/bias" not in tied


def test_the_original_learns_as_fast_as_the_names_of_the_reference_say():
    # baselines specification, golden value 14
    config, system, params = abstract("original")
    roles = system.param_groups()
    of = flatten(label_by_pattern(params, [(regex, role) for role, regex in roles.items()]))
    factor = {path: config.optim.multipliers[role] for path, role in of.items()}
    for path, expected in {
        "interaction/cross_attention/query/kernel": 5,
        "interaction/cross_attention/query/bias": 2,
        "interaction/blocks/3/fc1/kernel": 5,
        "interaction/blocks/3/fc1/bias": 2,
        "interaction/blocks/0/norm_mlp/scale": 5,
        "text/encoder/layer/0/output/dense/kernel": 1,
        "text/encoder/layer/0/output/dense/bias": 2,
        "image/encoder/layers/0/mlp/fc1/kernel": 1,
        "image/post_layernorm/bias": 2,
        "text/embeddings/word_embeddings/embedding": 1,
        "interaction/norm_text/scale": 1,
        "interaction/norm_image/scale": 1,
        "interaction/norm_out/scale": 1,
        "interaction/norm_out/bias": 2,
        "classifier/kernel": 5,
        "classifier/bias": 5,
        "mlm_head/dense/kernel": 5,
        "mlm_head/dense/bias": 5,
        "mlm_head/bias": 5,
        "text_projection/kernel": 1,
        "image_projection/kernel": 1,
    }.items():
        assert factor[path] == expected, path
    _, info = make_optimizer(config.optim, params, roles, total_steps=1190)
    decays = {group.name: group.weight_decay for group in info.groups}
    assert decays["head decayed"] == decays["cross decayed"] == 4e-5
    assert decays["bias plain"] == decays["head plain"] == 0
    assert (config.optim.lr, config.optim.eps) == (1e-5, 1e-3)
    assert (config.loss.temperature, config.train.batch_size) == (0.02, 64)


def test_a_weight_of_zero_leaves_out_the_modules_and_their_roles():
    config, system, params = abstract("original", loss__lambda_id=0.0, loss__lambda_mlm=0.0)
    assert not any(path.startswith(("classifier", "interaction", "mlm_head")) for path in params)
    _, info = make_optimizer(config.optim, params, system.param_groups(), total_steps=1190)
    assert sum(group.tensors for group in info.groups) == len(params)


def test_what_the_losses_alone_read_is_not_computed_in_evaluation():
    toy = toy_of()
    system, key = toy.system, jax.random.key(0)
    context = jax.eval_shape(system.encode_context, toy.attached)
    sticker = jax.eval_shape(system.encode_sticker, toy.resident.bank)
    assert [leaf.shape for leaf in jax.tree.leaves((context, sticker))] == [(8, 32), (GALLERY, 32)]
    context = jax.eval_shape(partial(system.encode_context, key=key), toy.attached)
    sticker = jax.eval_shape(partial(system.encode_sticker, key=key), toy.resident.bank)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(context)} == {8}
    assert {leaf.shape[0] for leaf in jax.tree.leaves(sticker)} == {GALLERY}
    assert context.masked.shape == (8, 24, 32) and sticker.tokens.shape == (GALLERY, 10, 32)


# ---- the whole system --------------------------------------------------------------------------


@cache
def toy_of() -> Toy:
    return make_toy(
        system="irra",
        layers=2,
        model__text__frozen_layers=1,
        model__image__frozen_layers=-1,
        model__interaction_layers=1,
        model__tie_mlm=True,
        loss__lambda_ret=0.5,
        loss__lambda_id=2.0,
        loss__lambda_mlm=3.0,
    )


def test_the_heads_that_only_train_change_no_score():
    toy = toy_of()
    before = np.asarray(toy.scores())
    heads = ("classifier", "interaction", "mlm_head")
    params = {
        name: jax.tree.map(lambda leaf: leaf + 1, part) if name in heads else part
        for name, part in toy.params.items()
    }
    np.testing.assert_array_equal(toy.scores(params), before)
    params["text_projection"] = jax.tree.map(lambda leaf: leaf[::-1], params["text_projection"])
    assert np.abs(toy.scores(params) - before).max() > 0.01


@jax.jit
def _parts(params, batch, resident):
    toy = toy_of()
    system = interface.merge(toy.graphdef, params)
    return compute_loss(system, batch, resident, None, jax.random.key(0))


def test_the_parts_sum_to_the_total_and_a_cache_of_frozen_layers_changes_none():
    toy = toy_of()
    total, parts = _parts(toy.params, toy.batch, toy.resident)
    weights = {"loss/retrieval": 0.5, "loss/identity": 2.0, "loss/masked_words": 3.0}
    assert {name for name in parts if name.startswith("loss/")} == {*weights, "loss/total"}
    assert float(total) == pytest.approx(
        sum(float(weight * parts[name]) for name, weight in weights.items()), rel=1e-5
    )
    entropy = float(label_entropy(toy.batch.intention))
    assert float(parts["label/entropy"]) == pytest.approx(entropy, rel=1e-5)
    bank = toy.resident.bank
    cached = toy.resident.replace(
        bank=bank.replace(pixels=None, image_hidden=toy.call("hidden_image", bank.pixels)),
        context_hidden=toy.call("hidden_text", toy.batch.context),
    )
    # The masked copy is not what is cached: it has to go through the frozen layers as well.
    for name, value in _parts(toy.params, toy.batch, cached)[1].items():
        np.testing.assert_allclose(value, parts[name], rtol=1e-4, err_msg=name)


@jax.jit
def _word_logits(params, batch, bank):
    system, key = interface.merge(toy_of().graphdef, params), jax.random.key(0)
    context = system.encode_context(batch, key=key)
    sticker = system.encode_sticker(bank.rows(batch.sticker), key=key)
    return system.word_logits(context, sticker, batch)


def test_what_is_guessed_depends_on_the_sticker():
    toy = toy_of()
    bank = toy.resident.bank
    before = _word_logits(toy.params, toy.attached, bank)
    assert before.shape == (8, 12, 128) and before.dtype == jnp.float32
    pixels = bank.pixels.at[toy.batch.sticker[2]].apply(lambda pixel: 255 - pixel)
    after = _word_logits(toy.params, toy.attached, bank.replace(pixels=pixels))
    moved = np.abs(after - before).max(axis=(1, 2))
    np.testing.assert_array_equal(np.flatnonzero(moved > 1e-4), [2])
