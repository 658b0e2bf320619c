"""A process that asks for it reads once what other runs would read again."""

import shutil

import numpy as np
import pytest

from int_ra_jax.common import process_memory
from int_ra_jax.data.tokenizer import load_tokenizer
from int_ra_jax.run.array_store import ArrayStore


@pytest.fixture
def remembering(monkeypatch):
    monkeypatch.setattr(process_memory, "_kept", None)
    process_memory.switch_on()


def test_nothing_is_kept_unless_it_is_asked_for():
    made = [process_memory.once("key", object) for _ in range(2)]
    assert made[0] is not made[1]


def test_each_key_is_computed_once_and_switching_on_again_forgets_nothing(remembering):
    first = process_memory.once("key", object)
    process_memory.switch_on()
    assert process_memory.once("key", object) is first is not process_memory.once("other", object)


def test_a_failure_is_not_kept(remembering):
    with pytest.raises(ZeroDivisionError):
        process_memory.once("key", lambda: 1 // 0)
    assert process_memory.once("key", lambda: 3) == 3


def test_kept_arrays_are_those_of_their_sources_even_without_their_file(remembering, tmp_path):
    store, rows = ArrayStore(str(tmp_path)), np.arange(3)
    first = store.get("rows", lambda: ["a"], lambda: rows)
    for file in tmp_path.iterdir():
        file.unlink()
    assert ArrayStore(str(tmp_path)).get("rows", lambda: ["a"], lambda: None) is first
    assert store.get("rows", lambda: ["b"], lambda: rows + 1).tolist() == [1, 2, 3]


def test_a_tokenizer_is_told_by_what_its_file_says_and_not_by_its_place(
    remembering, trained, tmp_path
):
    tower = trained.workdir / "towers" / "text"
    shutil.copytree(tower, tmp_path / "copy")
    assert load_tokenizer(str(tmp_path / "copy")) is load_tokenizer(str(tower))
