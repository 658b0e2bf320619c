"""StickerInt's rows as conversations, and what a sticker keeps of them."""

import json
from pathlib import Path

import pytest
from fuzz import releases
from hypothesis import given
from hypothesis import strategies as st

from data_prep.formats.importing import import_published
from data_prep.formats.stickerint import SEPARATOR, parse_text
from data_prep.problems import BadInputError
from int_ra_jax.data.validation import read_prepared

REAL = Path(__file__).parents[4] / "shared" / "data" / "stickerint_zh"
TURN = st.text(
    st.characters(exclude_characters="\t[", exclude_categories=["Cs"]), min_size=1
).filter(str.strip)


def imported(tmp_path, rows=None, **options):
    source = releases.stickerint(tmp_path / "in", rows)
    import_published("stickerint", source, tmp_path / "out", **options)
    return read_prepared(tmp_path / "out")


def stickers(prepared):
    return {sticker.id: sticker for sticker in prepared.stickers}


@given(st.lists(TURN, min_size=1, max_size=5))
def test_turns_come_back_from_the_grammar_stripped_and_in_order(turns):
    text = "".join(f"\t{turn}{SEPARATOR}" for turn in turns)
    assert parse_text(text) == (tuple(turn.strip() for turn in turns), "", "")


@given(st.text(alphabet="\t[SEP]ab "))
def test_no_turn_holds_a_separator_or_is_blank_whatever_the_text(text):
    for turn in parse_text(text).turns:
        assert turn == turn.strip() != ""
        assert "\t" not in turn
        assert SEPARATOR not in turn


def test_words_outside_the_grammar_are_no_turn_but_stay_in_the_legacy_text(tmp_path):
    text = "lost[SEP]\tkept[SEP]reply"
    prepared = imported(tmp_path, {"train": [releases.row("train", 0, text=text)]})
    (conversation,) = prepared.conversations["train"]
    assert [turn.text for turn in conversation.turns] == ["kept"]
    assert conversation.extra["legacy_text"] == text


def test_only_the_replier_is_named_since_the_rows_name_nobody_else(tmp_path):
    conversation = imported(tmp_path).conversations["train"][1]
    assert {turn.speaker for turn in conversation.turns} == {"unknown"}
    assert conversation.reply_speaker == "User1"


def test_a_row_with_several_stickers_becomes_one_conversation_each(tmp_path):
    row = releases.row("train", 7, image_ids=["boba_0", "boba_2"])
    prepared = imported(tmp_path, {"train": [row]})
    found = [(one.id, one.sticker) for one in prepared.conversations["train"]]
    assert found == [("train-7-boba_0", "boba_0"), ("train-7-boba_2", "boba_2")]


def test_a_sticker_keeps_all_intentions_of_train_and_none_of_the_other_splits(tmp_path):
    def used(split, *names):
        members = enumerate(names)
        return [
            releases.row(split, n, image_ids=["boba_0"], fined_intent=name) for n, name in members
        ]

    rows = {"train": used("train", "joy", "anger"), "test": used("test", "sadness")}
    prepared = imported(tmp_path, rows)
    assert stickers(prepared)["boba_0"].intentions == ("anger", "joy")
    assert [one.intention for one in prepared.conversations["test"]] == ["sadness"]
    assert all(not stickers(prepared)[f"boba_{n}"].intentions for n in (1, 2, 3))


def test_attributes_are_what_most_rows_of_train_say(tmp_path):
    def described(split, *keywords):
        return [
            releases.row(split, n, image_ids=["boba_0"], keyword=keyword)
            for n, keyword in enumerate(keywords)
        ]

    rows = {
        "train": described("train", "a,,,", "b,,,", "b,,,"),
        "test": described("test", *["c,,,"] * 5),
    }
    assert stickers(imported(tmp_path, rows))["boba_0"].attributes["gesture"] == "b"


def test_a_keyword_may_be_an_object(tmp_path):
    row = releases.row("train", 0, keyword={"verbal": " 你好 ", "gesture": "wave"})
    attributes = stickers(imported(tmp_path, {"train": [row]}))["boba_0"].attributes
    assert attributes == {"gesture": "wave", "posture": "", "facial": "", "verbal": "你好"}


@pytest.mark.parametrize(
    ("comet", "knowledge"),
    [
        ("to laugh[SEP] [SEP]to cry", {"xIntent": ("to laugh", "to cry")}),
        ({"xReact": "glad", "xWant": ["a", " b "]}, {"xReact": ("glad",), "xWant": ("a", "b")}),
        ("", None),
        ({}, None),
    ],
)
def test_comet_becomes_knowledge(comet, knowledge, tmp_path):
    prepared = imported(tmp_path, {"train": [releases.row("train", 0, comet=comet)]})
    assert prepared.conversations["train"][0].knowledge == knowledge


def test_a_foreign_key_never_replaces_one_of_the_schema(tmp_path):
    foreign = {
        "id": "x",
        "split": "test",
        "sticker": 3,
        "turns": [],
        "knowledge": 1,
        "colour": "red",
    }
    prepared = imported(tmp_path, {"train": [releases.row("train", 0) | foreign]})
    (conversation,) = prepared.conversations["train"]
    assert (conversation.split, conversation.sticker) == ("train", "boba_0")
    assert conversation.extra["source_split"] == "test"
    assert conversation.extra["colour"] == "red"


def test_rows_without_the_optional_fields_are_taken(tmp_path):
    row = releases.row("train", 0)
    least = {key: row[key] for key in ("image_ids", "text", "fined_intent")}
    (conversation,) = imported(tmp_path, {"train": [least]}).conversations["train"]
    assert conversation.id == "train-line1-boba_0"
    assert conversation.reply_speaker == "replier"


def leaking():
    texts = ("same in all", "train only", "train and valid")
    same, own, both = (f"\t{text}[SEP]" for text in texts)
    return {
        "train": [releases.row("train", n, text=text) for n, text in enumerate((same, own, both))],
        "valid": [releases.row("valid", n, text=text) for n, text in enumerate((same, both))],
        "test": [releases.row("test", 0, text=same), releases.row("test", 1, text=same)],
    }


def test_a_text_in_two_splits_is_refused_with_both_places(tmp_path):
    with pytest.raises(BadInputError) as error:
        imported(tmp_path, leaking())
    assert error.value.total == 3
    first = "test_contexts_total_key.jsonl:1 of split 'test'"
    assert f"train_contexts_total_key.jsonl:1: same text as {first}" in str(error.value)


def test_dropping_leaks_keeps_test_and_then_valid_and_counts_the_rest(tmp_path):
    prepared = imported(tmp_path, leaking(), leaks="drop")
    counts = {split: len(kept) for split, kept in prepared.conversations.items()}
    assert counts == {"train": 1, "valid": 1, "test": 2}
    assert prepared.info["left_out"] == {
        "train: text also in test": 1,
        "train: text also in valid": 1,
        "valid: text also in test": 1,
    }


def test_the_intention_of_a_dropped_row_does_not_stay_with_its_sticker(tmp_path):
    rows = leaking()
    rows["train"][0] |= {"image_ids": ["boba_3"], "fined_intent": "sadness"}
    assert stickers(imported(tmp_path, rows, leaks="drop"))["boba_3"].intentions == ()


def test_real_files_of_this_shape_are_imported_whole(tmp_path):
    if not REAL.is_dir():
        pytest.skip("the Chinese sample files lie beside a development checkout only")
    import_published("stickerint", REAL, tmp_path / "out")
    written = (tmp_path / "out" / "conversations.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in written]
    for split in ("train", "valid", "test"):
        kept = [record for record in records if record["split"] == split]
        lines = (REAL / f"{split}_contexts_total_key.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(kept) == len(rows)
        for record, row in zip(kept, rows, strict=True):
            said = [part.strip() for part in row["text"].split("[SEP]")[:-1]]
            assert [turn["text"] for turn in record["turns"]] == said
            assert [record["sticker"]] == row["image_ids"]
    counts = json.loads((tmp_path / "out" / "dataset.json").read_text())["files"]
    assert counts["conversations.jsonl"]["count"] == 1675
    assert counts["images"]["count"] == counts["stickers.jsonl"]["count"] == 341
    assert counts["intentions.txt"]["count"] == 12
