"""A program that was traced once computes the same without its function."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from int_ra_jax.run import array_store
from int_ra_jax.run.array_store import ArrayStore
from int_ra_jax.run.compiled_programs import kept_programs, traced

GIVEN = ({"b": jnp.arange(6.0).reshape(2, 3)}, jnp.ones(3))


def scaled(tree, vector):
    return jnp.sin(tree["b"]) @ vector, tree["b"].sum()


def unread(*_):
    pytest.fail("traced again")


def results(store, function, given=GIVEN, name="p", sources=("code",)):
    program = traced(store, name, sources, function, *given)
    return program(given[0]["b"], given[1])


def test_the_second_time_nothing_is_traced_and_the_results_are_the_same_bits(tmp_path):
    store = ArrayStore(str(tmp_path))
    first, again = results(store, scaled), results(store, unread)
    plain = results(ArrayStore(""), scaled)
    for one, other, expected in zip(first, again, plain, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, expected)
    np.testing.assert_allclose(first[0], np.sin(np.arange(6.0)).reshape(2, 3).sum(1), rtol=1e-6)


def test_other_code_and_other_shapes_are_traced_anew_and_replace_what_was_kept(tmp_path):
    store = ArrayStore(str(tmp_path))
    results(store, scaled)
    wider = ({"b": jnp.ones((4, 3))}, jnp.ones(3))
    assert results(store, scaled, wider)[0].shape == (4,)
    assert results(store, lambda *given: (scaled(*given)[1],), wider, sources=("more",))[0] == 12
    assert len(list(tmp_path.iterdir())) == 1
    results(store, scaled, name="q")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_directory_stays_until_the_last_thread_that_keeps_programs_has_left(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(kept_programs("workdir", tmp_path / "a"))
        there = jax.config.jax_compilation_cache_dir
        second.enter_context(kept_programs("workdir", tmp_path / "b"))
        first.close()
        assert jax.config.jax_compilation_cache_dir == there
    assert jax.config.jax_compilation_cache_dir == before


def test_a_full_disk_keeps_no_program_and_computes_all_the_same(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(array_store, "_write", full)
    assert results(ArrayStore(str(tmp_path)), scaled)[1] == 15
    assert not list(tmp_path.iterdir())
