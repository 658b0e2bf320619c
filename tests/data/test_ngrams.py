"""N-grams of conversations: what is counted, how it is weighed, and a vocabulary on disk."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.data import ngrams
from int_ra_jax.data.ngrams import FILE, PARTS, Ngrams, Texts

TRAIN = Texts(
    ["well done", "今天太开心了", "ok", "well well", ""],
    ["hi\nwell done", "怎么了\n今天太开心了", "are you sure\nok", "so\nwell well", "hello\n"],
)
LATIN, HAN = "word", "char"


@pytest.fixture(scope="module")
def learnt():
    return Ngrams.learn(TRAIN)


def test_a_part_has_unit_length_times_its_weight(learnt):
    lengths = np.sqrt(learnt.matrix(TRAIN).multiply(learnt.matrix(TRAIN)).sum(axis=1)).A1
    newest, whole = (weight for weight, _ in PARTS.values())
    np.testing.assert_allclose(lengths[:4], np.hypot(newest, whole), rtol=1e-6)
    np.testing.assert_allclose(lengths[4], whole, rtol=1e-6)  # the newest turn says nothing


def test_words_are_of_scripts_that_part_them(learnt):
    kinds = {one["analyzer"]: one["ngrams"] for one in learnt.to_json()["newest"]}
    assert "well done" in kinds[LATIN]
    assert not any("开" in word for word in kinds[LATIN])
    assert "太开心" in kinds[HAN]
    alone = Ngrams.learn(Texts(["开心", "难过"], ["开心", "难过"]))
    assert [one["analyzer"] for one in alone.to_json()["newest"]] == [HAN]


def test_what_is_not_known_is_passed_over(learnt):
    assert learnt.matrix(Texts(["ЖЖЖ"], ["ЖЖЖ"])).nnz == 0


@settings(deadline=None)
@given(st.lists(st.text("well don开心今\n ", max_size=12), min_size=1, max_size=4))
def test_rows_hold_the_matrix_the_heaviest_first(learnt, said):
    texts = Texts(said, said)
    ids, weights = learnt.rows(texts, 200)
    found = np.zeros((len(said), learnt.size), np.float32)
    for row in range(len(said)):
        np.add.at(found[row], ids[row], weights[row])
    np.testing.assert_array_equal(found, learnt.matrix(texts).toarray())
    assert (np.diff(weights, axis=1) <= 0).all()
    few = learnt.rows(texts, 3)
    np.testing.assert_array_equal(few[0], ids[:, :3])
    np.testing.assert_array_equal(few[1], weights[:, :3])


def test_a_vocabulary_from_disk_counts_the_same(learnt, tmp_path):
    learnt.save(tmp_path)
    again = ngrams.load(tmp_path)
    assert again.size == learnt.size
    np.testing.assert_array_equal(again.matrix(TRAIN).toarray(), learnt.matrix(TRAIN).toarray())
    assert ngrams.load(tmp_path / "elsewhere") is None


def _without_a_part(content):
    del content["whole"]


def _one_weight_less(content):
    content["newest"][0]["idf"].pop()


def _no_number(content):
    content["newest"][0]["idf"][0] = "a"


@pytest.mark.parametrize("damage", [_without_a_part, _one_weight_less, _no_number])
def test_a_damaged_vocabulary_is_named(learnt, tmp_path, damage):
    content = learnt.to_json()
    damage(content)
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"cannot read .*{FILE}"):
        ngrams.load(tmp_path)


def test_no_json_is_named(tmp_path):
    (tmp_path / FILE).write_text("[")
    with pytest.raises(ValueError, match="fetch it again"):
        ngrams.load(tmp_path)
