"""Agreement with people, against naive counts, and on real choices where they are at hand."""

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.evaluation import agreement
from int_ra_jax.evaluation.agreement import answer, find_posts, graded, people, sentence
from int_ra_jax.evaluation.report_data import Difference, Interval

CHOICES = Path(__file__).parents[3] / "shared" / "data" / "choices_zh"

USES = st.lists(st.integers(0, 9), min_size=2, max_size=8).filter(lambda uses: sum(uses) > 1)


def reply(number, thread="p", **extra):
    told = {"case": "alone", "direct": True, "echo": False, "thread": thread} | extra
    turns = (Turn("author", f"post {thread}"),)
    return Conversation(f"c{number}", "test", turns, f"u{number}", "s", "joy", extra=told)


@given(USES)
def test_two_people_agree_as_often_as_pairs_of_them_do(uses):
    sent = [sticker for sticker, count in enumerate(uses) for _ in range(count)]
    pairs = [a == b for a, b in itertools.permutations(sent, 2)]
    found = people(np.array(uses))
    assert found["two_agree"] == pytest.approx(np.mean(pairs))
    counts = sorted(Counter(sent).values(), reverse=True)
    assert found["best_one"] == pytest.approx(counts[0] / len(sent))
    assert found["best_five"] == pytest.approx(sum(counts[:5]) / len(sent))


@given(USES, st.data())
def test_a_graded_answer_is_the_mean_over_all_orders_of_ties(uses, data):
    uses = np.array(uses[:6])
    shares = (uses + 1) / (uses + 1).sum()
    count = len(uses)
    scores = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    orders = []
    for order in itertools.permutations(range(count)):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            orders.append(shares[list(order)])
    discount = 1 / np.log2(np.arange(count) + 2)
    ideal = (np.sort(shares)[::-1] * discount).sum()
    found = answer(np.array(scores, float), shares)
    assert found["first"] == pytest.approx(np.mean([gains[0] for gains in orders]))
    assert found["five"] == pytest.approx(np.mean([gains[:5].sum() for gains in orders]))
    assert found["ndcg"] == pytest.approx(np.mean([(g * discount).sum() for g in orders]) / ideal)


@given(USES)
def test_whoever_ranks_by_what_people_sent_reaches_the_best_answers(uses):
    uses = np.array(uses)
    reached = people(uses)
    found = answer(uses.astype(float), uses / uses.sum())
    assert found["first"] == pytest.approx(reached["best_one"])
    assert found["five"] == pytest.approx(reached["best_five"])
    assert found["ndcg"] == pytest.approx(1.0)


def test_direct_replies_without_echo_make_a_post_and_one_alone_asks_for_it(monkeypatch):
    monkeypatch.setattr(agreement, "MINIMUM", 3)
    conversations = [
        reply(0, "few"),
        reply(1, case="own_words"),
        reply(2, echo=True, case="own_words"),
        reply(3, direct=False),
        reply(4),
        reply(5),
        *(reply(6 + n, "words", case="own_words") for n in range(3)),
        Conversation("old", "test", (Turn("a", "hi"),), "b", "s", "joy"),
    ]
    gold = np.array([0, 1, 1, 1, 1, 2, 0, 0, 0, 0])
    (post,) = find_posts(conversations, gold, 4)
    assert (post.name, post.query, post.replies) == ("p", 4, 3)
    assert post.uses.tolist() == [0, 2, 1, 0]
    (line,) = graded([post], {"constant": np.zeros((10, 4))})
    assert line["direct"] == 3
    assert line["systems"]["constant"]["first"] == pytest.approx(0.25)
    assert find_posts(conversations, gold, 4) and not find_posts(conversations[-1:], gold[-1:], 4)


@pytest.mark.parametrize(
    "low, high, said",
    [(0.01, 0.05, "more often than"), (-0.05, -0.01, "less often than"), (-0.01, 0.02, "no clear")],
)
def test_the_sentence_says_what_the_interval_allows(low, high, said):
    text = sentence(
        "int_ra",
        {"first": Interval(0.1)},
        {"two_agree": Interval(0.075), "best_one": Interval(0.2)},
        Difference("first", "two_agree", 0.025, low, high, 0.5),
        Difference("first", "best_one", -0.1, -0.12, -0.08, 0.001),
        Interval(0.5, 0.4, 0.6),
    )
    assert said in text
    assert "10.0% of the time, another person's is 7.5%" in text
    assert "20.0% (−10.0 points [−12.0, −8.0]), of which int_ra reaches 50%." in text


def test_people_and_the_most_used_sticker_on_real_choices():
    file = CHOICES / "replies.jsonl.gz"
    if not file.is_file():
        pytest.skip("the rows of real choices are not beside this checkout")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    ids = sorted({row["sticker"] for row in rows})
    place = {sticker: row for row, sticker in enumerate(ids)}
    used = np.bincount([place[r["sticker"]] for r in rows if r["split"] == "train"])
    test = [row for row in rows if row["split"] == "test"]
    conversations = [
        reply(
            number, row["thread"], direct=row["direct"], echo=row["echo"],
            case="own_words" if row["own_words"] else "alone",
        )
        for number, row in enumerate(test)
    ]  # fmt: skip
    gold = np.array([place[row["sticker"]] for row in test])
    posts = find_posts(conversations, gold, len(ids))
    scores = np.broadcast_to(used.astype(float), (len(test), len(ids)))
    lines = graded(posts, {"popular": scores})
    reached = {name: np.mean([line["people"][name] for line in lines]) for name in agreement.PEOPLE}
    # The figures that came with the rows; there 84 posts of a sample of them were graded.
    assert len(posts) == 85
    assert reached == pytest.approx(
        {"two_agree": 0.075, "best_one": 0.199, "best_five": 0.528}, abs=5e-4
    )
    popular = [line["systems"]["popular"] for line in lines]
    assert np.mean([one["first"] for one in popular]) == pytest.approx(0.073, abs=5e-4)
    assert np.mean([one["five"] for one in popular]) == pytest.approx(0.313, abs=6e-4)
