"""Many rows through a program of one static shape: cut, filled up, and joined again."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int


def chunk_rows(number: int, size: int) -> Int[np.ndarray, "chunks size"]:
    """Returns the rows of each chunk; the last one is filled up by repeating the final row.

    A row of zeros in its place could give NaN in a model that normalises.

    Args:
      number: rows in all, > 0.
      size: rows of a chunk, > 0.
    """
    return np.minimum(np.arange(-(-number // size) * size), number - 1).reshape(-1, size)


def joined(parts: Iterable[Any], number: int, join: Callable[[Any], Any] = jnp.concatenate) -> Any:
    """Joins what was computed of each chunk, and cuts off what filled up the last one.

    Args:
      parts: pytrees of arrays [size, ...]; a first None ends it, and makes the whole None.
      number: rows in all.
      join: jnp.concatenate, or np.concatenate for arrays on the host.
    """
    kept = []
    for part in parts:
        if part is None:
            return None
        kept.append(part)
    return jax.tree.map(lambda *leaves: join(leaves)[:number], *kept)
