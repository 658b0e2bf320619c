"""From what models say to what is kept: phrases, keywords, writing, answers in JSON."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.extraction.keywords import agree, keywords, settle_verbal, words
from data_prep.extraction.knowledge import MAX_PHRASE, clean_phrases, parse_answer
from data_prep.extraction.ocr import join_lines
from int_ra_jax.common.types import RELATIONS

REAL = Path(__file__).resolve().parents[3] / "../shared/data/comet_bart_social.jsonl"
SPOKEN = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=80)
COMET = st.sampled_from(
    [
        "none",
        "to call PersonY",
        "to call Person Y.",
        "happy",
        "happy.",
        "gets tired",
        "to",
        "is",
        "PersonX is thanked",
        "is thanked",
        "to take advantage of",
        "___ to go",
        "to be listened to",
    ]
)


@given(st.lists(COMET | SPOKEN, max_size=12), st.integers(1, 5))
def test_cleaning_twice_changes_nothing_and_keeps_the_models_order(raw, keep):
    clean = clean_phrases(raw, keep)
    assert clean_phrases(clean, keep) == clean and len(clean) <= keep
    assert all(0 < len(phrase) <= MAX_PHRASE and phrase == phrase.strip() for phrase in clean)
    assert len({phrase.casefold() for phrase in clean}) == len(clean)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (["none", "None.", " NONE ", "n/a", ""], ()),
        (["happy", "happy.", "Happy", "proud"], ("happy", "proud")),
        (["to call person y", "to call PersonY", "calls"], ("to call PersonY", "calls")),
        (["gets yelled at", "is yelled at", "PersonX gets yelled at"], ("gets yelled at",)),
        (["to show his love", "to show their love"], ("to show his love",)),
        (["to take advantage of", "to be listened to"], ("to be listened to",)),
        (["to go to the", "to", "is", "..."], ()),
        (["想去旅行", "无", "想去旅行。"], ("想去旅行",)),
        (["to buy ___", "xWant [GEN]"], ()),
    ],
)
def test_what_real_output_looks_like_is_cleaned(raw, clean):
    assert clean_phrases(raw, 5) == clean


def test_real_comet_output_keeps_three_distinct_phrases_almost_always():
    if not REAL.exists():
        pytest.skip("the real COMET-BART output is not beside the project")
    rows = [json.loads(line) for line in REAL.read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["relation"] in RELATIONS]
    cleaned = [clean_phrases(row["generations"], 3) for row in rows]
    assert not any(phrase.casefold() == "none" for phrases in cleaned for phrase in phrases)
    assert sum(len(phrases) == 3 for phrases in cleaned) > 0.95 * len(rows)


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("Waving, thumbs up.", "waving, thumbs up"),
        ("Gesture: waving; Pointing", "waving, pointing"),
        ("- waving\n- waving\n- clapping hands", "waving, clapping hands"),
        ("none", ""),
        ("None.", ""),
        ("There is no visible gesture in the image.", ""),
        ("I'm sorry, I can't determine that.", ""),
        ("No hands are visible", ""),
        ("smiling, none", "smiling"),
        ("无", ""),
        ("抱歉，我无法看到图片。", ""),
        ("手势：挥手、点赞", "挥手, 点赞"),
        ("```\nSitting, and relaxed\n```", "sitting, relaxed"),
        ("nose pinched, nonchalant", "nose pinched, nonchalant"),
        ("an essay " * 20, ""),
        (",\x85*0", "0"),  # a mark behind a control character that counts as a blank
        ("\"'and waving'\"", "waving"),
    ],
)
def test_a_reply_becomes_keywords(reply, kept):
    assert keywords(reply) == kept


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ('The sticker says "OK, fine!"', "OK, fine!"),
        ('"GOOD NIGHT"', "GOOD NIGHT"),
        ("Text: NO WAY", "NO WAY"),
        ("No", "No"),
        ("no text", ""),
        ("none", ""),
        ("There are no words on the sticker.", ""),
        ("不要啊", "不要啊"),
        ("没有文字", ""),
        ("?!", "?!"),
        ("I am unable to see any text", ""),
    ],
)
def test_a_reply_becomes_the_writing_as_it_is(reply, kept):
    assert words(reply) == kept


@given(SPOKEN)
def test_keywords_are_few_short_and_stable(reply):
    kept = keywords(reply)
    assert keywords(kept) == kept
    assert all(0 < len(one) <= 60 for one in kept.split(", ")) or kept == ""
    assert len(words(reply)) <= 200


@pytest.mark.parametrize(
    ("model", "ocr", "settled"),
    [
        ("GOOD NIGHT", "good nigth", ("GOOD NIGHT", "agree")),
        ("hello", "晚安", ("晚安", "differ")),
        ("hello", "", ("hello", "model_only")),
        ("", "晚安", ("晚安", "ocr_only")),
        ("", "", ("", "neither")),
    ],
)
def test_the_ocr_checks_the_models_reading(model, ocr, settled):
    assert settle_verbal(model, ocr) == settled


@given(SPOKEN)
def test_a_reading_agrees_with_itself(text):
    assert agree(text, text)


def test_lines_join_with_blanks_but_not_between_chinese_characters():
    assert join_lines(["GOOD", "NIGHT"]) == "GOOD NIGHT"
    assert join_lines(["晚安", "好梦", "OK"]) == "晚安好梦 OK"


GOOD = {relation: ["a phrase"] for relation in RELATIONS}


@given(SPOKEN, SPOKEN)
def test_one_object_is_found_in_whatever_stands_around_it(before, after):
    text = before.replace("{", "") + json.dumps(GOOD) + after.replace("}", "")
    assert parse_answer(text) == GOOD


@given(SPOKEN)
def test_any_answer_is_either_five_lists_or_a_reason(text):
    found = parse_answer(text)
    assert isinstance(found, str) and found


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("no", "no JSON object"),
        ("{'xIntent': []}", "not JSON"),
        (json.dumps({"xIntent": []}), "missing keys: xNeed, xWant, xEffect, xReact"),
        (json.dumps(GOOD | {"xAttr": []}), "unknown keys: xAttr"),
        (json.dumps(GOOD | {"xNeed": "a phrase"}), "xNeed is not a list of strings"),
        (json.dumps(GOOD | {"xNeed": [1]}), "xNeed is not a list of strings"),
        (json.dumps(GOOD | {"xWant": ["x"] * 11}), "xWant has 11 phrases; at most 10"),
        (json.dumps(GOOD | {"xReact": ["x" * 121]}), "longer than 120"),
        ("{" + "[" * 50_000 + "}", "more than"),
        ('{"a":' * 3_000 + "1" + "}" * 3_000, "not JSON"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(answer, reason):
    assert reason in str(parse_answer(answer))
