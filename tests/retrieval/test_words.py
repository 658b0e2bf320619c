"""Typed queries: what is searched of a text, LanceDB's index on it, and the fusion of rankings."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.data import emoji_language
from int_ra_jax.data.emoji_names import in_language
from int_ra_jax.data.tokenizer import Tokenizer
from int_ra_jax.retrieval.words import (
    described,
    fused,
    in_memory,
    matches,
    reads,
    terms,
    terms_of,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crying-Cat_face", ["crying", "cat", "face"]),
        ("ＣＲＹＩＮＧ　cat", ["crying", "cat"]),
        ("don't!", ["don", "t"]),
        ("", []),
        ("!? ... 的了", []),
        ("猫", ["猫"]),
        ("我的猫", ["猫"]),
        ("café", ["café"]),
        ("cafe\u0301", ["café"]),
        ("ねこ", ["ねこ"]),
        ("にゃんこ", ["にゃ", "ゃん", "んこ"]),
        ("안녕 고양이", ["안녕", "고양이"]),
        ('"cat" AND (dog', ["cat", "and", "dog"]),
        ("\ud83d", []),
        ("cat\x00dog", ["cat", "dog"]),
    ],
)
def test_terms_of_a_text(text, expected):
    assert terms(text) == expected


def test_chinese_is_searched_by_word_and_by_character():
    assert {"哭泣", "哭", "泣", "猫"} <= set(terms("哭泣的猫"))
    assert "的" not in terms("哭泣的猫")


@pytest.mark.parametrize("written", ["😿", "❤️", "❤", "👋🏽", "🤷🏻‍♀️"])
def test_an_emoji_is_searched_by_its_names(written):
    found = terms(written)
    assert found
    assert any(term.isascii() for term in found)
    assert not all(term.isascii() for term in found)
    assert set(terms("😿")) >= {"crying", "cat", "猫"}


@settings(max_examples=30)
@given(st.text(max_size=30))
def test_any_text_has_terms_without_blanks(text):
    assert all(term and not term.isspace() and " " not in term for term in terms(text))


def test_what_is_said_twice_counts_once():
    found = terms_of(name="Cat", tags=("cat", "sad"), attributes={"facial": "sad cat"}, words=None)
    assert found == "cat sad"


def test_a_tower_reads_emoji_in_its_languages():
    asked = {"emoji": ("👋", "❤️"), "tags": ("hi ",), "attributes": {"gesture": "waving hand"}}
    assert described(**asked) == "waving hand, red heart, hi"
    assert described(**asked, languages=("zh",)) == "挥手, 红心, waving hand, hi"
    assert described() == ""


def test_a_tower_is_asked_only_in_a_language_that_it_reads(monkeypatch):
    """Which languages a tower reads is tested with the names of emoji; here, that it is asked."""
    english = Tokenizer.__new__(Tokenizer)
    heart = in_language("en").names["❤"]
    monkeypatch.setattr(emoji_language, "reads", lambda _, names: names.names["❤"] == heart)
    assert reads(english, "crying cat")
    assert reads(english, "?!")
    assert not reads(english, "猫 哭")


@pytest.fixture(scope="module")
def table():
    stickers = {
        "weeping": terms_of(emoji=("😿",), tags=("cats",)),
        "waving": terms_of(emoji=("👋",), words="再见啦"),
        "nothing": "",
        "button": terms_of(words="OK!"),
        "penguin": terms_of(name="企鹅", attributes={"posture": "waves its hands"}),
    }
    return in_memory(list(stickers), list(stickers.values()))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("crying cat", ["weeping"]),
        ("cries", ["weeping"]),
        ("the CAT's", ["weeping"]),
        ("猫 哭", ["weeping"]),
        ("wave", ["penguin", "waving"]),
        ("挥手", ["waving"]),
        ("再见", ["waving"]),
        ("ok", ["button"]),
        ("😿", ["weeping"]),
        ("the", []),
        ("的", []),
        ("zebra", []),
        ("", []),
        ('"cat* AND ) -ok', ["button", "weeping"]),
        ("cat " * 10_000, ["weeping"]),
    ],
)
def test_a_query_finds_what_has_its_words(table, query, expected):
    assert sorted(matches(table, query, 10)) == expected


def test_more_words_in_common_rank_higher_and_limits_hold(table):
    assert matches(table, "挥手 企鹅", 10)[0] in ("penguin", "waving")
    assert matches(table, "wave hand 再见", 10) == ["waving", "penguin"]
    assert matches(table, "wave hand 再见", 1) == ["waving"]


def test_the_index_follows_what_is_written_and_removed():
    table = in_memory(["old"], [terms_of(name="old owl")])
    table.add([{"id": "new", "terms": terms_of(name="猫头鹰 owl")}])
    assert sorted(matches(table, "owls", 5)) == ["new", "old"]
    table.delete("id = 'old'")
    assert matches(table, "owl", 5) == ["new"]
    table.optimize()
    assert matches(table, "猫头鹰", 5) == ["new"]


def test_an_empty_gallery_finds_nothing_until_something_is_put():
    table = in_memory([], [])
    assert matches(table, "owl", 5) == []
    table.add([{"id": "new", "terms": terms_of(name="owl")}])
    assert matches(table, "owls", 5) == ["new"]


def test_fusion_by_hand():
    found = fused([["a", "b", "c"], ["b", "d"]], constant=1.0)
    assert found == [
        ("b", pytest.approx(1 / 3 + 1 / 2)),
        ("a", pytest.approx(1 / 2)),
        ("d", pytest.approx(1 / 3)),
        ("c", pytest.approx(1 / 4)),
    ]
    assert fused([]) == fused([[], []]) == []


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.integers(0, 9), unique=True))
def test_what_both_rankings_agree_on_stays(one, other):
    found = [place for place, _ in fused([one, other])]
    assert set(found) == set(one) | set(other)
    assert [place for place, _ in fused([one, one])] == one
    assert [place for place, _ in fused([one, []])] == one
    shared = set(one) & set(other)
    for a, b in itertools.permutations(shared, 2):
        if one.index(a) < one.index(b) and other.index(a) < other.index(b):
            assert found.index(a) < found.index(b)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: fused([["a", "a"]]), "twice"),
        (lambda: fused([["a"]], constant=-1.0), "constant=-1"),
        (lambda: in_memory(["a"], []), "1 ids and 0 texts"),
    ],
)
def test_what_cannot_be_is_refused_in_clear_words(act, message):
    with pytest.raises(ValueError, match=message):
        act()
