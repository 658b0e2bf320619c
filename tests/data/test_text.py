"""Composition: the newest words are always there, the budgets hold, and text stays text."""

import itertools

import numpy as np
import pytest
import tokenizers
from fixtures.prepared import CUES, text_config
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import emoji_names
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn
from int_ra_jax.data.text import (
    Unread,
    compose_context,
    encode_attributes,
    encode_names,
    join_knowledge,
)

WORDS = sorted({word for texts in CUES.values() for text in texts for word in text.split()})
LITERALS = ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", "##s", "喵", "🙂", "é"]
# JSON records: the checked classes themselves are built in the tests, since the run-time checks
# draw random numbers, which hypothesis forbids inside strategies.
turns = st.lists(
    st.fixed_dictionaries(
        {
            "speaker": st.sampled_from(["ana", "ben", "cy", "[SEP]"]),
            "text": st.lists(st.sampled_from(WORDS + LITERALS), max_size=30).map(" ".join),
        }
    ),
    min_size=1,
    max_size=8,
).filter(lambda turns: any(turn["text"] for turn in turns))
phrases = st.lists(
    st.sampled_from(["none", "", "to be happy", "happy.", "Happy", "sad"]), max_size=4
)
records = st.fixed_dictionaries(
    {
        "id": st.just("c"),
        "split": st.just("train"),
        "turns": turns,
        "reply_speaker": st.sampled_from(["ana", "ben", "dan"]),
        "sticker": st.just("s"),
        "intention": st.just("joy"),
        "knowledge": st.none()
        | st.dictionaries(st.sampled_from(["xIntent", "xReact", "xWant"]), phrases),
    }
)
configs = st.builds(
    text_config,
    context_tokens=st.integers(10, 60),
    knowledge_tokens=st.integers(2, 20),
    speakers=st.sampled_from(["prefix", "off"]),
    knowledge=st.sampled_from(["append", "off"]),
)


def talk(*texts, reply="v", knowledge=None):
    listed = tuple(Turn("uv"[n % 2], text) for n, text in enumerate(texts))
    return Conversation("c", "train", listed, reply, "s", "joy", knowledge)


def words(tokenizer, tokens, row=0):
    """The row as its vocabulary entries, padding left out."""
    entries = {index: entry for entry, index in tokenizer._backend.get_vocab().items()}
    return [entries[i] for i in tokens.ids[row][tokens.mask[row]].tolist()]


@settings(max_examples=150, deadline=None)
@given(record=records, config=configs)
def test_newest_turn_is_present_and_the_budgets_hold(tiny_tokenizer, record, config):
    tokenizer, conversation = tiny_tokenizer, Conversation.from_json(record)
    tokens, (cut,) = compose_context(tokenizer, [conversation], config, has_knowledge=True)
    ids, mask, types = tokens.ids[0], tokens.mask[0], tokens.type_ids[0]
    length = config.context_tokens + config.knowledge_tokens * (config.knowledge == "append")
    assert ids.shape == (length,)
    # Real tokens first, the conversation before the knowledge, each within its budget.
    assert (np.diff(mask.astype(int)) <= 0).all()
    assert (np.diff(types[mask]) >= 0).all()
    assert (types[~mask] == 0).all()
    assert (ids[~mask] == tokenizer.pad_id).all()
    context, knowledge = ids[mask & (types == 0)].tolist(), ids[mask & (types == 1)].tolist()
    assert 2 <= len(context) <= config.context_tokens
    assert len(knowledge) <= config.knowledge_tokens
    assert context[0] == tokenizer.cls_id
    assert context.count(tokenizer.cls_id) == 1
    assert context[-1] == tokenizer.sep_id
    # One separator per segment: literal "[SEP]" in a message is not one.
    spoken = [turn for turn in conversation.turns if turn.text.strip()]
    kept = len(spoken) - cut.turns_dropped
    prefixed = config.speakers == "prefix"
    assert context.count(tokenizer.sep_id) == kept + prefixed
    assert kept >= 1
    # The last segment of a turn ends with the newest words.
    segments = split_at(context[1:], tokenizer.sep_id)
    newest = tokenizer.encode([spoken[-1].text])[0].ids
    said = segments[kept - 1]
    # Where it was cut within its last word but one, a single piece may be all that is left.
    shared = 1 if cut.newest_cut else len(newest)
    assert said[-shared:] == newest[-shared:]
    if knowledge:
        assert knowledge[-1] == tokenizer.sep_id
        assert knowledge.count(tokenizer.sep_id) == 1
    assert bool(knowledge) == (config.knowledge == "append" and bool(join_knowledge(conversation)))


@settings(max_examples=100, deadline=None)
@given(record=records, config=configs)
def test_turns_and_words_are_what_the_separators_say(tiny_tokenizer, record, config):
    tokenizer, conversation = tiny_tokenizer, Conversation.from_json(record)
    tokens, (cut,) = compose_context(tokenizer, [conversation], config, has_knowledge=True)
    kept = sum(bool(turn.text.strip()) for turn in conversation.turns) - cut.turns_dropped
    closed = 0
    for position, index in enumerate(tokens.ids[0].tolist()):
        said = tokens.mask[0, position] and tokens.type_ids[0, position] == 0 and position > 0
        turn = kept - closed if said and closed < kept else 0
        assert tokens.turn[0, position] == turn
        special = index in (tokenizer.cls_id, tokenizer.sep_id)
        assert tokens.words[0, position] == (tokens.mask[0, position] and not special)
        closed += index == tokenizer.sep_id


def test_the_newest_turn_has_number_1_with_its_speaker_and_its_separator(tiny_tokenizer):
    conversation = talk("good morning", "go on then", knowledge={"xReact": ("happy",)})
    tokens, _ = compose_context(tiny_tokenizer, [conversation], text_config(), True)
    # [CLS] a : good morning [SEP] b : go on then [SEP] b : [SEP] happy [SEP]
    assert tokens.turn[0][:15].tolist() == [0, *[2] * 5, *[1] * 6, *[0] * 3]
    assert not tokens.turn[0][15:].any()
    special = np.flatnonzero(tokens.mask[0] & ~tokens.words[0])
    assert special.tolist() == [0, 5, 11, 14, int(tokens.mask[0].sum()) - 1]


def split_at(ids, separator):
    groups = itertools.groupby(ids, key=lambda value: value == separator)
    return [list(group) for is_separator, group in groups if not is_separator]


@settings(max_examples=40, deadline=None)
@given(batch=st.lists(records, min_size=1, max_size=4), config=configs)
def test_a_conversation_alone_equals_itself_in_a_batch(tiny_tokenizer, batch, config):
    batch = [Conversation.from_json(record) for record in batch]
    together, unread = compose_context(tiny_tokenizer, batch, config, has_knowledge=True)
    counts = []
    for row, conversation in enumerate(batch):
        alone, (cut,) = compose_context(tiny_tokenizer, [conversation], config, has_knowledge=True)
        np.testing.assert_array_equal(alone.ids[0], together.ids[row])
        np.testing.assert_array_equal(alone.type_ids[0], together.type_ids[row])
        counts.append(cut)
    assert counts == unread
    assert Unread.from_array(Unread.together(counts).to_array()) == Unread.together(unread)


def test_composition_reads_as_equation_3(tiny_tokenizer):
    knowledge = {"xReact": ("happy", "none"), "xIntent": ("to feel joy",)}
    conversation = talk("good morning", "go on then", knowledge=knowledge)
    tokens, _ = compose_context(
        tiny_tokenizer, [conversation], text_config(knowledge_tokens=20), True
    )
    expected = "[CLS] a : good morning [SEP] b : go on then [SEP] b : [SEP] to feel joy ; "
    row = words(tiny_tokenizer, tokens)
    assert " ".join(row).startswith(expected)
    assert row[-1] == "[SEP]"
    plain = text_config(speakers="off", knowledge="off")
    tokens, _ = compose_context(tiny_tokenizer, [conversation], plain, True)
    assert " ".join(words(tiny_tokenizer, tokens)) == "[CLS] good morning [SEP] go on then [SEP]"


def test_names_of_users_never_reach_the_model(tiny_tokenizer):
    turns_ = [Turn(name, "good morning") for name in ("ana", "ben", "ana")]
    renamed = [Turn(name, "good morning") for name in ("x1", "x2", "x1")]
    rows = [
        compose_context(
            tiny_tokenizer, [Conversation("c", "train", tuple(t), r, "s", "joy")], c, True
        )
        for t, r in ((turns_, "ben"), (renamed, "x2"))
        for c in [text_config()]
    ]
    np.testing.assert_array_equal(rows[0][0].ids, rows[1][0].ids)


def test_the_27th_speaker_is_aa(tiny_tokenizer):
    crowd = tuple(Turn(f"user {n}", "really") for n in range(27))
    conversation = Conversation("c", "train", crowd, "user 26", "s", "joy")
    tokens, _ = compose_context(
        tiny_tokenizer, [conversation], text_config(context_tokens=300), True
    )
    row = " ".join(words(tiny_tokenizer, tokens))
    assert row.endswith("[SEP] z : really [SEP] a ##a : really [SEP] a ##a : [SEP]")


def test_oldest_turns_go_first_and_a_long_newest_turn_keeps_its_end(tiny_tokenizer):
    old, middle, new = "we won the match today", "tell me more", "wait what"
    config = text_config(context_tokens=17)
    tokens, (cut,) = compose_context(tiny_tokenizer, [talk(old, middle, new)], config, False)
    assert cut == Unread(conversations=1, turns_dropped=1, tokens=5, letters=16)
    row = " ".join(words(tiny_tokenizer, tokens))
    assert row == "[CLS] b : tell me more [SEP] a : wait what [SEP] b : [SEP]"
    long = " ".join(["good morning"] * 20) + " wait what"
    tokens, (cut,) = compose_context(
        tiny_tokenizer, [talk(old, long)], text_config(context_tokens=12), False
    )
    assert cut == Unread(conversations=1, turns_dropped=1, newest_cut=1, tokens=42, letters=228)
    row = words(tiny_tokenizer, tokens)
    assert row[:3] == ["[CLS]", "b", ":"]
    assert row[-6:] == ["wait", "what", "[SEP]", "b", ":", "[SEP]"]
    assert len(row) == 12


def test_unknown_tokens_are_counted_where_they_are_read(tiny_tokenizer):
    spoken = talk("dropped 喵 turn", "so 喵 good喵", "喵 morning", knowledge={"xWant": ("猫",)})
    _, (unread,) = compose_context(tiny_tokenizer, [spoken], text_config(context_tokens=24), True)
    assert unread.turns_dropped == 1
    # Chinese characters are words of their own.
    assert unread.tokens == 4 + 2 + 1
    assert unread.unknown == {"喵": 3, "猫": 1}
    told = Unread.together([unread, unread]).notes("keep")["tokens unknown to the text tower"]
    assert told == "8 of 14 (57.1%): 喵 (6), 猫 (2)"
    assert Unread().notes("keep")["tokens unknown to the text tower"] == "0 of 0 (0.0%)"


def test_a_vocabulary_that_spells_latin_words_is_told(tiny_tokenizer):
    said = "we won the match today"
    letters = {letter: 1000 + number for number, letter in enumerate(sorted({*said}))}
    backend = tokenizers.Tokenizer(models.WordLevel(letters, unk_token=" "))
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    code = backend.encode(said)
    tokens, (latin, spelt) = len(code.ids), tiny_tokenizer.latin(said, code)
    assert (tokens, latin, spelt) == (len(said), 16, 18)
    named = tiny_tokenizer.with_emoji(emoji_names.EmojiNames({"😂": "laughing"}))
    (code,) = named.encode(["😂😂 a 喵"])
    assert named.latin("😂😂 a 喵", code)[0] == len("laughing")
    key = "words spelt letter by letter"
    assert (
        "--scripts=LATIN" in Unread(1, tokens=tokens, letters=latin, spelt=spelt).notes("keep")[key]
    )
    _, (unread,) = compose_context(tiny_tokenizer, [talk(said, "i a 喵")], text_config(), False)
    assert key not in unread.notes("keep") and key not in Unread().notes("keep")


def test_unknown_emoji_are_told_with_the_switch_that_names_them(tiny_tokenizer):
    _, (unread,) = compose_context(tiny_tokenizer, [talk("good😭😭")], text_config(), False)
    assert unread.unknown == {"good😭😭": 1}
    key, hint = "tokens unknown to the text tower", "--config.text.emoji=words"
    assert hint in unread.notes("keep")[key] and hint not in unread.notes("words")[key]


def test_a_cut_turn_begins_with_a_whole_word(tiny_tokenizer):
    spelt = "morningmorning " * 9  # each several pieces long
    for budget in range(12, 24):
        config = text_config(context_tokens=budget, speakers="off")
        tokens, _ = compose_context(tiny_tokenizer, [talk(spelt)], config, False)
        assert not words(tiny_tokenizer, tokens)[1].startswith("##")


def test_knowledge_is_cut_on_its_own_budget(tiny_tokenizer):
    knowledge = {"xWant": tuple(f"to feel {name}" for name in CUES)}
    with_knowledge = talk("good morning", knowledge=knowledge)
    config = text_config(knowledge_tokens=6)
    tokens, (cut,) = compose_context(tiny_tokenizer, [with_knowledge], config, True)
    assert cut.knowledge_cut == 1
    assert tokens.type_ids[0].sum() == 6
    bare, _ = compose_context(tiny_tokenizer, [talk("good morning")], config, True)
    width = config.context_tokens
    first = tokens.ids[0][tokens.mask[0] & (tokens.type_ids[0] == 0)]
    np.testing.assert_array_equal(first, bare.ids[0][bare.mask[0]])
    assert bare.ids.shape == (1, width + 6)
    assert compose_context(tiny_tokenizer, [bare_talk()], config, False)[0].ids.shape == (1, width)


def bare_talk():
    return talk("good morning")


def test_knowledge_is_cleaned_and_in_the_order_of_the_relations():
    knowledge = {
        "xReact": ("Happy.", "happy", "none"),
        "xIntent": ("none", "", " to help "),
        "xWant": ("To  help", "to rest", "None."),
    }
    assert join_knowledge(talk("x", knowledge=knowledge)) == "to help; to rest; Happy."
    assert join_knowledge(talk("x", knowledge={"xReact": ("none",)})) == ""
    assert join_knowledge(talk("x")) == ""


def test_impossible_settings_are_refused_with_the_smallest_that_works(tiny_tokenizer):
    with pytest.raises(ValueError, match="Use at least 8"):
        compose_context(
            tiny_tokenizer, [talk("go on", "go on")], text_config(context_tokens=5), True
        )
    compose_context(tiny_tokenizer, [talk("go on", "go on")], text_config(context_tokens=8), True)
    with pytest.raises(ValueError, match="3 or more"):
        encode_names(tiny_tokenizer, ["joy"], 2)


def test_attributes_are_encoded_once_each_and_empty_ones_are_masked(tiny_tokenizer):
    def sticker(*values):
        return StickerEntry("s", "images/s.png", dict(zip(ATTRIBUTES, values, strict=True)))

    gallery = [sticker("waving", "", "joy", " "), sticker("", "", "joy", "waving")]
    tokens, index, mask = encode_attributes(tiny_tokenizer, gallery, 6)
    np.testing.assert_array_equal(mask, [[1, 0, 1, 0], [0, 0, 1, 1]])
    assert tokens.ids.shape == (2, 6)
    assert index[0, 2] == index[1, 2]
    assert index[0, 0] == index[1, 3]
    np.testing.assert_array_equal(
        tokens.ids[index[1, 2]], encode_names(tiny_tokenizer, ["joy"], 6).ids[0]
    )
    nothing, index, mask = encode_attributes(tiny_tokenizer, [sticker("", "", "", "")], 6)
    assert not mask.any()
    assert nothing.mask.any(axis=-1).all()  # no row is fully masked
    assert words(tiny_tokenizer, nothing) == ["[CLS]", "[SEP]"]


def test_names_lose_their_end_not_their_frame(tiny_tokenizer):
    tokens = encode_names(tiny_tokenizer, ["joy", "good morning we won the match"], 5)
    assert tokens.ids[:, 0].tolist() == [tiny_tokenizer.cls_id] * 2
    assert words(tiny_tokenizer, tokens, 1) == ["[CLS]", "good", "morning", "we", "[SEP]"]
    assert words(tiny_tokenizer, tokens, 0)[-1] == "[SEP]"
