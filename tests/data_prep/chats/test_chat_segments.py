"""Segments, contexts of stickers, and the split by what conversations share."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.chats.message import Message
from data_prep.chats.segment import Limits, contexts, segments
from data_prep.chats.split import assign, group

LIMITS = Limits(gap=100, reply=1000, length=5)


@st.composite
def chats(draw):
    """Draws messages of one chat in the order of time, some answering an earlier one."""
    gaps = draw(st.lists(st.integers(0, 400), max_size=40))
    messages, time = [], 0
    for number, gap in enumerate(gaps):
        time += gap
        answered = draw(st.none() | st.integers(0, max(number - 1, 0)))
        reply = None if answered is None else str(answered)
        messages.append(Message("c", str(number), time, f"u{number % 3}", "x", None, reply))
    return messages


@settings(max_examples=50, deadline=None)
@given(chats())
def test_every_message_is_in_one_segment_of_bounded_length_in_the_order_of_time(messages):
    parts = list(segments(messages, LIMITS))
    assert Counter(m.id for part in parts for m in part) == Counter(m.id for m in messages)
    for part in parts:
        assert 1 <= len(part) <= LIMITS.length
        assert [m.time for m in part] == sorted(m.time for m in part)


@settings(max_examples=50, deadline=None)
@given(chats())
def test_without_replies_no_segment_spans_a_long_silence(messages):
    plain = [Message(m.chat, m.id, m.time, m.sender, m.text) for m in messages]
    for part in segments(plain, LIMITS):
        gaps = [b.time - a.time for a, b in pairwise(part)]
        assert all(gap <= LIMITS.gap for gap in gaps)


def test_a_late_reply_joins_the_segment_that_it_answers_and_what_follows_joins_it():
    times = [(0, None), (10, None), (500, None), (600, "0"), (650, None)]
    messages = [Message("c", str(i), t, "u", "x", None, r) for i, (t, r) in enumerate(times)]
    parts = sorted([m.id for m in part] for part in segments(messages, LIMITS))
    assert parts == [["0", "1", "3", "4"], ["2"]]
    too_late = Limits(gap=100, reply=300, length=5)
    parts = sorted([m.id for m in part] for part in segments(messages, too_late))
    assert parts == [["0", "1"], ["2", "3", "4"]]


def test_a_long_segment_is_cut_at_the_longest_silence_of_its_second_half():
    times = [0, 90, 91, 92, 130, 131]
    messages = [Message("c", str(i), t, "u", "x") for i, t in enumerate(times)]
    assert [len(part) for part in segments(messages, LIMITS)] == [4, 2]


def test_own_words_before_or_with_the_sticker_are_the_last_turn():
    said = [
        Message("c", "0", 0, "a", "hi"),
        Message("c", "1", 1, "b", "hello"),
        Message("c", "2", 2, "b", "", "s.png"),
        Message("c", "3", 3, "a", "look", "t.png"),
        Message("c", "4", 4, "b", "", "s.png"),
    ]
    counts = Counter()
    found = list(contexts(said, 0, counts))
    assert [one["case"] for one in found] == ["supplement", "supplement", "alone"]
    assert found[1]["turns"] == [
        {"speaker": "a", "text": "hi"},
        {"speaker": "b", "text": "hello"},
        {"speaker": "b", "text": "", "sticker": "s.png"},
        {"speaker": "a", "text": "look"},
    ]
    assert found[2]["turns"][-1] == {"speaker": "a", "text": "look", "sticker": "t.png"}
    assert counts["contexts"] == 3


def test_a_sticker_to_which_nobody_else_spoke_is_counted_and_left_out():
    counts = Counter()
    said = [Message("c", "0", 0, "a", "hi"), Message("c", "1", 1, "a", "", "s.png")]
    assert list(contexts(said, 0, counts)) == []
    assert counts["without_context"] == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("pqrstuv")), max_size=30))
def test_contexts_of_one_segment_or_one_text_are_in_one_group(pairs):
    rows = [
        {"id": f"{i}", "segment": f"s{segment}", "turns": [{"text": text}]}
        for i, (segment, text) in enumerate(pairs)
    ]
    groups = group(rows)
    for key in (lambda row: row["segment"], lambda row: row["turns"][0]["text"]):
        homes = {}
        for row in rows:
            assert homes.setdefault(key(row), groups[row["id"]]) == groups[row["id"]]


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.integers(1, 50), min_size=3, max_size=60))
def test_every_split_gets_a_group_whatever_their_sizes(sizes):
    splits = assign(sizes, {"valid": 0.1, "test": 0.1})
    assert set(splits) == set(sizes)
    assert set(splits.values()) == {"train", "valid", "test"}
    assert splits == assign(dict(reversed(sizes.items())), {"valid": 0.1, "test": 0.1})


def test_many_small_groups_give_the_shares_that_were_asked_for():
    splits = Counter(
        assign({f"g{i}": 1 for i in range(1000)}, {"valid": 0.1, "test": 0.2}).values()
    )
    assert splits == {"train": 700, "valid": 100, "test": 200}


def test_too_few_groups_are_refused_with_their_number():
    with pytest.raises(ValueError, match="2 conversations that share nothing"):
        assign({"a": 1, "b": 1}, {"valid": 0.1, "test": 0.1})
