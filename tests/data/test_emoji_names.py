"""Emoji by their names: a sequence is one name, text that is no emoji stays as it is."""

import json

import emoji
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from int_ra_jax.common import process_memory
from int_ra_jax.data import emoji_language, emoji_names
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.emoji_names import EmojiNames
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.data.tokenizer import load_tokenizer, train_wordpiece
from int_ra_jax.training import create

ENGLISH = emoji_names.in_language("en")
GERMAN = {
    "😭": "heulendes Gesicht",
    "❤": "rotes Herz",
    "👍": "Daumen hoch",
    "👍🏽": "Daumen braun",
}


def worded(text, names=ENGLISH):
    return " ".join(names.to_words(text).split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("so good😭!", "so good loudly crying face !"),
        ("早😭安", "早 loudly crying face 安"),
        # skin tones, families, mixed tones, professions
        ("👍🏽", "thumbs up medium skin tone"),
        ("👍👍🏽", "thumbs up thumbs up medium skin tone"),
        ("👩‍👩‍👧‍👦", "family woman woman girl boy"),
        ("👩🏽‍🚀", "woman astronaut medium skin tone"),
        # with and without the selector of a drawing in colour or in black
        ("❤️ and ❤ and ❤︎", "red heart and red heart and red heart"),
        ("👁️‍🗨️", "eye in speech bubble"),
        ("👁‍🗨", "eye in speech bubble"),
        ("🏳️‍🌈", "rainbow flag"),
        # flags: two letters each, of a region, with no name, with one after one that has none
        ("🇫🇷🇩🇪", "France Germany"),
        ("🇽🇽", "🇽🇽"),
        ("🇽🇫🇷🇩", "🇽🇫🇷🇩"),
        ("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "England"),
        ("🏴\U000e0075\U000e0073\U000e0074\U000e0078\U000e007f", "black flag"),
        # keycaps, and digits that are none
        ("1️⃣ of 12 #️⃣ 3⃣", "keycap 1 of 12 keycap # keycap 3"),
        # a row of one is named once, different ones each
        ("😂😂 😂\n😂", "face with tears of joy"),
        ("😂 ha 😂", "face with tears of joy ha face with tears of joy"),
        ("😂😭😂", "face with tears of joy loudly crying face face with tears of joy"),
        # a sequence that has no name is named by its parts
        ("👩‍🦠", "woman microbe"),
        # text that is no emoji: joiners inside words, symbols, faces of characters
        ("می‌خواهم", "می‌خواهم"),
        ("क्‍ष ♡ (╥﹏╥) ツ :)", "क्‍ष ♡ (╥﹏╥) ツ :)"),
        ("\U000f0000", "\U000f0000"),
        ("", ""),
    ],
)
def test_a_sequence_is_one_name(text, words):
    assert worded(text) == words


def test_every_emoji_of_the_package_has_exactly_its_own_name():
    wrong = [
        one
        for one, data in emoji.EMOJI_DATA.items()
        if worded(one) != " ".join(data["en"].strip(":").replace("_", " ").split())
    ]
    assert not wrong


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=20))
def test_what_has_no_name_stays(text):
    if not emoji.emoji_count(text) and not {"\ufe0e", "\ufe0f"} & set(text):
        assert ENGLISH.to_words(text) == text


@pytest.mark.parametrize("language", emoji_names.languages())
def test_every_language_has_the_same_sequences(language):
    names = emoji_names.in_language(language).names
    assert names.keys() == ENGLISH.names.keys()
    assert all(name and not {":", "_"} & {name[0], name[-1]} for name in names.values())


def test_a_table_of_ones_own_is_kept_beside_the_tokenizer(tmp_path):
    texts = ["heulendes gesicht rotes herz daumen hoch", "so ist es"]
    train_wordpiece(texts, tmp_path / "bare", 300)
    tokenizer = load_tokenizer(str(tmp_path / "bare"))
    assert tokenizer.emoji is None
    sad, hearts = (tokenizer.encode([text])[0].ids for text in ("so 😭", "so ❤️"))
    assert sad == hearts  # the fault: each is [UNK]
    bare, tokenizer = tokenizer, tokenizer.with_emoji(EmojiNames(GERMAN))
    assert bare.emoji is None  # it may be another run's in the same process
    wanted = tokenizer.encode(["so heulendes gesicht", "so rotes herz"])
    tokenizer.save(tmp_path / "kept")
    for copy in (tokenizer, load_tokenizer(str(tmp_path / "kept"))):
        read = copy.encode(["so 😭😭", "so❤"])
        assert [code.ids for code in read] == [code.ids for code in wanted]
        assert copy.unknown("so 😭 🙃", copy.encode(["so 😭 🙃"])[0]) == ["🙃"]
    assert worded("👍👍🏽", EmojiNames(GERMAN)) == "Daumen hoch Daumen braun"


def test_runs_of_one_process_share_a_tokenizer_only_where_they_read_emoji_alike(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(process_memory, "_kept", {})
    train_wordpiece(["rotes herz"], tmp_path / "source", 300)
    source = load_tokenizer(str(tmp_path / "source"))
    for name, names in (("bare", None), ("worded", EmojiNames(GERMAN)), ("again", None)):
        source.with_emoji(names).save(tmp_path / name)
    bare, worded, again = (
        load_tokenizer(str(tmp_path / name)) for name in ("bare", "worded", "again")
    )
    assert again is bare and bare.emoji is None
    assert worded.emoji.names == GERMAN


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"a": 1}', '{"": "a"}', '{"a": "b"', "[" * 9999]
)
def test_a_damaged_table_is_refused(tmp_path, content):
    (tmp_path / emoji_names.FILE).write_text(content)
    with pytest.raises(ValueError, match=r"cannot read .*emoji\.json.*fetch it again"):
        emoji_names.load(tmp_path)


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["早上好", "ok!"], "zh"),
        (["今日はいい天気ですね"], "ja"),
        (["안녕하세요 ok"], "ko"),
        (["привет как дела"], "ru"),
        (["صباح الخير"], "ar"),
        (["guten Morgen 早"], "en"),
        (["123 😂"], "en"),
        ([], "en"),
    ],
)
def test_letters_tell_the_language(texts, language):
    assert emoji_language.of_letters(texts) == language


def dataset(language, text):
    info = {"name": "chats"} if language is None else {"name": "chats", "language": language}
    chat = Conversation("c", "train", (Turn("ann", text),), "bo", "s", "joy")
    metadata = {"content_hash": "0", "intentions": [], "has_knowledge": False, "info": info}
    return Dataset({"train": [{"conversation": json.dumps(chat.to_json())}]}, [], metadata)


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Two vocabularies: one of English words, one of Chinese characters as well."""
    root = tmp_path_factory.mktemp("towers")
    english = list(ENGLISH.names.values())
    chinese = list(emoji_names.in_language("zh").names.values())
    train_wordpiece(english, root / "en", 3000)
    train_wordpiece([*english, *chinese], root / "both", 6000)
    return {name: load_tokenizer(str(root / name)) for name in ("en", "both")}


@pytest.mark.parametrize(
    ("tower", "language", "text", "name"),
    [
        ("both", "zh", "", "放声大哭"),
        ("both", "zh-Hant-TW", "", "放声大哭"),
        ("both", None, "早上好", "放声大哭"),
        ("both", "xx", "早上好", "放声大哭"),
        ("both", ["zh"], "hello", "loudly crying face"),
        ("both", "en", "早上好", "loudly crying face"),
        ("en", "zh", "早上好", "loudly crying face"),  # the tower could not read it
        ("en", "de", "", "loudly crying face"),  # it would spell it out
        (None, "de_AT", "", "heulendes gesicht"),  # it will learn it
    ],
)
def test_the_names_are_in_a_language_that_the_tower_reads(towers, tower, language, text, name):
    found = emoji_language.names_for(dataset(language, text), towers.get(tower))
    assert found.names["😭"] == name


def test_a_run_goes_on_with_the_names_it_began_with(tmp_path, towers):
    config = ConfigDict({"text": {"emoji": "words"}})
    chats = dataset("en", "hello")
    assert create._emoji(config, chats, tmp_path, towers["en"]).names == ENGLISH.names
    (tmp_path / emoji_names.FILE).write_text(json.dumps(GERMAN))  # of another package's version
    assert create._emoji(config, chats, tmp_path, towers["en"]).names == GERMAN
    config.text.emoji = "keep"
    assert create._emoji(config, chats, tmp_path, towers["en"]) is None
