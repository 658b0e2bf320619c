"""Rows go through a program of one static shape and come back as they were."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.run.row_chunks import chunk_rows, joined


@given(st.integers(1, 50), st.integers(1, 20))
def test_what_is_computed_in_chunks_is_what_is_computed_at_once(number, size):
    table = np.random.default_rng(number).random((number, 2))
    chunks = chunk_rows(number, size)
    assert chunks.shape[1] == size
    assert set(chunks.flat) == set(range(number))  # nothing but real rows
    parts = ({"double": 2 * table[rows], "row": rows} for rows in chunks)
    found = joined(parts, number, np.concatenate)
    np.testing.assert_array_equal(found["double"], 2 * table)
    np.testing.assert_array_equal(found["row"], np.arange(number))


def test_where_the_first_chunk_gives_nothing_no_other_is_computed():
    computed = []
    assert joined((computed.append(rows) for rows in chunk_rows(9, 2)), 9) is None
    assert len(computed) == 1
