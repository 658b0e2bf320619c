"""Checksums of arrays, computed where the arrays are, on any sharding."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32


@jax.jit
def checksum(leaf: Array) -> UInt32[Array, ""]:
    """Returns a number that changes if one element does, on any sharding.

    The sum of a bijective hash of (bits, position) modulo 2^32: a sum has no order, so the result
    does not depend on the devices, and it is computed where the array is.
    """
    if leaf.dtype == jnp.bool_:
        bits = leaf.astype(jnp.uint32)
    else:
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    position = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        position = position * np.uint32(size) + jax.lax.broadcasted_iota(
            jnp.uint32, leaf.shape, axis
        )
    mixed = bits ^ (position * np.uint32(0x9E3779B9))
    # The finaliser of MurmurHash3. Without it two flipped sign bits would cancel in the sum.
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def checksums(leaves: Mapping[str, Array]) -> dict[str, int]:
    """Returns the checksum of every array by its path."""
    # One after the other: on several simulated devices, programs that run at the same time wait for
    # each other's threads.
    return {path: int(checksum(leaf)) for path, leaf in leaves.items()}
