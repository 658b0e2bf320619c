"""The benchmark of millions: what is found is compared with what is truly nearest."""

import numpy as np
import pytest

from benchmarks import large_gallery
from benchmarks.side_by_side import Result

ROWS, WIDTH = 3000, 32


def test_embeddings_are_unit_vectors_and_the_same_every_time(tmp_path):
    vectors, queries = large_gallery.embeddings(tmp_path, ROWS, WIDTH)
    again, asked = large_gallery.embeddings(tmp_path / "again", ROWS, WIDTH)
    assert vectors.dtype == np.float16 and np.array_equal(vectors, again)
    assert np.array_equal(queries, asked) and len(queries) == large_gallery.QUERIES
    assert np.linalg.norm(vectors.astype(np.float32), axis=1) == pytest.approx(1.0, abs=1e-3)


def test_the_nearest_are_those_of_a_whole_product(monkeypatch):
    monkeypatch.setattr(large_gallery, "_BLOCK", 70)
    rng = np.random.default_rng(0)
    vectors, queries = rng.standard_normal((333, 8)), rng.standard_normal((5, 8))
    whole = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = large_gallery.nearest(vectors.astype(np.float32), queries.astype(np.float32))
    assert np.array_equal(found, whole)


def test_recall_is_the_share_of_what_is_true():
    truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert large_gallery.recall([[4, 3, 2, 1], [5, 6]], truth) == pytest.approx(6 / 8)


@pytest.mark.parametrize("name", ["ours", "faiss_ivf_pq", "exact"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of faiss's bindings
def test_each_contestant_finds_what_is_near(name, tmp_path):
    built = {"ours": "build_ours", "faiss_ivf_pq": "build_faiss"}.get(name)
    if name == "faiss_ivf_pq":
        pytest.importorskip("faiss", reason="the peer's library is not installed")
    if built:
        facts = getattr(large_gallery, built)(tmp_path, ROWS, WIDTH).facts
        assert facts.keys() == {"write", "index"} and min(facts.values()) >= 0
    lists = {} if name == "exact" else {"probes": [1, 50]}
    found = getattr(large_gallery, name)(tmp_path, ROWS, WIDTH, **lists).run()
    vectors, queries = large_gallery.embeddings(tmp_path, ROWS, WIDTH)
    last = [rows for _, rows in [*found.values()][-1]]
    truth = large_gallery.nearest(vectors, queries)[: len(last)]
    assert large_gallery.recall(last, truth) > 0.95


def test_rows_have_recall_of_the_queries_that_were_asked():
    truth = np.arange(20).reshape(2, 10)
    asked = {20: [(0.001, [*range(10)]), (0.003, [*range(5)])]}
    (row,) = large_gallery.search_rows({"ours": Result(None, 0.0, values=[asked, asked])}, truth)
    assert (row["recall@10"], row["p50 ms"], row["lists read"]) == ("50.0", "2.0", "20")
