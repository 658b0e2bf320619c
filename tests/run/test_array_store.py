"""What is kept on disk comes back bit by bit, or is computed again."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from int_ra_jax.run.array_store import ArrayStore, digest

DTYPES = st.sampled_from([np.float32, np.float64, np.int32, np.uint8, jnp.bfloat16, np.float16])


class Counted:
    """Computes an array and counts how often."""

    def __init__(self, array):
        self.array, self.calls = array, 0

    def __call__(self):
        self.calls += 1
        return self.array


@given(arrays.arrays(np.uint8, st.tuples(st.integers(0, 4), st.just(16))), DTYPES)
def test_the_same_bits_and_type_come_back_and_are_computed_once(tmp_path_factory, bits, dtype):
    store = ArrayStore(str(tmp_path_factory.mktemp("store")))
    compute = Counted(bits.view(dtype))
    for _ in range(3):
        found = store.get("array", lambda: ["source"], compute)
        assert found.dtype == np.dtype(dtype) and found.shape == compute.array.shape
        np.testing.assert_array_equal(found.view(np.uint8), bits)
    assert compute.calls == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a", "bc"], ["ab", "c"]),
        (["a"], ["b"]),
        (["a"], ["a", ""]),
        ([np.zeros(2, np.int32)], [np.zeros(1, np.int64)]),
        ([np.zeros((1, 2))], [np.zeros((2, 1))]),
        ([np.array([1.0, 2.0])], [np.array([2.0, 1.0])]),
    ],
)
def test_other_sources_are_another_array(tmp_path, one, other):
    assert digest(one) != digest(other) and digest(one) == digest(list(one))
    store = ArrayStore(str(tmp_path))
    assert store.get("x", lambda: one, Counted(np.zeros(1)))[0] == 0
    assert store.get("x", lambda: other, Counted(np.ones(1)))[0] == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path, damage, caplog):
    store = ArrayStore(str(tmp_path))
    compute = Counted(np.arange(1000.0))
    store.get("x", lambda: ["s"], compute)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"flip": content, "cut": content[:-400], "empty": b"", "text": b"{}"}[damage]
    path.write_bytes(changed)
    np.testing.assert_array_equal(store.get("x", lambda: ["s"], compute), np.arange(1000.0))
    assert compute.calls == 2
    np.testing.assert_array_equal(store.get("x", lambda: ["s"], compute), np.arange(1000.0))
    assert compute.calls == 2 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("directory", ["", "gone"])
def test_without_a_folder_nothing_is_kept_and_no_source_is_read(tmp_path, directory):
    store = ArrayStore(str(tmp_path / directory) if directory else "")
    compute = Counted(np.ones(1))

    def unread():
        raise AssertionError

    assert store.get("x", unread, compute) is store.get("x", unread, compute) is compute.array
    assert compute.calls == 2 and not (tmp_path / "gone").exists()


def test_what_does_not_exist_is_not_kept(tmp_path):
    assert ArrayStore(str(tmp_path)).get("x", lambda: ["s"], Counted(None)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(file, **parts):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    kept = ArrayStore(str(tmp_path)).get("x", lambda: ["s"], Counted(np.ones(1)))
    assert kept == 1
    assert list(tmp_path.iterdir()) == []


def test_some_of_a_name_can_stay(tmp_path):
    store = ArrayStore(str(tmp_path))
    for name in ("search-old-1", "search-new-1", "search-new-2", "names"):
        store.get(name, lambda: ["s"], Counted(np.ones(1)))
    store.forget("search", but="search-new")
    left = {path.name.rpartition("-")[0] for path in tmp_path.iterdir()}
    assert left == {"search-new-1", "search-new-2", "names"}
