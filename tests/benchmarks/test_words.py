"""The typed queries and how answers to them are judged."""

from collections import Counter

import pytest

from benchmarks import words
from data_prep.embedded import openmoji


def test_the_queries_are_fifty_of_each_language_and_their_answers_exist():
    queries = words.read_queries()
    assert Counter(one.language for one in queries) == {"en": 50, "zh": 50}
    assert len({one.text for one in queries}) == 100
    known = {art.id for art in openmoji.artworks()}
    assert all(one.gold and one.gold <= known for one in queries)


def test_figures_by_hand():
    asked = words.Query("cat", "en", frozenset({"a", "b"}))
    rankings = [["a", "x"], ["x", "y", "b", "a"], ["x"], []]
    found = words.judged([asked] * 4, rankings)
    value = {name: float(text.split()[0]) for name, text in found.items()}
    assert value == {
        "hit@1": 25.0,
        "hit@5": 50.0,
        "MRR": pytest.approx(100 * (1 + 1 / 3) / 4, abs=0.1),
    }
