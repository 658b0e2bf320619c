"""Histories of the habits' benchmark: all earlier messages of a writer, never later ones."""

import gzip
import json

import pytest

from benchmarks import habits


@pytest.mark.parametrize("name", ["choices.jsonl", "choices.jsonl.gz"])
def test_a_history_is_what_a_writer_sent_before_the_newest_first(tmp_path, name):
    sent = [("bo", 1, "b"), ("ann", 2, "c"), ("bo", 0, "a"), ("bo", 2, "a")]
    path = tmp_path / name
    with (gzip.open if name.endswith("gz") else open)(path, "wt") as file:
        for user, order, emoji in sent:
            record = {"user": user, "order": order, "split": "train", "emoji": emoji}
            record |= {"turns": [{"text": "hello"}], "own_words": "hi" * (order == 1)}
            file.write(json.dumps(record) + "\n")
    choices, stickers = habits.read(path)
    assert stickers == 3
    found = [(one.user, one.sticker, one.recent, one.turns) for one in choices]
    assert found == [
        ("ann", 2, (), ("hello",)),
        ("bo", 0, (), ("hello",)),
        ("bo", 1, (0,), ("hello", "hi")),
        ("bo", 0, (1, 0), ("hello",)),
    ]
    assert habits.new_writers(choices) == {"ann"}
