"""Checksums of arrays, computed where the arrays are, on any sharding."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

_BLOCK = 2**16  # elements hashed at once on the host: they stay in the processor's cache


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


def host_checksum(leaf: np.ndarray) -> int:
    """Returns the same number without compiling a program for each shape, which a start waits for.

    Args:
      leaf: of at most 32 bits an element.
    """
    flat = np.ascontiguousarray(leaf).reshape(-1)
    flat = flat.view(f"u{flat.dtype.itemsize}")
    total = 0
    for start in range(0, len(flat), _BLOCK):
        mixed: np.ndarray = flat[start : start + _BLOCK].astype(np.uint32)
        position = np.arange(start, start + len(mixed)).astype(np.uint32)
        mixed ^= position * np.uint32(0x9E3779B9)
        mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
        total += int(np.sum(mixed ^ (mixed >> 16), dtype=np.uint64))
    return total % 2**32


def checksums(leaves: Mapping[str, Array]) -> dict[str, int]:
    """Returns the checksum of every array by its path."""
    # One after the other: on several simulated devices, programs that run at the same time wait for
    # each other's threads.
    return {path: _one(leaf) for path, leaf in leaves.items()}


def _one(leaf: Array) -> int:
    platforms = [device.platform for device in leaf.devices()]
    if platforms == ["cpu"] and leaf.is_fully_addressable:  # the host's memory: nothing is copied
        return host_checksum(np.asarray(leaf))
    return int(checksum(leaf))
