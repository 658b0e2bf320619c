"""A batch encoded in parts is the undivided batch: same loss, same gradient, less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, make_toy

from int_ra_jax.common.params import flatten
from int_ra_jax.models.interface import merge
from int_ra_jax.training import sharding
from int_ra_jax.training.step import compute_loss, encode_in_parts

WIDTH = 32  # config.model.joint_width of the toy
READINGS = [
    {},  # towers train, hinge, live and stale sections
    pytest.param(
        {"loss__negatives": "in_batch", "loss__retrieval": "infonce"}, marks=pytest.mark.long
    ),
    pytest.param(
        {"loss__retrieval": "multi_positive", "model__attribute_tokens": "all"},
        marks=pytest.mark.long,
    ),
    {"model__text__frozen_layers": -1, "model__image__frozen_layers": -1},  # the gallery is live
]


def _loss(graphdef, parts, params, batch, resident):
    stale = jax.random.normal(jax.random.key(1), (GALLERY, WIDTH)) / WIDTH**0.5
    system = merge(graphdef, params)
    return compute_loss(system, batch, resident, stale, jax.random.key(0), parts)[0]


_value_and_grad = jax.jit(jax.value_and_grad(_loss, argnums=2), static_argnums=(0, 1))


def gradients(toy, parts):
    return _value_and_grad(toy.graphdef, parts, toy.params, toy.batch, toy.resident)


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_batch(reading):
    toy = make_toy(**reading)
    loss, expected = gradients(toy, 1)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(expected)))
    # 3 divides neither the batch of 8 nor the columns of a live gallery.
    found, gradient = gradients(toy, 3)
    assert float(found) == pytest.approx(float(loss), rel=1e-6)
    for path, leaf in flatten(gradient).items():
        np.testing.assert_allclose(
            leaf, flatten(expected)[path], rtol=0, atol=1e-6 * max(norm, 1), err_msg=path
        )


def test_averaging_the_gradients_of_smaller_batches_would_not_give_it():
    toy = make_toy(loss__negatives="in_batch", loss__retrieval="infonce")
    _, expected = gradients(toy, 1)
    halves = []
    batch = toy.batch
    for rows in (slice(0, 4), slice(4, 8)):
        toy.batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch)
        halves.append(gradients(toy, 1)[1])
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    name = "query_projection/kernel"
    assert not np.allclose(flatten(mean)[name], flatten(expected)[name], rtol=0.05, atol=1e-4)


def test_rows_come_back_in_their_order_and_each_part_has_its_own_key():
    rows = jnp.arange(10)

    def encode(rows, key):
        return rows * 2, jax.random.uniform(key, rows.shape)

    doubled, noise = encode_in_parts(encode, rows, jax.random.key(0), 5)
    np.testing.assert_array_equal(doubled, 2 * rows)
    # Row i is in part i modulo 5.
    parts = np.asarray(noise).reshape(2, 5).T
    assert len({tuple(part) for part in parts}) == 5


@pytest.mark.long
def test_less_is_kept_for_the_backward_pass():
    toy = make_toy(batch_size=16, layers=2)

    def temporary(parts):
        lowered = _value_and_grad.lower(toy.graphdef, parts, toy.params, toy.batch, toy.resident)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(8) < 0.5 * temporary(1)


@pytest.mark.long
def test_parts_on_eight_devices_give_the_gradient_of_one():
    reading = {"loss__negatives": "in_batch", "loss__retrieval": "infonce"}
    toy = make_toy(batch_size=16, **reading)
    _, expected = gradients(toy, 1)
    mesh = sharding.make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    toy.params = jax.device_put(toy.params, sharding.state_shardings(toy.params, mesh))
    toy.batch = jax.device_put(toy.batch, sharding.batch_sharding(mesh))
    toy.resident = jax.device_put(toy.resident, sharding.replicated(mesh))
    _, found = gradients(toy, 2)
    for path, leaf in flatten(expected).items():
        np.testing.assert_allclose(flatten(found)[path], leaf, atol=2e-6, err_msg=path)
