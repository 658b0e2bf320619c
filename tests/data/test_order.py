"""The order of training: every row once an epoch, at any step, with like lengths side by side."""

import itertools

import numpy as np
import pytest
from fixtures.prepared import text_config
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.data.batches import Buckets, make_batches, measure, rows_of_step
from int_ra_jax.data.text import context_length

WIDEST = 50


def make_buckets(size, window, multiple=8, seed=0):
    rng = np.random.default_rng(seed)
    return Buckets(rng.integers(3, WIDEST + 1, size).astype(np.int32), multiple, window, WIDEST)


def take(steps, batch_size, size, seed=0, buckets=None):
    found = [rows_of_step(step, batch_size, size, seed, buckets) for step in steps]
    return [rows.numpy() for rows, _ in found], [int(width) for _, width in found]


@settings(max_examples=12, deadline=None)
@given(
    size=st.integers(5, 60),
    batch_size=st.integers(1, 9),
    window=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_a_window_holds_the_rows_that_it_would_hold_unsorted(size, batch_size, window, seed):
    buckets = make_buckets(size, window)
    for first in (0, 3 * window):
        steps = range(first, first + window)
        sorted_, _ = take(steps, batch_size, size, seed, buckets)
        plain, _ = take(steps, batch_size, size, seed)
        assert sorted(np.concatenate(sorted_)) == sorted(np.concatenate(plain))


def test_a_batch_is_as_wide_as_its_longest_row_and_no_wider():
    buckets = make_buckets(100, 5)
    for rows, width in zip(*take(range(20), 6, 100, buckets=buckets), strict=True):
        longest = buckets.lengths[rows].max()
        assert longest <= width < longest + buckets.multiple
        assert width % buckets.multiple == 0 or width == WIDEST


def test_batches_of_a_window_are_not_in_the_order_of_their_lengths():
    buckets = make_buckets(400, 20)
    _, widths = take(range(20), 6, 400, buckets=buckets)
    assert len(set(widths)) > 3
    assert widths not in (sorted(widths), sorted(widths, reverse=True))
    # The next window is shuffled anew.
    _, later = take(range(20, 40), 6, 400, buckets=buckets)
    assert np.argsort(widths).tolist() != np.argsort(later).tolist()


def test_the_order_depends_on_the_seed_and_on_nothing_else():
    buckets = make_buckets(80, 4)
    first, _ = take(range(8), 5, 80, 1, buckets)
    again, _ = take(range(8), 5, 80, 1, buckets)
    other, _ = take(range(8), 5, 80, 2, buckets)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def padding_share(buckets, batch_size, seed, bucketed=True, steps=200):
    """The share of tokens that only pad, and the number of widths, over the first batches."""
    size = len(buckets.lengths)
    real = filled = 0
    widths = set()
    for step in range(min(steps, -(-size // batch_size))):
        rows, width = rows_of_step(step, batch_size, size, seed, buckets)
        widths.add(int(width) if bucketed else buckets.widest)
        real += int(buckets.lengths[rows.numpy()].sum())
        filled += batch_size * (int(width) if bucketed else buckets.widest)
    return 1.0 - real / filled, len(widths)


def test_larger_windows_pad_less_and_all_pad_less_than_none():
    lengths = np.random.default_rng(0).geometric(0.05, 2000).clip(3, 192).astype(np.int32)
    shares = [
        padding_share(Buckets(lengths, 8, window, 192), 16, seed=0)[0] for window in (1, 4, 50)
    ]
    without, widths = padding_share(Buckets(lengths, 8, 1, 192), 16, seed=0, bucketed=False)
    assert without > shares[0] > shares[1] > shares[2]
    assert widths == 1
    assert without == pytest.approx(1 - lengths.mean() / 192, abs=0.02)
    assert shares[2] < 0.3


def test_narrow_batches_hold_the_tokens_of_wide_ones_on_every_host(tiny_source, tiny_tokenizer):
    text = text_config()
    lengths, _ = measure(tiny_source, tiny_tokenizer, text, "train")
    widest = context_length(text, tiny_source.has_knowledge)
    buckets = Buckets(lengths, 4, 3, widest)

    def batches(**options):
        stream = make_batches(
            tiny_source, tiny_tokenizer, text, "train", 4, 0, buckets=buckets, **options
        )
        return list(itertools.islice(stream, 6))

    whole = batches()
    assert len({batch.context.ids.shape[1] for batch in whole}) > 1
    for batch in whole:
        width = batch.context.ids.shape[1]
        np.testing.assert_array_equal(batch.context.mask.sum(1), lengths[batch.example])
        assert width - lengths[batch.example].max() < 4
    for step, (one, two) in enumerate(
        zip(batches(host_count=2), batches(host_index=1, host_count=2), strict=True)
    ):
        joined = np.concatenate([one.context.ids, two.context.ids])
        np.testing.assert_array_equal(joined, whole[step].context.ids)
    np.testing.assert_array_equal(batches(start_step=4)[0].example, whole[4].example)
