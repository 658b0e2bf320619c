"""A batch is a function of (seed, step); nothing is counted twice; nothing leaks into training."""

import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from fixtures.prepared import text_config

from int_ra_jax.data import images
from int_ra_jax.data.batches import compose_split, eval_batches, make_batches, measure
from int_ra_jax.data.gallery import gallery_bank, relevance_annotations, training_texts
from int_ra_jax.data.text import compose_context


@pytest.fixture
def batches(tiny_source, tiny_tokenizer):
    def take(count, **options):
        settings = {"split": "train", "batch_size": 4, "seed": 0, "text": text_config()}
        settings |= options
        stream = make_batches(tiny_source, tiny_tokenizer, **settings)
        return list(itertools.islice(stream, count))

    return take


def assert_equal(first, second):
    assert first.valid.all()
    assert second.valid.all()
    for name in ("sticker", "intention", "example"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("ids", "mask", "type_ids", "turn", "words"):
        np.testing.assert_array_equal(
            getattr(first.context, name), getattr(second.context, name), name
        )


def test_a_stream_started_late_continues_one_started_at_zero(batches):
    from_start = batches(9)
    for start in (1, 4, 7):
        for first, second in zip(batches(2, start_step=start), from_start[start:], strict=False):
            assert_equal(first, second)


def test_a_very_late_start_costs_nothing(batches):
    (batch,) = batches(1, start_step=10**12)
    assert batch.example.shape == (4,)


@pytest.mark.parametrize("batch_size", [3, 4, 5, 16, 40])
def test_each_epoch_is_a_permutation_and_no_two_are_alike(batches, tiny_source, batch_size):
    size = tiny_source.size("train")
    steps = -(-3 * size // batch_size)
    rows = np.concatenate([b.example for b in batches(steps, batch_size=batch_size)])
    epochs = rows[: 3 * size].reshape(3, size)
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_seed_and_epoch_do_not_stand_for_each_other(batches, tiny_source):
    size = tiny_source.size("train")
    first, second = batches(2, batch_size=size)
    (other,) = batches(1, batch_size=size, seed=1)
    assert list(other.example) != list(first.example)
    assert list(other.example) != list(second.example)
    assert list(batches(1, batch_size=size)[0].example) == list(first.example)


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_shares_of_all_hosts_make_the_batch_of_one(batches, hosts):
    for step, whole in enumerate(batches(3)):
        shares = [
            batches(1, start_step=step, host_index=host, host_count=hosts)[0]
            for host in range(hosts)
        ]
        for name in ("sticker", "intention", "example"):
            joined = np.concatenate([getattr(share, name) for share in shares])
            np.testing.assert_array_equal(joined, getattr(whole, name))
        ids = np.concatenate([share.context.ids for share in shares])
        np.testing.assert_array_equal(ids, whole.context.ids)


def test_rows_are_those_of_their_example(batches, tiny_source, tiny_tokenizer):
    (batch,) = batches(1, batch_size=8)
    conversations = tiny_source.conversations("train", batch.example.tolist())
    tokens, _ = compose_context(tiny_tokenizer, conversations, text_config(), True)
    np.testing.assert_array_equal(batch.context.ids, tokens.ids)
    for row, conversation in enumerate(conversations):
        assert tiny_source.stickers[batch.sticker[row]].id == conversation.sticker
        assert tiny_source.intentions[batch.intention[row]] == conversation.intention
    types = [leaf.dtype for leaf in (batch.sticker, batch.intention, batch.example, batch.valid)]
    assert types == [np.int32, np.int32, np.int32, np.bool_]
    types = {name: leaf.dtype for name, leaf in vars(batch.context).items()}
    integers = dict.fromkeys(("ids", "type_ids", "turn"), np.int32)
    assert types == {**integers, "mask": np.bool_, "words": np.bool_}


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16, 50])
def test_evaluation_sees_each_conversation_once_and_in_order(
    tiny_source, tiny_tokenizer, batch_size
):
    seen = list(eval_batches(tiny_source, tiny_tokenizer, text_config(), "test", batch_size))
    assert all(batch.context.ids.shape[0] == batch_size for batch in seen)
    valid = np.concatenate([batch.valid for batch in seen])
    rows = np.concatenate([batch.example for batch in seen])
    assert list(rows[valid]) == list(range(tiny_source.size("test")))
    assert valid[: tiny_source.size("test")].all()
    assert not valid[tiny_source.size("test") :].any()
    assert np.concatenate([batch.context.mask for batch in seen]).any(axis=1).all()


def test_a_kept_split_gives_the_batches_that_reading_gives(
    tiny_source, tiny_tokenizer, batches, monkeypatch
):
    kept = {
        split: compose_split(tiny_source, tiny_tokenizer, text_config(), split)
        for split in ("train", "test")
    }
    lengths, cut = measure(tiny_source, tiny_tokenizer, text_config(), "train")
    np.testing.assert_array_equal(kept["train"].lengths, lengths)
    assert kept["train"].unread == cut
    read = batches(7), list(eval_batches(tiny_source, tiny_tokenizer, text_config(), "test", 16))
    monkeypatch.setattr(type(tiny_source), "conversations", None)  # nothing is read any more
    test = eval_batches(
        tiny_source, tiny_tokenizer, text_config(), "test", 16, composed=kept["test"]
    )
    for ours, theirs in zip((batches(7, composed=kept["train"]), list(test)), read, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
                np.testing.assert_array_equal(a, b)


def test_the_knowledge_budget_is_spent_only_where_there_is_knowledge(batches):
    assert batches(1)[0].context.ids.shape == (4, 52)
    assert batches(1, text=text_config(knowledge="off"))[0].context.ids.shape == (4, 40)


def test_a_batch_that_hosts_cannot_share_is_refused(batches):
    with pytest.raises(ValueError, match="not divisible by 3 hosts"):
        batches(1, host_count=3)


def test_the_bank_holds_the_gallery_and_only_training_annotations(tiny_source, tiny_tokenizer):
    bank = gallery_bank(tiny_source, tiny_tokenizer, image_size=16, attribute_tokens=8)
    first = images.load_pixels(tiny_source.image(0), 16, "first", "crop")
    cropped = gallery_bank(tiny_source, tiny_tokenizer, 16, 8, "first", "crop")
    np.testing.assert_array_equal(cropped.pixels[0], first)
    count = len(tiny_source.stickers)
    assert bank.pixels.shape == (count, 16, 16, 3)
    assert bank.pixels.dtype == np.uint8
    assert bank.attributes.ids.shape[1] == 8
    np.testing.assert_array_equal(bank.index, np.arange(count))
    present = [[bool(text) for text in s.attributes.values()] for s in tiny_source.stickers]
    np.testing.assert_array_equal(bank.attribute_mask, present)
    expected = np.zeros((count, 4), bool)
    for conversation in tiny_source.conversations("train"):
        row = tiny_source.sticker_rows[conversation.sticker]
        expected[row, tiny_source.intention_ids[conversation.intention]] = True
    np.testing.assert_array_equal(bank.intentions, expected)
    everything = relevance_annotations(tiny_source, ("train", "valid", "test"))
    assert (everything >= expected).all()


def test_the_vocabulary_is_learnt_from_training_texts_alone(tiny_source):
    texts = " ".join(training_texts(tiny_source))
    assert "story 0" in texts
    for split in ("valid", "test"):
        for conversation in tiny_source.conversations(split):
            assert conversation.turns[-1].text not in texts


def test_truncation_of_a_split_is_counted(tiny_source, tiny_tokenizer):
    lengths, cut = measure(tiny_source, tiny_tokenizer, text_config(context_tokens=12), "train")
    assert cut.conversations == len(lengths) == 16
    assert set(lengths) <= set(range(12, 12 + 13))  # the context full; knowledge where there is
    assert cut.newest_cut + cut.turns_dropped > 0


LEAVE_OPEN = """
import sys
from pathlib import Path
from fixtures.prepared import text_config
from int_ra_jax.data import tokenizer
from int_ra_jax.data import images
from int_ra_jax.data.batches import make_batches
from int_ra_jax.data.sticker_int import prepare

prepared, scratch = map(Path, sys.argv[1:])
source = prepare(prepared, scratch / "tfds")
tokenizer.train_wordpiece(["good morning"], scratch / "words", 200)
words = tokenizer.load_tokenizer(str(scratch / "words"))
stream = make_batches(source, words, text_config(), "train", 4, 0)
print(next(stream).example.shape)
"""


def test_a_process_that_leaves_a_stream_open_ends(prepared_dir, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", LEAVE_OPEN, str(prepared_dir), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(4,)"
    assert "Traceback" not in result.stderr
