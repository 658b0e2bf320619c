"""What floors are computed from."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import floor


def test_the_products_of_a_program_are_counted_once_each():
    left, right = jnp.ones((8, 32)), jnp.ones((32, 16))
    once = floor.flops_of(jax.jit(jnp.matmul).lower(left, right))
    assert once == 2 * 8 * 32 * 16
    # The gradient of a product is two products of the same size.
    gradient = jax.grad(lambda a, b: jnp.sum(jnp.square(a @ b)), argnums=(0, 1))
    assert floor.flops_of(jax.jit(gradient).lower(left, right)) == pytest.approx(3 * once, rel=0.1)


def test_a_floor_adds_products_and_traffic():
    rates = floor.Floor("toy", "float32", matmul_rate=100.0, bandwidth=10.0)
    assert rates.seconds(200.0) == 2.0
    assert rates.seconds(200.0, 5.0) == 2.5
