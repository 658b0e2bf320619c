"""What conversations of real choices say of themselves."""

import numpy as np

from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.evaluation.cases import cases


def conversation(number, **extra):
    return Conversation(f"c{number}", "test", (Turn("a", "hi"),), "b", "s", "joy", extra=extra)


def test_data_without_threads_has_neither_cases_nor_posts():
    # The embedded data set says "alone" and "supplement", and is judged as it always was.
    found = cases([conversation(n, case="alone") for n in range(3)], np.array([True, False, False]))
    assert not found.threads and found.named == {}
    assert found.clusters == ["c0", "c1", "c2"]
    assert found.headline.all()


def test_only_cases_that_divide_the_queries_are_told():
    rows = [
        conversation(0, thread="p", case="alone", direct=True, echo=False),
        conversation(1, thread="p", case="own_words", direct=True, echo=True),
        conversation(2, thread="q", case="alone", direct=True, echo=False),
    ]
    found = cases(rows, np.zeros(3, bool))
    assert {name: queries.tolist() for name, queries in found.named.items()} == {
        "alone": [True, False, True],
        "own_words": [False, True, False],
        "echo": [False, True, False],
    }
    assert found.clusters == ["p", "p", "q"]
    assert found.headline.tolist() == [True, False, True]
    assert found.of(1) == {"cluster": "p", "headline": False, "cases": ["own_words", "echo"]}


def test_unseen_stickers_are_a_case_and_a_chat_has_neither_directness_nor_echoes():
    rows = [conversation(n, thread="user", case="alone", order=n) for n in range(3)]
    found = cases(rows, np.array([False, True, False]))
    assert {name: queries.tolist() for name, queries in found.named.items()} == {
        "seen": [True, False, True],
        "unseen": [False, True, False],
    }


def test_a_split_of_echoes_alone_is_its_own_headline():
    rows = [conversation(n, thread="p", echo=True) for n in range(2)]
    assert cases(rows, np.zeros(2, bool)).headline.all()
