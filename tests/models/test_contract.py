"""What training, evaluation and retrieval rely on, for every system of the registry."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures.toy_system import GALLERY, Toy, make_bank, make_tokens, make_toy

from int_ra_jax.common.params import flatten, matching
from int_ra_jax.models import interface
from int_ra_jax.models.registry import SYSTEMS
from int_ra_jax.run.ranking import score_in_chunks
from int_ra_jax.training import sharding
from int_ra_jax.training.step import compute_loss

pytestmark = pytest.mark.parametrize("name", sorted(SYSTEMS))


@cache
def toy_of(name: str) -> Toy:
    return make_toy(system=name)


def encoded(toy: Toy):
    return (
        toy.call("encode_context", toy.attached),
        toy.call("encode_sticker", toy.resident.bank),
    )


def test_scores_are_finite_float32_and_the_same_each_time(name):
    toy = toy_of(name)
    first, again = toy.scores(), toy.scores()
    assert first.shape == (8, GALLERY) and first.dtype == jnp.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


def test_a_row_and_a_column_depend_on_no_other(name):
    toy = toy_of(name)
    whole = np.asarray(toy.scores())
    context, sticker = encoded(toy)
    rows, columns = np.array([5, 0, 3]), np.array([7, 2])
    part = toy.call(
        "score",
        jax.tree.map(lambda leaf: leaf[rows], context),
        toy.call("encode_sticker", toy.resident.bank.rows(jnp.asarray(columns))),
    )
    np.testing.assert_allclose(part, whole[np.ix_(rows, columns)], atol=1e-5)
    alone = toy.resident.attach(jax.tree.map(lambda leaf: leaf[rows], toy.batch))
    alone = toy.call("score", toy.call("encode_context", alone), sticker)
    np.testing.assert_allclose(alone, whole[rows], atol=1e-5)


def test_the_size_of_a_chunk_does_not_matter(name):
    toy = toy_of(name)
    context, sticker = encoded(toy)
    chunked = score_in_chunks(
        lambda *pair: toy.call("score", *pair), context, sticker, query_chunk=3, sticker_chunk=5
    )
    np.testing.assert_allclose(chunked, toy.scores(), atol=1e-5)


def test_padding_changes_no_score(name):
    toy = toy_of(name)
    pad = ((0, 0), (0, 16))
    wider = jax.tree.map(lambda leaf: jnp.pad(leaf, pad), toy.batch.context)
    batch = toy.resident.attach(toy.batch.replace(context=wider))
    scores = toy.call(
        "score",
        toy.call("encode_context", batch),
        toy.call("encode_sticker", toy.resident.bank),
    )
    np.testing.assert_allclose(scores, toy.scores(), atol=1e-4)


def test_what_a_query_is_scored_by_is_not_read_from_its_answer(name):
    toy = toy_of(name)
    batch = toy.attached.replace(
        sticker=(toy.batch.sticker + 1) % GALLERY, intention=(toy.batch.intention + 1) % 5
    )
    context, sticker = encoded(toy)
    other = toy.call("score", toy.call("encode_context", batch), sticker)
    np.testing.assert_array_equal(other, toy.call("score", context, sticker))


def test_every_parameter_that_trains_gets_a_gradient_and_no_other_is_named(name):
    trained = set(flatten(toy_of(name).params))
    trained -= matching(toy_of(name).params, toy_of(name).system.frozen_patterns())
    for seed in range(3):  # a hinge that nothing violates, say, is silent for one batch
        gradients = make_toy(system=name, seed=seed).gradients()
        assert all(np.isfinite(leaf).all() for leaf in gradients.values())
        trained -= {path for path, leaf in gradients.items() if np.any(leaf)}
        if not trained:
            return
    raise AssertionError(f"no gradient reaches {sorted(trained)}")


def test_the_loss_is_a_scalar_and_names_its_total(name):
    toy = toy_of(name)
    loss, parts = jax.jit(
        lambda params: compute_loss(
            interface.merge(toy.graphdef, params),
            toy.batch,
            toy.resident,
            jnp.zeros((GALLERY, 32)) if stale(toy) else None,
            jax.random.key(0),
        )
    )(toy.params)
    assert loss.shape == () and parts["loss/total"] == loss
    assert {key for key in parts if key.startswith("loss/")} > {"loss/total"}
    assert all(value.shape == () for value in parts.values())


@pytest.mark.long
def test_eight_conversations_are_learnt_by_heart(name):
    # Frozen towers: what is tested is whether the heads and the loss lead to the gold sticker.
    toy = make_toy(
        system=name,
        model__text__frozen_layers=-1,
        model__image__frozen_layers=-1,
        **LEARNS_BY.get(name, {}),
    )
    rng = np.random.default_rng(3)
    toy.batch = toy.batch.replace(context=make_tokens(rng, (8,), 24, separators=True))
    toy.resident = toy.resident.replace(
        bank=make_bank(rng).replace(intentions=jnp.eye(GALLERY, 5) > 0)
    )
    frozen = matching(toy.params, toy.system.frozen_patterns())
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state, key):
        def loss(params):
            return toy.loss(params, key)

        gradients = jax.grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        updates = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * ("/".join(str(k.key) for k in path) not in frozen), updates
        )
        return optax.apply_updates(params, updates), state

    params, state = toy.params, optimizer.init(toy.params)
    for index in range(200):
        params, state = step(params, state, jax.random.key(index))
    hits = np.argmax(np.asarray(toy.scores(params)), axis=1) == np.asarray(toy.batch.sticker)
    assert hits.all(), f"{hits.sum()} of 8"


# What a system needs to tell single stickers apart instead of intentions.
LEARNS_BY: dict[str, dict[str, object]] = {
    "lgur": {"loss__match_label": "sticker"},
    "int_ra": {"loss__mask_same_intention": False, "loss__negatives": "in_batch"},
    # At 50 cos, 200 steps this large end where the reverse KL has no gradient left.
    "irra": {"loss__match_label": "sticker", "loss__temperature": 0.1},
    # A regression lands between the stickers that suit.
    "mod": {"model__head": "id"},
}


def stale(toy: Toy) -> bool:
    negatives = toy.system.negatives
    return bool(negatives.bank and not negatives.live)


def test_every_parameter_and_its_moments_have_a_place_on_a_mesh(name):
    toy = toy_of(name)
    state = {"params": toy.params, "opt_state": {"mu": toy.params}}
    mesh = sharding.make_mesh({"data": 1, "fsdp": 2, "tensor": 1})
    places = flatten(sharding.state_shardings(state, mesh, toy.system.sharding_rules))
    for path in flatten(toy.params):
        assert places[f"params/{path}"].spec == places[f"opt_state/mu/{path}"].spec


def test_roles_cover_every_parameter(name):
    toy = toy_of(name)
    roles = tuple(toy.system.param_groups().values())
    assert matching(toy.params, roles) == frozenset(flatten(toy.params))
