"""Int-RA's properties; each has caught a real defect in this literature."""

import re
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures.toy_system import GALLERY, INTENTIONS, Toy, make_toy

from int_ra_jax.common.params import flatten
from int_ra_jax.common.pixels import normalise
from int_ra_jax.common.types import Batch
from int_ra_jax.models import interface
from int_ra_jax.training.step import compute_loss

# The logits of softmax do not change when every key moves by one vector, so the gradient of a
# tower's key bias is zero by mathematics; what is left of it is rounding.
KEY_BIAS = ("/key/bias", "/k_proj/bias")


def embeddings(toy: Toy, **changes: object) -> np.ndarray:
    bank = toy.resident.bank.replace(**changes)
    return np.asarray(toy.call("encode_sticker", bank).embedding)


def moved_rows(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.abs(before - after).max(axis=1) > 1e-5)


def pooled_regions(toy: Toy) -> jax.Array:
    system = toy.system
    tokens = system.image(normalise(toy.resident.bank.pixels))
    return jnp.mean(system.relation.f_vis(tokens[:, 1:]), axis=1)


@pytest.mark.parametrize("relation", ["channel", "region"])
@pytest.mark.parametrize("attribute_tokens", ["pooled", "all"])
def test_changing_one_attribute_changes_only_the_stickers_that_have_it(relation, attribute_tokens):
    toy = make_toy(
        model__relation=relation,
        model__attribute_tokens=attribute_tokens,
        model__relation_pool="mean",  # under max another attribute may win every channel
    )
    bank = toy.resident.bank
    row, attribute = np.argwhere(np.asarray(bank.attribute_mask))[0]
    text = int(bank.attribute_index[row, attribute])
    other = bank.attribute_index.at[row, attribute].set((text + 1) % bank.attributes.ids.shape[0])
    np.testing.assert_array_equal(
        moved_rows(embeddings(toy), embeddings(toy, attribute_index=other)), [row]
    )


def test_an_absent_attribute_is_never_read():
    toy = make_toy()
    bank = toy.resident.bank
    row, attribute = np.argwhere(~np.asarray(bank.attribute_mask))[0]
    other = bank.attribute_index.at[row, attribute].add(1)
    np.testing.assert_array_equal(embeddings(toy), embeddings(toy, attribute_index=other))


@pytest.mark.parametrize("regions", ["patches", "patches+cls", "cls"])
def test_changing_one_region_changes_only_its_sticker(regions):
    toy = make_toy(model__regions=regions)
    pixels = np.asarray(toy.resident.bank.pixels).copy()
    pixels[4, 16:32, 16:32] = 255 - pixels[4, 16:32, 16:32]
    after = embeddings(toy, pixels=jnp.asarray(pixels))
    np.testing.assert_array_equal(moved_rows(embeddings(toy), after), [4])


def test_with_one_region_the_attended_value_ignores_the_attributes():
    toy = make_toy(model__regions="cls")  # softmax over one key is 1
    bank = toy.resident.bank
    other = (bank.attribute_index + 1) % bank.attributes.ids.shape[0]
    np.testing.assert_allclose(embeddings(toy), embeddings(toy, attribute_index=other), atol=1e-6)


def test_without_attributes_the_sticker_is_its_pooled_regions():
    toy = make_toy(model__attributes="off")
    assert not any("attention" in path for path in flatten(toy.params) if "relation" in path)
    pooled = pooled_regions(toy)
    expected = pooled / jnp.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings(toy), expected, atol=1e-5)


def test_a_sticker_without_any_attribute_is_finite_and_equals_its_pooled_regions():
    toy = make_toy(model__relation_pool="logsumexp")
    pooled = pooled_regions(toy)[0]
    np.testing.assert_allclose(embeddings(toy)[0], pooled / jnp.linalg.norm(pooled), atol=1e-5)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in toy.gradients().values())


def test_attention_parameters_are_in_the_tree_and_get_gradient_and_do_not_change_between_calls():
    toy = make_toy()
    names = [path for path in flatten(toy.params) if path.startswith("relation/attention/")]
    kernels = [f"relation/attention/{part}/kernel" for part in ("key", "out", "query", "value")]
    assert [name for name in names if name.endswith("kernel")] == kernels
    gradients = toy.gradients()
    assert all(float(jnp.abs(gradients[name]).max()) > 0 for name in names)
    np.testing.assert_array_equal(embeddings(toy), embeddings(toy))


def test_every_parameter_gets_gradient_under_the_default_readings():
    toy = make_toy()
    gradients = toy.gradients()
    dead = [path for path, leaf in gradients.items() if float(jnp.abs(leaf).max()) < 1e-7]
    assert [path for path in dead if not path.endswith(KEY_BIAS)] == []


def test_a_scalar_relation_leaves_every_ranking_unchanged():
    def ranking(toy: Toy, params: dict) -> np.ndarray:
        return np.argsort(-np.asarray(toy.scores(params)), axis=1)

    scalar = make_toy(model__relation="scalar", model__residual=False)
    positive = dict(scalar.params)
    # An output bias of 5 makes M positive for every sticker that has an attribute.
    positive["relation"] = jax.tree.map(lambda x: x, scalar.params["relation"])
    positive["relation"]["attention"]["out"]["bias"] += 5.0
    bank = scalar.resident.bank
    scalar.resident = scalar.resident.replace(
        bank=bank.replace(attribute_mask=jnp.ones_like(bank.attribute_mask))
    )
    plain = make_toy(model__attributes="off")
    shared = {**plain.params, **{k: v for k, v in positive.items() if k != "relation"}}
    shared["relation"] = {"f_vis": positive["relation"]["f_vis"]}
    np.testing.assert_array_equal(ranking(scalar, positive), ranking(plain, shared))


def test_hard_label_gives_at_most_one_ranking_per_intention():
    toy = make_toy(batch_size=64, model__intention_fusion="hard_label")
    logits = toy.call("encode_context", toy.attached).intention_logits
    toy.params["intention_classifier"]["bias"] -= logits.mean(axis=0)  # predictions differ then
    scores = np.asarray(toy.scores())
    predicted = toy.call("encode_context", toy.attached).intention_logits
    number = len(np.unique(np.argmax(predicted, axis=1)))
    assert number > 1
    assert len(np.unique(scores.round(5), axis=0)) == number <= INTENTIONS
    fused = make_toy(batch_size=64)
    assert len(np.unique(np.asarray(fused.scores()).round(5), axis=0)) > INTENTIONS


@pytest.mark.parametrize(
    ("fusion", "reaches"),
    [("fused", True), ("soft_label", True), ("straight_through", True), ("hard_label", False),
     ("off", False)],
)  # fmt: skip
def test_retrieval_gradient_reaches_the_classifier_only_where_the_reading_lets_it(fusion, reaches):
    toy = make_toy(model__intention_fusion=fusion, loss__lambda_int=0.0)
    gradient = toy.gradients()["intention_classifier/kernel"]
    assert (float(jnp.abs(gradient).max()) > 0) == reaches


def test_straight_through_scores_like_hard_label():
    hard = make_toy(model__intention_fusion="hard_label")
    through = make_toy(model__intention_fusion="straight_through")
    np.testing.assert_allclose(hard.scores(), through.scores(hard.params), atol=1e-5)


def test_more_padding_and_another_batch_order_never_change_a_score():
    toy = make_toy()
    scores = np.asarray(toy.scores())
    pad = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 16))), toy.batch.context)
    longer = Toy(toy.config, toy.graphdef, toy.params, toy.resident, toy.batch.replace(context=pad))
    np.testing.assert_allclose(longer.scores(), scores, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(scores))
    context = jax.tree.map(lambda x: x[order], toy.batch.context)
    shuffled = Toy(
        toy.config, toy.graphdef, toy.params, toy.resident, toy.batch.replace(context=context)
    )
    np.testing.assert_allclose(shuffled.scores(), scores[order], atol=1e-5)


def test_a_sticker_alone_equals_the_sticker_in_a_gallery_of_any_order():
    toy = make_toy()
    together = embeddings(toy)
    for row in (0, 5, GALLERY - 1):
        alone = toy.call("encode_sticker", toy.resident.bank.rows(jnp.array([row]))).embedding
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)
    order = jnp.asarray(np.random.default_rng(0).permutation(GALLERY))
    permuted = toy.call("encode_sticker", toy.resident.bank.rows(order)).embedding
    np.testing.assert_allclose(permuted, together[order], atol=1e-5)


@pytest.mark.parametrize("layers", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (2, -1))])
def test_cached_frozen_layers_change_neither_scores_nor_gradients(layers):
    toy = make_toy(layers=2, model__text__frozen_layers=layers, model__image__frozen_layers=layers)
    before, gradients = toy.scores(), toy.gradients()
    bank, labels = toy.resident.bank, toy.resident.labels
    toy.resident = toy.resident.replace(
        bank=bank.replace(
            pixels=None,
            image_hidden=toy.call("hidden_image", bank.pixels),
            attribute_hidden=toy.call("hidden_text", bank.attributes),
        ),
        labels=labels.replace(hidden=toy.call("hidden_text", labels.tokens)),
        context_hidden=toy.call("hidden_text", toy.batch.context),
    )
    np.testing.assert_allclose(toy.scores(), before, atol=1e-5)
    cached = toy.gradients()
    for path, leaf in gradients.items():
        np.testing.assert_allclose(cached[path], leaf, atol=1e-5, err_msg=path)
    frozen = toy.system.frozen_patterns()
    assert frozen and all(
        float(jnp.abs(cached[path]).max()) == 0
        for path in cached
        if any(re.fullmatch(pattern, path) for pattern in frozen) and "post_layernorm" not in path
    )


def test_attention_maps_are_a_distribution_over_the_patches():
    for tokens in ("pooled", "all"):
        toy = make_toy(model__attribute_tokens=tokens)
        maps = toy.call("attention_maps", toy.resident.bank)
        assert maps.shape == (GALLERY, 4, 9)
        present = np.asarray(toy.resident.bank.attribute_mask)
        np.testing.assert_allclose(np.asarray(maps).sum(2)[present], 1.0, atol=1e-5)


DEFAULT = make_toy()
# The paper's ablations, and its losses; the other readings are compiled by make test-long.
COMPARED = ("model__intention_fusion", "model__attributes", "loss__retrieval")
READINGS = {
    "model__intention_fusion": ["hard_label", "soft_label", "straight_through", "off"],
    "model__attributes": ["off"],
    "model__attribute_tokens": ["all"],
    "model__regions": ["patches+cls", "cls"],
    "model__relation": ["region", "scalar"],
    "model__relation_pool": ["mean", "logsumexp"],
    "model__residual": [False],
    "model__output_projection": [False],
    "model__text_pool": ["cls"],
    "model__dtype": ["bfloat16"],
    "loss__retrieval": ["infonce", "multi_positive", "literal_eq14"],
    "loss__negatives": ["in_batch"],
    "loss__bank_size": [5],
    "loss__class_weights": ["balanced"],
    "loss__label_smoothing": [0.1],
    "loss__mask_same_intention": [False],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, marks=[] if key in COMPARED else pytest.mark.long)
        for key, values in READINGS.items()
        for value in values
    ],
)
def test_every_reading_changes_the_loss_and_has_a_finite_gradient(key, value):
    default, toy = DEFAULT, make_toy(**{key: value})
    loss, gradients = toy.loss_and_gradients()
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradients))
    assert abs(float(loss) - float(default.loss(default.params))) > 1e-7


def test_dropout_is_drawn_from_the_key_and_absent_in_evaluation():
    toy = make_toy(model__dropout=0.3)
    one, again = (float(toy.loss(toy.params, jax.random.key(1))) for _ in range(2))
    assert one == again != float(toy.loss(toy.params, jax.random.key(2)))
    np.testing.assert_array_equal(toy.scores(), toy.scores())


FROZEN = {"model__text__frozen_layers": -1, "model__image__frozen_layers": -1}


@pytest.mark.parametrize("negatives", ["bank", "both", "in_batch"])
def test_the_hinge_compares_within_each_section_of_the_columns(negatives):
    toy = make_toy(loss__negatives=negatives, **FROZEN)
    context = toy.call("encode_context", toy.attached)
    size, golds = toy.batch.sticker.shape[0], np.asarray(toy.batch.sticker)
    rows = jnp.concatenate([toy.batch.sticker, toy.batch.sticker, jnp.arange(GALLERY)])
    rows = rows[:size] if negatives == "in_batch" else rows
    sticker = toy.call("encode_sticker", toy.resident.bank.rows(rows))
    # A bank that is stale: its golds score unlike the live ones.
    sticker = sticker.replace(embedding=sticker.embedding.at[size:].multiply(0.5))
    candidates = interface.Candidates(rows, toy.resident.bank.intentions[rows])
    loss, parts = toy.system.loss(context, sticker, toy.batch, candidates, key=jax.random.key(0))
    scores = np.asarray(toy.system.score(context, sticker))

    def section(first: int, last: int) -> float:
        terms = [
            max(0.0, 0.2 - scores[b, first + b] + scores[b, c])
            for b, c in product(range(size), range(first, last))
            if int(rows[c]) != golds[b]
            and not bool(toy.resident.bank.intentions[int(rows[c]), int(toy.batch.intention[b])])
        ]
        return float(np.mean(terms))

    sections = {
        "in_batch": [(0, size)],
        "bank": [(size, 2 * size + GALLERY)],
        "both": [(0, size), (size, 2 * size + GALLERY)],
    }
    expected = np.mean([section(*bounds) for bounds in sections[negatives]])
    assert float(parts["loss/retrieval"]) == pytest.approx(expected, abs=1e-5)
    assert float(loss) == pytest.approx(expected + float(parts["loss/intention"]), abs=1e-5)


def test_moving_away_from_a_stale_bank_is_not_rewarded():
    # Live positives against stale negatives reward drift: training then ends near chance.
    toy = make_toy(loss__lambda_int=0.0)
    constant = jnp.zeros((GALLERY, 32)).at[:, 0].set(1.0)

    @jax.jit
    def loss(params: dict, bank_embedding: jax.Array) -> jax.Array:
        system = interface.merge(toy.graphdef, params)
        arguments = (toy.batch, toy.resident, bank_embedding, jax.random.key(0))
        return compute_loss(system, *arguments)[0]

    # Whatever the parameters, a bank without differences costs the margin in its section.
    in_batch = make_toy(loss__lambda_int=0.0, loss__negatives="in_batch")
    for scale in (1.0, -3.0):
        params = {**toy.params, "query_projection": jax.tree.map(
            lambda x, scale=scale: scale * x, toy.params["query_projection"])}  # fmt: skip
        alone = float(in_batch.loss(params))
        assert float(loss(params, constant)) == pytest.approx((alone + 0.2) / 2, abs=1e-5)


def test_stale_columns_are_used_only_while_a_tower_trains():
    assert not make_toy().system.negatives.live
    assert make_toy(**FROZEN).system.negatives.live
    with pytest.raises(ValueError, match="gives the stickers no gradient"):
        make_toy(loss__negatives="bank")


@pytest.mark.parametrize(
    "retrieval",
    ["hinge", *(pytest.param(n, marks=pytest.mark.long) for n in ("infonce", "multi_positive"))],
)
def test_eight_examples_can_be_overfitted(retrieval):
    toy = make_toy(
        batch_size=8, loss__retrieval=retrieval, loss__negatives="in_batch",
        loss__mask_same_intention=False,
    )  # fmt: skip
    toy.resident = toy.resident.replace(
        bank=toy.resident.bank.replace(intentions=jnp.zeros((GALLERY, INTENTIONS), bool))
    )
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = optimizer.update(jax.grad(toy.loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = toy.params, optimizer.init(toy.params)
    for _ in range(150):
        params, opt_state = step(params, opt_state)
    scores = np.asarray(toy.scores(params))[:, np.asarray(toy.batch.sticker)]
    assert (scores.argmax(axis=1) == np.arange(8)).all()


def test_the_temperature_is_projected_back_into_its_range():
    toy = make_toy(loss__retrieval="infonce")
    params = {**toy.params, "logit_scale": jnp.asarray(9.0)}
    assert float(toy.system.post_update(params)["logit_scale"]) == pytest.approx(np.log(100.0))
    assert "logit_scale" not in make_toy().params


def test_asking_for_more_frozen_layers_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"model\.text\.frozen_layers=9: the tower has 1 layers"):
        make_toy(model__text__frozen_layers=9)


def test_a_batch_without_intention_names_is_refused():
    toy = make_toy()
    assert isinstance(toy.batch, Batch)
    with pytest.raises(ValueError, match="attach the intention names"):
        toy.system.encode_context(toy.batch)
