"""The lexicon reads what a person read, and leaves alone what it cannot decide."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.embedded.reaction_lexicon import FILLERS, GOEMOTIONS, RULES, UNDECIDED
from data_prep.embedded.reactions import (
    MIN_OWN_WORDS,
    asks,
    read_reaction,
    split_reaction,
    tokenise,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "reaction_judgements.jsonl"
JUDGEMENTS = [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()]
CORRECT = [row for row in JUDGEMENTS if row["correct"]]


@pytest.mark.parametrize("row", CORRECT, ids=lambda row: row["reaction"][:30])
def test_reactions_judged_correct_keep_their_intention(row):
    found = read_reaction(row["reaction"])
    assert found is not None
    assert found.intention == row["intention"]


@pytest.mark.parametrize(
    "row", [row for row in JUDGEMENTS if row.get("fixed")], ids=lambda row: row["reaction"]
)
def test_reactions_once_read_wrongly_are_not_read_so_again(row):
    found = read_reaction(row["reaction"])
    assert found is None or found.intention != row["intention"]


@pytest.mark.parametrize("case", ["alone", "supplement"])
def test_at_least_nine_of_ten_reactions_drawn_at_random_were_judged_correct(case):
    drawn = [row for row in JUDGEMENTS if row["case"] == case and "id" in row]
    assert len(drawn) == 100
    assert sum(row["correct"] for row in drawn) >= 90


def test_the_misses_that_were_read_carry_the_lexicon_s_label():
    path = GOLDEN.with_name("miss_judgements.jsonl")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 50
    for row in rows:
        found = read_reaction(row["reaction"])
        assert found is not None and found.intention == row["intention"]
    # the figures of docs/tables/misses.md
    assert sum(not row["label_correct"] for row in rows) == 5
    assert sum(row["answer_fits"] for row in rows) == 30


@given(
    st.sampled_from(CORRECT),
    st.sampled_from([str.upper, str.lower, str.title, lambda text: f"  {text} !! "]),
)
def test_case_space_and_exclamation_do_not_change_the_intention(row, change):
    text = row["reaction"]
    # ":P" and "xD" are told from words by their case, and "?!" is not "?".
    if "?" in text or any(token.text.startswith("<") for token in tokenise(text)):
        return
    found = read_reaction(change(text))
    assert found is not None
    assert found.intention == row["intention"]


@given(st.sampled_from(["so cool", "wow", "thanks", "yummy", "sorry", "nice"]), st.data())
def test_stretching_a_vowel_does_not_change_the_intention(text, data):
    places = [place for place, letter in enumerate(text) if letter in "aeiouy"]
    place = data.draw(st.sampled_from(places))
    times = data.draw(st.integers(min_value=3, max_value=9))
    stretched = text[:place] + text[place] * times + text[place + 1 :]
    assert read_reaction(stretched).intention == read_reaction(text).intention


@given(st.sampled_from(CORRECT), st.sampled_from(["giraffe", "Tuesday", "homework"]))
def test_a_word_outside_the_lexicon_makes_a_message_no_reaction(row, word):
    assert read_reaction(f"{row['reaction']} {word}") is None


@given(st.text(max_size=60))
def test_any_text_is_read_without_failing(text):
    for found in (read_reaction(text), split_reaction(text)):
        if found is not None:
            assert found.intention in GOEMOTIONS


@given(st.sampled_from(["Haha", "Oh wow!", "That's awesome,", "Thanks!", "Oh no..."]))
def test_an_opening_reaction_is_parted_from_the_own_words(opening):
    found = split_reaction(f"{opening} did you go there alone?")
    assert found.own_words == "did you go there alone?"
    assert found.text.startswith(opening.rstrip("!,."))
    assert found.intention == read_reaction(opening).intention


def test_only_reactions_that_close_a_message_are_taken_at_its_end():
    thanks = split_reaction("I'm doing pretty well today, thanks!")
    assert (thanks.intention, thanks.own_words) == ("gratitude", "I'm doing pretty well today")
    assert split_reaction("We saw the new one yesterday, awesome!") is None


def test_own_words_are_never_shorter_than_a_few_words():
    assert MIN_OWN_WORDS == 3
    assert split_reaction("Haha you did?") is None
    assert split_reaction("thanks for asking me about it") is None


@pytest.mark.parametrize(
    ("text", "intention"),
    [
        ("haha thanks", "gratitude"),
        ("wow that's so sad", "sadness"),
        ("aww that's so cute", "love"),
        ("lol no way", "surprise"),
        ("hahaha :)", "amusement"),
    ],
)
def test_the_strongest_phrase_decides(text, intention):
    assert read_reaction(text).intention == intention


@pytest.mark.parametrize("text", ["that's so cool, gross", "yay, gross", "oh man", "ok so", "yeah"])
def test_what_people_would_read_differently_is_left_alone(text):
    assert read_reaction(text) is None


def test_a_confused_what_is_not_an_astonished_what():
    assert read_reaction("what?").intention == "confusion"
    assert read_reaction("WHAT?!").intention == "surprise"
    assert read_reaction("whaaaat").intention == "surprise"


def test_words_that_may_answer_a_question_are_marked():
    assert read_reaction("awesome").answer
    assert read_reaction("haha yes").answer
    assert not read_reaction("thanks so much").answer


def test_laughter_after_a_question_mark_leaves_it_a_question():
    assert asks("you got a plus one? hah")
    assert asks("really?? :)")
    assert not asks("what? I see.")
    assert not asks("")


def test_every_rule_names_an_intention_and_matches_no_empty_text():

    for rule in RULES:
        assert rule.intention in {*GOEMOTIONS, UNDECIDED}
        assert not re.fullmatch(rule.pattern, "")
    assert not FILLERS.match("")
