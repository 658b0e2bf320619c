"""Chats become conversations without losing who spoke, and without telling who they are."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.embedded import chitchat
from data_prep.embedded.chitchat import Chat, Message
from data_prep.embedded.user_split import split_users


def chat(*messages, name="chat"):
    """A chat out of "a: text" lines."""
    pairs = (message.split(": ", 1) for message in messages)
    return Chat(name, tuple(Message(sender, text) for sender, text in pairs))


def test_a_reaction_to_the_other_is_alone_and_not_among_the_turns():
    found = list(chitchat.examples_of(chat("a: hi", "b: I fell off my bike", "a: Oh no!")))
    (example,) = found
    assert (example.case, example.reply_speaker) == ("alone", "a")
    assert example.turns == (("a", "hi"), ("b", "I fell off my bike"))
    assert example.reaction.intention == "sadness"


def test_a_reaction_after_own_words_supplements_them():
    (example,) = chitchat.examples_of(chat("b: and you?", "a: I fell off my bike", "a: hahaha"))
    assert example.case == "supplement"
    assert example.turns[-1] == ("a", "I fell off my bike")


def test_a_reaction_inside_a_message_leaves_the_own_words_as_the_last_turn():
    (example,) = chitchat.examples_of(
        chat("b: where were you", "b: I fell", "a: Oh no! did you get hurt?")
    )
    assert example.case == "supplement"
    assert example.turns[-1] == ("a", "did you get hurt?")
    assert example.reaction.text == "Oh no!"


def test_words_that_answer_a_question_are_no_reaction():
    told = chat("a: we met there", "b: How was it?", "a: awesome")
    assert list(chitchat.examples_of(told)) == []
    told = chat("a: we met there", "b: I went to Iceland", "a: awesome")
    assert len(list(chitchat.examples_of(told))) == 1


def test_a_context_holds_words_of_the_other_and_is_never_too_long():
    lonely = chat("b: hey", *(f"a: is anybody there {i}" for i in range(20)), "a: haha")
    assert list(chitchat.examples_of(lonely)) == []
    long = chat(*(f"{'ab'[i % 2]}: message number {i}" for i in range(40)), "a: haha")
    (example,) = chitchat.examples_of(long)
    assert len(example.turns) == chitchat.MAX_TURNS
    assert example.turns[-1][1] == "message number 39"


def test_common_intentions_are_capped_and_rare_ones_are_kept():
    common = [
        chat("a: one", "b: two", "a: haha", "b: three", "a: wow", "b: four", "a: haha", name=str(i))
        for i in range(chitchat.RARE)
    ]
    rare = chat("a: one", "b: two", "a: gross", "b: three", "a: yuck", "b: four", "a: ew")
    found = [example for one in [*common, rare] for example in chitchat.examples_of(one)]
    kept = chitchat.capped(found, seed=0)
    for one in common[:20]:
        members = [example for example in kept if example.chat == one.id]
        assert Counter(example.reaction.intention for example in members) == {
            "amusement": 1,
            "surprise": 1,
        }
    assert sum(example.chat == rare.id for example in kept) == 3
    assert kept == chitchat.capped(list(reversed(found)), seed=0)[::-1]
    assert {example.id for example in kept} != {
        example.id for example in chitchat.capped(found, seed=1)
    }


def test_what_could_identify_a_person_is_masked_and_counted():
    counts = Counter()
    text = "mail me at jo.doe+x@mail.example.org, call (801) 555-0199, see www.me.com/x or @jodoe"
    assert chitchat.mask(text, counts) == (
        "mail me at [email] call [phone], see [url] or [handle]".replace("[email]", "[email],")
    )
    assert dict(counts) == {"email": 1, "url": 1, "phone": 1, "handle": 1}


@pytest.mark.parametrize("text", ["I was there in 2018", "10 @ home :)", "e.g. this. ok", "3.14"])
def test_ordinary_text_is_not_masked(text):
    assert chitchat.mask(text, Counter()) == text


def test_a_pseudonym_holds_within_one_conversation_only():
    one, other = (chitchat.pseudonym(name, "user-1") for name in ("c1", "c2"))
    assert one != other
    assert one == chitchat.pseudonym("c1", "user-1") != chitchat.pseudonym("c1", "user-2")
    assert "user-1" not in one


@given(
    st.dictionaries(
        st.sets(st.sampled_from([f"u{i}" for i in range(30)]), min_size=2, max_size=2).map(
            frozenset
        ),
        st.integers(1, 20),
        min_size=20,
        max_size=80,
    ),
    st.integers(0, 3),
)
def test_no_user_is_in_two_splits_and_every_example_is_accounted_for(weights, seed):
    users = split_users(weights, fraction=0.1, seed=seed)
    kept = Counter()
    for pair, weight in weights.items():
        split = users.of(pair)
        assert split is None or all(users.split[user] == split for user in pair)
        kept[split] += weight
    assert kept[None] == users.lost
    assert sum(kept.values()) == sum(weights.values())
    shuffled = dict(reversed(weights.items()))
    assert split_users(shuffled, fraction=0.1, seed=seed) == users


def test_groups_that_hang_together_only_through_a_busy_user_lose_little():
    weights = {frozenset({"hub", f"g{g}u{i}"}): 1 for g in range(10) for i in range(4)}
    for g in range(10):
        for i in range(4):
            for j in range(i):
                weights[frozenset({f"g{g}u{i}", f"g{g}u{j}"})] = 10
    # The busiest five stay in train: the hub and four of one group.
    users = split_users(weights, fraction=0.1, seed=0)
    assert users.split["hub"] == "train"
    sizes = Counter(users.of(pair) for pair in weights for _ in range(weights[pair]))
    assert sizes["test"] >= 60
    assert sizes["valid"] >= 60
    assert users.lost <= 0.1 * sum(weights.values())
