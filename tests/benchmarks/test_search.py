"""The times of a search are of searches that found something."""

from benchmarks import search


def test_every_time_of_a_search_is_there(trained, tmp_path):
    found = search.measure(trained.copy(tmp_path / "run"), "valid", 8)
    assert set(found) == {
        "open", "first answer", "one query, p50", "one query, p99", "8 queries, median",
        "64 queries, median",
    }  # fmt: skip
    assert all(value > 0 for value in found.values())
    assert found["one query, p50"] <= found["one query, p99"]
