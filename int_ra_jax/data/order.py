"""Which rows stand in which training batch: a function of (seed, step) and nothing else.

The order is a fresh permutation each epoch, computed row by row without a shuffle buffer. Batches
of like length are formed inside windows of that order, so that they too can be computed for any
step at once. All functions are TensorFlow operations; they run inside tf.data or by themselves.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32


@dataclass(frozen=True)
class Buckets:
    """How conversations of like length are brought together.

    A window of the shuffled order is sorted by length, cut into batches, and the batches are
    shuffled. The larger the window, the less padding, and the less a batch is a random sample.

    Attributes:
      lengths: i32[M], tokens of each conversation of the split.
      multiple: widths are multiples of so many tokens, so that few programs are compiled.
      window: batches in a window.
      widest: no batch is wider, even where ``multiple`` does not divide it.
    """

    lengths: Int32[np.ndarray, "M"]
    multiple: int
    window: int
    widest: int


def rows_of_step(
    step: Any, batch_size: int, size: int, seed: int, buckets: Buckets | None = None
) -> tuple[Any, Any]:
    """Returns the rows of a batch, and the width it is padded to.

    Args:
      step: i64[], a tensor or int.
      batch_size: B.
      size: M, rows of the split.
      seed: of the order.
      buckets: for batches of like length; None for plain ones.

    Returns:
      i64[B] rows in [0, M), and i64[], tokens; -1 where there are no buckets.
    """
    from int_ra_jax.data.tensorflow_runtime import tf

    step = tf.cast(step, tf.int64)
    if buckets is None:
        positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        return shuffled_rows(positions, size, seed), tf.constant(-1, tf.int64)
    window, place = step // buckets.window, step % buckets.window
    in_window = batch_size * buckets.window
    positions = window * in_window + tf.range(in_window, dtype=tf.int64)
    rows = shuffled_rows(positions, size, seed)
    lengths = tf.constant(buckets.lengths, tf.int64)
    rows = tf.gather(rows, tf.argsort(tf.gather(lengths, rows), stable=True))
    batch = tf.raw_ops.RandomIndexShuffle(
        index=place,
        seed=tf.stack([tf.constant(seed, tf.int64), window, tf.constant(1, tf.int64)]),
        max_index=tf.constant(buckets.window - 1, tf.int64),
    )
    rows = rows[batch * batch_size : (batch + 1) * batch_size]
    longest = tf.reduce_max(tf.gather(lengths, rows))
    width = -(-longest // buckets.multiple) * buckets.multiple
    return rows, tf.minimum(width, buckets.widest)


def shuffled_rows(positions: Any, size: int, seed: int) -> Any:
    """Maps positions in the endless sequence of epochs to rows of the split.

    Args:
      positions: i64[B], a tensor.
      size: M, rows of the split.
      seed: of the order; every (seed, epoch) has a permutation of its own.

    Returns:
      i64[B], a tensor of rows in [0, M).
    """
    from int_ra_jax.data.tensorflow_runtime import tf

    epochs = positions // size
    seeds = tf.stack([tf.fill(tf.shape(epochs), tf.constant(seed, tf.int64)), epochs], axis=1)
    # The raw operation, because tf.random.experimental.index_shuffle pads the wrong axis where each
    # index has a seed of its own. It wants three numbers per seed.
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % size,
        seed=tf.pad(seeds, [[0, 0], [0, 1]]),
        max_index=tf.constant(size - 1, tf.int64),
    )
