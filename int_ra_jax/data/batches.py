"""Batches and the sticker bank, as numpy arrays ready for the device.

A training batch is a function of (seed, step) and nothing else: any step can be reached at once, so
a run that is killed and resumed sees the very rows it would have seen. The order is a fresh
permutation each epoch, computed row by row without a shuffle buffer; batches of like length are
formed inside windows of that order, so that they too can be computed for any step. tf.data runs
the reading and tokenising in parallel, ahead of the device.
"""

import atexit
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from int_ra_jax.common.types import Batch, Tokens
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.schema import Conversation
from int_ra_jax.data.text import (
    TextConfig,
    Unread,
    compose_context,
)
from int_ra_jax.data.tokenizer import Tokenizer

_COMPOSED = 4096  # conversations composed at once of a whole split
_NO_END = np.iinfo(np.int64).max
_open_streams: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    """Stops prefetching before the interpreter goes down.

    tf.data's threads call Python; once the interpreter finalises they wait for its lock for ever,
    and it waits for them.
    """
    for stream in list(_open_streams):
        stream.close()


@dataclass(frozen=True)
class Composed:
    """A whole split as the text tower reads it.

    Kept where the tower's output is kept as well: an epoch then reads and tokenises nothing.

    Attributes:
      tokens: Tokens [M, L] of numpy leaves.
      sticker: i32[M], gallery row of the gold sticker.
      intention: i32[M], class id of the annotated intention.
      unread: what of the conversations is not read.
    """

    tokens: Tokens
    sticker: Int32[np.ndarray, "M"]
    intention: Int32[np.ndarray, "M"]
    unread: Unread = field(default_factory=Unread)

    @property
    def lengths(self) -> Int32[np.ndarray, "M"]:
        """Tokens of each conversation."""
        return np.asarray(self.tokens.mask.sum(axis=1, dtype=np.int32))


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


def make_batches(
    dataset: Dataset,
    tokenizer: Tokenizer,
    text: TextConfig,
    split: str,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host_index: int = 0,
    host_count: int = 1,
    buckets: Buckets | None = None,
    composed: Composed | None = None,
) -> Iterator[Batch]:
    """Yields training batches without end, from ``start_step`` on.

    Row i of step t stands at position t * batch_size + i of an endless sequence of epochs; a batch
    may span two. Each epoch holds every conversation once, in an order drawn from (seed, epoch).
    With ``buckets`` the same holds of each window of batches.

    Args:
      dataset: the built data set.
      tokenizer: of the text tower.
      text: the section ``config.text``.
      split: "train", as a rule.
      batch_size: B, conversations of all hosts together.
      seed: of the order.
      start_step: first step to yield; costs nothing, however large.
      host_index: this process, from 0.
      host_count: number of processes; each yields its own B / host_count rows of every batch.
      buckets: for batches of like length, as narrow as their longest conversation allows.
      composed: the split where it is kept; it is read and tokenised otherwise.

    Returns:
      Batches of B / host_count rows, numpy leaves; all hosts' shares of a batch are equally wide.

    Raises:
      ValueError: if the split is empty or ``batch_size`` is not divisible by ``host_count``.
    """
    if batch_size < 1 or batch_size % host_count:
        raise ValueError(
            f"config.train.batch_size={batch_size} is not divisible by {host_count} hosts. "
            f"Use a positive multiple of {host_count}."
        )
    size = dataset.size(split)
    if size == 0:
        raise ValueError(f"split {split!r} of {dataset.name} has no conversation to train on.")
    share = batch_size // host_count

    def rows(step: Any) -> tuple[Any, Any]:
        rows, width = rows_of_step(step, batch_size, size, seed, buckets)
        return rows[host_index * share : (host_index + 1) * share], width

    read = _reader(dataset, tokenizer, text, split, composed)
    return _stream(read, size, (start_step, _NO_END), share, rows)


def eval_batches(
    dataset: Dataset,
    tokenizer: Tokenizer,
    text: TextConfig,
    split: str,
    batch_size: int,
    host_index: int = 0,
    host_count: int = 1,
    composed: Composed | None = None,
) -> Iterator[Batch]:
    """Yields a split once, in order; the last batch is filled with rows that are not valid.

    A row that only pads repeats the last conversation, so no arithmetic on it can fail; ``valid``
    keeps it out of every figure.

    Args:
      dataset: the built data set.
      tokenizer: of the text tower.
      text: the section ``config.text``.
      split: "valid" or "test", as a rule.
      batch_size: B, conversations of all hosts together; divisible by ``host_count``.
      host_index: this process, from 0.
      host_count: number of processes; each yields its own B / host_count rows of every batch.
      composed: the split where it is kept; it is read and tokenised otherwise.

    Returns:
      Batches of B / host_count rows, numpy leaves.
    """
    size = dataset.size(split)
    steps, share = -(-size // batch_size), batch_size // host_count

    def rows(step: Any) -> tuple[Any, Any]:
        from int_ra_jax.data.tensorflow_runtime import tf

        first = step * batch_size + host_index * share
        return first + tf.range(share, dtype=tf.int64), tf.constant(-1, tf.int64)

    read = _reader(dataset, tokenizer, text, split, composed)
    return _stream(read, size, (0, steps), share, rows)


def _reader(
    dataset: Dataset,
    tokenizer: Tokenizer,
    text: TextConfig,
    split: str,
    composed: Composed | None,
) -> Callable[[np.ndarray], Composed]:
    """Returns what looks rows of a split up, or reads and tokenises them."""

    def kept(rows: Int64[np.ndarray, "B"]) -> Composed:
        assert composed is not None
        tokens = Tokens(**{name: leaf[rows] for name, leaf in vars(composed.tokens).items()})
        return Composed(tokens, composed.sticker[rows], composed.intention[rows])

    def read(rows: Int64[np.ndarray, "B"]) -> Composed:
        conversations = dataset.conversations(split, rows.tolist())
        return _compose(dataset, tokenizer, text, conversations)

    return read if composed is None else kept


def _stream(
    read: Callable[[np.ndarray], Composed],
    size: int,
    steps: tuple[int, int],
    share: int,
    rows: Callable[[Any], tuple[Any, Any]],
) -> Iterator[Batch]:
    """Gets the rows of each step ahead of time, and yields them in step order."""
    from int_ra_jax.data.tensorflow_runtime import tf

    def assemble(rows: Int64[np.ndarray, "B"], width: np.int64) -> tuple[np.ndarray, ...]:
        valid = rows < size
        rows = np.minimum(rows, size - 1)
        found = read(rows)
        example = rows.astype(np.int32)
        # Padding stands at the end; -1 keeps it all.
        context = [leaf[:, : None if width < 0 else width] for leaf in vars(found.tokens).values()]
        return *context, found.sticker, found.intention, example, valid

    failures: list[Exception] = []

    def noted(*arguments: Any) -> tuple[np.ndarray, ...]:
        try:
            return assemble(*arguments)
        except Exception as error:
            failures.append(error)
            raise

    # The leaves of Tokens; sticker, intention, example and valid.
    shapes = [(share, None)] * 5 + [(share,)] * 4
    types = [tf.int32, tf.bool, tf.int32, tf.int32, tf.bool, tf.int32, tf.int32, tf.int32, tf.bool]

    @tf.autograph.experimental.do_not_convert
    def load(step: Any) -> tuple[Any, ...]:
        # Not stateful: tf.data may run several calls at once, and still yields them in order.
        leaves = tf.numpy_function(noted, rows(step), types, stateful=False)
        return tuple(tf.ensure_shape(leaf, s) for leaf, s in zip(leaves, shapes, strict=True))

    loaded = tf.data.Dataset.range(*steps).map(
        load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    stream = _batches(loaded.prefetch(tf.data.AUTOTUNE), failures)
    _open_streams.add(stream)
    return stream


def _batches(dataset: Any, failures: list[Exception]) -> Generator[Batch, None, None]:
    try:
        for *context, sticker, intention, example, valid in dataset.as_numpy_iterator():
            yield Batch(Tokens(*context), sticker, intention, example, valid)
    except Exception:
        # TensorFlow's own error holds a page of traceback; what went wrong is the first failure.
        if failures:
            raise failures[0] from None
        raise


def compose_split(dataset: Dataset, tokenizer: Tokenizer, text: TextConfig, split: str) -> Composed:
    """Composes a whole split.

    Args:
      dataset: the built data set.
      tokenizer: of the text tower.
      text: the section ``config.text``.
      split: its name.
    """
    parts = list(_composed_in_parts(dataset, tokenizer, text, split))
    leaves = zip(*(vars(part.tokens).values() for part in parts), strict=True)
    return Composed(
        Tokens(*map(np.concatenate, leaves)),
        np.concatenate([part.sticker for part in parts]),
        np.concatenate([part.intention for part in parts]),
        Unread.together(part.unread for part in parts),
    )


def measure(
    dataset: Dataset, tokenizer: Tokenizer, text: TextConfig, split: str
) -> tuple[Int32[np.ndarray, "M"], Unread]:
    """Composes a whole split and keeps nothing but its lengths.

    Args:
      dataset: the built data set.
      tokenizer: of the text tower.
      text: the section ``config.text``.
      split: "train", as a rule.

    Returns:
      i32[M], tokens of each conversation, and the counts of what is not read.
    """
    lengths, unread = [np.zeros(0, np.int32)], []
    for part in _composed_in_parts(dataset, tokenizer, text, split):
        lengths.append(part.lengths)
        unread.append(part.unread)
    return np.concatenate(lengths), Unread.together(unread)


def _composed_in_parts(
    dataset: Dataset, tokenizer: Tokenizer, text: TextConfig, split: str
) -> Iterator[Composed]:
    size = dataset.size(split)
    for start in range(0, size, _COMPOSED):
        rows = list(range(start, min(start + _COMPOSED, size)))
        yield _compose(dataset, tokenizer, text, dataset.conversations(split, rows))


def _compose(
    dataset: Dataset,
    tokenizer: Tokenizer,
    text: TextConfig,
    conversations: Sequence[Conversation],
) -> Composed:
    tokens, unread = compose_context(tokenizer, conversations, text, dataset.has_knowledge)
    return Composed(tokens, *dataset.targets(conversations), Unread.together(unread))
