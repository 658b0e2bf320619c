"""Which stickers are right answers under each protocol, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from int_ra_jax.evaluation.relevance import (
    last_written_intention,
    relevance,
    unannotated_stickers,
)

ANNOTATIONS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], bool)


def test_multi_counts_every_train_and_valid_intention_and_the_gold_sticker():
    right = relevance("multi", query_intention=[1, 0, 2], gold=[1, 2, 2], annotations=ANNOTATIONS)
    assert right.tolist() == [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]]
    assert unannotated_stickers(ANNOTATIONS).tolist() == [2]


def test_paper_counts_the_last_written_intention_and_may_miss_the_gold_sticker():
    pairs = {
        "valid": ([0], [2]),
        "train": ([0, 1, 0, 3], [0, 1, 1, 2]),
        "test": ([0, 3], [0, 1]),
    }
    written = last_written_intention(pairs, 5)
    assert written.tolist() == [2, 1, -1, 1, -1]
    assert last_written_intention({"train": pairs["train"]}, 4).tolist() == [1, 1, -1, 2]
    right = relevance("paper", query_intention=[0, 1], gold=[0, 3], last_written=written)
    assert right.tolist() == [[0, 0, 0, 0, 0], [0, 1, 0, 1, 0]]


def test_exact_counts_the_gold_sticker_only():
    right = relevance("exact", query_intention=[0, 1], gold=[3, 0], annotations=ANNOTATIONS)
    assert right.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


@settings(max_examples=20, deadline=None)
@given(
    annotations=hnp.arrays(bool, (6, 3)),
    gold=hnp.arrays(np.int64, 4, elements=st.integers(0, 5)),
    intention=hnp.arrays(np.int64, 4, elements=st.integers(0, 2)),
)
def test_multi_is_never_empty_and_contains_exact(annotations, gold, intention):
    arguments = {"query_intention": intention, "gold": gold, "annotations": annotations}
    multi, exact = relevance("multi", **arguments), relevance("exact", **arguments)
    assert multi.any(axis=1).all()
    assert (multi >= exact).all()
    assert exact.sum() == 4


def test_relevance_names_what_is_wrong():
    fine = {"query_intention": [0], "gold": [0]}
    with pytest.raises(ValueError, match="Did you mean 'multi'"):
        relevance("mutli", **fine, annotations=ANNOTATIONS)
    for protocol, missing in [("multi", "annotations"), ("paper", "last_written"), ("exact", "or")]:
        with pytest.raises(ValueError, match=missing):
            relevance(protocol, **fine)
    with pytest.raises(ValueError, match=r"annotations must be bool"):
        relevance("multi", **fine, annotations=ANNOTATIONS.astype(int))
    with pytest.raises(ValueError, match=r"query_intention must be in \[0, 3\)"):
        relevance("multi", query_intention=[3], gold=[0], annotations=ANNOTATIONS)
    with pytest.raises(ValueError, match=r"gold must be in \[0, 4\)"):
        relevance("exact", query_intention=[0], gold=[-1], annotations=ANNOTATIONS)
    with pytest.raises(ValueError, match="4 stickers, last_written 3"):
        relevance("multi", **fine, annotations=ANNOTATIONS, last_written=[0, 0, 0])
    with pytest.raises(ValueError, match=r"Unknown splits \['dev'\]"):
        last_written_intention({"dev": ([0], [0])}, 1)
